//! Signatures (appendices, "Signing JSON"; Server-Server API, "Validating hashes and signatures on received events").
//!
//! One signature at a time, with the plain verification of ed25519-dalek, which is what every server built on ruma
//! does. Never its batch check: for crafted keys that decides differently (decision record 0001).

#![deny(clippy::indexing_slicing)]

use std::fmt;

use ed25519_dalek::{Signature, Signer, Verifier, VerifyingKey};

use crate::{
    hash::{base64_array, base64_encode, signed_bytes},
    ids::{OwnedServerName, ServerName, UserId},
    json::{JsonError, Object, Value},
    pdu::Pdu,
    version::{EventIdFormat, Rules},
};

/// Why a key could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Something else than `ed25519`.
    #[error("only ed25519 keys are known")]
    Algorithm,
    /// Letters, digits and `_` only, at least one of them.
    #[error("the version of a key may have letters, digits and underscores only")]
    Version,
    /// Not 32 bytes in base64.
    #[error("not a key of 32 bytes in base64")]
    Bytes,
    /// 32 bytes that are no point on the curve.
    #[error("not an ed25519 public key")]
    Point,
}

/// Why a signature was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not JSON that can be signed.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A field that decides who must have signed, or a signature, has the wrong shape.
    #[error("{0} has the wrong shape")]
    Malformed(&'static str),
    /// A server that must have signed did not.
    #[error("not signed by {0}")]
    NotSigned(OwnedServerName),
    /// It signed, with keys that are not known here: they have to be fetched.
    #[error("signed by {server} with unknown keys {key_ids:?}")]
    UnknownKeys {
        /// Whose keys.
        server: OwnedServerName,
        /// Which keys.
        key_ids: Vec<Box<str>>,
    },
    /// It signed with a key that was no longer valid at the event's time; a newer reply may know better.
    #[error("signed by {server} with the key {key_id}, which was valid only until {valid_until_ts}")]
    ExpiredKey {
        /// Whose key.
        server: OwnedServerName,
        /// Which key.
        key_id: Box<str>,
        /// Until when it was valid.
        valid_until_ts: u64,
    },
    /// The signature is wrong.
    #[error("the signature of {server} with the key {key_id} is wrong")]
    Wrong {
        /// Whose signature.
        server: OwnedServerName,
        /// With which key.
        key_id: Box<str>,
    },
}

/// A server's own key, with its name (`ed25519:version`).
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    id: Box<str>,
}

impl SigningKey {
    /// A key from 32 random bytes.
    ///
    /// # Errors
    /// If the version has other characters than letters, digits and underscores.
    pub fn from_seed(seed: &[u8; 32], version: &str) -> Result<SigningKey, KeyError> {
        if version.is_empty() || !version.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(KeyError::Version);
        }
        Ok(SigningKey { key: ed25519_dalek::SigningKey::from_bytes(seed), id: format!("ed25519:{version}").into() })
    }

    /// Reads `ed25519 VERSION SEED`, the line that Synapse keeps in its `signing.key`.
    ///
    /// # Errors
    /// If it is something else.
    pub fn parse(line: &str) -> Result<SigningKey, KeyError> {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("ed25519") {
            return Err(KeyError::Algorithm);
        }
        let version = words.next().ok_or(KeyError::Version)?;
        let seed = words.next().and_then(base64_array::<32>).ok_or(KeyError::Bytes)?;
        SigningKey::from_seed(&seed, version)
    }

    /// The line that [`SigningKey::parse`] reads. A secret.
    pub fn to_line(&self) -> String {
        format!("ed25519 {} {}", self.version(), base64_encode(self.key.as_bytes()))
    }

    /// `ed25519:version`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What stands behind `ed25519:`.
    pub fn version(&self) -> &str {
        self.id.strip_prefix("ed25519:").unwrap_or_default()
    }

    /// The public half.
    pub fn verify_key(&self) -> VerifyKey {
        VerifyKey(self.key.verifying_key())
    }

    /// Signs bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// Signs bytes; the signature in unpadded base64.
    pub fn sign_base64(&self, message: &[u8]) -> String {
        base64_encode(&self.sign(message))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.id).finish()
    }
}

/// A public key, decompressed once: that is a tenth of the work of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyKey(VerifyingKey);

impl VerifyKey {
    /// A key from its 32 bytes.
    ///
    /// # Errors
    /// If they are no point on the curve.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<VerifyKey, KeyError> {
        VerifyingKey::from_bytes(bytes).map(VerifyKey).map_err(|_| KeyError::Point)
    }

    /// A key from base64.
    ///
    /// # Errors
    /// If it is not 32 bytes in base64, or no point on the curve.
    pub fn parse(text: &str) -> Result<VerifyKey, KeyError> {
        VerifyKey::from_bytes(&base64_array(text).ok_or(KeyError::Bytes)?)
    }

    /// A key from base64 of either alphabet, as identity servers write it.
    ///
    /// # Errors
    /// As [`VerifyKey::parse`].
    pub fn parse_any(text: &str) -> Result<VerifyKey, KeyError> {
        VerifyKey::parse(&text.replace('-', "+").replace('_', "/"))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The key in unpadded base64, as it is published.
    pub fn to_base64(&self) -> String {
        base64_encode(self.as_bytes())
    }

    /// Whether this key made that signature over these bytes.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify(message, &Signature::from_bytes(signature)).is_ok()
    }
}

