//! End-to-end keys of devices (Client-Server API, "Key management API"): how many one-time keys are left, which fallback
//! keys were not used, and whose devices changed when.

use std::{collections::BTreeMap, ops::Bound};

use stoa_engine::Direction;

use crate::{Error, Position, Slot, Snapshot, Tx, UserNo, cbor_value, schema, tx::Fact};

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
