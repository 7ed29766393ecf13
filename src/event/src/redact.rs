//! Redaction (Client-Server API, "Redactions"; the table stands in each room version): what is left of an event.
//!
//! The redacted form is what signatures and event ids are made over, so it is written straight from the tree.

#![deny(clippy::indexing_slicing)]

use crate::{
    json::{JsonError, Object, Value, write_string},
    version::{RedactionRules, Rules},
};

/// The redacted form of a whole event, as canonical JSON, its signatures included.
///
/// # Errors
/// If the bytes are not canonical-able JSON or not an object.
pub fn redact(json: &[u8], rules: &Rules) -> Result<Vec<u8>, JsonError> {
    let event = rules.parse(json)?;
    let mut out = Vec::with_capacity(512);
    write_redacted(&event, &rules.redaction, true, &mut out);
    Ok(out)
}

/// What redaction leaves of the `content` of an event of that type, as canonical JSON. For clients, who get the event in
/// their own format.
///
/// # Errors
/// If the bytes are not canonical-able JSON or not an object.
pub fn redact_content(kind: &str, content: &[u8], rules: &Rules) -> Result<Vec<u8>, JsonError> {
    let content = rules.parse(content)?;
    let mut out = Vec::with_capacity(64);
    write_redacted_content(kind, &content, &rules.redaction, &mut out);
    Ok(out)
}

/// Appends the redacted form of an event. Without `signatures` it is what is signed and hashed: redaction takes
/// `unsigned` away anyway.
pub(crate) fn write_redacted(event: &Object<'_>, rules: &RedactionRules, signatures: bool, out: &mut Vec<u8>) {
    let kind = event.get_str("type").unwrap_or_default();
    let kept = event.iter().filter(|(key, _)| keeps_top(key, rules) && (signatures || *key != "signatures"));
    out.push(b'{');
    for (i, (key, value)) in kept.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_string(key, out);
        out.push(b':');
        match (key, value) {
            ("content", Value::Object(content)) => write_redacted_content(kind, content, rules, out),
            _ => value.write_canonical(out),
        }
    }
    out.push(b'}');
}

/// Appends what redaction leaves of a content.
pub(crate) fn write_redacted_content(kind: &str, content: &Object<'_>, rules: &RedactionRules, out: &mut Vec<u8>) {
    if kind == "m.room.member" && rules.updated && content.get("third_party_invite").is_some() {
        return without_invite_details(content).write_if(out, |key| keeps_content(kind, key, rules));
    }
    content.write_if(out, |key| keeps_content(kind, key, rules));
}

/// Leaves `signed` alone in `third_party_invite`. One that is not an object has no `signed` and goes, as in Synapse.
fn without_invite_details<'a>(content: &Object<'a>) -> Object<'a> {
    let mut content = content.clone();
    let Some(Value::Object(mut invite)) = content.remove("third_party_invite") else {
        return content;
    };
    let mut kept = Object::new();
    if let Some(signed) = invite.remove("signed") {
        kept.insert("signed", signed);
    }
    content.insert("third_party_invite", kept.into());
    content
}

fn keeps_top(key: &str, rules: &RedactionRules) -> bool {
    match key {
        "event_id" | "type" | "room_id" | "sender" | "state_key" | "content" | "hashes" | "signatures" | "depth"
        | "prev_events" | "auth_events" | "origin_server_ts" => true,
        "origin" | "membership" | "prev_state" => !rules.updated,
        _ => false,
    }
}

fn keeps_content(kind: &str, key: &str, rules: &RedactionRules) -> bool {
    match (kind, key) {
        ("m.room.create", _) if rules.updated => true,
        ("m.room.create", "creator") => true,
        ("m.room.member", "membership") => true,
        ("m.room.member", "join_authorised_via_users_server") => rules.keep_member_authorised_via,
        ("m.room.member", "third_party_invite") => rules.updated,
        ("m.room.join_rules", "join_rule") => true,
        ("m.room.join_rules", "allow") => rules.keep_join_rules_allow,
        (
            "m.room.power_levels",
            "ban" | "events" | "events_default" | "kick" | "redact" | "state_default" | "users" | "users_default",
        ) => true,
        ("m.room.power_levels", "invite") => rules.updated,
        ("m.room.aliases", "aliases") => rules.keep_aliases,
        ("m.room.history_visibility", "history_visibility") => true,
        ("m.room.redaction", "redacts") => rules.updated,
        _ => false,
    }
}
