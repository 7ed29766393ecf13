//! Making events (Server-Server API, "Adding hashes and signatures to outgoing events").
//!
//! The canonical form is written directly, three times over the same parts: for the content hash, for the signature and
//! the id, and for good. Nothing is parsed but the content, once.

#![deny(clippy::indexing_slicing)]

use std::ops::Range;

use crate::{
    format::{
        FormatError, MAX_AUTH_EVENTS, MAX_EVENT_BYTES, MAX_PREV_EVENTS, check_count, check_size, redacts_of,
        room_of_create,
    },
    hash::{base64_encode, id_of_hash, sha256},
    ids::{EventId, MAX_ID_BYTES, OwnedEventId, OwnedRoomId, OwnedUserId, ServerName},
    json::{MAX_INT, Object, Value, write_int, write_string},
    pdu::Pdu,
    redact::write_redacted_content,
    sign::SigningKey,
    version::Rules,
};

/// An event before it has a hash, a signature and an id.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The room; `None` for the create event of a version 12 room, whose id follows from it.
    pub room_id: Option<OwnedRoomId>,
    /// Who sends it.
    pub sender: OwnedUserId,
    /// The event type.
    pub kind: String,
    /// The state key of a state event.
    pub state_key: Option<String>,
    /// A JSON object.
    pub content: Vec<u8>,
    /// The forward extremities that it follows.
    pub prev_events: Vec<OwnedEventId>,
    /// The state events that allow it.
    pub auth_events: Vec<OwnedEventId>,
    /// One more than the greatest depth of `prev_events`.
    pub depth: u64,
    /// Now, in milliseconds since 1970.
    pub origin_server_ts: u64,
    /// What a redaction redacts. It is written where the room version keeps it.
    pub redacts: Option<OwnedEventId>,
}

/// What an event carries where its id does not follow from it (versions 1 and 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The id, see [`given_id`].
    pub event_id: OwnedEventId,
    /// The reference hashes of `prev_events` ([`Pdu::reference_hash`]), in their order; `None` where the server that made the
    /// template left one out, as Synapse may: then the reference has none.
    pub prev_hashes: Vec<Option<[u8; 32]>>,
    /// Those of `auth_events`.
    pub auth_hashes: Vec<Option<[u8; 32]>>,
}

/// An event id of versions 1 and 2. `random` must be long enough never to come twice, and be made of letters and digits.
///
/// # Errors
/// If the two together are too long for an id, or the random part is not one.
pub fn given_id(random: &str, server: &ServerName) -> Result<OwnedEventId, FormatError> {
    let bad = || FormatError::BadId("event_id");
    if random.is_empty() || random.contains(|c: char| !c.is_ascii_graphic() || c == ':') {
        return Err(bad());
    }
    EventId::parse(format!("${random}:{server}")).map_err(|_| bad())
}

/// Gives a draft its hash, its signature and its id. In versions 1 and 2 the id must be given: [`seal_given`].
///
/// The content must be canonical JSON in every version: what versions 1 to 5 allow besides is read, but not made.
///
/// # Errors
/// If the content is not canonical-able JSON ([`FormatError::BadJson`]), if something is too long or too many, or if the
/// draft does not fit the room version.
pub fn seal(draft: Draft, rules: &Rules, server: &ServerName, key: &SigningKey) -> Result<Pdu, FormatError> {
    sealed(draft, None, rules, server, key)
}

/// The same for versions 1 and 2.
///
/// # Errors
/// As [`seal`]; also if the id is not of the server that signs, or if the hashes are not as many as the references.
pub fn seal_given(
    draft: Draft,
    given: &Given,
    rules: &Rules,
    server: &ServerName,
    key: &SigningKey,
) -> Result<Pdu, FormatError> {
    sealed(draft, Some(given), rules, server, key)
}

fn sealed(
    draft: Draft,
    given: Option<&Given>,
    rules: &Rules,
    server: &ServerName,
    key: &SigningKey,
) -> Result<Pdu, FormatError> {
    let given = given.filter(|_| rules.reference_pairs);
    check(&draft, rules)?;
    if rules.reference_pairs {
        check_given(&draft, given.ok_or(FormatError::Missing("event_id"))?, server)?;
    }
    let mut content = Object::parse(&draft.content)?;
    let in_content = rules.redaction.updated;
    if let Some(redacts) = draft.redacts.as_ref().filter(|_| in_content) {
        content.insert("redacts", Value::from(redacts.as_str()));
    }
    let mut whole = Vec::with_capacity(draft.content.len());
    content.write_canonical(&mut whole);
    let mut left = Vec::with_capacity(64);
    write_redacted_content(&draft.kind, &content, &rules.redaction, &mut left);
    let redacts = match in_content {
        true if draft.kind == "m.room.redaction" => redacts_of(&content),
        true => None,
        false => draft.redacts.clone(),
    };
    drop(content);

    let top_redacts = draft.redacts.as_ref().filter(|_| !in_content);
    let mut bytes = Vec::with_capacity(whole.len() + 1024);
    write(&draft, given, &Parts { content: &whole, redacts: top_redacts, hash: None, signature: None }, &mut bytes);
    let hash = base64_encode(&sha256(&bytes));

    bytes.clear();
    write(&draft, given, &Parts { content: &left, redacts: None, hash: Some(&hash), signature: None }, &mut bytes);
    let signature = key.sign_base64(&bytes);
    let hashed = id_of_hash(&sha256(&bytes), rules.event_id);
    let event_id = hashed.or_else(|| given.map(|given| given.event_id.clone()));
    let event_id = event_id.ok_or(FormatError::Missing("event_id"))?;

    bytes.clear();
    let signature = Some((server, key.id(), signature.as_str()));
    let parts = Parts { content: &whole, redacts: top_redacts, hash: Some(&hash), signature };
    let content = write(&draft, given, &parts, &mut bytes);
    check_size("event", bytes.len(), MAX_EVENT_BYTES)?;

    let room_id = match draft.room_id {
        Some(room_id) => room_id,
        None => room_of_create(&event_id)?,
    };
    Ok(Pdu {
        event_id,
        room_id,
        sender: draft.sender,
        kind: draft.kind.into(),
        state_key: draft.state_key.map(Into::into),
        origin_server_ts: draft.origin_server_ts.cast_signed(),
        depth: draft.depth,
        prev_events: draft.prev_events,
        auth_events: draft.auth_events,
        redacts,
        json: bytes.into(),
        content,
    })
}

