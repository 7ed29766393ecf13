//! Files of other servers that are kept here for a while (Server-Server API, "Content Repository").

use crate::{Tx, cbor_value, rows::media::File, schema};

/// A file of another server. Its bytes are in a file named by the hash of its `mxc://` URI, which is also the key of its row.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct RemoteMedia {
    /// The server.
    #[n(0)]
    pub server: String,
    /// The media id there.
    #[n(1)]
    pub id: String,
    /// The file.
    #[n(2)]
    pub file: File,
    /// When it came, in milliseconds since 1970.
    #[n(3)]
    pub fetched: u64,
    /// When it was used last, more or less, in milliseconds since 1970.
    #[n(4)]
    pub used: u64,
}
cbor_value!(RemoteMedia);

/// Notes a file, in the place of what was known of it before.
pub fn put(tx: &mut Tx, hash: &str, old: Option<&RemoteMedia>, media: &RemoteMedia) {
    if let Some(old) = old {
        tx.delete(&schema::REMOTE_MEDIA_USED, &(old.used, hash.to_owned()));
    }
    tx.put(&schema::REMOTE_MEDIA, &hash.to_owned(), media);
    tx.put(&schema::REMOTE_MEDIA_USED, &(media.used, hash.to_owned()), &media.file.size);
}

/// Forgets a file that was used last at that time.
pub fn delete(tx: &mut Tx, hash: &str, used: u64) {
    tx.delete(&schema::REMOTE_MEDIA, &hash.to_owned());
    tx.delete(&schema::REMOTE_MEDIA_USED, &(used, hash.to_owned()));
}
