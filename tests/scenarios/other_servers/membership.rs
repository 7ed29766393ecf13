//! Users of other servers who join, leave, knock, and invite.

use stoa_kit::{Value, encode, json};

use super::{Meeting, path};

#[tokio::test]
async fn a_user_of_another_server_joins_and_leaves() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let room = alice.public_room().await;
    let bob = other.user("bob");
    let (id, answer) = other.join(home, &room, &bob).await;
    assert_eq!(answer["origin"], home.server_name());
    assert_eq!(answer["members_omitted"], false);
    assert_eq!(answer["event"]["state_key"], bob);
    let state = answer["state"].as_array().expect("state");
    let has = |kind: &str, key: &str| state.iter().any(|event| event["type"] == kind && event["state_key"] == key);
    assert!(has("m.room.create", "") && has("m.room.join_rules", "") && has("m.room.member", &alice.id));
    assert!(!has("m.room.member", &bob), "it is the state before the join");
    assert!(!answer["auth_chain"].as_array().expect("an auth chain").is_empty());
    assert_eq!(alice.state(&room, "m.room.member", &bob).await.ok()["membership"], "join");
    assert_eq!(alice.event(&room, &id).await.ok()["sender"], bob);
    other.leave(home, &room, &bob).await;
    assert_eq!(alice.state(&room, "m.room.member", &bob).await.ok()["membership"], "leave");
}

#[tokio::test]
async fn the_first_versions_of_the_endpoints_are_answered_in_their_form() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let room = home.user("alice").await.public_room().await;
    let bob = other.user("bob");
    let (id, event) = other.make(home, "join", &room, &bob).await;
    let answer = other.put(home, &path("send_join", &[&room, &id]), &event).await.ok();
    assert_eq!((&answer[0], answer[1]["state"].is_array()), (&json!(200), true));
    let (id, event) = other.make(home, "leave", &room, &bob).await;
    assert_eq!(other.put(home, &path("send_leave", &[&room, &id]), &event).await.ok(), json!([200, {}]));
}

#[tokio::test]
async fn d3_05_d3_06_a_join_is_what_was_asked_for() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let (room, elsewhere) = (alice.public_room().await, alice.public_room().await);
    let bob = other.user("bob");
    let (id, event) = other.make(home, "join", &room, &bob).await;
    let to = |room: &str, id: &str| format!("/_matrix/federation/v2/send_join/{}/{}", encode(room), encode(id));
    let put = async |path: String, event: &Value| other.put(home, &path, event).await;
    // Of another room or another id than the path says.
    put(to(&elsewhere, &id), &event).await.expect_any(&[400], &["M_BAD_JSON", "M_INVALID_PARAM"]);
    let nothing = "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    put(to(&room, nothing), &event).await.expect_any(&[400], &["M_BAD_JSON", "M_INVALID_PARAM"]);
    // Not signed, or by somebody else.
    let mut unsigned = event.clone();
    unsigned["signatures"] = json!({});
    put(to(&room, &id), &unsigned).await.expect_any(&[400, 403], &["M_FORBIDDEN", "M_BAD_JSON"]);
    let third = meeting.another(2).await;
    let (foreign_id, foreign) = third.event(event.clone());
    assert_eq!(foreign_id, id);
    put(to(&room, &id), &foreign).await.expect(403, "M_FORBIDDEN");
    third.put(home, &to(&room, &id), &event).await.expect(403, "M_FORBIDDEN");
    // Another membership.
    let (left_id, left) = other.make(home, "join", &room, &bob).await;
    let mut left = left;
    left["content"]["membership"] = json!("leave");
    let (leave_id, leave) = other.event(left);
    assert_ne!(left_id, leave_id);
    put(to(&room, &leave_id), &leave).await.expect_any(&[400], &["M_BAD_JSON", "M_INVALID_PARAM"]);
    alice.state(&room, "m.room.member", &bob).await.expect(404, "M_NOT_FOUND");
    // Twice is once.
    put(to(&room, &id), &event).await.ok();
    put(to(&room, &id), &event).await.ok();
}

