use ruma_common::{
    push::{FlattenedJson, PatternedPushRule, PushConditionRoomCtx},
    serde::Raw,
};
use serde_json::json;

use super::*;

/// What the rules say to an event.
fn ask<'a>(rules: &'a Rules, event: &Value, context: &Context<'_>) -> Result<&'a [Action], Lacks> {
    let text = |name: &str| event[name].as_str();
    let names = (text("type").unwrap_or_default(), text("sender").unwrap_or_default(), text("state_key"));
    let (content, json) = (event["content"].to_string(), event.to_string());
    rules.judge(&Asked::new(names, content.as_bytes(), json.as_bytes(), context))
}

fn context<'a>() -> Context<'a> {
    Context { user: "@a:b", room: "!r:a", joined: 2, name: Some("A*"), powers: Some(None), follows: Some(None) }
}

fn rule(id: &str, pattern: &str) -> PatternedPushRule {
    let rule = json!({ "actions": ["notify"], "default": false, "enabled": true, "rule_id": id, "pattern": pattern });
    serde_json::from_value(rule).unwrap()
}

fn notifies(patterns: impl IntoIterator<Item = String>, event: &Value) -> bool {
    let mut rules = Ruleset::new();
    rules.content.extend(patterns.into_iter().enumerate().map(|(n, pattern)| rule(&n.to_string(), &pattern)));
    !ask(&Rules::of(&rules), event, &context()).unwrap().is_empty()
}

fn message(sender: &str, body: &str) -> Value {
    json!({ "type": "m.room.message", "sender": sender, "content": { "body": body } })
}

/// With ruma's matcher this ends the process.
#[test]
fn a_long_message_of_words_that_almost_match_is_just_a_message() {
    let one = |pattern: &str, body: &str| notifies([pattern.to_owned()], &message("@b:b", body));
    assert!(!one("a", &"aa ".repeat(21_000)));
    assert!(one("a", &("aa ".repeat(21_000) + "a")));
    for pattern in ["*a".repeat(255) + "*b", "?".repeat(511) + "b", "a?".repeat(255) + "b"] {
        assert!(!one(&pattern, &"a".repeat(60_000)));
    }
    let begin = tokio::time::Instant::now();
    assert!(!notifies((0..1000).map(|_| "*a".repeat(250) + "*b"), &message("@b:b", &"a".repeat(60_000))));
    assert!(begin.elapsed() < std::time::Duration::from_secs(20), "{:?}", begin.elapsed());
    assert!(!notifies(["a".to_owned()], &message("@a:b", "a")));
}

#[test]
fn what_costs_something_is_asked_for_only_when_a_rule_does() {
    let user = <&UserId>::try_from("@a:b").unwrap();
    let rules = Rules::of(&Ruleset::server_default(user));
    let unknown = || Context { name: None, powers: None, ..context() };
    assert!(!ask(&rules, &message("@b:b", "hello"), &unknown()).unwrap().is_empty());
    let everyone = json!({ "type": "m.room.message", "sender": "@b:b",
        "content": { "body": "hello", "m.mentions": { "room": true } } });
    assert_eq!(ask(&rules, &everyone, &unknown()).unwrap_err(), Lacks::Powers);
    let thread = |follows| Context { follows, ..context() };
    assert_eq!(ask(&rules, &message("@b:b", "hello"), &thread(None)).unwrap_err(), Lacks::Threads);
    assert!(ask(&rules, &message("@b:b", "hello"), &thread(Some(Some(false)))).unwrap().is_empty());
    assert!(!ask(&rules, &message("@b:b", "hello"), &thread(Some(Some(true)))).unwrap().is_empty());
    let named = json!({ "override": [{ "actions": ["notify"], "default": false, "enabled": true, "rule_id": "n",
        "conditions": [{ "kind": "contains_display_name" }] }] });
    let rules = Rules::of(&serde_json::from_value(named).unwrap());
    assert_eq!(ask(&rules, &message("@b:b", "hello"), &unknown()).unwrap_err(), Lacks::Name);
    assert!(ask(&rules, &message("@b:b", "hello"), &context()).unwrap().is_empty());
    assert!(!ask(&rules, &message("@b:b", "hello A*!"), &context()).unwrap().is_empty());
}

/// Appendices, "Dot-separated property paths": a backslash before something else is just that. (ruma wants it doubled.)
#[test]
fn a_backslash_means_itself_where_it_does_not_escape() {
    let rules = json!({ "override": [{ "actions": ["notify"], "default": false, "enabled": true, "rule_id": "n",
        "conditions": [{ "kind": "event_match", "key": r"content.back\slash", "pattern": "x" }] }] });
    let rules = Rules::of(&serde_json::from_value(rules).unwrap());
    let event = json!({ "type": "x", "sender": "@b:b", "content": { r"back\slash": "x" } });
    assert!(!ask(&rules, &event, &context()).unwrap().is_empty());
}

struct Chance(u64);

impl Chance {
    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        &of[usize::try_from((x ^ (x >> 31)) % of.len() as u64).unwrap()]
    }
}

