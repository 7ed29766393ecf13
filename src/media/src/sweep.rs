//! Files that nobody can ask for: their bytes came, but the server ended before the store knew of them.

use std::{
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use stoa_store::schema;
use tokio::{
    fs,
    time::{MissedTickBehavior, interval},
};

use crate::{Error, Media, check_id};

/// How old a file must be. One that just came has a row within seconds.
const AGE_MS: u64 = 60 * 60 * 1000;
/// How often a piece of the work is done: one of the folders that files are spread over.
const PAUSE: Duration = Duration::from_secs(60);

impl Media {
    /// Looks for such files and removes them, for ever, a little every minute.
    pub async fn run(self) {
        let mut ticks = interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut after = None;
        loop {
            ticks.tick().await;
            match self.sweep(after.as_deref()).await {
                Ok(next) => after = next,
                Err(why) => {
                    tracing::warn!(%why, "cannot look for files that nobody can ask for");
                    after = None;
                }
            }
        }
    }

    /// Sweeps the folder that follows this one; answers which it was, or nothing after the last.
    pub(crate) async fn sweep(&self, after: Option<&str>) -> Result<Option<String>, Error> {
        let folder = self.inner.files.folder();
        let mut shards = names(folder).await?;
        // Shards have names of two letters (one for very short ids); other folders are none.
        shards.retain(|name| name.len() <= 2 && after.is_none_or(|after| name.as_str() > after));
        let Some(shard) = shards.into_iter().min() else { return Ok(None) };
        for inner in names(&folder.join(&shard)).await? {
            for id in names(&folder.join(&shard).join(inner)).await? {
                self.sweep_one(&id).await?;
            }
        }
        Ok(Some(shard))
    }

    async fn sweep_one(&self, id: &str) -> Result<(), Error> {
        if check_id(id).is_err() {
            return Ok(());
        }
        let path = self.inner.files.of(id);
        let Some(written_ms) = written_ms(&path).await else { return Ok(()) };
        // The age first: what is old by then had its row long ago, if it ever gets one.
        if written_ms.saturating_add(AGE_MS) > self.inner.env.now_ms() {
            return Ok(());
        }
        let row = self.inner.store.snapshot().await?.get(&schema::MEDIA, &id.to_owned()).await?;
        if row.is_none_or(|row| row.file.is_none()) {
            tracing::info!("removing a file that the database does not know");
            fs::remove_file(&path).await?;
            let _ = fs::remove_dir_all(self.inner.files.thumbnails(id)).await;
        }
        Ok(())
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
