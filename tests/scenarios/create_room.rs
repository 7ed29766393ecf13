//! Client-Server API, "Creation" of rooms, and what room version 12 makes of creators.

use stoa_kit::{User, Value, json, unique};

use crate::home;

async fn content(user: &User, room: &str, kind: &str) -> Value {
    user.state(room, kind, "").await.ok()
}

#[tokio::test]
async fn presets_decide_who_may_come_in_and_what_they_see() {
    let home = home().await;
    let alice = home.user("alice").await;
    for (preset, rule, guests) in [
        ("private_chat", "invite", "can_join"),
        ("trusted_private_chat", "invite", "can_join"),
        ("public_chat", "public", "forbidden"),
    ] {
        let room = alice.create_room(json!({ "preset": preset })).await;
        assert_eq!(content(&alice, &room, "m.room.join_rules").await["join_rule"], rule, "{preset}");
        assert_eq!(content(&alice, &room, "m.room.history_visibility").await["history_visibility"], "shared");
        let guest = alice.state(&room, "m.room.guest_access", "").await;
        let found = if guest.status == 200 { guest.ok()["guest_access"].clone() } else { json!("forbidden") };
        assert_eq!(found, guests, "{preset}");
    }
}

#[tokio::test]
async fn visibility_chooses_the_preset_if_none_is_given() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({ "visibility": "public" })).await;
    assert_eq!(content(&alice, &room, "m.room.join_rules").await["join_rule"], "public");
    assert_eq!(alice.get(&format!("/directory/list/room/{room}")).await.ok()["visibility"], "public");
    let room = alice.create_room(json!({})).await;
    assert_eq!(content(&alice, &room, "m.room.join_rules").await["join_rule"], "invite");
    assert_eq!(alice.get(&format!("/directory/list/room/{room}")).await.ok()["visibility"], "private");
}

#[tokio::test]
async fn a_new_room_is_of_version_12_and_named_after_its_create_event() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let create =
        alice.all_state(&room).await.into_iter().find(|event| event["type"] == "m.room.create").expect("create");
    assert_eq!(create["content"]["room_version"], "12");
    let event_id = create["event_id"].as_str().expect("event_id");
    assert_eq!(room[1..], event_id[1..], "the room ID is the event ID with another sigil");
    assert!(create["content"].get("creator").is_none());
}

#[tokio::test]
async fn the_creator_stands_above_every_power_level() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let levels = content(&alice, &room, "m.room.power_levels").await;
    assert!(levels["users"].get(&alice.id).is_none(), "a creator of version 12 has no entry: {levels}");
    assert_eq!(levels["events"]["m.room.tombstone"], 150);
    // Even after everything was raised out of everybody's reach.
    alice.change_power(&room, |levels| levels["state_default"] = json!(1_000_000)).await;
    alice.set_state(&room, "m.room.topic", "", json!({ "topic": "still here" })).await.ok();
}

#[tokio::test]
async fn trusted_guests_of_a_private_chat_are_creators_too() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({ "preset": "trusted_private_chat", "invite": [bob.id] })).await;
    assert_eq!(content(&alice, &room, "m.room.create").await["additional_creators"], json!([bob.id]));
}

#[tokio::test]
async fn older_versions_can_be_asked_for() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    for version in ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"] {
        let room = alice.create_room(json!({ "room_version": version, "preset": "public_chat" })).await;
        assert!(room.contains(':'), "{room}");
        assert_eq!(content(&alice, &room, "m.room.create").await["room_version"], version);
        assert_eq!(content(&alice, &room, "m.room.power_levels").await["users"][&alice.id], 100);
        bob.join(&room).await.ok();
        let event = bob.text(&room, "hello").await;
        alice.redact(&room, &event).await.ok();
    }
}

#[tokio::test]
async fn unknown_versions_are_refused() {
    let home = home().await;
    let alice = home.user("alice").await;
    let reply = alice.post("/createRoom", json!({ "room_version": "org.example.nope" })).await;
    reply.expect(400, "M_UNSUPPORTED_ROOM_VERSION");
}

#[tokio::test]
async fn name_topic_and_initial_state_are_set() {
    let home = home().await;
    let alice = home.user("alice").await;
    let options = json!({
        "name": "The Stoa",
        "topic": "Painted porch",
        "initial_state": [
            { "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } },
            { "type": "org.example.thing", "state_key": "key", "content": { "a": 1 } },
            { "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": "joined" } },
        ],
    });
    let room = alice.create_room(options).await;
    assert_eq!(content(&alice, &room, "m.room.name").await["name"], "The Stoa");
    assert_eq!(content(&alice, &room, "m.room.topic").await["topic"], "Painted porch");
    assert_eq!(content(&alice, &room, "m.room.encryption").await["algorithm"], "m.megolm.v1.aes-sha2");
    assert_eq!(alice.state(&room, "org.example.thing", "key").await.ok(), json!({ "a": 1 }));
    assert_eq!(content(&alice, &room, "m.room.history_visibility").await["history_visibility"], "joined");
}

