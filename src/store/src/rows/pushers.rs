//! Pushers: where a user wants to be told of events; and what they are still to be told.

use std::ops::Bound;

use stoa_engine::Direction;

use crate::{Error, EventNo, Position, RoomNo, Snapshot, Tx, UserNo, cbor_value, schema, tx::Fact};

/// A pusher.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Pusher {
    /// The pusher as its owner set it, a JSON object.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub json: Vec<u8>,
    /// The device that set it: it goes with the device.
    #[n(1)]
    pub device: String,
    /// When it was set, in milliseconds since 1970.
    #[n(2)]
    pub created: u64,
    /// Whether its owner switched it off for now (MSC3881).
    #[n(3)]
    #[cbor(default)]
    pub disabled: bool,
    /// Whether its owner has not yet shown that it arrives where it should (MSC4174, `activated`).
    #[n(4)]
    #[cbor(default)]
    pub dormant: bool,
}
cbor_value!(Pusher);

impl Pusher {
    /// Whether it is told anything.
    pub fn is_active(&self) -> bool {
        !self.disabled && !self.dormant
    }
}

/// What a pusher is still to be told.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub enum Waiting {
    /// An event of a room that the user is in, or an invite to one that this server is in.
    #[n(0)]
    Event {
        /// The room.
        #[n(0)]
        room: RoomNo,
        /// The event.
        #[n(1)]
        event: EventNo,
        /// The actions of the push rule that applied: a JSON array.
        #[n(2)]
        #[cbor(with = "minicbor::bytes")]
        actions: Vec<u8>,
        /// Since when it waits, in milliseconds since 1970.
        #[n(3)]
        since: u64,
    },
    /// An invite to a room that this server is not in.
    #[n(1)]
    Invite {
        /// The room.
        #[n(0)]
        room: RoomNo,
        /// The actions of the push rule that applied: a JSON array.
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        actions: Vec<u8>,
        /// Since when it waits, in milliseconds since 1970.
        #[n(2)]
        since: u64,
    },
    /// That there is another number of unread messages.
    #[n(2)]
    Badge {
        /// Since when it waits, in milliseconds since 1970.
        #[n(0)]
        since: u64,
    },
}
cbor_value!(Waiting);

impl Waiting {
    /// Since when it waits, in milliseconds since 1970.
    pub fn since(&self) -> u64 {
        match self {
            Waiting::Event { since, .. } | Waiting::Invite { since, .. } | Waiting::Badge { since } => *since,
        }
    }
}

/// Which pusher: user, app id, push key.
pub type PusherKey = (UserNo, String, String);

/// Sets a pusher.
pub fn put(tx: &mut Tx, user: UserNo, app: &str, key: &str, pusher: &Pusher) {
    tx.put(&schema::PUSHERS, &(user, app.to_owned(), key.to_owned()), pusher);
    tx.put(&schema::PUSHER_OWNERS, &(app.to_owned(), key.to_owned(), user), &());
    tx.tell(move |_| Fact::Pushers { user });
}

/// Removes a pusher, and what waits for it.
pub fn delete(tx: &mut Tx, user: UserNo, app: &str, key: &str) {
    tx.delete(&schema::PUSHERS, &(user, app.to_owned(), key.to_owned()));
    tx.delete(&schema::PUSHER_OWNERS, &(app.to_owned(), key.to_owned(), user));
    forget_waiting(tx, &(user, app.to_owned(), key.to_owned()));
    tx.tell(move |_| Fact::Pushers { user });
}

/// The pushers of a user, at most `limit`.
///
/// # Errors
/// Where the engine fails.
pub async fn of_user(snapshot: &Snapshot, user: UserNo, limit: usize) -> Result<Vec<(PusherKey, Pusher)>, Error> {
    snapshot.scan(&schema::PUSHERS, &user, Direction::Forward, limit).await
}

/// The users who have pushers, after `after`, at most `limit`: one look a user, however many pushers there are.
///
/// # Errors
/// Where the engine fails.
pub async fn users(snapshot: &Snapshot, mut after: Option<UserNo>, limit: usize) -> Result<Vec<UserNo>, Error> {
    let mut found = Vec::new();
    while found.len() < limit {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = snapshot.range(&schema::PUSHERS, from, Bound::<UserNo>::Unbounded, Direction::Forward, 1).await?;
        let Some(((user, ..), _)) = rows.into_iter().next() else { break };
        found.push(user);
        after = Some(user);
    }
    Ok(found)
}

/// Lets something wait for a pusher; `at` is where it happened.
pub fn put_waiting(tx: &mut Tx, pusher: &PusherKey, at: Position, waiting: &Waiting) {
    let (user, app, key) = pusher.clone();
    tx.put(&schema::PUSH_QUEUE, &(user, app, key, at), waiting);
}

/// A pusher has been told what happened at a place, or need not be told.
pub fn delete_waiting(tx: &mut Tx, pusher: &PusherKey, at: Position) {
    let (user, app, key) = pusher.clone();
    tx.delete(&schema::PUSH_QUEUE, &(user, app, key, at));
}

/// Forgets all that waits for a pusher.
pub fn forget_waiting(tx: &mut Tx, pusher: &PusherKey) {
    tx.delete_prefix(&schema::PUSH_QUEUE, pusher);
}

/// What waits for a pusher, oldest first, at most `limit`.
///
/// # Errors
/// Where the engine fails.
pub async fn waiting(snapshot: &Snapshot, pusher: &PusherKey, limit: usize) -> Result<Vec<(Position, Waiting)>, Error> {
    let rows = snapshot.scan(&schema::PUSH_QUEUE, pusher, Direction::Forward, limit).await?;
    Ok(rows.into_iter().map(|((_, _, _, at), waiting)| (at, waiting)).collect())
}

/// Forgets all but the latest `keep` things that wait for a pusher.
///
/// # Errors
/// Where the engine fails.
pub async fn trim_waiting(snapshot: &Snapshot, tx: &mut Tx, pusher: &PusherKey, keep: usize) -> Result<(), Error> {
    let rows = snapshot.scan(&schema::PUSH_QUEUE, pusher, Direction::Backward, keep + 1).await?;
    if let Some(((.., at), _)) = rows.get(keep) {
        let row = |at| (pusher.0, pusher.1.clone(), pusher.2.clone(), at);
        tx.delete_range(&schema::PUSH_QUEUE, &row(Position::MIN), &row(at.next()));
    }
    Ok(())
}

/// The pushers for which something waits, after `after`, at most `limit`.
///
/// # Errors
/// Where the engine fails.
pub async fn pushers_with_waiting(
    snapshot: &Snapshot,
    mut after: Option<PusherKey>,
    limit: usize,
) -> Result<Vec<PusherKey>, Error> {
    let mut found: Vec<PusherKey> = Vec::new();
    while found.len() < limit {
        let from = after.take().map_or(Bound::Unbounded, Bound::Excluded);
        let to = Bound::<PusherKey>::Unbounded;
        let rows = snapshot.range(&schema::PUSH_QUEUE, from, to, Direction::Forward, 1).await?;
        let Some(((user, app, key, _), _)) = rows.into_iter().next() else { break };
        found.push((user, app.clone(), key.clone()));
        after = Some((user, app, key));
    }
    Ok(found)
}
