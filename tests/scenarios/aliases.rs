//! Client-Server API, "Room aliases", "Canonical aliases", and the published room directory.

use stoa_kit::{User, encode, json, unique};

use crate::home;

fn alias(user: &User) -> String {
    format!("#{}:{}", unique(), user.server())
}

fn path(alias: &str) -> String {
    format!("/directory/room/{}", encode(alias))
}

#[tokio::test]
async fn an_alias_leads_to_its_room() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.public_room().await;
    let alias = alias(&alice);
    alice.put(&path(&alias), json!({ "room_id": room })).await.ok();
    let found = home.get(&path(&alias)).await.ok();
    assert_eq!(found["room_id"], room);
    assert_eq!(found["servers"], json!([alice.server()]));
    assert_eq!(bob.join(&alias).await.ok()["room_id"], room);
    assert_eq!(alice.get(&format!("/rooms/{room}/aliases")).await.ok()["aliases"], json!([alias]));
}

#[tokio::test]
async fn an_alias_is_taken_once() {
    let home = home().await;
    let alice = home.user("alice").await;
    let (one, two) = (alice.public_room().await, alice.public_room().await);
    let alias = alias(&alice);
    alice.put(&path(&alias), json!({ "room_id": one })).await.ok();
    alice.put(&path(&alias), json!({ "room_id": two })).await.expect(409, "M_UNKNOWN");
    assert_eq!(home.get(&path(&alias)).await.ok()["room_id"], one);
}

#[tokio::test]
async fn an_unknown_alias_is_not_found() {
    let home = home().await;
    let alice = home.user("alice").await;
    home.get(&path(&alias(&alice))).await.expect(404, "M_NOT_FOUND");
    alice.delete(&path(&alias(&alice))).await.expect(404, "M_NOT_FOUND");
    alice.join(&alias(&alice)).await.expect(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn aliases_of_another_server_are_not_ours_to_give() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.public_room().await;
    let foreign = format!("#{}:elsewhere.example.org", unique());
    let reply = alice.put(&path(&foreign), json!({ "room_id": room })).await;
    assert!(reply.status == 400 || reply.status == 403, "{reply:?}");
    let reply = alice.put(&path("#no-server"), json!({ "room_id": room })).await;
    reply.expect(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn who_made_an_alias_may_remove_it_and_a_stranger_may_not() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await.ok();
    let alias = alias(&alice);
    alice.put(&path(&alias), json!({ "room_id": room })).await.ok();
    bob.delete(&path(&alias)).await.expect(403, "M_FORBIDDEN");
    home.get(&path(&alias)).await.ok();
    alice.delete(&path(&alias)).await.ok();
    home.get(&path(&alias)).await.expect(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_canonical_alias_must_lead_to_the_room() {
    let home = home().await;
    let alice = home.user("alice").await;
    let (room, other) = (alice.public_room().await, alice.public_room().await);
    let (own, foreign) = (alias(&alice), alias(&alice));
    alice.put(&path(&own), json!({ "room_id": room })).await.ok();
    alice.put(&path(&foreign), json!({ "room_id": other })).await.ok();
    let set = |content| alice.set_state(&room, "m.room.canonical_alias", "", content);
    set(json!({ "alias": own })).await.ok();
    set(json!({ "alias": foreign })).await.expect(400, "M_BAD_ALIAS");
    set(json!({ "alias": own, "alt_aliases": [alias(&alice)] })).await.expect(400, "M_BAD_ALIAS");
    set(json!({ "alias": "not an alias" })).await.expect(400, "M_INVALID_PARAM");
    assert_eq!(alice.state(&room, "m.room.canonical_alias", "").await.ok()["alias"], own);
}

#[tokio::test]
async fn outsiders_do_not_see_the_aliases_of_a_private_room() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({})).await;
    bob.get(&format!("/rooms/{room}/aliases")).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn a_published_room_is_listed() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let word = unique();
    let room = alice
        .create_room(json!({
            "visibility": "public",
            "name": format!("Room {word}"),
            "topic": "Everything",
        }))
        .await;
    bob.join(&room).await.ok();
    let search = json!({ "filter": { "generic_search_term": word } });
    let found = bob.post("/publicRooms", search.clone()).await.ok();
    let entry = &found["chunk"][0];
    assert_eq!(entry["room_id"], room);
    assert_eq!(entry["name"], format!("Room {word}"));
    assert_eq!(entry["topic"], "Everything");
    assert_eq!(entry["num_joined_members"], 2);
    assert_eq!(entry["join_rule"], "public");
    assert_eq!((&entry["world_readable"], &entry["guest_can_join"]), (&json!(false), &json!(false)));
    let list = format!("/directory/list/room/{room}");
    bob.put(&list, json!({ "visibility": "private" })).await.expect(403, "M_FORBIDDEN");
    alice.put(&list, json!({ "visibility": "private" })).await.ok();
    assert_eq!(bob.post("/publicRooms", search).await.ok()["chunk"], json!([]));
}

#[tokio::test]
async fn what_is_published_is_listed_for_everybody() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({ "visibility": "public", "preset": "public_chat", "name": "For all" })).await;
    let listed = home.get("/publicRooms?limit=50").await.ok();
    assert!(listed["chunk"].as_array().is_some_and(|rooms| rooms.iter().any(|it| it["room_id"] == room.as_str())));
}