#[tokio::test]
async fn the_events_of_a_new_room_come_in_the_order_of_the_specification() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let options = json!({
        "name": "Name",
        "topic": "Topic",
        "preset": "private_chat",
        "invite": [bob.id],
        "initial_state": [{ "type": "org.example.thing", "content": {} }],
    });
    let room = alice.create_room(options).await;
    let mut history = alice.whole_history(&room).await;
    history.reverse();
    let types: Vec<&str> = history.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(types[..3], ["m.room.create", "m.room.member", "m.room.power_levels"]);
    let at =
        |kind: &str| types.iter().position(|found| *found == kind).unwrap_or_else(|| panic!("{kind} in {types:?}"));
    for preset in ["m.room.join_rules", "m.room.history_visibility", "m.room.guest_access"] {
        assert!(at(preset) < at("org.example.thing"), "{types:?}");
    }
    assert!(at("org.example.thing") < at("m.room.name") && at("m.room.name") < at("m.room.topic"), "{types:?}");
    assert_eq!(types.last(), Some(&"m.room.member"));
}

#[tokio::test]
async fn power_levels_can_be_overridden() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let options = json!({
        "preset": "public_chat",
        "power_level_content_override": { "events_default": 10, "users": { &bob.id: 50 } },
    });
    let room = alice.create_room(options).await;
    let levels = content(&alice, &room, "m.room.power_levels").await;
    assert_eq!(levels["events_default"], 10);
    assert_eq!(levels["users"][&bob.id], 50);
    assert_eq!(levels["ban"], 50);
}

#[tokio::test]
async fn a_creator_cannot_be_given_a_power_level() {
    let home = home().await;
    let alice = home.user("alice").await;
    let options = json!({ "power_level_content_override": { "users": { &alice.id: 100 } } });
    let reply = alice.post("/createRoom", options).await;
    assert!(reply.status == 400 || reply.status == 403, "{reply:?}");
}

#[tokio::test]
async fn creation_content_is_kept_but_not_what_the_server_decides() {
    let home = home().await;
    let alice = home.user("alice").await;
    let options = json!({ "creation_content": { "type": "m.space", "m.federate": false, "room_version": "1" } });
    let room = alice.create_room(options).await;
    let create = content(&alice, &room, "m.room.create").await;
    assert_eq!(create["type"], "m.space");
    assert_eq!(create["m.federate"], false);
    assert_eq!(create["room_version"], "12");
}

#[tokio::test]
async fn an_alias_name_becomes_an_alias_once() {
    let home = home().await;
    let alice = home.user("alice").await;
    let name = unique();
    let room = alice.create_room(json!({ "room_alias_name": name })).await;
    let alias = format!("#{name}:{}", alice.server());
    let found = alice.get(&format!("/directory/room/{}", stoa_kit::encode(&alias))).await.ok();
    assert_eq!(found["room_id"], room);
    assert_eq!(content(&alice, &room, "m.room.canonical_alias").await["alias"], alias);
    alice.post("/createRoom", json!({ "room_alias_name": name })).await.expect(400, "M_ROOM_IN_USE");
}

#[tokio::test]
async fn a_direct_invite_says_so() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({ "is_direct": true, "invite": [bob.id] })).await;
    let sync = bob.sync_until(None, |sync| !sync.invited(&room).is_null()).await;
    let events = sync.invited(&room)["invite_state"]["events"].as_array().expect("stripped state").clone();
    let invite = events.iter().find(|event| event["state_key"] == bob.id).expect("the invite");
    assert_eq!(invite["content"]["is_direct"], true);
}

#[tokio::test]
async fn malformed_options_make_no_room() {
    let home = home().await;
    let alice = home.user("alice").await;
    for wrong in [
        json!({ "preset": "no_such_preset" }),
        json!({ "invite": "somebody" }),
        json!({ "invite": ["not a user id"] }),
        json!({ "initial_state": [{ "content": {} }] }),
        json!({ "creation_content": 5 }),
        json!({ "power_level_content_override": { "users_default": "fifty" } }),
    ] {
        let reply = alice.post("/createRoom", wrong).await;
        crate::refused(&reply);
    }
    assert!(!crate::strict() || alice.sync().await.quiet());
}
