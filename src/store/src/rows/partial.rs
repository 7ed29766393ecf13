//! Rooms that were joined with partial state: from whom the whole state can be had, and which events were judged without it.

use crate::{EventNo, RoomNo, Slot, Tx, cbor_value, schema, state::Root};

/// A room whose state is not whole yet.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct PartialRoom {
    /// The join by which this server came in: the state before it is what is wanted.
    #[n(0)]
    pub join: EventNo,
    /// The server that let us in.
    #[n(1)]
    pub via: String,
    /// The servers that are in the room, as that server said.
    #[n(2)]
    pub servers: Vec<String>,
}
cbor_value!(PartialRoom);

/// An event that was judged by a state that is not whole.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct PartialEvent {
    /// The event.
    #[n(0)]
    pub event: EventNo,
    /// What it follows, as far as the states after that were known.
    #[n(1)]
    pub prev: Vec<EventNo>,
    /// The whole states after the rest of what it follows, as another server told them.
    #[n(2)]
    pub told: Vec<Root>,
}
cbor_value!(PartialEvent);

/// Marks a room as not whole.
pub fn put_room(tx: &mut Tx, room: RoomNo, partial: &PartialRoom) {
    tx.put(&schema::PARTIAL_ROOMS, &room, partial);
}

/// A room is whole, or nobody waits for that any more.
pub fn delete_room(tx: &mut Tx, room: RoomNo) {
    tx.delete_prefix(&schema::PARTIAL_EVENTS, &room);
    tx.delete(&schema::PARTIAL_ROOMS, &room);
}

/// Notes that the states of an event, which gets its place at `slot`, are to be worked out again.
pub fn put_event(tx: &mut Tx, slot: Slot, room: RoomNo, event: PartialEvent) {
    tx.put_at(&schema::PARTIAL_EVENTS, move |at| ((room, at.of(slot)), event.clone()));
}

/// The states of an event are whole.
pub fn delete_event(tx: &mut Tx, room: RoomNo, at: crate::Position) {
    tx.delete(&schema::PARTIAL_EVENTS, &(room, at));
}
