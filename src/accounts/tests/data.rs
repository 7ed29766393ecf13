//! Profiles, account data, tags and filters.

mod common;

use bytes::Bytes;
use common::{Server, user_id};
use serde_json::{Value, json};
use stoa_accounts::{Error, ShortProfile};
use stoa_event::ids::RoomId;
use stoa_store::{
    Fact, Heard, Position,
    rows::account_data::{Changed, since},
};

const ROOM: &str = "!room:stoa.test";

fn room() -> &'static RoomId {
    ROOM.try_into().unwrap()
}

fn bytes(value: Value) -> Bytes {
    value.to_string().into()
}

#[tokio::test]
async fn profiles_are_set_field_by_field() {
    let server = Server::open().await;
    let (alice, who, _) = server.user("alice").await;
    let accounts = &server.accounts;
    let set = |key: &'static str, value: Value| {
        let (alice, who) = (&alice, &who);
        async move { accounts.set_profile_field(who, alice, key, Some(&value)).await }
    };
    assert!(set("displayname", json!("Alice 🎨")).await.unwrap());
    // The same again changes nothing, so rooms need not be told.
    assert!(!set("displayname", json!("Alice 🎨")).await.unwrap());
    assert!(set("avatar_url", json!("mxc://stoa.test/abc")).await.unwrap());
    assert!(!set("m.tz", json!("Europe/Vienna")).await.unwrap());
    assert!(!set("org.example.thing", json!({ "a": [1, null] })).await.unwrap());
    assert!(!set("org.example.nothing", json!(null)).await.unwrap());
    let whole = accounts.profile(&alice).await.unwrap();
    assert_eq!(whole.len(), 5);
    assert_eq!(accounts.profile_field(&alice, "org.example.thing").await.unwrap(), json!({ "a": [1, null] }));
    assert_eq!(accounts.profile_field(&alice, "org.example.nothing").await.unwrap(), Value::Null);
    let short = accounts.short_profile(&alice).await.unwrap();
    assert_eq!(short.displayname.as_deref(), Some("Alice 🎨"));
    assert_eq!(short.avatar_url.unwrap().as_str(), "mxc://stoa.test/abc");
    // Taken away, as the endpoint has it and as old clients do.
    assert!(accounts.set_profile_field(&who, &alice, "displayname", None).await.unwrap());
    assert!(!accounts.set_profile_field(&who, &alice, "displayname", None).await.unwrap());
    assert!(set("avatar_url", json!("")).await.unwrap());
    assert_eq!(accounts.short_profile(&alice).await.unwrap(), ShortProfile::default());
    refused!(accounts.profile_field(&alice, "displayname").await, Error::NotFound(_));
    refused!(accounts.profile(user_id("@nobody:stoa.test")).await, Error::NotFound(_));
    refused!(accounts.profile(user_id("@alice:elsewhere.test")).await, Error::NotFound(_));
}

#[tokio::test]
async fn profiles_refuse_what_cannot_be() {
    let server = Server::open().await;
    let (alice, who, _) = server.user("alice").await;
    let (bob, _, _) = server.user("bob").await;
    let accounts = &server.accounts;
    let before = accounts.profile(&alice).await.unwrap();
    refused!(accounts.set_profile_field(&who, &bob, "displayname", Some(&json!("x"))).await, Error::Forbidden(_));
    refused!(accounts.set_profile_field(&who, &bob, "displayname", None).await, Error::Forbidden(_));
    for value in [json!(null), json!(1), json!(["x"]), json!({})] {
        for key in ["displayname", "avatar_url", "m.tz"] {
            refused!(accounts.set_profile_field(&who, &alice, key, Some(&value)).await, Error::BadJson(_));
        }
    }
    for url in ["https://stoa.test/x.png", "mxc://", "mxc://stoa.test", "javascript:alert(1)"] {
        let set = accounts.set_profile_field(&who, &alice, "avatar_url", Some(&json!(url))).await;
        refused!(set, Error::InvalidParam(_));
    }
    let long = json!("x".repeat(257));
    refused!(accounts.set_profile_field(&who, &alice, "displayname", Some(&long)).await, Error::InvalidParam(_));
    for key in ["", "A.b", "a b", "1a", ".a", "ä.b", "a/b", "a\0"] {
        refused!(accounts.set_profile_field(&who, &alice, key, Some(&json!(1))).await, Error::InvalidParam(_));
    }
    let key = "a".repeat(256);
    refused!(accounts.set_profile_field(&who, &alice, &key, Some(&json!(1))).await, Error::KeyTooLarge);
    assert_eq!(accounts.profile(&alice).await.unwrap(), before);
    // 64 KiB for all together.
    let half = json!("x".repeat(32 * 1024));
    accounts.set_profile_field(&who, &alice, "org.a", Some(&half)).await.unwrap();
    refused!(accounts.set_profile_field(&who, &alice, "org.b", Some(&half)).await, Error::ProfileTooLarge);
    // What is there can be made smaller.
    accounts.set_profile_field(&who, &alice, "org.a", Some(&json!("small"))).await.unwrap();
    accounts.set_profile_field(&who, &alice, "org.b", Some(&half)).await.unwrap();
}

