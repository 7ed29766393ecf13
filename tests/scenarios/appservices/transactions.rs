//! "Pushing events", "Pushing ephemeral data"; what encryption needs (MSC3202, MSC4203).

use std::time::Duration;

use stoa_kit::{Bridge, Client, Home, Method, User, Value, encode, json};

use super::bridged;
use crate::own;

/// A room of Alice's, into which a ghost came by an invite.
async fn portal(bridge: &Bridge, home: &Home, alice: &User) -> (String, String) {
    portal_of(bridge, home, alice, "ghost").await
}

async fn portal_of(bridge: &Bridge, home: &Home, alice: &User, name: &str) -> (String, String) {
    let room = alice.public_room().await;
    let ghost = bridge.ghost(home.client(), name).await;
    let join = format!("/rooms/{}/join", encode(&room));
    bridge.ask_as(home.client(), &ghost, Method::POST, &join, json!({})).await.ok();
    (room, ghost)
}

fn bodies(events: &[Value]) -> Vec<String> {
    let messages = events.iter().filter(|event| event["type"] == "m.room.message");
    messages.filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn what_happens_in_rooms_of_its_users_is_told_in_order() {
    let bridge = Bridge::start("irc").await;
    let Some(home) = bridged(&bridge).await else { return };
    let alice = home.user("alice").await;
    let (room, ghost) = portal(&bridge, &home, &alice).await;
    let elsewhere = alice.public_room().await;
    alice.text(&elsewhere, "not for bridges").await;
    for n in 0..30 {
        alice.text(&room, &format!("message {n}")).await;
    }
    let last = alice.text(&room, "the end").await;
    let event = bridge.event(&last).await;
    assert_eq!((event["room_id"].as_str(), event["sender"].as_str()), (Some(&*room), Some(&*alice.id)));
    assert!(event["origin_server_ts"].is_u64() && event["unsigned"]["age"].is_u64());
    let told = bridge.events();
    let wanted: Vec<String> = (0..30).map(|n| format!("message {n}")).chain(["the end".to_owned()]).collect();
    assert_eq!(bodies(&told), wanted, "once, in order, and nothing of other rooms");
    let joined =
        told.iter().any(|event| event["state_key"] == ghost.as_str() && event["content"]["membership"] == "join");
    assert!(joined, "its own users' events too: {told:#?}");
    let heard = bridge.heard();
    assert!(heard.iter().all(|heard| heard.authorization == "Bearer hs_token_of_irc" && !heard.path.contains("token")));
    // What is said after the ghost left is not told, that it was put out is.
    let kicked = alice.post(&format!("/rooms/{}/kick", encode(&room)), json!({ "user_id": ghost })).await;
    kicked.ok();
    alice.text(&room, "alone").await;
    let (other, _) = portal_of(&bridge, &home, &alice, "second").await;
    let after = alice.text(&other, "after").await;
    bridge.event(&after).await;
    let told = bridge.events();
    assert!(told.iter().any(|event| event["state_key"] == ghost.as_str() && event["content"]["membership"] == "leave"));
    assert!(!bodies(&told).contains(&"alone".to_owned()));
}

#[tokio::test]
async fn an_invite_of_its_user_is_told() {
    let bridge = Bridge::start("irc").await;
    let Some(home) = bridged(&bridge).await else { return };
    let alice = home.user("alice").await;
    let ghost = bridge.ghost(home.client(), "ghost").await;
    let room = alice.create_room(json!({ "preset": "private_chat", "invite": [ghost] })).await;
    let invite = bridge
        .until("the invite", |bridge| bridge.events().into_iter().find(|event| event["state_key"] == ghost.as_str()))
        .await;
    assert_eq!(invite["content"]["membership"], "invite");
    assert_eq!(invite["room_id"], room.as_str());
}

#[tokio::test]
async fn rooms_are_told_by_their_alias_and_by_their_id() {
    let namespaces = |kind: &str, regex: &str| json!({ kind: [{ "regex": regex, "exclusive": false }] });
    let by_alias = Bridge::start("alias").await.with("namespaces", namespaces("aliases", "#team-"));
    let by_id = Bridge::start("id").await.with("namespaces", namespaces("rooms", ".*"));
    let no_one = Bridge::start("none").await.with("namespaces", json!({}));
    let silent = Bridge::start("silent").await.with("namespaces", namespaces("rooms", ".*")).with("url", json!(null));
    let Some(launch) = own() else { return };
    let all = [&by_alias, &by_id, &no_one, &silent];
    let files = all.map(|bridge| bridge.register_at(&launch).display().to_string());
    let home = Home::launch(launch.env("STOA_APPSERVICE", &files.join(","))).await;
    let alice = home.user("alice").await;
    let named = alice.create_room(json!({ "preset": "public_chat", "room_alias_name": "team-a" })).await;
    let plain = alice.public_room().await;
    let one = alice.text(&plain, "in the plain room").await;
    let two = alice.text(&named, "in the named room").await;
    by_alias.event(&two).await;
    by_id.event(&one).await;
    by_id.event(&two).await;
    assert_eq!(bodies(&by_alias.events()), ["in the named room"]);
    assert!(no_one.heard().is_empty() && silent.heard().is_empty());
}

#[tokio::test]
async fn what_was_not_taken_comes_again_the_same() {
    let bridge = Bridge::start("irc").await;
    let Some(home) = bridged(&bridge).await else { return };
    let alice = home.user("alice").await;
    let (room, _) = portal(&bridge, &home, &alice).await;
    let before = alice.text(&room, "before").await;
    bridge.event(&before).await;
    // It takes them and says nothing; then it refuses.
    bridge.mute(true);
    let first = alice.text(&room, "first").await;
    bridge.event(&first).await;
    alice.text(&room, "second").await;
    let known = bridge.transactions().len();
    bridge.until("it again", |bridge| (bridge.transactions().len() > known).then_some(())).await;
    bridge.refuse(Some(500));
    let known = bridge.transactions().len();
    bridge.until("it again", |bridge| (bridge.transactions().len() > known).then_some(())).await;
    bridge.refuse(None);
    let last = alice.text(&room, "last").await;
    bridge.event(&last).await;
    let sent = bridge.transactions();
    for (id, body) in &sent {
        let others = sent.iter().filter(|(other, _)| other == id);
        for (_, other) in others {
            assert_eq!(other, body, "the same id, the same body");
        }
    }
    assert_eq!(bodies(&bridge.events()), ["before", "first", "second", "last"]);
}

#[tokio::test]
async fn an_outage_loses_nothing_and_neither_do_restarts() {
    let bridge = Bridge::start("irc").await;
    let Some(mut home) = bridged(&bridge).await else { return };
    let alice = home.user("alice").await;
    let (room, _) = portal(&bridge, &home, &alice).await;
    bridge.away(true);
    let mut wanted = Vec::new();
    for round in 0..4 {
        for n in 0..60 {
            let text = format!("{round} {n}");
            alice.text(&room, &text).await;
            wanted.push(text);
        }
        match round {
            0 => home.kill(),
            // It heard, did not say so, and then we are gone.
            1 => {
                bridge.away(false);
                bridge.mute(true);
                bridge.until("a transaction", |bridge| (!bridge.transactions().is_empty()).then_some(())).await;
                home.kill();
            }
            2 => bridge.mute(false),
            _ => continue,
        }
        if round < 2 {
            home.restart().await;
        }
    }
    let last = alice.text(&room, "the end").await;
    wanted.push("the end".to_owned());
    bridge.event(&last).await;
    assert_eq!(bodies(&bridge.events()), wanted, "each once, in order");
    let sizes = bridge.transactions().into_iter().map(|(_, body)| body["events"].as_array().map_or(0, Vec::len));
    assert!(sizes.max() <= Some(100), "a transaction has a bound");
}

#[tokio::test]
async fn a_ping_brings_what_waits() {
    let bridge = Bridge::start("irc").await;
    let Some(home) = bridged(&bridge).await else { return };
    let alice = home.user("alice").await;
    let (room, _) = portal(&bridge, &home, &alice).await;
    let first = alice.text(&room, "first").await;
    bridge.event(&first).await;
    bridge.away(true);
    let late = alice.text(&room, "late").await;
    // The pauses grow: 1, 2, 4, 8 seconds.
    tokio::time::sleep(Duration::from_secs(8)).await;
    bridge.answer("/_matrix/app/v1/ping", 200, json!({}));
    bridge.away(false);
    let path = "/_matrix/client/v1/appservice/irc/ping";
    let begun = tokio::time::Instant::now();
    bridge.ask(home.client(), Method::POST, path, json!({})).await.ok();
    bridge.event(&late).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "at once, not when the pause is over");
}