#[tokio::test]
async fn d3_05_d3_06_what_is_brought_is_of_that_room_and_signed_by_that_server() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let third = meeting.another(2).await;
    let alice = home.user("alice").await;
    let rules = json!([{ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } }]);
    let (room, elsewhere) = (alice.create_room(json!({ "initial_state": rules })).await, alice.public_room().await);
    let bob = other.user("bob");
    let garden = format!("!garden:{}", other.name());
    let invite = other.event(json!({
        "type": "m.room.member", "room_id": garden, "sender": bob, "state_key": alice.id, "depth": 7,
        "content": { "membership": "invite" }, "origin_server_ts": 1_700_000_000_000_u64,
        "prev_events": ["$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
        "auth_events": ["$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
    }));
    let knock = other.make(home, "knock", &room, &bob).await;
    other.put(home, &path("send_knock", &[&room, &knock.0]), &knock.1).await.ok();
    let leave = other.make(home, "leave", &room, &bob).await;
    let of_third = third.make(home, "knock", &room, &third.user("carol")).await;
    let cases = [
        ("v1/send_knock", &room, knock),
        ("v1/send_leave", &room, leave.clone()),
        ("v2/send_leave", &room, leave),
        ("v2/invite", &garden, invite),
    ];
    for (what, room, (id, event)) in cases {
        let to = |room: &str, id: &str| format!("/_matrix/federation/{what}/{}/{}", encode(room), encode(id));
        let body = |event: &Value| match what {
            "v2/invite" => json!({ "room_version": "11", "event": event, "invite_room_state": [] }),
            _ => event.clone(),
        };
        // Of another room, and with another id, than the path says.
        let nothing = "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        for path in [to(&elsewhere, &id), to(room, nothing)] {
            other.put(home, &path, &body(&event)).await.expect_any(&[400], &["M_BAD_JSON", "M_INVALID_PARAM"]);
        }
        // Signed by nobody, by another server, or brought by another.
        let mut unsigned = event.clone();
        unsigned["signatures"] = json!({});
        let foreign = third.event(event.clone()).1;
        for (who, event) in [(other, &unsigned), (other, &foreign), (&third, &event)] {
            who.put(home, &to(room, &id), &body(event)).await.expect(403, "M_FORBIDDEN");
        }
        // A signature that is none.
        let mut broken = event.clone();
        broken["signatures"][other.name()]["ed25519:stranger"] = json!("A".repeat(86));
        other.put(home, &to(room, &id), &body(&broken)).await.expect(403, "M_FORBIDDEN");
    }
    // For a user of another server, well signed by that one.
    let (id, event) = of_third;
    other.put(home, &path("send_knock", &[&room, &id]), &event).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn who_is_refused_is_refused_however_often_it_asks() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let room = alice.public_room().await;
    let bob = other.user("bob");
    // Made while he might, brought when he may not any more: it is allowed where it stands, but not now.
    let (id, join) = other.make(home, "join", &room, &bob).await;
    alice.post(&format!("/rooms/{}/ban", encode(&room)), json!({ "user_id": bob })).await.ok();
    alice.set_state(&room, "m.room.topic", "", json!({ "topic": "what Bob is not to know" })).await.ok();
    for _ in 0..3 {
        for path in [path("send_join", &[&room, &id]), path("send_join", &[&room, &id]).replace("/v1/", "/v2/")] {
            let reply = other.put(home, &path, &join).await;
            assert!(!reply.json.to_string().contains("m.room."), "nothing of the room's state: {reply:?}");
            reply.expect(403, "M_FORBIDDEN");
        }
    }
    assert_eq!(alice.state(&room, "m.room.member", &bob).await.ok()["membership"], "ban");
}

