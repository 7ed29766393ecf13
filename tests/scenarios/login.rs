//! Login and logout: Client-Server API, "Client Authentication", "Login", "Refreshing access tokens", "Soft logout".

use stoa_kit::{Home, User, json};

use crate::{home, own};

#[tokio::test]
async fn password_login_is_offered() {
    let home = home().await;
    let flows = home.get("/login").await.ok();
    let flows = flows["flows"].as_array().expect("flows");
    assert!(flows.iter().any(|flow| flow["type"] == "m.login.password"));
}

#[tokio::test]
async fn a_password_gives_a_token_that_whoami_knows() {
    let home = home().await;
    let alice = home.user("alice").await;
    let phone = home.device_of(&alice).await;
    assert_ne!(alice.device, phone.device);
    assert_ne!(alice.token, phone.token);
    let me = phone.get("/account/whoami").await.ok();
    assert_eq!(me["user_id"], alice.id);
    assert_eq!(me["device_id"], phone.device);
}

#[tokio::test]
async fn the_localpart_alone_identifies_a_user() {
    let home = home().await;
    let alice = home.user("alice").await;
    let phone = User::login(home.client(), alice.localpart(), &alice.password).await;
    assert_eq!(phone.id, alice.id);
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_look_the_same() {
    let home = home().await;
    let alice = home.user("alice").await;
    let attempt = |user: String| {
        home.post(
            "/login",
            json!({
                "type": "m.login.password",
                "identifier": { "type": "m.id.user", "user": user },
                "password": "wrong",
            }),
        )
    };
    let wrong = attempt(alice.id.clone()).await.expect(403, "M_FORBIDDEN");
    let unknown = attempt(format!("{}-nobody", alice.localpart())).await.expect(403, "M_FORBIDDEN");
    assert_eq!(wrong["error"], unknown["error"]);
}

#[tokio::test]
async fn an_unknown_login_type_is_refused() {
    let home = home().await;
    home.post("/login", json!({ "type": "m.login.telepathy" }))
        .await
        .expect_any(&[400], &["M_UNKNOWN", "M_INVALID_PARAM"]);
}

#[tokio::test]
async fn logging_in_to_a_device_again_replaces_its_token() {
    let home = home().await;
    let alice = home.user("alice").await;
    let again = home.post(
        "/login",
        json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": alice.id },
            "password": alice.password,
            "device_id": alice.device,
        }),
    );
    let again = User::from_reply(home.client(), &again.await.ok(), &alice.password);
    assert_eq!(again.device, alice.device);
    again.get("/account/whoami").await.ok();
    if crate::strict() {
        alice.get("/account/whoami").await.expect(401, "M_UNKNOWN_TOKEN");
    }
}

#[tokio::test]
async fn a_new_device_has_the_name_that_login_gave_it() {
    let home = home().await;
    let alice = home.user("alice").await;
    let reply = home.post(
        "/login",
        json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": alice.id },
            "password": alice.password,
            "device_id": "TABLET",
            "initial_device_display_name": "Tablet in the kitchen",
        }),
    );
    assert_eq!(reply.await.ok()["device_id"], "TABLET");
    assert_eq!(alice.get("/devices/TABLET").await.ok()["display_name"], "Tablet in the kitchen");
}

#[tokio::test]
async fn logout_ends_the_token_and_the_device() {
    let home = home().await;
    let alice = home.user("alice").await;
    let phone = home.device_of(&alice).await;
    phone.post("/logout", json!({})).await.ok();
    phone.get("/account/whoami").await.expect(401, "M_UNKNOWN_TOKEN");
    alice.get(&format!("/devices/{}", phone.device)).await.expect(404, "M_NOT_FOUND");
    alice.get("/account/whoami").await.ok();
}

#[tokio::test]
async fn logout_all_ends_every_token() {
    let home = home().await;
    let alice = home.user("alice").await;
    let phone = home.device_of(&alice).await;
    phone.post("/logout/all", json!({})).await.ok();
    for device in [&alice, &phone] {
        device.get("/account/whoami").await.expect(401, "M_UNKNOWN_TOKEN");
    }
    assert!(
        home.device_of(&alice).await.get("/devices").await.ok()["devices"].as_array().is_some_and(|d| d.len() == 1)
    );
}

#[tokio::test]
async fn a_missing_token_and_an_unknown_token_are_different_errors() {
    let home = home().await;
    home.get("/account/whoami").await.expect(401, "M_MISSING_TOKEN");
    let mut alice = home.user("alice").await;
    alice.token.push('x');
    alice.get("/account/whoami").await.expect(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn a_refresh_token_gives_new_tokens_once() {
    let home = home().await;
    let alice = home.user("alice").await;
    let login = home.post(
        "/login",
        json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": alice.id },
            "password": alice.password,
            "refresh_token": true,
        }),
    );
    let first = login.await.ok();
    assert!(first["expires_in_ms"].as_u64().is_some_and(|time| time > 0), "{first}");
    let second = home.post("/refresh", json!({ "refresh_token": first["refresh_token"] })).await.ok();
    assert_ne!(first["access_token"], second["access_token"]);
    let mut phone = alice.clone();
    phone.token = second["access_token"].as_str().expect("a token").to_owned();
    assert_eq!(phone.get("/account/whoami").await.ok()["device_id"], first["device_id"]);
    let third = home.post("/refresh", json!({ "refresh_token": second["refresh_token"] })).await.ok();
    phone.token = third["access_token"].as_str().expect("a token").to_owned();
    phone.get("/account/whoami").await.ok();
    // The first refresh token was used up when its successor was used.
    home.post("/refresh", json!({ "refresh_token": first["refresh_token"] }))
        .await
        .expect_any(&[401, 403], &["M_UNKNOWN_TOKEN", "M_FORBIDDEN"]);
}

