//! Uploads: the bytes go to an unfinished file as they come, are counted, synced, and put in their place; then the store
//! learns of them.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use stoa_event::ids::ServerName;
use stoa_store::{
    Direction, Snapshot, Tx, UserNo,
    rows::media::{self, File, Media as Row},
    schema,
};
use tokio::{fs, io::AsyncWriteExt};

use crate::{Error, Media, check_id, files};

/// The most bytes of a file's name, and of its media type.
pub(crate) const TEXT_BYTES: usize = 255;

/// Client-Server API, "Content repository": a quota is a matter of permission.
const OVER_QUOTA: Error = Error::Forbidden("your files have reached the quota of this server");

/// What the uploader says about a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The media type.
    pub content_type: Option<String>,
    /// The name.
    pub name: Option<String>,
}

/// An id whose file is still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The media id.
    pub id: String,
    /// Until when it can be used, in milliseconds since 1970.
    pub expires: u64,
}

/// A file that is coming. Dropping it forgets what has come.
#[derive(Debug)]
pub struct Upload {
    file: fs::File,
    path: Option<PathBuf>,
    size: u64,
    limit: u64,
    /// What the uploader's quota leaves.
    left: u64,
}

impl Upload {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when they are too many, [`Error::Forbidden`] when they are more than the uploader may keep here.
    pub async fn write(&mut self, bytes: &Bytes) -> Result<(), Error> {
        self.size += bytes.len() as u64;
        fits(self.size, self.limit, self.left)?;
        self.file.write_all(bytes).await?;
        Ok(())
    }

    /// Where what has come can be read.
    pub(crate) async fn written(&mut self) -> Result<PathBuf, Error> {
        self.file.flush().await?;
        Ok(self.path.clone().unwrap_or_default())
    }

    /// Puts a file that has come whole in its place; answers how many bytes it has.
    pub(crate) async fn settle_at(mut self, place: &Path) -> Result<u64, Error> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        if let Some(from) = &self.path {
            files::settle(from, place).await?;
        }
        self.path = None;
        Ok(self.size)
    }
}

