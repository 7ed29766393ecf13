//! Client-Server API, "Room Upgrades": a room is replaced by one of another version, and what belongs to it goes along.

use stoa_kit::{Home, User, Value, encode, json, unique};

use crate::{home, own, two};

async fn upgrade(user: &User, room: &str, version: &str) -> String {
    let reply = user.post(&format!("/rooms/{room}/upgrade"), json!({ "new_version": version })).await.ok();
    reply["replacement_room"].as_str().expect("a replacement").to_owned()
}

async fn content(user: &User, room: &str, kind: &str) -> Value {
    user.state(room, kind, "").await.ok()
}

/// A public room with a name, an alias and more.
async fn furnished(user: &User, version: &str) -> (String, String) {
    let localpart = unique();
    let state = |kind: &str, content: Value| json!({ "type": kind, "state_key": "", "content": content });
    let room = user
        .create_room(json!({
            "room_version": version,
            "preset": "public_chat",
            "visibility": "public",
            "room_alias_name": localpart,
            "name": "Garden",
            "topic": "Plants",
            "initial_state": [
                state("m.room.history_visibility", json!({ "history_visibility": "invited" })),
                state("m.room.guest_access", json!({ "guest_access": "can_join" })),
                state("m.room.avatar", json!({ "url": "mxc://example.org/garden" })),
                state("m.room.encryption", json!({ "algorithm": "m.megolm.v1.aes-sha2" })),
                state("m.room.server_acl", json!({ "allow": ["*"], "deny": ["evil.example.org"] })),
                state("org.example.own", json!({ "of": "a client" })),
            ],
        }))
        .await;
    (room, format!("#{localpart}:{}", user.server()))
}

#[tokio::test]
async fn what_makes_the_room_goes_along() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let (old, alias) = furnished(&alice, "10").await;
    alice.ban(&old, &bob).await.ok();
    let new = upgrade(&alice, &old, "11").await;
    let create = content(&alice, &new, "m.room.create").await;
    assert_eq!((&create["room_version"], &create["predecessor"]["room_id"]), (&json!("11"), &json!(old)));
    let (name, topic) = (content(&alice, &new, "m.room.name").await, content(&alice, &new, "m.room.topic").await);
    assert_eq!((&name["name"], &topic["topic"]), (&json!("Garden"), &json!("Plants")));
    for kind in [
        "m.room.join_rules",
        "m.room.history_visibility",
        "m.room.guest_access",
        "m.room.avatar",
        "m.room.encryption",
        "m.room.server_acl",
    ] {
        assert_eq!(content(&alice, &new, kind).await, content(&alice, &old, kind).await, "{kind}");
    }
    alice.state(&new, "org.example.own", "").await.expect(404, "M_NOT_FOUND");
    bob.join(&new).await.expect(403, "M_FORBIDDEN");

    let found = alice.get(&format!("/directory/room/{}", encode(&alias))).await.ok();
    assert_eq!(found["room_id"], new, "the alias moves");
    assert_eq!(content(&alice, &new, "m.room.canonical_alias").await["alias"], alias);
    assert!(content(&alice, &old, "m.room.canonical_alias").await["alias"].is_null());
    let listed = async |room: &str| alice.get(&format!("/directory/list/room/{room}")).await.ok()["visibility"].clone();
    assert_eq!((listed(&old).await, listed(&new).await), (json!("private"), json!("public")));
}

#[tokio::test]
async fn the_old_room_says_where_it_goes_on_and_is_quiet() {
    let (_home, alice, bob, old) = two().await;
    let new = upgrade(&alice, &old, "12").await;
    let tombstone = content(&bob, &old, "m.room.tombstone").await;
    assert_eq!(tombstone["replacement_room"], new);
    let levels = content(&bob, &old, "m.room.power_levels").await;
    assert_eq!((&levels["events_default"], &levels["invite"]), (&json!(50), &json!(50)));
    bob.send(&old, "m.room.message", json!({ "body": "anybody here?" })).await.expect(403, "M_FORBIDDEN");
    bob.join(&new).await.expect(403, "M_FORBIDDEN");
    alice.invite(&new, &bob).await.ok();
    bob.join(&new).await.ok();
    bob.text(&new, "here we are").await;
}

