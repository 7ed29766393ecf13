//! Client-Server API, "Lazy-loading room members".

use stoa_kit::{Sync, SyncOptions, User, Value, encode, json};

use crate::home;

fn lazy(limit: usize, redundant: bool) -> Value {
    json!({
        "room": {
            "state": { "lazy_load_members": true, "include_redundant_members": redundant },
            "timeline": { "limit": limit },
        },
    })
}

fn members(sync: &Sync, room: &str) -> Vec<String> {
    let state = sync.state(room).into_iter().filter(|event| event["type"] == "m.room.member");
    let mut ids: Vec<String> = state.filter_map(|event| event["state_key"].as_str().map(str::to_owned)).collect();
    ids.sort();
    ids
}

fn sorted(users: &[&User]) -> Vec<String> {
    let mut ids: Vec<String> = users.iter().map(|user| user.id.clone()).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn only_those_who_speak_are_told_and_oneself() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.room_with(&[&bob, &carol]).await;
    alice.set_state(&room, "m.room.name", "", json!({ "name": "A room with a name has no heroes" })).await.ok();
    bob.text(&room, "hello").await;
    let sync = alice.sync_with(&SyncOptions::default().filter(lazy(1, false))).await;
    assert_eq!(members(&sync, &room), sorted(&[&alice, &bob]));
    let types: Vec<&str> = sync.state(&room).iter().filter_map(|event| event["type"].as_str()).collect();
    assert!(types.contains(&"m.room.create") && types.contains(&"m.room.power_levels"));
}

#[tokio::test]
async fn who_speaks_later_is_told_then() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.room_with(&[&bob, &carol]).await;
    alice.set_state(&room, "m.room.name", "", json!({ "name": "A room with a name has no heroes" })).await.ok();
    bob.text(&room, "hello").await;
    let filter = lazy(1, false);
    let first = alice.sync_with(&SyncOptions::default().filter(filter.clone())).await;
    carol.text(&room, "hello").await;
    let next = alice.sync_with(&SyncOptions::since(first.token()).filter(filter)).await;
    assert_eq!(members(&next, &room), sorted(&[&carol]));
}

#[tokio::test]
async fn redundant_members_can_be_asked_for() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    bob.text(&room, "one").await;
    let filter = lazy(1, true);
    let first = alice.sync_with(&SyncOptions::default().filter(filter.clone())).await;
    bob.text(&room, "two").await;
    let next = alice.sync_with(&SyncOptions::since(first.token()).filter(filter)).await;
    assert!(members(&next, &room).contains(&bob.id));
}

#[tokio::test]
async fn a_membership_that_changes_is_always_told() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.room_with(&[&bob, &carol]).await;
    let filter = lazy(10, false);
    let token = alice.sync_with(&SyncOptions::default().filter(filter.clone())).await.token().to_owned();
    carol.leave(&room).await.ok();
    let next = alice.sync_with(&SyncOptions::since(&token).filter(filter)).await;
    assert!(next.timeline(&room).iter().any(|event| event["state_key"] == carol.id));
}

#[tokio::test]
async fn the_whole_list_can_be_had_as_of_the_sync() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.room_with(&[&bob, &carol]).await;
    let sync = alice.sync_with(&SyncOptions::default().filter(lazy(1, false))).await;
    let reply = alice.get(&format!("/rooms/{room}/members?at={}", encode(sync.token()))).await.ok();
    assert_eq!(reply["chunk"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn messages_and_context_bring_the_members_of_their_events() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.room_with(&[&bob, &carol]).await;
    let id = bob.text(&room, "hello").await;
    let filter = encode(&json!({ "lazy_load_members": true }).to_string());
    let page = alice.messages(&room, &format!("dir=b&limit=1&filter={filter}")).await.ok();
    let keys = |list: &Value| -> Vec<String> {
        let events = list.as_array().expect("state").iter().filter(|event| event["type"] == "m.room.member");
        events.filter_map(|event| event["state_key"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(keys(&page["state"]), sorted(&[&bob]));
    let path = format!("/rooms/{room}/context/{}?limit=0&filter={filter}", encode(&id));
    let context = alice.get(&path).await.ok();
    assert_eq!(keys(&context["state"]), sorted(&[&bob]));
}

#[tokio::test]
async fn heroes_are_told_even_if_they_are_silent() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.room_with(&[&bob, &carol]).await;
    alice.text(&room, "alone").await;
    let sync = alice.sync_with(&SyncOptions::default().filter(lazy(1, false))).await;
    let heroes = sync.joined(&room)["summary"]["m.heroes"].as_array().cloned().unwrap_or_default();
    assert_eq!(heroes.len(), 2, "{sync:?}");
    for hero in heroes.iter().filter_map(Value::as_str) {
        assert!(members(&sync, &room).contains(&hero.to_owned()), "a room without a name is named after {hero}");
    }
}
