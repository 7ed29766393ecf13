//! Guests: Client-Server API, "Guest Access".

use stoa_kit::{Home, User, encode, json};

use crate::own;

const GUESTS: &str = "[registration]\nmode = \"open\"\nguests = true\n";

async fn with_guests() -> Option<Home> {
    Some(Home::launch(own()?.with_config(GUESTS)).await)
}

async fn guest(home: &Home) -> User {
    User::from_reply(home.client(), &home.post("/register?kind=guest", json!({})).await.ok(), "")
}

#[tokio::test]
async fn there_are_none_by_default() {
    let Some(launch) = own() else { return };
    let home = Home::launch(launch).await;
    home.post("/register?kind=guest", json!({})).await.expect(403, "M_FORBIDDEN");
    home.post("/register?kind=robot", json!({})).await.expect(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn a_guest_comes_only_where_guests_may() {
    let Some(home) = with_guests().await else { return };
    let alice = home.user("alice").await;
    let (open, shut) = (alice.public_room().await, alice.public_room().await);
    alice.set_state(&open, "m.room.guest_access", "", json!({ "guest_access": "can_join" })).await.ok();
    let guest = guest(&home).await;
    assert_eq!(guest.get("/account/whoami").await.ok()["is_guest"], true);
    guest.post(&format!("/join/{}", encode(&shut)), json!({})).await.expect(403, "M_GUEST_ACCESS_FORBIDDEN");
    let member = format!("/rooms/{}/state/m.room.member/{}", encode(&shut), encode(&guest.id));
    guest.put(&member, json!({ "membership": "join" })).await.expect(403, "M_GUEST_ACCESS_FORBIDDEN");
    guest.join(&open).await.ok();
    let said = guest.text(&open, "hello from a guest").await;
    alice.sync_until(None, |sync| sync.has(&open, &said)).await;
    // The door is closed: who came by it goes.
    alice.set_state(&open, "m.room.guest_access", "", json!({ "guest_access": "forbidden" })).await.ok();
    let left = |members: &stoa_kit::Value| members["joined"].get(&guest.id).is_none();
    for _ in 0..200 {
        if left(&alice.get(&format!("/rooms/{}/joined_members", encode(&open))).await.ok()) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("the guest is still there");
}

#[tokio::test]
async fn a_guest_does_what_guests_do() {
    let Some(home) = with_guests().await else { return };
    let alice = home.user("alice").await;
    let readable = alice.create_room(json!({
        "preset": "public_chat",
        "initial_state": [{ "type": "m.room.history_visibility", "content": { "history_visibility": "world_readable" } }],
    })).await;
    alice.text(&readable, "for all the world").await;
    let guest = guest(&home).await;
    let seen = guest.get(&format!("/rooms/{}/messages?dir=b", encode(&readable))).await.ok();
    assert!(seen.to_string().contains("for all the world"));
    guest.get("/sync").await.ok();
    let name = format!("/profile/{}/displayname", encode(&guest.id));
    guest.put(&name, json!({ "displayname": "Visitor" })).await.ok();
    let picture = format!("/profile/{}/avatar_url", encode(&guest.id));
    let forbidden = [
        guest.put(&picture, json!({ "avatar_url": "mxc://localhost/x" })).await,
        guest.post("/createRoom", json!({})).await,
        guest.post("/account/password", json!({ "new_password": "another password" })).await,
        guest.post("/_matrix/client/v1/login/get_token", json!({})).await,
        guest.put(&format!("/user/{}/account_data/x.y", encode(&guest.id)), json!({})).await,
        guest.post(&format!("/rooms/{}/invite", encode(&readable)), json!({ "user_id": alice.id })).await,
        guest.get("/account/3pid").await,
    ];
    for reply in forbidden {
        assert_eq!((reply.status, &reply["errcode"]), (403, &json!("M_GUEST_ACCESS_FORBIDDEN")), "{reply:?}");
    }
}

#[tokio::test]
async fn a_guest_can_stay() {
    let Some(home) = with_guests().await else { return };
    let (one, other) = (guest(&home).await, guest(&home).await);
    let body = |name: &str, token: &str| json!({ "username": name, "password": "a long password", "guest_access_token": token });
    // Only under the own name, and with the own token.
    home.register(body("somebody", &one.token)).await.expect(403, "M_FORBIDDEN");
    home.register(body(one.localpart(), &other.token)).await.expect(403, "M_FORBIDDEN");
    home.register(body(one.localpart(), "nonsense")).await.expect(403, "M_FORBIDDEN");
    let stays = home.register(body(one.localpart(), &one.token)).await.ok();
    assert_eq!(stays["user_id"], one.id);
    // The guest's own session is a user's now.
    assert_eq!(one.get("/account/whoami").await.ok()["is_guest"], false);
    one.create_room(json!({})).await;
    let by_password = User::login(home.client(), &one.id, "a long password").await;
    assert_eq!(by_password.get("/account/whoami").await.ok()["is_guest"], false);
    home.register(body(one.localpart(), &one.token)).await.expect(403, "M_FORBIDDEN");
}
