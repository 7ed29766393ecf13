//! Rows: what the tables hold, and who writes them. Each table is written by exactly one file here.

pub mod account_data;
pub mod delayed;
pub mod devices;
pub mod emails;
pub mod events;
pub mod filters;
pub mod invite_permission;
pub mod key_backup;
pub mod keys;
pub mod media;
pub mod outbox;
pub mod partial;
pub mod push_rules;
pub mod pushers;
pub mod receipts;
pub mod remote;
pub mod remote_media;
pub mod reports;
pub mod rooms;
pub mod server;
pub mod services;
pub mod threads;
pub mod to_device;
pub mod tokens;
pub mod users;
