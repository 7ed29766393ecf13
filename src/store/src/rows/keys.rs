//! End-to-end keys of devices (Client-Server API, "Key management API"): how many one-time keys are left, which fallback
//! keys were not used, and whose devices changed when.

use std::{collections::BTreeMap, ops::Bound};

use stoa_engine::Direction;

use crate::{Error, Position, Slot, Snapshot, Tx, UserNo, cbor_value, schema, tx::Fact};
use bytes::Bytes;

/// A fallback key of a device, by algorithm.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct FallbackKey {
    /// `algorithm:id`
    #[n(0)]
    pub id: String,
    /// The key, JSON.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub json: Vec<u8>,
    /// Whether it was given out.
    #[n(2)]
    pub used: bool,
}
cbor_value!(FallbackKey);

/// How well the devices of another server's user are known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct RemoteDevices {
    /// The last `stream_id` that was heard.
    #[n(0)]
    pub stream: u64,
    /// Whether something was missed since: the other server must be asked before this is believed.
    #[n(1)]
    pub stale: bool,
}
cbor_value!(RemoteDevices);

/// What `/sync` says of a device's own keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// One-time keys by algorithm.
    pub one_time: BTreeMap<String, u32>,
    /// Algorithms whose fallback key was not used; `None` if the device never had fallback keys.
    pub unused_fallback: Vec<String>,
}

/// Counts the keys of a device.
///
/// # Errors
/// Where the engine fails.
pub async fn counts(snapshot: &Snapshot, user: UserNo, device: &str) -> Result<KeyCounts, Error> {
    let prefix = (user, device.to_owned());
    let one_time = snapshot.scan(&schema::ONE_TIME_KEY_COUNTS, &prefix, Direction::Forward, 100).await?;
    let fallback = snapshot.scan(&schema::FALLBACK_KEYS, &prefix, Direction::Forward, 100).await?;
    Ok(KeyCounts {
        one_time: one_time.into_iter().map(|((_, _, algorithm), count)| (algorithm, count)).collect(),
        unused_fallback: fallback
            .into_iter()
            .filter(|(_, key)| !key.used)
            .map(|((_, _, algorithm), _)| algorithm)
            .collect(),
    })
}

/// Notes that the devices or keys of a user changed, at the position of `slot`; `before` is where they changed last.
pub fn put_devices_changed(tx: &mut Tx, slot: Slot, user: UserNo, before: Option<Position>) {
    if let Some(before) = before {
        tx.delete(&schema::DEVICE_CHANGES, &(before, user));
    }
    tx.put_at(&schema::DEVICE_CHANGES, move |at| ((at.of(slot), user), ()));
    tx.put_at(&schema::DEVICES_CHANGED_AT, move |at| (user, at.of(slot)));
    tx.tell(move |at| Fact::Devices { user, at: at.of(slot) });
}

/// Where the devices or keys of a user changed last.
///
/// # Errors
/// Where the engine fails.
pub async fn devices_changed_at(snapshot: &Snapshot, user: UserNo) -> Result<Option<Position>, Error> {
    snapshot.get(&schema::DEVICES_CHANGED_AT, &user).await
}

/// Whose devices or keys changed after `from`, up to and with `to`.
///
/// # Errors
/// Where the engine fails.
pub async fn devices_changed(snapshot: &Snapshot, from: Position, to: Position) -> Result<Vec<UserNo>, Error> {
    let rows = snapshot
        .range(&schema::DEVICE_CHANGES, Bound::Excluded(from), Bound::Included(to), Direction::Forward, usize::MAX)
        .await?;
    Ok(rows.into_iter().map(|((_, user), ())| user).collect())
}

/// Sets the identity keys of a device.
pub fn put_device_keys(tx: &mut Tx, user: UserNo, device: &str, json: &Bytes) {
    tx.put(&schema::DEVICE_KEYS, &(user, device.to_owned()), json);
}

/// Adds a one-time key at the position of `slot`.
pub fn put_one_time_key(tx: &mut Tx, slot: Slot, user: UserNo, device: &str, algorithm: &str, id: &str, json: &Bytes) {
    let key = (user, device.to_owned(), algorithm.to_owned(), id.to_owned());
    let json = json.clone();
    let ids = key.clone();
    tx.put_at(&schema::ONE_TIME_KEYS, move |at| {
        ((key.0, key.1.clone(), key.2.clone(), at.of(slot), key.3.clone()), json.clone())
    });
    tx.put_at(&schema::ONE_TIME_KEY_IDS, move |at| (ids.clone(), at.of(slot)));
}

