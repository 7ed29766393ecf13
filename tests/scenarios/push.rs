//! Client-Server API, "Push Notifications"; Push Gateway API: what phones are told, by a gateway that works and by one that does
//! not, and what `/notifications` lists.

mod faults;
mod invites;
mod list;
mod model;
mod web;

use stoa_kit::{Gateway, Home, Launch, User, Value, encode, json, unique};

use crate::own;

/// Gateways on loopback may be told.
const SETTINGS: &str = "[push]\nrequire_https = false\nip_range_allow = [\"127.0.0.0/8\"]\n";

/// A homeserver that may do so.
fn launch() -> Option<Launch> {
    Some(own()?.with_config(SETTINGS))
}

/// Alice, who writes; Bob, who has a phone; their room, in which there is a third, so that it is no talk between two; and the
/// gateway of the phone.
struct Scene {
    home: Home,
    alice: User,
    bob: User,
    room: String,
    gateway: Gateway,
}

impl Scene {
    async fn new() -> Option<Scene> {
        let home = Home::launch(launch()?).await;
        let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
        let room = alice.room_with(&[&bob, &carol]).await;
        let gateway = Gateway::start().await;
        let scene = Scene { home, alice, bob, room, gateway };
        // What was there before the phone is no news to it.
        let first = scene.alice.text(&scene.room, "before").await;
        scene.bob.receipt(&scene.room, "m.read", &first, json!({})).await.ok();
        Some(scene)
    }

    /// Bob's phone, told everything.
    async fn phone(&self) -> String {
        set_pusher(&self.bob, &self.gateway.url(), json!({})).await
    }
}

/// Sets a pusher with this in `data`, and gives its key.
async fn set_pusher(user: &User, url: &str, data: Value) -> String {
    let key = unique();
    user.post("/pushers/set", pusher(&key, url, data)).await.ok();
    key
}

fn pusher(key: &str, url: &str, mut data: Value) -> Value {
    data["url"] = json!(url);
    json!({
        "pushkey": key, "kind": "http", "app_id": "org.example.app", "app_display_name": "App",
        "device_display_name": "Phone", "profile_tag": "tag", "lang": "en", "data": data,
    })
}

#[tokio::test]
async fn a_phone_is_told_of_a_message() {
    let Some(Scene { home: _home, alice, bob, room, gateway }) = Scene::new().await else { return };
    alice.put(&format!("/profile/{}/displayname", alice.path_id()), json!({ "displayname": "Alice" })).await.ok();
    alice.set_state(&room, "m.room.name", "", json!({ "name": "Mission Control" })).await.ok();
    let key = set_pusher(&bob, &gateway.url(), json!({ "brand": "example" })).await;
    let id = alice.text(&room, "I'm floating").await;
    let pushed = gateway.event(&id).await;
    assert!(pushed.head.starts_with("POST /_matrix/push/v1/notify "), "{}", pushed.head);
    assert_eq!(pushed.header("content-type"), Some("application/json"));
    let mut told = pushed.notification().clone();
    let since = told["devices"][0]["pushkey_ts"].take();
    assert!(
        since.as_u64().is_some_and(|ts| (1_500_000_000..10_000_000_000).contains(&ts)),
        "seconds since 1970: {since}"
    );
    let expected = json!({
        "event_id": id,
        "room_id": room,
        "type": "m.room.message",
        "sender": alice.id,
        "sender_display_name": "Alice",
        "room_name": "Mission Control",
        "content": { "msgtype": "m.text", "body": "I'm floating" },
        "prio": "low",
        "counts": { "unread": 1 },
        "devices": [{ "app_id": "org.example.app", "pushkey": key, "pushkey_ts": null, "data": { "brand": "example" } }],
    });
    assert_eq!(told, expected);
}

#[tokio::test]
async fn who_wants_ids_only_is_told_ids_only() {
    let Some(Scene { home: _home, alice, bob, room, gateway }) = Scene::new().await else { return };
    set_pusher(&bob, &gateway.url(), json!({ "format": "event_id_only" })).await;
    let id = alice.text(&room, "secret").await;
    let pushed = gateway.event(&id).await;
    let mut told = pushed.notification().clone();
    let device = told["devices"][0].take();
    assert_eq!(device["data"], json!({ "format": "event_id_only" }));
    assert_eq!(
        told,
        json!({ "event_id": id, "room_id": room, "prio": "low", "counts": { "unread": 1 }, "devices": [null] })
    );
    assert!(!String::from_utf8_lossy(&pushed.body).contains("secret"));
}

