//! Reading events (Server-Server API, "Checks performed on receipt of a PDU", 1 to 3; Client-Server API, "Size limits").

#![deny(clippy::indexing_slicing)]

mod fields;

use std::ops::Range;

use bytes::Bytes;

use crate::{
    hash::{ContentHash, check_content_hash, id_of_hash, sha256, signed_bytes},
    ids::{OwnedEventId, OwnedServerName},
    json::{JsonError, Object, Parser},
    pdu::Pdu,
    redact::redact,
    sign::{Keys, VerifyError, signers_of, verify_server},
    version::{EventIdFormat, Rules},
};
pub(crate) use fields::{check_count, check_size, redacts_of, room_of_create};
use fields::{fields_of, object, text};

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
        let json = settled(json, rules)?;
        let Shape { pdu, event, signed, signatures } = shape(&json, rules)?;
        let signers = match event.get_object("content") {
            Some(content) => signers_of(&pdu, content, rules),
            None => Err(VerifyError::Malformed("content")),
        };
        let hash = check_content_hash(&event, rules);
        Ok(Received { pdu: Pdu { json: json.clone(), ..pdu }, signed, signatures, signers, hash })
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
            let ids = of_server.iter().map(|(id, _)| id).filter(|id| id.starts_with("ed25519:"));
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
        let at = rules.enforce_key_validity.then_some(self.pdu.exact_ts().max(0).cast_unsigned());
        self.signers()?.iter().try_for_each(|server| verify_server(&self.signed, &signatures, server, keys, at))
    }

    /// Checks the signatures and gives the event that may be used: the whole one, or its redacted form where the content
    /// hash differs.
    ///
    /// # Errors
    /// As [`Received::check_signatures`].
    pub fn verify(&self, rules: &Rules, keys: &impl Keys) -> Result<(Pdu, ContentHash), VerifyError> {
        self.check_signatures(rules, keys)?;
        let pdu = match self.hash {
            ContentHash::Same => self.pdu.clone(),
            ContentHash::Different => self.pdu.redacted(rules).map_err(|_| VerifyError::Malformed("event"))?,
        };
        Ok((pdu, self.hash))
    }

    fn signatures(&self) -> Result<Object<'_>, VerifyError> {
        let range = self.signatures.start as usize..self.signatures.end as usize;
        Ok(Object::parse_lenient(self.pdu.json.get(range).unwrap_or_default())?)
    }
}

impl Pdu {
    /// Reads an event that came from somewhere: checks its shape and works out its id. Who takes events from other
    /// servers wants [`Received`], which checks signatures and hash too.
    ///
    /// # Errors
    /// If it is not an event of that room version.
    pub fn read(json: Bytes, rules: &Rules) -> Result<Pdu, FormatError> {
        let json = settled(json, rules)?;
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
        for member in rules.parser(&json)?.trusted_members(wanted)? {
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
        Pdu::stored(redact(&self.json, rules)?.into(), self.event_id.clone(), rules)
    }
}

/// What reading found; the tree is kept for hashing.
struct Shape<'a> {
    pdu: Pdu,
    event: Object<'a>,
    signed: Vec<u8>,
    signatures: Range<u32>,
}

/// The bytes to be kept: those that came. In versions 1 to 5, where these say something that can be read in two ways (a
/// key twice, `-0`, a float), their canonical form, so that everybody who gets them from here reads the same.
fn settled(json: Bytes, rules: &Rules) -> Result<Bytes, FormatError> {
    if json.len() > MAX_RAW_BYTES {
        return Err(FormatError::TooLarge { what: "event", size: json.len(), limit: MAX_EVENT_BYTES });
    }
    if rules.strict_json {
        return Ok(json);
    }
    let (value, odd) = Parser::lenient(&json)?.whole_and_odd()?;
    let canonical = odd.then(|| value.to_canonical());
    Ok(canonical.map_or(json, Bytes::from))
}

fn shape<'a>(json: &'a [u8], rules: &Rules) -> Result<Shape<'a>, FormatError> {
    let (mut content, mut signatures) = (0..0, 0..0);
    let mut members = Vec::with_capacity(16);
    for member in rules.parser(json)?.members()? {
        match member.key.as_ref() {
            "content" => content = narrow(member.range),
            "signatures" => signatures = narrow(member.range),
            _ => {}
        }
        members.push((member.key, member.value));
    }
    let event = Object::from_members(members)
        .map_err(|key| JsonError { why: crate::json::Why::DuplicateKey(key), at: json.len() })?;
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
    Ok(Shape { pdu, event, signed, signatures })
}

fn narrow(range: Range<usize>) -> Range<u32> {
    // Events are far shorter than 4 GiB: reading refuses longer ones.
    range.start as u32..range.end as u32
}
