//! Editing of push rules.

mod common;

use std::time::{Duration, Instant};

use common::Server;
use ruma_common::push::{FlattenedJson, RuleKind};
use serde_json::{Value, json};
use stoa_accounts::{Accounts, Error, Result, Who, push_rules::NewRule};
use stoa_store::rows::push_rules;

fn rule(json: Value) -> NewRule {
    serde_json::from_value(json).unwrap()
}

fn quiet() -> NewRule {
    rule(json!({ "actions": [] }))
}

/// The ids of the user's own rules of a kind, and the first default one after them.
async fn ids(accounts: &Accounts, who: &Who, kind: &str) -> Vec<String> {
    let rules = push_rules::global(&accounts.push_rules(who).await.unwrap());
    let all = rules[kind].as_array().unwrap().iter();
    all.filter(|rule| rule["default"] == false).map(|rule| rule["rule_id"].as_str().unwrap().to_owned()).collect()
}

async fn put(accounts: &Accounts, who: &Who, kind: &str, id: &str, json: Value) -> Result<()> {
    accounts.put_push_rule(who, kind, id, &rule(json), None, None).await
}

#[tokio::test]
async fn everybody_begins_with_the_default_rules() {
    let server = Server::open().await;
    let (alice, who, _) = server.user("alice").await;
    let accounts = &server.accounts;
    let rules = push_rules::global(&accounts.push_rules(&who).await.unwrap());
    let ids = |kind: &str| {
        let all = rules[kind].as_array().unwrap().iter();
        all.map(|rule| rule["rule_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // Client-Server API, "Predefined Rules".
    let override_ = [
        ".m.rule.master",
        ".m.rule.suppress_notices",
        ".m.rule.invite_for_me",
        ".m.rule.member_event",
        ".m.rule.is_user_mention",
        ".m.rule.is_room_mention",
        ".m.rule.tombstone",
        ".m.rule.reaction",
        ".m.rule.room.server_acl",
        ".m.rule.suppress_edits",
    ];
    assert_eq!(ids("override"), override_);
    let underride = [
        ".m.rule.call",
        ".m.rule.encrypted_room_one_to_one",
        ".m.rule.room_one_to_one",
        ".m.rule.message",
        ".m.rule.encrypted",
    ];
    assert_eq!(ids("underride"), underride);
    for kind in ["content", "room", "sender"] {
        assert!(ids(kind).is_empty());
    }
    // As account data they are the same.
    let stored = accounts.account_data(&who, &alice, None, "m.push_rules").await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&stored).unwrap(), json!({ "global": rules }));
}

#[tokio::test]
async fn rules_of_every_kind_are_kept() {
    let server = Server::open().await;
    let (_, who, _) = server.user("alice").await;
    let accounts = &server.accounts;
    let actions = json!(["notify", { "set_tweak": "sound", "value": "default" }, { "set_tweak": "highlight" }]);
    let condition = json!({ "kind": "event_match", "key": "content.body", "pattern": "stoa*" });
    let conditions = json!([condition, { "kind": "room_member_count", "is": ">=2" }, { "kind": "org.example.new" }]);
    let conditional = json!({ "actions": actions, "conditions": conditions });
    put(accounts, &who, "override", "mine", conditional.clone()).await.unwrap();
    put(accounts, &who, "underride", "mine", conditional).await.unwrap();
    put(accounts, &who, "content", "word", json!({ "actions": actions, "pattern": "pain*ter" })).await.unwrap();
    put(accounts, &who, "room", "!room:stoa.test", json!({ "actions": [] })).await.unwrap();
    put(accounts, &who, "sender", "@bob:stoa.test", json!({ "actions": ["dont_notify"] })).await.unwrap();
    let mine = accounts.push_rule(&who, "override", "mine").await.unwrap();
    assert_eq!(mine["conditions"], conditions);
    assert_eq!((&mine["enabled"], &mine["default"], &mine["rule_id"]), (&json!(true), &json!(false), &json!("mine")));
    let word = accounts.push_rule(&who, "content", "word").await.unwrap();
    assert_eq!(word["pattern"], "pain*ter");
    assert_eq!(word["actions"].as_array().unwrap().len(), 3);
    // The master rule stays on top, and what the user adds comes before the other defaults.
    let rules = push_rules::global(&accounts.push_rules(&who).await.unwrap());
    assert_eq!(rules["override"][0]["rule_id"], ".m.rule.master");
    assert_eq!(rules["override"][1]["rule_id"], "mine");
    assert_eq!(rules["underride"][0]["rule_id"], "mine");
    // Others have their own.
    let (_, bob, _) = server.user("bob").await;
    refused!(accounts.push_rule(&bob, "override", "mine").await, Error::NotFound(_));
    for kind in ["override", "underride"] {
        accounts.delete_push_rule(&who, kind, "mine").await.unwrap();
        refused!(accounts.delete_push_rule(&who, kind, "mine").await, Error::NotFound(_));
        refused!(accounts.push_rule(&who, kind, "mine").await, Error::NotFound(_));
    }
}

#[tokio::test]
async fn rules_are_placed_before_and_after_others() {
    let server = Server::open().await;
    let (_, who, _) = server.user("alice").await;
    let accounts = &server.accounts;
    let place = |id: &'static str, before: Option<&'static str>, after: Option<&'static str>| {
        let who = &who;
        async move {
            let new = rule(json!({ "actions": [], "pattern": id }));
            accounts.put_push_rule(who, "content", id, &new, before, after).await
        }
    };
    for id in ["c", "b", "a"] {
        place(id, None, None).await.unwrap();
    }
    assert_eq!(ids(accounts, &who, "content").await, ["a", "b", "c"]);
    place("d", None, Some("a")).await.unwrap();
    assert_eq!(ids(accounts, &who, "content").await, ["a", "d", "b", "c"]);
    place("e", Some("c"), None).await.unwrap();
    assert_eq!(ids(accounts, &who, "content").await, ["a", "d", "b", "e", "c"]);
    place("f", Some("c"), Some("d")).await.unwrap();
    assert_eq!(ids(accounts, &who, "content").await, ["a", "d", "b", "e", "f", "c"]);
    // Rules that are there: up, down, to the end, and without a place nothing moves.
    place("a", None, Some("c")).await.unwrap();
    assert_eq!(ids(accounts, &who, "content").await, ["d", "b", "e", "f", "c", "a"]);
    place("d", Some("f"), None).await.unwrap();
    assert_eq!(ids(accounts, &who, "content").await, ["b", "e", "d", "f", "c", "a"]);
    place("a", Some("b"), None).await.unwrap();
    assert_eq!(ids(accounts, &who, "content").await, ["a", "b", "e", "d", "f", "c"]);
    place("b", None, None).await.unwrap();
    assert_eq!(ids(accounts, &who, "content").await, ["a", "b", "e", "d", "f", "c"]);
    // What cannot be changes nothing.
    refused!(place("x", Some("nope"), None).await, Error::Unknown(_));
    refused!(place("x", None, Some("nope")).await, Error::Unknown(_));
    refused!(place("x", Some("a"), Some("c")).await, Error::Unknown(_));
    refused!(place("c", None, Some("c")).await, Error::Unknown(_));
    refused!(place("a", Some("a"), None).await, Error::Unknown(_));
    refused!(place("x", None, Some(".m.rule.contains_user_name")).await, Error::InvalidParam(_));
    assert_eq!(ids(accounts, &who, "content").await, ["a", "b", "e", "d", "f", "c"]);
}

