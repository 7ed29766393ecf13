//! Client-Server API, "Room membership", "Leaving Rooms", "Banning users", "Knocking"; Server-Server API, "Authorization rules".

use stoa_kit::{User, Value, encode, json};

use crate::home;

async fn membership(seen_by: &User, room: &str, of: &User) -> Value {
    let reply = seen_by.state(room, "m.room.member", &of.id).await;
    if reply.status == 404 { Value::Null } else { reply.ok()["membership"].clone() }
}

#[tokio::test]
async fn anybody_may_join_a_public_room() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.public_room().await;
    assert_eq!(bob.join(&room).await.ok()["room_id"], room);
    assert_eq!(membership(&alice, &room, &bob).await, "join");
    // Joining again changes nothing.
    bob.join(&room).await.ok();
    let joins = |event: &&Value| event["state_key"] == bob.id;
    assert_eq!(alice.whole_history(&room).await.iter().filter(joins).count(), 1);
}

#[tokio::test]
async fn a_private_room_wants_an_invite() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({ "name": "Secret" })).await;
    bob.join(&room).await.expect(403, "M_FORBIDDEN");
    alice.invite(&room, &bob).await.ok();
    bob.join(&room).await.ok();
    assert_eq!(membership(&alice, &room, &bob).await, "join");
}

#[tokio::test]
async fn an_invite_shows_what_the_room_is() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({ "name": "Secret" })).await;
    let token = bob.sync().await.token().to_owned();
    alice.invite(&room, &bob).await.ok();
    let sync = bob.sync_until(Some(&token), |sync| !sync.invited(&room).is_null()).await;
    let events = sync.invited(&room)["invite_state"]["events"].as_array().expect("stripped state").clone();
    let of =
        |kind: &str| events.iter().find(|event| event["type"] == kind).unwrap_or_else(|| panic!("{kind}: {events:?}"));
    assert_eq!(of("m.room.name")["content"]["name"], "Secret");
    assert_eq!(of("m.room.join_rules")["content"]["join_rule"], "invite");
    of("m.room.create");
    let own = events.iter().find(|event| event["state_key"] == bob.id).expect("the invite itself");
    assert_eq!((&own["content"]["membership"], &own["sender"]), (&json!("invite"), &json!(alice.id)));
    assert!(sync.joined(&room).is_null(), "an invited user sees nothing else");
}

#[tokio::test]
async fn an_invite_can_be_rejected() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({})).await;
    alice.invite(&room, &bob).await.ok();
    let token = bob.sync().await.token().to_owned();
    bob.leave(&room).await.ok();
    assert_eq!(membership(&alice, &room, &bob).await, "leave");
    let sync = bob.sync_until(Some(&token), |sync| !sync.left(&room).is_null()).await;
    assert!(sync.invited(&room).is_null());
    bob.join(&room).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn nobody_invites_who_is_there_or_banned() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.room_with(&[&bob]).await;
    alice.invite(&room, &bob).await.expect(403, "M_FORBIDDEN");
    alice.ban(&room, &carol).await.ok();
    alice.invite(&room, &carol).await.expect_any(&[403], &["M_FORBIDDEN", "M_BAD_STATE"]);
    assert_eq!(membership(&alice, &room, &bob).await, "join");
    assert_eq!(membership(&alice, &room, &carol).await, "ban");
}

#[tokio::test]
async fn who_is_not_in_the_room_cannot_invite() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.public_room().await;
    bob.invite(&room, &carol).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn a_kicked_member_is_out_and_may_come_back() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await.ok();
    let token = bob.sync().await.token().to_owned();
    let body = json!({ "user_id": bob.id, "reason": "noise" });
    alice.post(&format!("/rooms/{room}/kick"), body).await.ok();
    let sync = bob.sync_until(Some(&token), |sync| !sync.left(&room).is_null()).await;
    let last = sync.timeline(&room).last().map(|event| (*event).clone()).expect("the kick");
    assert_eq!((&last["sender"], &last["content"]["reason"]), (&json!(alice.id), &json!("noise")));
    bob.send(&room, "m.room.message", json!({ "body": "x", "msgtype": "m.text" })).await.expect(403, "M_FORBIDDEN");
    bob.join(&room).await.ok();
}

#[tokio::test]
async fn a_ban_lasts_until_it_is_lifted() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await.ok();
    alice.ban(&room, &bob).await.ok();
    bob.join(&room).await.expect_any(&[403], &["M_FORBIDDEN", "M_BAD_STATE"]);
    bob.leave(&room).await.expect_any(&[403], &["M_FORBIDDEN", "M_BAD_STATE"]);
    alice.unban(&room, &bob).await.ok();
    assert_eq!(membership(&alice, &room, &bob).await, "leave");
    bob.join(&room).await.ok();
}

