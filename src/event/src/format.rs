//! Reading events (Server-Server API, "Checks performed on receipt of a PDU", 1 to 3; Client-Server API, "Size limits").

#![deny(clippy::indexing_slicing)]

use std::ops::Range;

use bytes::Bytes;

use crate::{
    hash::{ContentHash, check_content_hash, id_of_hash, sha256, signed_bytes},
    ids::{EventId, MAX_ID_BYTES, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, UserId},
    json::{JsonError, Object, Parser, Value},
    pdu::Pdu,
    redact::redact,
    sign::{Keys, VerifyError, signers_of, verify_server},
    version::{EventIdFormat, Rules},
};

/// The most bytes that an event may have as canonical JSON, signatures and `unsigned` included.
pub const MAX_EVENT_BYTES: usize = 65_536;
/// The most events that an event may follow.
pub const MAX_PREV_EVENTS: usize = 20;
/// The most events that may be said to allow an event.
pub const MAX_AUTH_EVENTS: usize = 10;
/// Canonical JSON is never longer than what it is made from, and what it is made from is hardly ever longer: beyond
/// this, white space and escapes are not worth being read.
const MAX_RAW_BYTES: usize = 8 * MAX_EVENT_BYTES;

/// Why bytes are not an event of a room version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The event or one of its fields is too long.
    #[error("{what} has {size} bytes, {limit} are allowed")]
    TooLarge {
        /// `event`, or the field.
        what: &'static str,
        /// How long it is.
        size: usize,
        /// How long it may be.
        limit: usize,
    },
    /// Not JSON, or not what canonical JSON allows.
    #[error("bad JSON: {0}")]
    BadJson(#[from] JsonError),
    /// A field is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field has another type, or a number is out of range.
    #[error("{field} must be {expected}")]
    WrongType {
        /// Which field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// An identifier that is none.
    #[error("{0} is not a valid identifier")]
    BadId(&'static str),
    /// More references than are allowed.
    #[error("{field} has {count} entries, {limit} are allowed")]
    TooMany {
        /// Which field.
        field: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A field stands where the room version has none: the `room_id` of a version 12 create event.
    #[error("{0} must not be there")]
    Unexpected(&'static str),
    /// Events of this room version can be read but not made here.
    #[error("events of room version {0} are not made by this server")]
    NotMade(String),
}

/// An event that came from another server and has the right shape. It becomes a [`Pdu`] that may be used only through
/// [`Received::verify`].
#[derive(Clone, Debug)]
pub struct Received {
    pdu: Pdu,
    signed: Vec<u8>,
    signatures: Range<u32>,
    signers: Result<Vec<OwnedServerName>, VerifyError>,
    hash: ContentHash,
}

impl Received {
    /// Checks the shape and works out the id.
    ///
    /// # Errors
    /// If it is not an event of that room version.
    pub fn read(json: Bytes, rules: &Rules) -> Result<Received, FormatError> {
        let Shape {
            pdu,
            event,
            signed,
            signatures,
        } = shape(&json, rules)?;
        let signers = match event.get_object("content") {
            Some(content) => signers_of(&pdu, content, rules),
            None => Err(VerifyError::Malformed("content")),
        };
        let hash = check_content_hash(&event);
        Ok(Received {
            pdu: Pdu {
                json: json.clone(),
                ..pdu
            },
            signed,
            signatures,
            signers,
            hash,
        })
    }

    /// The event as it came. Nothing of it is proven yet.
    pub fn pdu(&self) -> &Pdu {
        &self.pdu
    }

    /// Whether it is whole.
    pub fn content_hash(&self) -> ContentHash {
        self.hash
    }

    /// The servers that must have signed it.
    ///
    /// # Errors
    /// If a field that decides it has the wrong shape.
    pub fn signers(&self) -> Result<&[OwnedServerName], VerifyError> {
        self.signers.as_deref().map_err(Clone::clone)
    }

    /// The keys that verifying needs, so that those of many events can be fetched at once.
    ///
    /// # Errors
    /// If a field that decides it has the wrong shape.
    pub fn wanted_keys(&self) -> Result<Vec<(OwnedServerName, String)>, VerifyError> {
        let signatures = self.signatures()?;
        let mut keys = Vec::new();
        for server in self.signers()? {
            let Some(of_server) = signatures.get_object(server.as_str()) else {
                continue;
            };
            let ids = of_server
                .iter()
                .map(|(id, _)| id)
                .filter(|id| id.starts_with("ed25519:"));
            keys.extend(ids.map(|id| (server.clone(), id.to_owned())));
        }
        Ok(keys)
    }

    /// Checks the signatures of all who must have signed.
    ///
    /// # Errors
    /// If one is missing or wrong, or was made with a key that is unknown or, from version 5 on, was not valid then.
    pub fn check_signatures(&self, rules: &Rules, keys: &impl Keys) -> Result<(), VerifyError> {
        let signatures = self.signatures()?;
        let at = rules
            .enforce_key_validity
            .then_some(self.pdu.origin_server_ts);
        self.signers()?
            .iter()
            .try_for_each(|server| verify_server(&self.signed, &signatures, server, keys, at))
    }

    /// Checks the signatures and gives the event that may be used: the whole one, or its redacted form where the content
    /// hash differs.
    ///
    /// # Errors
    /// As [`Received::check_signatures`].
    pub fn verify(
        self,
        rules: &Rules,
        keys: &impl Keys,
    ) -> Result<(Pdu, ContentHash), VerifyError> {
        self.check_signatures(rules, keys)?;
        match self.hash {
            ContentHash::Same => Ok((self.pdu, self.hash)),
            ContentHash::Different => {
                let redacted = self
                    .pdu
                    .redacted(rules)
                    .map_err(|_| VerifyError::Malformed("event"))?;
                Ok((redacted, self.hash))
            }
        }
    }

    /// Whether a policy server's key made the signature that stands under its name (Server-Server API, "Policy Servers").
    pub fn signed_by_policy_server(&self, via: &str, key: &crate::sign::VerifyKey) -> bool {
        let Ok(signatures) = self.signatures() else {
            return false;
        };
        let signature = signatures
            .get_object(via)
            .and_then(|of_server| of_server.get_str("ed25519:policy_server"));
        signature
            .and_then(crate::hash::base64_array)
            .is_some_and(|signature| key.verify(&self.signed, &signature))
    }

    fn signatures(&self) -> Result<Object<'_>, VerifyError> {
        let range = self.signatures.start as usize..self.signatures.end as usize;
        Ok(Object::parse(self.pdu.json.get(range).unwrap_or_default())?)
    }
}

impl Pdu {
    /// Reads an event that came from somewhere: checks its shape and works out its id. Who takes events from other
    /// servers wants [`Received`], which checks signatures and hash too.
    ///
    /// # Errors
    /// If it is not an event of that room version.
    pub fn read(json: Bytes, rules: &Rules) -> Result<Pdu, FormatError> {
        let pdu = shape(&json, rules)?.pdu;
        Ok(Pdu { json, ..pdu })
    }

    /// Reads an event that was checked before it was stored. Hashes nothing, and steps over what it does not need.
    ///
    /// # Errors
    /// If the bytes are not what was stored.
    pub fn stored(json: Bytes, event_id: OwnedEventId, rules: &Rules) -> Result<Pdu, FormatError> {
        let wanted = |key: &str| {
            matches!(
                key,
                "room_id"
                    | "sender"
                    | "type"
                    | "state_key"
                    | "origin_server_ts"
                    | "depth"
                    | "prev_events"
                    | "auth_events"
                    | "redacts"
            )
        };
        let mut fields = Vec::with_capacity(10);
        let mut content = None;
        for member in Parser::new(&json)?.trusted_members(wanted)? {
            match member.value {
                Some(value) => fields.push((member.key, value)),
                None if member.key == "content" => content = Some(member.range),
                None => {}
            }
        }
        let fields = Object::from_members(fields).map_err(|_| FormatError::Missing("fields"))?;
        let content = content.ok_or(FormatError::Missing("content"))?;
        let mut pdu = fields_of(&fields, rules, || Some(event_id.clone()))?;
        if rules.redaction.updated && pdu.kind() == "m.room.redaction" {
            let content = Object::parse(json.get(content.clone()).unwrap_or_default())?;
            pdu.redacts = redacts_of(&content);
        }
        pdu.content = narrow(content);
        Ok(Pdu { json, ..pdu })
    }

    /// The event after its redaction: the same id, its bytes canonical.
    ///
    /// # Errors
    /// If the bytes are not those of an event.
    pub fn redacted(&self, rules: &Rules) -> Result<Pdu, FormatError> {
        Pdu::stored(
            redact(&self.json, rules)?.into(),
            self.event_id.clone(),
            rules,
        )
    }
}

/// What reading found; the tree is kept for hashing.
struct Shape<'a> {
    pdu: Pdu,
    event: Object<'a>,
    signed: Vec<u8>,
    signatures: Range<u32>,
}

fn shape<'a>(json: &'a [u8], rules: &Rules) -> Result<Shape<'a>, FormatError> {
    if json.len() > MAX_RAW_BYTES {
        return Err(FormatError::TooLarge {
            what: "event",
            size: json.len(),
            limit: MAX_EVENT_BYTES,
        });
    }
    let (mut content, mut signatures) = (0..0, 0..0);
    let mut members = Vec::with_capacity(16);
    for member in Parser::new(json)?.members()? {
        match member.key.as_ref() {
            "content" => content = narrow(member.range),
            "signatures" => signatures = narrow(member.range),
            _ => {}
        }
        members.push((member.key, member.value));
    }
    let event = Object::from_members(members).map_err(|key| JsonError {
        why: crate::json::Why::DuplicateKey(key),
        at: json.len(),
    })?;
    if json.len() > MAX_EVENT_BYTES {
        let mut canonical = Vec::with_capacity(json.len());
        event.write_canonical(&mut canonical);
        check_size("event", canonical.len(), MAX_EVENT_BYTES)?;
    }

    let content_object = object(&event, "content")?.ok_or(FormatError::Missing("content"))?;
    let hashes = object(&event, "hashes")?.ok_or(FormatError::Missing("hashes"))?;
    text(hashes, "sha256", "hashes.sha256")?.ok_or(FormatError::Missing("hashes.sha256"))?;
    object(&event, "signatures")?.ok_or(FormatError::Missing("signatures"))?;
    object(&event, "unsigned")?;

    let signed = signed_bytes(&event, rules);
    let mut pdu = fields_of(&event, rules, || match rules.event_id {
        EventIdFormat::Given => None,
        format => id_of_hash(&sha256(&signed), format),
    })?;
    if rules.redaction.updated && pdu.kind() == "m.room.redaction" {
        pdu.redacts = redacts_of(content_object);
    }
    pdu.content = content;
    Ok(Shape {
        pdu,
        event,
        signed,
        signatures,
    })
}

