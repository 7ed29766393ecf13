//! Client-Server API, "Key management API": device keys, one-time keys, fallback keys, changed device lists.

use stoa_kit::{Keys, SyncOptions, User, Value, json};

use crate::home;

const CURVE: &str = "signed_curve25519";

async fn upload_device(user: &User, seed: u8) -> Value {
    let keys = Keys::new(seed).device(&user.id, &user.device);
    user.post("/keys/upload", json!({ "device_keys": keys })).await.ok();
    keys
}

fn one_time(user: &User, name: &str) -> Value {
    let keys = Keys::new(9);
    keys.sign(&user.id, &format!("ed25519:{}", user.device), json!({ "key": format!("public-{name}") }))
}

/// Device lists follow encrypted rooms.
fn encrypted() -> Value {
    json!([{ "type": "m.room.encryption", "state_key": "", "content": { "algorithm": "m.megolm.v1.aes-sha2" } }])
}

async fn claim(by: &User, of: &User) -> Value {
    let body = json!({ "one_time_keys": { &of.id: { &of.device: CURVE } } });
    by.post("/keys/claim", body).await.ok()["one_time_keys"][&of.id][&of.device].clone()
}

#[tokio::test]
async fn device_keys_are_found_by_others() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    alice.room_with(&[&bob]).await;
    let keys = upload_device(&alice, 1).await;
    alice.put(&format!("/devices/{}", alice.device), json!({ "display_name": "Laptop" })).await.ok();
    let found = bob.post("/keys/query", json!({ "device_keys": { &alice.id: [] } })).await.ok();
    let device = &found["device_keys"][&alice.id][&alice.device];
    assert_eq!(device["keys"], keys["keys"]);
    assert_eq!(device["signatures"], keys["signatures"]);
    assert_eq!(device["algorithms"], keys["algorithms"]);
}

#[tokio::test]
async fn a_query_may_name_devices() {
    let home = home().await;
    let alice = home.user("alice").await;
    let phone = home.device_of(&alice).await;
    upload_device(&alice, 1).await;
    upload_device(&phone, 2).await;
    let found = alice.post("/keys/query", json!({ "device_keys": { &alice.id: [phone.device] } })).await.ok();
    let devices = found["device_keys"][&alice.id].as_object().expect("devices");
    assert_eq!(devices.keys().collect::<Vec<_>>(), [&phone.device]);
}

#[tokio::test]
async fn keys_that_name_somebody_else_are_refused() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let other_user = Keys::new(1).device(&bob.id, &alice.device);
    let other_device = Keys::new(1).device(&alice.id, "OTHER");
    for keys in [other_user, other_device] {
        let reply = alice.post("/keys/upload", json!({ "device_keys": keys })).await;
        reply.expect_any(&[400], &["M_BAD_JSON", "M_INVALID_PARAM", "M_UNKNOWN"]);
    }
    let found = alice.post("/keys/query", json!({ "device_keys": { &alice.id: [], &bob.id: [] } })).await.ok();
    assert!(found["device_keys"][&bob.id].as_object().is_none_or(|devices| devices.is_empty()), "{found}");
}

#[tokio::test]
async fn one_time_keys_are_counted_and_claimed_once() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    upload_device(&alice, 1).await;
    let keys = json!({ format!("{CURVE}:a"): one_time(&alice, "a"), format!("{CURVE}:b"): one_time(&alice, "b") });
    let counts = alice.post("/keys/upload", json!({ "one_time_keys": keys })).await.ok();
    assert_eq!(counts["one_time_key_counts"][CURVE], 2);
    let (first, second) = (claim(&bob, &alice).await, claim(&bob, &alice).await);
    assert_ne!(first, second);
    assert_eq!(first.as_object().map(|keys| keys.len()), Some(1));
    assert!(claim(&bob, &alice).await.is_null());
    assert_eq!(alice.post("/keys/upload", json!({})).await.ok()["one_time_key_counts"][CURVE].as_u64().unwrap_or(0), 0);
}

#[tokio::test]
async fn two_who_claim_at_once_get_different_keys() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    upload_device(&alice, 1).await;
    let keys: serde_json::Map<String, Value> =
        (0..8).map(|n| (format!("{CURVE}:k{n}"), one_time(&alice, &n.to_string()))).collect();
    alice.post("/keys/upload", json!({ "one_time_keys": keys })).await.ok();
    let (a, b, c, d) = tokio::join!(claim(&bob, &alice), claim(&bob, &alice), claim(&bob, &alice), claim(&bob, &alice));
    let mut names: Vec<String> = [a, b, c, d]
        .iter()
        .flat_map(|keys| keys.as_object().expect("a key").keys().cloned().collect::<Vec<_>>())
        .collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 4);
}

#[tokio::test]
async fn a_one_time_key_cannot_be_changed() {
    let home = home().await;
    let alice = home.user("alice").await;
    upload_device(&alice, 1).await;
    let id = format!("{CURVE}:a");
    alice.post("/keys/upload", json!({ "one_time_keys": { &id: one_time(&alice, "a") } })).await.ok();
    // The same again is no change.
    alice.post("/keys/upload", json!({ "one_time_keys": { &id: one_time(&alice, "a") } })).await.ok();
    let reply = alice.post("/keys/upload", json!({ "one_time_keys": { &id: one_time(&alice, "other") } })).await;
    assert_eq!(reply.status, 400, "{reply:?}");
}

