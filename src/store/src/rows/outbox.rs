//! What waits for other servers: events, messages to devices, and news of our users' devices; and which messages came from
//! them already.

use std::ops::Bound;

use bytes::Bytes;
use stoa_engine::Direction;

use crate::{Error, EventNo, Position, RoomNo, Slot, Snapshot, Tx, UserNo, cbor_value, schema};

/// A device of a user of ours (or, under the empty id, the user's cross-signing keys) as other servers were told of it.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct ToldDevice {
    /// The number of the change in the user's sequence: `stream_id`.
    #[n(0)]
    pub stream: u64,
    /// The SHA-256 of what was told; `None` for a device that is gone.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub digest: Option<Vec<u8>>,
}
cbor_value!(ToldDevice);

/// The id under which [`ToldDevice`] stands for a user's cross-signing keys.
pub const CROSS_SIGNING: &str = "";

/// An event that waits for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingEvent {
    /// The room.
    pub room: RoomNo,
    /// Its place.
    pub at: Position,
    /// The event.
    pub event: EventNo,
}

/// Lets an event wait for a server.
pub fn put_event(tx: &mut Tx, server: &str, waiting: WaitingEvent) {
    tx.put(&schema::OUTBOX, &(server.to_owned(), waiting.room, waiting.at), &waiting.event);
}

/// The server has an event.
pub fn delete_event(tx: &mut Tx, server: &str, room: RoomNo, at: Position) {
    tx.delete(&schema::OUTBOX, &(server.to_owned(), room, at));
}

/// The events that wait for a server: those of each room in order, the rooms in a circle that begins after `after`. At
/// most `limit`.
///
/// # Errors
/// Where the engine fails.
pub async fn events(
    snapshot: &Snapshot,
    server: &str,
    after: Option<RoomNo>,
    limit: usize,
) -> Result<Vec<WaitingEvent>, Error> {
    let all = server.to_owned();
    let mut rows = match after {
        Some(room) => {
            let from = Bound::Excluded((all.clone(), room));
            snapshot.range(&schema::OUTBOX, from, Bound::Included(all.clone()), Direction::Forward, limit).await?
        }
        None => snapshot.scan(&schema::OUTBOX, &all, Direction::Forward, limit).await?,
    };
    if let Some(room) = after
        && rows.len() < limit
    {
        let (from, to) = (Bound::Included(all.clone()), Bound::Included((all, room)));
        rows.extend(snapshot.range(&schema::OUTBOX, from, to, Direction::Forward, limit - rows.len()).await?);
    }
    Ok(rows.into_iter().map(|((_, room, at), event)| WaitingEvent { room, at, event }).collect())
}

/// Forgets all but the latest `keep` events of each room that wait for a server.
///
/// # Errors
/// Where the engine fails.
pub async fn trim_events(snapshot: &Snapshot, tx: &mut Tx, server: &str, keep: usize) -> Result<(), Error> {
    let all = server.to_owned();
    let mut next = first_room(snapshot, Bound::Included(all.clone()), &all).await?;
    while let Some(room) = next {
        let prefix = (all.clone(), room);
        let latest = snapshot.scan(&schema::OUTBOX, &prefix, Direction::Backward, keep).await?;
        if let Some(((_, _, at), _)) = latest.last().filter(|_| latest.len() == keep) {
            tx.delete_range(&schema::OUTBOX, &(all.clone(), room, Position::MIN), &(all.clone(), room, *at));
        }
        next = first_room(snapshot, Bound::Excluded(prefix), &all).await?;
    }
    Ok(())
}

async fn first_room<A: crate::codec::KeyPart>(
    snapshot: &Snapshot,
    from: Bound<A>,
    server: &str,
) -> Result<Option<RoomNo>, Error> {
    let to = Bound::Included(server.to_owned());
    let rows = snapshot.range(&schema::OUTBOX, from, to, Direction::Forward, 1).await?;
    Ok(rows.into_iter().next().map(|((_, room, _), _)| room))
}

/// Lets the content of an `m.direct_to_device` EDU wait for a server, at the position of `slot`.
pub fn put_direct(tx: &mut Tx, slot: Slot, server: &str, content: Bytes) {
    let server = server.to_owned();
    tx.put_at(&schema::DIRECT, move |at| ((server.clone(), at.of(slot)), content.clone()));
}

/// The contents of `m.direct_to_device` EDUs that wait for a server, oldest first.
///
/// # Errors
/// Where the engine fails.
pub async fn direct(snapshot: &Snapshot, server: &str, limit: usize) -> Result<Vec<(Position, Bytes)>, Error> {
    let rows = snapshot.scan(&schema::DIRECT, &server.to_owned(), Direction::Forward, limit).await?;
    Ok(rows.into_iter().map(|((_, at), content)| (at, content)).collect())
}

/// The server has those messages.
pub fn delete_direct(tx: &mut Tx, server: &str, at: Position) {
    tx.delete(&schema::DIRECT, &(server.to_owned(), at));
}

/// News of a user's devices that wait for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingDevices {
    /// Whose.
    pub user: UserNo,
    /// The number of the change.
    pub stream: u64,
    /// The number of the change of a device before it.
    pub before: u64,
}

/// Lets news of a user's devices wait for a server.
pub fn put_devices(tx: &mut Tx, server: &str, waiting: WaitingDevices) {
    tx.put(&schema::OUTBOX_DEVICES, &(server.to_owned(), waiting.user, waiting.stream), &waiting.before);
}