#[tokio::test]
async fn a_disabled_rule_stays_disabled_when_it_is_replaced() {
    let server = Server::open().await;
    let (_, who, _) = server.user("alice").await;
    let accounts = &server.accounts;
    for id in ["one", "two"] {
        put(accounts, &who, "override", id, json!({ "actions": [] })).await.unwrap();
    }
    accounts.enable_push_rule(&who, "override", "one", false).await.unwrap();
    put(accounts, &who, "override", "one", json!({ "actions": ["notify"] })).await.unwrap();
    assert_eq!(accounts.push_rule(&who, "override", "one").await.unwrap()["enabled"], false);
    accounts.put_push_rule(&who, "override", "one", &quiet(), Some("two"), None).await.unwrap();
    assert_eq!(accounts.push_rule(&who, "override", "one").await.unwrap()["enabled"], false);
    assert_eq!(ids(accounts, &who, "override").await, ["one", "two"]);
}

#[tokio::test]
async fn default_rules_are_disabled_not_deleted() {
    let server = Server::open().await;
    let (_, who, _) = server.user("alice").await;
    let accounts = &server.accounts;
    accounts.enable_push_rule(&who, "override", ".m.rule.master", true).await.unwrap();
    assert_eq!(accounts.push_rule(&who, "override", ".m.rule.master").await.unwrap()["enabled"], true);
    accounts.set_push_rule_actions(&who, "underride", ".m.rule.message", &[json!("notify")]).await.unwrap();
    assert_eq!(accounts.push_rule(&who, "underride", ".m.rule.message").await.unwrap()["actions"], json!(["notify"]));
    refused!(accounts.delete_push_rule(&who, "override", ".m.rule.master").await, Error::InvalidParam(_));
    refused!(put(accounts, &who, "override", ".m.rule.master", json!({ "actions": [] })).await, Error::InvalidParam(_));
    let placed = accounts.put_push_rule(&who, "override", ".m.rule.master", &quiet(), None, Some("x")).await;
    refused!(placed, Error::InvalidParam(_));
    refused!(put(accounts, &who, "override", ".mine", json!({ "actions": [] })).await, Error::InvalidParam(_));
    assert!(accounts.push_rule(&who, "override", ".m.rule.master").await.is_ok());
}

