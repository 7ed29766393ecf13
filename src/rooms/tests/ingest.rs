//! Taking in events of other servers (Server-Server API, "Checks performed on receipt of a PDU"), told by servers that hand
//! each other what they made.

mod common;

use std::sync::Arc;

use common::{House, clock};
use serde_json::json;
use stoa_event::{
    ids::{OwnedEventId, OwnedRoomId, RoomVersionId},
    pdu::Pdu,
};
use stoa_rooms::{Action, Arrival, Outcome};
use stoa_store::rows::events::Standing;

/// Two servers in one room.
async fn two(version: RoomVersionId) -> (House, House, OwnedRoomId) {
    let clock = clock();
    let (a, b) = (House::open("a.test", &clock).await, House::open("b.test", &clock).await);
    let room = a.create(&a.user("alice"), version).await;
    b.join_by(&a, &room, &b.user("bob")).await;
    (a, b, room)
}

#[tokio::test]
async fn a_room_is_the_same_on_both_sides_after_a_join() {
    for version in stoa_event::version::SUPPORTED {
        let (a, b, room) = two(version.clone()).await;
        assert_eq!(a.current(&room).await, b.current(&room).await, "{version}");
        let id = b.say(&room, &b.user("bob"), "hello").await.unwrap();
        assert_eq!(a.live(&room, &[b.event(&room, &id).await]).await, [Outcome::Accepted], "{version}");
        let id = a.say(&room, &a.user("alice"), "hi").await.unwrap();
        assert_eq!(b.live(&room, &[a.event(&room, &id).await]).await, [Outcome::Accepted], "{version}");
        assert_eq!(b.live(&room, &[a.event(&room, &id).await]).await, [Outcome::Known], "{version}");
    }
}

#[tokio::test]
async fn what_an_event_builds_on_is_asked_for() {
    let (a, b, room) = two(RoomVersionId::V12).await;
    let alice = a.user("alice");
    let first = a.say(&room, &alice, "one").await.unwrap();
    let second = a.say(&room, &alice, "two").await.unwrap();
    let second = a.event(&room, &second).await;
    let outcome = b.live(&room, std::slice::from_ref(&second)).await.pop().unwrap();
    let Outcome::Needs(needs) = outcome else { panic!("{outcome:?}") };
    assert_eq!((needs.prevs, needs.events), (vec![first.clone()], vec![]));
    // With it, in the same breath, all is well.
    let both = [a.event(&room, &first).await, second];
    assert_eq!(b.live(&room, &both).await, [Outcome::Accepted, Outcome::Accepted]);
    assert_eq!(b.rooms.tips(&room).await.unwrap(), a.rooms.tips(&room).await.unwrap());
}

#[tokio::test]
async fn auth_events_that_are_not_held_are_asked_for() {
    let (a, b, room) = two(RoomVersionId::V11).await;
    let alice = a.user("alice");
    let levels = json!({ "users": { alice.as_str(): 100 }, "events_default": 5 });
    a.state(&room, &alice, "m.room.power_levels", Some(""), levels).await.unwrap();
    let id = a.say(&room, &alice, "by new rules").await.unwrap();
    let outcome = b.live(&room, &[a.event(&room, &id).await]).await.pop().unwrap();
    let Outcome::Needs(needs) = outcome else { panic!("{outcome:?}") };
    assert_eq!(needs.events.len(), 1);
}

