//! Uploaded files: what is known of them beside their bytes (Client-Server API, "Content repository").

use crate::{Tx, UserNo, cbor_value, schema};

/// A media id of this server. The bytes are in a file of that name.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Media {
    /// Who made the id, and uploaded the file.
    #[n(0)]
    pub uploader: UserNo,
    /// When the id was made, in milliseconds since 1970.
    #[n(1)]
    pub created: u64,
    /// The file; nothing while it has not been uploaded yet.
    #[n(2)]
    pub file: Option<File>,
    /// Until when an id without a file can be used, in milliseconds since 1970.
    #[n(3)]
    pub expires: Option<u64>,
    /// When the file was used last, more or less, in milliseconds since 1970; it is noted only where the settings need it.
    #[n(4)]
    pub used: Option<u64>,
}
cbor_value!(Media);

/// What is known of an uploaded file.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct File {
    /// How many bytes it has.
    #[n(0)]
    pub size: u64,
    /// The media type that the uploader said.
    #[n(1)]
    pub content_type: Option<String>,
    /// The name that the uploader gave it.
    #[n(2)]
    pub name: Option<String>,
}

/// Makes an id whose file comes later.
pub fn reserve(tx: &mut Tx, id: &str, media: &Media) {
    tx.put(&schema::MEDIA, &id.to_owned(), media);
    if let Some(expires) = media.expires {
        tx.put(&schema::MEDIA_PENDING, &(media.uploader, id.to_owned()), &expires);
    }
}

/// Notes the file of an id, which was reserved before or is new; `total` is what its uploader's files have then, in bytes.
pub fn put(tx: &mut Tx, id: &str, media: &Media, total: u64) {
    tx.put(&schema::MEDIA, &id.to_owned(), media);
    tx.put(&schema::MEDIA_TOTALS, &media.uploader, &total);
    tx.delete(&schema::MEDIA_PENDING, &(media.uploader, id.to_owned()));
}

/// Notes that a file was used.
pub fn used(tx: &mut Tx, id: &str, media: &Media) {
    tx.put(&schema::MEDIA, &id.to_owned(), media);
}

/// Forgets an id and its file, if there is one; `total` is what its uploader's files had until now, in bytes.
pub fn forget(tx: &mut Tx, id: &str, media: &Media, total: u64) {
    delete(tx, id, media.uploader);
    if let Some(file) = &media.file {
        tx.put(&schema::MEDIA_TOTALS, &media.uploader, &total.saturating_sub(file.size));
    }
}

/// Forgets an id, and that its file was to come.
pub fn delete(tx: &mut Tx, id: &str, uploader: UserNo) {
    tx.delete(&schema::MEDIA, &id.to_owned());
    tx.delete(&schema::MEDIA_PENDING, &(uploader, id.to_owned()));
}
