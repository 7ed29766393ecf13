//! Facts about this server that must outlive it.

use bytes::Bytes;

use crate::{Error, Snapshot, Tx, schema};

/// Reads a fact.
///
/// # Errors
/// Where the engine fails.
pub async fn get(snapshot: &Snapshot, name: &str) -> Result<Option<Bytes>, Error> {
    snapshot.get(&schema::SERVER, &name.to_owned()).await
}

/// Sets a fact.
pub fn put(tx: &mut Tx, name: &str, value: &Bytes) {
    tx.put(&schema::SERVER, &name.to_owned(), value);
}
