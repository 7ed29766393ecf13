//! Transactions: what another server sends.

use stoa_kit::{Stranger, Value, json};

use super::{Meeting, path};

/// A message of one of the server's users, after the newest event that it knows.
fn message(other: &Stranger, room: &str, auth: &[String], prev: &str, depth: u64, body: &str) -> (String, Value) {
    other.event(json!({
        "type": "m.room.message", "room_id": room, "sender": other.user("bob"), "depth": depth,
        "origin_server_ts": 1_700_000_000_000_u64 + depth, "prev_events": [prev], "auth_events": auth,
        "content": { "msgtype": "m.text", "body": body },
    }))
}

/// The other server's user in Alice's room: her, the room, the join, its depth and the auth events for what the user sends.
async fn inside(meeting: &Meeting) -> (stoa_kit::User, String, String, u64, Vec<String>) {
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let room = alice.public_room().await;
    let (join, answer) = other.join(home, &room, &other.user("bob")).await;
    let levels = alice.all_state(&room).await.into_iter().find(|event| event["type"] == "m.room.power_levels");
    let levels = levels.expect("power levels")["event_id"].as_str().expect("an id").to_owned();
    let depth = answer["event"]["depth"].as_u64().expect("a depth");
    let auth = vec![levels, join.clone()];
    (alice, room, join, depth, auth)
}

#[tokio::test]
async fn one_bad_event_does_not_spoil_the_others() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, room, join, depth, auth) = inside(&meeting).await;
    let (one, first) = message(other, &room, &auth, &join, depth + 1, "one");
    let (two, mut second) = message(other, &room, &auth, &one, depth + 2, "two");
    second["signatures"] = json!({});
    let (three, third) = message(other, &room, &auth, &one, depth + 2, "three");
    let nonsense = json!({ "room_id": room, "type": 7 });
    let floats = json!({ "room_id": room, "type": "m.room.message", "content": { "x": 1.5 } });
    let answer = other.send(home, &[&first, &nonsense, &second, &json!("no event"), &floats, &third]).await.ok();
    assert_eq!(answer["pdus"][&one], json!({}));
    assert!(answer["pdus"][&two]["error"].is_string(), "{answer}");
    assert_eq!(answer["pdus"][&three], json!({}));
    let sync = alice.sync_until(None, |sync| sync.has(&room, &three)).await;
    assert!(sync.has(&room, &one) && !sync.has(&room, &two));
    // The same again changes nothing.
    other.send(home, &[&first, &third]).await.ok();
    assert!(!alice.sync_since(sync.token()).await.has(&room, &one));
}

#[tokio::test]
async fn what_the_law_forbids_is_told_and_not_shown() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, room, join, depth, auth) = inside(&meeting).await;
    let (topic, event) = other.event(json!({
        "type": "m.room.topic", "state_key": "", "room_id": room, "sender": other.user("bob"), "depth": depth + 1,
        "origin_server_ts": 1_700_000_000_000_u64, "prev_events": [join], "auth_events": auth,
        "content": { "topic": "mine now" },
    }));
    let answer = other.send(home, &[&event]).await.ok();
    assert!(answer["pdus"][&topic]["error"].is_string(), "{answer}");
    alice.state(&room, "m.room.topic", "").await.expect(404, "M_NOT_FOUND");
    // Rejected events are told to nobody.
    other.get(home, &path("event", &[&topic])).await.expect(404, "M_NOT_FOUND");
    let (after, event) = message(other, &room, &auth, &topic, depth + 2, "after it");
    other.send(home, &[&event]).await.ok();
    alice.sync_until(None, |sync| sync.has(&room, &after)).await;
    let back = format!("{}?limit=50&v={}", path("backfill", &[&room]), stoa_kit::encode(&after));
    let back = other.get(home, &back).await.ok().to_string();
    assert!(back.contains("after it") && back.contains("m.room.create") && !back.contains("mine now"), "{back}");
}

