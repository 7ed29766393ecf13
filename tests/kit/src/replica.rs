//! A client that knows rooms from nothing but `/sync`, and pages back where an answer says that it left a gap.
//!
//! It is the plain model that the server is held against: after any history, its copy of a room must be the room.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::account::User;
use crate::http::encode;
use crate::sync::{Sync, SyncOptions};

/// What a client believes of one room.
#[derive(Clone, Debug, Default)]
pub struct RoomCopy {
    /// `join`, `invite`, `knock` or `leave`.
    pub membership: String,
    /// The event ID of the state by type and state key.
    pub state: BTreeMap<(String, String), String>,
    /// The events in order, by ID.
    pub timeline: Vec<String>,
    /// Events that a redaction has named.
    pub redacted: BTreeSet<String>,
    /// Whether everything up to now is known: false for a room that was joined and left between two answers.
    pub complete: bool,
    /// Whether the last that was told of oneself is a ban.
    pub banned: bool,
    /// How often an answer left a gap.
    pub gaps: usize,
}

/// A client with its copy of rooms.
pub struct Replica {
    /// Who follows.
    pub user: User,
    /// The token to go on from.
    pub since: Option<String>,
    /// The rooms.
    pub rooms: BTreeMap<String, RoomCopy>,
    filter: Value,
    state_after: bool,
    /// Whether it follows by sliding sync, and how many rooms its window has then (all of them, without a number).
    sliding: bool,
    /// See [`Replica::sliding`].
    pub window: Option<usize>,
}

impl Replica {
    /// A client that asks for timelines of `limit` events.
    pub fn new(user: &User, limit: usize) -> Self {
        let filter = json!({
            "room": { "timeline": { "limit": limit }, "include_leave": true },
            "presence": { "types": [] },
        });
        Self {
            user: user.clone(),
            since: None,
            rooms: BTreeMap::new(),
            filter,
            state_after: false,
            sliding: false,
            window: None,
        }
    }

    /// The same by sliding sync: `window` rooms at a time, which may change.
    pub fn with_sliding_sync(mut self) -> Self {
        (self.sliding, self.state_after) = (true, true);
        self
    }

    /// Asks sliding sync, and tells the answer in the words of `/sync`.
    async fn slide(&self, wait: u64) -> Sync {
        let mut list = json!({
            "timeline_limit": self.filter["room"]["timeline"]["limit"],
            "required_state": [["*", "*"]],
        });
        list["ranges"] = match self.window {
            Some(size) => json!([[0, size.max(1) - 1]]),
            None => json!([[0, 1_000_000]]),
        };
        let body = json!({ "conn_id": "replica", "lists": { "rooms": list } });
        let answer = self.user.slide(self.since.as_deref(), wait, body).await.ok();
        let mut sync = json!({ "next_batch": answer["pos"], "rooms": { "join": {}, "leave": {}, "invite": {} } });
        for (id, room) in answer["rooms"].as_object().into_iter().flatten() {
            let part = match room["membership"].as_str() {
                Some("join") => "join",
                Some("invite" | "knock") => "invite",
                _ => "leave",
            };
            sync["rooms"][part][id] = json!({
                "timeline": {
                    "events": room["timeline"], "limited": room["limited"], "prev_batch": room["prev_batch"],
                },
                "state_after": { "events": room["required_state"] },
            });
        }
        Sync(sync)
    }

    /// The same, asking for the state after the timeline (`use_state_after`).
    pub fn with_state_after(mut self) -> Self {
        self.state_after = true;
        self
    }

    /// Asks once and takes in the answer.
    ///
    /// # Panics
    /// If the answer contradicts what is known: an event twice, a gap that paging does not close.
    pub async fn step(&mut self, wait: u64) -> Sync {
        let options = SyncOptions {
            since: self.since.clone(),
            timeout: wait,
            filter: Some(self.filter.clone()),
            state_after: self.state_after,
            ..SyncOptions::default()
        };
        let sync = if self.sliding { self.slide(wait).await } else { self.user.sync_with(&options).await };
        for membership in ["join", "leave"] {
            for (room, body) in sync.0["rooms"][membership].as_object().into_iter().flatten() {
                self.take_in(room, membership, body).await;
            }
        }
        for membership in ["invite", "knock"] {
            for (room, _) in sync.0["rooms"][membership].as_object().into_iter().flatten() {
                self.rooms.entry(room.clone()).or_default().membership = membership.to_owned();
            }
        }
        self.since = Some(sync.token().to_owned());
        sync
    }

    /// Asks until nothing new comes.
    ///
    /// # Panics
    /// If news never end.
    pub async fn catch_up(&mut self) {
        for _ in 0..100 {
            if self.step(0).await.quiet() {
                return;
            }
        }
        panic!("{} never catches up", self.user.id);
    }

