//! Client-Server API, "Receipts", "Fully read markers", and threaded receipts.

use stoa_kit::{Sync, User, Value, json};

use crate::home;

fn receipt(sync: &Sync, room: &str, event: &str, kind: &str, user: &User) -> Option<Value> {
    let events = sync.ephemeral(room).into_iter().filter(|found| found["type"] == "m.receipt");
    events.map(|found| found["content"][event][kind][&user.id].clone()).find(|found| !found.is_null())
}

#[tokio::test]
async fn a_public_receipt_is_told_to_the_room() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let id = alice.text(&room, "read me").await;
    let token = alice.sync().await.token().to_owned();
    bob.receipt(&room, "m.read", &id, json!({})).await.ok();
    let sync = alice.sync_until(Some(&token), |sync| receipt(sync, &room, &id, "m.read", &bob).is_some()).await;
    let data = receipt(&sync, &room, &id, "m.read", &bob).expect("a receipt");
    assert!(data["ts"].as_u64().is_some_and(|time| time > 1_600_000_000_000), "{data}");
    let initial = alice.sync().await;
    assert!(receipt(&initial, &room, &id, "m.read", &bob).is_some(), "an initial sync has the latest receipts");
}

#[tokio::test]
async fn a_private_receipt_is_told_to_its_owner_alone() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let phone = home.device_of(&bob).await;
    let room = alice.room_with(&[&bob]).await;
    let id = alice.text(&room, "read me").await;
    let token = phone.sync().await.token().to_owned();
    bob.receipt(&room, "m.read.private", &id, json!({})).await.ok();
    phone.sync_until(Some(&token), |sync| receipt(sync, &room, &id, "m.read.private", &bob).is_some()).await;
    assert!(!alice.sync().await.0.to_string().contains("m.read.private"));
    let counts = bob.sync().await.joined(&room)["unread_notifications"]["notification_count"].clone();
    assert_eq!(counts, 0, "a private receipt clears the count as well");
}

#[tokio::test]
async fn a_later_receipt_replaces_an_earlier_one() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let (one, two) = (alice.text(&room, "one").await, alice.text(&room, "two").await);
    bob.receipt(&room, "m.read", &one, json!({})).await.ok();
    bob.receipt(&room, "m.read", &two, json!({})).await.ok();
    // Going back is not possible.
    bob.receipt(&room, "m.read", &one, json!({})).await.ok();
    let sync = alice.sync().await;
    assert!(receipt(&sync, &room, &two, "m.read", &bob).is_some());
    assert!(receipt(&sync, &room, &one, "m.read", &bob).is_none());
}

#[tokio::test]
async fn receipts_of_threads_are_apart() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let root = alice.text(&room, "root").await;
    let content = json!({
        "msgtype": "m.text",
        "body": "in the thread",
        "m.relates_to": { "rel_type": "m.thread", "event_id": root },
    });
    let reply = alice.send(&room, "m.room.message", content).await.event_id();
    bob.receipt(&room, "m.read", &reply, json!({ "thread_id": root })).await.ok();
    bob.receipt(&room, "m.read", &root, json!({ "thread_id": "main" })).await.ok();
    let sync = alice.sync().await;
    assert_eq!(receipt(&sync, &room, &reply, "m.read", &bob).expect("of the thread")["thread_id"], root);
    assert_eq!(receipt(&sync, &room, &root, "m.read", &bob).expect("of the rest")["thread_id"], "main");
    // What relates to an event of a thread is in it too.
    let liked = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": reply, "key": "+1" } });
    let liked = alice.send(&room, "m.reaction", liked).await.event_id();
    bob.receipt(&room, "m.read", &liked, json!({ "thread_id": root })).await.ok();
}

#[tokio::test]
async fn unread_counts_of_threads_are_apart_if_asked_for() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let root = alice.text(&room, "root").await;
    bob.receipt(&room, "m.read", &root, json!({})).await.ok();
    let content = json!({
        "msgtype": "m.text",
        "body": "in the thread",
        "m.relates_to": { "rel_type": "m.thread", "event_id": root },
    });
    alice.send(&room, "m.room.message", content).await.ok();
    alice.text(&room, "outside").await;
    let filter = json!({ "room": { "timeline": { "unread_thread_notifications": true } } });
    let sync = bob.sync_with(&stoa_kit::SyncOptions::default().filter(filter)).await;
    assert_eq!(sync.joined(&room)["unread_notifications"]["notification_count"], 1, "{sync:?}");
    assert_eq!(sync.joined(&room)["unread_thread_notifications"][&root]["notification_count"], 1);
    assert_eq!(bob.sync().await.joined(&room)["unread_notifications"]["notification_count"], 2);
}

#[tokio::test]
async fn malformed_receipts_are_refused() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({})).await;
    let id = alice.text(&room, "x").await;
    alice.receipt(&room, "m.nonsense", &id, json!({})).await.expect_any(&[400], &["M_UNKNOWN", "M_INVALID_PARAM"]);
    alice
        .receipt(&room, "m.read", &id, json!({ "thread_id": 5 }))
        .await
        .expect_any(&[400], &["M_INVALID_PARAM", "M_BAD_JSON"]);
    alice.receipt(&room, "m.read", &id, json!({ "thread_id": "" })).await.expect_any(&[400], &["M_INVALID_PARAM"]);
    let stranger = bob.receipt(&room, "m.read", &id, json!({})).await;
    assert!(stranger.status == 403 || stranger.status == 200, "{stranger:?}");
    assert!(receipt(&alice.sync().await, &room, &id, "m.read", &bob).is_none());
}

#[tokio::test]
async fn the_fully_read_marker_is_kept_and_moves_the_receipt_along() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let id = alice.text(&room, "x").await;
    let body = json!({ "m.fully_read": id, "m.read": id });
    bob.post(&format!("/rooms/{room}/read_markers"), body).await.ok();
    assert_eq!(bob.account_data(Some(&room), "m.fully_read").await.ok()["event_id"], id);
    let sync = bob.sync().await;
    assert_eq!(sync.account_data(Some(&room), "m.fully_read"), Some(&json!({ "event_id": id })));
    assert!(receipt(&alice.sync().await, &room, &id, "m.read", &bob).is_some());
    assert!(alice.sync().await.account_data(Some(&room), "m.fully_read").is_none());
}

#[tokio::test]
async fn the_marker_can_be_set_as_a_receipt_too() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let id = alice.text(&room, "x").await;
    alice.receipt(&room, "m.fully_read", &id, json!({})).await.ok();
    assert_eq!(alice.account_data(Some(&room), "m.fully_read").await.ok()["event_id"], id);
}