/// The id must be of the server that signs, and every reference must have its hash.
fn check_given(draft: &Draft, given: &Given, server: &ServerName) -> Result<(), FormatError> {
    if given.event_id.server_name() != Some(server) {
        return Err(FormatError::BadId("event_id"));
    }
    for (field, ids, hashes) in [
        ("prev_events", &draft.prev_events, &given.prev_hashes),
        ("auth_events", &draft.auth_events, &given.auth_hashes),
    ] {
        if ids.len() != hashes.len() {
            return Err(FormatError::WrongType { field, expected: "as many hashes as events" });
        }
    }
    Ok(())
}

fn check(draft: &Draft, rules: &Rules) -> Result<(), FormatError> {
    let without_room = rules.room_id_is_create_hash && draft.kind == "m.room.create";
    match (&draft.room_id, without_room) {
        (Some(_), true) => return Err(FormatError::Unexpected("room_id")),
        (None, false) => return Err(FormatError::Missing("room_id")),
        _ => {}
    }
    check_size("type", draft.kind.len(), MAX_ID_BYTES)?;
    check_size("state_key", draft.state_key.as_ref().map_or(0, String::len), MAX_ID_BYTES)?;
    check_size("event", draft.content.len(), 8 * MAX_EVENT_BYTES)?;
    check_count("prev_events", draft.prev_events.len(), MAX_PREV_EVENTS)?;
    check_count("auth_events", draft.auth_events.len(), MAX_AUTH_EVENTS)?;
    for (field, n) in [("depth", draft.depth), ("origin_server_ts", draft.origin_server_ts)] {
        if n > MAX_INT as u64 {
            return Err(FormatError::WrongType { field, expected: "an integer from 0 to 2^53-1" });
        }
    }
    Ok(())
}

/// What differs between the three times that an event is written.
struct Parts<'a> {
    content: &'a [u8],
    redacts: Option<&'a OwnedEventId>,
    hash: Option<&'a str>,
    signature: Option<(&'a ServerName, &'a str, &'a str)>,
}

/// Appends the event in canonical form: its keys stand here in their order. Says where `content` stands.
fn write(draft: &Draft, given: Option<&Given>, parts: &Parts<'_>, out: &mut Vec<u8>) -> Range<u32> {
    let int = |n: u64, out: &mut Vec<u8>| write_int(i64::try_from(n).unwrap_or(MAX_INT), out);
    out.extend_from_slice(b"{\"auth_events\":");
    write_references(&draft.auth_events, given.map(|given| given.auth_hashes.as_slice()), out);
    out.extend_from_slice(b",\"content\":");
    let start = out.len() as u32;
    out.extend_from_slice(parts.content);
    let range = start..out.len() as u32;
    out.extend_from_slice(b",\"depth\":");
    int(draft.depth, out);
    if let Some(given) = given {
        out.extend_from_slice(b",\"event_id\":");
        write_string(given.event_id.as_str(), out);
    }
    if let Some(hash) = parts.hash {
        out.extend_from_slice(b",\"hashes\":{\"sha256\":");
        write_string(hash, out);
        out.push(b'}');
    }
    out.extend_from_slice(b",\"origin_server_ts\":");
    int(draft.origin_server_ts, out);
    out.extend_from_slice(b",\"prev_events\":");
    write_references(&draft.prev_events, given.map(|given| given.prev_hashes.as_slice()), out);
    let field = |name: &[u8], text: Option<&str>, out: &mut Vec<u8>| {
        if let Some(text) = text {
            out.extend_from_slice(name);
            write_string(text, out);
        }
    };
    field(b",\"redacts\":", parts.redacts.map(|id| id.as_str()), out);
    field(b",\"room_id\":", draft.room_id.as_ref().map(|id| id.as_str()), out);
    field(b",\"sender\":", Some(draft.sender.as_str()), out);
    if let Some((server, key_id, signature)) = parts.signature {
        field(b",\"signatures\":{", Some(server.as_str()), out);
        field(b":{", Some(key_id), out);
        field(b":", Some(signature), out);
        out.extend_from_slice(b"}}");
    }
    field(b",\"state_key\":", draft.state_key.as_deref(), out);
    field(b",\"type\":", Some(&draft.kind), out);
    out.push(b'}');
    range
}

/// Ids, or where there are hashes, pairs of id and hash.
fn write_references(ids: &[OwnedEventId], hashes: Option<&[Option<[u8; 32]>]>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (i, id) in ids.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        match hashes.map(|hashes| hashes.get(i)) {
            None => write_string(id.as_str(), out),
            Some(hash) => {
                out.push(b'[');
                write_string(id.as_str(), out);
                out.extend_from_slice(b",{");
                if let Some(hash) = hash.copied().flatten() {
                    out.extend_from_slice(b"\"sha256\":");
                    write_string(&base64_encode(&hash), out);
                }
                out.extend_from_slice(b"}]");
            }
        }
    }
    out.push(b']');
}
