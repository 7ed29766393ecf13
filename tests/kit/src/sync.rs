//! `/sync` (Client-Server API, "Syncing"): asking, and finding one's way in the answer.

use std::time::Duration;

use serde_json::{Value, json};

use crate::account::User;
use crate::http::{Reply, encode};

/// How long a test waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What to ask of `/sync`.
#[derive(Clone, Debug, Default)]
pub struct SyncOptions {
    /// The token to go on from.
    pub since: Option<String>,
    /// Long polling, in milliseconds.
    pub timeout: u64,
    /// A filter, as JSON (sent inline).
    pub filter: Option<Value>,
    /// The ID of a stored filter.
    pub filter_id: Option<String>,
    /// All state again.
    pub full_state: bool,
    /// State after the timeline instead of before it.
    pub state_after: bool,
}

impl SyncOptions {
    /// Going on from a token, without waiting.
    pub fn since(token: &str) -> Self {
        Self { since: Some(token.to_owned()), ..Self::default() }
    }

    /// With a filter.
    pub fn filter(mut self, filter: Value) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Waiting as long as this for something new.
    pub fn wait(mut self, milliseconds: u64) -> Self {
        self.timeout = milliseconds;
        self
    }

    fn path(&self) -> String {
        let mut path = format!("/sync?timeout={}", self.timeout);
        if let Some(since) = &self.since {
            path += &format!("&since={}", encode(since));
        }
        if let Some(filter) = &self.filter {
            path += &format!("&filter={}", encode(&filter.to_string()));
        }
        if let Some(id) = &self.filter_id {
            path += &format!("&filter={}", encode(id));
        }
        if self.full_state {
            path += "&full_state=true";
        }
        if self.state_after {
            path += "&use_state_after=true";
        }
        path
    }
}

impl User {
    /// Asks `/sync` for whatever is there now.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn sync(&self) -> Sync {
        self.sync_with(&SyncOptions::default()).await
    }

    /// Asks `/sync` for what is new since a token, without waiting.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn sync_since(&self, token: &str) -> Sync {
        self.sync_with(&SyncOptions::since(token)).await
    }

    /// Asks `/sync`.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn sync_with(&self, options: &SyncOptions) -> Sync {
        Sync(self.try_sync(options).await.ok())
    }

    /// Asks `/sync`, whatever the answer is.
    pub async fn try_sync(&self, options: &SyncOptions) -> Reply {
        self.get(&options.path()).await
    }

    /// Follows `/sync` from a token (or from nothing) until an answer has what is looked for.
    ///
    /// # Panics
    /// If it has not come in 20 seconds.
    pub async fn sync_until(&self, since: Option<&str>, found: impl Fn(&Sync) -> bool) -> Sync {
        let mut options = SyncOptions { since: since.map(str::to_owned), ..SyncOptions::default() };
        let start = tokio::time::Instant::now();
        loop {
            let sync = self.sync_with(&options).await;
            if found(&sync) {
                return sync;
            }
            assert!(start.elapsed() < PATIENCE, "{} waited in vain; the last sync was {}", self.id, sync.0);
            options = SyncOptions::since(sync.token()).wait(10_000);
        }
    }

    /// Asks sliding sync, in the spelling of clients today.
    pub async fn slide(&self, pos: Option<&str>, timeout: u64, body: Value) -> Reply {
        let pos = pos.map(|pos| format!("&pos={}", encode(pos))).unwrap_or_default();
        let path = format!("/_matrix/client/unstable/org.matrix.simplified_msc3575/sync?timeout={timeout}{pos}");
        self.post(&path, body).await
    }

    /// A filter that keeps a sync small: a timeline of this many events.
    pub fn timeline_filter(limit: usize) -> Value {
        json!({ "room": { "timeline": { "limit": limit } } })
    }
}

/// An answer of `/sync`.
#[derive(Clone, Debug)]
pub struct Sync(pub Value);

impl Sync {
    /// The token to go on from.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn token(&self) -> &str {
        self.0["next_batch"].as_str().expect("next_batch")
    }

    /// A joined room; `null` if it is not in this answer.
    pub fn joined(&self, room: &str) -> &Value {
        &self.0["rooms"]["join"][room]
    }

    /// An invite; `null` if it is not in this answer.
    pub fn invited(&self, room: &str) -> &Value {
        &self.0["rooms"]["invite"][room]
    }

    /// A room that was left; `null` if it is not in this answer.
    pub fn left(&self, room: &str) -> &Value {
        &self.0["rooms"]["leave"][room]
    }

    /// The events of the timeline of a joined room (or of one that was left).
    pub fn timeline(&self, room: &str) -> Vec<&Value> {
        self.events(room, "timeline")
    }

    /// The state of a joined room (or of one that was left), from before the timeline.
    pub fn state(&self, room: &str) -> Vec<&Value> {
        self.events(room, "state")
    }

    /// The ephemeral events of a joined room.
    pub fn ephemeral(&self, room: &str) -> Vec<&Value> {
        self.events(room, "ephemeral")
    }

    /// One part of a room: `timeline`, `state`, `state_after`, `ephemeral`, `account_data`.
    pub fn events(&self, room: &str, part: &str) -> Vec<&Value> {
        let joined = self.joined(room);
        let body = if joined.is_null() { self.left(room) } else { joined };
        list(&body[part]["events"])
    }

    /// The bodies of the messages in the timeline, in order.
    pub fn bodies(&self, room: &str) -> Vec<&str> {
        self.timeline(room).into_iter().filter_map(|event| event["content"]["body"].as_str()).collect()
    }

    /// Whether the timeline has this event.
    pub fn has(&self, room: &str, event: &str) -> bool {
        self.timeline(room).iter().any(|found| found["event_id"] == event)
    }

    /// The content of account data: of a room, or of the account.
    pub fn account_data(&self, room: Option<&str>, kind: &str) -> Option<&Value> {
        let events = match room {
            Some(room) => self.events(room, "account_data"),
            None => list(&self.0["account_data"]["events"]),
        };
        events.into_iter().find(|event| event["type"] == kind).map(|event| &event["content"])
    }

    /// To-device events.
    pub fn to_device(&self) -> Vec<&Value> {
        list(&self.0["to_device"]["events"])
    }

    /// Users whose device lists changed.
    pub fn changed_devices(&self) -> Vec<&str> {
        list(&self.0["device_lists"]["changed"]).into_iter().filter_map(Value::as_str).collect()
    }

    /// Whether nothing at all happened in any room.
    pub fn quiet(&self) -> bool {
        ["join", "invite", "leave", "knock"].iter().all(|part| match &self.0["rooms"][part] {
            Value::Object(rooms) => rooms.is_empty(),
            _ => true,
        })
    }
}

fn list(value: &Value) -> Vec<&Value> {
    value.as_array().map(|events| events.iter().collect()).unwrap_or_default()
}
