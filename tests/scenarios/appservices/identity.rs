//! "Registration", "Identity assertion", "Timestamp massaging", "Server admin style permissions", "Device management".

use std::process::Command;
use std::time::Duration;

use stoa_kit::{Bridge, Home, Method, encode, json};

use super::bridged;
use crate::{binary, own};

const SERVICE: &str = "m.login.application_service";

#[tokio::test]
async fn a_service_is_its_sender_or_one_of_its_users() {
    let bridge = Bridge::start("irc").await;
    let Some(home) = bridged(&bridge).await else { return };
    let client = home.client();
    // The sender is there without being registered.
    let own = bridge.ask(client, Method::GET, "/account/whoami", json!({})).await.ok();
    assert_eq!(own, json!({ "user_id": "@_irc_bot:localhost", "is_guest": false }), "and no device");
    let ghost = bridge.ghost(client, "alice").await;
    assert_eq!(ghost, "@_irc_alice:localhost");
    let asked = bridge.ask_as(client, &ghost, Method::GET, "/account/whoami", json!({})).await.ok();
    assert_eq!(asked["user_id"], ghost.as_str());
    // The token in the query, as old bridges send it.
    let path = format!("/account/whoami?access_token={}", bridge.token());
    assert_eq!(client.json(Method::GET, &path, None, None).await.ok()["user_id"], "@_irc_bot:localhost");
}

#[tokio::test]
async fn a_service_is_nobody_else() {
    let bridge = Bridge::start("irc").await;
    let Some(home) = bridged(&bridge).await else { return };
    let client = home.client();
    let alice = home.user("alice").await;
    let whoami = "/account/whoami";
    bridge.ask_as(client, &alice.id, Method::GET, whoami, json!({})).await.expect(403, "M_FORBIDDEN");
    // In the namespace, but never registered; and of another server.
    for user in ["@_irc_nobody:localhost", "@_irc_alice:elsewhere.example", "no user at all"] {
        bridge.ask_as(client, user, Method::GET, whoami, json!({})).await.expect(403, "M_FORBIDDEN");
    }
    // Who is no service cannot name whom to be: it is not looked at.
    let ghost = bridge.ghost(client, "bob").await;
    let asked = alice.get(&format!("{whoami}?user_id={}&device_id=X", encode(&ghost))).await.ok();
    assert_eq!((asked["user_id"].as_str(), asked["device_id"].as_str()), (Some(&*alice.id), Some(&*alice.device)));
}

#[tokio::test]
async fn users_of_a_service_are_registered_by_it_alone() {
    let bridge = Bridge::start("irc").await;
    let Some(home) = bridged(&bridge).await else { return };
    let client = home.client();
    let register = |name: &str| json!({ "type": SERVICE, "username": name });
    let made = bridge.ask(client, Method::POST, "/register", register("_irc_alice")).await.ok();
    assert!(made["access_token"].is_string() && made["device_id"].is_string());
    let again = bridge.ask(client, Method::POST, "/register", register("_irc_alice")).await;
    again.expect(400, "M_USER_IN_USE");
    bridge.ask(client, Method::POST, "/register", register("alice")).await.expect(400, "M_EXCLUSIVE");
    bridge.ask(client, Method::POST, "/register", json!({ "type": SERVICE })).await.expect(400, "M_MISSING_PARAM");
    // Without its token, or with one that is none or somebody's.
    let alice = home.user("alice").await;
    let post = |token| async move { client.json(Method::POST, "/register", token, Some(&register("_irc_eve"))).await };
    post(None).await.expect(401, "M_MISSING_TOKEN");
    post(Some("guess")).await.expect(401, "M_UNKNOWN_TOKEN");
    post(Some(alice.token.as_str())).await.expect(401, "M_UNKNOWN_TOKEN");
    // Nobody else has these names.
    let taken = json!({ "username": "_irc_eve", "password": "a long enough one", "auth": { "type": "m.login.dummy" } });
    client.json(Method::POST, "/register", None, Some(&taken)).await.expect(400, "M_EXCLUSIVE");
    let available = client.json(Method::GET, "/register/available?username=_irc_eve", None, None).await;
    available.expect(400, "M_EXCLUSIVE");
}