#[tokio::test]
async fn templates_are_for_ones_own_users_and_rooms_that_we_are_in() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let (public, private) = (alice.public_room().await, alice.create_room(json!({})).await);
    let ask = async |room: &str, user: &str, query: &str| {
        other.get(home, &format!("{}{query}", path("make_join", &[room, user]))).await
    };
    let bob = other.user("bob");
    let made = ask(&public, &bob, "?ver=11&ver=12").await.ok();
    assert_eq!(
        (made["event"]["sender"].as_str(), made["event"]["type"].as_str()),
        (Some(bob.as_str()), Some("m.room.member"))
    );
    assert!(made["event"]["signatures"].is_null() && made["room_version"].is_string());
    ask(&public, &alice.id, "?ver=12").await.expect(403, "M_FORBIDDEN");
    ask(&private, &bob, "?ver=12").await.expect(403, "M_FORBIDDEN");
    ask("!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &bob, "?ver=12").await.expect(404, "M_NOT_FOUND");
    for query in ["", "?ver=1", "?ver=1&ver=nonsense"] {
        let refused = ask(&public, &bob, query).await.expect(400, "M_INCOMPATIBLE_ROOM_VERSION");
        assert_eq!(refused["room_version"], made["room_version"]);
    }
}

#[tokio::test]
async fn a_knock_is_answered_with_what_the_room_shows() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let rules = json!([{ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } }]);
    let room = alice.create_room(json!({ "name": "Behind the door", "initial_state": rules })).await;
    let bob = other.user("bob");
    let (id, event) = other.make(home, "knock", &room, &bob).await;
    let answer = other.put(home, &path("send_knock", &[&room, &id]), &event).await.ok();
    let shown = answer["knock_room_state"].as_array().expect("stripped state");
    assert!(shown.iter().any(|event| event["content"]["name"] == "Behind the door" && event["event_id"].is_null()));
    assert_eq!(alice.state(&room, "m.room.member", &bob).await.ok()["membership"], "knock");
}

#[tokio::test]
async fn an_invite_reaches_our_user_and_comes_back_signed() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let room = format!("!garden:{}", other.name());
    let invite = |target: &str| {
        other.event(json!({
            "type": "m.room.member", "room_id": room, "sender": other.user("bob"), "state_key": target,
            "content": { "membership": "invite" }, "origin_server_ts": 1_700_000_000_000_u64, "depth": 7,
            "prev_events": ["$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
            "auth_events": ["$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
        }))
    };
    let send = async |(id, event): (String, Value), version: &str| {
        let shown = json!([
            { "type": "m.room.name", "state_key": "", "sender": other.user("bob"), "content": { "name": "Garden" } },
            { "type": "m.room.name", "content": 1 }, 17,
        ]);
        let body = json!({ "room_version": version, "event": event, "invite_room_state": shown });
        let path = format!("/_matrix/federation/v2/invite/{}/{}", encode(&room), encode(&id));
        other.put(home, &path, &body).await
    };
    let answer = send(invite(&alice.id), "11").await.ok();
    let signatures = &answer["event"]["signatures"];
    assert!(signatures[home.server_name()].is_object() && signatures[other.name()].is_object());
    let sync = alice.sync_until(None, |sync| !sync.invited(&room).is_null()).await;
    let shown = sync.invited(&room)["invite_state"]["events"].to_string();
    assert!(shown.contains("Garden") && shown.contains(&other.user("bob")), "{shown}");
    // Not for users of others, for nobody, or in a version that nobody knows.
    send(invite(&other.user("carol")), "11")
        .await
        .expect_any(&[400, 403], &["M_BAD_JSON", "M_FORBIDDEN", "M_INVALID_PARAM"]);
    let nobody = format!("@nobody-there:{}", home.server_name());
    send(invite(&nobody), "11").await.expect_any(&[403, 404], &["M_NOT_FOUND", "M_FORBIDDEN"]);
    send(invite(&alice.id), "org.example.none").await.expect(400, "M_INCOMPATIBLE_ROOM_VERSION");
    // Only the sender's server may bring it.
    let third = meeting.another(2).await;
    let (id, event) = invite(&alice.id);
    let path = format!("/_matrix/federation/v2/invite/{}/{}", encode(&room), encode(&id));
    third.put(home, &path, &json!({ "room_version": "11", "event": event })).await.expect(403, "M_FORBIDDEN");
}
