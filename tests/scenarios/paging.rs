//! Client-Server API, `/messages` and `/context` ("Getting events for a room", "Event context").

use stoa_kit::{Value, encode, json};

use crate::{home, two};

fn bodies(page: &Value) -> Vec<&str> {
    let events = page["chunk"].as_array().expect("chunk").iter();
    events.filter_map(|event| event["content"]["body"].as_str()).collect()
}

#[tokio::test]
async fn pages_backwards_join_without_holes() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let sent = alice.texts(&room, (0..25).map(|n| n.to_string())).await;
    let (mut found, mut query) = (Vec::new(), "dir=b&limit=7".to_owned());
    loop {
        let page = alice.messages(&room, &query).await.ok();
        let chunk = page["chunk"].as_array().expect("chunk").clone();
        assert!(chunk.len() <= 7);
        found.extend(chunk);
        let Some(end) = page["end"].as_str() else { break };
        query = format!("dir=b&limit=7&from={}", encode(end));
    }
    let mut ids: Vec<&Value> = found.iter().map(|event| &event["event_id"]).collect();
    assert_eq!(found.last().expect("events")["type"], "m.room.create");
    ids.reverse();
    let tail: Vec<&Value> = ids[ids.len() - 25..].to_vec();
    assert_eq!(tail, sent.iter().map(|id| json!(id)).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    ids.sort_by_key(|id| id.to_string());
    ids.dedup();
    assert_eq!(ids.len(), found.len(), "no event twice");
}

#[tokio::test]
async fn forwards_is_the_same_the_other_way_round() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.texts(&room, (0..12).map(|n| n.to_string())).await;
    let (mut found, mut query) = (Vec::new(), "dir=f&limit=5".to_owned());
    for _ in 0..20 {
        let page = alice.messages(&room, &query).await.ok();
        let chunk = page["chunk"].as_array().expect("chunk").clone();
        let empty = chunk.is_empty();
        found.extend(chunk);
        let Some(end) = page["end"].as_str().filter(|_| !empty) else { break };
        query = format!("dir=f&limit=5&from={}", encode(end));
    }
    let mut back = alice.whole_history(&room).await;
    back.reverse();
    let ids = |events: &[Value]| events.iter().map(|event| event["event_id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&found), ids(&back));
}

#[tokio::test]
async fn paging_starts_where_sync_began_and_ends() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.texts(&room, (0..4).map(|n| n.to_string())).await;
    let sync = alice.sync().await;
    alice.text(&room, "later").await;
    let page = alice.messages(&room, &format!("dir=b&limit=2&from={}", encode(sync.token()))).await.ok();
    assert_eq!(bodies(&page), ["3", "2"]);
    let page = alice.messages(&room, &format!("dir=f&limit=2&from={}", encode(sync.token()))).await.ok();
    assert_eq!(bodies(&page), ["later"]);
}

#[tokio::test]
async fn to_ends_the_paging() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.text(&room, "old").await;
    let from = alice.sync().await.token().to_owned();
    alice.texts(&room, (0..4).map(|n| n.to_string())).await;
    let page = alice.messages(&room, &format!("dir=b&limit=50&to={}", encode(&from))).await.ok();
    assert_eq!(bodies(&page), ["3", "2", "1", "0"]);
}

#[tokio::test]
async fn a_filter_chooses_among_the_events() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    for n in 0..5 {
        alice.text(&room, &format!("alice {n}")).await;
        bob.text(&room, &format!("bob {n}")).await;
    }
    let filter = encode(&json!({ "types": ["m.room.message"], "senders": [bob.id] }).to_string());
    let page = alice.messages(&room, &format!("dir=b&limit=3&filter={filter}")).await.ok();
    assert_eq!(bodies(&page), ["bob 4", "bob 3", "bob 2"]);
}

