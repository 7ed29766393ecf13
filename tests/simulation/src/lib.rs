//! Several homeservers in one process, over a network that cuts, delays, loses, doubles and reorders, and at a clock that
//! runs as fast as there is nothing to do. Everything that happens follows from one number, the seed.
//!
//! [`play`] lets users act through the routers of their servers while the network fails and servers crash, heals everything,
//! waits, and holds what each server has against what was promised.

mod acts;
mod chance;
mod disk;
mod look;
mod network;
mod node;
mod quiet;
mod rooms;
mod user;
mod verdict;
mod world;

pub use world::{Played, play};