/// News of users' devices that wait for a server, by user and then by number.
///
/// # Errors
/// Where the engine fails.
pub async fn devices(snapshot: &Snapshot, server: &str, limit: usize) -> Result<Vec<WaitingDevices>, Error> {
    let rows = snapshot.scan(&schema::OUTBOX_DEVICES, &server.to_owned(), Direction::Forward, limit).await?;
    Ok(rows.into_iter().map(|((_, user, stream), before)| WaitingDevices { user, stream, before }).collect())
}

/// The server has the news of a user's devices up to and with a number.
pub fn delete_devices(tx: &mut Tx, server: &str, user: UserNo, upto: u64) {
    let key = |stream| (server.to_owned(), user, stream);
    tx.delete_range(&schema::OUTBOX_DEVICES, &key(0), &key(upto.saturating_add(1)));
}

/// Forgets everything that waits for a server.
pub fn delete_all(tx: &mut Tx, server: &str) {
    tx.delete_prefix(&schema::OUTBOX, &server.to_owned());
    delete_for_devices(tx, server);
}

/// Forgets what waits for a server because of its users' devices: messages to them, and news of ours.
pub fn delete_for_devices(tx: &mut Tx, server: &str) {
    tx.delete_prefix(&schema::DIRECT, &server.to_owned());
    tx.delete_prefix(&schema::OUTBOX_DEVICES, &server.to_owned());
}

/// The servers for which something waits, at most `limit` of each kind.
///
/// # Errors
/// Where the engine fails.
pub async fn servers(snapshot: &Snapshot, limit: usize) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    macro_rules! of {
        ($table:ident, $key:ident => $server:expr) => {
            let mut after: Option<String> = None;
            for _ in 0..limit {
                let from = after.take().map_or(Bound::Unbounded, Bound::Excluded);
                let to = Bound::<String>::Unbounded;
                let rows = snapshot.range(&schema::$table, from, to, Direction::Forward, 1).await?;
                let Some(($key, _)) = rows.into_iter().next() else { break };
                found.push($server.clone());
                after = Some($server);
            }
        };
    }
    of!(OUTBOX, key => key.0);
    of!(DIRECT, key => key.0);
    of!(OUTBOX_DEVICES, key => key.0);
    found.sort();
    found.dedup();
    Ok(found)
}

/// What other servers were told of a user's devices, by device id.
///
/// # Errors
/// Where the engine fails.
pub async fn told_devices(snapshot: &Snapshot, user: UserNo) -> Result<Vec<(String, ToldDevice)>, Error> {
    let rows = snapshot.scan(&schema::TOLD_DEVICES, &user, Direction::Forward, usize::MAX).await?;
    Ok(rows.into_iter().map(|((_, device), told)| (device, told)).collect())
}

/// The number of the last change of a user's devices that other servers were told: `stream_id` of the device list.
///
/// # Errors
/// Where the engine fails.
pub async fn device_stream(snapshot: &Snapshot, user: UserNo) -> Result<u64, Error> {
    Ok(stream_of(&told_devices(snapshot, user).await?))
}

/// The number of the last change of a device. Cross-signing keys are not in that sequence.
pub fn stream_of(told: &[(String, ToldDevice)]) -> u64 {
    told.iter().filter(|(device, _)| device != CROSS_SIGNING).map(|(_, told)| told.stream).max().unwrap_or(0)
}

/// Notes what other servers are told of a device.
pub fn put_told(tx: &mut Tx, user: UserNo, device: &str, told: &ToldDevice) {
    tx.put(&schema::TOLD_DEVICES, &(user, device.to_owned()), told);
}

/// Forgets a device that is gone.
pub fn delete_told(tx: &mut Tx, user: UserNo, device: &str) {
    tx.delete(&schema::TOLD_DEVICES, &(user, device.to_owned()));
}

/// Notes that messages of that id came from a server, at `ts` in milliseconds since 1970.
pub fn put_direct_seen(tx: &mut Tx, server: &str, message: &str, ts: u64) {
    tx.put(&schema::DIRECT_SEEN, &(server.to_owned(), message.to_owned()), &ts);
}

/// Whether messages of that id came from a server.
///
/// # Errors
/// Where the engine fails.
pub async fn is_direct_seen(snapshot: &Snapshot, server: &str, message: &str) -> Result<bool, Error> {
    snapshot.has(&schema::DIRECT_SEEN, &(server.to_owned(), message.to_owned())).await
}

/// Forgets ids of messages that came before a moment, among the `limit` ones after `after`. Answers where to go on; `None`
/// at the end.
///
/// # Errors
/// Where the engine fails.
pub async fn forget_direct_seen(
    snapshot: &Snapshot,
    tx: &mut Tx,
    after: Option<(String, String)>,
    before_ms: u64,
    limit: usize,
) -> Result<Option<(String, String)>, Error> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let to = Bound::<(String, String)>::Unbounded;
    let rows = snapshot.range(&schema::DIRECT_SEEN, from, to, Direction::Forward, limit).await?;
    for (key, _) in rows.iter().filter(|(_, ts)| *ts < before_ms) {
        tx.delete(&schema::DIRECT_SEEN, key);
    }
    Ok(rows.last().filter(|_| rows.len() == limit).map(|(key, _)| key.clone()))
}
