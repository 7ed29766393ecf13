//! Unread counts (Client-Server API, "Receiving notifications", "Threaded read receipts").

mod common;

use common::{Home, token};
use ruma_common::push::{NewPatternedPushRule, NewPushRule};
use serde_json::{Value, json};
use stoa_event::ids::{OwnedEventId, OwnedRoomId};
use stoa_store::{Tx, rows};
use stoa_view::Viewer;

struct Two {
    home: Home,
    alice: Viewer,
    bob: Viewer,
    room: OwnedRoomId,
}

impl Two {
    async fn new() -> Two {
        let home = Home::open().await;
        let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
        let room = home.room(&alice).await;
        home.join(&bob, &room).await;
        // With three in it, it is no one-to-one chat.
        home.join(&carol, &room).await;
        Two { home, alice, bob, room }
    }

    /// What Alice is told: notifications, highlights, and the notifications of threads.
    async fn unread(&self) -> (u64, u64, Value) {
        let filter = json!({ "room": { "timeline": { "limit": 1, "unread_thread_notifications": true } } });
        let sync = self.home.sync_with(&self.alice, None, filter).await;
        let it = &sync["rooms"]["join"][self.room.as_str()];
        let count = |name: &str| it["unread_notifications"][name].as_u64().unwrap();
        let threads = common::object(it.get("unread_thread_notifications").cloned().unwrap_or_else(|| json!({})));
        let threads = threads.into_iter().map(|(root, count)| (root, count["notification_count"].clone())).collect();
        (count("notification_count"), count("highlight_count"), Value::Object(threads))
    }

    async fn relate(&self, who: &Viewer, to: &OwnedEventId, rel_type: &str, text: &str) -> OwnedEventId {
        let relates_to = json!({ "rel_type": rel_type, "event_id": to });
        self.home.send(who, &self.room, json!({ "msgtype": "m.text", "body": text, "m.relates_to": relates_to })).await
    }

    async fn in_thread(&self, who: &Viewer, root: &OwnedEventId, text: &str) -> OwnedEventId {
        let relates_to = json!({ "rel_type": "m.thread", "event_id": root });
        self.home.send(who, &self.room, json!({ "msgtype": "m.text", "body": text, "m.relates_to": relates_to })).await
    }
}

#[tokio::test]
async fn what_relates_to_a_thread_counts_in_it() {
    let two = Two::new().await;
    let Two { home, alice, bob, room } = &two;
    let root = home.say(bob, room, "root").await;
    let first = two.in_thread(bob, &root, "a").await;
    home.read(alice, room, &first, None).await;
    assert_eq!(two.unread().await, (0, 0, json!({})));
    // A reply in the form of a reference, and one to that: both are in the thread, as is the answer by Alice.
    let second = two.relate(bob, &first, "m.reference", "b").await;
    two.relate(bob, &second, "m.reference", "c").await;
    assert_eq!(two.unread().await, (0, 0, json!({ root.as_str(): 2 })));
    // What relates to the root is not in its thread.
    two.relate(bob, &root, "m.reference", "d").await;
    assert_eq!(two.unread().await, (1, 0, json!({ root.as_str(): 2 })));
    two.relate(alice, &second, "m.annotation", "e").await;
    assert_eq!(two.unread().await, (1, 0, json!({})));
    // Over more than three relations nobody looks.
    let mut last = second;
    for n in 0..4 {
        last = two.relate(bob, &last, "m.reference", &n.to_string()).await;
    }
    assert_eq!(two.unread().await, (3, 0, json!({ root.as_str(): 2 })));
}

#[tokio::test]
async fn threads_are_found_behind_what_was_read_of_the_room() {
    let two = Two::new().await;
    let Two { home, alice, bob, room } = &two;
    let root = home.say(bob, room, "root").await;
    for n in 0..3 {
        two.in_thread(bob, &root, &n.to_string()).await;
    }
    let mut last = root.clone();
    for n in 0..700 {
        last = home.say(bob, room, &n.to_string()).await;
    }
    assert_eq!(two.unread().await, (701, 0, json!({ root.as_str(): 3 })));
    home.read(alice, room, &last, Some("main")).await;
    home.say(bob, room, "one more").await;
    assert_eq!(two.unread().await, (1, 0, json!({ root.as_str(): 3 })));
    // More relations than are looked at: then the events themselves are.
    let other = home.say(bob, room, "other").await;
    for n in 0..2001 {
        two.relate(bob, &other, "m.annotation", &n.to_string()).await;
    }
    home.say(alice, room, "read").await;
    assert_eq!(two.unread().await, (0, 0, json!({ root.as_str(): 3 })));
}

