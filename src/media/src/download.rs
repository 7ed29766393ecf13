//! Downloads, whole or in part.

use std::{
    io::{self, SeekFrom},
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use stoa_event::ids::ServerName;
use stoa_store::{
    rows::media::{File, Media as Row},
    schema,
};
use tokio::{
    fs,
    io::{AsyncReadExt, AsyncSeekExt},
    time::Instant,
};

use crate::{Error, Media, check_id, fetch::hash_of, files::Files};

/// How many bytes are read at once.
const PIECE: usize = 64 * 1024;
/// How long somebody may wait for a file that is still to come.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A file to be sent.
#[derive(Debug)]
pub struct Download {
    file: fs::File,
    /// How many bytes the whole file has.
    pub size: u64,
    /// The media type that its uploader said.
    pub content_type: Option<String>,
    /// The name that its uploader gave it.
    pub name: Option<String>,
}

/// A file that is here.
pub(crate) struct Found {
    /// Its bytes.
    pub(crate) path: PathBuf,
    /// Its thumbnails.
    pub(crate) thumbnails: PathBuf,
    pub(crate) file: File,
}

impl Found {
    fn new(files: &Files, name: &str, file: File) -> Found {
        Found { path: files.of(name), thumbnails: files.thumbnails(name), file }
    }
}

impl Media {
    /// Opens a file. Where it has been reserved but has not come yet, waits for it for a while; one of another
    /// server is fetched.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::BadId`], [`Error::NotYetUploaded`]; for other servers also [`Error::Away`],
    /// [`Error::RemoteTooLarge`], [`Error::Busy`]
    pub async fn open(&self, server: &ServerName, id: &str, wait: Duration) -> Result<Download, Error> {
        let mut found = self.find(server, id, wait).await?;
        let mut opened = fs::File::open(&found.path).await;
        // One that is only kept for a while may have been forgotten just now.
        if opened.as_ref().is_err_and(|why| why.kind() == io::ErrorKind::NotFound) {
            found = self.find(server, id, wait).await?;
            opened = fs::File::open(&found.path).await;
        }
        let File { size, content_type, name } = found.file;
        Ok(Download { file: opened?, size, content_type, name })
    }

    /// What is known of a file that is here, or comes now.
    pub(crate) async fn find(&self, server: &ServerName, id: &str, wait: Duration) -> Result<Found, Error> {
        check_id(id)?;
        let wait = wait.min(MAX_WAIT);
        if server != self.inner.server {
            let (hash, row) = self.of_elsewhere(server, id, wait).await?;
            return Ok(Found::new(&self.inner.remote_files, &hash, row.file));
        }
        match self.find_ours(id, wait).await {
            Ok(file) => Ok(Found::new(&self.inner.files, id, file)),
            Err(why @ Error::NotFound(_)) => self.of_preview(id).await?.ok_or(why),
            Err(why) => Err(why),
        }
    }

    /// The picture of a preview, which has an id of ours but is kept no longer than files of others.
    async fn of_preview(&self, id: &str) -> Result<Option<Found>, Error> {
        let hash = hash_of(&self.inner.server, id);
        let Some(row) = self.cached(&hash).await? else { return Ok(None) };
        self.used(&hash, &row).await?;
        Ok(Some(Found::new(&self.inner.remote_files, &hash, row.file)))
    }

    async fn find_ours(&self, id: &str, wait: Duration) -> Result<File, Error> {
        let until = Instant::now() + wait;
        loop {
            let arrived = self.inner.arrived.notified();
            tokio::pin!(arrived);
            // From here on nothing that comes is missed.
            arrived.as_mut().enable();
            match self.row(id).await? {
                None => return Err(Error::NotFound("there is no such file")),
                Some(row) if row.file.is_some() => {
                    self.used_ours(id, &row).await?;
                    return row.file.ok_or(Error::NotYetUploaded);
                }
                Some(Row { expires: Some(expires), .. }) if expires <= self.inner.env.now_ms() => {
                    return Err(Error::NotFound("the file never came"));
                }
                Some(_) => {}
            }
            if tokio::time::timeout_at(until, arrived).await.is_err() {
                return Err(Error::NotYetUploaded);
            }
        }
    }

    async fn row(&self, id: &str) -> Result<Option<Row>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        Ok(snapshot.get(&schema::MEDIA, &id.to_owned()).await?)
    }
}

impl Download {
    /// The bytes from `from` on, `length` of them, piece by piece.
    ///
    /// # Errors
    /// Where the disk fails.
    pub async fn bytes(
        mut self,
        from: u64,
        length: u64,
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + 'static, Error> {
        if from > 0 {
            self.file.seek(SeekFrom::Start(from)).await?;
        }
        let rest = self.file.take(length);
        Ok(stream::try_unfold(rest, |mut rest| async move {
            let left = usize::try_from(rest.limit()).unwrap_or(PIECE);
            let mut piece = Vec::with_capacity(PIECE.min(left));
            if left == 0 || rest.read_buf(&mut piece).await? == 0 {
                return Ok(None);
            }
            Ok(Some((Bytes::from(piece), rest)))
        }))
    }
}
