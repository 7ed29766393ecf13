//! EDUs and invites that are made to hurt (Server-Server API, "EDUs", "Inviting to a room"). The numbers are those of the cases in
//! docs/testing.md.

use stoa_kit::{Value, encode, json};

use super::{Inside, Meeting, path};

/// What a device of ours has of other people, as far as it was told: everything that is not its own doing.
async fn told(user: &stoa_kit::User, room: &str) -> Value {
    let sync = user.get("/sync").await.ok();
    let presence = sync["presence"]["events"].as_array().cloned().unwrap_or_default();
    let others: Vec<Value> = presence.into_iter().filter(|event| event["sender"] != user.id.as_str()).collect();
    json!({
        "presence": others,
        "to_device": sync["to_device"]["events"],
        "changed": sync["device_lists"]["changed"],
        "ephemeral": sync["rooms"]["join"][room]["ephemeral"]["events"],
    })
}

#[tokio::test]
async fn d3_23_d3_24_a_server_speaks_for_its_own_users_only() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let inside = meeting.inside().await;
    let Inside { alice, room, bob, .. } = &inside;
    let dan = home.user("dan").await;
    dan.join(room).await.ok();
    let third = meeting.another(2).await;
    let carol = third.user("carol");
    third.join(home, room, &carol).await;
    let said = alice.text(room, "hello").await;
    let before = told(alice, room).await;
    let keys = stoa_kit::Keys::new(9);
    // Of our users, of those of a third server, and of Bob where he is not.
    for user in [dan.id.as_str(), carol.as_str(), "@bob", "", "@bob:", &format!("{bob}:1")] {
        let receipt = json!({ room: { "m.read": { user: { "event_ids": [said], "data": { "ts": 1 } } } } });
        let messages = json!({ &alice.id: { "*": { "x": 1 } } });
        let edus = [
            ("m.typing", json!({ "room_id": room, "user_id": user, "typing": true })),
            ("m.receipt", receipt),
            ("m.presence", json!({ "push": [{ "user_id": user, "presence": "online", "last_active_ago": 1 }] })),
            (
                "m.direct_to_device",
                json!({ "sender": user, "type": "m.lie", "message_id": stoa_kit::unique(), "messages": messages }),
            ),
            (
                "m.device_list_update",
                json!({ "user_id": user, "device_id": "LIE", "stream_id": 7, "keys": keys.device(user, "LIE") }),
            ),
            ("m.signing_key_update", json!({ "user_id": user, "master_key": keys.cross_signing(user, "master") })),
        ];
        for (kind, content) in edus {
            other.send_edu(home, kind, content).await.ok();
        }
    }
    // What is Bob's to say is heard, so that all before it was.
    let content = json!({ "room_id": room, "user_id": bob, "typing": true });
    other.send_edu(home, "m.typing", content).await.ok();
    alice.sync_until(None, |sync| sync.ephemeral(room).iter().any(|event| event["type"] == "m.typing")).await;
    let mut after = told(alice, room).await;
    let ephemeral = after["ephemeral"].as_array().cloned().unwrap_or_default();
    after["ephemeral"] = ephemeral.into_iter().filter(|event| event["type"] != "m.typing").collect();
    assert_eq!(after, before);
    let keys = alice.post("/keys/query", json!({ "device_keys": { &dan.id: [] } })).await.ok();
    assert!(!keys.to_string().contains("LIE"), "{keys}");
    assert_eq!(keys["master_keys"].get(&dan.id), None);
}

#[tokio::test]
async fn d3_24_d3_70_receipts_are_for_rooms_that_one_is_in_and_events_that_are_there() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let inside = meeting.inside().await;
    let Inside { alice, room, bob, .. } = &inside;
    let (private, said) = (alice.create_room(json!({})).await, alice.text(room, "hello").await);
    let secret = alice.text(&private, "secret").await;
    let receipt =
        |room: &str, event: &str| json!({ room: { "m.read": { bob: { "event_ids": [event], "data": { "ts": 1 } } } } });
    // Of a room that Bob is not in; for an event of another room; for nonsense; too many; and in odd forms.
    let many: serde_json::Map<String, Value> = (0..3_000)
        .map(|n| (format!("@u{n}:{}", other.name()), json!({ "event_ids": [said], "data": { "ts": 1 } })))
        .collect();
    for content in [
        receipt(&private, &secret),
        receipt(room, &secret),
        receipt("!nowhere:example.org", &said),
        receipt(room, "nonsense"),
        json!({ room: { "m.read": many } }),
        json!({ room: { "m.read": { bob: { "event_ids": [], "data": {} } } } }),
        json!({ room: { "m.read": { bob: 7 } } }),
        json!({ room: { "m.read.private": { bob: { "event_ids": [said], "data": { "ts": 1 } } } } }),
        json!([room]),
        json!(7),
    ] {
        other.send_edu(home, "m.receipt", content).await.ok();
    }
    let sync = alice.sync().await;
    for room in [room, &private] {
        assert!(sync.ephemeral(room).is_empty(), "{:?}", sync.ephemeral(room));
    }
    other.send_edu(home, "m.receipt", receipt(room, &said)).await.ok();
    alice.sync_until(None, |sync| sync.ephemeral(room).iter().any(|event| event["type"] == "m.receipt")).await;
}

