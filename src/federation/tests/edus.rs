//! EDUs both ways: typing, receipts, messages to devices, and news of devices.

mod common;

use std::collections::BTreeMap;

use common::{World, ok, settle, until};
use serde_json::{Value, json};
use stoa_accounts::{KeyUpload, Messages, Who};
use stoa_event::ids::{OwnedEventId, OwnedRoomId};
use stoa_store::{Direction, rows, schema};

/// A room with Alice of ours and Bob of another server.
async fn shared(world: &World) -> (Who, OwnedRoomId) {
    let alice = world.user("alice").await;
    let room = world.room(&alice).await;
    world.enter(&room, "@bob:b.example").await;
    world.net.up("b.example");
    (alice, room)
}

async fn types(world: &World, room: &OwnedRoomId) -> Vec<String> {
    let typing = world.store.bus().who_types(world.no(room).await, world.now());
    typing.users.iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn who_types_is_told() {
    let world = World::open().await;
    let (alice, room) = shared(&world).await;
    settle().await;
    world.rooms.typing(&room, &alice.user, Some(60_000)).await.unwrap();
    until("it is told", || !world.net.edus("b.example", "m.typing").is_empty()).await;
    // Again and again while it lasts, so that the other side goes on believing it.
    world.wait(35_000);
    until("it is told again", || world.net.edus("b.example", "m.typing").len() == 2).await;
    world.rooms.typing(&room, &alice.user, None).await.unwrap();
    until("the end is told", || world.net.edus("b.example", "m.typing").len() == 3).await;
    let said: Vec<Value> = world.net.edus("b.example", "m.typing").iter().map(|edu| edu["typing"].clone()).collect();
    assert_eq!(said, [true, true, false]);
    let first = &world.net.edus("b.example", "m.typing")[0];
    assert_eq!(*first, json!({ "room_id": room, "user_id": alice.user, "typing": true }));
    // What others type is not ours to tell.
    world.hear("b.example", "m.typing", json!({ "room_id": room, "user_id": "@bob:b.example", "typing": true })).await;
    settle().await;
    assert_eq!(world.net.edus("b.example", "m.typing").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn who_types_elsewhere_is_heard_if_that_server_may_say_so() {
    let world = World::open().await;
    let (_, room) = shared(&world).await;
    let typing = |user: &str, types: bool| json!({ "room_id": room, "user_id": user, "typing": types });
    for (origin, content) in [
        ("c.example", typing("@bob:b.example", true)),
        ("b.example", typing("@alice:us.example", true)),
        ("b.example", typing("@carol:b.example", true)),
        ("b.example", json!({ "room_id": "!other:us.example", "user_id": "@bob:b.example", "typing": true })),
        ("b.example", json!({ "room_id": room })),
        ("b.example", json!([])),
    ] {
        world.hear(origin, "m.typing", content).await;
    }
    assert!(types(&world, &room).await.is_empty());
    world.hear("b.example", "m.typing", typing("@bob:b.example", true)).await;
    assert_eq!(types(&world, &room).await, ["@bob:b.example"]);
    world.hear("b.example", "m.typing", typing("@bob:b.example", false)).await;
    assert!(types(&world, &room).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn receipts_are_told_but_private_ones() {
    let world = World::open().await;
    let (alice, room) = shared(&world).await;
    let event = world.say(&room, &alice, "hello").await;
    world.all_sent().await;
    world.read(&room, &alice, "m.read.private", &event, None).await;
    world.read(&room, &alice, "m.read", &event, None).await;
    world.read(&room, &alice, "m.read", &event, Some("main")).await;
    until("they are told", || world.net.edus("b.example", "m.receipt").len() == 2).await;
    settle().await;
    let told = world.net.edus("b.example", "m.receipt");
    let data: Vec<_> = told.iter().map(|edu| &edu[room.as_str()]["m.read"]["@alice:us.example"]).collect();
    assert_eq!(*data[0], json!({ "event_ids": [event], "data": { "ts": world.now() } }));
    assert_eq!(*data[1], json!({ "event_ids": [event], "data": { "ts": world.now(), "thread_id": "main" } }));
    assert_eq!(told.len(), 2);
}

async fn receipts(world: &World, room: &OwnedRoomId) -> Vec<(String, String)> {
    let snapshot = world.store.snapshot().await.unwrap();
    let rows = snapshot.scan(&schema::RECEIPTS, &world.no(room).await, Direction::Forward, 100).await.unwrap();
    let mut found = Vec::new();
    for ((_, user, ..), receipt) in rows {
        found.push((world.store.names().user_id(&snapshot, user).await.unwrap().to_string(), receipt.event_id));
    }
    found
}

#[tokio::test(start_paused = true)]
async fn receipts_of_others_are_heard_if_their_server_may_give_them() {
    let world = World::open().await;
    let (alice, room) = shared(&world).await;
    let (first, second) = (world.say(&room, &alice, "1").await, world.say(&room, &alice, "2").await);
    let of = |user: &str, event: &OwnedEventId| json!({ user: { "event_ids": [event], "data": { "ts": 1 } } });
    let receipt = |users: Value| json!({ room.as_str(): { "m.read": users } });
    for (origin, content) in [
        ("c.example", receipt(of("@bob:b.example", &first))),
        ("b.example", receipt(of("@alice:us.example", &first))),
        ("b.example", receipt(of("@carol:b.example", &first))),
        ("b.example", receipt(of("@bob:b.example", &"$unknown".try_into().unwrap()))),
        ("b.example", json!({ room.as_str(): { "m.read.private": of("@bob:b.example", &first) } })),
        ("b.example", json!({ "!other:us.example": { "m.read": of("@bob:b.example", &first) } })),
    ] {
        world.hear(origin, "m.receipt", content).await;
    }
    assert!(receipts(&world, &room).await.is_empty());
    // What is wrong beside it does not hinder a good one.
    let mut both = of("@bob:b.example", &second);
    both["@carol:b.example"] = json!(7);
    world.hear("b.example", "m.receipt", receipt(both)).await;
    assert_eq!(receipts(&world, &room).await, [("@bob:b.example".to_owned(), second.to_string())]);
    // Nobody un-reads.
    world.hear("b.example", "m.receipt", receipt(of("@bob:b.example", &first))).await;
    assert_eq!(receipts(&world, &room).await, [("@bob:b.example".to_owned(), second.to_string())]);
    // And it does not go back to where it came from.
    settle().await;
    assert!(world.net.edus("b.example", "m.receipt").is_empty());
}

fn to(users: &[(&str, &str, Value)]) -> Messages {
    let mut messages = Messages::new();
    for (user, device, content) in users {
        let devices = messages.entry((*user).try_into().unwrap()).or_default();
        devices.insert((*device).to_owned(), content.as_object().unwrap().clone());
    }
    messages
}

#[tokio::test(start_paused = true)]
async fn messages_to_devices_wait_until_the_other_server_has_them() {
    let world = World::open().await;
    let alice = world.user("alice").await;
    world.net.down("b.example");
    let messages = to(&[
        ("@bob:b.example", "D1", json!({ "n": 1 })),
        ("@bob:b.example", "*", json!({ "n": 2 })),
        ("@carol:b.example", "D3", json!({ "n": 3 })),
        ("@alice:us.example", "PHONE", json!({ "n": 4 })),
    ]);
    world.accounts.send_to_device(&alice, "m.test", "txn1", &messages).await.unwrap();
    world.accounts.send_to_device(&alice, "m.test", "txn1", &messages).await.unwrap();
    until("it was tried", || !world.net.got("b.example").is_empty()).await;
    assert_eq!(world.mail(&alice).await, [json!({ "type": "m.test", "sender": alice.user, "content": { "n": 4 } })]);
    let world = world.restarted().await;
    settle().await;
    world.net.forget();
    world.net.up("b.example");
    world.wait(60_000);
    world.all_sent().await;
    let edus = world.net.edus("b.example", "m.direct_to_device");
    assert_eq!(edus.len(), 1);
    assert_eq!((&edus[0]["sender"], &edus[0]["type"]), (&json!(alice.user), &json!("m.test")));
    assert_eq!(
        edus[0]["messages"],
        json!({
            "@bob:b.example": { "D1": { "n": 1 }, "*": { "n": 2 } },
            "@carol:b.example": { "D3": { "n": 3 } },
        })
    );
    let id = edus[0]["message_id"].as_str().unwrap();
    assert!((1..=32).contains(&id.len()));
}

#[tokio::test(start_paused = true)]
async fn messages_for_a_server_that_is_gone_for_good_are_dropped_at_last() {
    let world = World::open().await;
    let (alice, room) = shared(&world).await;
    world.all_sent().await;
    world.net.down("b.example");
    let messages = to(&[("@bob:b.example", "PHONE", json!({ "n": 1 }))]);
    world.accounts.send_to_device(&alice, "m.test", "txn1", &messages).await.unwrap();
    world.say(&room, &alice, "hello").await;
    let half_day = common::GIVE_UP_MS / 120;
    let pass = async |days: u64| {
        for _ in 0..days * 2 {
            world.wait(half_day);
            tokio::time::sleep(std::time::Duration::from_secs(301)).await;
        }
    };
    pass(58).await;
    assert_eq!(world.waiting().await, 2);
    pass(5).await;
    // What was said in rooms it still gets, if it ever comes back.
    assert_eq!(world.waiting().await, 1);
    world.net.forget();
    world.net.up("b.example");
    pass(2).await;
    assert_eq!(world.net.texts("b.example"), ["hello"]);
    assert!(world.net.edus("b.example", "m.direct_to_device").is_empty());
}

#[tokio::test(start_paused = true)]
async fn many_messages_to_devices_go_in_edus_of_bearable_size() {
    let world = World::open().await;
    let alice = world.user("alice").await;
    world.net.up("b.example");
    let device = |n: usize| format!("D{n}");
    let names: Vec<String> = (0..100).map(device).collect();
    let all: Vec<_> = names.iter().map(|name| ("@bob:b.example", &**name, json!({ "x": "y".repeat(2000) }))).collect();
    world.accounts.send_to_device(&alice, "m.test", "txn1", &to(&all)).await.unwrap();
    until("all arrived", || {
        let edus = world.net.edus("b.example", "m.direct_to_device");
        edus.iter().map(|edu| edu["messages"]["@bob:b.example"].as_object().unwrap().len()).sum::<usize>() == 100
    })
    .await;
    let edus = world.net.edus("b.example", "m.direct_to_device");
    assert!(edus.len() > 1 && edus.iter().all(|edu| edu.to_string().len() < 64 << 10));
    let ids: std::collections::HashSet<_> = edus.iter().map(|edu| edu["message_id"].to_string()).collect();
    assert_eq!(ids.len(), edus.len());
}

#[tokio::test(start_paused = true)]
async fn a_message_to_a_device_that_comes_again_is_there_once() {
    let world = World::open().await;
    let alice = world.user("alice").await;
    let message = |id: &str, sender: &str, to: &str| {
        json!({
            "message_id": id, "sender": sender, "type": "m.test",
            "messages": { to: { "PHONE": { "id": id }, "GONE": {} } },
        })
    };
    let ours = "@alice:us.example";
    let hear = |origin: &'static str, content: Value| world.hear(origin, "m.direct_to_device", content);
    // Twice at once, and again.
    tokio::join!(
        hear("b.example", message("1", "@bob:b.example", ours)),
        hear("b.example", message("1", "@bob:b.example", ours))
    );
    hear("b.example", message("1", "@bob:b.example", ours)).await;
    let expected = json!({ "type": "m.test", "sender": "@bob:b.example", "content": { "id": "1" } });
    assert_eq!(world.mail(&alice).await, [expected]);
    // The same id of another server is another message; a server speaks for its own users only.
    hear("b.example", message("2", "@bob:c.example", ours)).await;
    hear("c.example", message("1", "@bob:c.example", ours)).await;
    hear("b.example", message("3", "@bob:b.example", "@carol:c.example")).await;
    hear("b.example", message("", "@bob:b.example", ours)).await;
    assert_eq!(world.mail(&alice).await.len(), 2);
    let world = world.restarted().await;
    world.hear("b.example", "m.direct_to_device", message("1", "@bob:b.example", ours)).await;
    assert_eq!(world.mail(&alice).await.len(), 2);
}

fn keys(user: &str, device: &str, key: &str) -> Value {
    json!({
        "user_id": user, "device_id": device, "algorithms": ["a"],
        "keys": { (format!("ed25519:{device}")): key }, "signatures": {},
    })
}

async fn upload(world: &World, who: &Who, key: &str) {
    let keys = keys(who.user.as_str(), &who.device, key);
    let upload = KeyUpload { device_keys: keys.as_object().cloned(), ..KeyUpload::default() };
    world.accounts.upload_keys(who, upload).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn news_of_devices_follow_each_other_without_a_gap() {
    let world = World::open().await;
    let (alice, _) = shared(&world).await;
    settle().await;
    upload(&world, &alice, "k1").await;
    until("it is told", || world.net.edus("b.example", "m.device_list_update").len() == 1).await;
    upload(&world, &alice, "k2").await;
    until("it is told", || world.net.edus("b.example", "m.device_list_update").len() == 2).await;
    // Meanwhile the server is away; what happens then is one piece of news each.
    world.net.down("b.example");
    for n in 3..8 {
        upload(&world, &alice, &format!("k{n}")).await;
        settle().await;
    }
    let mut phone2 = alice.clone();
    phone2.device = "PHONE2".into();
    let mut tx = stoa_store::Tx::new();
    rows::devices::put(&mut tx, alice.user_no, "PHONE2", &rows::devices::Device::default());
    world.store.commit(tx).await.unwrap();
    upload(&world, &phone2, "other").await;
    settle().await;
    world.net.forget();
    world.net.up("b.example");
    world.wait(3_600_000);
    world.all_sent().await;
    let told = world.net.edus("b.example", "m.device_list_update");
    assert_eq!(told.len(), 2);
    assert_eq!(told[0]["keys"]["keys"], json!({ "ed25519:PHONE": "k7" }));
    assert_eq!(told[1]["keys"]["keys"], json!({ "ed25519:PHONE2": "other" }));
    // It knew the second change.
    assert_eq!(told[0]["prev_id"], json!([2]));
    assert_eq!(told[1]["prev_id"], json!([told[0]["stream_id"]]));
    // Who asks for the list goes on from the same number.
    let stream = rows::outbox::device_stream(&world.store.snapshot().await.unwrap(), alice.user_no).await.unwrap();
    assert_eq!(told[1]["stream_id"], stream);
    world.accounts.logout(&phone2).await.unwrap();
    until("it is told", || world.net.edus("b.example", "m.device_list_update").len() == 3).await;
    let gone = &world.net.edus("b.example", "m.device_list_update")[2];
    assert_eq!((&gone["device_id"], &gone["deleted"]), (&json!("PHONE2"), &json!(true)));
    assert_eq!(gone["prev_id"], json!([told[1]["stream_id"]]));
}

fn wanted(user: &str) -> BTreeMap<stoa_event::ids::OwnedUserId, Vec<String>> {
    BTreeMap::from_iter([(user.try_into().unwrap(), Vec::new())])
}

async fn queried(world: &World, who: &Who) -> (Value, Value) {
    let found = world.federation.query_keys(who, &wanted("@bob:b.example"), None).await.unwrap();
    let found = serde_json::to_value(found).unwrap();
    let devices = found["device_keys"]["@bob:b.example"].as_object().cloned().unwrap_or_default();
    let keys = devices.iter().map(|(id, device)| (id.clone(), device["keys"][format!("ed25519:{id}")].clone()));
    (Value::Object(keys.collect()), found["failures"].clone())
}

/// Serves a list of devices, or keys to who asks for them.
fn serve_list(world: &World, stream: u64, devices: &'static [(&'static str, &'static str)]) {
    let bob = "@bob:b.example";
    world.net.serve("b.example", move |request| {
        let path = request.uri().path();
        if path.starts_with("/_matrix/federation/v1/user/devices/") {
            let list: Vec<_> = devices
                .iter()
                .map(|(id, key)| json!({ "device_id": id, "keys": keys(bob, id, key), "device_display_name": "x" }))
                .collect();
            return ok(&json!({ "user_id": bob, "stream_id": stream, "devices": list }));
        }
        if path == "/_matrix/federation/v1/user/keys/query" {
            let by_id: serde_json::Map<_, _> =
                devices.iter().map(|(id, key)| ((*id).to_owned(), keys(bob, id, key))).collect();
            return ok(&json!({ "device_keys": { bob: by_id, "@alice:us.example": { "EVIL": {} } } }));
        }
        ok(&json!({}))
    });
}

#[tokio::test(start_paused = true)]
async fn a_list_is_kept_and_follows_what_the_other_server_tells() {
    let world = World::open().await;
    let (alice, room) = shared(&world).await;
    serve_list(&world, 10, &[("D1", "k1")]);
    assert_eq!(queried(&world, &alice).await.0, json!({ "D1": "k1" }));
    assert_eq!(queried(&world, &alice).await.0, json!({ "D1": "k1" }));
    assert_eq!(world.net.paths("b.example").len(), 1);
    let update = |id: &str, key: &str, stream: u64, prev: u64| {
        json!({
            "user_id": "@bob:b.example", "device_id": id, "stream_id": stream, "prev_id": [prev],
            "keys": keys("@bob:b.example", id, key),
        })
    };
    // The next in the sequence; a repetition; somebody else's word.
    world.hear("b.example", "m.device_list_update", update("D2", "k2", 11, 10)).await;
    world.hear("b.example", "m.device_list_update", update("D2", "k2", 11, 10)).await;
    world.hear("c.example", "m.device_list_update", update("D3", "k3", 12, 11)).await;
    assert_eq!(queried(&world, &alice).await.0, json!({ "D1": "k1", "D2": "k2" }));
    let mut gone = update("D1", "", 12, 11);
    gone["deleted"] = true.into();
    gone.as_object_mut().unwrap().remove("keys");
    world.hear("b.example", "m.device_list_update", gone).await;
    assert_eq!(queried(&world, &alice).await.0, json!({ "D2": "k2" }));
    assert_eq!(world.net.paths("b.example").len(), 1);
    // One was missed: the whole list is asked for, and clients hear that something changed.
    let bob = world.user_no("@bob:b.example").await;
    let before = rows::keys::devices_changed_at(&world.store.snapshot().await.unwrap(), bob).await.unwrap().unwrap();
    serve_list(&world, 20, &[("D2", "k2"), ("D4", "k4")]);
    world.hear("b.example", "m.device_list_update", update("D4", "k4", 20, 19)).await;
    until("the list was asked for", || world.net.paths("b.example").len() == 2).await;
    settle().await;
    assert_eq!(queried(&world, &alice).await.0, json!({ "D2": "k2", "D4": "k4" }));
    assert_eq!(world.net.paths("b.example").len(), 2);
    let after = rows::keys::devices_changed_at(&world.store.snapshot().await.unwrap(), bob).await.unwrap().unwrap();
    assert!(after > before);
    // When Bob leaves, his server tells us nothing more: it is asked each time.
    world.leave(&room, &"@bob:b.example".try_into().unwrap()).await;
    settle().await;
    serve_list(&world, 30, &[("D5", "k5")]);
    assert_eq!(queried(&world, &alice).await.0, json!({ "D5": "k5" }));
    serve_list(&world, 40, &[("D6", "k6")]);
    assert_eq!(queried(&world, &alice).await.0, json!({ "D6": "k6" }));
}

#[tokio::test(start_paused = true)]
async fn keys_of_strangers_are_asked_for_and_only_those() {
    let world = World::open().await;
    let alice = world.user("alice").await;
    serve_list(&world, 1, &[("D1", "k1")]);
    let found = world.federation.query_keys(&alice, &wanted("@bob:b.example"), None).await.unwrap();
    let found = serde_json::to_value(found).unwrap();
    assert_eq!(found["device_keys"]["@bob:b.example"]["D1"]["keys"]["ed25519:D1"], "k1");
    // A server says nothing of users that are not its own.
    assert!(found["device_keys"].get("@alice:us.example").is_none());
    world.net.down("b.example");
    let (keys, failures) = queried(&world, &alice).await;
    assert_eq!(keys, json!({}));
    assert!(failures["b.example"].is_object());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_leaves_what_is_known_of_its_users() {
    let world = World::open().await;
    let (alice, _) = shared(&world).await;
    serve_list(&world, 10, &[("D1", "k1")]);
    queried(&world, &alice).await;
    world.net.down("b.example");
    let update = json!({ "user_id": "@bob:b.example", "device_id": "D2", "stream_id": 12, "prev_id": [11] });
    world.hear("b.example", "m.device_list_update", update).await;
    settle().await;
    let (keys, failures) = queried(&world, &alice).await;
    assert_eq!(keys, json!({ "D1": "k1" }));
    assert!(failures["b.example"].is_object());
    serve_list(&world, 12, &[("D1", "k1"), ("D2", "k2")]);
    world.wait(60_000);
    assert_eq!(queried(&world, &alice).await.0, json!({ "D1": "k1", "D2": "k2" }));
}

#[tokio::test(start_paused = true)]
async fn one_time_keys_of_others_are_claimed_from_their_server() {
    let world = World::open().await;
    let alice = world.user("alice").await;
    world.net.serve("b.example", |request| {
        assert_eq!(request.uri().path(), "/_matrix/federation/v1/user/keys/claim");
        let body: Value = serde_json::from_slice(request.body()).unwrap();
        assert_eq!(body, json!({ "one_time_keys": { "@bob:b.example": { "D1": "signed_curve25519" } } }));
        ok(&json!({ "one_time_keys": {
            "@bob:b.example": { "D1": { "signed_curve25519:A": { "key": "x" } }, "D9": { "a:b": "y" } },
            "@alice:us.example": { "PHONE": { "signed_curve25519:A": { "key": "evil" } } },
        } }))
    });
    let wanted = serde_json::from_value(json!({
        "@bob:b.example": { "D1": "signed_curve25519" },
        "@carol:c.example": { "D2": "signed_curve25519" },
        "@alice:us.example": { "PHONE": "signed_curve25519" },
    }));
    let (claimed, failures) = world.federation.claim_keys(&wanted.unwrap(), None).await.unwrap();
    let claimed = serde_json::to_value(claimed).unwrap();
    assert_eq!(claimed, json!({ "@bob:b.example": { "D1": { "signed_curve25519:A": { "key": "x" } } } }));
    assert_eq!(failures.keys().collect::<Vec<_>>(), ["c.example"]);
    drop(alice);
}

#[tokio::test(start_paused = true)]
async fn cross_signing_keys_of_others_are_taken() {
    let world = World::open().await;
    let (alice, _) = shared(&world).await;
    serve_list(&world, 10, &[("D1", "k1")]);
    queried(&world, &alice).await;
    let key = |user: &str, usage: &str| json!({ "user_id": user, "usage": [usage], "keys": { "ed25519:K": "K" } });
    let update = |user: &str| json!({ "user_id": user, "master_key": key(user, "master"), "self_signing_key": key("@eve:b.example", "self_signing") });
    world.hear("c.example", "m.signing_key_update", update("@bob:b.example")).await;
    world.hear("b.example", "m.signing_key_update", update("@alice:us.example")).await;
    world.hear("b.example", "m.signing_key_update", update("@bob:b.example")).await;
    let found = world.federation.query_keys(&alice, &wanted("@bob:b.example"), None).await.unwrap();
    let found = serde_json::to_value(found).unwrap();
    assert_eq!(found["master_keys"]["@bob:b.example"], key("@bob:b.example", "master"));
    assert_eq!(found["self_signing_keys"], json!({}));
    let found = world.federation.query_keys(&alice, &wanted("@alice:us.example"), None).await.unwrap();
    assert!(found.master_keys.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_receipt_may_come_before_its_event() {
    let world = World::open().await;
    let (alice, room) = shared(&world).await;
    let read = |event: &str| {
        let receipt = json!({ "@bob:b.example": { "event_ids": [event], "data": { "ts": 1 } } });
        json!({ room.as_str(): { "m.read": receipt } })
    };
    world.hear("b.example", "m.receipt", read("$early")).await;
    assert!(receipts(&world, &room).await.is_empty());
    // The event comes: the same as one of ours, but for its id and its sender.
    let no = world.no(&room).await;
    let snapshot = world.store.snapshot().await.unwrap();
    let model = world.say(&room, &alice, "hello").await;
    let (_, event) =
        world.store.events().by_id(&world.store.snapshot().await.unwrap(), model.as_str()).await.unwrap().unwrap();
    let mut event = (*event).clone();
    event.header.event_id = "$early".into();
    event.header.sender = "@bob:b.example".into();
    let mut tx = stoa_store::Tx::new();
    let slot = tx.slot();
    rows::events::append(&mut tx, slot, no, stoa_store::EventNo(1000), event, None);
    world.store.commit(tx).await.unwrap();
    drop(snapshot);
    settle().await;
    assert_eq!(receipts(&world, &room).await, [("@bob:b.example".to_owned(), "$early".to_owned())]);
}
