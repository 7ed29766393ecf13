//! Server-Server API: what another server is answered. The other server is one that the tests play themselves.

mod endpoints;
mod events;
mod forks;
mod membership;
mod news;
mod partial;
mod queries;
mod reads;
mod rooms_of_others;
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

/// A user of the other server in Alice's room, and what this user's events need.
struct Inside {
    alice: User,
    room: String,
    bob: String,
    /// The join, and its depth.
    join: String,
    depth: u64,
    /// What allows Bob's events.
    auth: Vec<String>,
}

impl Meeting {
    /// Lets Bob of the other server into Alice's room.
    async fn inside(&self) -> Inside {
        self.inside_of(json!({ "preset": "public_chat" })).await
    }

    async fn inside_of(&self, options: Value) -> Inside {
        let alice = self.home.user("alice").await;
        let room = alice.create_room(options).await;
        let bob = self.other.user("bob");
        let (join, answer) = self.other.join(&self.home, &room, &bob).await;
        let depth = answer["event"]["depth"].as_u64().expect("a depth");
        let mut auth = vec![current(&alice, &room, "m.room.power_levels", "").await, join.clone()];
        if !is_named_after_its_creation(&room) {
            auth.push(current(&alice, &room, "m.room.create", "").await);
        }
        Inside { alice, room, bob, join, depth, auth }
    }
}

/// Whether a room is of version 12 or later, whose ids name no server.
fn is_named_after_its_creation(room: &str) -> bool {
    !room.contains(':')
}

/// The id of a state event as a user sees it.
async fn current(user: &User, room: &str, kind: &str, key: &str) -> String {
    let all = user.all_state(room).await;
    let found = all.iter().find(|event| event["type"] == kind && event["state_key"] == key);
    let found = found.unwrap_or_else(|| panic!("no {kind} {key}"));
    found["event_id"].as_str().expect("an id").to_owned()
}

impl Inside {
    /// An event of Bob's after another one, without hashes and signatures.
    fn draft(&self, kind: &str, prev: &str, depth: u64, content: Value) -> Value {
        json!({
            "type": kind, "room_id": self.room, "sender": self.bob, "depth": depth,
            "origin_server_ts": 1_700_000_000_000_u64 + depth % 1000, "prev_events": [prev], "auth_events": self.auth,
            "content": content,
        })
    }

    /// Gives an event the form of room versions 1 and 2: an id of its own, and hashes beside those of others.
    fn make_old(&self, other: &Stranger, event: &mut Value) {
        event["event_id"] = json!(format!("${}:{}", stoa_kit::unique(), other.name()));
        for field in ["prev_events", "auth_events"] {
            let ids = event[field].as_array().cloned().unwrap_or_default();
            event[field] = ids.into_iter().map(|id| json!([id, {}])).collect();
        }
    }

    /// The same as state.
    fn state(&self, kind: &str, key: &str, prev: &str, depth: u64, content: Value) -> Value {
        let mut event = self.draft(kind, prev, depth, content);
        event["state_key"] = json!(key);
        event
    }

    /// A message of Bob's after another event.
    fn message(&self, other: &Stranger, prev: &str, depth: u64, body: &str) -> (String, Value) {
        other.event(self.draft("m.room.message", prev, depth, json!({ "msgtype": "m.text", "body": body })))
    }

    /// What is wrong with each of these events, as our server sees it: an error, or nothing.
    async fn told(&self, other: &Stranger, home: &Home, events: &[&Value]) -> serde_json::Map<String, Value> {
        let answer = other.send(home, events).await.ok();
        answer["pdus"].as_object().expect("what became of each").clone()
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
