//! Rows: what the tables hold, and who writes them. Each table is written by exactly one file here.

pub mod events;
pub mod rooms;
pub mod server;
