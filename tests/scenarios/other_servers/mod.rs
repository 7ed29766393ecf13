//! Server-Server API: what another server is answered. The other server is one that the tests play themselves.

mod endpoints;
mod membership;
mod queries;
mod reads;
mod signatures;
mod transactions;

use std::sync::Arc;

use stoa_kit::{Ca, Home, Launch, Stranger, User, Value, encode, json};

use crate::{binary, own};

/// Our server and another one that may ask it; nothing where the tests run against a server of another make.
struct Meeting {
    home: Home,
    ca: Arc<Ca>,
    other: Stranger,
}

impl Meeting {
    async fn new() -> Option<Meeting> {
        own()?;
        let ca = Ca::shared();
        let home = Home::launch(Launch::federating(binary(), &ca)).await;
        let other = Stranger::start(&ca, 1).await;
        Some(Meeting { home, ca, other })
    }

    /// One more server.
    async fn another(&self, seed: u8) -> Stranger {
        Stranger::start(&self.ca, seed).await
    }

    /// Alice's public room, with a user of the other server in it.
    async fn shared_room(&self) -> (User, String) {
        let alice = self.home.user("alice").await;
        let room = alice.public_room().await;
        self.other.join(&self.home, &room, &self.other.user("bob")).await;
        (alice, room)
    }
}

/// A path below `/_matrix/federation/v1`, with these segments.
fn path(start: &str, segments: &[&str]) -> String {
    let segments: String = segments.iter().map(|segment| format!("/{}", encode(segment))).collect();
    format!("/_matrix/federation/v1/{start}{segments}")
}

/// The ids of events as their senders' server tells them to clients.
fn bodies(events: &Value) -> Vec<String> {
    let events = events.as_array().expect("a list of events");
    events.iter().map(|event| event["content"]["body"].as_str().unwrap_or_default().to_owned()).collect()
}

/// An ACL that admits everybody but these.
fn acl_without(servers: &[&str]) -> Value {
    json!({ "allow": ["*"], "deny": servers })
}
