//! Client-Server API, "Presence": who is online, seen by those who share a room.

use std::time::Duration;

use stoa_kit::{Home, Reply, Sync, SyncOptions, User, Value, encode, json};

use crate::{home, own, strict, two};

fn path(user: &User) -> String {
    format!("/presence/{}/status", encode(&user.id))
}

async fn set(user: &User, presence: &str, status: &str) -> Reply {
    user.put(&path(user), json!({ "presence": presence, "status_msg": status })).await
}

/// What a sync says of somebody's presence.
fn told<'a>(sync: &'a Sync, user: &User) -> Option<&'a Value> {
    let events = sync.0["presence"]["events"].as_array()?;
    events
        .iter()
        .find(|event| event["sender"] == user.id && event["type"] == "m.presence")
        .map(|event| &event["content"])
}

#[tokio::test]
async fn presence_is_told_to_who_shares_a_room() {
    let (home, alice, bob, _room) = two().await;
    let carol = home.user("carol").await;
    let (hers, his) = (carol.sync().await, bob.sync().await);
    set(&alice, "unavailable", "at lunch").await.ok();
    let seen = bob.sync_until(Some(his.token()), |sync| told(sync, &alice).is_some()).await;
    let content = told(&seen, &alice).expect("presence");
    assert_eq!((&content["presence"], &content["status_msg"]), (&json!("unavailable"), &json!("at lunch")));
    assert!(content["last_active_ago"].as_u64().is_some_and(|ago| ago < 60_000), "{content}");
    let asked = bob.get(&path(&alice)).await.ok();
    assert_eq!((&asked["presence"], &asked["status_msg"]), (&json!("unavailable"), &json!("at lunch")));
    assert!(told(&bob.sync_since(seen.token()).await, &alice).is_none(), "told once");
    assert!(told(&bob.sync().await, &alice).is_some(), "and to who begins anew");

    assert!(told(&carol.sync_since(hers.token()).await, &alice).is_none(), "she shares no room with Alice");
    carol.get(&path(&alice)).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn who_waits_is_woken() {
    let (_home, alice, bob, _room) = two().await;
    alice.sync().await;
    let token = bob.sync().await.token().to_owned();
    // What both have done before is told first.
    let token = bob.sync_with(&SyncOptions::since(&token).wait(2000)).await.token().to_owned();
    let waits = {
        let bob = bob.clone();
        tokio::spawn(async move { bob.sync_until(Some(&token), |sync| !sync.0["presence"].is_null()).await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    set(&alice, "online", "back").await.ok();
    assert_eq!(told(&waits.await.expect("an answer"), &alice).expect("presence")["status_msg"], "back");
}

#[tokio::test]
async fn who_syncs_is_online_unless_saying_otherwise() {
    let (_home, alice, bob, _room) = two().await;
    alice.get("/sync?set_presence=offline").await.ok();
    assert_eq!(bob.get(&path(&alice)).await.ok()["presence"], "offline");
    alice.get("/sync?set_presence=unavailable").await.ok();
    assert_eq!(bob.get(&path(&alice)).await.ok()["presence"], "unavailable");
    alice.sync().await;
    let shown = bob.get(&path(&alice)).await.ok();
    assert_eq!((&shown["presence"], &shown["currently_active"]), (&json!("online"), &json!(true)));
    set(&alice, "offline", "").await.ok();
    assert_eq!(bob.get(&path(&alice)).await.ok()["presence"], "offline");
    if strict() {
        alice.get("/sync?set_presence=asleep").await.expect(400, "M_INVALID_PARAM");
    }
}

#[tokio::test]
async fn one_sets_ones_own_presence_to_what_there_is() {
    let (_home, alice, bob, _room) = two().await;
    bob.put(&path(&alice), json!({ "presence": "online" })).await.expect(403, "M_FORBIDDEN");
    set(&alice, "asleep", "").await.expect_any(&[400], &["M_INVALID_PARAM", "M_UNKNOWN", "M_BAD_JSON"]);
    alice.put(&path(&alice), json!({})).await.expect_any(&[400], &["M_BAD_JSON", "M_MISSING_PARAM"]);
    assert_eq!(alice.get(&path(&alice)).await.ok()["presence"].as_str().map(str::is_empty), Some(false));
    let nobody = alice.get("/presence/@nobody:example.org/status").await;
    nobody.expect_any(&[403, 404], &["M_FORBIDDEN", "M_NOT_FOUND"]);
}

#[tokio::test]
async fn a_filter_keeps_presence_away() {
    let (_home, alice, bob, _room) = two().await;
    set(&alice, "online", "here").await.ok();
    let without = SyncOptions::default().filter(json!({ "presence": { "not_types": ["m.presence"] } }));
    assert!(told(&bob.sync_with(&without).await, &alice).is_none());
    let others = SyncOptions::default().filter(json!({ "presence": { "senders": [bob.id] } }));
    assert!(told(&bob.sync_with(&others).await, &alice).is_none());
    assert!(told(&bob.sync().await, &alice).is_some());
}

#[tokio::test]
async fn presence_can_be_switched_off() {
    let Some(launch) = own() else { return };
    let home = Home::launch(launch.env("STOA_PRESENCE", "off")).await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    alice.room_with(&[&bob]).await;
    set(&alice, "online", "here").await.ok();
    assert_eq!(bob.get(&path(&alice)).await.ok()["presence"], "offline");
    assert!(bob.sync().await.0["presence"].is_null());
}

#[tokio::test]
async fn an_ignored_user_is_not_told_of() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    alice.room_with(&[&bob]).await;
    bob.set_account_data(None, "m.ignored_user_list", json!({ "ignored_users": { &alice.id: {} } })).await.ok();
    set(&alice, "online", "look at me").await.ok();
    if strict() {
        assert!(told(&bob.sync().await, &alice).is_none());
    }
}
