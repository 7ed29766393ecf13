//! What goes wrong with other servers.

use bytes::Bytes;
use stoa_event::ids::OwnedServerName;

use crate::transport::TransportError;

/// What goes wrong with other servers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings do not allow to speak with that server.
    #[error("this server does not federate with {0}")]
    NotAllowed(OwnedServerName),
    /// It is this server itself.
    #[error("a server does not call itself")]
    Ourselves,
    /// It failed lately; it is left alone until then.
    #[error("the server failed lately and is left alone for now")]
    BackingOff {
        /// Milliseconds since 1970.
        until: u64,
    },
    /// Too many requests wait for that server.
    #[error("too many requests wait for that server")]
    Busy,
    /// The request cannot be written.
    #[error("the request cannot be written: {0}")]
    Request(String),
    /// There was no answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// It answered with an error.
    #[error("{0}")]
    Answer(Box<Answer>),
    /// Its answer is not what this endpoint answers.
    #[error("the answer is not what it should be: {0}")]
    Malformed(String),
    /// A request that came to us is not signed by who it says (401, `M_UNAUTHORIZED`).
    #[error("{0}")]
    Unauthorized(Unauthorized),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] stoa_store::Error),
}

impl Error {
    /// The answer of the other server, if it is one with an error.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Error::Answer(answer) => Some(answer),
            _ => None,
        }
    }
}

/// An answer with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// `errcode`, if the body is a Matrix error.
    pub errcode: Option<String>,
    /// `error`, which is for people.
    pub message: Option<String>,
    /// How long to wait, if it says so.
    pub retry_after_ms: Option<u64>,
    /// The body, which may say more.
    pub body: Bytes,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the other server answered {}", self.status)?;
        match &self.errcode {
            Some(errcode) => write!(f, " {errcode}"),
            None => Ok(()),
        }
    }
}

/// Why a request that came to us is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthorized {
    /// It was meant for another server.
    #[error("the request is meant for another server")]
    Destination,
    /// It says that it comes from us.
    #[error("the request says that it comes from this server")]
    FromOurselves,
    /// The key is unknown and could not be had.
    #[error("the key of the signature is not known")]
    UnknownKey,
    /// The key is no longer valid.
    #[error("the key of the signature is no longer valid")]
    ExpiredKey,
    /// The signature is wrong.
    #[error("the signature is wrong")]
    Signature,
    /// The body cannot be signed.
    #[error("the body is not JSON that can be signed")]
    Body,
}