    async fn take_in(&mut self, room: &str, membership: &str, body: &Value) {
        let mut copy = self.rooms.remove(room).unwrap_or_default();
        let was_in = copy.membership == "join";
        match (membership, was_in) {
            // Whoever comes (back) learns everything: what was missed meanwhile must be among the state.
            ("join", false) => {
                copy.timeline.clear();
                copy.complete = true;
            }
            // Joined and left between two answers, or never there at all (an invite withdrawn, a ban).
            ("leave", false) => copy.complete = false,
            _ => {}
        }
        copy.membership = membership.to_owned();
        if copy.complete && (body["timeline"]["limited"] == true || copy.timeline.is_empty()) {
            copy.complete = self.close_gap(room, &mut copy, &body["timeline"]).await;
        }
        let events = body["timeline"]["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        for event in body["state"]["events"].as_array().into_iter().flatten() {
            copy.set_state(event);
        }
        for event in events {
            copy.append(room, event);
            if self.state_after {
                continue;
            }
            copy.set_state(event);
        }
        for event in body["state_after"]["events"].as_array().into_iter().flatten() {
            copy.set_state(event);
        }
        let told = ["state", "timeline", "state_after"].into_iter().flat_map(|part| body[part]["events"].as_array());
        if let Some(own) = told.flatten().rfind(|event| event["state_key"] == self.user.id.as_str()) {
            copy.banned = own["content"]["membership"] == "ban";
        }
        self.rooms.insert(room.to_owned(), copy);
    }

    /// Pages back from `prev_batch` to the last event that is known; false if the user may not (any more).
    async fn close_gap(&self, room: &str, copy: &mut RoomCopy, timeline: &Value) -> bool {
        if timeline["events"].as_array().is_none_or(Vec::is_empty) {
            return true;
        }
        copy.gaps += 1;
        let known: BTreeSet<&String> = copy.timeline.iter().collect();
        let mut from = timeline["prev_batch"].as_str().map(str::to_owned);
        let mut missed = Vec::new();
        'paging: while let Some(token) = from {
            let page = self.user.messages(room, &format!("dir=b&limit=7&from={}", encode(&token))).await;
            // Homeservers differ in what they show to who was banned, or was invited again after leaving.
            if page.status == 403 && copy.membership == "leave" {
                return false;
            }
            let page = page.ok();
            for event in page["chunk"].as_array().into_iter().flatten() {
                let id = event["event_id"].as_str().unwrap_or_default();
                if known.contains(&id.to_owned()) {
                    break 'paging;
                }
                missed.push(event.clone());
            }
            from = page["end"].as_str().map(str::to_owned);
        }
        for event in missed.iter().rev() {
            copy.append(room, event);
        }
        true
    }

    /// Holds the copies of all rooms against what `/state` and `/messages` say.
    ///
    /// # Panics
    /// If they differ.
    pub async fn verify(&self) {
        for (room, copy) in &self.rooms {
            // What is shown to who was banned, perhaps after leaving, is up to the homeserver.
            if copy.banned || !copy.complete || !["join", "leave"].contains(&copy.membership.as_str()) {
                continue;
            }
            if copy.membership == "leave" && self.user.messages(room, "dir=b&limit=1").await.status == 403 {
                continue;
            }
            let whole = self.user.all_state(room).await;
            let truth: BTreeMap<(String, String), String> = whole.iter().filter_map(state_entry).collect();
            let what = format!("state of {room} ({}) as {} follows it", copy.membership, self.user.id);
            compare(&truth, &copy.state, &whole, &what);
            let mut history = self.user.whole_history(room).await;
            history.reverse();
            let order: Vec<&str> = history.iter().filter_map(|event| event["event_id"].as_str()).collect();
            assert_eq!(
                copy.timeline, order,
                "{} ({}) followed the left, /messages says the right, for {room} with {} gaps",
                self.user.id, copy.membership, copy.gaps
            );
            for event in &history {
                let id = event["event_id"].as_str().unwrap_or_default();
                let bare = event["content"].as_object().is_some_and(|content| content.is_empty());
                let told = copy.redacted.contains(id);
                let message = event["type"] == "m.room.message";
                // After leaving one is not told, but what was redacted is gone for all.
                let right = told == bare || (bare && copy.membership == "leave");
                assert!(!message || right, "redaction of {id} in {room}: told {told}, bare {bare}");
            }
        }
    }
}

impl RoomCopy {
    fn set_state(&mut self, event: &Value) {
        self.state.extend(state_entry(event));
    }

    fn append(&mut self, room: &str, event: &Value) {
        let id = event["event_id"].as_str().unwrap_or_default().to_owned();
        assert!(!self.timeline.contains(&id), "{id} came twice in {room}: {event}");
        if event["type"] == "m.room.redaction" {
            let target = event["redacts"].as_str().or_else(|| event["content"]["redacts"].as_str());
            self.redacted.extend(target.map(str::to_owned));
        }
        self.timeline.push(id);
    }
}

fn state_entry(event: &Value) -> Option<((String, String), String)> {
    let text = |key: &str| event[key].as_str().map(str::to_owned);
    Some(((text("type")?, text("state_key")?), text("event_id")?))
}

type State = BTreeMap<(String, String), String>;

fn compare(truth: &State, copy: &State, events: &[Value], what: &str) {
    let keys: BTreeSet<&(String, String)> = truth.keys().chain(copy.keys()).collect();
    let wrong = keys.into_iter().filter(|key| truth.get(*key) != copy.get(*key)).map(|key| {
        let event = events.iter().find(|event| state_entry(event).is_some_and(|(found, _)| found == *key));
        let event = event.map(Value::to_string).unwrap_or_default();
        format!("{key:?}: the server has {:?}, the client has {:?}: {event}", truth.get(key), copy.get(key))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}
