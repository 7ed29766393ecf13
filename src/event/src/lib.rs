//! The law of Matrix events: what an event is, whether it is allowed, what state follows.
//!
//! Pure functions over bytes. No I/O, no clock, no randomness: what differs between two runs is passed in.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod acl;
pub mod auth;
pub mod build;
pub mod format;
pub mod hash;
pub mod ids;
pub mod json;
pub mod pdu;
pub mod redact;
pub mod resolve;
pub mod sign;
pub mod version;
pub mod visible;