#[tokio::test]
async fn account_data_is_kept_and_its_changes_are_found() {
    let server = Server::open().await;
    let (alice, who, _) = server.user("alice").await;
    server.room(&who, ROOM).await;
    let accounts = &server.accounts;
    let mut feed = server.store.feed();
    let one = bytes(json!({ "a": 1.5 }));
    accounts.set_account_data(&who, &alice, None, "m.direct", &one).await.unwrap();
    let Heard::Commit(commit) = feed.next().await else { panic!("nothing heard") };
    assert_eq!(commit.facts, [Fact::User { user: who.user_no, at: commit.last }]);
    assert_eq!(accounts.account_data(&who, &alice, None, "m.direct").await.unwrap(), one);
    // The bytes stay as they are, and the same again is no news.
    accounts.set_account_data(&who, &alice, None, "m.direct", &one).await.unwrap();
    assert_eq!(server.store.snapshot().await.unwrap().position(), commit.last);
    let two = bytes(json!({ "b": 2 }));
    accounts.set_account_data(&who, &alice, Some(room()), "m.direct", &two).await.unwrap();
    assert_eq!(accounts.account_data(&who, &alice, Some(room()), "m.direct").await.unwrap(), two);
    assert_eq!(accounts.account_data(&who, &alice, None, "m.direct").await.unwrap(), one);
    let three = bytes(json!({ "c": 3 }));
    accounts.set_account_data(&who, &alice, None, "m.direct", &three).await.unwrap();

    let snapshot = server.store.snapshot().await.unwrap();
    let names = |changed: Vec<Changed>| {
        changed.into_iter().map(|one| (one.room.is_some(), one.kind, one.json)).collect::<Vec<_>>()
    };
    let all = since(&snapshot, who.user_no, &alice, Position::MIN).await.unwrap();
    assert_eq!(all[0].kind, "m.push_rules");
    let all = names(all);
    assert_eq!(all[1..], [(true, "m.direct".into(), two.to_vec()), (false, "m.direct".into(), three.to_vec())]);
    let news = since(&snapshot, who.user_no, &alice, commit.last).await.unwrap();
    assert_eq!(names(news), all[1..]);
    assert!(since(&snapshot, who.user_no, &alice, snapshot.position()).await.unwrap().is_empty());
    // Nobody else sees it.
    let (bob, bobs, _) = server.user("bob").await;
    let snapshot = server.store.snapshot().await.unwrap();
    assert_eq!(since(&snapshot, bobs.user_no, &bob, Position::MIN).await.unwrap().len(), 1);
}

#[tokio::test]
async fn account_data_refuses_what_cannot_be() {
    let server = Server::open().await;
    let (alice, who, _) = server.user("alice").await;
    let (_, bob, _) = server.user("bob").await;
    server.room(&who, ROOM).await;
    let accounts = &server.accounts;
    let json = bytes(json!({}));
    refused!(accounts.set_account_data(&bob, &alice, None, "x", &json).await, Error::Forbidden(_));
    refused!(accounts.account_data(&bob, &alice, None, "x").await, Error::Forbidden(_));
    refused!(accounts.set_account_data(&bob, &alice, Some(room()), "x", &json).await, Error::Forbidden(_));
    refused!(accounts.account_data(&bob, &alice, Some(room()), "x").await, Error::Forbidden(_));
    for kind in ["m.fully_read", "m.push_rules"] {
        refused!(accounts.set_account_data(&who, &alice, None, kind, &json).await, Error::ManagedElsewhere(_));
        refused!(accounts.set_account_data(&who, &alice, Some(room()), kind, &json).await, Error::ManagedElsewhere(_));
    }
    let long = "x".repeat(256);
    refused!(accounts.set_account_data(&who, &alice, None, &long, &json).await, Error::InvalidParam(_));
    refused!(accounts.account_data(&who, &alice, None, "x").await, Error::NotFound(_));
    refused!(accounts.account_data(&who, &alice, Some(room()), "x").await, Error::NotFound(_));
    let bobs = bob.user.clone();
    refused!(accounts.set_account_data(&bob, &bobs, Some(room()), "x", &json).await, Error::NotFound(_));
    let nowhere: &RoomId = "!nowhere:stoa.test".try_into().unwrap();
    refused!(accounts.set_account_data(&who, &alice, Some(nowhere), "x", &json).await, Error::NotFound(_));
    refused!(accounts.account_data(&who, &alice, Some(nowhere), "x").await, Error::NotFound(_));
}