#[tokio::test]
async fn d3_08_who_is_not_ours_is_not_invited_here() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let third = meeting.another(2).await;
    let alice = home.user("alice").await;
    let room = format!("!garden:{}", other.name());
    let invite = |kind: &str, target: &str, membership: &str| {
        other.event(json!({
            "type": kind, "room_id": room, "sender": other.user("bob"), "state_key": target,
            "content": { "membership": membership }, "origin_server_ts": 1_700_000_000_000_u64, "depth": 7,
            "prev_events": [], "auth_events": [],
        }))
    };
    for (id, event) in [
        invite("m.room.member", &other.user("carol"), "invite"),
        invite("m.room.member", &third.user("carol"), "invite"),
        invite("m.room.member", &format!("@nobody:{}", home.server_name()), "invite"),
        invite("m.room.member", &format!("{}.evil.example", alice.id), "invite"),
        invite("m.room.member", "", "invite"),
        // Nor is anything else signed.
        invite("m.room.member", &alice.id, "join"),
        invite("m.room.member", &alice.id, "ban"),
        invite("m.room.power_levels", &alice.id, "invite"),
    ] {
        for (start, body) in
            [("v2", json!({ "room_version": "11", "event": event, "invite_room_state": [] })), ("v1", event.clone())]
        {
            let path = format!("/_matrix/federation/{start}/invite/{}/{}", encode(&room), encode(&id));
            let reply = other.put(home, &path, &body).await;
            assert!([400, 403, 404].contains(&reply.status), "{event}: {reply:?}");
            assert!(!reply.json.to_string().contains("signatures"), "{reply:?}");
        }
    }
}