/// The fields that every reading needs. The id is what `id` says, or else what `event_id` says.
fn fields_of(
    event: &Object<'_>,
    rules: &Rules,
    id: impl Fn() -> Option<OwnedEventId>,
) -> Result<Pdu, FormatError> {
    let kind = short(event, "type")?.ok_or(FormatError::Missing("type"))?;
    let state_key = short(event, "state_key")?;
    let sender = short(event, "sender")?.ok_or(FormatError::Missing("sender"))?;
    let sender = UserId::parse(sender).map_err(|_| FormatError::BadId("sender"))?;
    let event_id = match id() {
        Some(id) => id,
        None => given_event_id(short(event, "event_id")?.ok_or(FormatError::Missing("event_id"))?)?,
    };
    let redacts = match kind {
        "m.room.redaction" if !rules.redaction.updated => {
            text(event, "redacts", "redacts")?.and_then(|id| event_id_of(id, "redacts").ok())
        }
        _ => None,
    };
    Ok(Pdu {
        room_id: room_id_of(event, kind, &event_id, rules)?,
        event_id,
        sender,
        kind: kind.into(),
        state_key: state_key.map(Into::into),
        origin_server_ts: count(event, "origin_server_ts")?,
        depth: count(event, "depth")?,
        prev_events: references(event, "prev_events", MAX_PREV_EVENTS, rules)?,
        auth_events: references(event, "auth_events", MAX_AUTH_EVENTS, rules)?,
        redacts,
        json: Bytes::new(),
        content: 0..0,
    })
}

