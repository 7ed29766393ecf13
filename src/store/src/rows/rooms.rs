//! Rooms: what they are now, who is in them, and how they are called.

use crate::{
    EventNo, Membership, Position, RoomNo, Slot, StateKeyNo, Tx, UserNo, cbor_value, schema, state::Root, tx::Fact,
};

/// What a room is now.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Head {
    /// The room version.
    #[n(0)]
    pub version: String,
    /// The create event.
    #[n(1)]
    pub create: EventNo,
    /// The number that the next event gets.
    #[n(2)]
    pub next_event: EventNo,
    /// How many state keys have a number, members apart.
    #[n(3)]
    pub state_keys: u32,
    /// Events that nothing follows yet, with their depths.
    #[n(4)]
    pub extremities: Vec<(EventNo, u64)>,
    /// The current state.
    #[n(5)]
    pub root: Root,
    /// The position of the last thing in it that clients are shown.
    #[n(6)]
    pub last: Position,
    /// How many are joined.
    #[n(7)]
    pub joined: u32,
    /// How many are invited.
    #[n(8)]
    pub invited: u32,
    /// Whether the current state is not whole yet: a room that was joined with partial state.
    #[n(9)]
    pub partial: bool,
    /// How many members' state keys have a number.
    #[n(11)]
    pub member_keys: u32,
    /// Whether messages in it are to be encrypted (`m.room.encryption` was ever set).
    #[n(10)]
    pub encrypted: bool,
    /// Where the state became whole that had been partial.
    #[n(12)]
    #[cbor(default)]
    pub whole_since: Option<Position>,
}
cbor_value!(Head);

/// A user's current membership, from the side of the room.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Member {
    /// What it is.
    #[n(0)]
    pub membership: Membership,
    /// The member event.
    #[n(1)]
    pub event: EventNo,
}
cbor_value!(Member);

/// A local user's membership, from the side of the user.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct OwnMembership {
    /// What it is.
    #[n(0)]
    pub membership: Membership,
    /// The member event; `None` for an invite to a room that this server is not in.
    #[n(1)]
    pub event: Option<EventNo>,
    /// The place of the member event.
    #[n(2)]
    pub at: Position,
    /// The place at which the user was joined last without a break, if joined now or when leaving.
    #[n(3)]
    pub joined_at: Option<Position>,
    /// `invite_state` or `knock_state` as clients are shown it: a JSON array of stripped events.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub stripped: Option<Vec<u8>>,
    /// Who invited.
    #[n(5)]
    pub by: Option<String>,
    /// Whether the user asked to forget the room.
    #[n(6)]
    pub forgotten: bool,
    /// The place at which the user last stopped being joined.
    #[n(7)]
    pub left_at: Option<Position>,
    /// For an invite to or a knock on a room that this server is not in: what is known of it.
    #[n(8)]
    pub outside: Option<Outside>,
}
cbor_value!(OwnMembership);

/// What is known of a room that this server is not in.
#[derive(Clone, Debug, Default, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Outside {
    /// The server that told of it, or took the knock.
    #[n(0)]
    pub via: String,
    /// The room version.
    #[n(1)]
    pub version: String,
    /// The id of the member event.
    #[n(2)]
    #[cbor(default)]
    pub event_id: Option<String>,
    /// When it is said to have been sent, in milliseconds since 1970.
    #[n(3)]
    #[cbor(default)]
    pub ts: u64,
}

/// The event type and state key of a number.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct StateKeyName {
    /// The event type.
    #[n(0)]
    pub kind: String,
    /// The state key.
    #[n(1)]
    pub key: String,
}
cbor_value!(StateKeyName);

/// A room alias.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Alias {
    /// The room.
    #[n(0)]
    pub room: RoomNo,
    /// Who made it.
    #[n(1)]
    pub creator: String,
}
cbor_value!(Alias);

/// What a transaction id led to.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct SentTxn {
    /// The event id that was answered; empty for what has none.
    #[n(0)]
    pub event_id: String,
    /// When, in milliseconds since 1970; old ones are forgotten.
    #[n(1)]
    pub ts: u64,
}
cbor_value!(SentTxn);

/// Why an event names another one that we do not hold (yet).
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Waiting {
    /// It follows it in the graph: history can be fetched from there.
    #[n(0)]
    pub follows: bool,
    /// It redacts it.
    #[n(1)]
    pub redacts: bool,
    /// It relates to it.
    #[n(2)]
    pub relates: bool,
    /// The depth of the event that names it.
    #[n(3)]
    pub depth: u64,
}
cbor_value!(Waiting);

/// Notes that `by` names an event that we do not hold.
pub fn put_waiting(tx: &mut Tx, room: RoomNo, id: &str, by: EventNo, waiting: Waiting) {
    tx.put(&schema::WAITING, &(room, id.to_owned(), by), &waiting);
}

/// The event that was waited for is there.
pub fn delete_waiting(tx: &mut Tx, room: RoomNo, id: &str) {
    tx.delete_prefix(&schema::WAITING, &(room, id.to_owned()));
}

