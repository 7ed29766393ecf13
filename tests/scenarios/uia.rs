//! Client-Server API, "User-Interactive Authentication API", and what it guards: passwords, deactivation, deletion.

use stoa_kit::{User, json};

use crate::home;

#[tokio::test]
async fn a_guarded_request_is_asked_for_a_stage_and_then_done() {
    let home = home().await;
    let alice = home.user("alice").await;
    let phone = home.device_of(&alice).await;
    let path = "/delete_devices";
    let body = json!({ "devices": [phone.device] });
    let asked = alice.post(path, body.clone()).await;
    assert_eq!(asked.status, 401);
    assert!(
        asked["flows"].as_array().is_some_and(|flows| flows.iter().any(|f| f["stages"] == json!(["m.login.password"])))
    );
    let session = asked["session"].as_str().expect("a session");
    alice.post(path, json!({ "devices": [phone.device], "auth": alice.password_stage(session) })).await.ok();
    phone.get("/account/whoami").await.expect(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn a_wrong_password_keeps_the_session_open() {
    let home = home().await;
    let alice = home.user("alice").await;
    let phone = home.device_of(&alice).await;
    let path = "/delete_devices";
    let asked = alice.post(path, json!({ "devices": [phone.device] })).await;
    let session = asked["session"].as_str().expect("a session").to_owned();
    let mut stage = alice.password_stage(&session);
    stage["password"] = json!("wrong");
    let again = alice.post(path, json!({ "devices": [phone.device], "auth": stage })).await;
    assert_eq!(again.status, 401);
    assert_eq!(again["errcode"], "M_FORBIDDEN");
    assert_eq!(again["session"], session);
    phone.get("/account/whoami").await.ok();
    let right = alice.password_stage(&session);
    alice.post(path, json!({ "devices": [phone.device], "auth": right })).await.ok();
}

#[tokio::test]
async fn another_users_password_does_not_authorise() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let phone = home.device_of(&alice).await;
    let path = "/delete_devices";
    let asked = alice.post(path, json!({ "devices": [phone.device] })).await;
    let stage = bob.password_stage(asked["session"].as_str().expect("a session"));
    let reply = alice.post(path, json!({ "devices": [phone.device], "auth": stage })).await;
    assert!(reply.status == 401 || reply.status == 403, "{reply:?}");
    phone.get("/account/whoami").await.ok();
}

#[tokio::test]
async fn a_stage_that_is_in_no_flow_does_not_authorise() {
    let home = home().await;
    let alice = home.user("alice").await;
    let phone = home.device_of(&alice).await;
    let path = "/delete_devices";
    let asked = alice.post(path, json!({ "devices": [phone.device] })).await;
    let stage = json!({ "type": "m.login.dummy", "session": asked["session"] });
    let reply = alice.post(path, json!({ "devices": [phone.device], "auth": stage })).await;
    assert!(reply.status == 401 || reply.status == 400, "{reply:?}");
    phone.get("/account/whoami").await.ok();
}

#[tokio::test]
async fn a_session_that_never_was_is_refused() {
    let home = home().await;
    let alice = home.user("alice").await;
    let body = json!({ "devices": ["X"], "auth": { "session": "never", "type": "m.login.dummy" } });
    let reply = alice.post("/delete_devices", body).await;
    assert!((400..500).contains(&reply.status), "{reply:?}");
}

#[tokio::test]
async fn a_new_password_replaces_the_old_and_ends_other_devices() {
    let home = home().await;
    let alice = home.user("alice").await;
    let phone = home.device_of(&alice).await;
    let body = json!({ "new_password": "an even longer password" });
    alice.post_with_password("/account/password", body).await.ok();
    alice.get("/account/whoami").await.ok();
    phone.get("/account/whoami").await.expect(401, "M_UNKNOWN_TOKEN");
    let old = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": alice.id },
        "password": alice.password,
    });
    home.post("/login", old).await.expect(403, "M_FORBIDDEN");
    User::login(home.client(), &alice.id, "an even longer password").await;
}

#[tokio::test]
async fn other_devices_stay_if_the_user_says_so() {
    let home = home().await;
    let alice = home.user("alice").await;
    let phone = home.device_of(&alice).await;
    let body = json!({ "new_password": "an even longer password", "logout_devices": false });
    alice.post_with_password("/account/password", body).await.ok();
    phone.get("/account/whoami").await.ok();
}

#[tokio::test]
async fn a_deactivated_account_is_gone_for_good() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let token = alice.sync().await.token().to_owned();
    bob.post_with_password("/account/deactivate", json!({})).await.ok();
    bob.get("/account/whoami").await.expect(401, "M_UNKNOWN_TOKEN");
    let login = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": bob.id },
        "password": bob.password,
    });
    home.post("/login", login).await.expect_any(&[403], &["M_USER_DEACTIVATED", "M_FORBIDDEN"]);
    let body = json!({ "username": bob.localpart(), "password": "a long password" });
    home.register(body).await.expect(400, "M_USER_IN_USE");
    // "The homeserver should remove the user from all rooms": the others see them leave.
    let left = |event: &&stoa_kit::Value| event["state_key"] == bob.id && event["content"]["membership"] == "leave";
    alice.sync_until(Some(&token), |sync| sync.timeline(&room).iter().any(left)).await;
}