#[tokio::test]
async fn rules_refuse_what_cannot_be() {
    let server = Server::open().await;
    let (_, who, _) = server.user("alice").await;
    let accounts = &server.accounts;
    refused!(put(accounts, &who, "overrides", "x", json!({ "actions": [] })).await, Error::InvalidParam(_));
    refused!(accounts.push_rule(&who, "", "x").await, Error::InvalidParam(_));
    let long = "x".repeat(513);
    for id in ["", "a/b", "a\\b", &long] {
        refused!(put(accounts, &who, "override", id, json!({ "actions": [] })).await, Error::InvalidParam(_));
    }
    refused!(put(accounts, &who, "room", "room", json!({ "actions": [] })).await, Error::InvalidParam(_));
    refused!(put(accounts, &who, "sender", "bob", json!({ "actions": [] })).await, Error::InvalidParam(_));
    refused!(put(accounts, &who, "content", "x", json!({ "actions": [] })).await, Error::MissingParam("pattern"));
    let pattern = json!({ "actions": [], "pattern": long });
    refused!(put(accounts, &who, "content", "x", pattern).await, Error::InvalidParam(_));
    for action in [json!(1), json!(null), json!([]), json!({}), json!({ "set_tweak": 1 })] {
        refused!(put(accounts, &who, "override", "x", json!({ "actions": [action] })).await, Error::BadJson(_));
    }
    let bad = [
        json!(1),
        json!("event_match"),
        json!({}),
        json!({ "kind": 1 }),
        json!({ "kind": "event_match" }),
        json!({ "kind": "event_match", "key": "a" }),
        json!({ "kind": "event_match", "key": 1, "pattern": "x" }),
        json!({ "kind": "room_member_count", "is": "many" }),
        json!({ "kind": "event_property_is", "key": "a", "value": {} }),
    ];
    for condition in bad {
        let put = put(accounts, &who, "override", "x", json!({ "actions": [], "conditions": [condition] })).await;
        refused!(put, Error::BadJson(_));
    }
    let many: Vec<_> = (0..51).map(|_| json!("notify")).collect();
    refused!(put(accounts, &who, "override", "x", json!({ "actions": many })).await, Error::InvalidParam(_));
    refused!(accounts.enable_push_rule(&who, "override", "x", true).await, Error::NotFound(_));
    refused!(accounts.set_push_rule_actions(&who, "override", "x", &[]).await, Error::NotFound(_));
    assert!(ids(accounts, &who, "override").await.is_empty());
}

#[tokio::test]
async fn rules_are_not_without_number() {
    let server = Server::open().await;
    let (_, who, _) = server.user("alice").await;
    let snapshot = server.store.snapshot().await.unwrap();
    let (mut rules, _) = push_rules::get(&snapshot, who.user_no, &who.user).await.unwrap();
    for n in 0..1000 {
        let new = ruma_common::push::NewPatternedPushRule::new(format!("r{n}"), "x".into(), Vec::new());
        rules.insert(ruma_common::push::NewPushRule::Content(new), None, None).unwrap();
    }
    let mut tx = stoa_store::Tx::new();
    let slot = tx.slot();
    let json = push_rules::json(&rules).into();
    stoa_store::rows::account_data::put(&mut tx, slot, who.user_no, None, push_rules::TYPE, &json, None);
    server.store.commit(tx).await.unwrap();
    let accounts = &server.accounts;
    refused!(put(accounts, &who, "override", "x", json!({ "actions": [] })).await, Error::TooLarge(_));
    // Those that are there can still be changed.
    accounts.enable_push_rule(&who, "content", "r7", false).await.unwrap();
    accounts.delete_push_rule(&who, "content", "r7").await.unwrap();
    put(accounts, &who, "override", "x", json!({ "actions": [] })).await.unwrap();
}

/// CVE-2021-29471 was a pattern that took exponential time.
#[tokio::test]
#[allow(clippy::disallowed_methods)]
async fn the_worst_pattern_that_is_let_in_is_matched_quickly() {
    let server = Server::open().await;
    let (_, who, _) = server.user("alice").await;
    let accounts = &server.accounts;
    let body = "a".repeat(60_000);
    let event = json!({ "type": "m.room.message", "content": { "body": body, "x": body } }).to_string();
    let event = FlattenedJson::from_raw(&ruma_common::serde::Raw::<()>::from_json_string(event).unwrap());
    let bad = ["*a".repeat(255) + "*b", "?".repeat(511) + "b", "?*a".repeat(170) + "b", "a".repeat(511) + "b"];
    for (n, pattern) in bad.iter().enumerate() {
        let id = format!("r{n}");
        put(accounts, &who, "content", &id, json!({ "actions": [], "pattern": pattern })).await.unwrap();
        let condition = json!({ "kind": "event_match", "key": "content.x", "pattern": pattern });
        put(accounts, &who, "override", &id, json!({ "actions": [], "conditions": [condition] })).await.unwrap();
    }
    let rules = accounts.push_rules(&who).await.unwrap();
    let context = common::room_context(&who.user);
    for rule in rules.iter().filter(|rule| !rule.is_server_default()) {
        let begin = Instant::now();
        assert!(!rule.applies(&event, &context).await);
        assert!(begin.elapsed() < Duration::from_secs(5), "{} took {:?}", rule.rule_id(), begin.elapsed());
    }
    assert!(rules.get(RuleKind::Content, "r0").is_some());
}