#[tokio::test]
async fn old_services_are_served_as_before() {
    let Some(launch) = own() else { return };
    let bridge = Bridge::start("irc").await;
    bridge.grow_old();
    let file = bridge.register_at(&launch);
    let config = format!("[appservices]\nlegacy_authorization = true\nfiles = [{:?}]\n", file.display().to_string());
    let home = Home::launch(launch.with_config(&config)).await;
    let alice = home.user("alice").await;
    let (room, _) = portal(&bridge, &home, &alice).await;
    let event = alice.text(&room, "by the old path").await;
    bridge.event(&event).await;
    let heard = bridge.heard();
    let taken = heard.iter().filter(|heard| heard.path.starts_with("/transactions/"));
    assert!(taken.into_iter().all(|heard| heard.path.ends_with("?access_token=hs_token_of_irc")), "{heard:#?}");
}

#[tokio::test]
async fn typing_receipts_and_presence_for_those_who_want_them() {
    let bridge = Bridge::start("irc").await.with("receive_ephemeral", json!(true));
    let plain =
        Bridge::start("plain").await.with("namespaces", json!({ "rooms": [{ "regex": ".*", "exclusive": false }] }));
    let Some(launch) = own() else { return };
    let files = [&bridge, &plain].map(|bridge| bridge.register_at(&launch).display().to_string());
    let home = Home::launch(launch.env("STOA_APPSERVICE", &files.join(","))).await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let (room, ghost) = portal(&bridge, &home, &alice).await;
    let event = alice.text(&room, "read this").await;
    alice.typing(&room, true).await.ok();
    let typing = json!({ "type": "m.typing", "room_id": room, "content": { "user_ids": [alice.id] } });
    bridge.until("typing", |bridge| bridge.told("ephemeral").contains(&typing).then_some(())).await;
    alice.receipt(&room, "m.read", &event, json!({})).await.ok();
    let read = |bridge: &Bridge, user: &str, kind: &str| {
        let receipts = bridge.told("ephemeral").into_iter().filter(|it| it["type"] == "m.receipt");
        receipts.into_iter().find(|it| it["content"][&event][kind][user].is_object())
    };
    let receipt = bridge.until("the receipt", |bridge| read(bridge, &alice.id, "m.read")).await;
    assert_eq!(receipt["room_id"], room.as_str());
    assert!(receipt["content"][&event]["m.read"][&alice.id]["ts"].is_u64());
    // Private ones of its own users only.
    alice.receipt(&room, "m.read.private", &event, json!({})).await.ok();
    let path = format!("/rooms/{}/receipt/m.read.private/{}", encode(&room), encode(&event));
    bridge.ask_as(home.client(), &ghost, Method::POST, &path, json!({})).await.ok();
    bridge.until("the private receipt", |bridge| read(bridge, &ghost, "m.read.private")).await;
    assert!(read(&bridge, &alice.id, "m.read.private").is_none());
    // Of people in its rooms, not of others.
    for user in [&bob, &alice] {
        let path = format!("/presence/{}/status", user.path_id());
        user.put(&path, json!({ "presence": "online", "status_msg": "here" })).await.ok();
    }
    let of = |bridge: &Bridge, user: &User| {
        bridge.told("ephemeral").into_iter().find(|it| it["type"] == "m.presence" && it["sender"] == user.id.as_str())
    };
    let presence = bridge.until("presence", |bridge| of(bridge, &alice)).await;
    assert_eq!(presence["content"]["presence"], "online");
    assert!(of(&bridge, &bob).is_none());
    // The older name too; and nothing for who did not ask.
    assert!(!bridge.told("de.sorunome.msc2409.ephemeral").is_empty());
    plain.event(&event).await;
    assert!(plain.told("ephemeral").is_empty());
}

