//! The live bus: typing, presence and user-defined ephemeral events (MSC2477). In memory, with a short life.
//!
//! A place on the bus is a number that also grows over restarts, because it begins at the clock: a token from before
//! a restart is simply older than everything on the new bus.

pub mod presence;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::RoomNo;

/// How long an ephemeral event can be read, in milliseconds.
pub const LIFE_MS: u64 = 120_000;
/// How many ephemeral events a room keeps at most; older ones fall off.
const PER_ROOM: usize = 1000;

/// A place on the bus.
pub type Place = u64;

/// A user-defined ephemeral event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ephemeral {
    /// Its place.
    pub place: Place,
    /// The event type.
    pub kind: Arc<str>,
    /// Who sent it.
    pub sender: Arc<str>,
    /// By what it may be repeated without being sent twice: device and transaction id.
    pub txn: Option<Arc<str>>,
    /// The content, a JSON object.
    pub content: Bytes,
    /// When it was sent, in milliseconds since 1970.
    pub ts: u64,
}

/// Who types in a room, and since when that is so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Typing {
    /// User ids, in order.
    pub users: Vec<Arc<str>>,
    /// Where the list last changed.
    pub place: Place,
}

#[derive(Default)]
struct Room {
    /// User id and when it ends, in milliseconds since 1970.
    typing: Vec<(Arc<str>, u64)>,
    typing_place: Place,
    events: VecDeque<Ephemeral>,
}

struct State {
    next: Place,
    rooms: HashMap<RoomNo, Room>,
    people: presence::People,
}

/// The bus.
pub struct Bus {
    state: Mutex<State>,
    wake: broadcast::Sender<RoomNo>,
}

impl Bus {
    pub(crate) fn new(now_ms: u64) -> Self {
        let (wake, _) = broadcast::channel(4096);
        Bus {
            state: Mutex::new(State {
                next: now_ms.saturating_mul(1000),
                rooms: HashMap::new(),
                people: presence::People::default(),
            }),
            wake,
        }
    }

    /// The rooms in which something happens, as it happens.
    pub fn listen(&self) -> broadcast::Receiver<RoomNo> {
        self.wake.subscribe()
    }

    /// The place of the last thing that happened.
    pub fn place(&self) -> Place {
        self.state.lock().next.saturating_sub(1)
    }

    /// Says that a user types until a moment, or (`None`) no longer. Answers whether the list of who types changed.
    pub fn typing(&self, room: RoomNo, user: &str, until: Option<u64>, now_ms: u64) -> bool {
        let mut state = self.state.lock();
        let next = state.next;
        let entry = state.rooms.entry(room).or_default();
        let before = entry.typing.len();
        entry.typing.retain(|(_, end)| *end > now_ms);
        let expired = entry.typing.len() != before;
        let known = entry.typing.iter().position(|(other, _)| &**other == user);
        let changed = match (known, until) {
            (Some(i), Some(until)) => {
                entry.typing[i].1 = until;
                expired
            }
            (None, Some(until)) => {
                entry.typing.push((user.into(), until));
                true
            }
            (Some(i), None) => {
                entry.typing.remove(i);
                true
            }
            (None, None) => expired,
        };
        if changed {
            entry.typing_place = next;
            state.next += 1;
            drop(state);
            let _ = self.wake.send(room);
        }
        changed
    }

    /// Who types in a room.
    pub fn who_types(&self, room: RoomNo, now_ms: u64) -> Typing {
        let state = self.state.lock();
        let Some(room) = state.rooms.get(&room) else { return Typing::default() };
        let mut users: Vec<_> =
            room.typing.iter().filter(|(_, end)| *end > now_ms).map(|(user, _)| user.clone()).collect();
        users.sort();
        Typing { users, place: room.typing_place }
    }

    /// Sends an ephemeral event to a room. The same transaction again, as long as the first is there, sends nothing.
    pub fn send(
        &self,
        room: RoomNo,
        kind: &str,
        sender: &str,
        txn: Option<&str>,
        content: Bytes,
        now_ms: u64,
    ) -> Place {
        let mut state = self.state.lock();
        let place = state.next;
        let events = &mut state.rooms.entry(room).or_default().events;
        let same = |event: &&Ephemeral| {
            txn.is_some() && event.txn.as_deref() == txn && &*event.sender == sender && &*event.kind == kind
        };
        if let Some(first) = events.iter().find(same) {
            return first.place;
        }
        while events.len() >= PER_ROOM || events.front().is_some_and(|event| event.ts + LIFE_MS <= now_ms) {
            events.pop_front();
        }
        let txn = txn.map(Into::into);
        events.push_back(Ephemeral { place, kind: kind.into(), sender: sender.into(), txn, content, ts: now_ms });
        state.next += 1;
        drop(state);
        let _ = self.wake.send(room);
        place
    }

    /// The ephemeral events of a room after a place, oldest first.
    pub fn events_after(&self, room: RoomNo, after: Place, now_ms: u64) -> Vec<Ephemeral> {
        let state = self.state.lock();
        let Some(room) = state.rooms.get(&room) else { return Vec::new() };
        let fresh = |event: &&Ephemeral| event.place > after && event.ts + LIFE_MS > now_ms;
        room.events.iter().filter(fresh).cloned().collect()
    }

    /// The rooms in which something happened after a place.
    pub fn rooms_after(&self, after: Place) -> Vec<RoomNo> {
        let state = self.state.lock();
        if state.next <= after.saturating_add(1) {
            return Vec::new();
        }
        let news = |room: &Room| room.typing_place > after || room.events.back().is_some_and(|e| e.place > after);
        state.rooms.iter().filter(|(_, room)| news(room)).map(|(no, _)| *no).collect()
    }

    /// Ends what has had its time. Call it about every second.
    pub fn expire(&self, now_ms: u64) {
        let mut woken = Vec::new();
        let mut state = self.state.lock();
        let mut next = state.next;
        state.rooms.retain(|no, room| {
            let before = room.typing.len();
            room.typing.retain(|(_, end)| *end > now_ms);
            if room.typing.len() != before {
                room.typing_place = next;
                next += 1;
                woken.push(*no);
            }
            while room.events.front().is_some_and(|event| event.ts + LIFE_MS <= now_ms) {
                room.events.pop_front();
            }
            // Kept a while longer, so that waiting clients learn that typing ended.
            let quiet = room.typing.is_empty() && room.events.is_empty();
            !quiet || room.typing_place / 1000 + LIFE_MS > now_ms
        });
        let changed = state.people.tick(now_ms, &mut next);
        let tell = state.people.tell();
        state.next = next;
        drop(state);
        for room in woken {
            let _ = self.wake.send(room);
        }
        if !changed.is_empty() {
            let _ = tell.send(changed.into());
        }
    }
}