#[tokio::test]
async fn tags_are_account_data() {
    let server = Server::open().await;
    let (alice, who, _) = server.user("alice").await;
    let (_, bob, _) = server.user("bob").await;
    server.room(&who, ROOM).await;
    let accounts = &server.accounts;
    let tag = |value: Value| Some(value.as_object().unwrap().clone());
    assert!(accounts.tags(&who, &alice, room()).await.unwrap().is_empty());
    accounts.set_tag(&who, &alice, room(), "m.favourite", tag(json!({ "order": 0.25 }))).await.unwrap();
    accounts.set_tag(&who, &alice, room(), "u.work", tag(json!({}))).await.unwrap();
    let stored = accounts.account_data(&who, &alice, Some(room()), "m.tag").await.unwrap();
    let stored: Value = serde_json::from_slice(&stored).unwrap();
    assert_eq!(stored, json!({ "tags": { "m.favourite": { "order": 0.25 }, "u.work": {} } }));
    accounts.set_tag(&who, &alice, room(), "m.favourite", None).await.unwrap();
    accounts.set_tag(&who, &alice, room(), "never", None).await.unwrap();
    let tags = accounts.tags(&who, &alice, room()).await.unwrap();
    assert_eq!(Value::Object(tags), json!({ "u.work": {} }));
    let bad = accounts.set_tag(&who, &alice, room(), "x", tag(json!({ "order": "first" }))).await;
    refused!(bad, Error::BadJson(_));
    refused!(accounts.set_tag(&who, &alice, room(), &"x".repeat(256), None).await, Error::InvalidParam(_));
    refused!(accounts.set_tag(&bob, &alice, room(), "x", None).await, Error::Forbidden(_));
    refused!(accounts.tags(&bob, &alice, room()).await, Error::Forbidden(_));
    refused!(accounts.tags(&bob, &bob.user, room()).await, Error::NotFound(_));
    // Whatever a client wrote itself does no harm.
    accounts.set_account_data(&who, &alice, Some(room()), "m.tag", &"{\"tags\":7}".into()).await.unwrap();
    assert!(accounts.tags(&who, &alice, room()).await.unwrap().is_empty());
}

#[tokio::test]
async fn filters_are_stored_once() {
    let server = Server::open().await;
    let (alice, who, _) = server.user("alice").await;
    let (_, bob, _) = server.user("bob").await;
    let accounts = &server.accounts;
    let one = bytes(json!({ "room": { "timeline": { "limit": 10, "types": ["m.*"] }, "include_leave": true } }));
    let two = bytes(json!({ "event_fields": ["content.body"], "event_format": "federation", "other": [1] }));
    assert_eq!(accounts.add_filter(&who, &alice, &one).await.unwrap(), "0");
    assert_eq!(accounts.add_filter(&who, &alice, &two).await.unwrap(), "1");
    assert_eq!(accounts.add_filter(&who, &alice, &one).await.unwrap(), "0");
    assert_eq!(accounts.filter(&who, &alice, "1").await.unwrap(), two);
    for unknown in ["2", "", "x", "01", "+1", "-1", "4294967296", "1 "] {
        refused!(accounts.filter(&who, &alice, unknown).await, Error::NotFound(_));
    }
    refused!(accounts.add_filter(&bob, &alice, &one).await, Error::Forbidden(_));
    refused!(accounts.filter(&bob, &alice, "0").await, Error::Forbidden(_));
    refused!(accounts.filter(&bob, &bob.user, "0").await, Error::NotFound(_));
    assert_eq!(accounts.add_filter(&who, &alice, &bytes(json!({}))).await.unwrap(), "2");
}

#[test]
fn filters_have_a_shape() {
    let bad = [
        json!({ "presence": "not an object" }),
        json!({ "event_fields": "content" }),
        json!({ "event_fields": [1] }),
        json!({ "event_format": "xml" }),
        json!({ "room": [] }),
        json!({ "room": { "timeline": { "limit": -1 } } }),
        json!({ "room": { "timeline": { "limit": 1.5 } } }),
        json!({ "room": { "timeline": { "limit": "10" } } }),
        json!({ "room": { "timeline": { "senders": ["alice"] } } }),
        json!({ "room": { "rooms": ["room"] } }),
        json!({ "room": { "state": { "not_rooms": [{}] } } }),
        json!({ "room": { "state": { "lazy_load_members": 1 } } }),
        json!({ "account_data": { "types": "m.*" } }),
    ];
    for filter in bad {
        refused!(stoa_accounts::filters::check(filter.to_string().as_bytes()), Error::BadJson(_));
    }
    let long = format!("{{\"x\":\"{}\"}}", "x".repeat(70_000));
    refused!(stoa_accounts::filters::check(long.as_bytes()), Error::TooLarge(_));
}
