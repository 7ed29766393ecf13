//! Downloads, whole or in part.

use std::{io::SeekFrom, time::Duration};

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

use crate::{Error, Media, check_id};

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

impl Media {
    /// Opens a file. Where it has been reserved but has not come yet, waits for it for a while.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::BadId`], [`Error::NotYetUploaded`]
    pub async fn open(&self, server: &ServerName, id: &str, wait: Duration) -> Result<Download, Error> {
        let file = self.find(server, id, wait).await?;
        let path = self.inner.files.of(id);
        let opened = fs::File::open(&path).await?;
        Ok(Download { file: opened, size: file.size, content_type: file.content_type, name: file.name })
    }

    /// What is known of a file that has come.
    pub(crate) async fn find(&self, server: &ServerName, id: &str, wait: Duration) -> Result<File, Error> {
        check_id(id)?;
        if server != self.inner.server {
            return Err(Error::NotFound("files of other servers cannot be had here yet"));
        }
        let until = Instant::now() + wait.min(MAX_WAIT);
        loop {
            let arrived = self.inner.arrived.notified();
            tokio::pin!(arrived);
            // From here on nothing that comes is missed.
            arrived.as_mut().enable();
            match self.row(id).await? {
                None => return Err(Error::NotFound("there is no such file")),
                Some(Row { file: Some(file), .. }) => return Ok(file),
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
