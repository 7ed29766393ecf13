//! Who may read what of a room: every read by a server that is in the room, one that was, one that never was, and one that
//! the ACL shuts out.

use stoa_kit::{Home, Reply, Stranger, Value, json};

use super::{Meeting, acl_without, bodies, path};

/// Every read of a room, with an event of it.
async fn every_read(other: &Stranger, home: &Home, room: &str, event: &str) -> Vec<(&'static str, Reply)> {
    let at = |start| format!("{}?event_id={}", path(start, &[room]), stoa_kit::encode(event));
    let missing = json!({ "latest_events": [event], "earliest_events": [], "limit": 10 });
    vec![
        ("event", other.get(home, &path("event", &[event])).await),
        ("state", other.get(home, &at("state")).await),
        ("state_ids", other.get(home, &at("state_ids")).await),
        ("event_auth", other.get(home, &path("event_auth", &[room, event])).await),
        (
            "backfill",
            other.get(home, &format!("{}?limit=10&v={}", path("backfill", &[room]), stoa_kit::encode(event))).await,
        ),
        ("get_missing_events", other.post(home, &path("get_missing_events", &[room]), &missing).await),
        ("timestamp_to_event", other.get(home, &format!("{}?ts=0&dir=f", path("timestamp_to_event", &[room]))).await),
    ]
}

/// What a server hears that may not read: the same, byte for byte, as of a room or an event that is not there.
async fn is_shut_out(other: &Stranger, home: &Home, room: &str, event: &str) {
    let nowhere = "!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let nothing = "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let refused = every_read(other, home, room, event).await;
    let unknown = every_read(other, home, nowhere, nothing).await;
    for ((read, refused), (_, unknown)) in refused.into_iter().zip(unknown) {
        assert!([403, 404].contains(&refused.status), "{read}: {refused:?}");
        assert_eq!((refused.status, &refused.body), (unknown.status, &unknown.body), "{read}");
    }
}

#[tokio::test]
async fn a_server_in_the_room_reads() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, room) = meeting.shared_room().await;
    let first = alice.text(&room, "one").await;
    let second = alice.text(&room, "two").await;
    for (read, reply) in every_read(other, home, &room, &second).await {
        let body = reply.ok();
        match read {
            "event" => {
                assert_eq!(body["origin"], home.server_name());
                assert_eq!(body["pdus"][0]["content"]["body"], "two");
                assert!(body["pdus"][0]["signatures"][home.server_name()].is_object());
                assert_eq!(body["pdus"].as_array().unwrap().len(), 1);
            }
            "state" => {
                let kinds: Vec<&str> =
                    body["pdus"].as_array().unwrap().iter().filter_map(|event| event["type"].as_str()).collect();
                assert!(kinds.contains(&"m.room.create") && kinds.contains(&"m.room.member"), "{kinds:?}");
                assert!(!kinds.contains(&"m.room.message"));
                assert!(!body["auth_chain"].as_array().unwrap().is_empty());
            }
            "state_ids" => {
                let whole = format!("{}?event_id={}", path("state", &[&room]), stoa_kit::encode(&second));
                let whole = other.get(home, &whole).await.ok();
                for (ids, events) in [("pdu_ids", "pdus"), ("auth_chain_ids", "auth_chain")] {
                    assert_eq!(body[ids].as_array().unwrap().len(), whole[events].as_array().unwrap().len());
                }
            }
            "event_auth" => {
                let kinds: Vec<&str> =
                    body["auth_chain"].as_array().unwrap().iter().filter_map(|event| event["type"].as_str()).collect();
                assert!(kinds.contains(&"m.room.power_levels"), "{kinds:?}");
                assert!(!kinds.contains(&"m.room.message"));
            }
            "backfill" => assert_eq!(bodies(&body["pdus"])[..2], ["two", "one"]),
            "get_missing_events" => assert_eq!(bodies(&body["events"]).last().unwrap(), "one"),
            "timestamp_to_event" => assert!(body["event_id"].is_string() && body["origin_server_ts"].is_u64()),
            other => panic!("{other}"),
        }
    }
    // Between two events that one has.
    let third = alice.text(&room, "three").await;
    let ask = json!({ "latest_events": [third], "earliest_events": [first], "limit": 10 });
    let between = other.post(home, &path("get_missing_events", &[&room]), &ask).await.ok();
    assert_eq!(bodies(&between["events"]), ["two"]);
}

#[tokio::test]
async fn a_server_that_never_was_there_reads_nothing() {
    let Some(meeting) = Meeting::new().await else { return };
    let (alice, room) = meeting.shared_room().await;
    let event = alice.text(&room, "secret").await;
    let third = meeting.another(2).await;
    is_shut_out(&third, &meeting.home, &room, &event).await;
    // An invite is not enough.
    let carol = third.user("carol");
    alice.post(&format!("/rooms/{}/invite", stoa_kit::encode(&room)), json!({ "user_id": carol })).await.ok();
    assert_eq!(alice.state(&room, "m.room.member", &carol).await.ok()["membership"], "invite");
    is_shut_out(&third, &meeting.home, &room, &event).await;
}

#[tokio::test]
async fn a_server_that_left_reads_no_more() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, room) = meeting.shared_room().await;
    let event = alice.text(&room, "while it was there").await;
    other.get(home, &path("event", &[&event])).await.ok();
    other.leave(home, &room, &other.user("bob")).await;
    is_shut_out(other, home, &room, &event).await;
    // And it may come again.
    other.join(home, &room, &other.user("bob")).await;
    other.get(home, &path("event", &[&event])).await.ok();
}