#[tokio::test]
async fn a_mention_makes_a_noise_and_wakes() {
    let Some(scene) = Scene::new().await else { return };
    scene.phone().await;
    let Scene { alice, bob, room, gateway, .. } = &scene;
    let mention = json!({ "msgtype": "m.text", "body": "hey", "m.mentions": { "user_ids": [bob.id] } });
    let id = alice.send(room, "m.room.message", mention).await.event_id();
    let pushed = gateway.event(&id).await;
    assert_eq!(pushed.notification()["prio"], "high");
    let tweaks = &pushed.notification()["devices"][0]["tweaks"];
    assert_eq!((&tweaks["highlight"], &tweaks["sound"]), (&json!(true), &json!("default")));
}

#[tokio::test]
async fn who_is_invited_is_told() {
    let Some(scene) = Scene::new().await else { return };
    scene.phone().await;
    let Scene { alice, bob, gateway, .. } = &scene;
    let room = alice.create_room(json!({ "name": "Party", "invite": [bob.id] })).await;
    let pushed = gateway.until(|pushed| pushed.notification()["room_id"] == room.as_str()).await;
    let told = pushed.notification();
    assert_eq!((&told["type"], &told["user_is_target"]), (&json!("m.room.member"), &json!(true)));
    assert_eq!((&told["content"]["membership"], &told["room_name"]), (&json!("invite"), &json!("Party")));
    assert_eq!(told["counts"], json!({ "unread": 1 }));
    // Who has said no has nothing more to see.
    bob.leave(&room).await.ok();
    gateway.badge(0).await;
}

#[tokio::test]
async fn nobody_is_told_what_is_none_of_theirs() {
    let Some(scene) = Scene::new().await else { return };
    scene.phone().await;
    let Scene { home, alice, bob, room, gateway, .. } = &scene;
    // One's own, notices, what a muted room says, who is ignored, and who is no member any more.
    bob.text(room, "mine").await;
    alice.send(room, "m.room.message", json!({ "msgtype": "m.notice", "body": "a bot" })).await.ok();
    let quiet = alice.room_with(&[bob]).await;
    let mute = json!({ "actions": [], "conditions": [{ "kind": "event_match", "key": "room_id", "pattern": quiet }] });
    bob.put(&format!("/pushrules/global/override/{}", encode(&quiet)), mute).await.ok();
    alice.text(&quiet, "muted").await;
    let mallory = home.user("mallory").await;
    alice.invite(room, &mallory).await.ok();
    mallory.join(room).await.ok();
    let ignored = json!({ "ignored_users": { &mallory.id: {} } });
    bob.set_account_data(None, "m.ignored_user_list", ignored).await.ok();
    mallory.text(room, "ignored").await;
    let left = alice.room_with(&[bob]).await;
    bob.leave(&left).await.ok();
    alice.text(&left, "gone").await;
    let last = alice.text(room, "last").await;
    let pushed = gateway.event(&last).await;
    // Of the invites that came before Bob was in he may have heard.
    let told = gateway.taken();
    let messages = told.iter().filter(|pushed| pushed.notification()["type"] != "m.room.member");
    assert_eq!(messages.filter_map(|pushed| pushed.event_id()).collect::<Vec<_>>(), [last]);
    // What is ignored or muted does not count either.
    assert_eq!(pushed.notification()["counts"]["unread"], 1);
}

#[tokio::test]
async fn reading_takes_the_number_down() {
    let Some(scene) = Scene::new().await else { return };
    scene.phone().await;
    let Scene { alice, bob, room, gateway, .. } = &scene;
    let second = alice.room_with(&[bob]).await;
    alice.text(&second, "elsewhere").await;
    for n in 1..=3 {
        let id = alice.text(room, &format!("{n}")).await;
        assert_eq!(gateway.event(&id).await.notification()["counts"]["unread"], n + 1);
    }
    let last = gateway.events().last().cloned().expect("an event");
    bob.receipt(room, "m.read", &last, json!({})).await.ok();
    let told = gateway.badge(1).await;
    assert_eq!(told.notification()["room_id"], Value::Null);
    // In private is reading too; and zero is said where it is all there is to say.
    let last = bob.sync().await;
    let last = last.timeline(&second).last().expect("an event")["event_id"].as_str().expect("an id").to_owned();
    bob.receipt(&second, "m.read.private", &last, json!({})).await.ok();
    gateway.badge(0).await;
    // Reading what was read changes nothing, and says nothing.
    bob.receipt(&second, "m.read", &last, json!({})).await.ok();
    let id = alice.text(room, "more").await;
    gateway.event(&id).await;
    let nothing = gateway.told().iter().filter(|it| it.notification()["counts"]["unread"] == 0).count();
    assert_eq!(nothing, 1);
}

