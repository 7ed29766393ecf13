//! What goes wrong between servers.

/// What goes wrong between servers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another server could not be asked, or refused.
    #[error(transparent)]
    Remote(#[from] stoa_remote::Error),
    /// The room refused.
    #[error(transparent)]
    Rooms(#[from] stoa_rooms::Error),
    /// The accounts refused.
    #[error(transparent)]
    Accounts(#[from] stoa_accounts::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] stoa_store::Error),
    /// No server is known that could let the user in.
    #[error("no server is known that is in the room; name one with the parameter `via`")]
    NoServers,
    /// None of the servers that were asked could help: what the last of them said.
    #[error("none of the servers that are in the room could help; the last one: {0}")]
    NoneHelped(String),
    /// The room's version is not known to this server, or not to the one that asks.
    #[error("room version {0} is not supported")]
    IncompatibleVersion(String),
    /// What another server sent is not what it should be.
    #[error("{0}")]
    Bad(String),
    /// It may not.
    #[error("{0}")]
    Forbidden(String),
    /// It is not there, or not for who asks.
    #[error("{0}")]
    NotFound(&'static str),
}
