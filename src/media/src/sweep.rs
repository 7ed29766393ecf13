//! Files that nobody can ask for: their bytes came, but the server ended before the store knew of them. And those of other
//! servers that are kept no longer.

use std::{
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use futures_util::{StreamExt, TryStreamExt};
use stoa_store::schema;
use tokio::{
    fs,
    time::{MissedTickBehavior, interval},
};

use crate::{Error, Media, check_id, files::Files};

/// How old a file must be. One that just came has a row within seconds.
const AGE_MS: u64 = 60 * 60 * 1000;
/// How often a piece of the work is done: one of the folders that files are spread over.
const PAUSE: Duration = Duration::from_secs(60);
/// After how many of them the bucket is looked at again, and at how many objects at once.
const BUCKET_TICKS: u32 = 24 * 60;
const OBJECTS: usize = 1_000;

/// Whose files are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Ours,
    Theirs,
}

impl Media {
    /// Looks for such files and removes them, for ever, a little every minute.
    pub async fn run(self) {
        let mut ticks = interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut ours, mut theirs) = (None, None);
        let (mut our_rows, mut their_rows) = (None, None);
        let (mut objects, mut since) = (None, 0_u32);
        loop {
            ticks.tick().await;
            for (whose, after) in [(Whose::Ours, &mut ours), (Whose::Theirs, &mut theirs)] {
                *after = self.sweep(whose, after.as_deref()).await.unwrap_or_else(|why| {
                    tracing::warn!(%why, "cannot look for files that nobody can ask for");
                    None
                });
            }
            for (whose, after) in [(Whose::Ours, &mut our_rows), (Whose::Theirs, &mut their_rows)] {
                *after = self.retain(whose, after.take()).await.unwrap_or_else(|why| {
                    tracing::warn!(%why, "cannot forget files that are kept no longer");
                    None
                });
            }
            // A bucket is asked for money: once a day from the beginning to the end.
            since = since.saturating_add(1);
            if objects.is_some() || since >= BUCKET_TICKS {
                objects = self.sweep_bucket(objects.take()).await.unwrap_or_else(|why| {
                    tracing::warn!(%why, "cannot look for files in the bucket that nobody can ask for");
                    None
                });
                since = 0;
            }
            if let Err(why) = self.forget().await {
                tracing::warn!(%why, "cannot forget files of other servers");
            }
        }
    }

    fn of(&self, whose: Whose) -> &Files {
        match whose {
            Whose::Ours => &self.inner.files,
            Whose::Theirs => &self.inner.remote_files,
        }
    }

    /// Sweeps the folder that follows this one; answers which it was, or nothing after the last.
    pub(crate) async fn sweep(&self, whose: Whose, after: Option<&str>) -> Result<Option<String>, Error> {
        let folder = self.of(whose).folder();
        let mut shards = names(folder).await?;
        // Shards have names of two letters (one for very short ids); other folders are none.
        shards.retain(|name| name.len() <= 2 && after.is_none_or(|after| name.as_str() > after));
        let Some(shard) = shards.into_iter().min() else { return Ok(None) };
        for inner in names(&folder.join(&shard)).await? {
            for id in names(&folder.join(&shard).join(inner)).await? {
                self.sweep_one(whose, &id).await?;
            }
        }
        Ok(Some(shard))
    }

    async fn sweep_one(&self, whose: Whose, id: &str) -> Result<(), Error> {
        if check_id(id).is_err() {
            return Ok(());
        }
        let path = self.of(whose).of(id);
        let Some(written_ms) = written_ms(&path).await else { return Ok(()) };
        // The age first: what is old by then had its row long ago, if it ever gets one.
        if written_ms.saturating_add(AGE_MS) > self.inner.env.now_ms() {
            return Ok(());
        }
        if !self.is_known(whose, id).await? {
            tracing::info!("removing a file that the database does not know");
            fs::remove_file(&path).await?;
            let _ = fs::remove_dir_all(self.of(whose).thumbnails(id)).await;
        }
        Ok(())
    }

    /// Sweeps the objects that follow this one; answers where to go on, or nothing after the last.
    pub(crate) async fn sweep_bucket(&self, after: Option<String>) -> Result<Option<String>, Error> {
        let Some(bucket) = &self.inner.bucket else { return Ok(None) };
        let mut objects = std::pin::pin!(bucket.after(after.as_deref()).take(OBJECTS));
        let mut last = None;
        while let Some((id, about)) = objects.try_next().await? {
            let written_ms = u64::try_from(about.last_modified.timestamp_millis()).unwrap_or(u64::MAX);
            let is_old = written_ms.saturating_add(AGE_MS) <= self.inner.env.now_ms();
            if is_old && !self.is_known(Whose::Ours, &id).await? {
                tracing::info!("removing a file from the bucket that the database does not know");
                bucket.object(&id).delete().await?;
            }
            last = Some(about.location.to_string());
        }
        Ok(last)
    }

    async fn is_known(&self, whose: Whose, id: &str) -> Result<bool, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        Ok(match whose {
            Whose::Ours => snapshot.get(&schema::MEDIA, &id.to_owned()).await?.is_some_and(|row| row.file.is_some()),
            Whose::Theirs => snapshot.has(&schema::REMOTE_MEDIA, &id.to_owned()).await?,
        })
    }
}

/// The names in a folder; none where there is no folder.
async fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let Ok(mut entries) = fs::read_dir(folder).await else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}

/// When a file was last written, in milliseconds since 1970; nothing where it is no plain file.
async fn written_ms(path: &PathBuf) -> Option<u64> {
    let about = fs::symlink_metadata(path).await.ok().filter(std::fs::Metadata::is_file)?;
    let written = about.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(written.as_millis()).ok()
}
