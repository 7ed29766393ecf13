//! Pushers: where a user wants to be told of events.

use crate::{Tx, UserNo, cbor_value, schema};

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
}
cbor_value!(Pusher);

/// Sets a pusher.
pub fn put(tx: &mut Tx, user: UserNo, app: &str, key: &str, pusher: &Pusher) {
    tx.put(&schema::PUSHERS, &(user, app.to_owned(), key.to_owned()), pusher);
    tx.put(&schema::PUSHER_OWNERS, &(app.to_owned(), key.to_owned(), user), &());
}

/// Removes a pusher.
pub fn delete(tx: &mut Tx, user: UserNo, app: &str, key: &str) {
    tx.delete(&schema::PUSHERS, &(user, app.to_owned(), key.to_owned()));
    tx.delete(&schema::PUSHER_OWNERS, &(app.to_owned(), key.to_owned(), user));
}
