//! What goes wrong with files.

use std::io;

/// Why something was not done with a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file (`M_NOT_FOUND`).
    #[error("{0}")]
    NotFound(&'static str),
    /// Not what a media id is made of (`M_INVALID_PARAM`).
    #[error("a media id has letters, digits, `_` and `-` only")]
    BadId,
    /// A parameter is not what it should be (`M_INVALID_PARAM`).
    #[error("{0}")]
    InvalidParam(&'static str),
    /// The file is too large (`M_TOO_LARGE`).
    #[error("a file has at most {0} bytes")]
    TooLarge(u64),
    /// The user may not (`M_FORBIDDEN`).
    #[error("{0}")]
    Forbidden(&'static str),
    /// The file has not come yet (`M_NOT_YET_UPLOADED`).
    #[error("the file has not been uploaded yet")]
    NotYetUploaded,
    /// There is a file already (`M_CANNOT_OVERWRITE_MEDIA`).
    #[error("this media id has a file already")]
    CannotOverwrite,
    /// The user has reserved too many ids (`M_LIMIT_EXCEEDED`).
    #[error("too many uploads are still to come")]
    TooManyPending {
        /// When the first of them ends.
        retry_after_ms: u64,
    },
    /// Thumbnails can be made of images only, and of some (`M_UNKNOWN`).
    #[error("no thumbnail can be made of this file")]
    NoThumbnail,
    /// The image is too large for thumbnails (`M_TOO_LARGE`).
    #[error("the image is too large to make a thumbnail of it")]
    ImageTooLarge,
    /// The file of another server is too large to be had here, or to make a thumbnail of it (502, `M_TOO_LARGE`).
    #[error("the file of the other server is too large")]
    RemoteTooLarge,
    /// Too many files of other servers are on their way (503).
    #[error("too many files of other servers are on their way")]
    Busy,
    /// The other server does not give its file (502).
    #[error("the other server does not give the file: {0}")]
    Away(String),
    /// There is no preview of a link, because what it leads to cannot be had (502).
    #[error("what the link leads to cannot be had")]
    NoPreview,
    /// Something failed here while a file of another server came.
    #[error("{0}")]
    Failed(String),
    /// The disk failed.
    #[error("the disk failed: {0}")]
    Disk(#[from] io::Error),
    /// The bucket that holds the files failed.
    #[error("the bucket failed: {0}")]
    Bucket(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] stoa_store::Error),
}