#[tokio::test]
async fn users_of_a_service_are_logged_in_by_it() {
    let bridge = Bridge::start("irc").await;
    let Some(home) = bridged(&bridge).await else { return };
    let client = home.client();
    let alice = home.user("alice").await;
    let ghost = bridge.ghost(client, "alice").await;
    let login =
        |user: &str| json!({ "type": SERVICE, "identifier": { "type": "m.id.user", "user": user }, "device_id": "D1" });
    let flows = client.json(Method::GET, "/login", None, None).await.ok();
    assert!(flows["flows"].as_array().is_some_and(|flows| flows.contains(&json!({ "type": SERVICE }))), "{flows}");
    let session = bridge.ask(client, Method::POST, "/login", login("_irc_alice")).await.ok();
    let token = session["access_token"].as_str().expect("a token");
    let who = client.json(Method::GET, "/account/whoami", Some(token), None).await.ok();
    assert_eq!((who["user_id"].as_str(), who["device_id"].as_str()), (Some(&*ghost), Some("D1")));
    bridge.ask(client, Method::POST, "/login", login(&alice.id)).await.expect(400, "M_EXCLUSIVE");
    bridge.ask(client, Method::POST, "/login", login("_irc_nobody")).await.expect(403, "M_FORBIDDEN");
    client.json(Method::POST, "/login", None, Some(&login(&ghost))).await.expect(401, "M_MISSING_TOKEN");
    client.json(Method::POST, "/login", Some(&alice.token), Some(&login(&ghost))).await.expect(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn devices_are_made_and_deleted_without_a_login() {
    let bridge = Bridge::start("irc").await;
    let Some(home) = bridged(&bridge).await else { return };
    let client = home.client();
    let ghost = bridge.ghost(client, "alice").await;
    let put = async |name: &str| {
        bridge.ask_as(client, &ghost, Method::PUT, "/devices/BRIDGE", json!({ "display_name": name })).await
    };
    assert_eq!(put("first").await.status, 201);
    assert_eq!(put("second").await.status, 200);
    let device = bridge.ask_as(client, &ghost, Method::GET, "/devices/BRIDGE", json!({})).await.ok();
    assert_eq!(device["display_name"], "second");
    // The device can be named as the one that asks, by both names of the parameter.
    for parameter in ["device_id", "org.matrix.msc3202.device_id"] {
        let path = format!("/account/whoami?{parameter}=BRIDGE");
        let who = bridge.ask_as(client, &ghost, Method::GET, &path, json!({})).await.ok();
        assert_eq!((who["user_id"].as_str(), who["device_id"].as_str()), (Some(&*ghost), Some("BRIDGE")));
    }
    let other = bridge.ask_as(client, &ghost, Method::GET, "/account/whoami?device_id=NONE", json!({})).await;
    other.expect(400, "M_UNKNOWN_DEVICE");
    // Keys belong to a device.
    let keys = json!({ "one_time_keys": {} });
    bridge.ask_as(client, &ghost, Method::POST, "/keys/upload", keys.clone()).await.expect(400, "M_UNKNOWN");
    bridge.ask_as(client, &ghost, Method::POST, "/keys/upload?device_id=BRIDGE", keys).await.ok();
    bridge.ask_as(client, &ghost, Method::DELETE, "/devices/BRIDGE", json!({})).await.ok();
    bridge.ask_as(client, &ghost, Method::GET, "/devices/BRIDGE", json!({})).await.expect(404, "M_NOT_FOUND");
    // People make devices by logging in.
    let alice = home.user("alice").await;
    alice.put("/devices/NEW", json!({ "display_name": "x" })).await.expect(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_service_says_when_its_events_were_sent() {
    let bridge = Bridge::start("irc").await;
    let Some(home) = bridged(&bridge).await else { return };
    let client = home.client();
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let ghost = bridge.ghost(client, "alice").await;
    let path = format!("/rooms/{}", encode(&room));
    bridge.ask_as(client, &ghost, Method::POST, &format!("{path}/join"), json!({})).await.ok();
    let ts = async |event: &str| {
        alice.get(&format!("{path}/event/{}", encode(event))).await.ok()["origin_server_ts"].as_u64().expect("a time")
    };
    let message = json!({ "msgtype": "m.text", "body": "long ago" });
    let send = format!("{path}/send/m.room.message");
    let old = bridge.ask_as(client, &ghost, Method::PUT, &format!("{send}/1?ts=534535000"), message.clone()).await;
    assert_eq!(ts(&old.event_id()).await, 534_535_000);
    // Only the sender's own is let in for state, by the powers; so about the ghost itself.
    let member = format!("{path}/state/m.room.member/{}?ts=534536000", encode(&ghost));
    let renamed = json!({ "membership": "join", "displayname": "Alice of IRC" });
    let old = bridge.ask_as(client, &ghost, Method::PUT, &member, renamed).await;
    assert_eq!(ts(&old.event_id()).await, 534_536_000);
    for wrong in ["-1", "soon", "9007199254740992"] {
        let sent = bridge.ask_as(client, &ghost, Method::PUT, &format!("{send}/2?ts={wrong}"), message.clone()).await;
        sent.expect(400, "M_INVALID_PARAM");
    }
    // What people say of it is not looked at.
    let now = alice.put(&format!("{send}/3?ts=534535000"), message.clone()).await.event_id();
    assert!(ts(&now).await > 1_600_000_000_000);
}

#[tokio::test]
async fn aliases_of_a_service_are_its_own() {
    let bridge = Bridge::start("irc").await;
    let Some(home) = bridged(&bridge).await else { return };
    let client = home.client();
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let body = json!({ "room_id": room });
    let path = |name: &str| format!("/directory/room/{}", encode(&format!("#{name}:localhost")));
    alice.put(&path("_irc_chat"), body.clone()).await.expect(400, "M_EXCLUSIVE");
    let room = alice.post("/createRoom", json!({ "room_alias_name": "_irc_chat" })).await;
    room.expect(400, "M_EXCLUSIVE");
    bridge.ask(client, Method::PUT, &path("_irc_chat"), body.clone()).await.ok();
    alice.delete(&path("_irc_chat")).await.expect(400, "M_EXCLUSIVE");
    bridge.ask(client, Method::PUT, &path("free"), body.clone()).await.expect(400, "M_EXCLUSIVE");
    alice.put(&path("free"), body).await.ok();
    bridge.ask(client, Method::DELETE, &path("_irc_chat"), json!({})).await.ok();
}

#[tokio::test]
async fn rate_limits_hold_for_services_that_say_so() {
    let quick = Bridge::start("quick").await;
    let slow = Bridge::start("slow").await.with("rate_limited", json!(true));
    let Some(launch) = own() else { return };
    let files = [quick.register_at(&launch), slow.register_at(&launch)].map(|file| file.display().to_string());
    let home = Home::launch(launch.env("STOA_APPSERVICE", &files.join(",")).env("STOA_RATE_LIMITS", "on")).await;
    let client = home.client();
    let limited = async |bridge: &Bridge, ghost: Option<&str>| {
        for i in 0..80 {
            let body = json!({ "visibility": "private" });
            let reply = match ghost {
                // Rooms that are not there: it counts all the same.
                Some(ghost) => {
                    let path = format!("/rooms/!none:localhost/send/m.x/{i}");
                    bridge.ask_as(client, ghost, Method::PUT, &path, body).await
                }
                None => bridge.ask(client, Method::PUT, &format!("/rooms/!none:localhost/send/m.x/{i}"), body).await,
            };
            if reply.status == 429 {
                return true;
            }
        }
        false
    };
    let (a, b) = (quick.ghost(client, "a").await, slow.ghost(client, "b").await);
    assert!(!limited(&quick, Some(&a)).await);
    assert!(limited(&slow, Some(&b)).await);
    assert!(!limited(&slow, None).await, "the sender is excluded");
}

#[tokio::test]
async fn registrations_are_read_again_on_a_signal() {
    let Some(launch) = own() else { return };
    let (one, two) = (Bridge::start("one").await, Bridge::start("two").await);
    let folder = launch.folder().join("bridges");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::rename(one.register_at(&launch), folder.join("one.yaml")).expect("moved");
    let home = Home::launch(launch.env("STOA_APPSERVICE", &folder.display().to_string())).await;
    let client = home.client();
    let whoami = async |bridge: &Bridge| bridge.ask(client, Method::GET, "/account/whoami", json!({})).await.status;
    assert_eq!((whoami(&one).await, whoami(&two).await), (200, 401));
    let hang_up = || {
        let pid = home.pid().expect("a process").to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().is_ok_and(|status| status.success()));
    };
    // What cannot be used changes nothing.
    std::fs::write(folder.join("broken.yaml"), "id: x").expect("written");
    hang_up();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((whoami(&one).await, whoami(&two).await), (200, 401));
    std::fs::remove_file(folder.join("broken.yaml")).expect("removed");
    std::fs::remove_file(folder.join("one.yaml")).expect("removed");
    std::fs::rename(two.register_at(home.how()), folder.join("two.yaml")).expect("moved");
    hang_up();
    for _ in 0..100 {
        if (whoami(&one).await, whoami(&two).await) == (401, 200) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not read again:\n{}", home.how().log());
}

#[tokio::test]
async fn d3_62_registrations_that_cannot_be_are_said_at_the_start() {
    if own().is_none() {
        return;
    }
    let bridge = Bridge::start("irc").await;
    let launch = stoa_kit::Launch::new(binary());
    for (setting, value, said) in [
        ("as_token", json!(""), "as_token"),
        ("hs_token", json!(null), "hs_token"),
        ("sender_localpart", json!("Not A Name"), "sender_localpart"),
        ("url", json!("ftp://127.0.0.1"), "url"),
        ("namespaces", json!({ "users": [{ "regex": "@(", "exclusive": true }] }), "namespaces.users"),
        ("namespaces", json!({ "users": [{ "regex": "@x" }] }), "exclusive"),
    ] {
        let broken = bridge.clone().with(setting, value).known_to(launch.clone());
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
        assert!(broken.start_on(free).await.is_none(), "{said}");
        let log = broken.log();
        assert!(log.contains(said) && log.contains("irc.yaml"), "{said}: {log}");
        assert!(!log.contains("hs_token_of_irc"), "no secrets in the log: {log}");
    }
}