#[tokio::test]
async fn who_wants_no_invites_gets_none_from_others() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let ask = async |room: &str| {
        let (id, event) = other.event(json!({
            "type": "m.room.member", "room_id": room, "sender": other.user("bob"), "state_key": alice.id,
            "content": { "membership": "invite" }, "origin_server_ts": 1_700_000_000_000_u64, "depth": 7,
            "prev_events": ["$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
            "auth_events": ["$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
        }));
        let body = json!({ "room_version": "11", "event": event, "invite_room_state": [] });
        other.put(home, &format!("/_matrix/federation/v2/invite/{}/{}", encode(room), encode(&id)), &body).await
    };
    let [before, blocked, filtered, ignored, after] =
        ["a", "b", "c", "d", "e"].map(|n| format!("!{n}:{}", other.name()));
    ask(&before).await.ok();
    alice.set_account_data(None, "m.invite_permission_config", json!({ "default_action": "block" })).await.ok();
    ask(&blocked).await.expect(403, "M_INVITE_BLOCKED");
    assert!(alice.sync().await.invited(&before).is_null());
    alice.set_account_data(None, "m.invite_permission_config", json!({})).await.ok();
    let filters = "org.matrix.msc4155.invite_permission_config";
    alice.set_account_data(None, filters, json!({ "blocked_servers": ["local*"] })).await.ok();
    ask(&filtered).await.expect(403, "M_INVITE_BLOCKED");
    alice.set_account_data(None, filters, json!({ "ignored_users": ["@bob:*"] })).await.ok();
    ask(&ignored).await.ok();
    assert!(alice.sync().await.invited(&ignored).is_null());
    alice.set_account_data(None, filters, json!({})).await.ok();
    ask(&after).await.ok();
    let sync = alice.sync().await;
    for room in [&before, &ignored, &after] {
        assert!(sync.invited(room).is_object(), "{room}");
    }
    for room in [&blocked, &filtered] {
        assert!(sync.invited(room).is_null(), "{room}");
    }
}

#[tokio::test]
async fn d3_27_what_an_invite_shows_hurts_nobody() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let named = |content: Value| json!({ "type": "m.room.name", "state_key": "", "sender": other.user("bob"), "content": content });
    let large = named(json!({ "name": "x".repeat(100_000) }));
    let deep = named((0..120).fold(json!({}), |inside, _| json!({ "x": inside })));
    for (n, shown) in [
        json!(7),
        json!({ "x": [] }),
        json!([7, null, [], {}, { "type": 7 }, { "type": "m.room.name" }]),
        json!([named(json!({ "name": 1e300 })), named(json!([1])), named(json!({ "name": { "x": 1.5 } }))]),
        json!(vec![large; 30]),
        json!(vec![named(json!({ "name": "x" })); 5_000]),
        json!([deep]),
    ]
    .into_iter()
    .enumerate()
    {
        let room = format!("!garden{n}:{}", other.name());
        let (id, event) = other.event(json!({
            "type": "m.room.member", "room_id": room, "sender": other.user("bob"), "state_key": alice.id,
            "content": { "membership": "invite" }, "origin_server_ts": 1_700_000_000_000_u64, "depth": 7,
            "prev_events": ["$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
            "auth_events": ["$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
        }));
        let body = json!({ "room_version": "11", "event": event, "invite_room_state": shown });
        let path = format!("/_matrix/federation/v2/invite/{}/{}", encode(&room), encode(&id));
        let reply = other.put(home, &path, &body).await;
        assert!([200, 400, 413].contains(&reply.status), "{n}: {reply:?}");
        // Whatever came of it, the user's client still works, and is not flooded.
        let sync = alice.get("/sync").await;
        assert!(sync.body.len() < 1_000_000, "{n}: {} bytes", sync.body.len());
        let sync = sync.ok();
        for event in sync["rooms"]["invite"][&room]["invite_state"]["events"].as_array().into_iter().flatten() {
            assert!(
                event["type"].is_string() && event["content"].is_object() && event["sender"].is_string(),
                "{event}"
            );
        }
    }
}

#[tokio::test]
async fn d3_68_keys_of_a_device_that_is_gone_are_given_to_nobody() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let gone = home.device_of(&alice).await;
    let keys = stoa_kit::Keys::new(5);
    let one_time =
        |n: u8| keys.sign(&gone.id, &format!("ed25519:{}", gone.device), json!({ "key": format!("public{n}") }));
    let fallback = keys.sign(&gone.id, &format!("ed25519:{}", gone.device), json!({ "key": "last", "fallback": true }));
    let upload = json!({
        "device_keys": keys.device(&gone.id, &gone.device),
        "one_time_keys": { "signed_curve25519:A": one_time(1), "signed_curve25519:B": one_time(2) },
        "fallback_keys": { "signed_curve25519:F": fallback },
    });
    gone.post("/keys/upload", upload).await.ok();
    let wanted = json!({ "one_time_keys": { &alice.id: { &gone.device: "signed_curve25519" } } });
    let claim = path("user/keys/claim", &[]);
    assert!(other.post(home, &claim, &wanted).await.ok().to_string().contains("public"));
    gone.post("/logout", json!({})).await.ok();
    let claimed = other.post(home, &claim, &wanted).await.ok();
    assert!(!claimed.to_string().contains("key\""), "{claimed}");
    let told = other.get(home, &path("user/devices", &[&alice.id])).await.ok();
    assert!(!told.to_string().contains(&gone.device), "{told}");
}

#[tokio::test]
async fn d3_52_a_list_of_devices_is_for_those_who_share_a_room() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let Inside { alice, bob, .. } = &meeting.inside().await;
    let dan = home.user("dan").await;
    let keys = stoa_kit::Keys::new(9).device(bob, "PHONE");
    let devices = json!({ "user_id": bob, "stream_id": 1, "devices": [{ "device_id": "PHONE", "keys": keys }] });
    other.answers_with("v1/user/devices/", 200, devices);
    other.answers_with("v1/user/keys/query", 200, json!({ "device_keys": {} }));
    let query = json!({ "device_keys": { bob: [] } });
    let found = alice.post("/keys/query", query.clone()).await.ok();
    assert!(found["device_keys"][bob]["PHONE"].is_object(), "{found}");
    let asked = other.heard("v1/user/keys/query").len();
    let found = dan.post("/keys/query", query).await.ok();
    assert!(found["device_keys"][bob]["PHONE"].is_null(), "{found}");
    assert_eq!(other.heard("v1/user/keys/query").len(), asked + 1, "their server says what Dan may see");
}
