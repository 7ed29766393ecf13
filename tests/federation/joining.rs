//! Server-Server API, "Joining Rooms", "Knocking upon a room", "Inviting to a room", "Restricted rooms".

use stoa_kit::{Home, User, encode, json};

use crate::{Two, accept, aliased_room, arrives, becomes, between, eventually, membership, shared_room};

between!(by_alias);
async fn by_alias(two: Two) {
    let (alice, bob) = two.users().await;
    let (room, alias) = aliased_room(&alice, json!({ "name": "Hall" })).await;
    let token = alice.sync().await.token().to_owned();
    assert_eq!(bob.join(&alias).await.ok()["room_id"], room);
    // The state is there at once.
    assert_eq!(bob.state(&room, "m.room.name", "").await.ok()["name"], "Hall");
    assert_eq!(membership(&bob, &room, &alice).await, "join");
    assert_eq!(membership(&bob, &room, &bob).await, "join");
    let seen = |sync: &stoa_kit::Sync| sync.timeline(&room).iter().any(|event| event["state_key"] == bob.id);
    alice.sync_until(Some(&token), seen).await;
    both_are_members(&alice, &bob, &room).await;
    let event = bob.text(&room, "hello").await;
    assert_eq!(arrives(&alice, &room, &event).await["content"]["body"], "hello");
}

async fn both_are_members(alice: &User, bob: &User, room: &str) {
    let mut both = vec![alice.id.clone(), bob.id.clone()];
    both.sort();
    for user in [alice, bob] {
        let reply = user.get(&format!("/rooms/{}/joined_members", encode(room))).await.ok();
        let mut found: Vec<String> = reply["joined"].as_object().expect("joined").keys().cloned().collect();
        found.sort();
        assert_eq!(found, both, "as {} sees it", user.id);
    }
}

between!(a_room_of_many);
async fn a_room_of_many(two: Two) {
    let (alice, bob) = two.users().await;
    let (room, alias) = aliased_room(&alice, json!({ "name": "Hall" })).await;
    let mut others = Vec::new();
    for n in 0..12 {
        let other = two.a.home.user(&format!("other{n}")).await;
        other.join(&room).await.ok();
        others.push(other);
    }
    others[5].leave(&room).await.ok();
    bob.join(&alias).await.ok();
    // Bob talks before he knows them all, and hears them.
    let said = bob.text(&room, "are you many?").await;
    arrives(&others[3], &room, &said).await;
    let answer = others[7].text(&room, "we are").await;
    arrives(&bob, &room, &answer).await;
    alice.kick(&room, &others[9]).await.ok();
    becomes(&bob, &room, &others[9], "leave").await;
    eventually("Bob knows them all", async || {
        let reply = bob.get(&format!("/rooms/{}/joined_members", encode(&room))).await;
        let joined = reply.json["joined"].as_object().map_or(0, |joined| joined.len());
        (reply.status == 200 && joined == 12).then_some(())
    })
    .await;
    becomes(&bob, &room, &others[5], "leave").await;
    bob.sync_until(None, |sync| !sync.joined(&room).is_null()).await;
}

between!(by_id_over_a_named_server);
async fn by_id_over_a_named_server(two: Two) {
    let (alice, bob) = two.users().await;
    let room = alice.public_room().await;
    let via = encode(alice.server());
    let path = format!("/join/{}?server_name={via}&via={via}", encode(&room));
    assert_eq!(bob.post(&path, json!({})).await.ok()["room_id"], room);
    both_are_members(&alice, &bob, &room).await;
}

between!(by_invite);
async fn by_invite(two: Two) {
    let (alice, bob) = two.users().await;
    let room = alice.create_room(json!({ "preset": "private_chat", "name": "Secret" })).await;
    let token = bob.sync().await.token().to_owned();
    alice.invite(&room, &bob).await.ok();
    assert_eq!(membership(&alice, &room, &bob).await, "invite");
    let sync = bob.sync_until(Some(&token), |sync| !sync.invited(&room).is_null()).await;
    let events = sync.invited(&room)["invite_state"]["events"].as_array().expect("stripped state").clone();
    let of = |kind: &str| events.iter().find(|event| event["type"] == kind);
    assert_eq!(of("m.room.name").expect("the name")["content"]["name"], "Secret");
    let own = events.iter().find(|event| event["state_key"] == bob.id).expect("the invite itself");
    assert_eq!((&own["content"]["membership"], &own["sender"]), (&json!("invite"), &json!(alice.id)));
    bob.join(&room).await.ok();
    both_are_members(&alice, &bob, &room).await;
    let event = alice.text(&room, "welcome").await;
    arrives(&bob, &room, &event).await;
}