fn room_id_of(
    event: &Object<'_>,
    kind: &str,
    event_id: &EventId,
    rules: &Rules,
) -> Result<OwnedRoomId, FormatError> {
    let given = short(event, "room_id")?;
    if rules.room_id_is_create_hash && kind == "m.room.create" {
        if given.is_some() {
            return Err(FormatError::Unexpected("room_id"));
        }
        return room_of_create(event_id);
    }
    let given = given.ok_or(FormatError::Missing("room_id"))?;
    if rules.room_id_is_create_hash && !is_hash(given.get(1..).unwrap_or_default()) {
        return Err(FormatError::BadId("room_id"));
    }
    RoomId::parse(given).map_err(|_| FormatError::BadId("room_id"))
}

/// The room that a version 12 create event opens: its id with another sigil.
pub(crate) fn room_of_create(event_id: &EventId) -> Result<OwnedRoomId, FormatError> {
    let id = format!("!{}", event_id.as_str().get(1..).unwrap_or_default());
    RoomId::parse(id).map_err(|_| FormatError::BadId("room_id"))
}

/// 32 bytes in URL-safe base64.
fn is_hash(text: &str) -> bool {
    text.len() == 43
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn narrow(range: Range<usize>) -> Range<u32> {
    // Events are far shorter than 4 GiB: reading refuses longer ones.
    range.start as u32..range.end as u32
}

pub(crate) fn check_size(what: &'static str, size: usize, limit: usize) -> Result<(), FormatError> {
    if size > limit {
        Err(FormatError::TooLarge { what, size, limit })
    } else {
        Ok(())
    }
}

pub(crate) fn check_count(
    field: &'static str,
    count: usize,
    limit: usize,
) -> Result<(), FormatError> {
    if count > limit {
        Err(FormatError::TooMany {
            field,
            count,
            limit,
        })
    } else {
        Ok(())
    }
}

fn object<'o, 'a>(
    of: &'o Object<'a>,
    field: &'static str,
) -> Result<Option<&'o Object<'a>>, FormatError> {
    match of.get(field) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(FormatError::WrongType {
            field,
            expected: "an object",
        }),
    }
}

