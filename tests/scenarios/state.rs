//! Client-Server API, "Getting events for a room" and state events; who may set them.

use stoa_kit::{Value, encode, json};

use crate::home;

#[tokio::test]
async fn state_is_read_as_it_was_written() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let content = json!({ "deep": { "list": [true, null, "x"] } });
    let id = alice.set_state(&room, "org.example.thing", "a key/with ü", content.clone()).await.event_id();
    assert_eq!(bob.state(&room, "org.example.thing", "a key/with ü").await.ok(), content);
    let event = bob.event(&room, &id).await.ok();
    assert_eq!((&event["state_key"], &event["content"]), (&json!("a key/with ü"), &content));
}

#[tokio::test]
async fn the_empty_key_needs_no_slash() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    for (path, topic) in [("m.room.topic", "one"), ("m.room.topic/", "two")] {
        let path = format!("/rooms/{room}/state/{path}");
        alice.put(&path, json!({ "topic": topic })).await.ok();
        assert_eq!(alice.get(&path).await.ok()["topic"], topic);
        assert_eq!(alice.state(&room, "m.room.topic", "").await.ok()["topic"], topic);
    }
}

#[tokio::test]
async fn each_key_has_its_own_state() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    for key in ["", "a", "A", "ä"] {
        alice.set_state(&room, "org.example.thing", key, json!({ "key": key })).await.ok();
    }
    for key in ["", "a", "A", "ä"] {
        assert_eq!(alice.state(&room, "org.example.thing", key).await.ok()["key"], key);
    }
}

#[tokio::test]
async fn state_that_is_not_there_is_not_found() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.state(&room, "m.room.topic", "").await.expect(404, "M_NOT_FOUND");
    alice.state(&room, "m.room.create", "other").await.expect(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn the_whole_event_can_be_asked_for() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({ "name": "Stoa" })).await;
    let event = alice.get(&format!("/rooms/{room}/state/m.room.name/?format=event")).await.ok();
    assert_eq!(event["content"]["name"], "Stoa");
    assert_eq!(event["sender"], alice.id);
    assert_eq!(event["type"], "m.room.name");
    assert!(event["event_id"].is_string());
}

#[tokio::test]
async fn what_a_change_replaced_is_told() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({ "name": "Old" })).await;
    let token = alice.sync().await.token().to_owned();
    alice.set_state(&room, "m.room.name", "", json!({ "name": "New" })).await.ok();
    let sync = alice.sync_since(&token).await;
    let event = sync.timeline(&room)[0];
    assert_eq!(event["content"]["name"], "New");
    assert_eq!(event["unsigned"]["prev_content"]["name"], "Old");
}

#[tokio::test]
async fn who_is_not_in_the_room_sees_no_state() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({ "name": "Secret" })).await;
    bob.state(&room, "m.room.name", "").await.expect(403, "M_FORBIDDEN");
    bob.get(&format!("/rooms/{room}/state")).await.expect(403, "M_FORBIDDEN");
    bob.get(&format!("/rooms/{room}/members")).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn who_left_sees_the_state_of_then() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    alice.set_state(&room, "m.room.name", "", json!({ "name": "Then" })).await.ok();
    bob.leave(&room).await.ok();
    alice.set_state(&room, "m.room.name", "", json!({ "name": "Now" })).await.ok();
    assert_eq!(bob.state(&room, "m.room.name", "").await.ok()["name"], "Then");
    let all = bob.all_state(&room).await;
    let name = all.iter().find(|event| event["type"] == "m.room.name").expect("a name");
    assert_eq!(name["content"]["name"], "Then");
    let own = all.iter().find(|event| event["state_key"] == bob.id).expect("a membership");
    assert_eq!(own["content"]["membership"], "leave");
}

#[tokio::test]
async fn members_without_power_set_no_state() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    bob.set_state(&room, "m.room.name", "", json!({ "name": "Mine" })).await.expect(403, "M_FORBIDDEN");
    bob.set_state(&room, "m.room.power_levels", "", json!({ "users": { &bob.id: 100 } }))
        .await
        .expect(403, "M_FORBIDDEN");
    alice.state(&room, "m.room.name", "").await.expect(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_key_that_is_a_user_belongs_to_that_user() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    alice.change_power(&room, |levels| levels["state_default"] = json!(0)).await;
    bob.set_state(&room, "org.example.mood", &bob.id, json!({ "mood": "fine" })).await.ok();
    bob.set_state(&room, "org.example.mood", &alice.id, json!({ "mood": "sad" })).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn nobody_gives_more_power_than_they_have() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.room_with(&[&bob, &carol]).await;
    alice
        .change_power(&room, |levels| {
            levels["users"] = json!({ &bob.id: 50 });
            levels["events"]["m.room.power_levels"] = json!(50);
        })
        .await;
    let mut levels = bob.state(&room, "m.room.power_levels", "").await.ok();
    levels["users"][&carol.id] = json!(51);
    bob.set_state(&room, "m.room.power_levels", "", levels.clone()).await.expect(403, "M_FORBIDDEN");
    levels["users"][&carol.id] = json!(50);
    bob.set_state(&room, "m.room.power_levels", "", levels).await.ok();
}

#[tokio::test]
async fn power_levels_are_integers() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let before = alice.state(&room, "m.room.power_levels", "").await.ok();
    for wrong in [json!("50"), json!(50.5), json!([50]), Value::Null] {
        let mut levels = before.clone();
        levels["users_default"] = wrong;
        let reply = alice.set_state(&room, "m.room.power_levels", "", levels).await;
        crate::refused(&reply);
    }
    assert_eq!(alice.state(&room, "m.room.power_levels", "").await.ok(), before);
}

#[tokio::test]
async fn a_room_is_created_once() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let create = alice.state(&room, "m.room.create", "").await.ok();
    let reply = alice.set_state(&room, "m.room.create", "", json!({ "room_version": "12", "again": true })).await;
    assert!(reply.status == 403 || reply.status == 400, "{reply:?}");
    assert_eq!(alice.state(&room, "m.room.create", "").await.ok(), create);
}

#[tokio::test]
async fn setting_the_same_again_is_no_new_event() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let one = alice.set_state(&room, "m.room.topic", "", json!({ "topic": "same" })).await.event_id();
    let two = alice.set_state(&room, "m.room.topic", "", json!({ "topic": "same" })).await.event_id();
    assert_eq!(one, two);
}

#[tokio::test]
async fn state_lists_every_entry_once() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    for n in 0..70 {
        alice.set_state(&room, "org.example.thing", &format!("k{}", n % 35), json!({ "n": n })).await.ok();
    }
    let all = alice.all_state(&room).await;
    let things: Vec<&Value> = all.iter().filter(|event| event["type"] == "org.example.thing").collect();
    assert_eq!(things.len(), 35);
    assert!(things.iter().all(|event| event["content"]["n"].as_u64().is_some_and(|n| n >= 35)));
    let path = format!("/rooms/{}/state/{}/{}", encode(&room), "org.example.thing", "k3");
    assert_eq!(alice.get(&path).await.ok(), json!({ "n": 38 }));
}
