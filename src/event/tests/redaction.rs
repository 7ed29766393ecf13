//! The redaction tables of the room versions, one row at a time.

use serde_json::{Map, Value, json};
use stoa_event::{
    ids::RoomVersionId,
    redact::{redact, redact_content},
    version::Rules,
};

fn rules(n: u8) -> Rules {
    Rules::of(&RoomVersionId::try_from(n.to_string().as_str()).unwrap()).unwrap()
}

/// A content with every key that any event type keeps somewhere, and one that none does.
fn full() -> Value {
    let keys = [
        "membership",
        "join_authorised_via_users_server",
        "creator",
        "room_version",
        "join_rule",
        "allow",
        "ban",
        "events",
        "events_default",
        "invite",
        "kick",
        "redact",
        "state_default",
        "users",
        "users_default",
        "notifications",
        "aliases",
        "history_visibility",
        "redacts",
        "deny",
        "body",
    ];
    let mut content: Map<_, _> = keys.into_iter().map(|key| (key.to_owned(), json!(key))).collect();
    content.insert("third_party_invite".into(), json!({ "signed": { "token": "t" }, "display_name": "d" }));
    Value::Object(content)
}

fn left(kind: &str, version: u8) -> Vec<String> {
    let content = redact_content(kind, full().to_string().as_bytes(), &rules(version)).unwrap();
    let content: Map<String, Value> = serde_json::from_slice(&content).unwrap();
    content.into_iter().map(|(key, _)| key).collect()
}

#[test]
fn contents() {
    let levels = ["ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default"];
    let levels_11 =
        ["ban", "events", "events_default", "invite", "kick", "redact", "state_default", "users", "users_default"];
    let nothing: [&str; 0] = [];
    for version in 1..=12 {
        let of = |kind| left(kind, version);
        assert_eq!(of("m.room.history_visibility"), ["history_visibility"], "{version}");
        for other in
            ["m.room.message", "m.room.encrypted", "m.room.server_acl", "m.room.name", "", "m.room.third_party_invite"]
        {
            assert_eq!(of(other), nothing, "{other} {version}");
        }
        assert_eq!(of("m.room.aliases"), if version <= 5 { &["aliases"][..] } else { &[] }, "{version}");
        let join_rules = of("m.room.join_rules");
        assert_eq!(join_rules, if version <= 7 { &["join_rule"][..] } else { &["allow", "join_rule"] }, "{version}");
        let member = match version {
            ..=8 => &["membership"][..],
            9 | 10 => &["join_authorised_via_users_server", "membership"],
            _ => &["join_authorised_via_users_server", "membership", "third_party_invite"],
        };
        assert_eq!(of("m.room.member"), member, "{version}");
        assert_eq!(of("m.room.power_levels"), if version <= 10 { &levels[..] } else { &levels_11 }, "{version}");
        assert_eq!(of("m.room.redaction"), if version <= 10 { &[][..] } else { &["redacts"] }, "{version}");
        if version <= 10 {
            assert_eq!(of("m.room.create"), ["creator"], "{version}");
        } else {
            assert_eq!(of("m.room.create").len(), full().as_object().unwrap().len(), "{version}");
        }
    }
}

#[test]
fn third_party_invites_keep_what_was_signed() {
    let invite = |third_party: Value| {
        let content = json!({ "membership": "invite", "third_party_invite": third_party }).to_string();
        let left = redact_content("m.room.member", content.as_bytes(), &rules(11)).unwrap();
        serde_json::from_slice::<Value>(&left).unwrap()["third_party_invite"].clone()
    };
    assert_eq!(
        invite(json!({ "signed": { "mxid": "@a:b" }, "display_name": "x" })),
        json!({ "signed": { "mxid": "@a:b" } })
    );
    assert_eq!(invite(json!({ "display_name": "x" })), json!({}));
    // What is no object has no `signed` that could be kept.
    assert_eq!(invite(json!("x")), Value::Null);
    assert_eq!(invite(json!(["x"])), Value::Null);
}

#[test]
fn keys_at_the_top() {
    let keys = [
        "event_id",
        "type",
        "room_id",
        "sender",
        "state_key",
        "hashes",
        "signatures",
        "depth",
        "prev_events",
        "prev_state",
        "auth_events",
        "origin",
        "origin_server_ts",
        "membership",
        "unsigned",
        "redacts",
        "age",
        "extra",
    ];
    let mut event: Map<String, Value> = keys.into_iter().map(|key| (key.to_owned(), json!("x"))).collect();
    event.insert("content".into(), json!({ "body": "x" }));
    let event = Value::Object(event).to_string();
    for version in 1..=12 {
        let left: Map<String, Value> =
            serde_json::from_slice(&redact(event.as_bytes(), &rules(version)).unwrap()).unwrap();
        let mut kept = vec![
            "auth_events",
            "content",
            "depth",
            "event_id",
            "hashes",
            "origin_server_ts",
            "prev_events",
            "room_id",
            "sender",
            "signatures",
            "state_key",
            "type",
        ];
        if version <= 10 {
            kept.extend(["membership", "origin", "prev_state"]);
            kept.sort_unstable();
        }
        assert_eq!(left.keys().map(String::as_str).collect::<Vec<_>>(), kept, "{version}");
        assert_eq!(left["content"], json!({}));
    }
}

#[test]
fn redacting_twice_changes_nothing() {
    for version in 1..=12 {
        for kind in ["m.room.create", "m.room.member", "m.room.power_levels", "m.room.message"] {
            let event = json!({ "type": kind, "content": full(), "unsigned": {}, "origin": "x" }).to_string();
            let once = redact(event.as_bytes(), &rules(version)).unwrap();
            assert_eq!(redact(&once, &rules(version)).unwrap(), once, "{kind} {version}");
        }
    }
}

#[test]
fn what_is_no_event_is_refused() {
    assert!(redact(b"[]", &rules(11)).is_err());
    assert!(redact(b"{\"a\":1.5}", &rules(11)).is_err());
    assert!(redact_content("m.room.member", b"null", &rules(11)).is_err());
}