/// Uploads keys for a device of a ghost.
async fn upload(bridge: &Bridge, client: &Client, ghost: &str) {
    assert_eq!(bridge.ask_as(client, ghost, Method::PUT, "/devices/GHOST", json!({})).await.status, 201);
    let keys = json!({
        "device_keys": {
            "user_id": ghost, "device_id": "GHOST", "algorithms": ["m.megolm.v1.aes-sha2"],
            "keys": { "ed25519:GHOST": "a2V5", "curve25519:GHOST": "a2V5" }, "signatures": {},
        },
        "one_time_keys": { "signed_curve25519:AAA": { "key": "b25l", "signatures": {} } },
        "fallback_keys": { "signed_curve25519:BBB": { "key": "dHdv", "fallback": true, "signatures": {} } },
    });
    bridge.ask_as(client, ghost, Method::POST, "/keys/upload?device_id=GHOST", keys).await.ok();
}

#[tokio::test]
async fn what_encryption_needs_for_those_who_want_it() {
    let bridge = Bridge::start("irc").await.with("org.matrix.msc3202", json!(true));
    let Some(mut home) = bridged(&bridge).await else { return };
    let alice = home.user("alice").await;
    let (room, ghost) = portal(&bridge, &home, &alice).await;
    alice.set_state(&room, "m.room.encryption", "", json!({ "algorithm": "m.megolm.v1.aes-sha2" })).await.ok();
    upload(&bridge, home.client(), &ghost).await;
    let counts = "org.matrix.msc3202.device_one_time_keys_count";
    let count = |bridge: &Bridge| {
        let all = bridge.transactions();
        all.into_iter().rev().find_map(|(_, body)| body[counts][&ghost]["GHOST"]["signed_curve25519"].as_u64())
    };
    bridge.until("one key", |bridge| (count(bridge) == Some(1)).then_some(())).await;
    let fallback = "org.matrix.msc3202.device_unused_fallback_key_types";
    let types = json!(["signed_curve25519"]);
    let told = |(_, body): &(String, Value)| body[fallback][&ghost]["GHOST"] == types;
    assert!(bridge.transactions().iter().any(told));
    // One is claimed: none is left.
    let claim = json!({ "one_time_keys": { &ghost: { "GHOST": "signed_curve25519" } } });
    alice.post("/keys/claim", claim).await.ok();
    bridge.until("no key", |bridge| (count(bridge) == Some(0)).then_some(())).await;
    // Messages to the device, through an outage and a crash: all, in order.
    bridge.away(true);
    for n in 0..150 {
        let messages = json!({ "messages": { &ghost: { "GHOST": { "n": n } } } });
        alice.put(&format!("/sendToDevice/m.room.encrypted/t{n}"), messages).await.ok();
    }
    home.kill();
    home.restart().await;
    bridge.away(false);
    let list = "de.sorunome.msc2409.to_device";
    bridge.until("the last message", |bridge| (bridge.told(list).len() >= 150).then_some(())).await;
    let told = bridge.told(list);
    let numbers: Vec<u64> = told.iter().filter_map(|message| message["content"]["n"].as_u64()).collect();
    assert_eq!(numbers, (0..150).collect::<Vec<_>>());
    let first = &told[0];
    assert_eq!(
        (
            first["type"].as_str(),
            first["sender"].as_str(),
            first["to_user_id"].as_str(),
            first["to_device_id"].as_str()
        ),
        (Some("m.room.encrypted"), Some(&*alice.id), Some(&*ghost), Some("GHOST"))
    );
    // New devices of people in its rooms.
    let second = home.device_of(&alice).await;
    second.put(&format!("/devices/{}", second.device), json!({ "display_name": "new" })).await.ok();
    let lists = "org.matrix.msc3202.device_lists";
    let changed = |bridge: &Bridge, user: &str, part: &str| {
        let all = bridge.transactions();
        all.iter().any(|(_, body)| body[lists][part].as_array().is_some_and(|users| users.contains(&json!(user))))
    };
    bridge.until("news", |bridge| changed(bridge, &alice.id, "changed").then_some(())).await;
    let bob = home.user("bob").await;
    bob.join(&room).await.ok();
    bridge.until("who came", |bridge| changed(bridge, &bob.id, "changed").then_some(())).await;
    bob.leave(&room).await.ok();
    bridge.until("who went", |bridge| changed(bridge, &bob.id, "left").then_some(())).await;
}
