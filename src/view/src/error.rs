//! What goes wrong when somebody looks.

/// Why something is not shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there, or not to be seen by this user: the answer is the same.
    #[error("{0}")]
    NotFound(&'static str),
    /// The user may not look there.
    #[error("{0}")]
    Forbidden(String),
    /// A parameter is not what it should be.
    #[error("{0}")]
    InvalidParam(String),
    /// The connection of sliding sync is not there any more, or never was.
    #[error("This connection is not known any more; begin a new one")]
    UnknownPos,
    /// An event is not in the thread that it is said to be in.
    #[error("the event is not in that thread")]
    NotInThread,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] stoa_store::Error),
}
