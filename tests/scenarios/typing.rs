//! Client-Server API, "Typing Notifications".

use std::time::Duration;

use stoa_kit::{Sync, json};

use crate::home;

fn typing(sync: &Sync, room: &str) -> Option<Vec<String>> {
    let events = sync.ephemeral(room).into_iter();
    let event = events.rev().find(|event| event["type"] == "m.typing")?;
    let users = event["content"]["user_ids"].as_array()?;
    Some(users.iter().filter_map(|user| user.as_str().map(str::to_owned)).collect())
}

#[tokio::test]
async fn others_see_who_types_and_who_stops() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let token = bob.sync().await.token().to_owned();
    alice.typing(&room, true).await.ok();
    let sync = bob.sync_until(Some(&token), |sync| typing(sync, &room).is_some()).await;
    assert_eq!(typing(&sync, &room), Some(vec![alice.id.clone()]));
    let token = sync.token().to_owned();
    alice.typing(&room, false).await.ok();
    let sync = bob.sync_until(Some(&token), |sync| typing(sync, &room).is_some()).await;
    assert_eq!(typing(&sync, &room), Some(vec![]));
}

#[tokio::test]
async fn typing_ends_by_itself() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let token = bob.sync().await.token().to_owned();
    let path = format!("/rooms/{room}/typing/{}", alice.path_id());
    alice.put(&path, json!({ "typing": true, "timeout": 1_000 })).await.ok();
    let sync = bob.sync_until(Some(&token), |sync| typing(sync, &room).is_some_and(|users| !users.is_empty())).await;
    let token = sync.token().to_owned();
    bob.sync_until(Some(&token), |sync| typing(sync, &room).is_some_and(|users| users.is_empty())).await;
}

#[tokio::test]
async fn a_long_poll_is_woken() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let token = bob.sync().await.token().to_owned();
    let start = tokio::time::Instant::now();
    let (sync, ()) = tokio::join!(bob.sync_until(Some(&token), |sync| typing(sync, &room).is_some()), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        alice.typing(&room, true).await.ok();
    });
    assert_eq!(typing(&sync, &room), Some(vec![alice.id.clone()]));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn nobody_types_for_another_or_where_they_are_not() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({})).await;
    let path = format!("/rooms/{room}/typing/{}", alice.path_id());
    bob.put(&path, json!({ "typing": true, "timeout": 1_000 }))
        .await
        .expect_any(&[400, 403], &["M_FORBIDDEN", "M_UNKNOWN"]);
    bob.typing(&room, true).await.expect(403, "M_FORBIDDEN");
    assert!(typing(&alice.sync().await, &room).is_none_or(|users| users.is_empty()));
}

#[tokio::test]
async fn malformed_typing_is_refused() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let path = format!("/rooms/{room}/typing/{}", alice.path_id());
    for wrong in [json!({}), json!([]), json!({ "typing": "yes" })] {
        let reply = alice.put(&path, wrong.clone()).await;
        if crate::strict() || wrong["typing"].is_null() {
            crate::refused(&reply);
        }
    }
}
