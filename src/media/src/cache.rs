//! What is kept of other servers' files: as much as the settings allow; what was not used for the longest time goes first.

use std::ops::Bound;

use stoa_store::{
    Direction, Snapshot, Tx,
    rows::{
        media::File,
        remote_media::{self, RemoteMedia},
    },
    schema,
};
use tokio::fs;

use crate::{
    Error, Media,
    upload::{About, Upload},
};

/// How old the note of the last use may be. Writing it each time would make a write of every download.
const USE_MS: u64 = 60 * 60 * 1000;
/// How many files are forgotten in one commit.
const BATCH: usize = 100;
/// How many rows are counted at once.
const PAGE: usize = 10_000;

impl Media {
    /// A file that is here, bytes and all.
    pub(crate) async fn cached(&self, hash: &str) -> Result<Option<RemoteMedia>, Error> {
        let Some(row) = self.remote_row(hash).await?.filter(|row| !self.is_too_old(row)) else { return Ok(None) };
        // Somebody may have deleted the folder: it can all be had again.
        let there = fs::metadata(self.inner.remote_files.of(hash)).await;
        Ok(there.is_ok_and(|there| there.len() == row.file.size).then_some(row))
    }

    async fn remote_row(&self, hash: &str) -> Result<Option<RemoteMedia>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        Ok(snapshot.get(&schema::REMOTE_MEDIA, &hash.to_owned()).await?)
    }

    /// Notes that a file was used.
    pub(crate) async fn used(&self, hash: &str, row: &RemoteMedia) -> Result<(), Error> {
        let now = self.inner.env.now_ms();
        if row.used.saturating_add(USE_MS) > now {
            return Ok(());
        }
        let _one = self.inner.cached_bytes.lock().await;
        // It may have been forgotten meanwhile.
        let Some(old) = self.remote_row(hash).await? else { return Ok(()) };
        let mut tx = Tx::new();
        remote_media::put(&mut tx, hash, Some(&old), &RemoteMedia { used: now, ..old.clone() });
        self.inner.store.commit(tx).await?;
        Ok(())
    }

    /// Keeps a file that has come whole, and forgets others where that is too much.
    pub(crate) async fn cache(
        &self,
        upload: Upload,
        hash: &str,
        (server, id): (&str, &str),
        about: About,
    ) -> Result<RemoteMedia, Error> {
        let mut total = self.inner.cached_bytes.lock().await;
        let bytes = self.counted(&mut total).await?;
        let now = self.inner.env.now_ms();
        let size = upload.settle_at(&self.inner.remote_files.of(hash)).await?;
        let old = self.remote_row(hash).await?;
        let file = File { size, content_type: about.content_type, name: about.name };
        let row = RemoteMedia { server: server.to_owned(), id: id.to_owned(), file, fetched: now, used: now };
        let mut tx = Tx::new();
        remote_media::put(&mut tx, hash, old.as_ref(), &row);
        self.inner.store.commit(tx).await?;
        *total = Some(bytes.saturating_sub(old.map_or(0, |old| old.file.size)) + size);
        self.trim(&mut total, Some(hash)).await?;
        Ok(row)
    }

    /// Forgets what is too old, or too much.
    pub(crate) async fn forget(&self) -> Result<(), Error> {
        let mut total = self.inner.cached_bytes.lock().await;
        self.counted(&mut total).await?;
        if let Some(age) = self.inner.config.remote_cache_ms {
            let before = self.inner.env.now_ms().saturating_sub(age);
            loop {
                let snapshot = self.inner.store.snapshot().await?;
                let (from, to) = (Bound::<u64>::Unbounded, Bound::Excluded(before));
                let old = snapshot.range(&schema::REMOTE_MEDIA_USED, from, to, Direction::Forward, BATCH).await?;
                if old.is_empty() {
                    break;
                }
                self.forget_these(old, &mut total).await?;
            }
        }
        self.trim(&mut total, None).await
    }

    /// Forgets the oldest until the rest is not too much, but not one that just came.
    async fn trim(&self, total: &mut Option<u64>, spare: Option<&str>) -> Result<(), Error> {
        let Some(most) = self.inner.config.remote_cache else { return Ok(()) };
        loop {
            let mut left = total.unwrap_or(0);
            if left <= most {
                return Ok(());
            }
            let snapshot = self.inner.store.snapshot().await?;
            let mut oldest = snapshot.scan(&schema::REMOTE_MEDIA_USED, &(), Direction::Forward, BATCH).await?;
            oldest.retain(|((_, hash), size)| {
                let goes = left > most && spare != Some(hash.as_str());
                left = if goes { left.saturating_sub(*size) } else { left };
                goes
            });
            if oldest.is_empty() {
                return Ok(());
            }
            self.forget_these(oldest, total).await?;
        }
    }

    /// Forgets a file, if it is still there.
    pub(crate) async fn forget_one(&self, hash: &str) -> Result<(), Error> {
        let mut total = self.inner.cached_bytes.lock().await;
        // It may have come again meanwhile.
        match self.remote_row(hash).await?.filter(|row| self.is_too_old(row)) {
            Some(row) => self.forget_these(vec![((row.used, hash.to_owned()), row.file.size)], &mut total).await,
            None => Ok(()),
        }
    }

    async fn forget_these(&self, these: Vec<((u64, String), u64)>, total: &mut Option<u64>) -> Result<(), Error> {
        let mut tx = Tx::new();
        for ((used, hash), _) in &these {
            remote_media::delete(&mut tx, hash, *used);
        }
        self.inner.store.commit(tx).await?;
        for ((_, hash), size) in these {
            *total = total.map(|total| total.saturating_sub(size));
            // What stays because the disk fails is swept up later.
            let _ = fs::remove_file(self.inner.remote_files.of(&hash)).await;
            let _ = fs::remove_dir_all(self.inner.remote_files.thumbnails(&hash)).await;
        }
        Ok(())
    }

    /// How many bytes the files have in all; the first time they are counted.
    async fn counted(&self, total: &mut Option<u64>) -> Result<u64, Error> {
        if let Some(total) = total {
            return Ok(*total);
        }
        let counted = count(&self.inner.store.snapshot().await?).await?;
        *total = Some(counted);
        Ok(counted)
    }
}

async fn count(snapshot: &Snapshot) -> Result<u64, Error> {
    let (mut sum, mut from) = (0u64, Bound::Unbounded);
    loop {
        let table = &schema::REMOTE_MEDIA_USED;
        let page = snapshot.range(table, from, Bound::<u64>::Unbounded, Direction::Forward, PAGE).await?;
        sum = page.iter().fold(sum, |sum, (_, size)| sum.saturating_add(*size));
        match page.into_iter().last() {
            Some((last, _)) => from = Bound::Excluded(last),
            None => return Ok(sum),
        }
    }
}
