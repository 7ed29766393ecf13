//! A transaction: everything that one request changes, gathered before anything is written.

use bytes::Bytes;
use stoa_engine::{Assert, Batch, Op};

use crate::{EventNo, Position, RoomNo, UserNo, codec::KeyPart, table::Table, value::Value};

/// A position that the commit will assign: the first, second, ... of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(u32);

/// The positions of one transaction, once the commit has assigned them.
#[derive(Clone, Copy, Debug)]
pub struct Positions {
    first: Position,
}

impl Positions {
    /// The position of a slot.
    pub fn of(&self, slot: Slot) -> Position {
        Position(self.first.0 + u64::from(slot.0))
    }
}

/// What a commit tells those who read the feed. Numbers only: who wants to know more reads the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub enum Fact {
    /// A room's timeline has a new event.
    #[n(0)]
    Event {
        /// The room.
        #[n(0)]
        room: RoomNo,
        /// The event.
        #[n(1)]
        event: EventNo,
        /// Its place.
        #[n(2)]
        at: Position,
    },
    /// The current membership of a user in a room changed.
    #[n(1)]
    Member {
        /// The room.
        #[n(0)]
        room: RoomNo,
        /// The user.
        #[n(1)]
        user: UserNo,
        /// What it is now.
        #[n(2)]
        membership: Membership,
        /// Whether the user belongs to this server.
        #[n(3)]
        local: bool,
    },
    /// Something beside the timeline changed that everyone in the room is shown: a receipt.
    #[n(2)]
    Room {
        /// The room.
        #[n(0)]
        room: RoomNo,
        /// Its place.
        #[n(1)]
        at: Position,
    },
    /// Something changed that only this user is shown: account data, push rules, to-device messages, key counts.
    #[n(3)]
    User {
        /// The user.
        #[n(0)]
        user: UserNo,
        /// Its place.
        #[n(1)]
        at: Position,
    },
    /// The devices or keys of a user changed; everyone who shares an encrypted room wants to know.
    #[n(4)]
    Devices {
        /// The user.
        #[n(0)]
        user: UserNo,
        /// Its place.
        #[n(1)]
        at: Position,
    },
    /// An event is another one than it was (redacted, judged again), or is there although no timeline has it: history.
    /// Clients are told nothing of it; who keeps something about events reads it again.
    #[n(5)]
    Changed {
        /// The room.
        #[n(0)]
        room: RoomNo,
        /// The event.
        #[n(1)]
        event: EventNo,
    },
    /// An account of this server, or its profile, changed.
    #[n(6)]
    Profile {
        /// The user.
        #[n(0)]
        user: UserNo,
    },
    /// The pushers of a user changed.
    #[n(7)]
    Pushers {
        /// The user.
        #[n(0)]
        user: UserNo,
    },
}

/// A user's relation to a room (Client-Server API, "Room membership").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Membership {
    /// Left, kicked, or never there.
    #[n(0)]
    Leave,
    /// Invited.
    #[n(1)]
    Invite,
    /// Joined.
    #[n(2)]
    Join,
    /// Banned.
    #[n(3)]
    Ban,
    /// Asked to be let in.
    #[n(4)]
    Knock,
}

impl Membership {
    /// The word of the specification.
    pub fn as_str(self) -> &'static str {
        match self {
            Membership::Leave => "leave",
            Membership::Invite => "invite",
            Membership::Join => "join",
            Membership::Ban => "ban",
            Membership::Knock => "knock",
        }
    }

    /// From the word of the specification.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "leave" => Membership::Leave,
            "invite" => Membership::Invite,
            "join" => Membership::Join,
            "ban" => Membership::Ban,
            "knock" => Membership::Knock,
            _ => return None,
        })
    }
}

type LateOp = Box<dyn Fn(Positions) -> Op + Send + Sync>;
type LateFact = Box<dyn Fn(Positions) -> Fact + Send + Sync>;

enum Change {
    Now(Op),
    Late(LateOp),
}

