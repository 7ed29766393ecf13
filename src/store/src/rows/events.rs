//! Events: their original bytes behind a small header, and the indexes by which they are found.

use bytes::Bytes;
use stoa_event::ids::OwnedEventId;

use crate::{
    Corrupt, Error, EventNo, Position, RoomNo, Slot, Tx, cbor_value, schema,
    state::Root,
    tx::{Fact, Positions},
    value::{Value, from_cbor, to_cbor},
};

/// What became of an event (Server-Server API, "Checks performed on receipt of a PDU").
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Standing {
    /// Part of the room.
    #[n(0)]
    Accepted,
    /// Allowed by the state before it but not by the current state: kept for the graph, shown to nobody.
    #[n(1)]
    SoftFailed,
    /// Not allowed: kept so that what builds on it can be judged, shown to nobody.
    #[n(2)]
    Rejected,
    /// Known apart from the graph: an auth event, or state of a room that we have just joined.
    #[n(3)]
    Outlier,
}

/// What is known of an event beside its bytes. All that a client is shown of it can be read from here and from the bytes
/// of `content`, without parsing.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Header {
    /// The event id.
    #[n(0)]
    pub event_id: String,
    /// The event type.
    #[n(1)]
    pub kind: String,
    /// The state key of a state event.
    #[n(2)]
    pub state_key: Option<String>,
    /// Who sent it.
    #[n(3)]
    pub sender: String,
    /// Milliseconds since 1970, by the sender's server.
    #[n(4)]
    pub origin_server_ts: u64,
    /// Its depth in the graph.
    #[n(5)]
    pub depth: u64,
    /// Where `content` begins in the bytes.
    #[n(6)]
    pub content_from: u32,
    /// Where `content` ends.
    #[n(7)]
    pub content_to: u32,
    /// What became of it.
    #[n(8)]
    pub standing: Standing,
    /// Its place in the order of commits; `None` for outliers.
    #[n(9)]
    pub at: Option<Position>,
    /// The state before it; `None` for outliers and where it is not known yet.
    #[n(10)]
    pub before: Option<Root>,
    /// The state after it, if it is an accepted state event; otherwise it is the state before.
    #[n(11)]
    pub after: Option<Root>,
    /// The state event that it replaced.
    #[n(12)]
    pub replaces: Option<EventNo>,
    /// The event that redacted it. Its bytes are the redacted form then.
    #[n(13)]
    pub redacted_by: Option<EventNo>,
    /// What it follows, as far as we hold it.
    #[n(14)]
    pub prev: Vec<EventNo>,
    /// What allows it, as far as we hold it.
    #[n(15)]
    pub auth: Vec<EventNo>,
    /// The device that sent it and its transaction id, shown as `unsigned.transaction_id` to that device only.
    #[n(16)]
    pub txn: Option<Txn>,
    /// The event that it redacts, if it is a redaction.
    #[n(17)]
    pub redacts: Option<String>,
    /// `m.relates_to`: the relation's type and the parent's id.
    #[n(18)]
    pub relates_to: Option<RelatesTo>,
    /// Whether something that it follows is not held here: history has a gap before it.
    #[n(19)]
    #[cbor(default)]
    pub gap: bool,
    /// Whether the states around it lack members: it was judged while the room's state was not whole.
    #[n(20)]
    #[cbor(default)]
    pub partial: bool,
}

/// The transaction by which a local device sent an event.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Txn {
    /// The device.
    #[n(0)]
    pub device: String,
    /// The transaction id.
    #[n(1)]
    pub id: String,
}

impl Txn {
    /// In the place of the device: the event was a delayed one, and the id is its delay ID. No device has this ID.
    pub const DELAYED: &str = "";
}

/// `m.relates_to` of an event.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct RelatesTo {
    /// `m.replace`, `m.annotation`, `m.thread`, `m.reference` or another.
    #[n(0)]
    pub rel_type: String,
    /// The parent.
    #[n(1)]
    pub event_id: String,
}

/// An event as it is stored: version byte, length of the header, header, the event's original bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// What is known of it.
    pub header: Header,
    /// The event in the format of the federation.
    pub json: Bytes,
}

impl StoredEvent {
    /// The raw bytes of `content`.
    pub fn content(&self) -> &[u8] {
        self.json.get(self.header.content_from as usize..self.header.content_to as usize).unwrap_or(b"{}")
    }

    /// The state after it, as far as it is known.
    pub fn state_after(&self) -> Option<Root> {
        self.header.after.or(self.header.before)
    }

    /// Whether it is the state event with that type and key.
    pub fn is_state(&self, kind: &str, key: &str) -> bool {
        self.header.kind == kind && self.header.state_key.as_deref() == Some(key)
    }

    /// The event as the law reads it.
    ///
    /// # Errors
    /// [`Error::Corrupt`], if the bytes are no event.
    pub fn pdu(&self, rules: &stoa_event::version::Rules) -> Result<stoa_event::pdu::Pdu, Error> {
        let id = OwnedEventId::try_from(self.header.event_id.as_str())
            .map_err(|_| Corrupt("a stored event has no valid id"))?;
        stoa_event::pdu::Pdu::stored(self.json.clone(), id, rules)
            .map_err(|_| Corrupt("a stored event cannot be read").into())
    }
}

