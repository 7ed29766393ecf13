//! What goes wrong in rooms.

use stoa_event::{auth::Reject, format::FormatError, ids::OwnedUserId};

use crate::Unsigned;

/// Why something was not done. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This server does not know the room.
    #[error("this server does not know that room")]
    UnknownRoom,
    /// Something named is not there.
    #[error("{0}")]
    NotFound(&'static str),
    /// The user may not.
    #[error("{0}")]
    Forbidden(String),
    /// Nobody of this server may vouch for a restricted join; another server might (`M_UNABLE_TO_GRANT_JOIN`).
    #[error("{0}")]
    CannotVouch(&'static str),
    /// This server cannot tell whether a restricted join is allowed; another one might (`M_UNABLE_TO_AUTHORISE_JOIN`).
    #[error("{0}")]
    CannotTell(&'static str),
    /// The room's policy server must sign the event before it is sent: [`crate::Rooms::signed`] goes on then.
    #[error("the room's policy server must sign the event")]
    Unsigned(Box<Unsigned>),
    /// The room's state is not whole yet, and who it is about is not among the members that are known.
    #[error("the members of the room are still being fetched from other servers; try again soon")]
    Partial,
    /// The law refuses the event.
    #[error(transparent)]
    Rejected(#[from] Reject),
    /// The event cannot be made: too large, or not canonical JSON.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The content has not the shape that its type asks for.
    #[error("{0}")]
    BadContent(String),
    /// A parameter is not what it should be.
    #[error("{0}")]
    InvalidParam(String),
    /// The state asked for at creation is not allowed.
    #[error("{0}")]
    InvalidRoomState(String),
    /// The room version is not known here.
    #[error("room version {0} is not supported")]
    UnsupportedVersion(String),
    /// The alias is in use.
    #[error("that alias is taken")]
    AliasTaken,
    /// An alias in `m.room.canonical_alias` does not point to the room.
    #[error("{0}")]
    BadAlias(String),
    /// The user has put the same annotation on the event before.
    #[error("you have reacted with that already")]
    DuplicateAnnotation,
    /// A thread cannot begin at an event that relates to another one.
    #[error("a thread cannot begin at an event that relates to another one")]
    BadThread,
    /// Who is invited wants no invites from the sender (`M_INVITE_BLOCKED`).
    #[error("{0} does not want that invite")]
    InviteBlocked(OwnedUserId),
    /// A client would subscribe to a thread that the user left since.
    #[error("the user unsubscribed from the thread after that event")]
    Unsubscribed,
    /// The delay is longer than this server allows (`M_DELAY_TOO_LARGE`).
    #[error("events are delayed by {max_ms} milliseconds at most")]
    DelayTooLong {
        /// What it allows.
        max_ms: u64,
    },
    /// As many delayed events of the user wait as may (`M_LIMIT_EXCEEDED`).
    #[error("the maximum number of delayed events has been reached")]
    TooManyDelayed {
        /// When the next of them is sent.
        retry_after_ms: u64,
    },
    /// What is asked for contradicts what became of the delayed event.
    #[error("{0}")]
    DelayOver(&'static str),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] stoa_store::Error),
}

impl Error {
    pub(crate) fn forbidden(why: impl Into<String>) -> Error {
        Error::Forbidden(why.into())
    }
}