fn fits(size: u64, limit: u64, left: u64) -> Result<(), Error> {
    match size {
        size if size > limit => Err(Error::TooLarge(limit)),
        size if size > left => Err(OVER_QUOTA),
        _ => Ok(()),
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Media {
    /// Begins to take a file of a user, whose length may be known.
    ///
    /// # Errors
    /// [`Error::TooLarge`] and [`Error::Forbidden`], before anything was read.
    pub async fn begin(&self, uploader: UserNo, length: Option<u64>) -> Result<Upload, Error> {
        let limit = self.inner.config.max_upload;
        let left = match self.inner.config.user_quota {
            Some(quota) => quota.saturating_sub(self.total(&self.inner.store.snapshot().await?, uploader).await?),
            None => u64::MAX,
        };
        fits(length.unwrap_or(0), limit, left)?;
        let mut upload = self.receive(limit).await?;
        upload.left = left;
        Ok(upload)
    }

    /// Begins to take a file that nobody's quota counts.
    pub(crate) async fn receive(&self, limit: u64) -> Result<Upload, Error> {
        let path = self.inner.files.unfinished(&self.inner.env.token(24));
        let file = fs::File::create_new(&path).await?;
        Ok(Upload { file, path: Some(path), size: 0, limit, left: u64::MAX })
    }

    /// Keeps a file that has come whole, under a new id.
    ///
    /// # Errors
    /// Where disk or store fail.
    pub async fn keep(&self, upload: Upload, uploader: UserNo, about: About) -> Result<String, Error> {
        let about = about.check()?;
        let id = self.new_id();
        let row = Row { uploader, created: self.inner.env.now_ms(), file: None, expires: None, used: None };
        self.settle(upload, &id, row, about).await?;
        Ok(id)
    }

    /// Keeps a file that has come whole, under an id that its uploader reserved.
    ///
    /// # Errors
    /// As [`Media::may_fill`].
    pub async fn fill(&self, upload: Upload, id: &str, uploader: UserNo, about: About) -> Result<(), Error> {
        let about = about.check()?;
        // One at a time, and asked again: meanwhile another upload may have come to the same id.
        let _one = self.inner.filling.lock().await;
        let row = self.reserved(id, uploader).await?;
        self.settle(upload, id, row, about).await?;
        self.inner.arrived.notify_waiters();
        Ok(())
    }

    /// Whether a user may upload the file of that id. Ask before reading it.
    ///
    /// # Errors
    /// [`Error::NotFound`] where it was not reserved or has expired, [`Error::Forbidden`] where somebody else did,
    /// [`Error::CannotOverwrite`] where it has come.
    pub async fn may_fill(&self, server: &ServerName, id: &str, uploader: UserNo) -> Result<(), Error> {
        check_id(id)?;
        if server != self.inner.server {
            return Err(Error::NotFound("this server did not make that media id"));
        }
        self.reserved(id, uploader).await.map(drop)
    }

    async fn reserved(&self, id: &str, uploader: UserNo) -> Result<Row, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let unknown = Error::NotFound("this media id was not made here, or has expired");
        let Some(row) = snapshot.get(&schema::MEDIA, &id.to_owned()).await? else { return Err(unknown) };
        let now = self.inner.env.now_ms();
        match &row {
            row if row.uploader != uploader => Err(Error::Forbidden("somebody else made this media id")),
            Row { file: Some(_), .. } => Err(Error::CannotOverwrite),
            Row { expires: Some(expires), .. } if *expires <= now => Err(unknown),
            _ => Ok(row),
        }
    }

    /// Reserves an id for a file that comes later.
    ///
    /// # Errors
    /// [`Error::TooManyPending`]
    pub async fn reserve(&self, uploader: UserNo) -> Result<Pending, Error> {
        let config = &self.inner.config;
        let now = self.inner.env.now_ms();
        let snapshot = self.inner.store.snapshot().await?;
        let waiting = snapshot.scan(&schema::MEDIA_PENDING, &uploader, Direction::Forward, usize::MAX).await?;
        let mut tx = Tx::new();
        let (over, live): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(_, expires)| *expires <= now);
        for ((_, id), _) in over {
            media::delete(&mut tx, &id, uploader);
        }
        if live.len() >= config.max_pending {
            let first = live.iter().map(|(_, expires)| *expires).min().unwrap_or(now);
            return Err(Error::TooManyPending { retry_after_ms: first - now });
        }
        let (id, expires) = (self.new_id(), now + config.pending_ms);
        media::reserve(&mut tx, &id, &Row { uploader, created: now, file: None, expires: Some(expires), used: None });
        self.inner.store.commit(tx).await?;
        Ok(Pending { id, expires })
    }

    /// First the bytes, then the row: a row without bytes would be a broken promise, bytes without a row are only waste.
    async fn settle(&self, mut upload: Upload, id: &str, old: Row, about: About) -> Result<(), Error> {
        let file = File { size: upload.size, content_type: about.content_type, name: about.name };
        match &self.inner.bucket {
            Some(bucket) => bucket.object(id).put(&upload.written().await?, &file).await?,
            None => drop(upload.settle_at(&self.inner.files.of(id)).await?),
        }
        let noted = self.note(id, old, file).await;
        if noted.is_err() {
            self.remove(id).await;
        }
        noted
    }

    /// Removes the bytes of an upload that the store does not know any more. What stays is swept up.
    pub(crate) async fn remove(&self, id: &str) {
        let _ = fs::remove_file(self.inner.files.of(id)).await;
        let _ = fs::remove_dir_all(self.inner.files.thumbnails(id)).await;
        if let Some(bucket) = &self.inner.bucket
            && let Err(why) = bucket.object(id).delete().await
        {
            tracing::warn!(%why, "cannot remove a file from the bucket");
        }
    }

    async fn note(&self, id: &str, old: Row, file: File) -> Result<(), Error> {
        let _one = self.inner.adding.lock().await;
        let total = self.total(&self.inner.store.snapshot().await?, old.uploader).await?.saturating_add(file.size);
        // Other uploads may have come to their end while this one ran.
        if self.inner.config.user_quota.is_some_and(|quota| total > quota) {
            return Err(OVER_QUOTA);
        }
        let mut tx = Tx::new();
        let reserved = old.expires.is_some();
        tx.assert(&schema::MEDIA, &id.to_owned(), reserved.then_some(&old));
        media::put(&mut tx, id, &Row { file: Some(file), expires: None, ..old }, total);
        self.inner.store.commit(tx).await?;
        Ok(())
    }

    /// How many bytes a user's files have.
    pub(crate) async fn total(&self, snapshot: &Snapshot, user: UserNo) -> Result<u64, Error> {
        Ok(snapshot.get(&schema::MEDIA_TOTALS, &user).await?.unwrap_or(0))
    }

    fn new_id(&self) -> String {
        self.inner.env.token(24)
    }
}

impl About {
    fn check(self) -> Result<About, Error> {
        let long = |text: &Option<String>| text.as_ref().is_some_and(|text| text.len() > TEXT_BYTES);
        if long(&self.name) {
            return Err(Error::InvalidParam("the file name is too long"));
        }
        if long(&self.content_type) {
            return Err(Error::InvalidParam("the content type is too long"));
        }
        Ok(self)
    }
}