fn any_condition(chance: &mut Chance) -> Value {
    let keys = [
        "type",
        "sender",
        "state_key",
        "room_id",
        "content.body",
        "content.a",
        "content.a.b",
        r"content.a\.b",
        r"content.m\.mentions.user_ids",
        "content",
        "depth",
        r"content.back\\slash",
        "content..",
    ];
    let values = [json!(null), json!(true), json!(1), json!("x"), json!("@a:b"), json!("m.room.message"), json!("")];
    match chance.one(&[0, 1, 2, 3, 4, 5]) {
        0 | 1 => {
            let patterns = ["x", "X", "?", "m.room.*", "*message", "@a:b", "", "hello", "h?llo", "he*", "É"];
            json!({ "kind": "event_match", "key": chance.one(&keys), "pattern": chance.one(&patterns) })
        }
        2 => json!({ "kind": "event_property_is", "key": chance.one(&keys), "value": chance.one(&values) }),
        3 => json!({ "kind": "event_property_contains", "key": chance.one(&keys), "value": chance.one(&values) }),
        4 => json!({ "kind": "room_member_count", "is": chance.one(&["2", "3", ">2", "<=2"]) }),
        _ => match chance.one(&[0, 1, 2]) {
            0 => json!({ "kind": "contains_display_name" }),
            1 => json!({ "kind": "sender_notification_permission", "key": "room" }),
            _ => json!({ "kind": "org.example.unknown" }),
        },
    }
}

fn any_rules(chance: &mut Chance) -> Value {
    let mut all = json!({});
    for kind in ["override", "underride"] {
        let mut rules = Vec::new();
        for n in 0..3 {
            let conditions: Vec<Value> = (0..*chance.one(&[1, 1, 2])).map(|_| any_condition(chance)).collect();
            rules.push(json!({ "actions": [{ "set_tweak": "sound", "value": format!("{kind}{n}") }], "default": false,
                "enabled": chance.one(&[true, true, true, false]), "rule_id": format!("{n}"), "conditions": conditions }));
        }
        all[kind] = rules.into();
    }
    for (kind, id) in [("room", ["!r:a", "!other:a"]), ("sender", ["@b:b", "@c:b"])] {
        all[kind] = json!([{ "actions": [{ "set_tweak": "sound", "value": kind }], "default": false,
            "enabled": chance.one(&[true, false]), "rule_id": chance.one(&id) }]);
    }
    all["content"] = json!([{ "actions": [{ "set_tweak": "sound", "value": "content" }], "default": false,
        "enabled": true, "rule_id": "c", "pattern": chance.one(&["hello", "x*", "he?lo"]) }]);
    all
}

fn any_event(chance: &mut Chance) -> Value {
    let things = [json!(null), json!(true), json!(1), json!("x"), json!("É"), json!(["x", 1]), json!({ "b": "x" })];
    let mut content = json!({});
    for name in ["a", "a.b", r"back\slash", ""] {
        if *chance.one(&[true, false]) {
            content[name] = chance.one(&things).clone();
        }
    }
    if *chance.one(&[true, true, false]) {
        content["body"] =
            chance.one(&[json!("hello"), json!("say hello x"), json!("Xeno"), json!(""), json!(7)]).clone();
    }
    if *chance.one(&[true, false]) {
        content["m.mentions"] = json!({ "user_ids": ["@c:b", chance.one(&["@a:b", "x"])] });
    }
    let mut event = json!({ "type": chance.one(&["m.room.message", "x"]), "sender": chance.one(&["@b:b", "@c:b", "@a:b"]),
        "depth": 1, "content": content });
    if *chance.one(&[true, false]) {
        event["state_key"] = json!(chance.one(&["", "@a:b"]));
    }
    event
}

#[tokio::test]
async fn rules_say_what_they_say_in_ruma() {
    let mut chance = Chance(1);
    let room: ruma_common::OwnedRoomId = "!r:a".try_into().unwrap();
    let user: ruma_common::OwnedUserId = "@a:b".try_into().unwrap();
    let theirs = PushConditionRoomCtx::new(room, 2u32.into(), user, "hello".into());
    let ours = Context { name: Some("hello"), ..context() };
    let mut said = 0;
    for round in 0..20_000 {
        let rules = any_rules(&mut chance);
        let parsed: Ruleset = serde_json::from_value(rules.clone()).unwrap();
        let event = any_event(&mut chance);
        let raw = Raw::<()>::from_json_string(event.to_string()).unwrap();
        let wanted = serde_json::to_value(parsed.get_actions(&raw, &theirs).await).unwrap();
        let got = serde_json::to_value(ask(&Rules::of(&parsed), &event, &ours).unwrap()).unwrap();
        assert_eq!(got, wanted, "round {round}: {rules} to {event} ({:?})", FlattenedJson::from_raw(&raw));
        said += usize::from(wanted != json!([]));
    }
    assert!(said > 2000, "rules that never apply prove little: {said}");
}
