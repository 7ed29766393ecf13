//! Files: uploads, downloads, thumbnails (Client-Server API, "Content repository"), and what is kept of other servers'.
//!
//! The bytes of a file are in a file of our own whose name is its media id, which we made: no path ever comes from what
//! somebody sent. What else is known of it is in the store.

mod bucket;
mod cache;
mod disposition;
mod download;
mod error;
mod fetch;
mod files;
mod flight;
mod moving;
mod multipart;
mod previews;
mod resize;
mod retention;
mod sweep;
mod thumbnail;
mod upload;

use std::{path::PathBuf, sync::Arc};

use stoa_event::ids::{OwnedServerName, ServerName};
use stoa_remote::Remote;
use stoa_store::{Env, Store};
use tokio::sync::{Mutex, Notify, Semaphore};

use crate::{bucket::Bucket, fetch::Fetches, files::Files, previews::Previews};
pub use crate::{
    bucket::BucketConfig,
    disposition::{disposition, may_be_inline},
    download::Download,
    error::Error,
    multipart::read_multipart,
    previews::PreviewConfig,
    retention::Retention,
    thumbnail::{Method, Thumbnail, ThumbnailRequest},
    upload::{About, Pending, Upload},
};

/// How media is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder that holds the files.
    pub folder: PathBuf,
    /// The largest file that can be uploaded, in bytes.
    pub max_upload: u64,
    /// The largest file of another server that is fetched, in bytes.
    pub max_remote: u64,
    /// How many bytes of other servers' files are kept, if there is a limit. What was not used for the longest goes first.
    pub remote_cache: Option<u64>,
    /// How long other servers' files are kept after their last use, in milliseconds, if there is a limit.
    pub remote_cache_ms: Option<u64>,
    /// How long other servers' files are kept after they came, in milliseconds, if there is a limit. They are asked for again.
    pub remote_age_ms: Option<u64>,
    /// How long the files of this server are kept. Nobody has them again.
    pub local: Retention,
    /// How many bytes of files a user may upload in all, if there is a limit.
    pub user_quota: Option<u64>,
    /// Whether files are also served to who shows no access token.
    pub allow_unauthenticated: bool,
    /// The largest image that thumbnails are made of, in pixels.
    pub max_pixels: u64,
    /// How many thumbnails are made at once.
    pub thumbnail_threads: usize,
    /// How many ids a user may reserve for files that are still to come.
    pub max_pending: usize,
    /// How long such an id can be used, in milliseconds.
    pub pending_ms: u64,
    /// How previews of links are made, if they are.
    pub previews: Option<PreviewConfig>,
    /// The bucket that uploads go to, if they do not stay in the folder.
    pub bucket: Option<BucketConfig>,
}

impl Config {
    /// The defaults, with the files in that folder.
    pub fn in_folder(folder: PathBuf) -> Config {
        Config {
            folder,
            max_upload: 100 << 20,
            max_remote: 100 << 20,
            remote_cache: Some(10 << 30),
            remote_cache_ms: None,
            remote_age_ms: None,
            local: Retention::default(),
            user_quota: None,
            allow_unauthenticated: false,
            max_pixels: 32_000_000,
            thumbnail_threads: 2,
            max_pending: 20,
            pending_ms: 24 * 60 * 60 * 1000,
            previews: None,
            bucket: None,
        }
    }
}

pub(crate) struct Inner {
    store: Store,
    env: Env,
    server: OwnedServerName,
    config: Config,
    files: Files,
    /// Those of other servers, each named by the hash of its URI.
    remote_files: Files,
    /// Which of our files have to go where space is short.
    days: parking_lot::Mutex<retention::Days>,
    /// Where uploads go; what is in the folder all the same is taken from there.
    bucket: Option<Bucket>,
    fetches: Fetches,
    previews: Option<Previews>,
    /// How many bytes they have in all, once that was counted. Held while it changes.
    cached_bytes: Mutex<Option<u64>>,
    /// Held while the file of a reserved id is put in its place.
    filling: Mutex<()>,
    /// Held while the sum of somebody's files is read and written.
    adding: Mutex<()>,
    /// Rings when a file has come for an id that was reserved.
    arrived: Notify,
    /// Images are decoded a few at a time: each needs much memory and a whole core.
    resizing: Semaphore,
}

/// A handle to the files; clones are the same.
#[derive(Clone)]
pub struct Media {
    pub(crate) inner: Arc<Inner>,
}

impl Media {
    /// The files that a store knows, and those that other servers give.
    ///
    /// # Errors
    /// [`Error::Bucket`] where its settings contradict each other.
    pub fn new(
        store: Store,
        env: Env,
        server: OwnedServerName,
        remote: Remote,
        config: Config,
    ) -> Result<Media, Error> {
        let inner = Inner {
            bucket: config.bucket.as_ref().map(Bucket::new).transpose()?,
            files: Files::new(config.folder.clone()),
            remote_files: Files::new(config.folder.join("remote")),
            fetches: Fetches::new(remote),
            previews: config.previews.clone().map(Previews::new),
            days: parking_lot::Mutex::default(),
            cached_bytes: Mutex::new(None),
            filling: Mutex::new(()),
            adding: Mutex::new(()),
            arrived: Notify::new(),
            resizing: Semaphore::new(config.thumbnail_threads.max(1)),
            store,
            env,
            server,
            config,
        };
        Ok(Media { inner: Arc::new(inner) })
    }

    /// Makes the folders, and removes what uploads that were interrupted by the end of the server left there.
    ///
    /// # Errors
    /// Where the folder refuses.
    pub async fn prepare(&self) -> Result<(), Error> {
        self.inner.files.prepare().await
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The name of this server.
    pub fn server(&self) -> &ServerName {
        &self.inner.server
    }
}

/// What a media id is made of: letters, digits, `_` and `-`. Nothing that means anything in a path.
pub(crate) fn check_id(id: &str) -> Result<(), Error> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if id.is_empty() || id.len() > 255 || !id.bytes().all(good) { Err(Error::BadId) } else { Ok(()) }
}

#[cfg(test)]
mod bucket_tests;
#[cfg(test)]
mod moving_tests;
#[cfg(test)]
mod remote_tests;
#[cfg(test)]
mod tests;