#[tokio::test]
async fn the_acl_shuts_a_server_out() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, room) = meeting.shared_room().await;
    let event = alice.text(&room, "secret").await;
    alice.set_state(&room, "m.room.server_acl", "", acl_without(&["LOCALHOST"])).await.ok();
    for (read, reply) in every_read(other, home, &room, &event).await {
        let (status, errcode) = if read == "event" { (404, "M_NOT_FOUND") } else { (403, "M_FORBIDDEN") };
        reply.expect(status, errcode);
    }
    for what in ["make_join", "make_leave", "make_knock"] {
        let asked = format!("{}?ver=12", path(what, &[&room, &other.user("carol")]));
        other.get(home, &asked).await.expect(403, "M_FORBIDDEN");
    }
}

#[tokio::test]
async fn an_event_of_another_room_is_not_there() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, room) = meeting.shared_room().await;
    let secret = alice.create_room(json!({})).await;
    let event = alice.text(&secret, "secret").await;
    let nothing = "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let through = every_read(other, home, &room, &event).await;
    let unknown = every_read(other, home, &room, nothing).await;
    for ((read, through), (_, unknown)) in through.into_iter().zip(unknown) {
        if read == "timestamp_to_event" {
            continue;
        }
        assert_eq!((through.status, &through.json.get("pdus")), (unknown.status, &unknown.json.get("pdus")), "{read}");
        assert!(!String::from_utf8_lossy(&through.body).contains("secret"), "{read}");
        if through.status != 200 {
            assert_eq!(through.body, unknown.body, "{read}");
        }
    }
}

#[tokio::test]
async fn what_nobody_of_a_server_could_see_goes_out_redacted() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let room = alice.public_room().await;
    alice.set_state(&room, "m.room.history_visibility", "", json!({ "history_visibility": "joined" })).await.ok();
    let before = alice.text(&room, "before they came").await;
    other.join(home, &room, &other.user("bob")).await;
    let after = alice.text(&room, "while they are there").await;
    let event = |id: &str| path("event", &[id]);
    let hidden = other.get(home, &event(&before)).await.ok()["pdus"][0].clone();
    assert_eq!(hidden["content"], json!({}));
    assert!(hidden["hashes"].is_object() && hidden["signatures"].is_object(), "the graph holds together");
    let shown = other.get(home, &event(&after)).await.ok()["pdus"][0].clone();
    assert_eq!(shown["content"]["body"], "while they are there");
    let back = format!("{}?limit=100&v={}", path("backfill", &[&room]), stoa_kit::encode(&after));
    let back = other.get(home, &back).await.ok();
    let bodies = bodies(&back["pdus"]);
    assert!(bodies.contains(&"while they are there".into()) && !bodies.contains(&"before they came".into()));
    let missing = json!({ "latest_events": [after], "earliest_events": [], "limit": 20 });
    let missing = other.post(home, &path("get_missing_events", &[&room]), &missing).await.ok();
    let text = missing.to_string();
    assert!(text.contains("m.room.message") && !text.contains("before they came"));
}

#[tokio::test]
async fn questions_without_end_have_one() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, room) = meeting.shared_room().await;
    let said: Vec<String> = alice.texts(&room, (0..130).map(|n| n.to_string())).await;
    let last = said.last().unwrap();
    let count = |list: &Value| list.as_array().unwrap().len();
    let back = format!("{}?limit=100000&v={}", path("backfill", &[&room]), stoa_kit::encode(last));
    assert_eq!(count(&other.get(home, &back).await.ok()["pdus"]), 100);
    let missing = json!({ "latest_events": [last], "earliest_events": [], "limit": 100_000 });
    let missing = other.post(home, &path("get_missing_events", &[&room]), &missing).await.ok();
    assert_eq!(count(&missing["events"]), 20);
    assert_eq!(bodies(&missing["events"]).last().unwrap(), "128");
    // None, and nonsense.
    let none = json!({ "latest_events": [last], "earliest_events": [], "limit": 0 });
    let none = other.post(home, &path("get_missing_events", &[&room]), &none).await.ok();
    assert_eq!(none["events"], json!([]));
    other.get(home, &path("backfill", &[&room])).await.expect_any(&[400], &["M_MISSING_PARAM"]);
    other
        .get(home, &format!("{}?limit=1&v=nonsense", path("backfill", &[&room])))
        .await
        .expect_any(&[400], &["M_INVALID_PARAM"]);
}

#[tokio::test]
async fn a_large_state_comes_whole() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let state: Vec<Value> = (0..700)
        .map(|n| json!({ "type": "org.example.shelf", "state_key": n.to_string(), "content": { "n": n } }))
        .collect();
    let room = alice.create_room(json!({ "preset": "public_chat", "initial_state": state })).await;
    let (_, answer) = other.join(home, &room, &other.user("bob")).await;
    let event = alice.text(&room, "all of it").await;
    let at = format!("{}?event_id={}", path("state", &[&room]), stoa_kit::encode(&event));
    let told = other.get(home, &at).await.ok();
    for (list, more) in [(&answer["state"], 0), (&told["pdus"], 1)] {
        let list = list.as_array().expect("a list");
        let mut shelves: Vec<u64> = list.iter().filter_map(|event| event["content"]["n"].as_u64()).collect();
        shelves.sort_unstable();
        assert_eq!(shelves, (0..700).collect::<Vec<_>>());
        let members = list.iter().filter(|event| event["type"] == "m.room.member").count();
        assert_eq!(members, 1 + more);
    }
    assert!(!told["auth_chain"].as_array().expect("a list").is_empty());
}
