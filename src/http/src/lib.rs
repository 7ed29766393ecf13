//! What the handlers of both APIs share: who asks, bodies and parameters, answers, errors, limits, and the layers around
//! every request.

pub mod body;
mod drain;
mod error;
mod errors;
mod json;
pub mod layers;
pub mod limit;
pub mod origin;
mod params;
mod who;

pub use crate::{
    body::{Body, Raw},
    error::Error,
    json::{Empty, Json, JsonBytes},
    limit::Limits,
    params::{Params, Segments},
    who::{AsService, Ip, MaybeService, MaybeWho, Peer, Who},
};

/// What a handler gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;