#[tokio::test]
async fn who_counts_for_itself_is_told_no_number() {
    let Some(Scene { home: _home, alice, bob, room, gateway }) = Scene::new().await else { return };
    set_pusher(&bob, &gateway.url(), json!({ "org.matrix.msc4076.disable_badge_count": true })).await;
    let id = alice.text(&room, "one").await;
    assert_eq!(gateway.event(&id).await.notification()["counts"], json!({}));
    bob.receipt(&room, "m.read", &id, json!({})).await.ok();
    let id = alice.text(&room, "two").await;
    gateway.event(&id).await;
    assert_eq!(gateway.told().len(), 2);
}

#[tokio::test]
async fn a_phone_that_is_switched_off_or_gone_is_told_nothing() {
    let Some(Scene { home, alice, bob, room, gateway }) = Scene::new().await else { return };
    let other = home.device_of(&bob).await;
    set_pusher(&other, &gateway.url(), json!({ "n": "other" })).await;
    let off = unique();
    let mut body = pusher(&off, &gateway.url(), json!({ "n": "off" }));
    body["org.matrix.msc3881.enabled"] = json!(false);
    bob.post("/pushers/set", body.clone()).await.ok();
    let listed = bob.get("/pushers").await.ok();
    let states: Vec<_> = listed["pushers"].as_array().expect("pushers").iter().collect();
    let of = |n: &str| states.iter().find(|it| it["data"]["n"] == n).expect("listed");
    assert_eq!(of("off")["org.matrix.msc3881.enabled"], false);
    assert_eq!(of("other")["org.matrix.msc3881.enabled"], true);
    assert_eq!(of("other")["org.matrix.msc3881.device_id"], other.device.as_str());
    let one = alice.text(&room, "one").await;
    assert_eq!(gateway.event(&one).await.notification()["devices"][0]["data"], json!({ "n": "other" }));
    // The device takes its pusher with it; the one that is switched on again is told.
    other.post("/logout", json!({})).await.ok();
    body["org.matrix.msc3881.enabled"] = json!(true);
    bob.post("/pushers/set", body).await.ok();
    let two = alice.text(&room, "two").await;
    assert_eq!(gateway.event(&two).await.notification()["devices"][0]["pushkey"], off.as_str());
    bob.post("/pushers/set", json!({ "pushkey": off, "app_id": "org.example.app", "kind": null })).await.ok();
    alice.text(&room, "three").await;
    // Another phone of the gateway shows that it was not told of the third.
    let set = set_pusher(&bob, &gateway.url(), json!({})).await;
    let four = alice.text(&room, "four").await;
    assert_eq!(gateway.event(&four).await.notification()["devices"][0]["pushkey"], set.as_str());
    assert_eq!(gateway.events(), [one, two, four]);
}

#[tokio::test]
async fn every_phone_is_told_and_other_members_cost_nothing() {
    let Some(Scene { home, alice, bob, room, gateway }) = Scene::new().await else { return };
    let second = Gateway::start().await;
    set_pusher(&bob, &gateway.url(), json!({})).await;
    set_pusher(&home.device_of(&bob).await, &second.url(), json!({})).await;
    let id = alice.text(&room, "hello").await;
    gateway.event(&id).await;
    second.event(&id).await;
}

#[tokio::test]
async fn urls_of_pushers_are_checked() {
    let Some(launch) = own() else { return };
    let home = Home::launch(launch).await;
    let alice = home.user("alice").await;
    for url in [
        "http://push.example.org/_matrix/push/v1/notify",
        "https://push.example.org/elsewhere",
        "https:///_matrix/push/v1/notify",
        "ftp://push.example.org/_matrix/push/v1/notify",
        "push.example.org",
        "",
    ] {
        alice.post("/pushers/set", pusher("k", url, json!({}))).await.expect(400, "M_INVALID_PARAM");
    }
    let mut body = pusher("k", "https://push.example.org/_matrix/push/v1/notify", json!({}));
    alice.post("/pushers/set", body.clone()).await.ok();
    body["data"]["padding"] = json!("x".repeat(10_000));
    alice.post("/pushers/set", body.clone()).await.expect(413, "M_TOO_LARGE");
    body["data"] = json!({});
    alice.post("/pushers/set", body).await.expect(400, "M_MISSING_PARAM");
}

#[tokio::test]
async fn nobody_reaches_the_network_of_the_server_by_a_pusher() {
    let Some(launch) = own() else { return };
    let home = Home::launch(launch.with_config("[push]\nrequire_https = false\n")).await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let gateway = Gateway::start().await;
    set_pusher(&bob, &gateway.url(), json!({})).await;
    let by_name = gateway.url().replace("127.0.0.1", "localhost");
    set_pusher(&bob, &by_name, json!({})).await;
    alice.text(&room, "hello").await;
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    assert!(gateway.told().is_empty());
}
