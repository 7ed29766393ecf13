//! Delayed events (MSC4140): what is to be sent later, and for a while what became of it.

use std::ops::Bound;

use stoa_engine::Direction;

use crate::{Error, RoomNo, Snapshot, Tx, UserNo, cbor_value, schema};

/// An event that a user of this server wants sent later.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Delayed {
    /// Where.
    #[n(0)]
    pub room: RoomNo,
    /// The event type.
    #[n(1)]
    pub kind: String,
    /// The state key of a state event.
    #[n(2)]
    pub state_key: Option<String>,
    /// The content, a JSON object.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub content: Vec<u8>,
    /// How long it waits, in milliseconds.
    #[n(4)]
    pub delay_ms: u64,
    /// When that began, in milliseconds since 1970.
    #[n(5)]
    pub since_ms: u64,
    /// What became of it.
    #[n(6)]
    pub end: Option<End>,
}
cbor_value!(Delayed);

/// What became of a delayed event: with an event id it was sent, with an error it could not be, with neither it was cancelled.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct End {
    /// When, in milliseconds since 1970.
    #[n(0)]
    pub ts: u64,
    /// The event that it became.
    #[n(1)]
    pub event_id: Option<String>,
    /// Why it could not be sent: a standard error response.
    #[n(2)]
    pub error: Option<String>,
}

impl Delayed {
    /// When it is to be sent.
    pub fn due(&self) -> u64 {
        self.since_ms.saturating_add(self.delay_ms)
    }

    /// Whether it is over, and the time by which it is found.
    fn place(&self) -> (bool, u64) {
        match &self.end {
            None => (false, self.due()),
            Some(end) => (true, end.ts),
        }
    }
}

/// Writes one, in the place of what it was before.
pub fn put(tx: &mut Tx, user: UserNo, id: &str, old: Option<&Delayed>, new: &Delayed) {
    if let Some(old) = old {
        delete_places(tx, user, id, old);
    }
    let (over, at) = new.place();
    tx.put(&schema::DELAYED, &(user, id.to_owned()), new);
    tx.put(&schema::DELAYED_BY_TIME, &(over, at, user, id.to_owned()), &new.room);
    tx.put(&schema::DELAYED_BY_USER, &(user, over, at, id.to_owned()), &());
}

/// Forgets one.
pub fn delete(tx: &mut Tx, user: UserNo, id: &str, old: &Delayed) {
    delete_places(tx, user, id, old);
    tx.delete(&schema::DELAYED, &(user, id.to_owned()));
}

fn delete_places(tx: &mut Tx, user: UserNo, id: &str, old: &Delayed) {
    let (over, at) = old.place();
    tx.delete(&schema::DELAYED_BY_TIME, &(over, at, user, id.to_owned()));
    tx.delete(&schema::DELAYED_BY_USER, &(user, over, at, id.to_owned()));
}

/// The first of all users, those that are to be sent or those that are over: when, whose, which, where.
///
/// # Errors
/// Where the engine fails.
pub async fn first(snapshot: &Snapshot, over: bool, limit: usize) -> Result<Vec<(u64, UserNo, String, RoomNo)>, Error> {
    let rows = snapshot.scan(&schema::DELAYED_BY_TIME, &over, Direction::Forward, limit).await?;
    Ok(rows.into_iter().map(|((_, at, user, id), room)| (at, user, id, room)).collect())
}

/// Those of a user, to be sent or over, in the order of their times: when and which.
///
/// # Errors
/// Where the engine fails.
pub async fn of_user(snapshot: &Snapshot, user: UserNo, over: bool, limit: usize) -> Result<Vec<(u64, String)>, Error> {
    let of = Bound::Included((user, over));
    let rows = snapshot.range(&schema::DELAYED_BY_USER, of, of, Direction::Forward, limit).await?;
    Ok(rows.into_iter().map(|((_, _, at, id), ())| (at, id)).collect())
}