/// A key that is known, and until when it may be used.
#[derive(Clone, Copy, Debug)]
pub struct KnownKey {
    /// The key.
    pub key: VerifyKey,
    /// The lesser of the published `valid_until_ts` and seven days from now; for an old key its `expired_ts`.
    /// Looked at in room versions 5 and later.
    pub valid_until_ts: u64,
}

/// Where known keys are looked up. It never fetches: what is missing comes back as [`VerifyError::UnknownKeys`].
pub trait Keys {
    /// The key that a server has under an id such as `ed25519:1`.
    fn key(&self, server: &ServerName, key_id: &str) -> Option<KnownKey>;
}

impl<F: Fn(&ServerName, &str) -> Option<KnownKey>> Keys for F {
    fn key(&self, server: &ServerName, key_id: &str) -> Option<KnownKey> {
        self(server, key_id)
    }
}

/// Checks what one server signed. Every signature by a known key must be right, and at least one must be there;
/// unknown keys and other algorithms are passed over. `at` is the time when the keys must have been valid.
pub(crate) fn verify_server(
    message: &[u8],
    signatures: &Object<'_>,
    server: &ServerName,
    keys: &impl Keys,
    at: Option<u64>,
) -> Result<(), VerifyError> {
    let Some(of_server) = signatures.get(server.as_str()) else {
        return Err(VerifyError::NotSigned(server.to_owned()));
    };
    let of_server = of_server.as_object().ok_or(VerifyError::Malformed("signatures"))?;
    let (mut right, mut unknown, mut expired) = (false, Vec::new(), None);
    for (key_id, signature) in of_server.iter().filter(|(id, _)| id.starts_with("ed25519:")) {
        let Some(known) = keys.key(server, key_id) else {
            unknown.push(key_id.into());
            continue;
        };
        if at.is_some_and(|at| known.valid_until_ts < at) {
            expired = Some((key_id, known.valid_until_ts));
            continue;
        }
        let signature = signature.as_str().ok_or(VerifyError::Malformed("signatures"))?;
        if !base64_array(signature).is_some_and(|signature| known.key.verify(message, &signature)) {
            return Err(VerifyError::Wrong { server: server.to_owned(), key_id: key_id.into() });
        }
        right = true;
    }
    let server = || server.to_owned();
    match (right, expired) {
        (true, _) => Ok(()),
        (false, _) if !unknown.is_empty() => Err(VerifyError::UnknownKeys { server: server(), key_ids: unknown }),
        (false, Some((key_id, valid_until_ts))) => {
            Err(VerifyError::ExpiredKey { server: server(), key_id: key_id.into(), valid_until_ts })
        }
        (false, None) => Err(VerifyError::NotSigned(server())),
    }
}

fn signatures<'o, 'a>(object: &'o Object<'a>) -> Result<&'o Object<'a>, VerifyError> {
    object.get_object("signatures").ok_or(VerifyError::Malformed("signatures"))
}

/// The bytes of an object that are signed: all but `signatures` and `unsigned`.
fn json_bytes(object: &Object<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    object.write_if(&mut bytes, |key| !matches!(key, "signatures" | "unsigned"));
    bytes
}

/// Puts a signature beside those that are there.
fn add_signature(object: &mut Object<'_>, server: &ServerName, key_id: &str, signature: String) -> bool {
    if object.get("signatures").is_none() {
        object.insert("signatures", Object::new().into());
    }
    let Some(all) = object.get_mut("signatures").and_then(Value::as_object_mut) else {
        return false;
    };
    if all.get(server.as_str()).is_none() {
        all.insert(server.to_string(), Object::new().into());
    }
    let Some(ours) = all.get_mut(server.as_str()).and_then(Value::as_object_mut) else {
        return false;
    };
    ours.insert(key_id.to_owned(), signature.into());
    true
}

/// Signs an object in place.
///
/// # Errors
/// If it has `signatures` of another shape.
pub fn sign_object(object: &mut Object<'_>, server: &ServerName, key: &SigningKey) -> Result<(), VerifyError> {
    let signature = key.sign_base64(&json_bytes(object));
    if add_signature(object, server, key.id(), signature) { Ok(()) } else { Err(VerifyError::Malformed("signatures")) }
}

/// Signs a JSON object; the result is canonical JSON.
///
/// # Errors
/// If it is not an object that can be signed.
pub fn sign_json(json: &[u8], server: &ServerName, key: &SigningKey) -> Result<Vec<u8>, VerifyError> {
    let mut object = Object::parse(json)?;
    sign_object(&mut object, server, key)?;
    Ok(Value::Object(object).to_canonical())
}