#[tokio::test]
async fn a_missing_or_wrong_direction_is_refused() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    if crate::strict() {
        alice.messages(&room, "limit=1").await.expect_any(&[400], &["M_MISSING_PARAM", "M_INVALID_PARAM"]);
    }
    alice.messages(&room, "dir=x").await.expect_any(&[400], &["M_UNKNOWN", "M_INVALID_PARAM"]);
    alice.messages(&room, "dir=b&from=nonsense").await.expect_any(&[400], &["M_UNKNOWN", "M_INVALID_PARAM"]);
    alice.messages(&room, "dir=b&limit=-3").await.expect_any(&[400], &["M_UNKNOWN", "M_INVALID_PARAM"]);
    alice
        .messages(&room, "dir=b&filter=x")
        .await
        .expect_any(&[400], &["M_UNKNOWN", "M_INVALID_PARAM", "M_NOT_JSON", "M_BAD_JSON"]);
}

#[tokio::test]
async fn strangers_do_not_page() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({})).await;
    bob.messages(&room, "dir=b").await.expect(403, "M_FORBIDDEN");
    bob.messages("!nowhere:example.org", "dir=b").await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn context_surrounds_an_event() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({ "name": "Stoa" })).await;
    let sent = alice.texts(&room, (0..9).map(|n| n.to_string())).await;
    let path = format!("/rooms/{room}/context/{}?limit=4", encode(&sent[4]));
    let context = alice.get(&path).await.ok();
    let of = |part: &str| -> Vec<&str> {
        context[part].as_array().expect("events").iter().filter_map(|event| event["content"]["body"].as_str()).collect()
    };
    assert_eq!(context["event"]["event_id"], sent[4]);
    assert_eq!(of("events_before"), ["3", "2"], "backwards from the event");
    assert_eq!(of("events_after"), ["5", "6"], "forwards from the event");
    let state = context["state"].as_array().expect("state");
    assert!(state.iter().any(|event| event["content"]["name"] == "Stoa"));
    let start = context["start"].as_str().expect("start");
    let end = context["end"].as_str().expect("end");
    let before = alice.messages(&room, &format!("dir=b&limit=2&from={}", encode(start))).await.ok();
    assert_eq!(bodies(&before), ["1", "0"]);
    let after = alice.messages(&room, &format!("dir=f&limit=2&from={}", encode(end))).await.ok();
    assert_eq!(bodies(&after), ["7", "8"]);
}

#[tokio::test]
async fn context_of_an_unknown_event_is_not_found() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.get(&format!("/rooms/{room}/context/$nothing")).await.expect(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn the_event_at_a_time_is_found() {
    let (home, alice, bob, room) = two().await;
    let carol = home.user("carol").await;
    let mut sent = Vec::new();
    for n in 0..3 {
        let id = alice.text(&room, &format!("{n}")).await;
        sent.push((alice.event(&room, &id).await.ok()["origin_server_ts"].as_u64().expect("a time"), id));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let path = |dir: &str, ts: u64| format!("/_matrix/client/v1/rooms/{room}/timestamp_to_event?dir={dir}&ts={ts}");
    let (time, id) = &sent[1];
    for (dir, ts) in [("f", *time), ("b", *time), ("f", time - 5), ("b", time + 5)] {
        let found = bob.get(&path(dir, ts)).await.ok();
        assert_eq!((&found["event_id"], &found["origin_server_ts"]), (&json!(id), &json!(time)), "{dir} {ts}");
    }
    let later = sent[2].0 + 1000;
    assert_eq!(bob.get(&path("b", later)).await.ok()["event_id"], sent[2].1);
    bob.get(&path("f", later)).await.expect(404, "M_NOT_FOUND");
    bob.get(&path("b", 1)).await.expect(404, "M_NOT_FOUND");
    bob.get(&path("x", 1)).await.expect_any(&[400], &["M_INVALID_PARAM", "M_UNKNOWN"]);
    carol.get(&path("f", 1)).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn no_time_leads_to_an_event_that_one_may_not_see() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let state = json!([{ "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": "joined" } }]);
    let room = alice.create_room(json!({ "preset": "public_chat", "initial_state": state })).await;
    let hidden = alice.text(&room, "before he came").await;
    let time = alice.event(&room, &hidden).await.ok()["origin_server_ts"].as_u64().expect("a time");
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    bob.join(&room).await.ok();
    let path = format!("/_matrix/client/v1/rooms/{room}/timestamp_to_event?dir=f&ts={time}");
    let found = bob.get(&path).await.ok();
    assert!(found["event_id"] != hidden && found["origin_server_ts"].as_u64() > Some(time), "{found}");
}
