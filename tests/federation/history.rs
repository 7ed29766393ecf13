//! Server-Server API, "Backfilling and retrieving missing events": what was said before one's server came.

use std::collections::BTreeSet;

use stoa_kit::{SyncOptions, User, Value, encode, json};

use crate::{Two, accept, aliased_room, arrives, becomes, between, eventually};

between!(all_of_it_by_paging_back);
async fn all_of_it_by_paging_back(two: Two) {
    let (alice, bob) = two.users().await;
    let (room, alias) = aliased_room(&alice, json!({})).await;
    let ids = alice.texts(&room, (0..230).map(|n| format!("old {n}"))).await;
    bob.join(&alias).await.ok();
    let mut history = back_to_the_beginning(&two, &bob, &room, ids.len()).await;
    history.reverse();
    let found: Vec<&str> = history
        .iter()
        .filter(|event| event["type"] == "m.room.message")
        .filter_map(|event| event["event_id"].as_str())
        .collect();
    let places: Vec<_> = found.iter().map(|id| ids.iter().position(|sent| sent == id)).collect();
    assert_eq!(places, (0..230).map(Some).collect::<Vec<_>>());
    let all: BTreeSet<&str> = history.iter().filter_map(|event| event["event_id"].as_str()).collect();
    assert_eq!(all.len(), history.len(), "nothing twice");
}

/// All history of a room, newest first: so many events at least. While it still fetches, Synapse sometimes says that there is no
/// more, or leaves out the middle.
async fn back_to_the_beginning(two: &Two, bob: &User, room: &str, events: usize) -> Vec<Value> {
    let whole = |history: &Vec<Value>| {
        history.len() > events && history.last().is_some_and(|event| event["type"] == "m.room.create")
    };
    if two.b.home.how().is_synapse() {
        let asked = async || Some(bob.whole_history(room).await).filter(whole);
        return eventually("all history of the room", asked).await;
    }
    let history = bob.whole_history(room).await;
    assert!(whole(&history), "back to the beginning, not to {:?}", history.last());
    history
}

between!(a_page_that_is_full_just_where_history_is_missing);
async fn a_page_that_is_full_just_where_history_is_missing(two: Two) {
    let (alice, bob) = two.users().await;
    let (room, alias) = aliased_room(&alice, json!({})).await;
    alice.texts(&room, (0..10).map(|n| format!("old {n}"))).await;
    bob.join(&alias).await.ok();
    becomes(&alice, &room, &bob, "join").await;
    let last = alice.texts(&room, (0..3).map(|n| format!("new {n}"))).await.pop().expect("three");
    arrives(&bob, &room, &last).await;
    if two.b.home.how().is_synapse() {
        // While it fetches it sometimes says that there is no more.
        return;
    }
    // What is held since the join is a page of four: each of these has the rest behind it.
    for limit in [3, 4, 5] {
        let page = bob.messages(&room, &format!("dir=b&limit={limit}")).await.ok();
        assert_eq!(page["chunk"].as_array().map(Vec::len), Some(limit));
        assert!(page["end"].is_string(), "there is more behind a page of {limit}");
    }
}

between!(from_the_token_of_a_sync);
async fn from_the_token_of_a_sync(two: Two) {
    let (alice, bob) = two.users().await;
    let (room, alias) = aliased_room(&alice, json!({})).await;
    alice.texts(&room, (0..30).map(|n| format!("old {n}"))).await;
    bob.join(&alias).await.ok();
    // Until the whole state is there Synapse shows the room only to those who load members lazily.
    let options = SyncOptions::default().filter(User::timeline_filter(5));
    let shown = async || Some(bob.sync_with(&options).await).filter(|sync| !sync.joined(&room).is_null());
    let sync = eventually("the room in a sync", shown).await;
    let token = sync.joined(&room)["timeline"]["prev_batch"].as_str().expect("prev_batch").to_owned();
    let mut bodies: Vec<String> = Vec::new();
    let mut query = format!("dir=b&limit=20&from={}", encode(&token));
    for _ in 0..20 {
        let page = bob.messages(&room, &query).await.ok();
        let chunk = page["chunk"].as_array().expect("chunk");
        bodies.extend(chunk.iter().filter_map(|event| event["content"]["body"].as_str()).map(str::to_owned));
        let Some(end) = page["end"].as_str() else { break };
        query = format!("dir=b&limit=20&from={}", encode(end));
    }
    let shown: Vec<String> = sync.bodies(&room).into_iter().rev().map(str::to_owned).collect();
    let wanted: Vec<String> = (0..30).rev().map(|n| format!("old {n}")).collect();
    assert_eq!([shown, bodies].concat(), wanted);
}

