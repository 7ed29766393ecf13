//! Client-Server API, "Device management".

use stoa_kit::{Method, Value, json};

use crate::home;

#[tokio::test]
async fn every_login_is_a_device() {
    let home = home().await;
    let alice = home.user("alice").await;
    let phone = home.device_of(&alice).await;
    let list = alice.get("/devices").await.ok();
    let mut ids: Vec<&str> =
        list["devices"].as_array().expect("devices").iter().filter_map(|d| d["device_id"].as_str()).collect();
    ids.sort_unstable();
    let mut both = [alice.device.as_str(), phone.device.as_str()];
    both.sort_unstable();
    assert_eq!(ids, both);
}

#[tokio::test]
async fn a_device_can_be_renamed() {
    let home = home().await;
    let alice = home.user("alice").await;
    let path = format!("/devices/{}", alice.device);
    alice.put(&path, json!({ "display_name": "Old laptop" })).await.ok();
    let device = alice.get(&path).await.ok();
    assert_eq!(device["display_name"], "Old laptop");
    assert_eq!(device["device_id"], alice.device);
}

#[tokio::test]
async fn an_unknown_device_is_not_found() {
    let home = home().await;
    let alice = home.user("alice").await;
    alice.get("/devices/NOPE").await.expect(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_device_is_deleted_with_the_password() {
    let home = home().await;
    let alice = home.user("alice").await;
    let phone = home.device_of(&alice).await;
    let path = format!("/devices/{}", phone.device);
    let asked = alice.delete(&path).await;
    assert_eq!(asked.status, 401);
    let auth = alice.password_stage(asked["session"].as_str().expect("a session"));
    let body = json!({ "auth": auth }).to_string();
    alice.raw(Method::DELETE, &path, "application/json", body).await.ok();
    alice.get(&path).await.expect(404, "M_NOT_FOUND");
    phone.get("/account/whoami").await.expect(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn devices_of_others_cannot_be_seen_or_touched() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let path = format!("/devices/{}", bob.device);
    alice.get(&path).await.expect(404, "M_NOT_FOUND");
    bob.put(&path, json!({ "display_name": "mine" })).await.ok();
    // Synapse and the specification differ in whether a name for an unknown device is an error; it must not be Bob's.
    let _ = alice.put(&path, json!({ "display_name": "yours" })).await;
    assert_eq!(bob.get(&path).await.ok()["display_name"], "mine");
    let _ = alice.post_with_password("/delete_devices", json!({ "devices": [bob.device] })).await;
    bob.get("/account/whoami").await.ok();
}

#[tokio::test]
async fn several_devices_go_at_once() {
    let home = home().await;
    let alice = home.user("alice").await;
    let (phone, tablet) = (home.device_of(&alice).await, home.device_of(&alice).await);
    let body = json!({ "devices": [phone.device, tablet.device] });
    alice.post_with_password("/delete_devices", body).await.ok();
    let left = alice.get("/devices").await.ok();
    assert_eq!(left["devices"].as_array().map(Vec::len), Some(1));
    assert_eq!(left["devices"][0]["device_id"], Value::from(alice.device.clone()));
}
