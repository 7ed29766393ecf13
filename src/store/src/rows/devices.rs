//! Devices, as their owners see them listed.

use crate::{Tx, UserNo, cbor_value, schema};

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Device {
    /// What its owner calls it.
    #[n(0)]
    pub name: Option<String>,
    /// When it first logged in, in milliseconds since 1970.
    #[n(1)]
    pub created: u64,
    /// When it was last seen; written now and then, not at each request.
    #[n(2)]
    pub seen_ts: Option<u64>,
    /// From where.
    #[n(3)]
    pub seen_ip: Option<String>,
}
cbor_value!(Device);

/// Writes a device.
pub fn put(tx: &mut Tx, user: UserNo, device: &str, row: &Device) {
    tx.put(&schema::DEVICES, &(user, device.to_owned()), row);
}

/// Removes a device. Its tokens and keys have their own rows: see `stoa_accounts::devices`.
pub fn delete(tx: &mut Tx, user: UserNo, device: &str) {
    tx.delete(&schema::DEVICES, &(user, device.to_owned()));
}
