//! A persistent data unit that has passed the format check: its original bytes, and the few fields that judging needs.

use std::ops::Range;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::{
    hash::reference_hash,
    ids::{OwnedEventId, OwnedRoomId, OwnedUserId},
    json::{JsonError, MAX_INT},
    version::Rules,
};

/// An event as servers exchange it (Server-Server API, "PDUs"). Immutable; cheap to clone (the bytes are shared).
#[derive(Clone, Debug)]
pub struct Pdu {
    pub(crate) event_id: OwnedEventId,
    pub(crate) room_id: OwnedRoomId,
    pub(crate) sender: OwnedUserId,
    pub(crate) kind: Box<str>,
    pub(crate) state_key: Option<Box<str>>,
    pub(crate) origin_server_ts: i64,
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

    /// Milliseconds since 1970, as the sender's server says. What versions 1 to 5 allow beyond 0 and 2^53-1 is cut there,
    /// so that everybody can read it.
    pub fn origin_server_ts(&self) -> u64 {
        self.origin_server_ts.clamp(0, MAX_INT).unsigned_abs()
    }

    /// The same uncut, by which state resolution orders events.
    pub(crate) fn exact_ts(&self) -> i64 {
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

    /// The hash that events of versions 1 and 2 give along where they refer to this one.
    ///
    /// # Errors
    /// If the bytes are not those of an event of that version.
    pub fn reference_hash(&self, rules: &Rules) -> Result<[u8; 32], JsonError> {
        Ok(reference_hash(&rules.parse(&self.json)?, rules))
    }

    /// Reads `content` as a type. Fails where a field has another shape than the type asks for.
    ///
    /// # Errors
    /// What serde says.
    pub fn content_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.content())
    }
}