/// Sets how many users of a server are joined.
pub fn put_server(tx: &mut Tx, room: RoomNo, server: &str, joined: u32) {
    match joined {
        0 => tx.delete(&schema::ROOM_SERVERS, &(room, server.to_owned())),
        _ => tx.put(&schema::ROOM_SERVERS, &(room, server.to_owned()), &joined),
    }
}

/// Removes a member, from the side of the room, and tells the feed.
pub fn delete_member(tx: &mut Tx, room: RoomNo, user: UserNo, local: bool) {
    tx.delete(&schema::MEMBERS, &(room, user));
    tx.tell(move |_| Fact::Member { room, user, membership: Membership::Leave, local });
}

/// Writes the head; its `last` becomes the position of `slot`.
pub fn put_head(tx: &mut Tx, slot: Slot, room: RoomNo, head: Head) {
    tx.put_at(&schema::ROOMS, move |at| (room, Head { last: at.of(slot), ..head.clone() }));
}

/// The same where the state, which was partial, is whole from `slot` on. Those in the room are told.
pub fn put_whole_head(tx: &mut Tx, slot: Slot, room: RoomNo, head: Head) {
    tx.put_at(&schema::ROOMS, move |at| {
        let at = at.of(slot);
        (room, Head { last: at, partial: false, whole_since: Some(at), ..head.clone() })
    });
    tx.tell(move |at| Fact::Room { room, at: at.of(slot) });
}

/// Writes the head as it is: nothing that clients are shown changed.
pub fn put_head_as_is(tx: &mut Tx, room: RoomNo, head: &Head) {
    tx.put(&schema::ROOMS, &room, head);
}

/// Notes that the current state is `root` from the position of `slot` on.
pub fn put_root(tx: &mut Tx, slot: Slot, room: RoomNo, root: Root) {
    tx.put_at(&schema::ROOTS, move |at| ((room, at.of(slot)), root));
}

/// Gives a number to a state key.
pub fn put_state_key(tx: &mut Tx, room: RoomNo, no: StateKeyNo, kind: &str, key: &str) {
    tx.put(&schema::STATE_KEYS, &(room, kind.to_owned(), key.to_owned()), &no);
    tx.put(&schema::STATE_KEY_NAMES, &(room, no), &StateKeyName { kind: kind.to_owned(), key: key.to_owned() });
}

/// Sets a member, from the side of the room, and tells the feed.
pub fn put_member(tx: &mut Tx, room: RoomNo, user: UserNo, member: &Member, local: bool) {
    tx.put(&schema::MEMBERS, &(room, user), member);
    let membership = member.membership;
    tx.tell(move |_| Fact::Member { room, user, membership, local });
}

/// Sets a local user's membership, from the side of the user, at the position of `slot`. `joined_before` is whether the
/// one that it replaces was a joined one.
pub fn put_own(tx: &mut Tx, slot: Slot, user: UserNo, room: RoomNo, own: OwnMembership, joined_before: bool) {
    let joined = own.membership == Membership::Join;
    tx.put_at(&schema::MEMBERSHIPS, move |at| {
        let at = at.of(slot);
        let joined_at = if joined && !joined_before { Some(at) } else { own.joined_at };
        let left_at = if joined_before && !joined { Some(at) } else { own.left_at };
        ((user, room), OwnMembership { at, joined_at, left_at, ..own.clone() })
    });
}

/// Sets a local user's membership as it is.
pub fn put_own_as_is(tx: &mut Tx, user: UserNo, room: RoomNo, own: &OwnMembership) {
    tx.put(&schema::MEMBERSHIPS, &(user, room), own);
}

/// Remembers what a transaction id led to.
pub fn put_txn(tx: &mut Tx, user: UserNo, device: &str, deed: &str, txn: &str, sent: &SentTxn) {
    tx.put(&schema::TXNS, &(user, device.to_owned(), deed.to_owned(), txn.to_owned()), sent);
}

/// Forgets what a transaction id led to.
pub fn delete_txn(tx: &mut Tx, key: &(UserNo, String, String, String)) {
    tx.delete(&schema::TXNS, key);
}

/// Makes an alias.
pub fn put_alias(tx: &mut Tx, name: &str, alias: &Alias) {
    tx.put(&schema::ALIASES, &name.to_owned(), alias);
    tx.put(&schema::ROOM_ALIASES, &(alias.room, name.to_owned()), &());
}

/// Removes an alias.
pub fn delete_alias(tx: &mut Tx, name: &str, room: RoomNo) {
    tx.delete(&schema::ALIASES, &name.to_owned());
    tx.delete(&schema::ROOM_ALIASES, &(room, name.to_owned()));
}

/// Lists a room in the public directory, or no longer.
pub fn put_listed(tx: &mut Tx, room: RoomNo, listed: bool) {
    if listed {
        tx.put(&schema::DIRECTORY, &room, &());
    } else {
        tx.delete(&schema::DIRECTORY, &room);
    }
}