between!(an_invite_at_creation);
async fn an_invite_at_creation(two: Two) {
    let (alice, bob) = two.users().await;
    let options = json!({ "preset": "trusted_private_chat", "is_direct": true, "invite": [bob.id] });
    let room = alice.create_room(options).await;
    let sync = bob.sync_until(None, |sync| !sync.invited(&room).is_null()).await;
    let events = sync.invited(&room)["invite_state"]["events"].as_array().expect("stripped state").clone();
    let own = events.iter().find(|event| event["state_key"] == bob.id).expect("the invite itself");
    assert_eq!(own["content"]["is_direct"], true);
    bob.join(&room).await.ok();
    becomes(&alice, &room, &bob, "join").await;
}

between!(a_rejected_invite);
async fn a_rejected_invite(two: Two) {
    let (alice, bob) = two.users().await;
    let room = alice.create_room(json!({ "invite": [bob.id] })).await;
    let token = bob.sync_until(None, |sync| !sync.invited(&room).is_null()).await.token().to_owned();
    bob.leave(&room).await.ok();
    becomes(&alice, &room, &bob, "leave").await;
    bob.sync_until(Some(&token), |sync| !sync.left(&room).is_null()).await;
    let refused = bob.join(&room).await;
    assert!(refused.status >= 400, "{refused:?}");
}

between!(a_withdrawn_invite);
async fn a_withdrawn_invite(two: Two) {
    let (alice, bob) = two.users().await;
    let room = alice.create_room(json!({ "invite": [bob.id] })).await;
    let token = bob.sync_until(None, |sync| !sync.invited(&room).is_null()).await.token().to_owned();
    alice.kick(&room, &bob).await.ok();
    bob.sync_until(Some(&token), |sync| !sync.left(&room).is_null()).await;
    bob.sync_until(None, |sync| sync.invited(&room).is_null()).await;
}

between!(without_an_invite);
async fn without_an_invite(two: Two) {
    let (alice, bob) = two.users().await;
    let (room, alias) = aliased_room(&alice, json!({ "preset": "private_chat" })).await;
    bob.join(&alias).await.expect(403, "M_FORBIDDEN");
    assert!(membership(&alice, &room, &bob).await.is_null());
    bob.join(&format!("#nothing:{}", alice.server())).await.expect(404, "M_NOT_FOUND");
}

between!(a_second_user_and_again);
async fn a_second_user_and_again(two: Two) {
    let (alice, bob) = two.users().await;
    let carol = two.b.home.user("carol").await;
    let (room, alias) = aliased_room(&alice, json!({})).await;
    bob.join(&alias).await.ok();
    // The server is in the room already, or still getting to know it.
    let via = encode(alice.server());
    carol.post(&format!("/join/{}?server_name={via}&via={via}", encode(&room)), json!({})).await.ok();
    becomes(&alice, &room, &carol, "join").await;
    bob.join(&alias).await.ok();
    let joins = |event: &&stoa_kit::Value| event["state_key"] == bob.id;
    assert_eq!(alice.whole_history(&room).await.iter().filter(joins).count(), 1, "joining twice changes nothing");
}

between!(again_after_everybody_left);
async fn again_after_everybody_left(two: Two) {
    let (alice, bob) = two.users().await;
    let (room, alias) = aliased_room(&alice, json!({})).await;
    bob.join(&alias).await.ok();
    bob.leave(&room).await.ok();
    becomes(&alice, &room, &bob, "leave").await;
    alice.set_state(&room, "m.room.topic", "", json!({ "topic": "meanwhile" })).await.ok();
    alice.text(&room, "nobody hears this").await;
    bob.join(&alias).await.ok();
    assert_eq!(bob.state(&room, "m.room.topic", "").await.ok()["topic"], "meanwhile");
    becomes(&alice, &room, &bob, "join").await;
    let event = alice.text(&room, "again").await;
    arrives(&bob, &room, &event).await;
    let event = bob.text(&room, "here I am").await;
    arrives(&alice, &room, &event).await;
}

between!(by_knocking);
async fn by_knocking(two: Two) {
    let (alice, bob) = two.users().await;
    let (room, alias) = room_to_knock_at(&alice).await;
    let via = encode(alice.server());
    bob.join(&alias).await.expect(403, "M_FORBIDDEN");
    let path = format!("/knock/{}?server_name={via}&via={via}", encode(&room));
    assert_eq!(bob.post(&path, json!({ "reason": "please" })).await.ok()["room_id"], room);
    becomes(&alice, &room, &bob, "knock").await;
    assert_eq!(alice.state(&room, "m.room.member", &bob.id).await.ok()["reason"], "please");
    let sync = bob.sync_until(None, |sync| sync.0["rooms"]["knock"][&room].is_object()).await;
    let events = sync.0["rooms"]["knock"][&room]["knock_state"]["events"].as_array().expect("stripped state").clone();
    assert!(events.iter().any(|event| event["content"]["name"] == "Knock first"), "{events:?}");
    alice.invite(&room, &bob).await.ok();
    accept(&bob, &room).await;
    becomes(&alice, &room, &bob, "join").await;
}

