//! The fields of an event that every reading needs, and the checks of their shape.

use bytes::Bytes;

use super::{FormatError, MAX_AUTH_EVENTS, MAX_PREV_EVENTS};
use crate::{
    ids::{EventId, MAX_ID_BYTES, OwnedEventId, OwnedRoomId, RoomId, UserId},
    json::{Object, Value},
    pdu::Pdu,
    version::Rules,
};

/// The fields that every reading needs. The id is what `id` says, or else what `event_id` says.
pub(super) fn fields_of(
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
        "m.room.redaction" if !rules.strict_json => {
            event.get_str("redacts").and_then(|id| event_id_of(id, "redacts").ok())
        }
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
        origin_server_ts: time(event, rules)?,
        depth: count(event, "depth")?,
        prev_events: references(event, "prev_events", MAX_PREV_EVENTS, rules)?,
        auth_events: references(event, "auth_events", MAX_AUTH_EVENTS, rules)?,
        redacts,
        json: Bytes::new(),
        content: 0..0,
    })
}

fn room_id_of(event: &Object<'_>, kind: &str, event_id: &EventId, rules: &Rules) -> Result<OwnedRoomId, FormatError> {
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
    text.len() == 43 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

pub(crate) fn check_size(what: &'static str, size: usize, limit: usize) -> Result<(), FormatError> {
    if size > limit { Err(FormatError::TooLarge { what, size, limit }) } else { Ok(()) }
}

pub(crate) fn check_count(field: &'static str, count: usize, limit: usize) -> Result<(), FormatError> {
    if count > limit { Err(FormatError::TooMany { field, count, limit }) } else { Ok(()) }
}

pub(super) fn object<'o, 'a>(of: &'o Object<'a>, field: &'static str) -> Result<Option<&'o Object<'a>>, FormatError> {
    match of.get(field) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(FormatError::WrongType { field, expected: "an object" }),
    }
}

pub(super) fn text<'o>(of: &'o Object<'_>, key: &str, field: &'static str) -> Result<Option<&'o str>, FormatError> {
    match of.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(FormatError::WrongType { field, expected: "a string" }),
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
        Some(value) => value
            .as_int()
            .and_then(|n| u64::try_from(n).ok())
            .ok_or(FormatError::WrongType { field, expected: "an integer from 0 to 2^53-1" }),
    }
}

/// When it is said to have been sent. In versions 1 to 5 any integer of 64 bits, as in Synapse.
fn time(of: &Object<'_>, rules: &Rules) -> Result<i64, FormatError> {
    const FIELD: &str = "origin_server_ts";
    match of.get(FIELD) {
        Some(Value::Int(n)) if !rules.strict_json => Ok(*n),
        Some(Value::Wide(n)) => {
            n.parse().map_err(|_| FormatError::WrongType { field: FIELD, expected: "an integer of 64 bits" })
        }
        _ => Ok(count(of, FIELD)?.cast_signed()),
    }
}

fn references(
    of: &Object<'_>,
    field: &'static str,
    limit: usize,
    rules: &Rules,
) -> Result<Vec<OwnedEventId>, FormatError> {
    let wrong = FormatError::WrongType { field, expected: "an array of event references" };
    let entries = match of.get(field) {
        None => return Err(FormatError::Missing(field)),
        Some(value) => value.as_array().ok_or_else(|| wrong.clone())?,
    };
    check_count(field, entries.len(), limit)?;
    let id = |entry: &Value<'_>| match entry {
        Value::String(id) if !rules.reference_pairs => event_id_of(id, field),
        Value::Array(pair) if rules.reference_pairs => match pair.as_slice() {
            [Value::String(id), Value::Object(hashes)] if hashes.iter().all(|(_, hash)| hash.as_str().is_some()) => {
                event_id_of(id, field)
            }
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
    event_id_of(text, "event_id").ok().filter(|id| id.server_name().is_some()).ok_or(FormatError::BadId("event_id"))
}

/// What a redaction of version 11 or later redacts. It redacts nothing if that is no event id.
pub(crate) fn redacts_of(content: &Object<'_>) -> Option<OwnedEventId> {
    content.get_str("redacts").and_then(|id| event_id_of(id, "content.redacts").ok())
}
