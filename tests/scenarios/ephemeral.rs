//! User-defined ephemeral events: MSC2477, which no released specification has yet. They live on the bus of typing.

use std::time::Duration;

use stoa_kit::{Home, Reply, Sync, SyncOptions, User, Value, encode, json, unique};

use crate::{home, own};

const LIVE: &str = "chat.stoa.drawing.live";

/// Only on a homeserver that knows them.
async fn knowing() -> Option<Home> {
    own()?;
    Some(home().await)
}

async fn send(user: &User, room: &str, kind: &str, txn: &str, content: Value) -> Reply {
    let path = format!("/_matrix/client/unstable/org.matrix.msc2477/rooms/{}/ephemeral/{kind}/{txn}", encode(room));
    user.put(&path, content).await
}

fn live(sync: &Sync, room: &str) -> Vec<Value> {
    sync.ephemeral(room).into_iter().filter(|event| event["type"] == LIVE).cloned().collect()
}

#[tokio::test]
async fn they_reach_the_members_of_the_room() {
    let Some(home) = knowing().await else { return };
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let token = bob.sync().await.token().to_owned();
    let content = json!({ "points": [[1, 2], [3, 4]] });
    send(&alice, &room, LIVE, "1", content.clone()).await.ok();
    let sync = bob.sync_until(Some(&token), |sync| !live(sync, &room).is_empty()).await;
    let event = &live(&sync, &room)[0];
    assert_eq!((&event["content"], &event["sender"]), (&content, &json!(alice.id)));
    assert!(bob.sync_since(sync.token()).await.ephemeral(&room).is_empty());
}

#[tokio::test]
async fn they_are_not_history() {
    let Some(home) = knowing().await else { return };
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    send(&alice, &room, LIVE, "1", json!({ "n": 1 })).await.ok();
    assert!(alice.whole_history(&room).await.iter().all(|event| event["type"] != LIVE));
}

#[tokio::test]
async fn they_wake_who_waits_and_keep_their_order() {
    let Some(home) = knowing().await else { return };
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let mut token = bob.sync().await.token().to_owned();
    let follow = async {
        let mut seen = Vec::new();
        while seen.len() < 20 {
            let sync = bob.sync_with(&SyncOptions::since(&token).wait(10_000)).await;
            assert!(!live(&sync, &room).is_empty(), "it stopped after {seen:?}");
            seen.extend(live(&sync, &room).iter().map(|event| event["content"]["n"].clone()));
            token = sync.token().to_owned();
        }
        seen
    };
    let draw = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        for n in 0..20 {
            send(&alice, &room, LIVE, &unique(), json!({ "n": n })).await.ok();
        }
    };
    let (seen, ()) = tokio::join!(follow, draw);
    assert_eq!(seen, (0..20).map(|n| json!(n)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_repeated_transaction_is_one_event() {
    let Some(home) = knowing().await else { return };
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let token = bob.sync().await.token().to_owned();
    for _ in 0..3 {
        send(&alice, &room, LIVE, "same", json!({ "n": 1 })).await.ok();
    }
    let sync = bob.sync_until(Some(&token), |sync| !live(sync, &room).is_empty()).await;
    assert_eq!(live(&sync, &room).len(), 1);
    assert!(live(&bob.sync_since(sync.token()).await, &room).is_empty());
}

#[tokio::test]
async fn power_levels_rule_them() {
    let Some(home) = knowing().await else { return };
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    alice.change_power(&room, |levels| levels["ephemeral_default"] = json!(0)).await;
    send(&bob, &room, LIVE, "1", json!({})).await.ok();
    alice.change_power(&room, |levels| levels["ephemeral"] = json!({ LIVE: 50 })).await;
    send(&bob, &room, LIVE, "2", json!({})).await.expect(403, "M_FORBIDDEN");
    send(&alice, &room, LIVE, "3", json!({})).await.ok();
}

#[tokio::test]
async fn outsiders_neither_send_nor_receive_them() {
    let Some(home) = knowing().await else { return };
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.public_room().await;
    send(&bob, &room, LIVE, "1", json!({})).await.expect(403, "M_FORBIDDEN");
    bob.join(&room).await.ok();
    bob.leave(&room).await.ok();
    let token = bob.sync().await.token().to_owned();
    send(&alice, &room, LIVE, "2", json!({ "secret": 1 })).await.ok();
    assert!(!bob.sync_since(&token).await.0.to_string().contains("secret"));
}

#[tokio::test]
async fn the_types_of_the_specification_are_not_for_users() {
    let Some(home) = knowing().await else { return };
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    for kind in ["m.typing", "m.receipt", "m.presence"] {
        let reply = send(&alice, &room, kind, &unique(), json!({})).await;
        assert!(reply.status == 400 || reply.status == 403, "{reply:?}");
    }
}

#[tokio::test]
async fn large_ones_are_refused() {
    let Some(home) = knowing().await else { return };
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let reply = send(&alice, &room, LIVE, "1", json!({ "x": "y".repeat(70_000) })).await;
    reply.expect(413, "M_TOO_LARGE");
}
