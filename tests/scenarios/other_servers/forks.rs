//! Somebody forks a room: it stays usable, and what our users say brings it together again.

use stoa_kit::{Value, encode, json};

use super::{Meeting, path};

/// How many events follow one and the same.
const FORKS: usize = 200;

#[tokio::test]
async fn two_hundred_forks_come_together_as_people_speak() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let room = alice.public_room().await;
    let (join, answer) = other.join(home, &room, &other.user("bob")).await;
    let levels = alice.all_state(&room).await.into_iter().find(|event| event["type"] == "m.room.power_levels");
    let levels = levels.expect("power levels")["event_id"].clone();
    let depth = answer["event"]["depth"].as_u64().expect("a depth");
    let fork = |n: usize| {
        other.event(json!({
            "type": "m.room.message", "room_id": room, "sender": other.user("bob"), "depth": depth + 1,
            "origin_server_ts": 1_700_000_000_000_u64, "prev_events": [join], "auth_events": [levels, join],
            "content": { "msgtype": "m.text", "body": format!("fork {n}") },
        }))
    };
    let forks: Vec<Value> = (0..FORKS).map(|n| fork(n).1).collect();
    for part in forks.chunks(50) {
        other.send(home, &part.iter().collect::<Vec<_>>()).await.ok();
    }
    // Each event of Alice follows at most twenty, and after some there is one end again.
    let mut named = 0;
    let mut last = String::new();
    for n in 0..12 {
        last = alice.text(&room, &format!("{n}")).await;
        let told = other.get(home, &path("event", &[&last])).await.ok();
        let prev = told["pdus"][0]["prev_events"].as_array().expect("prev_events").len();
        assert!((1..=20).contains(&prev), "{prev}");
        named += prev;
    }
    // All forks, and each of her events but the last: what says nothing may have come in between.
    assert!(named >= FORKS, "{named}");
    let told = other.get(home, &path("event", &[&last])).await.ok();
    assert_eq!(told["pdus"][0]["prev_events"].as_array().map(Vec::len), Some(1), "{told}");
    // Everybody's words are there.
    let history = alice.whole_history(&room).await;
    let said = history.iter().filter(|event| event["content"]["body"].as_str().is_some_and(|it| it.contains("fork")));
    assert_eq!(said.count(), FORKS);
}

#[tokio::test]
async fn what_says_nothing_is_not_shown() {
    let Some(meeting) = Meeting::new().await else { return };
    let (alice, room) = meeting.shared_room().await;
    let before = alice.sync().await;
    let path = format!("/_matrix/client/v3/rooms/{}/send/org.matrix.dummy_event/1", encode(&room));
    let id = alice.put(&path, json!({})).await.ok()["event_id"].as_str().expect("an id").to_owned();
    let said = alice.text(&room, "hello").await;
    let sync = alice.sync_until(Some(before.token()), |sync| sync.has(&room, &said)).await;
    assert!(!sync.has(&room, &id));
    assert!(!alice.whole_history(&room).await.iter().any(|event| event["event_id"] == id.as_str()));
}