/// Signs somebody else's event beside those who did already (an invited user's server, the server that lets a user into a
/// restricted room). The hash is left as it is; the result is canonical JSON.
///
/// # Errors
/// If it is not an object that can be signed.
pub fn sign_event(json: &[u8], rules: &Rules, server: &ServerName, key: &SigningKey) -> Result<Vec<u8>, VerifyError> {
    let mut event = rules.parse(json)?;
    let signature = key.sign_base64(&signed_bytes(&event, rules));
    signed(&mut event, server, key.id(), signature)?;
    Ok(Value::Object(event).to_canonical())
}

fn signed(event: &mut Object<'_>, server: &ServerName, key_id: &str, signature: String) -> Result<(), VerifyError> {
    match add_signature(event, server, key_id, signature) {
        true => Ok(()),
        false => Err(VerifyError::Malformed("signatures")),
    }
}

/// The id of the key with which a policy server signs, always (Server-Server API, "Validating Policy Server signatures").
pub const POLICY_KEY_ID: &str = "ed25519:policy_server";

/// Puts the signature that a policy server gave beside those of an event; it is not looked at. The result is canonical
/// JSON.
///
/// # Errors
/// If it is not an object that can be signed.
pub fn add_policy_signature(
    json: &[u8],
    rules: &Rules,
    server: &ServerName,
    signature: &str,
) -> Result<Vec<u8>, VerifyError> {
    let mut event = rules.parse(json)?;
    signed(&mut event, server, POLICY_KEY_ID, signature.to_owned())?;
    Ok(Value::Object(event).to_canonical())
}

/// Whether a policy server's key, which is in the state of the room, made the signature that stands under its name.
pub fn signed_by_policy_server(json: &[u8], rules: &Rules, server: &ServerName, key: &VerifyKey) -> bool {
    let Ok(event) = rules.parse(json) else { return false };
    let of_server = event.get_object("signatures").and_then(|all| all.get_object(server.as_str()));
    let signature = of_server.and_then(|of_server| of_server.get_str(POLICY_KEY_ID)).and_then(base64_array);
    signature.is_some_and(|signature| key.verify(&signed_bytes(&event, rules), &signature))
}

/// Checks that a server signed an object.
///
/// # Errors
/// If it did not, or not rightly, or with unknown keys.
pub fn verify_object(object: &Object<'_>, server: &ServerName, keys: &impl Keys) -> Result<(), VerifyError> {
    verify_server(&json_bytes(object), signatures(object)?, server, keys, None)
}

/// Checks that a server signed a JSON object.
///
/// # Errors
/// If it did not, or not rightly, or with unknown keys.
pub fn verify_json(json: &[u8], server: &ServerName, keys: &impl Keys) -> Result<(), VerifyError> {
    verify_object(&Object::parse(json)?, server, keys)
}

/// Whether any signature of an object, whoever made it, was made with that key. Third-party invites ask this.
pub fn signed_with(object: &Object<'_>, key: &VerifyKey) -> bool {
    let Some(all) = object.get_object("signatures") else {
        return false;
    };
    let message = json_bytes(object);
    all.iter().filter_map(|(_, of_server)| of_server.as_object()).flat_map(Object::iter).any(|(key_id, signature)| {
        key_id.starts_with("ed25519:")
            && signature.as_str().and_then(base64_array).is_some_and(|signature| key.verify(&message, &signature))
    })
}

/// The servers that must have signed an event: the sender's, except for an invite by third-party id; in versions 1 and 2
/// the event id's; for a member event of a restricted room, the server of the user who let the member in.
///
/// # Errors
/// If a field that decides it has the wrong shape.
pub fn required_signers(event: &Pdu, rules: &Rules) -> Result<Vec<OwnedServerName>, VerifyError> {
    let content = Object::parse_lenient(event.content())?;
    signers_of(event, &content, rules)
}

pub(crate) fn signers_of(
    event: &Pdu,
    content: &Object<'_>,
    rules: &Rules,
) -> Result<Vec<OwnedServerName>, VerifyError> {
    let member = event.kind() == "m.room.member";
    let by_third_party =
        member && content.get_str("membership") == Some("invite") && content.get_object("third_party_invite").is_some();
    let mut servers = Vec::with_capacity(2);
    let mut add = |server: &ServerName| {
        if !servers.iter().any(|there: &OwnedServerName| there == server) {
            servers.push(server.to_owned());
        }
    };
    if !by_third_party {
        add(event.sender().server_name());
    }
    if rules.event_id == EventIdFormat::Given {
        add(event.event_id().server_name().ok_or(VerifyError::Malformed("event_id"))?);
    }
    if member
        && rules.restricted
        && let Some(user) = content.get("join_authorised_via_users_server")
    {
        const FIELD: &str = "content.join_authorised_via_users_server";
        let user = user.as_str().ok_or(VerifyError::Malformed(FIELD))?;
        add(UserId::parse(user).map_err(|_| VerifyError::Malformed(FIELD))?.server_name());
    }
    Ok(servers)
}
