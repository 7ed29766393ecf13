//! Client-Server API, "Filtering": stored filters, and what a filter leaves out of `/sync`.

use stoa_kit::{SyncOptions, json};

use crate::home;

#[tokio::test]
async fn a_stored_filter_is_given_back() {
    let home = home().await;
    let alice = home.user("alice").await;
    let filter = json!({ "room": { "timeline": { "limit": 5, "not_senders": ["@spam:example.org"] } } });
    let id = alice.filter(filter.clone()).await;
    assert!(!id.starts_with('{'), "an ID cannot be mistaken for an inline filter");
    assert_eq!(alice.get(&format!("/user/{}/filter/{id}", alice.path_id())).await.ok(), filter);
}

#[tokio::test]
async fn filters_of_others_and_unknown_filters_are_refused() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let id = bob.filter(json!({})).await;
    alice.get(&format!("/user/{}/filter/{id}", bob.path_id())).await.expect(403, "M_FORBIDDEN");
    alice.post(&format!("/user/{}/filter", bob.path_id()), json!({})).await.expect(403, "M_FORBIDDEN");
    alice.get(&format!("/user/{}/filter/987654", alice.path_id())).await.expect(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn malformed_filters_are_refused() {
    let home = home().await;
    let alice = home.user("alice").await;
    let path = format!("/user/{}/filter", alice.path_id());
    for wrong in [
        json!({ "room": "all" }),
        json!({ "room": { "timeline": { "limit": "ten" } } }),
        json!({ "room": { "timeline": { "types": "m.room.message" } } }),
        json!({ "room": { "rooms": [7] } }),
    ] {
        crate::refused(&alice.post(&path, wrong).await);
    }
}

#[tokio::test]
async fn the_timeline_is_limited_as_the_filter_says() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.texts(&room, (0..5).map(|n| n.to_string())).await;
    let id = alice.filter(json!({ "room": { "timeline": { "limit": 2 } } })).await;
    let sync = alice.sync_with(&SyncOptions { filter_id: Some(id), ..SyncOptions::default() }).await;
    assert_eq!(sync.bodies(&room), ["3", "4"]);
    assert_eq!(sync.joined(&room)["timeline"]["limited"], true);
    assert!(sync.joined(&room)["timeline"]["prev_batch"].is_string());
}

#[tokio::test]
async fn types_can_be_asked_for_and_left_out() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({ "name": "A room" })).await;
    alice.text(&room, "words").await;
    alice.send(&room, "org.example.thing", json!({})).await.ok();

    let only = json!({ "room": { "timeline": { "types": ["org.example.*"] } } });
    let sync = alice.sync_with(&SyncOptions::default().filter(only)).await;
    let types: Vec<_> = sync.timeline(&room).iter().map(|event| event["type"].clone()).collect();
    assert_eq!(types, ["org.example.thing"]);

    let not = json!({ "room": { "timeline": { "not_types": ["m.*"] } } });
    let sync = alice.sync_with(&SyncOptions::default().filter(not)).await;
    assert!(sync.timeline(&room).iter().all(|event| event["type"] == "org.example.thing"));

    let state = json!({ "room": { "timeline": { "limit": 1 }, "state": { "types": ["m.room.name"] } } });
    let sync = alice.sync_with(&SyncOptions::default().filter(state)).await;
    let types: Vec<_> = sync.state(&room).iter().map(|event| event["type"].clone()).collect();
    assert_eq!(types, ["m.room.name"]);
}

#[tokio::test]
async fn senders_can_be_left_out() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    alice.text(&room, "from alice").await;
    bob.text(&room, "from bob").await;
    let not = json!({ "room": { "timeline": { "not_senders": [bob.id], "types": ["m.room.message"] } } });
    let sync = alice.sync_with(&SyncOptions::default().filter(not)).await;
    assert_eq!(sync.bodies(&room), ["from alice"]);
}

#[tokio::test]
async fn rooms_can_be_asked_for_and_left_out() {
    let home = home().await;
    let alice = home.user("alice").await;
    let (one, two) = (alice.create_room(json!({})).await, alice.create_room(json!({})).await);
    let sync = alice.sync_with(&SyncOptions::default().filter(json!({ "room": { "rooms": [one] } }))).await;
    assert!(!sync.joined(&one).is_null() && sync.joined(&two).is_null());
    let sync = alice.sync_with(&SyncOptions::default().filter(json!({ "room": { "not_rooms": [one] } }))).await;
    // Synapse passes over `not_rooms` in an initial sync.
    assert!((sync.joined(&one).is_null() || !crate::strict()) && !sync.joined(&two).is_null());
}

#[tokio::test]
async fn a_filter_that_is_no_filter_is_refused() {
    let home = home().await;
    let alice = home.user("alice").await;
    for wrong in ["{", "{\"room\":3}"] {
        let reply = alice.get(&format!("/sync?filter={}", stoa_kit::encode(wrong))).await;
        assert_eq!(reply.status, 400, "{reply:?}");
    }
}

#[tokio::test]
async fn a_left_room_is_in_an_initial_sync_only_if_asked_for() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.leave(&room).await.ok();
    assert!(alice.sync().await.left(&room).is_null());
    let with = json!({ "room": { "include_leave": true } });
    assert!(!alice.sync_with(&SyncOptions::default().filter(with)).await.left(&room).is_null());
}
