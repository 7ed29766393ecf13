//! Which threads a user follows (MSC4306), with an index by which sliding sync finds what changed.

use std::ops::Bound;

use stoa_engine::Direction;

use crate::{Error, Position, RoomNo, Slot, Snapshot, Tx, UserNo, cbor_value, schema, tx::Fact};

/// A user's subscription to a thread, or the end of one.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct ThreadSubscription {
    /// Whether the user is subscribed.
    #[n(0)]
    pub subscribed: bool,
    /// Whether a client subscribed by itself, because of a mention.
    #[n(1)]
    pub automatic: bool,
    /// Where that was said.
    #[n(2)]
    pub at: Position,
}
cbor_value!(ThreadSubscription);

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Thread {
    /// The room.
    #[n(0)]
    pub room: RoomNo,
    /// The event ID of its root.
    #[n(1)]
    pub root: String,
}
cbor_value!(Thread);

/// Sets a subscription at the position of `slot`, if it is still what `old` says.
pub fn put(
    tx: &mut Tx,
    slot: Slot,
    user: UserNo,
    thread: Thread,
    (subscribed, automatic): (bool, bool),
    old: Option<&ThreadSubscription>,
) {
    let key = (user, thread.room, thread.root.clone());
    tx.assert(&schema::THREAD_SUBSCRIPTIONS, &key, old);
    if let Some(old) = old {
        tx.delete(&schema::THREAD_CHANGES, &(user, old.at));
    }
    tx.put_at(&schema::THREAD_SUBSCRIPTIONS, move |at| {
        (key.clone(), ThreadSubscription { subscribed, automatic, at: at.of(slot) })
    });
    tx.put_at(&schema::THREAD_CHANGES, move |at| ((user, at.of(slot)), thread.clone()));
    tx.tell(move |at| Fact::User { user, at: at.of(slot) });
}

/// The threads of a user whose subscriptions changed after a position, up to and with another one; the newest first.
///
/// # Errors
/// Where the engine fails.
pub async fn changes(
    snapshot: &Snapshot,
    user: UserNo,
    (after, upto): (Position, Position),
    limit: usize,
) -> Result<Vec<(Thread, ThreadSubscription)>, Error> {
    let (from, to) = (Bound::Excluded((user, after)), Bound::Included((user, upto)));
    let rows = snapshot.range(&schema::THREAD_CHANGES, from, to, Direction::Backward, limit).await?;
    let keys = rows.iter().map(|(_, thread)| (user, thread.room, thread.root.clone()));
    let found = snapshot.get_many(&schema::THREAD_SUBSCRIPTIONS, keys).await?;
    Ok(rows.into_iter().zip(found).filter_map(|((_, thread), row)| Some((thread, row?))).collect())
}
