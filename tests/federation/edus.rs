//! Server-Server API, "EDUs": typing, receipts and presence between servers. (Device lists and to-device: `keys`.)

use std::time::Duration;

use stoa_kit::{Sync, User, Value, encode, json};

use crate::{Two, arrives, between, eventually, shared_room};

/// Who types, as a sync says; `None` if it says nothing about it.
fn typists(sync: &Sync, room: &str) -> Option<Vec<String>> {
    let typing = sync.ephemeral(room).into_iter().rfind(|event| event["type"] == "m.typing")?;
    let users = typing["content"]["user_ids"].as_array().expect("user_ids");
    Some(users.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

between!(typing);
async fn typing(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    for (writer, reader) in [(&alice, &bob), (&bob, &alice)] {
        let token = reader.sync().await.token().to_owned();
        writer.typing(&room, true).await.ok();
        let begun = |sync: &Sync| typists(sync, &room) == Some(vec![writer.id.clone()]);
        let token = reader.sync_until(Some(&token), begun).await.token().to_owned();
        writer.typing(&room, false).await.ok();
        reader.sync_until(Some(&token), |sync| typists(sync, &room) == Some(Vec::new())).await;
    }
}

between!(receipts);
async fn receipts(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    for (writer, reader) in [(&alice, &bob), (&bob, &alice)] {
        let event = writer.text(&room, "read me").await;
        arrives(reader, &room, &event).await;
        let token = writer.sync().await.token().to_owned();
        reader.receipt(&room, "m.read", &event, json!({})).await.ok();
        let read = |sync: &Sync| receipt(sync, &room, "m.read", &event, &reader.id).is_some();
        let sync = writer.sync_until(Some(&token), read).await;
        let receipt = receipt(&sync, &room, "m.read", &event, &reader.id).expect("found a moment ago");
        assert!(receipt["ts"].as_u64().is_some_and(|ts| ts > 1_600_000_000_000), "{receipt}");
    }
}

fn receipt(sync: &Sync, room: &str, kind: &str, event: &str, user: &str) -> Option<Value> {
    let mut found = sync.ephemeral(room).into_iter().filter(|event| event["type"] == "m.receipt");
    found.find_map(|receipts| receipts["content"][event][kind].get(user).cloned())
}

between!(receipts_in_threads);
async fn receipts_in_threads(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    let root = alice.text(&room, "root").await;
    let relation = json!({ "rel_type": "m.thread", "event_id": root });
    let content = json!({ "msgtype": "m.text", "body": "in the thread", "m.relates_to": relation });
    let reply = alice.send(&room, "m.room.message", content).await.event_id();
    arrives(&bob, &room, &reply).await;
    let token = alice.sync().await.token().to_owned();
    bob.receipt(&room, "m.read", &reply, json!({ "thread_id": root })).await.ok();
    let read = |sync: &Sync| {
        receipt(sync, &room, "m.read", &reply, &bob.id).is_some_and(|receipt| receipt["thread_id"] == root)
    };
    alice.sync_until(Some(&token), read).await;
}

between!(private_receipts_stay_at_home);
async fn private_receipts_stay_at_home(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    let event = alice.text(&room, "read me in secret").await;
    arrives(&bob, &room, &event).await;
    let token = alice.sync().await.token().to_owned();
    bob.receipt(&room, "m.read.private", &event, json!({})).await.ok();
    // What comes after it has overtaken it, if it is on the way.
    let last = bob.text(&room, "later").await;
    arrives(&alice, &room, &last).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let sync = alice.sync_since(&token).await;
    let ephemeral = json!(sync.ephemeral(&room)).to_string();
    assert!(!ephemeral.contains("m.read.private") && !ephemeral.contains(&bob.id), "{ephemeral}");
}

between!(presence);
async fn presence(two: Two) {
    let (alice, bob) = two.users().await;
    shared_room(&alice, &bob).await;
    for (shown, watcher) in [(&alice, &bob), (&bob, &alice)] {
        let token = watcher.sync().await.token().to_owned();
        let status = format!("in the garden of {}", shown.localpart());
        set_presence(shown, "unavailable", &status).await;
        let seen = |sync: &Sync| {
            let events = sync.0["presence"]["events"].as_array().cloned().unwrap_or_default();
            events.iter().any(|event| event["sender"] == shown.id && event["content"]["status_msg"] == status)
        };
        watcher.sync_until(Some(&token), seen).await;
        let path = format!("/presence/{}/status", encode(&shown.id));
        let asked = async || (watcher.get(&path).await.ok()["status_msg"] == status).then_some(());
        eventually("the status when asked for", asked).await;
    }
}

async fn set_presence(user: &User, presence: &str, status: &str) {
    let path = format!("/presence/{}/status", encode(&user.id));
    user.put(&path, json!({ "presence": presence, "status_msg": status })).await.ok();
}
