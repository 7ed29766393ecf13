//! Server-side key backup (Client-Server API, "Server-side key backups"): what the server keeps of it, all encrypted.

use bytes::Bytes;

use crate::{Tx, UserNo, cbor_value, schema};

/// A version of a user's backup.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct BackupVersion {
    /// The algorithm.
    #[n(0)]
    pub algorithm: String,
    /// What the algorithm needs: JSON.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub auth_data: Vec<u8>,
    /// Counts the changes: what clients compare.
    #[n(2)]
    pub etag: u64,
    /// How many keys it has.
    #[n(3)]
    pub count: u64,
    /// Deleted versions stay as a mark, so that their number is not given out again.
    #[n(4)]
    pub deleted: bool,
}
cbor_value!(BackupVersion);

/// Sets a version.
pub fn put_version(tx: &mut Tx, user: UserNo, version: u64, row: &BackupVersion) {
    tx.put(&schema::BACKUP_VERSIONS, &(user, version), row);
}

/// Sets the key of a session.
pub fn put_key(tx: &mut Tx, user: UserNo, version: u64, room: &str, session: &str, json: &Bytes) {
    tx.put(&schema::BACKUP_KEYS, &(user, version, room.to_owned(), session.to_owned()), json);
}

/// Removes the key of a session.
pub fn delete_key(tx: &mut Tx, user: UserNo, version: u64, room: &str, session: &str) {
    tx.delete(&schema::BACKUP_KEYS, &(user, version, room.to_owned(), session.to_owned()));
}

/// Removes all keys of a version.
pub fn delete_keys(tx: &mut Tx, user: UserNo, version: u64) {
    tx.delete_prefix(&schema::BACKUP_KEYS, &(user, version));
}

/// Removes everything of a user.
pub fn delete_all(tx: &mut Tx, user: UserNo) {
    tx.delete_prefix(&schema::BACKUP_VERSIONS, &user);
    tx.delete_prefix(&schema::BACKUP_KEYS, &user);
}
