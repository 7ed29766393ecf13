//! What a server publishes of its keys (Server-Server API, "Publishing Keys"), and what is kept of it. Pure functions.

use std::collections::BTreeMap;

use stoa_event::{
    ids::{OwnedServerName, ServerName},
    json::{JsonError, Object, Value},
    sign::{self, KnownKey, VerifyError, VerifyKey},
};
use stoa_store::rows::remote::{ServerKey, ServerKeys};

/// The most bytes that a document may have.
pub const MAX_DOCUMENT: usize = 64 << 10;
/// The most keys in use, and the most old ones, that are read of a document.
pub const MAX_KEYS: usize = 64;
/// The most keys of one server that are kept.
pub const MAX_KEPT: usize = 256;
/// The longest key id.
pub const MAX_KEY_ID: usize = 128;
/// How far ahead a key is valid at most, whatever its server says.
pub const LONGEST_VALIDITY_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// A document that its server signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Whose keys.
    pub server: OwnedServerName,
    /// Until when the keys are valid that are in use.
    pub valid_until_ts: u64,
    /// The keys in use.
    pub keys: BTreeMap<String, VerifyKey>,
    /// Keys that signed events once, and when that ended.
    pub old_keys: BTreeMap<String, (VerifyKey, u64)>,
}

/// Why a document was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Too many bytes.
    #[error("the document is too large")]
    TooLarge,
    /// Too many keys.
    #[error("the document has too many keys")]
    TooManyKeys,
    /// Not JSON that can be signed.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A field has the wrong shape.
    #[error("{0} is not what it should be")]
    Malformed(&'static str),
    /// None of the keys can be used.
    #[error("the document has no ed25519 key")]
    NoKeys,
    /// It is not signed with any of its own keys, or not rightly.
    #[error("the document is not signed by its server: {0}")]
    Signature(#[from] VerifyError),
}

impl Document {
    /// Reads a document and checks that it is signed with a key that it has.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(json: &[u8]) -> Result<Document, DocumentError> {
        if json.len() > MAX_DOCUMENT {
            return Err(DocumentError::TooLarge);
        }
        let object = Object::parse(json)?;
        let server = object.get_str("server_name").and_then(|name| OwnedServerName::try_from(name).ok());
        let server = server.ok_or(DocumentError::Malformed("server_name"))?;
        let valid_until_ts = time(&object, "valid_until_ts").ok_or(DocumentError::Malformed("valid_until_ts"))?;
        let mut keys = BTreeMap::new();
        for (id, entry) in entries(&object, "verify_keys")? {
            if let Some(key) = entry.get_str("key").and_then(|key| VerifyKey::parse(key).ok()) {
                keys.insert(id.to_owned(), key);
            }
        }
        let mut old_keys = BTreeMap::new();
        for (id, entry) in entries(&object, "old_verify_keys")? {
            let key = entry.get_str("key").and_then(|key| VerifyKey::parse(key).ok());
            if let (Some(key), Some(expired)) = (key, time(entry, "expired_ts")) {
                old_keys.insert(id.to_owned(), (key, expired));
            }
        }
        if keys.is_empty() {
            return Err(DocumentError::NoKeys);
        }
        let own = |_: &ServerName, id: &str| keys.get(id).map(|key| KnownKey { key: *key, valid_until_ts });
        sign::verify_object(&object, &server, &own)?;
        Ok(Document { server, valid_until_ts, keys, old_keys })
    }
}

fn time(object: &Object<'_>, field: &str) -> Option<u64> {
    object.get(field).and_then(Value::as_int).and_then(|ts| u64::try_from(ts).ok())
}

/// The ed25519 keys of a list, as they stand there.
fn entries<'a>(object: &'a Object<'a>, field: &'static str) -> Result<Vec<(&'a str, &'a Object<'a>)>, DocumentError> {
    let list = match object.get(field) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(value) => value.as_object().ok_or(DocumentError::Malformed(field))?,
    };
    if list.len() > MAX_KEYS {
        return Err(DocumentError::TooManyKeys);
    }
    let usable = list.iter().filter(|(id, _)| is_key_id(id));
    Ok(usable.filter_map(|(id, entry)| Some((id, entry.as_object()?))).collect())
}

/// Whether something can be the id of a key. The specification allows letters, digits and underscores behind the colon;
/// there are servers with other characters.
pub fn is_key_id(id: &str) -> bool {
    id.len() <= MAX_KEY_ID
        && id.strip_prefix("ed25519:").is_some_and(|version| {
            !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
        })
}

/// From where a document came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From its server, over TLS.
    Itself,
    /// From somebody whom the settings believe.
    Notary,
}

/// What is kept after a document came, and the ids of keys that it wanted to replace although they are still valid.
///
/// A key is never forgotten while there is room, because old events need it; no other key takes its place while it is
/// valid; and a document that is older than what is known, from a notary, takes nothing back.
pub fn merge(
    known: Option<&ServerKeys>,
    document: &Document,
    json: &[u8],
    source: Source,
    now: u64,
) -> (ServerKeys, Vec<String>) {
    let mut kept: BTreeMap<String, ServerKey> =
        known.into_iter().flat_map(|known| known.keys.iter().map(|key| (key.id.clone(), key.clone()))).collect();
    let mut refused = Vec::new();
    let valid_until = document.valid_until_ts.min(now + LONGEST_VALIDITY_MS);
    // One that stands in both lists is old.
    let in_use = document.keys.iter().filter(|(id, _)| !document.old_keys.contains_key(*id));
    let in_use = in_use.map(|(id, key)| (id, key, valid_until, None));
    // Nothing can be signed with an old key from now on.
    let old = document.old_keys.iter().map(|(id, (key, expired))| (id, key, 0, Some((*expired).min(now))));
    for (id, key, valid_until, expired) in in_use.chain(old) {
        let fresh = ServerKey { id: id.clone(), key: *key.as_bytes(), valid_until, expired };
        let Some(there) = kept.get_mut(id) else {
            kept.insert(id.clone(), fresh);
            continue;
        };
        if there.key != fresh.key {
            if there.expired.is_none() && there.valid_until >= now {
                refused.push(id.clone());
            } else if source == Source::Itself {
                *there = fresh;
            }
            continue;
        }
        match (source, there.expired, expired) {
            // Only the server itself can take a key into use again.
            (Source::Notary, Some(_), None) => {}
            (Source::Notary, Some(before), Some(expired)) => there.expired = Some(before.min(expired)),
            _ => there.expired = expired,
        }
        there.valid_until = there.valid_until.max(valid_until);
    }
    let newest = known.is_none_or(|known| source == Source::Itself || known.valid_until < document.valid_until_ts);
    let (document_kept, valid_until) = match known {
        Some(known) if !newest => (known.document.clone(), known.valid_until),
        _ => (json.to_vec(), document.valid_until_ts),
    };
    let mut keys: Vec<_> = kept.into_values().collect();
    if keys.len() > MAX_KEPT {
        // What ended longest ago goes first.
        keys.sort_by_key(|key| std::cmp::Reverse(key.expired.unwrap_or(key.valid_until)));
        keys.truncate(MAX_KEPT);
        keys.sort_by(|a, b| a.id.cmp(&b.id));
    }
    (ServerKeys { keys, document: document_kept, valid_until, fetched_at: now }, refused)
}
