//! Other servers: their keys, and which of them fail.

use crate::{Error, Snapshot, Tx, cbor_value, schema};

/// What is known of the keys of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct ServerKeys {
    /// The keys, by their ids.
    #[n(0)]
    pub keys: Vec<ServerKey>,
    /// The newest document that the server signed, as it came: what a notary passes on.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub document: Vec<u8>,
    /// `valid_until_ts` of that document, in milliseconds since 1970.
    #[n(2)]
    pub valid_until: u64,
    /// When a document came last, in milliseconds since 1970.
    #[n(3)]
    pub fetched_at: u64,
}

/// A key of another server.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct ServerKey {
    /// Its id, as `ed25519:version`.
    #[n(0)]
    pub id: String,
    /// The public key.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// Until when it is valid, in milliseconds since 1970: the greatest that was ever heard.
    #[n(2)]
    pub valid_until: u64,
    /// When the server stopped using it, in milliseconds since 1970.
    #[n(3)]
    pub expired: Option<u64>,
}

/// A server that fails, or that asked to be left alone.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Destination {
    /// Since when, in milliseconds since 1970.
    #[n(0)]
    pub failing_since: u64,
    /// Until when it is left alone, in milliseconds since 1970.
    #[n(1)]
    pub retry_at: u64,
    /// How many times it failed.
    #[n(2)]
    pub failures: u32,
}
cbor_value!(ServerKeys, Destination);

/// The keys of some servers.
///
/// # Errors
/// Where the engine fails.
pub async fn keys(
    snapshot: &Snapshot,
    servers: impl IntoIterator<Item = String>,
) -> Result<Vec<Option<ServerKeys>>, Error> {
    snapshot.get_many(&schema::SERVER_KEYS, servers).await
}

/// Sets the keys of a server.
pub fn put_keys(tx: &mut Tx, server: &str, keys: &ServerKeys) {
    tx.put(&schema::SERVER_KEYS, &server.to_owned(), keys);
}

/// What is known of a server that fails.
///
/// # Errors
/// Where the engine fails.
pub async fn destination(snapshot: &Snapshot, server: &str) -> Result<Option<Destination>, Error> {
    snapshot.get(&schema::DESTINATIONS, &server.to_owned()).await
}

/// Writes down that a server fails.
pub fn put_destination(tx: &mut Tx, server: &str, destination: &Destination) {
    tx.put(&schema::DESTINATIONS, &server.to_owned(), destination);
}

/// Forgets that a server failed.
pub fn delete_destination(tx: &mut Tx, server: &str) {
    tx.delete(&schema::DESTINATIONS, &server.to_owned());
}
