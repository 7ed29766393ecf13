//! A persistent data unit that has passed the format check: its original bytes, and the few fields that judging needs.

use std::ops::Range;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::ids::{OwnedEventId, OwnedRoomId, OwnedUserId};

/// An event as servers exchange it (Server-Server API, "PDUs"). Immutable; cheap to clone (the bytes are shared).
#[derive(Clone, Debug)]
pub struct Pdu {
    pub(crate) event_id: OwnedEventId,
    pub(crate) room_id: OwnedRoomId,
    pub(crate) sender: OwnedUserId,
    pub(crate) kind: Box<str>,
    pub(crate) state_key: Option<Box<str>>,
    pub(crate) origin_server_ts: u64,
    pub(crate) depth: u64,
    pub(crate) prev_events: Vec<OwnedEventId>,
    pub(crate) auth_events: Vec<OwnedEventId>,
    pub(crate) redacts: Option<OwnedEventId>,
    pub(crate) json: Bytes,
    pub(crate) content: Range<u32>,
}

impl Pdu {
    /// The event's id.
    pub fn event_id(&self) -> &OwnedEventId {
        &self.event_id
    }

    /// The room. For a version 12 create event, which carries none, the id that follows from its hash.
    pub fn room_id(&self) -> &OwnedRoomId {
        &self.room_id
    }

    /// Who sent it.
    pub fn sender(&self) -> &OwnedUserId {
        &self.sender
    }

    /// The event type, `m.room.message` for instance.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The state key; `None` for a message event.
    pub fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    /// Whether this is the state event with that type and key.
    pub fn is_state(&self, kind: &str, key: &str) -> bool {
        self.kind() == kind && self.state_key() == Some(key)
    }

    /// Milliseconds since 1970, as the sender's server says.
    pub fn origin_server_ts(&self) -> u64 {
        self.origin_server_ts
    }

    /// One more than the greatest depth of its `prev_events`, at most 2^53-1.
    pub fn depth(&self) -> u64 {
        self.depth
    }

    /// What it follows in the room's graph.
    pub fn prev_events(&self) -> &[OwnedEventId] {
        &self.prev_events
    }

    /// The state events that are said to allow it.
    pub fn auth_events(&self) -> &[OwnedEventId] {
        &self.auth_events
    }

    /// What a redaction redacts, wherever the room version keeps it.
    pub fn redacts(&self) -> Option<&OwnedEventId> {
        self.redacts.as_ref()
    }

    /// The whole event, as it came.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// Where `content` stands in [`Pdu::json`], in bytes.
    pub fn content_range(&self) -> Range<u32> {
        self.content.clone()
    }

    /// The raw `content` object.
    pub fn content(&self) -> &[u8] {
        self.json.get(self.content.start as usize..self.content.end as usize).unwrap_or_default()
    }

    /// Reads `content` as a type. Fails where a field has another shape than the type asks for.
    ///
    /// # Errors
    /// What serde says.
    pub fn content_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.content())
    }
}
