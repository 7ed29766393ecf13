//! What tells others of what happened here: push gateways, browsers and application services. Each is a follower of the feed with
//! a cursor of its own, so nothing is lost by a crash and no request waits for it.

pub mod appservice;
pub mod mail;
pub mod push;
