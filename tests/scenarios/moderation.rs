//! Locking, suspending and looking up accounts: Client-Server API, "Account moderation", "Server Administration".

use stoa_kit::{Home, User, encode, json};

use crate::own;

/// A homeserver, its administrator, and two people in a room of the first.
async fn moderated() -> Option<(Home, User, User, User, String)> {
    let home = Home::launch(own()?).await;
    let (root, alice, bob) = (home.administrator().await, home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    Some((home, root, alice, bob, room))
}

fn lock(user: &User) -> String {
    format!("/_matrix/client/v1/admin/lock/{}", encode(&user.id))
}

fn suspend(user: &User) -> String {
    format!("/_matrix/client/v1/admin/suspend/{}", encode(&user.id))
}

#[tokio::test]
async fn d3_67_to_lock_is_to_lock() {
    let Some((home, root, alice, bob, room)) = moderated().await else { return };
    assert_eq!(root.get(&lock(&alice)).await.ok(), json!({ "locked": false }));
    assert_eq!(root.put(&lock(&alice), json!({ "locked": true })).await.ok(), json!({ "locked": true }));
    assert_eq!(root.get(&lock(&alice)).await.ok(), json!({ "locked": true }));
    assert_eq!(root.get(&suspend(&alice)).await.ok(), json!({ "suspended": false }), "the other measure is another");
    for reply in [
        alice.get("/sync").await,
        alice.get("/account/whoami").await,
        alice.put(&format!("/rooms/{}/send/m.room.message/1", encode(&room)), json!({ "body": "x" })).await,
        alice.get(&format!("/rooms/{}/messages?dir=b", encode(&room))).await,
    ] {
        assert_eq!(reply.expect(401, "M_USER_LOCKED")["soft_logout"], true);
    }
    // Who has the password is told; who has not is not.
    let login = |password: &str| {
        let identifier = json!({ "type": "m.id.user", "user": alice.id });
        json!({ "type": "m.login.password", "identifier": identifier, "password": password })
    };
    home.post("/login", login(&alice.password)).await.expect(401, "M_USER_LOCKED");
    home.post("/login", login("wrong")).await.expect(403, "M_FORBIDDEN");
    // Unlocked, the session goes on.
    root.put(&lock(&alice), json!({ "locked": false })).await.ok();
    alice.text(&room, "here again").await;
    bob.text(&room, "welcome").await;
    root.put(&lock(&alice), json!({ "locked": true })).await.ok();
    alice.post("/logout", json!({})).await.ok();
    alice.get("/account/whoami").await.expect(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn d3_54_locked_and_ended_accounts_get_in_by_no_way() {
    let Some((home, root, alice, ..)) = moderated().await else { return };
    let body =
        json!({ "type": "m.login.password", "user": alice.id, "password": alice.password, "refresh_token": true });
    let session = home.post("/login", body.clone()).await.ok();
    let token = alice.post_with_password("/_matrix/client/v1/login/get_token", json!({})).await.ok();
    let by_token = json!({ "type": "m.login.token", "token": token["login_token"] });
    let refresh = json!({ "refresh_token": session["refresh_token"] });
    root.put(&lock(&alice), json!({ "locked": true })).await.ok();
    home.post("/login", by_token).await.expect(401, "M_USER_LOCKED");
    home.post("/refresh", refresh.clone()).await.expect(401, "M_USER_LOCKED");
    root.put(&lock(&alice), json!({ "locked": false })).await.ok();
    let token = alice.post_with_password("/_matrix/client/v1/login/get_token", json!({})).await.ok();
    let by_token = json!({ "type": "m.login.token", "token": token["login_token"] });
    alice.post_with_password("/account/deactivate", json!({})).await.ok();
    home.post("/login", by_token).await.expect(403, "M_USER_DEACTIVATED");
    home.post("/login", body).await.expect(403, "M_USER_DEACTIVATED");
    home.post("/refresh", refresh).await.expect(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn who_is_suspended_reads_and_leaves_and_does_not_speak() {
    let Some((_home, root, alice, bob, room)) = moderated().await else { return };
    let (own, other) = (alice.text(&room, "mine").await, bob.text(&room, "yours").await);
    let elsewhere = bob.public_room().await;
    let invited = bob.create_room(json!({ "invite": [&alice.id] })).await;
    root.put(&suspend(&alice), json!({ "suspended": true })).await.ok();
    assert_eq!(root.get(&suspend(&alice)).await.ok(), json!({ "suspended": true }));
    let at = encode(&room);
    for (method, path, body) in [
        ("put", format!("/rooms/{at}/send/m.room.message/s1"), json!({ "body": "x" })),
        ("put", format!("/rooms/{at}/state/m.room.topic"), json!({ "topic": "x" })),
        ("put", format!("/rooms/{at}/redact/{}/s2", encode(&other)), json!({})),
        ("post", format!("/rooms/{at}/invite"), json!({ "user_id": root.id })),
        ("post", format!("/join/{}", encode(&elsewhere)), json!({})),
        ("post", format!("/rooms/{}/join", encode(&invited)), json!({})),
        ("post", format!("/knock/{}", encode(&elsewhere)), json!({})),
        ("put", format!("/profile/{}/displayname", encode(&alice.id)), json!({ "displayname": "x" })),
        ("post", "/createRoom".to_owned(), json!({})),
    ] {
        let reply = if method == "put" { alice.put(&path, body).await } else { alice.post(&path, body).await };
        reply.expect(403, "M_USER_SUSPENDED");
    }
    bob.text(&room, "can you hear me?").await;
    assert!(alice.get(&format!("/rooms/{at}/messages?dir=b")).await.ok().to_string().contains("can you hear me?"));
    alice.get("/sync").await.ok();
    alice.put(&format!("/rooms/{at}/redact/{}/s3", encode(&own)), json!({})).await.ok();
    alice.post(&format!("/rooms/{}/leave", encode(&invited)), json!({})).await.ok();
    alice.post(&format!("/rooms/{at}/leave"), json!({})).await.ok();
    root.put(&suspend(&alice), json!({ "suspended": false })).await.ok();
    alice.create_room(json!({})).await;
}

#[tokio::test]
async fn only_administrators_take_measures_and_not_against_each_other() {
    let Some((home, root, alice, bob, _)) = moderated().await else { return };
    let second = home.administrator().await;
    let nobody = format!("/_matrix/client/v1/admin/lock/{}", encode("@nobody:localhost"));
    let far = format!("/_matrix/client/v1/admin/lock/{}", encode("@alice:far.example"));
    // Who is none is not told who exists.
    for path in [lock(&bob), suspend(&bob), nobody.clone(), far.clone()] {
        alice.get(&path).await.expect(403, "M_FORBIDDEN");
        alice.put(&path, json!({ "locked": true, "suspended": true })).await.expect(403, "M_FORBIDDEN");
    }
    root.get(&nobody).await.expect(404, "M_NOT_FOUND");
    root.get(&far).await.expect(400, "M_INVALID_PARAM");
    for path in [lock(&root), lock(&second), suspend(&root), suspend(&second)] {
        root.put(&path, json!({ "locked": true, "suspended": true })).await.expect(403, "M_FORBIDDEN");
    }
    root.put(&lock(&bob), json!({ "locked": "yes" })).await.expect(400, "M_BAD_JSON");
    assert_eq!(root.get("/capabilities").await.ok()["capabilities"]["m.account_moderation"]["lock"], true);
    assert!(alice.get("/capabilities").await.ok()["capabilities"].get("m.account_moderation").is_none());
}

#[tokio::test]
async fn people_are_looked_up_by_themselves_and_by_administrators() {
    let Some((_home, root, alice, bob, _)) = moderated().await else { return };
    let path = format!("/admin/whois/{}", encode(&alice.id));
    for who in [&root, &alice] {
        let found = who.get(&path).await.ok();
        assert_eq!(found["user_id"], alice.id);
        assert!(found["devices"][&alice.device]["sessions"][0]["connections"][0]["ip"].is_string(), "{found}");
    }
    bob.get(&path).await.expect(403, "M_FORBIDDEN");
    root.get("/admin/whois/@nobody:localhost").await.expect(404, "M_NOT_FOUND");
}
