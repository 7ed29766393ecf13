//! Hashes of events (Server-Server API, "Signing Events"): the content hash, the reference hash, the event id.

#![deny(clippy::indexing_slicing)]

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use sha2::{Digest, Sha256};

use crate::{
    ids::{EventId, OwnedEventId},
    json::Object,
    redact::write_redacted,
    version::{EventIdFormat, Rules},
};

// Signatures in the wild have padding, or bits set behind the last byte (the specification's own test key does).
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_encode_padding(false)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Whether an event is whole or somebody changed or redacted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentHash {
    /// `hashes.sha256` is the hash of what came.
    Same,
    /// It is not: only the redacted form may be used.
    Different,
}

/// Unpadded base64 (appendices).
pub fn base64_encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Base64 with or without padding, `None` if it is something else.
pub fn base64_decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Decodes into an array of exactly that size.
pub(crate) fn base64_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // A few bytes more than N, because the decoder asks for room by the length of the text.
    let mut buffer = [0; 96];
    let len = STANDARD.decode_slice(text, &mut buffer).ok()?;
    bytes.copy_from_slice(buffer.get(..len).filter(|_| len == N)?);
    Some(bytes)
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The hash over everything but `hashes`, `signatures` and `unsigned`.
///
/// In versions 1 to 5 three more fields are left out, that early servers used among themselves: the text does not know
/// them, but Synapse, which made nearly all hashes of those rooms, has always done so.
pub fn content_hash(event: &Object<'_>, rules: &Rules) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(1024);
    event.write_if(&mut bytes, |key| match key {
        "hashes" | "signatures" | "unsigned" => false,
        "age_ts" | "outlier" | "destinations" => rules.strict_json,
        _ => true,
    });
    sha256(&bytes)
}

/// Whether `hashes.sha256` is the content hash. A hash that is missing or is not base64 differs.
pub fn check_content_hash(event: &Object<'_>, rules: &Rules) -> ContentHash {
    let given = event.get_object("hashes").and_then(|hashes| hashes.get_str("sha256")).and_then(base64_array::<32>);
    if given == Some(content_hash(event, rules)) { ContentHash::Same } else { ContentHash::Different }
}

/// The bytes that are signed and that make the event's id: its redacted form without signatures.
pub fn signed_bytes(event: &Object<'_>, rules: &Rules) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1024);
    write_redacted(event, &rules.redaction, false, &mut bytes);
    bytes
}

/// The hash over the redacted event without its signatures.
pub fn reference_hash(event: &Object<'_>, rules: &Rules) -> [u8; 32] {
    sha256(&signed_bytes(event, rules))
}

/// The id of an event, from its hash or, in versions 1 and 2, from its field. `None` if that is no event id.
pub fn event_id(event: &Object<'_>, rules: &Rules) -> Option<OwnedEventId> {
    match rules.event_id {
        EventIdFormat::Given => event.get_str("event_id").and_then(|id| EventId::parse(id).ok()),
        format => id_of_hash(&reference_hash(event, rules), format),
    }
}

/// `$` and the hash; `None` only for versions whose ids are not hashes.
pub(crate) fn id_of_hash(hash: &[u8; 32], format: EventIdFormat) -> Option<OwnedEventId> {
    let engine = match format {
        EventIdFormat::Given => return None,
        EventIdFormat::Hash => &STANDARD,
        EventIdFormat::UrlSafeHash => &URL_SAFE,
    };
    let mut id = [b'$'; 44];
    engine.encode_slice(hash, id.get_mut(1..)?).ok()?;
    EventId::parse(std::str::from_utf8(&id).ok()?).ok()
}