/// Removes a one-time key: it was given out.
pub fn delete_one_time_key(tx: &mut Tx, user: UserNo, device: &str, algorithm: &str, at: Position, id: &str) {
    let key = (user, device.to_owned(), algorithm.to_owned(), at, id.to_owned());
    tx.delete(&schema::ONE_TIME_KEYS, &key);
    tx.delete(&schema::ONE_TIME_KEY_IDS, &(key.0, key.1, key.2, key.4));
}

/// Sets how many one-time keys a device has, and tells the device.
pub fn put_count(tx: &mut Tx, slot: Slot, user: UserNo, device: &str, algorithm: &str, count: u32) {
    tx.put(&schema::ONE_TIME_KEY_COUNTS, &(user, device.to_owned(), algorithm.to_owned()), &count);
    tx.tell(move |at| Fact::User { user, at: at.of(slot) });
}

/// Sets the fallback key of an algorithm.
pub fn put_fallback_key(tx: &mut Tx, user: UserNo, device: &str, algorithm: &str, key: &FallbackKey) {
    tx.put(&schema::FALLBACK_KEYS, &(user, device.to_owned(), algorithm.to_owned()), key);
}

/// Sets a cross-signing key.
pub fn put_cross_signing_key(tx: &mut Tx, user: UserNo, usage: &str, json: &Bytes) {
    tx.put(&schema::CROSS_SIGNING_KEYS, &(user, usage.to_owned()), json);
}

/// Notes a signature that a user made on the master key of another, at the position of `slot`, and tells who signed.
/// `before` is where the signer signed keys of that user until now, so that the index keeps one row for each.
pub fn put_own_signature(
    tx: &mut Tx,
    slot: Slot,
    (signer, target): (UserNo, UserNo),
    key_id: &str,
    signature: &str,
    before: &[Position],
) {
    for before in before {
        tx.delete(&schema::OWN_SIGNATURE_CHANGES, &(signer, *before));
    }
    tx.put(&schema::OWN_SIGNATURES, &(signer, target, key_id.to_owned()), &signature.to_owned());
    tx.put_at(&schema::OWN_SIGNATURE_CHANGES, move |at| ((signer, at.of(slot)), target));
    tx.tell(move |at| Fact::User { user: signer, at: at.of(slot) });
}

/// Where a user signed the master key of another.
///
/// # Errors
/// Where the engine fails.
pub async fn signed_at(snapshot: &Snapshot, signer: UserNo, target: UserNo) -> Result<Vec<Position>, Error> {
    let rows = snapshot.scan(&schema::OWN_SIGNATURE_CHANGES, &signer, Direction::Forward, usize::MAX).await?;
    Ok(rows.into_iter().filter(|(_, other)| *other == target).map(|((_, at), _)| at).collect())
}

/// Whose master keys a user signed after `from`, up to and with `to`.
///
/// # Errors
/// Where the engine fails.
pub async fn signed(snapshot: &Snapshot, signer: UserNo, from: Position, to: Position) -> Result<Vec<UserNo>, Error> {
    let (low, high) = (Bound::Excluded((signer, from)), Bound::Included((signer, to)));
    let rows = snapshot.range(&schema::OWN_SIGNATURE_CHANGES, low, high, Direction::Forward, usize::MAX).await?;
    Ok(rows.into_iter().map(|(_, target)| target).collect())
}

/// Forgets all keys of a device.
pub fn delete_device(tx: &mut Tx, user: UserNo, device: &str) {
    let prefix = (user, device.to_owned());
    tx.delete(&schema::DEVICE_KEYS, &prefix);
    tx.delete_prefix(&schema::ONE_TIME_KEYS, &prefix);
    tx.delete_prefix(&schema::ONE_TIME_KEY_IDS, &prefix);
    tx.delete_prefix(&schema::ONE_TIME_KEY_COUNTS, &prefix);
    tx.delete_prefix(&schema::FALLBACK_KEYS, &prefix);
}

/// Notes how well the devices of another server's user are known.
pub fn put_remote_devices(tx: &mut Tx, user: UserNo, known: &RemoteDevices) {
    tx.put(&schema::REMOTE_DEVICES, &user, known);
}

/// How well the devices of another server's user are known; `None`: nothing is.
///
/// # Errors
/// Where the engine fails.
pub async fn remote_devices(snapshot: &Snapshot, user: UserNo) -> Result<Option<RemoteDevices>, Error> {
    snapshot.get(&schema::REMOTE_DEVICES, &user).await
}

/// Removes a cross-signing key.
pub fn delete_cross_signing_key(tx: &mut Tx, user: UserNo, usage: &str) {
    tx.delete(&schema::CROSS_SIGNING_KEYS, &(user, usage.to_owned()));
}

/// Forgets the identity keys of a device.
pub fn delete_device_keys(tx: &mut Tx, user: UserNo, device: &str) {
    tx.delete(&schema::DEVICE_KEYS, &(user, device.to_owned()));
}