#[tokio::test]
async fn who_never_read_anything_is_told_of_the_last_thousand() {
    let two = Two::new().await;
    let Two { home, alice, bob, room } = &two;
    let first = home.say(bob, room, "first").await;
    for n in 0..1100 {
        home.say(bob, room, &n.to_string()).await;
    }
    assert_eq!(two.unread().await.0, 1000);
    home.read(alice, room, &first, None).await;
    assert_eq!(two.unread().await.0, 1100);
}

#[tokio::test]
async fn messages_of_others_count_and_receipts_end_it() {
    let two = Two::new().await;
    let Two { home, alice, bob, room } = &two;
    assert_eq!(two.unread().await, (0, 0, json!({})));
    let one = home.say(bob, room, "one").await;
    home.say(bob, room, "two").await;
    assert_eq!(two.unread().await.0, 2);
    // State that nobody is mentioned in counts for nothing.
    home.set(bob, room, "m.room.topic", "", json!({ "topic": "x" })).await;
    assert_eq!(two.unread().await.0, 2);
    home.read(alice, room, &one, None).await;
    assert_eq!(two.unread().await.0, 1);
    home.say(bob, room, "three").await;
    assert_eq!(two.unread().await.0, 2);
}

#[tokio::test]
async fn a_receipt_alone_brings_new_counts() {
    let two = Two::new().await;
    let Two { home, alice, bob, room } = &two;
    let event = home.say(bob, room, "one").await;
    let before = home.sync(alice, None).await;
    home.read(alice, room, &event, None).await;
    let sync = home.sync(alice, Some(&token(&before))).await;
    assert_eq!(sync["rooms"]["join"][room.as_str()]["unread_notifications"]["notification_count"], 0);
}

#[tokio::test]
async fn who_writes_has_read() {
    let two = Two::new().await;
    let Two { home, alice, bob, room } = &two;
    home.say(bob, room, "one").await;
    assert_eq!(two.unread().await.0, 1);
    home.say(alice, room, "answer").await;
    assert_eq!(two.unread().await.0, 0);
    home.say(bob, room, "two").await;
    assert_eq!(two.unread().await.0, 1);
}

#[tokio::test]
async fn mentions_highlight() {
    let two = Two::new().await;
    let Two { home, alice, bob, room } = &two;
    let mention = json!({ "msgtype": "m.text", "body": "hey", "m.mentions": { "user_ids": [alice.user] } });
    home.send(bob, room, mention).await;
    home.say(bob, room, "nobody").await;
    assert_eq!(two.unread().await, (2, 1, json!({})));
    let everyone = json!({ "msgtype": "m.text", "body": "@room", "m.mentions": { "room": true } });
    // Bob has not the power to notify everybody: it counts, and does not highlight.
    home.send(bob, room, everyone).await;
    assert_eq!(two.unread().await, (3, 1, json!({})));
}

#[tokio::test]
async fn a_redacted_message_does_not_count_any_more() {
    let two = Two::new().await;
    let Two { home, bob, room, .. } = &two;
    let one = home.say(bob, room, "one").await;
    home.say(bob, room, "two").await;
    assert_eq!(two.unread().await.0, 2);
    home.redact(bob, room, &one).await;
    assert_eq!(two.unread().await.0, 1);
}

#[tokio::test]
async fn threads_are_counted_and_read_apart() {
    let two = Two::new().await;
    let Two { home, alice, bob, room } = &two;
    let root = home.say(bob, room, "root").await;
    let first = two.in_thread(bob, &root, "a").await;
    two.in_thread(bob, &root, "b").await;
    assert_eq!(two.unread().await, (1, 0, json!({ root.as_str(): 2 })));
    // Clients that know nothing of threads are told the sum.
    let sync = home.sync(alice, None).await;
    let it = &sync["rooms"]["join"][room.as_str()];
    assert_eq!(it["unread_notifications"]["notification_count"], 3);
    assert!(it.get("unread_thread_notifications").is_none());

    home.read(alice, room, &first, Some(root.as_str())).await;
    assert_eq!(two.unread().await, (1, 0, json!({ root.as_str(): 1 })));
    home.read(alice, room, &root, Some("main")).await;
    assert_eq!(two.unread().await, (0, 0, json!({ root.as_str(): 1 })));
    two.in_thread(alice, &root, "mine").await;
    assert_eq!(two.unread().await, (0, 0, json!({})));
    let last = two.in_thread(bob, &root, "c").await;
    assert_eq!(two.unread().await, (0, 0, json!({ root.as_str(): 1 })));
    home.read(alice, room, &last, None).await;
    assert_eq!(two.unread().await, (0, 0, json!({})));
}