#[tokio::test]
async fn power_is_needed_to_kick_ban_and_unban() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.room_with(&[&bob, &carol]).await;
    bob.kick(&room, &carol).await.expect(403, "M_FORBIDDEN");
    bob.ban(&room, &carol).await.expect(403, "M_FORBIDDEN");
    alice.ban(&room, &carol).await.ok();
    bob.unban(&room, &carol).await.expect(403, "M_FORBIDDEN");
    alice.change_power(&room, |levels| levels["users"] = json!({ &bob.id: 50 })).await;
    bob.unban(&room, &carol).await.ok();
    bob.kick(&room, &alice).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn equals_cannot_remove_each_other() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.room_with(&[&bob, &carol]).await;
    alice.change_power(&room, |levels| levels["users"] = json!({ &bob.id: 50, &carol.id: 50 })).await;
    bob.kick(&room, &carol).await.expect(403, "M_FORBIDDEN");
    bob.ban(&room, &carol).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn a_room_is_forgotten_only_after_it_was_left() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    bob.forget(&room).await.expect_any(&[400], &["M_UNKNOWN", "M_BAD_STATE"]);
    bob.text(&room, "before").await;
    bob.leave(&room).await.ok();
    bob.messages(&room, "dir=b").await.ok();
    bob.forget(&room).await.ok();
    bob.messages(&room, "dir=b").await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn leaving_twice_is_harmless_and_leaving_a_strange_room_is_not_possible() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({})).await;
    bob.leave(&room).await.expect_any(&[403, 404], &["M_FORBIDDEN", "M_NOT_FOUND", "M_UNKNOWN"]);
    bob.leave("!nowhere:example.org").await.expect_any(&[403, 404], &["M_FORBIDDEN", "M_NOT_FOUND", "M_UNKNOWN"]);
    bob.leave("!abc")
        .await
        .expect_any(&[400, 403, 404], &["M_FORBIDDEN", "M_NOT_FOUND", "M_UNKNOWN", "M_INVALID_PARAM"]);
}

#[tokio::test]
async fn the_lists_of_rooms_and_members_agree() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.room_with(&[&bob, &carol]).await;
    carol.leave(&room).await.ok();
    let rooms = bob.get("/joined_rooms").await.ok();
    assert_eq!(rooms["joined_rooms"], json!([room]));
    assert_eq!(carol.get("/joined_rooms").await.ok()["joined_rooms"], json!([]));
    let joined = alice.get(&format!("/rooms/{room}/joined_members")).await.ok();
    let mut ids: Vec<&String> = joined["joined"].as_object().expect("joined").keys().collect();
    ids.sort();
    let mut both = [&alice.id, &bob.id];
    both.sort();
    assert_eq!(ids, both);
    let of = async |query: &str| alice.get(&format!("/rooms/{room}/members{query}")).await;
    let states = |reply: Value| -> Vec<Value> {
        reply["chunk"].as_array().expect("chunk").iter().map(|event| event["state_key"].clone()).collect()
    };
    assert_eq!(states(of("").await.ok()).len(), 3);
    assert_eq!(states(of("?membership=leave").await.ok()), [json!(carol.id)]);
    assert_eq!(states(of("?not_membership=join").await.ok()), [json!(carol.id)]);
    carol.get(&format!("/rooms/{room}/joined_members")).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn members_can_be_asked_for_as_they_were() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.public_room().await;
    let token = alice.sync().await.joined(&room)["timeline"]["prev_batch"].clone();
    let before = alice.sync().await.token().to_owned();
    bob.join(&room).await.ok();
    assert!(token.is_string());
    let then = alice.get(&format!("/rooms/{room}/members?at={}", encode(&before))).await.ok();
    assert_eq!(then["chunk"].as_array().map(Vec::len), Some(1), "{then}");
}

#[tokio::test]
async fn a_knock_is_answered_with_an_invite() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({
        "name": "Knock first",
        "initial_state": [{ "type": "m.room.join_rules", "content": { "join_rule": "knock" } }],
    }));
    let room = room.await;
    bob.join(&room).await.expect(403, "M_FORBIDDEN");
    assert_eq!(bob.knock(&room).await.ok()["room_id"], room);
    assert_eq!(membership(&alice, &room, &bob).await, "knock");
    let sync = bob.sync_until(None, |sync| sync.0["rooms"]["knock"][&room].is_object()).await;
    let events = sync.0["rooms"]["knock"][&room]["knock_state"]["events"].as_array().expect("stripped state").clone();
    assert!(events.iter().any(|event| event["type"] == "m.room.name"));
    alice.invite(&room, &bob).await.ok();
    bob.join(&room).await.ok();
}

#[tokio::test]
async fn a_room_without_knocking_refuses_knocks() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({})).await;
    bob.knock(&room).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn a_restricted_room_lets_in_the_members_of_another() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let club = alice.room_with(&[&bob]).await;
    let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
    let room = alice.create_room(json!({
        "initial_state": [
            { "type": "m.room.join_rules", "content": { "join_rule": "restricted", "allow": allow } },
        ],
    }));
    let room = room.await;
    bob.join(&room).await.ok();
    assert_eq!(alice.state(&room, "m.room.member", &bob.id).await.ok()["join_authorised_via_users_server"], alice.id);
    carol.join(&room).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn nobody_joins_or_leaves_for_another() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.public_room().await;
    bob.join(&room).await.ok();
    let join = json!({ "membership": "join" });
    bob.set_state(&room, "m.room.member", &carol.id, join).await.expect(403, "M_FORBIDDEN");
    let leave = json!({ "membership": "leave" });
    bob.set_state(&room, "m.room.member", &alice.id, leave).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn d3_58_nobody_joins_or_leaves_for_somebody_else() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.public_room().await;
    bob.join(&room).await.ok();
    for (target, word) in [(&carol, "join"), (&carol, "knock"), (&bob, "leave"), (&bob, "join"), (&alice, "leave")] {
        let path = format!("/rooms/{}/state/m.room.member/{}", encode(&room), encode(&target.id));
        let who = if target.id == bob.id { &carol } else { &bob };
        who.put(&path, json!({ "membership": word })).await.expect(403, "M_FORBIDDEN");
    }
    assert_eq!(membership(&alice, &room, &bob).await, "join");
    alice.state(&room, "m.room.member", &carol.id).await.expect(404, "M_NOT_FOUND");
}