#[tokio::test]
async fn a_refresh_token_that_never_was_is_unknown() {
    let home = home().await;
    home.post("/refresh", json!({ "refresh_token": "never" })).await.expect(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn another_client_logs_in_by_a_token_once() {
    let home = home().await;
    let alice = home.user("alice").await;
    let flows = home.get("/login").await.ok();
    assert!(flows["flows"].as_array().is_some_and(|flows| flows.iter().any(|flow| flow["get_login_token"] == true)));
    let get = "/_matrix/client/v1/login/get_token";
    // Each token needs a new proof.
    assert_eq!(alice.post(get, json!({})).await.status, 401);
    let first = alice.post_with_password(get, json!({})).await.ok();
    assert!(first["expires_in_ms"].as_u64().is_some_and(|life| life > 0));
    assert_eq!(alice.post(get, json!({})).await.status, 401);
    let body = json!({ "type": "m.login.token", "token": first["login_token"], "device_id": "PHONE" });
    let session = home.post("/login", body.clone()).await.ok();
    assert_eq!((&session["user_id"], &session["device_id"]), (&json!(alice.id), &json!("PHONE")));
    home.post("/login", body).await.expect(403, "M_FORBIDDEN");
    home.post("/login", json!({ "type": "m.login.token", "token": "made up" })).await.expect(403, "M_FORBIDDEN");
    home.post("/login", json!({ "type": "m.login.token" })).await.expect(400, "M_MISSING_PARAM");
}

/// What `python3` signed with "of a test" (HS256): for carol, issued by "the staff list", until 2100.
const SIGNED: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJjYXJvbCIsIm5hbWUiOiJDYXJvbCBDLiIsImlzcyI6InRoZSBzdGFmZiBsaXN0IiwiZXhwIjo0MTAyNDQ0ODAwfQ.3ZgxVsX-PbpPXkMGXP3Hd45puEttzwkcWPkpKNSk_OQ";
/// The same, until 2020.
const ENDED: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJjYXJvbCIsImlzcyI6InRoZSBzdGFmZiBsaXN0IiwiZXhwIjoxNjAwMDAwMDAwfQ.LtACAR-L-huzdLO_ZNdCuDAhOBGCcMRMbMcfQAEvrQg";
/// The same as the first, signed with another secret.
const FORGED: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJjYXJvbCIsImlzcyI6InRoZSBzdGFmZiBsaXN0IiwiZXhwIjo0MTAyNDQ0ODAwfQ.X7b3atdnlSnWO0X4TvdSxl5-Y2LvRAsZxzX1aJX3WvQ";

#[tokio::test]
async fn who_brings_what_the_trusted_one_signed_is_let_in() {
    let Some(launch) = own() else { return };
    let jwt = r#"{ secret = "of a test", issuer = "the staff list", display_name_claim = "name" }"#;
    let home = Home::launch(launch.with_config(&format!("[login]\njwt = {jwt}\n"))).await;
    let kind = "org.matrix.login.jwt";
    assert!(home.get("/login").await.ok().to_string().contains(kind));
    for token in [ENDED, FORGED, "nonsense", "", "a.b.c"] {
        home.post("/login", json!({ "type": kind, "token": token })).await.expect(403, "M_FORBIDDEN");
    }
    let first = home.post("/login", json!({ "type": kind, "token": SIGNED })).await.ok();
    assert_eq!(first["user_id"], "@carol:localhost");
    let again = home.post("/login", json!({ "type": kind, "token": SIGNED })).await.ok();
    assert_ne!(first["device_id"], again["device_id"]);
    let carol = User::from_reply(home.client(), &again, "");
    assert_eq!(carol.get("/profile/@carol:localhost").await.ok()["displayname"], "Carol C.");
    // An account without a password has none that would do.
    for password in ["", "carol", "password"] {
        let body = json!({ "type": "m.login.password", "user": "carol", "password": password });
        home.post("/login", body).await.expect(403, "M_FORBIDDEN");
    }
    let plain = Home::launch(own().expect("as above")).await;
    plain.post("/login", json!({ "type": kind, "token": SIGNED })).await.expect(400, "M_UNKNOWN");
}

#[tokio::test]
async fn d3_46_a_password_stage_does_nothing_for_an_account_without_one() {
    let Some(launch) = own() else { return };
    let jwt = r#"{ secret = "of a test", issuer = "the staff list" }"#;
    let home = Home::launch(launch.with_config(&format!("[login]\njwt = {jwt}\n"))).await;
    let reply = home.post("/login", json!({ "type": "org.matrix.login.jwt", "token": SIGNED })).await.ok();
    let carol = User::from_reply(home.client(), &reply, "");
    let path = "/account/password";
    for password in [json!(""), json!("anything"), json!(null), json!({}), json!(["x"])] {
        let asked = carol.post(path, json!({ "new_password": "a long password" })).await;
        let auth = json!({
            "type": "m.login.password",
            "session": asked["session"],
            "identifier": { "type": "m.id.user", "user": carol.id },
            "password": password,
        });
        let reply = carol.post(path, json!({ "new_password": "a long password", "auth": auth })).await;
        assert!(matches!(reply.status, 400 | 401 | 403), "{reply:?}");
    }
}