fn text<'o>(
    of: &'o Object<'_>,
    key: &str,
    field: &'static str,
) -> Result<Option<&'o str>, FormatError> {
    match of.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(FormatError::WrongType {
            field,
            expected: "a string",
        }),
    }
}

/// A string of at most 255 bytes.
fn short<'o>(of: &'o Object<'_>, field: &'static str) -> Result<Option<&'o str>, FormatError> {
    let text = text(of, field, field)?;
    check_size(field, text.map_or(0, str::len), MAX_ID_BYTES)?;
    Ok(text)
}

/// An integer from 0 to 2^53-1; parsing has seen to the upper end.
fn count(of: &Object<'_>, field: &'static str) -> Result<u64, FormatError> {
    match of.get(field) {
        None => Err(FormatError::Missing(field)),
        Some(value) => {
            value
                .as_int()
                .and_then(|n| u64::try_from(n).ok())
                .ok_or(FormatError::WrongType {
                    field,
                    expected: "an integer from 0 to 2^53-1",
                })
        }
    }
}

fn references(
    of: &Object<'_>,
    field: &'static str,
    limit: usize,
    rules: &Rules,
) -> Result<Vec<OwnedEventId>, FormatError> {
    let wrong = FormatError::WrongType {
        field,
        expected: "an array of event references",
    };
    let entries = match of.get(field) {
        None => return Err(FormatError::Missing(field)),
        Some(value) => value.as_array().ok_or_else(|| wrong.clone())?,
    };
    check_count(field, entries.len(), limit)?;
    let id = |entry: &Value<'_>| match entry {
        Value::String(id) if !rules.reference_pairs => event_id_of(id, field),
        Value::Array(pair) if rules.reference_pairs => match pair.as_slice() {
            [Value::String(id), Value::Object(_)] => event_id_of(id, field),
            _ => Err(wrong.clone()),
        },
        _ => Err(wrong.clone()),
    };
    entries.iter().map(id).collect()
}

fn event_id_of(text: &str, field: &'static str) -> Result<OwnedEventId, FormatError> {
    if text.len() > MAX_ID_BYTES || text.contains('\0') {
        return Err(FormatError::BadId(field));
    }
    EventId::parse(text).map_err(|_| FormatError::BadId(field))
}

/// An id as versions 1 and 2 have them, with a server's name.
fn given_event_id(text: &str) -> Result<OwnedEventId, FormatError> {
    event_id_of(text, "event_id")
        .ok()
        .filter(|id| id.server_name().is_some())
        .ok_or(FormatError::BadId("event_id"))
}

/// What a redaction of version 11 or later redacts. It redacts nothing if that is no event id.
pub(crate) fn redacts_of(content: &Object<'_>) -> Option<OwnedEventId> {
    content
        .get_str("redacts")
        .and_then(|id| event_id_of(id, "content.redacts").ok())
}
