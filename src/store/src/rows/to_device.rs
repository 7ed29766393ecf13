//! Messages from device to device, kept until the device has seen them (Client-Server API, "Send-to-Device messaging").

use std::ops::Bound;

use bytes::Bytes;
use stoa_engine::Direction;

use crate::{Error, Position, Slot, Snapshot, Tx, UserNo, schema, tx::Fact};

/// Leaves a message for a device, at the position of `slot`. `json` is the event as the device is to see it: `type`,
/// `sender`, `content`.
pub fn put(tx: &mut Tx, slot: Slot, user: UserNo, device: &str, json: Bytes) {
    let device = device.to_owned();
    tx.put_at(&schema::TO_DEVICE, move |at| ((user, device.clone(), at.of(slot)), json.clone()));
    tx.tell(move |at| Fact::User { user, at: at.of(slot) });
}

/// The messages for a device after `from`, up to and with `to`, at most `limit`, oldest first.
///
/// # Errors
/// Where the engine fails.
pub async fn read(
    snapshot: &Snapshot,
    user: UserNo,
    device: &str,
    from: Position,
    to: Position,
    limit: usize,
) -> Result<Vec<(Position, Bytes)>, Error> {
    let key = |at| (user, device.to_owned(), at);
    let rows = snapshot
        .range(&schema::TO_DEVICE, Bound::Excluded(key(from)), Bound::Included(key(to)), Direction::Forward, limit)
        .await?;
    Ok(rows.into_iter().map(|((_, _, at), json)| (at, json)).collect())
}

/// Forgets the messages for a device up to and with a position: it has seen them.
pub fn delete_until(tx: &mut Tx, user: UserNo, device: &str, until: Position) {
    let key = |at| (user, device.to_owned(), at);
    tx.delete_range(&schema::TO_DEVICE, &key(Position::MIN), &key(until.next()));
}

/// Forgets all messages for a device.
pub fn delete_all(tx: &mut Tx, user: UserNo, device: &str) {
    tx.delete_prefix(&schema::TO_DEVICE, &(user, device.to_owned()));
}