#[tokio::test]
async fn the_fallback_key_serves_when_the_others_are_gone() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    upload_device(&alice, 1).await;
    let mut fallback = one_time(&alice, "fallback");
    fallback["fallback"] = json!(true);
    let body = json!({
        "one_time_keys": { format!("{CURVE}:a"): one_time(&alice, "a") },
        "fallback_keys": { format!("{CURVE}:f"): fallback },
    });
    alice.post("/keys/upload", body).await.ok();
    let unused = |sync: &stoa_kit::Sync| sync.0["device_unused_fallback_key_types"].clone();
    assert_eq!(unused(&alice.sync().await), json!([CURVE]));
    assert!(claim(&bob, &alice).await[format!("{CURVE}:a")].is_object());
    assert!(claim(&bob, &alice).await[format!("{CURVE}:f")].is_object());
    assert!(claim(&bob, &alice).await[format!("{CURVE}:f")].is_object(), "a fallback key is not used up");
    assert_eq!(unused(&alice.sync().await), json!([]));
}

#[tokio::test]
async fn sync_counts_the_one_time_keys() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    upload_device(&alice, 1).await;
    let keys = json!({ format!("{CURVE}:a"): one_time(&alice, "a"), format!("{CURVE}:b"): one_time(&alice, "b") });
    alice.post("/keys/upload", json!({ "one_time_keys": keys })).await.ok();
    let sync = alice.sync().await;
    assert_eq!(sync.0["device_one_time_keys_count"][CURVE], 2);
    claim(&bob, &alice).await;
    let later = alice.sync_since(sync.token()).await;
    assert_eq!(later.0["device_one_time_keys_count"][CURVE], 1);
}

#[tokio::test]
async fn who_shares_a_room_learns_of_new_devices() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    alice.room_with(&[&bob]).await;
    let (from, apart) = (bob.sync().await.token().to_owned(), carol.sync().await.token().to_owned());
    upload_device(&alice, 1).await;
    let sync = bob.sync_until(Some(&from), |sync| sync.changed_devices().contains(&alice.id.as_str())).await;
    let path = format!("/keys/changes?from={}&to={}", stoa_kit::encode(&from), stoa_kit::encode(sync.token()));
    let changes = bob.get(&path).await.ok();
    assert!(changes["changed"].as_array().is_some_and(|users| users.contains(&json!(alice.id))), "{changes}");
    assert!(!carol.sync_since(&apart).await.changed_devices().contains(&alice.id.as_str()));
}

#[tokio::test]
async fn a_long_poll_is_woken_by_a_new_device() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    alice.room_with(&[&bob]).await;
    let from = bob.sync().await.token().to_owned();
    let options = SyncOptions::since(&from).wait(15_000);
    let (sync, _) = tokio::join!(bob.sync_with(&options), async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        upload_device(&alice, 1).await
    });
    assert!(sync.changed_devices().contains(&alice.id.as_str()), "{sync:?}");
}

#[tokio::test]
async fn joining_a_room_brings_its_members_onto_the_list() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    upload_device(&alice, 1).await;
    upload_device(&bob, 2).await;
    let room = alice.create_room(json!({ "preset": "public_chat", "initial_state": encrypted() })).await;
    let (of_alice, of_bob) = (alice.sync().await.token().to_owned(), bob.sync().await.token().to_owned());
    bob.join(&room).await.ok();
    bob.sync_until(Some(&of_bob), |sync| sync.changed_devices().contains(&alice.id.as_str())).await;
    alice.sync_until(Some(&of_alice), |sync| sync.changed_devices().contains(&bob.id.as_str())).await;
}

#[tokio::test]
async fn who_shares_no_room_any_more_is_left() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    upload_device(&bob, 2).await;
    let room = alice.create_room(json!({ "preset": "public_chat", "initial_state": encrypted() })).await;
    bob.join(&room).await.ok();
    let from = alice.sync().await.token().to_owned();
    bob.leave(&room).await.ok();
    let left = |sync: &stoa_kit::Sync| {
        sync.0["device_lists"]["left"].as_array().is_some_and(|users| users.contains(&json!(bob.id)))
    };
    alice.sync_until(Some(&from), left).await;
}

#[tokio::test]
async fn the_keys_of_a_device_go_with_it() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let phone = home.device_of(&alice).await;
    upload_device(&phone, 1).await;
    let keys = json!({ format!("{CURVE}:a"): one_time(&phone, "a") });
    phone.post("/keys/upload", json!({ "one_time_keys": keys })).await.ok();
    alice.room_with(&[&bob]).await;
    let from = bob.sync().await.token().to_owned();
    phone.post("/logout", json!({})).await.ok();
    let found = bob.post("/keys/query", json!({ "device_keys": { &alice.id: [] } })).await.ok();
    assert!(found["device_keys"][&alice.id][&phone.device].is_null(), "{found}");
    assert!(claim(&bob, &phone).await.is_null());
    bob.sync_until(Some(&from), |sync| sync.changed_devices().contains(&alice.id.as_str())).await;
}