impl Value for StoredEvent {
    fn to_bytes(&self) -> Bytes {
        let header = to_cbor(&self.header);
        let mut out = Vec::with_capacity(5 + header.len() + self.json.len());
        out.push(1);
        out.extend_from_slice(&(header.len() as u32).to_be_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(&self.json);
        out.into()
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, Error> {
        let (1, Some(length)) = (bytes.first().copied().unwrap_or(0), bytes.get(1..5)) else {
            return Err(Corrupt("an event was written by a newer release").into());
        };
        let end = 5 + u32::from_be_bytes(length.try_into().unwrap_or_default()) as usize;
        let header = bytes.get(5..end).ok_or(Corrupt("an event's header is cut"))?;
        Ok(StoredEvent { header: from_cbor(header)?, json: bytes.slice(end..) })
    }
}

/// Where an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct EventPlace {
    /// The room.
    #[n(0)]
    pub room: RoomNo,
    /// The event.
    #[n(1)]
    pub event: EventNo,
}
cbor_value!(EventPlace);

/// A child of an event.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Relation {
    /// The child.
    #[n(0)]
    pub event: EventNo,
    /// The relation's type.
    #[n(1)]
    pub rel_type: String,
    /// The child's event type.
    #[n(2)]
    pub kind: String,
    /// Who sent the child.
    #[n(3)]
    pub sender: String,
}
cbor_value!(Relation);

/// The relation that makes threads.
pub const THREAD: &str = "m.thread";

/// Adds an event to the timeline of a room: its row and all indexes, with the position of `slot`. Tells the feed if
/// clients are to see it.
pub fn append(tx: &mut Tx, slot: Slot, room: RoomNo, no: EventNo, event: StoredEvent, parent: Option<EventNo>) {
    if event.header.standing == Standing::Accepted {
        tx.put_at(&schema::TIMELINE, move |at| ((room, at.of(slot)), no));
        tx.tell(move |at| Fact::Event { room, event: no, at: at.of(slot) });
    }
    index(tx, slot, room, no, &event, parent);
    put_at(tx, slot, room, no, event);
}

/// The indexes by which clients find an accepted event beside the timeline.
fn index(tx: &mut Tx, slot: Slot, room: RoomNo, no: EventNo, event: &StoredEvent, parent: Option<EventNo>) {
    let depth = event.header.depth;
    tx.put(&schema::EVENT_IDS, &event.header.event_id, &EventPlace { room, event: no });
    if event.header.standing != Standing::Accepted {
        return;
    }
    tx.put_at(&schema::HISTORY, move |at| ((room, depth, at.of(slot)), no));
    if let Some(parent) = parent {
        relate(tx, Some(slot), room, parent, no, &event.header);
    }
}

fn put_at(tx: &mut Tx, slot: Slot, room: RoomNo, no: EventNo, event: StoredEvent) {
    tx.put_at(&schema::EVENTS, move |at| {
        let mut event = event.clone();
        event.header.at = Some(at.of(slot));
        ((room, no), event)
    });
}

/// Enters an event as related to its parent. Its place is the one that it has, or the position of `slot`.
pub fn relate(tx: &mut Tx, slot: Option<Slot>, room: RoomNo, parent: EventNo, child: EventNo, header: &Header) {
    let Some(relates_to) = &header.relates_to else { return };
    let relation = Relation {
        event: child,
        rel_type: relates_to.rel_type.clone(),
        kind: header.kind.clone(),
        sender: header.sender.clone(),
    };
    let (known, depth) = (header.at, header.depth);
    let place = move |at: Positions| known.or(slot.map(|slot| at.of(slot))).unwrap_or_default();
    if relation.rel_type == THREAD {
        tx.put_at(&schema::THREADS, move |at| ((room, depth, place(at)), parent));
    }
    tx.put_at(&schema::RELATIONS, move |at| ((room, parent, depth, place(at)), relation.clone()));
}

/// An event is redacted: it does not relate to its parent any more.
pub fn unrelate(tx: &mut Tx, room: RoomNo, parent: EventNo, child: &Header) {
    let Some(at) = child.at else { return };
    tx.delete(&schema::RELATIONS, &(room, parent, child.depth, at));
    tx.delete(&schema::THREADS, &(room, child.depth, at));
}

/// Adds an event that is older than what we hold to the history of a room: clients find it when they page back, and
/// `/sync` does not tell it.
pub fn append_history(tx: &mut Tx, slot: Slot, room: RoomNo, no: EventNo, event: StoredEvent, parent: Option<EventNo>) {
    index(tx, slot, room, no, &event, parent);
    put_at(tx, slot, room, no, event);
    tx.tell(move |_| Fact::Changed { room, event: no });
}

/// To be said where [`append`] or [`append_history`] gives an outlier its place: its row is another one then.
pub fn was_outlier(tx: &mut Tx, room: RoomNo, no: EventNo) {
    tx.rewritten.push((room, no));
}

/// Keeps an event that has no place in the timeline.
pub fn put_outlier(tx: &mut Tx, room: RoomNo, no: EventNo, event: &StoredEvent) {
    tx.put(&schema::EVENT_IDS, &event.header.event_id, &EventPlace { room, event: no });
    tx.put(&schema::EVENTS, &(room, no), event);
}

/// Writes another form of an event that is there: redacted, or with another standing.
pub fn rewrite(tx: &mut Tx, room: RoomNo, no: EventNo, event: &StoredEvent) {
    tx.put(&schema::EVENTS, &(room, no), event);
    tx.rewritten.push((room, no));
    tx.tell(move |_| Fact::Changed { room, event: no });
}
