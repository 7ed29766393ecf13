//! What is around events: requests, and answers to ours.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use stoa_event::{
    format::Received,
    ids::{RoomVersionId, ServerName},
    sign::{SigningKey, sign_json},
    version::Rules,
};
use stoa_remote::{
    keys::document::{self, Document, MAX_KEPT, MAX_KEYS, Source},
    well_known,
    xmatrix::{XMatrix, signed_bytes},
};

/// The body of a transaction.
pub(crate) fn transaction(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    // Whether it is signed is worked out before it is read.
    let Ok(us) = <&ServerName>::try_from("us.example") else { return };
    let signed = signed_bytes("PUT", "/_matrix/federation/v1/send/1", us, us, Some(data));
    let Some((pdus, edus)) = stoa_federation_api::read_transaction(&body) else { return };
    // Halves of surrogate pairs have no canonical form: nobody can sign what holds one.
    let can_be_signed = serde_json::from_slice::<Value>(data).is_ok();
    assert!(signed.is_ok() || !can_be_signed, "a transaction that is read, but could not be signed");
    assert!(pdus.len() <= 50 && edus <= 100);
    let Some(rules) = Rules::of(&RoomVersionId::V11) else { return };
    for pdu in pdus {
        let _ = Received::read(pdu, &rules);
    }
}

/// The header of a request.
pub(crate) fn x_matrix(data: &[u8]) {
    let Some(header) = str::from_utf8(data).ok() else { return };
    let Ok(read) = XMatrix::parse(header) else { return };
    // What has no quotes in it can be said again.
    if !read.key.contains(['"', '\\']) && !read.sig.contains(['"', '\\']) {
        assert_eq!(XMatrix::parse(&read.to_string()).as_ref(), Ok(&read));
    }
}

/// Headers, an empty line, and a well-known file.
pub(crate) fn well_known(data: &[u8]) {
    let (mut headers, mut rest) = (HeaderMap::new(), data);
    loop {
        let (line, after) = super::line(rest);
        rest = after;
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { break };
        let name = HeaderName::from_bytes(line[..colon].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            headers.append(name, value);
        }
    }
    let holds = Duration::from_millis(well_known::lifetime(&headers, 1_700_000_000_000));
    assert!((Duration::from_secs(300)..=Duration::from_secs(48 * 3600)).contains(&holds), "{holds:?}");
    if let Some(name) = well_known::parse(rest) {
        assert!(!name.as_str().is_empty() && name.as_str().len() <= 300);
        assert_eq!(well_known::parse(json!({ "m.server": name }).to_string().as_bytes()), Some(name));
    }
}

/// What a server publishes of its keys: as it came, and signed by one of them.
pub(crate) fn keys(data: &[u8]) {
    published(data);
    if let Some(signed) = signed(data) {
        published(&signed);
    }
}

/// The same document, signed with a key that it has.
fn signed(data: &[u8]) -> Option<Vec<u8>> {
    let key = SigningKey::from_seed(&[7; 32], "fuzz").ok()?;
    let mut document: Value = serde_json::from_slice(data).ok()?;
    let name = document["server_name"].as_str().unwrap_or("them.example").to_owned();
    let name = <&ServerName>::try_from(name.as_str()).ok()?;
    let fields = document.as_object_mut()?;
    let keys = fields.entry("verify_keys").or_insert_with(|| json!({})).as_object_mut()?;
    keys.insert(key.id().to_owned(), json!({ "key": key.verify_key().to_base64() }));
    sign_json(document.to_string().as_bytes(), name, &key).ok()
}

fn published(json: &[u8]) {
    let Ok(read) = Document::read(json) else { return };
    assert!((1..=MAX_KEYS).contains(&read.keys.len()) && read.old_keys.len() <= MAX_KEYS);
    assert_eq!(Document::read(json).as_ref(), Ok(&read));
    for source in [Source::Itself, Source::Notary] {
        let now = 1_700_000_000_000;
        let (kept, refused) = document::merge(None, &read, json, source, now);
        assert!(kept.keys.len() <= MAX_KEPT && refused.is_empty());
        let far = now + document::LONGEST_VALIDITY_MS;
        assert!(kept.keys.iter().all(|key| key.valid_until <= far), "a key for ever");
        // The same again changes nothing.
        assert_eq!(document::merge(Some(&kept), &read, json, source, now).0.keys, kept.keys);
    }
}

/// A line with the media type, then a body: read at once, and in pieces.
pub(crate) fn multipart(data: &[u8]) {
    let (kind, body) = super::line(data);
    let Some(kind) = str::from_utf8(kind).ok() else { return };
    // Heads have a limit, which is looked at after each piece.
    let body = &body[..body.len().min(60 << 10)];
    let whole = stoa_media::read_multipart(kind, body, body.len());
    for size in [1, 2, 7, 64] {
        let pieces = stoa_media::read_multipart(kind, body, size);
        assert_eq!(pieces.is_ok(), whole.is_ok(), "{pieces:?} in pieces of {size}, {whole:?} at once");
        if let (Ok(pieces), Ok(whole)) = (pieces, &whole) {
            assert_eq!(pieces, *whole, "in pieces of {size}");
        }
    }
}
