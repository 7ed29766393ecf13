//! Downloads, whole or in part.

use std::{
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
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

use crate::{
    Error, Media,
    bucket::{Object, Place},
    check_id,
    fetch::hash_of,
    files::Files,
    upload::Upload,
};

/// How many bytes are read at once.
const PIECE: usize = 64 * 1024;
/// How long somebody may wait for a file that is still to come.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A file to be sent.
#[derive(Debug)]
pub struct Download {
    source: Source,
    /// How many bytes the whole file has.
    pub size: u64,
    /// The media type that its uploader said.
    pub content_type: Option<String>,
    /// The name that its uploader gave it.
    pub name: Option<String>,
}

#[derive(Debug)]
enum Source {
    Disk(fs::File),
    Bucket(Object),
}

/// A file that is here.
pub(crate) struct Found {
    /// Its bytes.
    pub(crate) place: Place,
    /// Its thumbnails.
    pub(crate) thumbnails: PathBuf,
    pub(crate) file: File,
}

impl Found {
    fn on_disk(files: &Files, name: &str, file: File) -> Found {
        Found { place: Place::Disk(files.of(name)), thumbnails: files.thumbnails(name), file }
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
        let mut source = found.place.open().await;
        // One that is only kept for a while may have been forgotten just now.
        if source.as_ref().is_err_and(|why| why.kind() == io::ErrorKind::NotFound) {
            found = self.find(server, id, wait).await?;
            source = found.place.open().await;
        }
        let File { size, content_type, name } = found.file;
        Ok(Download { source: source?, size, content_type, name })
    }

    /// What is known of a file that is here, or comes now.
    pub(crate) async fn find(&self, server: &ServerName, id: &str, wait: Duration) -> Result<Found, Error> {
        check_id(id)?;
        let wait = wait.min(MAX_WAIT);
        if server != self.inner.server {
            let (hash, row) = self.of_elsewhere(server, id, wait).await?;
            return Ok(Found::on_disk(&self.inner.remote_files, &hash, row.file));
        }
        match self.find_ours(id, wait).await {
            Ok(file) => Ok(self.of_ours(id, file).await),
            Err(why @ Error::NotFound(_)) => self.of_preview(id).await?.ok_or(why),
            Err(why) => Err(why),
        }
    }

    /// Where an upload is: in the bucket, unless it came before there was one.
    async fn of_ours(&self, id: &str, file: File) -> Found {
        let found = Found::on_disk(&self.inner.files, id, file);
        match (&self.inner.bucket, &found.place) {
            (Some(bucket), Place::Disk(path)) if !fs::try_exists(path).await.unwrap_or(true) => {
                Found { place: Place::Bucket(bucket.object(id)), ..found }
            }
            _ => found,
        }
    }

    /// A file on disk, so that it can be read here and there; one of the bucket is brought for as long as that takes.
    pub(crate) async fn at_hand(&self, found: &Found) -> Result<AtHand, Error> {
        let object = match &found.place {
            Place::Disk(path) => return Ok(AtHand { path: path.clone(), _brought: None }),
            Place::Bucket(object) => object,
        };
        let mut brought = self.receive(found.file.size).await?;
        let mut bytes = std::pin::pin!(object.bytes(0, found.file.size).await?);
        while let Some(piece) = bytes.try_next().await? {
            brought.write(&piece).await?;
        }
        Ok(AtHand { path: brought.written().await?, _brought: Some(brought) })
    }

    /// The picture of a preview, which has an id of ours but is kept no longer than files of others.
    async fn of_preview(&self, id: &str) -> Result<Option<Found>, Error> {
        let hash = hash_of(&self.inner.server, id);
        let Some(row) = self.cached(&hash).await? else { return Ok(None) };
        self.used(&hash, &row).await?;
        Ok(Some(Found::on_disk(&self.inner.remote_files, &hash, row.file)))
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

/// A file on disk. One that was only brought is gone when this is.
pub(crate) struct AtHand {
    path: PathBuf,
    _brought: Option<Upload>,
}

impl AtHand {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Place {
    async fn open(&self) -> io::Result<Source> {
        match self {
            Place::Disk(path) => Ok(Source::Disk(fs::File::open(path).await?)),
            Place::Bucket(object) => Ok(Source::Bucket(object.clone())),
        }
    }
}

impl Download {
    /// A link to the file that is good for a while, and for how long: where it is in a bucket, and the settings want that.
    ///
    /// # Errors
    /// [`Error::Bucket`]
    pub async fn link(&self) -> Result<Option<(String, Duration)>, Error> {
        match &self.source {
            Source::Disk(_) => Ok(None),
            Source::Bucket(object) => {
                object.link(self.content_type.as_deref().unwrap_or_default(), self.name.as_deref()).await
            }
        }
    }

    /// The bytes from `from` on, `length` of them, piece by piece.
    ///
    /// # Errors
    /// Where disk or bucket fail.
    pub async fn bytes(
        self,
        from: u64,
        length: u64,
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + 'static, Error> {
        let mut file = match self.source {
            Source::Disk(file) => file,
            Source::Bucket(object) => return Ok(object.bytes(from, length).await?.left_stream()),
        };
        if from > 0 {
            file.seek(SeekFrom::Start(from)).await?;
        }
        let rest = file.take(length);
        let pieces = stream::try_unfold(rest, |mut rest| async move {
            let left = usize::try_from(rest.limit()).unwrap_or(PIECE);
            let mut piece = Vec::with_capacity(PIECE.min(left));
            if left == 0 || rest.read_buf(&mut piece).await? == 0 {
                return Ok(None);
            }
            Ok(Some((Bytes::from(piece), rest)))
        });
        Ok(pieces.right_stream())
    }
}