#[tokio::test]
async fn new_push_rules_count_anew() {
    let two = Two::new().await;
    let Two { home, alice, bob, room } = &two;
    home.say(bob, room, "the cake is ready").await;
    assert_eq!(two.unread().await, (1, 0, json!({})));
    let mut rules = rows::push_rules::defaults(&alice.user);
    let actions = vec![
        ruma_common::push::Action::Notify,
        ruma_common::push::Action::SetTweak(ruma_common::push::Tweak::Highlight(
            ruma_common::push::HighlightTweakValue::Yes,
        )),
    ];
    let rule = NewPatternedPushRule::new("cake".into(), "cake".into(), actions);
    rules.insert(NewPushRule::Content(rule), None, None).unwrap();
    let mut tx = Tx::new();
    let slot = tx.slot();
    let json = rows::push_rules::json(&rules).into();
    rows::account_data::put(&mut tx, slot, alice.user_no, None, rows::push_rules::TYPE, &json, None);
    home.store.commit(tx).await.unwrap();
    assert_eq!(two.unread().await, (1, 1, json!({})));
}

#[tokio::test]
async fn what_is_counted_on_is_what_is_counted_anew() {
    let two = Two::new().await;
    let Two { home, alice, bob, room } = &two;
    let mut dice = common::Dice::new(11);
    let mut events = vec![home.say(bob, room, "root").await];
    let root = events[0].clone();
    for n in 0..120 {
        match dice.below(14) {
            12 => drop(two.relate(bob, &dice.pick(&events), "m.annotation", &n.to_string()).await),
            13 => events.push(two.relate(bob, &dice.pick(&events), "m.replace", &n.to_string()).await),
            0..5 => events.push(home.say(bob, room, &n.to_string()).await),
            5..7 => events.push(two.in_thread(bob, &root, &n.to_string()).await),
            7 => events.push(home.say(alice, room, &n.to_string()).await),
            8 => home.read(alice, room, &dice.pick(&events), None).await,
            9 => home.redact(bob, room, &dice.pick(&events)).await,
            10 => {
                two.in_thread(alice, &root, &n.to_string()).await;
            }
            _ => {
                let event = dice.pick(&events);
                let thread = if dice.below(2) == 0 { "main" } else { root.as_str() };
                let new = stoa_rooms::NewReceipt {
                    user: alice.user.clone(),
                    kind: "m.read.private".into(),
                    event,
                    thread: Some(thread.to_owned()),
                };
                // Refused where the event is in another thread.
                let _ = home.rooms.receipts(room, vec![new]).await;
            }
        }
        // Nobody has counted yet with a fresh view.
        let continued = two.unread().await;
        let env = stoa_store::Env { clock: std::sync::Arc::new(Still), random: std::sync::Arc::new(Still) };
        let fresh = stoa_view::View::new(home.store.clone(), env, stoa_view::Config::default());
        let filter = json!({ "room": { "timeline": { "limit": 1, "unread_thread_notifications": true } } });
        let answer = fresh.sync(home.request(alice, None, filter)).await.unwrap();
        let sync: Value = serde_json::from_slice(&answer).unwrap();
        let it = &sync["rooms"]["join"][room.as_str()];
        assert_eq!(it["unread_notifications"]["notification_count"], continued.0, "step {n}");
        let threads = it["unread_thread_notifications"].as_object().cloned().unwrap_or_default();
        let threads: serde_json::Map<_, _> =
            threads.into_iter().map(|(root, count)| (root, count["notification_count"].clone())).collect();
        assert_eq!(Value::Object(threads), continued.2, "step {n}");
    }
}

struct Still;

impl stoa_store::Clock for Still {
    fn now_ms(&self) -> u64 {
        0
    }
}

impl stoa_store::Random for Still {
    fn fill(&self, _: &mut [u8]) {}
}