between!(only_since_joining);
async fn only_since_joining(two: Two) {
    let (alice, bob) = two.users().await;
    let visibility = json!([{ "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": "joined" } }]);
    let (room, alias) = aliased_room(&alice, json!({ "initial_state": visibility })).await;
    let before = alice.text(&room, "before").await;
    bob.join(&alias).await.ok();
    becomes(&alice, &room, &bob, "join").await;
    let after = alice.text(&room, "after").await;
    arrives(&bob, &room, &after).await;
    let history = bob.whole_history(&room).await;
    assert!(history.iter().any(|event| event["event_id"] == after));
    assert!(!history.iter().any(|event| event["content"]["body"] == "before"), "{history:?}");
    let seen = bob.event(&room, &before).await;
    assert!(seen.status >= 400, "{seen:?}");
}

between!(since_the_invite);
async fn since_the_invite(two: Two) {
    let (alice, bob) = two.users().await;
    let visibility = json!([
        { "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": "invited" } },
    ]);
    let room = alice.create_room(json!({ "preset": "private_chat", "initial_state": visibility })).await;
    alice.text(&room, "before").await;
    alice.invite(&room, &bob).await.ok();
    alice.text(&room, "between").await;
    accept(&bob, &room).await;
    becomes(&alice, &room, &bob, "join").await;
    let history = bob.whole_history(&room).await;
    let bodies: Vec<&str> = history.iter().filter_map(|event| event["content"]["body"].as_str()).collect();
    assert_eq!(bodies, ["between"]);
}

// Synapse leaves out the neighbours of an event that it fetched late.
between!(around_an_event, not_to_synapse);
async fn around_an_event(two: Two) {
    let (alice, bob) = two.users().await;
    let (room, alias) = aliased_room(&alice, json!({})).await;
    let ids = alice.texts(&room, (0..60).map(|n| format!("old {n}"))).await;
    bob.join(&alias).await.ok();
    // A link to a message leads there although nobody has paged so far back: at the latest after having done so.
    back_to_the_beginning(&two, &bob, &room, ids.len()).await;
    let path = format!("/rooms/{}/context/{}?limit=4", encode(&room), encode(&ids[10]));
    let found = bob.get(&path).await.ok();
    assert_eq!(found["event"]["event_id"], ids[10]);
    let places = |part: &str| -> Vec<Option<usize>> {
        let events = found[part].as_array().expect("events");
        events.iter().map(|event| ids.iter().position(|id| event["event_id"] == *id)).collect()
    };
    assert_eq!(places("events_before"), [Some(9), Some(8)]);
    assert_eq!(places("events_after"), [Some(11), Some(12)]);
}

between!(an_event_by_its_time, ignore_to_stoa = "asking for an event by its time is not there yet");
async fn an_event_by_its_time(two: Two) {
    let (alice, bob) = two.users().await;
    let (room, alias) = aliased_room(&alice, json!({})).await;
    let ids = alice.texts(&room, (0..5).map(|n| format!("old {n}"))).await;
    let time = alice.event(&room, &ids[2]).await.ok()["origin_server_ts"].as_u64().expect("a time");
    // So long that the others are not from the same moment.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    alice.texts(&room, (5..40).map(|n| format!("old {n}"))).await;
    bob.join(&alias).await.ok();
    let path = format!("/_matrix/client/v1/rooms/{}/timestamp_to_event?dir=f&ts={time}", encode(&room));
    let there = async || {
        let reply = bob.get(&path).await;
        let found = reply["event_id"].as_str().map(str::to_owned);
        // Two messages may be of the same millisecond.
        found.filter(|found| ids.contains(found))
    };
    eventually("an event of that time, from the other server", there).await;
}

between!(events_by_time);
async fn events_by_time(two: Two) {
    let (alice, bob) = two.users().await;
    for (one, other) in [(&alice, &bob), (&bob, &alice)] {
        let (room, alias) = aliased_room(one, json!({})).await;
        let mut sent = Vec::new();
        for n in 0..40 {
            let id = one.text(&room, &format!("message {n}")).await;
            if n == 5 {
                let time = one.event(&room, &id).await.ok()["origin_server_ts"].as_u64().expect("a time");
                sent.push((id, time));
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
        other.join(&alias).await.ok();
        other.sync_until(None, |sync| !sync.joined(&room).is_null()).await;
        let (id, time) = &sent[0];
        let path = |dir: &str, ts: u64| {
            format!("/_matrix/client/v1/rooms/{}/timestamp_to_event?dir={dir}&ts={ts}", encode(&room))
        };
        // From before the other server was in the room.
        let found = async || (other.get(&path("b", time + 10)).await.json["event_id"] == *id).then_some(());
        eventually("the event of that time", found).await;
        let context = format!("/rooms/{}/context/{}?limit=4", encode(&room), encode(id));
        let around = async || (other.get(&context).await.json["event"]["event_id"] == *id).then_some(());
        eventually("the event itself", around).await;
    }
}
