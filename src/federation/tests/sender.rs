//! What our users do reaches other servers: once, in order, also those that were away, and none waits for another.

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use common::{World, answer, ok, settle, until};
use serde_json::json;
use stoa_remote::TransportError;
use stoa_rooms::Action;

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn events_arrive_once_in_order_and_in_batches() {
    let world = World::open().await;
    let alice = world.user("alice").await;
    let room = world.room(&alice).await;
    world.enter(&room, "@bob:b.example").await;
    world.net.down("b.example");
    for n in 0..120 {
        world.say(&room, &alice, &n.to_string()).await;
    }
    settle().await;
    let tries = world.net.got("b.example").len();
    assert!((1..=3).contains(&tries), "it was tried {tries} times while it was left alone");
    world.net.forget();
    world.net.up("b.example");
    world.wait(10_000);
    world.all_sent().await;
    assert_eq!(world.net.texts("b.example"), numbers(0..120));
    let got = world.net.got("b.example");
    assert!(got.iter().all(|got| got.pdus.len() <= 50));
    assert_eq!(got.len(), 3);
    // What is sent is the event itself, signed by us.
    let event = &got[0].pdus[0];
    assert_eq!(event["sender"], "@alice:us.example");
    assert!(event["signatures"]["us.example"].is_object());
    assert!(event.get("event_id").is_none() && event.get("unsigned").is_none());
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_before_a_restart_is_sent_after() {
    let mut world = World::open().await;
    let alice = world.user("alice").await;
    let room = world.room(&alice).await;
    world.enter(&room, "@bob:b.example").await;
    world.net.down("b.example");
    world.say(&room, &alice, "written down for b").await;
    settle().await;
    world.stop().await;
    world.say(&room, &alice, "only on the feed").await;
    world.net.up("b.example");
    world.net.forget();
    let world = world.restarted().await;
    world.wait(10_000);
    until("both arrived", || world.net.texts("b.example").len() == 2).await;
    assert_eq!(world.net.texts("b.example"), ["written down for b", "only on the feed"]);
    // And nothing a second time.
    let world = world.restarted().await;
    world.say(&room, &alice, "new").await;
    until("the third arrived", || world.net.texts("b.example").len() >= 3).await;
    assert_eq!(world.net.texts("b.example"), ["written down for b", "only on the feed", "new"]);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_whose_answer_is_lost_comes_again_with_the_same_id() {
    let world = World::open().await;
    let alice = world.user("alice").await;
    let room = world.room(&alice).await;
    world.enter(&room, "@bob:b.example").await;
    world.net.serve("b.example", |_| Err(TransportError::Broken("the answer was lost".to_owned())));
    world.say(&room, &alice, "hello").await;
    until("it was tried", || !world.net.got("b.example").is_empty()).await;
    world.net.up("b.example");
    world.wait(10_000);
    world.all_sent().await;
    let got = world.net.got("b.example");
    assert_eq!(got.len(), 2);
    assert_eq!(got[0].id, got[1].id);
    // Other content has another id.
    world.say(&room, &alice, "hello").await;
    until("the next one came", || world.net.got("b.example").len() == 3).await;
    assert_ne!(world.net.got("b.example")[2].id, got[0].id);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_holds_up_nobody() {
    let world = World::open().await;
    let alice = world.user("alice").await;
    let room = world.room(&alice).await;
    for n in 0..200 {
        world.enter(&room, &format!("@bob:away{n}.example")).await;
    }
    world.enter(&room, "@bob:b.example").await;
    world.net.up("b.example");
    for n in 0..20 {
        world.say(&room, &alice, &n.to_string()).await;
        until("b has it", || world.net.texts("b.example").len() == n + 1).await;
    }
    assert_eq!(world.net.texts("b.example"), numbers(0..20));
}

#[tokio::test(start_paused = true)]
async fn who_was_away_for_long_gets_the_latest_of_each_room() {
    let world = World::open().await;
    let alice = world.user("alice").await;
    let (busy, quiet) = (world.room(&alice).await, world.room(&alice).await);
    for room in [&busy, &quiet] {
        world.enter(room, "@bob:b.example").await;
    }
    world.net.down("b.example");
    world.say(&quiet, &alice, "hello").await;
    settle().await;
    for n in 0..600 {
        world.say(&busy, &alice, &n.to_string()).await;
        if n % 50 == 0 {
            settle().await;
        }
    }
    settle().await;
    assert!(world.waiting().await < 200, "{} rows are kept for who is away", world.waiting().await);
    world.net.forget();
    world.net.up("b.example");
    world.wait(24 * 60 * 60 * 1000);
    world.all_sent().await;
    let texts = world.net.texts("b.example");
    assert!(texts.contains(&"hello".to_owned()));
    assert_eq!(texts.iter().rfind(|text| *text != "hello").unwrap(), "599");
}

#[tokio::test(start_paused = true)]
async fn rooms_have_their_turns() {
    let world = World::open().await;
    let alice = world.user("alice").await;
    let (busy, quiet) = (world.room(&alice).await, world.room(&alice).await);
    for room in [&busy, &quiet] {
        world.enter(room, "@bob:b.example").await;
    }
    world.net.down("b.example");
    for n in 0..200 {
        world.say(&busy, &alice, &n.to_string()).await;
    }
    world.say(&quiet, &alice, "quiet").await;
    settle().await;
    world.net.forget();
    world.net.up("b.example");
    world.wait(60_000);
    world.all_sent().await;
    let turn = world.net.got("b.example").iter().position(|got| got.texts().contains(&"quiet".to_owned())).unwrap();
    assert!(turn <= 1, "the quiet room had its turn only in transaction {turn}");
    let busy: Vec<_> = world.net.texts("b.example").into_iter().filter(|text| text != "quiet").collect();
    assert_eq!(busy, numbers(0..200));
}

#[tokio::test(start_paused = true)]
async fn one_event_that_is_refused_does_not_hold_up_the_others() {
    let world = World::open().await;
    let alice = world.user("alice").await;
    let room = world.room(&alice).await;
    world.enter(&room, "@bob:b.example").await;
    world.net.down("b.example");
    for text in ["one", "poison", "two", "three"] {
        world.say(&room, &alice, text).await;
    }
    settle().await;
    let taken = Arc::new(std::sync::Mutex::new(Vec::new()));
    let takes = taken.clone();
    world.net.serve("b.example", move |request| {
        let body = String::from_utf8_lossy(request.body()).into_owned();
        if body.contains("poison") {
            return answer(400, &json!({ "errcode": "M_BAD_JSON", "error": "no" }));
        }
        takes.lock().unwrap().push(body);
        ok(&json!({}))
    });
    world.wait(10_000);
    world.all_sent().await;
    let taken = taken.lock().unwrap().concat();
    for text in ["one", "two", "three"] {
        assert_eq!(taken.matches(&format!("\"body\":\"{text}\"")).count(), 1, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_with_errors_is_not_asked_in_a_loop() {
    let world = World::open().await;
    let alice = world.user("alice").await;
    let room = world.room(&alice).await;
    world.enter(&room, "@bob:b.example").await;
    let works = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let (does, counts) = (works.clone(), asked.clone());
    world.net.serve("b.example", move |_| {
        counts.fetch_add(1, Ordering::SeqCst);
        match does.load(Ordering::SeqCst) {
            true => ok(&json!({})),
            false => answer(403, &json!({ "errcode": "M_FORBIDDEN", "error": "not you" })),
        }
    });
    for n in 0..10 {
        world.say(&room, &alice, &n.to_string()).await;
        settle().await;
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    works.store(true, Ordering::SeqCst);
    world.net.forget();
    world.wait(60_000);
    world.all_sent().await;
    assert_eq!(world.net.texts("b.example"), numbers(0..10));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_speaks_again_has_what_waits_at_once() {
    let world = World::open().await;
    let alice = world.user("alice").await;
    let room = world.room(&alice).await;
    world.enter(&room, "@bob:b.example").await;
    world.net.down("b.example");
    world.say(&room, &alice, "hello").await;
    until("it was tried", || !world.net.got("b.example").is_empty()).await;
    settle().await;
    world.net.forget();
    world.net.up("b.example");
    world.federation.remote().heard_from(&common::name("b.example")).await;
    // The clock stands still.
    world.all_sent().await;
    assert_eq!(world.net.texts("b.example"), ["hello"]);
}

#[tokio::test(start_paused = true)]
async fn who_is_put_out_hears_of_it_and_of_nothing_after() {
    let world = World::open().await;
    let alice = world.user("alice").await;
    let room = world.room(&alice).await;
    for server in ["b.example", "c.example"] {
        world.enter(&room, &format!("@bob:{server}")).await;
        world.net.up(server);
    }
    world.change(&room, Action::Ban, &alice, &"@bob:c.example".try_into().unwrap()).await;
    world.leave(&room, &"@bob:c.example".try_into().unwrap()).await;
    world.say(&room, &alice, "after").await;
    world.all_sent().await;
    let kinds = |server: &str| -> Vec<String> {
        let pdus = world.net.got(server).into_iter().flat_map(|got| got.pdus);
        pdus.map(|pdu| pdu["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(kinds("b.example"), ["m.room.member", "m.room.message"]);
    assert_eq!(kinds("c.example"), ["m.room.member"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_leaves_a_room_that_is_for_this_server_only() {
    let world = World::open().await;
    let alice = world.user("alice").await;
    let room = world.room_with(&alice, json!({ "m.federate": false })).await;
    world.net.up("b.example");
    world.change(&room, Action::Ban, &alice, &"@bob:b.example".try_into().unwrap()).await;
    world.say(&room, &alice, "secret").await;
    settle().await;
    assert_eq!(world.waiting().await, 0);
    assert!(world.net.got("b.example").is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_said_before_a_server_came_is_not_sent_to_it() {
    let mut world = World::open().await;
    let alice = world.user("alice").await;
    let carol = world.user("carol").await;
    let room = world.room(&alice).await;
    for server in ["b.example", "c.example", "d.example"] {
        world.net.up(server);
    }
    world.enter(&room, "@bob:b.example").await;
    world.join(&room, "@dan:d.example", "join").await;
    world.all_sent().await;
    // The follower is behind: when it looks, c is there and d is gone.
    world.stop().await;
    world.say(&room, &alice, "before").await;
    world.join(&room, "@chris:c.example", "join").await;
    world.join(&room, "@dan:d.example", "leave").await;
    world.say(&room, &alice, "after").await;
    let world = world.restarted().await;
    drop(carol);
    settle().await;
    world.all_sent().await;
    assert_eq!(world.net.texts("b.example"), ["before", "after"]);
    assert_eq!(world.net.texts("c.example"), ["after"]);
    assert_eq!(world.net.texts("d.example"), ["before"]);
}