async fn room_to_knock_at(alice: &User) -> (String, String) {
    let rule = json!([{ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } }]);
    aliased_room(alice, json!({ "preset": "private_chat", "name": "Knock first", "initial_state": rule })).await
}

// Synapse does not tell the other server.
between!(a_knock_that_is_refused, stoa_only);
async fn a_knock_that_is_refused(two: Two) {
    let (alice, bob) = two.users().await;
    let (room, alias) = room_to_knock_at(&alice).await;
    bob.knock(&alias).await.ok();
    becomes(&alice, &room, &bob, "knock").await;
    let knocks = |sync: &stoa_kit::Sync| sync.0["rooms"]["knock"][&room].is_object();
    let token = bob.sync_until(None, knocks).await.token().to_owned();
    alice.kick(&room, &bob).await.ok();
    bob.sync_until(Some(&token), |sync| !sync.left(&room).is_null()).await;
}

// Synapse only forgets that it knocked.
between!(a_knock_that_is_withdrawn, not_to_synapse);
async fn a_knock_that_is_withdrawn(two: Two) {
    let (alice, bob) = two.users().await;
    let (room, alias) = room_to_knock_at(&alice).await;
    bob.knock(&alias).await.ok();
    becomes(&alice, &room, &bob, "knock").await;
    bob.leave(&room).await.ok();
    becomes(&alice, &room, &bob, "leave").await;
}

between!(a_restricted_room);
async fn a_restricted_room(two: Two) {
    let (alice, bob) = two.users().await;
    let carol = two.b.home.user("carol").await;
    let club = shared_room(&alice, &bob).await;
    let rule = json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": club }] });
    let state = json!([{ "type": "m.room.join_rules", "state_key": "", "content": rule }]);
    let (room, alias) = aliased_room(&alice, json!({ "preset": "private_chat", "initial_state": state })).await;
    carol.join(&alias).await.expect(403, "M_FORBIDDEN");
    bob.join(&alias).await.ok();
    becomes(&alice, &room, &bob, "join").await;
    let event = alice.state(&room, "m.room.member", &bob.id).await.ok();
    assert_eq!(event["join_authorised_via_users_server"], alice.id);
    // Who is not in the club stays out, although the server is in the room now.
    carol.join(&alias).await.expect(403, "M_FORBIDDEN");
    let event = bob.text(&room, "from the club").await;
    arrives(&alice, &room, &event).await;
}

between!(a_restricted_room_by_invite);
async fn a_restricted_room_by_invite(two: Two) {
    let (alice, bob) = two.users().await;
    let club = alice.create_room(json!({})).await;
    let rule = json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": club }] });
    let state = json!([{ "type": "m.room.join_rules", "state_key": "", "content": rule }]);
    let room = alice.create_room(json!({ "initial_state": state, "invite": [bob.id] })).await;
    accept(&bob, &room).await;
    becomes(&alice, &room, &bob, "join").await;
    let event = alice.state(&room, "m.room.member", &bob.id).await.ok();
    assert!(event["join_authorised_via_users_server"].is_null(), "{event}");
}

between!(in_every_room_version);
async fn in_every_room_version(two: Two) {
    let (alice, bob) = two.users().await;
    for version in ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"] {
        if !offers(&two.a.home, &alice, version).await || !offers(&two.b.home, &bob, version).await {
            continue;
        }
        let (room, alias) = aliased_room(&alice, json!({ "room_version": version })).await;
        bob.join(&alias).await.ok();
        let create = bob.state(&room, "m.room.create", "").await.ok();
        assert_eq!(create["room_version"], version);
        let (one, two) = (alice.text(&room, "one").await, bob.text(&room, "two").await);
        arrives(&bob, &room, &one).await;
        arrives(&alice, &room, &two).await;
        // Redaction has other rules in old rooms.
        alice.redact(&room, &one).await.ok();
        let what = format!("the redaction in version {version}");
        let gone = async || bob.event(&room, &one).await.ok()["content"]["body"].is_null().then_some(());
        eventually(&what, gone).await;
        bob.leave(&room).await.ok();
        becomes(&alice, &room, &bob, "leave").await;
    }
}

async fn offers(home: &Home, user: &User, version: &str) -> bool {
    let reply = user.get("/capabilities").await.ok();
    let known = !reply["capabilities"]["m.room_versions"]["available"][version].is_null();
    assert!(known || version < "6" || home.how().is_synapse(), "Stoa offers version {version}");
    known
}