#[tokio::test]
async fn a_server_that_the_acl_shuts_out_is_not_heard() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, room, join, depth, auth) = inside(&meeting).await;
    alice.set_state(&room, "m.room.server_acl", "", super::acl_without(&["localhost"])).await.ok();
    let (id, event) = message(other, &room, &auth, &join, depth + 1, "let me in");
    let answer = other.send(home, &[&event]).await.ok();
    assert!(answer["pdus"][&id]["error"].is_string(), "{answer}");
    alice.event(&room, &id).await.expect(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn transactions_have_limits() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let event = json!({});
    other.send(home, &vec![&event; 50]).await.ok();
    other.send(home, &vec![&event; 51]).await.expect_any(&[400], &["M_INVALID_PARAM"]);
    let body = json!({ "edus": vec![json!({ "edu_type": "m.nonsense", "content": {} }); 101] });
    other.put(home, &path("send", &["t"]), &body).await.expect_any(&[400], &["M_INVALID_PARAM"]);
    // More than clients may send at once.
    let large = json!({ "pdus": [{ "x": "x".repeat(5 << 20) }] });
    assert_eq!(other.put(home, &path("send", &["t2"]), &large).await.ok()["pdus"], json!({}));
}

#[tokio::test]
async fn an_event_that_is_nested_too_deeply_is_refused_alone() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, room, join, depth, auth) = inside(&meeting).await;
    let (id, event) = message(other, &room, &auth, &join, depth + 1, "next to it");
    let mut deep = message(other, &room, &auth, &join, depth + 1, "deep").1;
    deep["content"]["x"] = (0..500).fold(json!(1), |inside, _| json!([inside]));
    let (deep_id, deep) = other.event(deep);
    let answer = other.send(home, &[&deep, &event]).await.ok();
    assert_eq!(answer["pdus"][&id], json!({}));
    assert_ne!(answer["pdus"][&deep_id], json!({}));
    alice.sync_until(None, |sync| sync.has(&room, &id)).await;
}

#[tokio::test]
async fn typing_comes_through() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, room) = meeting.shared_room().await;
    let bob = other.user("bob");
    let typing =
        |user: &str| json!({ "edu_type": "m.typing", "content": { "room_id": room, "user_id": user, "typing": true } });
    let edus = json!([{ "edu_type": 7 }, typing(&alice.id), typing(&bob), typing(&other.user("stranger"))]);
    other.put(home, &path("send", &["t"]), &json!({ "pdus": [], "edus": edus })).await.ok();
    let sync = alice.sync_until(None, |sync| !sync.ephemeral(&room).is_empty()).await;
    assert_eq!(sync.ephemeral(&room)[0]["content"]["user_ids"], json!([bob]));
}

#[tokio::test]
async fn a_transaction_that_comes_again_gets_the_same_answer_and_does_nothing() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, room, join, depth, auth) = inside(&meeting).await;
    let (bad, event) = other.event(json!({
        "type": "m.room.topic", "state_key": "", "room_id": room, "sender": other.user("bob"), "depth": depth + 1,
        "origin_server_ts": 1_700_000_000_000_u64, "prev_events": [join], "auth_events": auth,
        "content": { "topic": "mine now" },
    }));
    let typing = |typing: bool| {
        json!([{ "edu_type": "m.typing", "content": {
        "room_id": room, "user_id": other.user("bob"), "typing": typing,
    } }])
    };
    let first = json!({ "origin": other.name(), "origin_server_ts": 1, "pdus": [event], "edus": typing(true) });
    let answer = other.put(home, &path("send", &["once"]), &first).await.ok();
    assert!(answer["pdus"][&bad]["error"].is_string(), "{answer}");
    let typed = alice.sync_until(None, |sync| !sync.ephemeral(&room).is_empty()).await;
    // Nobody types any more; the first transaction, repeated (at another time), does not change that.
    let stop = json!({ "origin": other.name(), "origin_server_ts": 2, "pdus": [], "edus": typing(false) });
    other.put(home, &path("send", &["then"]), &stop).await.ok();
    let told = alice.sync_until(Some(typed.token()), |sync| !sync.ephemeral(&room).is_empty()).await;
    assert_eq!(told.ephemeral(&room)[0]["content"]["user_ids"], json!([]));
    let mut again = first.clone();
    again["origin_server_ts"] = json!(3);
    assert_eq!(other.put(home, &path("send", &["once"]), &again).await.ok(), answer);
    assert!(alice.sync_since(told.token()).await.ephemeral(&room).is_empty());
    // An id that a server uses again for something else loses nothing.
    again["pdus"] = json!([]);
    other.put(home, &path("send", &["once"]), &again).await.ok();
    let told = alice.sync_until(Some(told.token()), |sync| !sync.ephemeral(&room).is_empty()).await;
    assert_eq!(told.ephemeral(&room)[0]["content"]["user_ids"], json!([other.user("bob")]));
}