#[tokio::test]
async fn who_may_send_no_tombstone_upgrades_nothing() {
    let (home, alice, bob, old) = two().await;
    let carol = home.user("carol").await;
    let path = format!("/rooms/{old}/upgrade");
    let body = json!({ "new_version": "11" });
    bob.post(&path, body.clone()).await.expect(403, "M_FORBIDDEN");
    carol.post(&path, body.clone()).await.expect(403, "M_FORBIDDEN");
    alice.post("/rooms/!nowhere:example.org/upgrade", body).await.expect(403, "M_FORBIDDEN");
    let joined = alice.get("/joined_rooms").await.ok();
    assert_eq!(joined["joined_rooms"], json!([old]), "nothing was begun");
    alice.post(&path, json!({ "new_version": "1234" })).await.expect(400, "M_UNSUPPORTED_ROOM_VERSION");
    alice.post(&path, json!({})).await.expect_any(&[400], &["M_BAD_JSON", "M_MISSING_PARAM"]);
    alice.state(&old, "m.room.tombstone", "").await.expect(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn creators_of_version_12_are_named_at_the_upgrade() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let users = json!({ &alice.id: 100, &bob.id: 100, &carol.id: 50 });
    let old = alice
        .create_room(json!({
            "room_version": "11",
            "preset": "public_chat",
            "power_level_content_override": { "users": users },
        }))
        .await;
    let body = json!({ "new_version": "12", "additional_creators": [&bob.id] });
    let reply = alice.post(&format!("/rooms/{old}/upgrade"), body).await.ok();
    let new = reply["replacement_room"].as_str().expect("a replacement");
    assert_eq!(content(&alice, new, "m.room.create").await["additional_creators"], json!([bob.id]));
    let levels = content(&alice, new, "m.room.power_levels").await;
    assert_eq!(levels["users"], json!({ &carol.id: 50 }), "creators have no level");
    assert!(levels["events"]["m.room.tombstone"].as_i64() > levels["state_default"].as_i64(), "{levels}");
    let again = upgrade(&alice, new, "12").await;
    assert!(
        content(&alice, &again, "m.room.create").await["additional_creators"].is_null(),
        "they are named each time"
    );
    let back = upgrade(&alice, &again, "11").await;
    assert_eq!(content(&alice, &back, "m.room.power_levels").await["users"][&alice.id], 150);
}

#[tokio::test]
async fn who_upgrades_without_being_creator_keeps_the_level_of_before() {
    let (_home, alice, bob, old) = two().await;
    alice.change_power(&old, |levels| levels["users"][&bob.id] = json!(150)).await;
    let new = upgrade(&bob, &old, "11").await;
    let levels = content(&bob, &new, "m.room.power_levels").await;
    assert_eq!((&levels["users"][&bob.id], &levels["users"][&alice.id]), (&json!(150), &json!(150)));
}

#[tokio::test]
async fn join_rules_that_the_version_does_not_know_become_invites() {
    let home = home().await;
    let alice = home.user("alice").await;
    let allow = json!([{ "type": "m.room_membership", "room_id": "!space:example.org" }]);
    for (rule, version, expected) in
        [("restricted", "9", "restricted"), ("knock_restricted", "9", "invite"), ("knock", "6", "invite")]
    {
        let rules = json!({ "join_rule": rule, "allow": allow });
        let state = json!([{ "type": "m.room.join_rules", "state_key": "", "content": rules }]);
        let old = alice.create_room(json!({ "initial_state": state })).await;
        let new = upgrade(&alice, &old, version).await;
        let found = content(&alice, &new, "m.room.join_rules").await;
        assert_eq!(found["join_rule"], expected, "{rule} in version {version}");
    }
}

#[tokio::test]
async fn a_space_stays_a_space_with_its_children() {
    let home = home().await;
    let alice = home.user("alice").await;
    let space = alice.create_room(json!({ "creation_content": { "type": "m.space", "m.federate": false } })).await;
    let child = alice.create_room(json!({})).await;
    let via = json!({ "via": [alice.server()], "suggested": true });
    alice.set_state(&space, "m.space.child", &child, via.clone()).await.ok();
    alice.set_state(&space, "m.space.child", "!gone:example.org", json!({})).await.ok();
    let new = upgrade(&alice, &space, "12").await;
    let create = content(&alice, &new, "m.room.create").await;
    assert_eq!((&create["type"], &create["m.federate"]), (&json!("m.space"), &json!(false)));
    assert_eq!(alice.state(&new, "m.space.child", &child).await.ok(), via);
    alice.state(&new, "m.space.child", "!gone:example.org").await.expect(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn what_members_set_for_the_room_follows_when_they_join() {
    let (_home, alice, bob, old) = two().await;
    let rule = |room: &str| format!("/pushrules/global/room/{}", encode(room));
    for user in [&alice, &bob] {
        let tag = format!("/user/{}/rooms/{old}/tags/m.favourite", user.path_id());
        user.put(&tag, json!({ "order": 0.5 })).await.ok();
        user.put(&rule(&old), json!({ "actions": [] })).await.ok();
        user.set_account_data(None, "m.direct", json!({ "@friend:example.org": [old] })).await.ok();
    }
    let conditions = json!([{ "kind": "event_match", "key": "room_id", "pattern": old }]);
    let mute = format!("/pushrules/global/override/{}", encode(&old));
    bob.put(&mute, json!({ "actions": [], "conditions": conditions })).await.ok();
    let new = upgrade(&alice, &old, "11").await;
    alice.invite(&new, &bob).await.ok();
    assert!(
        bob.account_data(None, "m.direct").await.ok()["@friend:example.org"] == json!([old]),
        "not before the join"
    );
    bob.join(&new).await.ok();
    for user in [&alice, &bob] {
        let tags = user.get(&format!("/user/{}/rooms/{new}/tags", user.path_id())).await.ok();
        assert_eq!(tags["tags"]["m.favourite"]["order"], 0.5, "tags of {}", user.id);
        assert_eq!(user.get(&rule(&new)).await.ok()["rule_id"], new);
        let direct = user.account_data(None, "m.direct").await.ok();
        assert_eq!(direct["@friend:example.org"], json!([old, new]));
    }
    let muted = bob.get(&format!("/pushrules/global/override/{}", encode(&new))).await.ok();
    assert_eq!(muted["conditions"][0]["pattern"], new);
}

#[tokio::test]
async fn nobody_makes_a_room_the_successor_of_another_by_claiming_it() {
    let (_home, alice, bob, old) = two().await;
    let tag = format!("/user/{}/rooms/{old}/tags/m.favourite", bob.path_id());
    bob.put(&tag, json!({})).await.ok();
    let claim = json!({ "predecessor": { "room_id": old, "event_id": "$x" } });
    let other = alice.create_room(json!({ "preset": "public_chat", "creation_content": claim })).await;
    bob.join(&other).await.ok();
    let tags = bob.get(&format!("/user/{}/rooms/{other}/tags", bob.path_id())).await.ok();
    assert_eq!(tags["tags"], json!({}), "the old room names no replacement");
}

#[tokio::test]
async fn every_version_can_be_upgraded_to_the_next() {
    let home: Home = home().await;
    if own().is_none() {
        return;
    }
    let alice = home.user("alice").await;
    let mut room = alice.create_room(json!({ "room_version": "1", "name": "from the beginning" })).await;
    for version in 2..=12 {
        room = upgrade(&alice, &room, &version.to_string()).await;
        let create = content(&alice, &room, "m.room.create").await;
        assert_eq!(create["room_version"], version.to_string());
        assert_eq!(content(&alice, &room, "m.room.name").await["name"], "from the beginning");
        alice.text(&room, "still here").await;
    }
}
