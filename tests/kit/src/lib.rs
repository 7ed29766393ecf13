//! A small Matrix client for tests and benchmarks, in the words of the specification.
//!
//! `Home` is a homeserver (started here, or running elsewhere), `User` one device of an account on it, `Reply` one answer,
//! `Sync` one answer of `/sync`, and `Replica` a client that keeps its own copy of rooms from nothing but `/sync`.

mod account;
mod bridge;
mod browser;
mod bucket;
mod ca;
mod crowd;
mod garden;
mod gateway;
mod home;
mod http;
mod link;
mod mailbox;
mod origin;
mod process;
mod random;
mod replica;
mod room;
mod sign;
mod site;
mod synapse;
mod sync;
mod tls;

pub use account::User;
pub use bridge::{Bridge, Heard};
pub use browser::Browser;
pub use bucket::Bucket;
pub use ca::{Ca, CertificateFiles};
pub use crowd::Crowd;
pub use garden::Garden;
pub use gateway::{Fault, Gateway, Pushed};
pub use home::Home;
pub use http::{Client, Reply, encode};
pub use link::Link;
pub use mailbox::{Mail, Mailbox};
pub use origin::{Asked, Stranger, Told, ask_with, now_ms};
pub use process::{Launch, Server};
pub use random::{Dice, unique};
pub use replica::{Replica, RoomCopy};
pub use sign::Keys;
pub use site::{Page, Site};
pub use sync::{Sync, SyncOptions};
pub use tls::{TlsReply, get_over_tls};

pub use ::http::{Method, Request, header};
pub use serde_json::{Value, json};
