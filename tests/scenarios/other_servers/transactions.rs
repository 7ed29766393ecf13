//! Transactions: what another server sends.

use stoa_kit::json;

use super::{Inside, Meeting, path};

#[tokio::test]
async fn d3_02_one_bad_event_does_not_spoil_the_others() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let inside = meeting.inside().await;
    let Inside { alice, room, join, depth, .. } = &inside;
    let (one, first) = inside.message(other, join, depth + 1, "one");
    let (two, mut second) = inside.message(other, &one, depth + 2, "two");
    second["signatures"] = json!({});
    let (three, third) = inside.message(other, &one, depth + 2, "three");
    let nonsense = json!({ "room_id": room, "type": 7 });
    let floats = json!({ "room_id": room, "type": "m.room.message", "content": { "x": 1.5 } });
    let answer = other.send(home, &[&first, &nonsense, &second, &json!("no event"), &floats, &third]).await.ok();
    assert_eq!(answer["pdus"][&one], json!({}));
    assert!(answer["pdus"][&two]["error"].is_string(), "{answer}");
    assert_eq!(answer["pdus"][&three], json!({}));
    let sync = alice.sync_until(None, |sync| sync.has(room, &three)).await;
    assert!(sync.has(room, &one) && !sync.has(room, &two));
    // The same again changes nothing.
    other.send(home, &[&first, &third]).await.ok();
    assert!(!alice.sync_since(sync.token()).await.has(room, &one));
}

#[tokio::test]
async fn what_the_law_forbids_is_told_and_not_shown() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let inside = meeting.inside().await;
    let Inside { alice, room, join, depth, .. } = &inside;
    let (topic, event) = other.event(inside.state("m.room.topic", "", join, depth + 1, json!({ "topic": "mine now" })));
    let answer = other.send(home, &[&event]).await.ok();
    assert!(answer["pdus"][&topic]["error"].is_string(), "{answer}");
    alice.state(room, "m.room.topic", "").await.expect(404, "M_NOT_FOUND");
    // Rejected events are told to nobody.
    other.get(home, &path("event", &[&topic])).await.expect(404, "M_NOT_FOUND");
    let (after, event) = inside.message(other, &topic, depth + 2, "after it");
    other.send(home, &[&event]).await.ok();
    alice.sync_until(None, |sync| sync.has(room, &after)).await;
    let back = format!("{}?limit=50&v={}", path("backfill", &[room]), stoa_kit::encode(&after));
    let back = other.get(home, &back).await.ok().to_string();
    assert!(back.contains("after it") && back.contains("m.room.create") && !back.contains("mine now"), "{back}");
}

#[tokio::test]
async fn a_server_that_the_acl_shuts_out_is_not_heard() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let inside = meeting.inside().await;
    let Inside { alice, room, join, depth, .. } = &inside;
    alice.set_state(room, "m.room.server_acl", "", super::acl_without(&["localhost"])).await.ok();
    let (id, event) = inside.message(other, join, depth + 1, "let me in");
    let answer = other.send(home, &[&event]).await.ok();
    assert!(answer["pdus"][&id]["error"].is_string(), "{answer}");
    alice.event(room, &id).await.expect(404, "M_NOT_FOUND");
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
    let inside = meeting.inside().await;
    let Inside { alice, room, join, depth, .. } = &inside;
    let (id, event) = inside.message(other, join, depth + 1, "next to it");
    let mut deep = inside.message(other, join, depth + 1, "deep").1;
    deep["content"]["x"] = (0..500).fold(json!(1), |inside, _| json!([inside]));
    let (deep_id, deep) = other.event(deep);
    let answer = other.send(home, &[&deep, &event]).await.ok();
    assert_eq!(answer["pdus"][&id], json!({}));
    assert_ne!(answer["pdus"][&deep_id], json!({}));
    alice.sync_until(None, |sync| sync.has(room, &id)).await;
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
    let inside = meeting.inside().await;
    let Inside { alice, room, join, depth, .. } = &inside;
    let (bad, event) = other.event(inside.state("m.room.topic", "", join, depth + 1, json!({ "topic": "mine now" })));
    let typing = |typing: bool| {
        json!([{ "edu_type": "m.typing", "content": {
        "room_id": room, "user_id": other.user("bob"), "typing": typing,
    } }])
    };
    let first = json!({ "origin": other.name(), "origin_server_ts": 1, "pdus": [event], "edus": typing(true) });
    let answer = other.put(home, &path("send", &["once"]), &first).await.ok();
    assert!(answer["pdus"][&bad]["error"].is_string(), "{answer}");
    let typed = alice.sync_until(None, |sync| !sync.ephemeral(room).is_empty()).await;
    // Nobody types any more; the first transaction, repeated (at another time), does not change that.
    let stop = json!({ "origin": other.name(), "origin_server_ts": 2, "pdus": [], "edus": typing(false) });
    other.put(home, &path("send", &["then"]), &stop).await.ok();
    let told = alice.sync_until(Some(typed.token()), |sync| !sync.ephemeral(room).is_empty()).await;
    assert_eq!(told.ephemeral(room)[0]["content"]["user_ids"], json!([]));
    let mut again = first.clone();
    again["origin_server_ts"] = json!(3);
    assert_eq!(other.put(home, &path("send", &["once"]), &again).await.ok(), answer);
    assert!(alice.sync_since(told.token()).await.ephemeral(room).is_empty());
    // An id that a server uses again for something else loses nothing.
    again["pdus"] = json!([]);
    other.put(home, &path("send", &["once"]), &again).await.ok();
    let told = alice.sync_until(Some(told.token()), |sync| !sync.ephemeral(room).is_empty()).await;
    assert_eq!(told.ephemeral(room)[0]["content"]["user_ids"], json!([other.user("bob")]));
}
