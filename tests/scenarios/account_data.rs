//! Client-Server API, "Client Config" (account data) and "Room Tagging".

use stoa_kit::{Value, json};

use crate::home;

const KIND: &str = "org.example.settings";

#[tokio::test]
async fn account_data_is_read_as_it_was_written() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let content = json!({ "theme": "dark", "nested": { "list": [1, null, "ü"] } });
    alice.set_account_data(None, KIND, content.clone()).await.ok();
    alice.set_account_data(Some(&room), KIND, json!({ "of": "the room" })).await.ok();
    assert_eq!(alice.account_data(None, KIND).await.ok(), content);
    assert_eq!(alice.account_data(Some(&room), KIND).await.ok(), json!({ "of": "the room" }));
}

#[tokio::test]
async fn what_was_never_written_is_not_found() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.account_data(None, KIND).await.expect(404, "M_NOT_FOUND");
    alice.account_data(Some(&room), KIND).await.expect(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn account_data_of_others_is_forbidden() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let path = format!("/user/{}/account_data/{KIND}", bob.path_id());
    bob.put(&path, json!({ "mine": true })).await.ok();
    alice.get(&path).await.expect(403, "M_FORBIDDEN");
    alice.put(&path, json!({ "mine": false })).await.expect(403, "M_FORBIDDEN");
    assert_eq!(bob.get(&path).await.ok()["mine"], true);
}

#[tokio::test]
async fn sync_tells_every_device_once() {
    let home = home().await;
    let alice = home.user("alice").await;
    let phone = home.device_of(&alice).await;
    let room = alice.create_room(json!({})).await;
    let before = phone.sync().await.token().to_owned();
    alice.set_account_data(None, KIND, json!({ "v": 1 })).await.ok();
    alice.set_account_data(Some(&room), KIND, json!({ "v": 2 })).await.ok();
    let both = |sync: &stoa_kit::Sync| {
        sync.account_data(None, KIND).is_some() && sync.account_data(Some(&room), KIND).is_some()
    };
    let sync = phone.sync_since(&before).await;
    assert!(both(&sync), "{sync:?}");
    let later = phone.sync_since(sync.token()).await;
    assert!(later.account_data(None, KIND).is_none() && later.joined(&room).is_null(), "{later:?}");
    assert!(both(&phone.sync().await), "an initial sync has it too");
}

#[tokio::test]
async fn only_the_owner_is_told() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    alice.set_account_data(Some(&room), KIND, json!({ "secret": true })).await.ok();
    assert!(!bob.sync().await.0.to_string().contains("secret"));
}

#[tokio::test]
async fn what_the_server_controls_cannot_be_written() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.set_account_data(Some(&room), "m.fully_read", json!({ "event_id": "$x" })).await.expect(405, "M_BAD_JSON");
    alice.set_account_data(None, "m.push_rules", json!({ "global": {} })).await.expect(405, "M_BAD_JSON");
}

#[tokio::test]
async fn content_that_is_no_object_is_refused() {
    let home = home().await;
    let alice = home.user("alice").await;
    for wrong in [json!([]), json!("text"), json!(1), Value::Null] {
        let reply = alice.set_account_data(None, KIND, wrong).await;
        reply.expect_any(&[400], &["M_BAD_JSON", "M_NOT_JSON"]);
    }
    alice.account_data(None, KIND).await.expect(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn tags_are_set_listed_synced_and_removed() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let path = format!("/user/{}/rooms/{room}/tags", alice.path_id());
    let before = alice.sync().await.token().to_owned();
    alice.put(&format!("{path}/m.favourite"), json!({ "order": 0.25 })).await.ok();
    alice.put(&format!("{path}/u.work"), json!({})).await.ok();
    let tags = json!({ "m.favourite": { "order": 0.25 }, "u.work": {} });
    assert_eq!(alice.get(&path).await.ok(), json!({ "tags": tags }));
    let sync = alice.sync_since(&before).await;
    assert_eq!(sync.account_data(Some(&room), "m.tag"), Some(&json!({ "tags": tags })));
    alice.delete(&format!("{path}/u.work")).await.ok();
    assert_eq!(alice.get(&path).await.ok(), json!({ "tags": { "m.favourite": { "order": 0.25 } } }));
}