/// Changes that will happen together. Dropping it undoes nothing, because nothing was done.
#[derive(Default)]
pub struct Tx {
    asserts: Vec<Assert>,
    changes: Vec<Change>,
    facts: Vec<LateFact>,
    slots: u32,
    pub(crate) named: Vec<crate::names::Named>,
    /// Events whose stored form this transaction rewrites: cached copies are dropped when it is done.
    pub(crate) rewritten: Vec<(RoomNo, EventNo)>,
    /// Whether it writes state nodes.
    pub(crate) writes_nodes: bool,
    /// It is refused once commits have written state nodes more often than so many times since start.
    pub(crate) node_writes: Option<u64>,
}

impl Tx {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it would change nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.facts.is_empty()
    }

    /// Asks for one more position.
    pub fn slot(&mut self) -> Slot {
        let slot = Slot(self.slots);
        self.slots += 1;
        slot
    }

    /// Sets a row.
    pub fn put<K: KeyPart, V: Value>(&mut self, table: &Table<K, V>, key: &K, value: &V) {
        let op = Op::Put { space: table.space, key: table.key(key), value: value.to_bytes() };
        self.changes.push(Change::Now(op));
    }

    /// Sets a row whose key or value holds a position that is not known yet.
    pub fn put_at<K: KeyPart, V: Value>(
        &mut self,
        table: &'static Table<K, V>,
        row: impl Fn(Positions) -> (K, V) + Send + Sync + 'static,
    ) {
        self.changes.push(Change::Late(Box::new(move |positions| {
            let (key, value) = row(positions);
            Op::Put { space: table.space, key: table.key(&key), value: value.to_bytes() }
        })));
    }

    /// Removes a row.
    pub fn delete<K: KeyPart, V: Value>(&mut self, table: &Table<K, V>, key: &K) {
        self.changes.push(Change::Now(Op::Delete { space: table.space, key: table.key(key) }));
    }

    /// Removes all rows whose keys begin with `prefix`.
    pub fn delete_prefix<K: KeyPart, V: Value>(&mut self, table: &Table<K, V>, prefix: &impl KeyPart) {
        let (from, to) = table.prefix_bounds(prefix);
        self.changes.push(Change::Now(Op::DeleteRange { space: table.space, from, to }));
    }

    /// Removes all rows from `from` (included) to `to` (excluded).
    pub fn delete_range<K: KeyPart, V: Value>(&mut self, table: &Table<K, V>, from: &impl KeyPart, to: &impl KeyPart) {
        let (from, to) = (table.key(from), table.key(to));
        self.changes.push(Change::Now(Op::DeleteRange { space: table.space, from, to }));
    }

    /// Lets the commit fail with [`crate::Error::Conflict`] unless the row holds just this.
    pub fn assert<K: KeyPart, V: Value>(&mut self, table: &Table<K, V>, key: &K, value: Option<&V>) {
        let assert = Assert { space: table.space, key: table.key(key), value: value.map(Value::to_bytes) };
        self.asserts.push(assert);
    }

    /// Tells the feed.
    pub fn tell(&mut self, fact: impl Fn(Positions) -> Fact + Send + Sync + 'static) {
        self.facts.push(Box::new(fact));
    }

    pub(crate) fn has_asserts(&self) -> bool {
        !self.asserts.is_empty() || self.node_writes.is_some()
    }

    /// How many positions it takes: at least one if the feed is told something, so that feed rows have a key.
    pub(crate) fn slots(&self) -> u64 {
        u64::from(self.slots).max(u64::from(!self.facts.is_empty()))
    }

    /// Adds its changes to a batch, with its positions beginning at `first`; gives the facts.
    pub(crate) fn write(&self, first: Position, batch: &mut Batch) -> Vec<Fact> {
        let positions = Positions { first };
        batch.asserts.extend(self.asserts.iter().cloned());
        batch.ops.extend(self.changes.iter().map(|change| match change {
            Change::Now(op) => op.clone(),
            Change::Late(op) => op(positions),
        }));
        self.facts.iter().map(|fact| fact(positions)).collect()
    }
}

/// Raw bytes of a row, for tests that look at what is stored.
pub fn stored_bytes<V: Value>(value: &V) -> Bytes {
    value.to_bytes()
}