#[tokio::test]
async fn an_event_that_its_auth_events_do_not_allow_is_rejected_and_what_builds_on_it_is_judged() {
    let (a, b, room) = two(RoomVersionId::V10).await;
    let bob = b.user("bob");
    // Bob's server believes that he may: it has another state than it should.
    let topic = forged(&b, &room, &bob, "m.room.topic", json!({ "topic": "mine" })).await;
    let outcome = a.live(&room, std::slice::from_ref(&topic)).await.pop().unwrap();
    assert!(matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
    assert_eq!(a.standing(&room, topic.event_id()).await, Some(Standing::Rejected));
    assert!(!a.current(&room).await.contains_key(&("m.room.topic".into(), "".into())));
    // It is not a forward extremity, and asking again changes nothing.
    assert!(!a.rooms.tips(&room).await.unwrap().contains(topic.event_id()));
    assert!(matches!(a.live(&room, &[topic]).await[..], [Outcome::Rejected(_)]));
}

/// An event that the law refuses, well signed by its server.
async fn forged(
    house: &House,
    room: &OwnedRoomId,
    sender: &stoa_event::ids::OwnedUserId,
    kind: &str,
    content: serde_json::Value,
) -> Arc<Pdu> {
    let rules = house.rooms.rules_of(room).await.unwrap();
    let current = house.current(room).await;
    let named = |kind: &str, key: &str| current.get(&(kind.to_owned(), key.to_owned())).cloned();
    let auth = [named("m.room.create", ""), named("m.room.power_levels", ""), named("m.room.member", sender.as_str())];
    let draft = stoa_event::build::Draft {
        room_id: Some(room.clone()),
        sender: sender.clone(),
        kind: kind.to_owned(),
        state_key: Some(String::new()),
        content: content.to_string().into_bytes(),
        prev_events: house.rooms.tips(room).await.unwrap(),
        auth_events: auth.into_iter().flatten().map(|id| OwnedEventId::try_from(id).unwrap()).collect(),
        depth: 100,
        origin_server_ts: 1_700_000_100_000,
        redacts: None,
    };
    let key = stoa_event::sign::SigningKey::from_seed(&[1; 32], "1").unwrap();
    Arc::new(stoa_event::build::seal(draft, &rules, sender.server_name(), &key).unwrap())
}

#[tokio::test]
async fn an_event_from_before_a_ban_that_comes_after_it_is_soft_failed() {
    let (a, b, room) = two(RoomVersionId::V12).await;
    let (alice, bob) = (a.user("alice"), b.user("bob"));
    let late = b.say(&room, &bob, "too late").await.unwrap();
    a.change(&room, Action::Ban, &alice, &bob).await.unwrap();
    let outcome = a.live(&room, &[b.event(&room, &late).await]).await.pop().unwrap();
    assert!(matches!(outcome, Outcome::SoftFailed(_)), "{outcome:?}");
    assert!(!a.rooms.tips(&room).await.unwrap().contains(&late));
    // What follows it is judged as ever, by the state there.
    let later = b.say(&room, &bob, "and later").await.unwrap();
    let outcome = a.live(&room, &[b.event(&room, &later).await]).await.pop().unwrap();
    assert!(matches!(outcome, Outcome::SoftFailed(_)), "{outcome:?}");
}

#[tokio::test]
async fn d3_23_the_acl_is_asked_about_the_sender_whoever_brings_the_event() {
    let (a, b, room) = two(RoomVersionId::V12).await;
    let c = House::open("c.test", &clock()).await;
    let (alice, carol) = (a.user("alice"), c.user("carol"));
    c.join_by(&a, &room, &carol).await;
    let content = json!({ "allow": ["*"], "deny": ["C.TEST"] });
    a.state(&room, &alice, "m.room.server_acl", Some(""), content).await.unwrap();
    let said = c.say(&room, &carol, "let me in").await.unwrap();
    // `live` is what a server does with what somebody else brought.
    let outcome = a.live(&room, &[c.event(&room, &said).await]).await.pop().unwrap();
    assert!(matches!(&outcome, Outcome::SoftFailed(why) if why.contains("ACL")), "{outcome:?}");
    assert!(!a.rooms.tips(&room).await.unwrap().contains(&said));
    // Nobody else is meant.
    let hello = b.say(&room, &b.user("bob"), "hello").await.unwrap();
    assert_eq!(a.live(&room, &[b.event(&room, &hello).await]).await, [Outcome::Accepted]);
}

#[tokio::test]
async fn a_redaction_that_comes_before_what_it_redacts_is_not_lost() {
    let (a, b, room) = two(RoomVersionId::V12).await;
    let alice = a.user("alice");
    let secret = a.say(&room, &alice, "secret").await.unwrap();
    let whole = a.event(&room, &secret).await;
    let redaction = a.redact(&room, &alice, &secret).await.unwrap();
    let redaction = a.event(&room, &redaction).await;
    assert_eq!(b.live_with_states(&a, &room, &redaction).await, Outcome::Accepted);
    assert_eq!(b.live(&room, &[whole]).await, [Outcome::Accepted]);
    let kept = b.event(&room, &secret).await;
    assert_eq!(kept.content(), b"{}");
}

#[tokio::test]
async fn a_redaction_in_the_same_transaction_applies() {
    let (a, b, room) = two(RoomVersionId::V12).await;
    let alice = a.user("alice");
    let secret = a.say(&room, &alice, "secret").await.unwrap();
    let whole = a.event(&room, &secret).await;
    let redaction = a.redact(&room, &alice, &secret).await.unwrap();
    let both = [whole, a.event(&room, &redaction).await];
    assert_eq!(b.live(&room, &both).await, [Outcome::Accepted, Outcome::Accepted]);
    assert_eq!(b.event(&room, &secret).await.content(), b"{}");
}

#[tokio::test]
async fn history_that_is_filled_in_closes_the_gap_and_changes_nothing_else() {
    let (a, b, room) = two(RoomVersionId::V12).await;
    let alice = a.user("alice");
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(a.say(&room, &alice, &format!("{n}")).await.unwrap());
    }
    let last = a.event(&room, &ids[3]).await;
    assert_eq!(b.live_with_states(&a, &room, &last).await, Outcome::Accepted);
    let (before, tips) = (b.current(&room).await, b.rooms.tips(&room).await.unwrap());
    for id in &ids[..3] {
        let pdu = a.event(&room, id).await;
        let outcome = b.rooms.ingest(&room, vec![Arrival::History(pdu, Vec::new())]).await.unwrap();
        assert_eq!(outcome, [Outcome::Accepted]);
    }
    assert_eq!((b.current(&room).await, b.rooms.tips(&room).await.unwrap()), (before, tips));
    let snapshot = b.store.snapshot().await.unwrap();
    let (_, last) = b.store.events().by_id(&snapshot, ids[3].as_str()).await.unwrap().unwrap();
    assert!(!last.header.gap);
}

#[tokio::test]
async fn events_of_another_room_and_second_create_events_are_refused() {
    let (a, b, room) = two(RoomVersionId::V11).await;
    let other = b.create(&b.user("bob"), RoomVersionId::V11).await;
    let create = b.events(&other).await.remove(0).0;
    let outcome = a.live(&room, &[create]).await.pop().unwrap();
    assert!(matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
}

#[tokio::test]
async fn what_was_taken_in_is_there_after_a_restart() {
    let (a, b, room) = two(RoomVersionId::V12).await;
    let id = a.say(&room, &a.user("alice"), "kept").await.unwrap();
    b.live(&room, &[a.event(&room, &id).await]).await;
    let current = b.current(&room).await;
    let b = b.reopened().await;
    assert_eq!(b.current(&room).await, current);
    let id = b.say(&room, &b.user("bob"), "still here").await.unwrap();
    assert_eq!(a.live(&room, &[b.event(&room, &id).await]).await, [Outcome::Accepted]);
}
