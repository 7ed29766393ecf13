//! Gateways that do not work, and servers that end in the middle: nothing is lost, and what is told twice has the same event id.

use std::collections::BTreeSet;
use std::time::Duration;

use stoa_kit::{Dice, Fault, Gateway, Home, encode, json};

use super::{Scene, launch, set_pusher};

#[tokio::test]
async fn what_a_gateway_does_not_take_is_told_again() {
    let Some(scene) = Scene::new().await else { return };
    scene.phone().await;
    let Scene { alice, room, gateway, .. } = &scene;
    for fault in [Fault::Status(500), Fault::Drop] {
        gateway.fail_next(fault);
    }
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(alice.text(room, &format!("{n}")).await);
    }
    gateway.event(&ids[4]).await;
    assert_eq!(gateway.events(), ids, "each once, in order");
    // What was taken although nobody heard so comes again, with the same id.
    gateway.fail_next(Fault::TakeAndDrop);
    let doubled = alice.text(room, "doubled").await;
    let after = alice.text(room, "after").await;
    gateway.event(&after).await;
    assert_eq!(gateway.events()[5..], [doubled.clone(), doubled, after]);
    assert_eq!(gateway.most_at_once(), 1, "one at a time");
}

#[tokio::test]
async fn answers_that_are_odd_are_answers_or_failures_but_never_the_end() {
    let Some(scene) = Scene::new().await else { return };
    scene.phone().await;
    let Scene { alice, bob, room, gateway, .. } = &scene;
    gateway.fail_next(Fault::Nonsense);
    gateway.fail_next(Fault::Slow(Duration::from_millis(300)));
    gateway.fail_next(Fault::Endless);
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(alice.text(room, &format!("{n}")).await);
    }
    gateway.event(&ids[3]).await;
    let told: BTreeSet<String> = gateway.events().into_iter().collect();
    assert_eq!(told, ids.into_iter().collect());
    assert_eq!(bob.get("/pushers").await.ok()["pushers"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_gateway_that_asks_to_be_left_alone_is() {
    let Some(scene) = Scene::new().await else { return };
    scene.phone().await;
    let Scene { alice, room, gateway, .. } = &scene;
    gateway.fail_next(Fault::RetryAfter(429, 3));
    let start = tokio::time::Instant::now();
    let id = alice.text(room, "later").await;
    gateway.event(&id).await;
    assert!(start.elapsed() > Duration::from_millis(2500), "{:?}", start.elapsed());
    assert_eq!(gateway.told().len(), 2);
}

#[tokio::test]
async fn a_rejected_key_is_forgotten() {
    let Some(scene) = Scene::new().await else { return };
    let Scene { alice, bob, room, gateway, .. } = &scene;
    let rejecting = Gateway::start().await;
    rejecting.fail(Some(Fault::Reject));
    set_pusher(bob, &rejecting.url(), json!({})).await;
    let key = scene.phone().await;
    let id = alice.text(room, "hello").await;
    gateway.event(&id).await;
    let start = tokio::time::Instant::now();
    loop {
        let pushers = bob.get("/pushers").await.ok()["pushers"].as_array().cloned().unwrap_or_default();
        if pushers.len() == 1 {
            assert_eq!(pushers[0]["pushkey"], key.as_str());
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "the rejected pusher stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let id = alice.text(room, "again").await;
    gateway.event(&id).await;
    assert_eq!(rejecting.told().len(), 1);
}

#[tokio::test]
async fn what_was_read_meanwhile_is_no_news() {
    let Some(scene) = Scene::new().await else { return };
    scene.phone().await;
    let Scene { alice, bob, room, gateway, .. } = &scene;
    gateway.fail(Some(Fault::Status(502)));
    let (one, two) = (alice.text(room, "one").await, alice.text(room, "two").await);
    let redacted = alice.text(room, "three").await;
    bob.receipt(room, "m.read", &two, json!({})).await.ok();
    alice.redact(room, &redacted).await.ok();
    let four = alice.text(room, "four").await;
    gateway.fail(None);
    gateway.event(&four).await;
    assert_eq!(gateway.events(), [four]);
    assert!(!gateway.told().iter().any(|pushed| pushed.taken && pushed.event_id() == Some(one.as_str())));
}

#[tokio::test]
async fn a_dead_gateway_holds_up_no_other() {
    let Some(Scene { home, alice, bob, room, mut gateway }) = Scene::new().await else { return };
    let good = Gateway::start().await;
    set_pusher(&bob, &gateway.url(), json!({})).await;
    set_pusher(&home.device_of(&bob).await, &good.url(), json!({})).await;
    gateway.close().await;
    let one = alice.text(&room, "one").await;
    let two = alice.text(&room, "two").await;
    good.event(&two).await;
    assert_eq!(good.events(), [one.clone(), two.clone()]);
    gateway.open().await;
    gateway.event(&two).await;
    assert_eq!(gateway.events(), [one, two]);
}

#[tokio::test]
async fn what_waits_outlives_a_restart() {
    let Some(Scene { mut home, alice, bob, room, mut gateway }) = Scene::new().await else { return };
    set_pusher(&bob, &gateway.url(), json!({})).await;
    gateway.close().await;
    let ids = [alice.text(&room, "one").await, alice.text(&room, "two").await];
    // Also what was not even looked at when the server ended.
    home.kill();
    home.restart().await;
    let third = alice.text(&room, "three").await;
    home.kill();
    gateway.open().await;
    home.restart().await;
    gateway.event(&third).await;
    assert_eq!(gateway.events(), [ids[0].clone(), ids[1].clone(), third]);
}

#[tokio::test]
async fn what_was_before_a_phone_or_a_rule_is_no_news_after_a_restart() {
    let Some(Scene { mut home, alice, bob, room, gateway }) = Scene::new().await else { return };
    alice.text(&room, "before there was a phone").await;
    set_pusher(&bob, &gateway.url(), json!({})).await;
    let mute = json!({ "actions": [], "conditions": [{ "kind": "event_match", "key": "room_id", "pattern": room }] });
    let path = format!("/pushrules/global/override/{}", encode(&room));
    bob.put(&path, mute).await.ok();
    let quay = alice.room_with(&[&bob]).await;
    alice.text(&room, "while it was muted").await;
    let known = alice.text(&quay, "not muted").await;
    gateway.event(&known).await;
    alice.text(&room, "muted still").await;
    bob.delete(&path).await.ok();
    // So that the follower has been there.
    tokio::time::sleep(Duration::from_millis(300)).await;
    home.kill();
    home.restart().await;
    let after = alice.text(&room, "after").await;
    gateway.event(&after).await;
    let messages = gateway.taken().into_iter().filter(|pushed| pushed.notification()["type"] == "m.room.message");
    let ids: Vec<_> = messages.filter_map(|pushed| pushed.event_id().map(str::to_owned)).collect();
    assert_eq!(ids, [known, after]);
}

/// How often the server is killed: the short form here, the long form by `scripts/crash`.
fn rounds() -> usize {
    std::env::var("STOA_CRASH_ROUNDS").ok().and_then(|count| count.parse().ok()).unwrap_or(4)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_at_any_moment_loses_no_push_and_keeps_their_order() {
    let Some(launch) = launch() else { return };
    let mut home = Home::launch(launch).await;
    let mut dice = Dice::new(std::env::var("STOA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7));
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let gateway = Gateway::start().await;
    // A slow one: the server dies before it knows, and between the answer and its writing that down.
    gateway.fail(Some(Fault::Slow(Duration::from_millis(15))));
    set_pusher(&bob, &gateway.url(), json!({})).await;
    let mut sent = Vec::new();
    for round in 0..rounds() {
        for n in 0..8 {
            sent.push(alice.text(&room, &format!("{round} {n}")).await);
        }
        tokio::time::sleep(Duration::from_millis(dice.below(150) as u64)).await;
        home.kill();
        home.restart().await;
    }
    let last = alice.text(&room, "last").await;
    sent.push(last.clone());
    gateway.event(&last).await;
    let mut told = gateway.events();
    let doubles = told.len() - told.iter().collect::<BTreeSet<_>>().len();
    // One at a time, so each crash doubles one at most.
    assert!(doubles <= rounds(), "{doubles} of {} were told twice", sent.len());
    told.dedup();
    assert_eq!(told, sent, "each event in order; doubles stand beside each other");
}
