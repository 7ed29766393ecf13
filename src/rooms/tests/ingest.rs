//! Taking in events of other servers (Server-Server API, "Checks performed on receipt of a PDU"), told by servers that hand
//! each other what they made.

mod common;

use std::sync::Arc;

use common::{Dice, House, clock};
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

/// Servers that act while they do not hear each other end in the same state when they have heard everything.
async fn forks(seed: u64, version: RoomVersionId) {
    let mut dice = Dice(seed);
    let clock = clock();
    let mut houses = Vec::new();
    for name in ["a.test", "b.test", "c.test"] {
        houses.push(House::open(name, &clock).await);
    }
    let alice = houses[0].user("alice");
    let room = houses[0].create(&alice, version).await;
    let join = houses[1].join_by(&houses[0], &room, &houses[1].user("bob")).await;
    assert!(houses[1].rooms.holds(&room, &join).await.unwrap());
    let join = houses[2].join_by(&houses[0], &room, &houses[2].user("carol")).await;
    let pdu = houses[0].event(&room, &join).await;
    houses[1].live(&room, &[pdu]).await;
    let everyone: Vec<_> = [("alice", 0), ("bob", 1), ("carol", 2), ("dan", 1), ("eve", 2)].to_vec();
    // Some power for everyone, so that they can quarrel.
    let levels = json!({
        "users": if houses[0].rooms.rules_of(&room).await.unwrap().creators_are_privileged {
            json!({ "@bob:b.test": 60, "@carol:c.test": 50 })
        } else {
            json!({ alice.as_str(): 100, "@bob:b.test": 60, "@carol:c.test": 50 })
        },
        "state_default": 50, "ban": 50, "kick": 50, "redact": 50, "invite": 0, "users_default": 0, "events_default": 0,
        "events": { "m.room.power_levels": 50 },
    });
    houses[0].state(&room, &alice, "m.room.power_levels", Some(""), levels).await.unwrap();
    for _ in 0..3 {
        for _ in 0..8 {
            let (name, at) = dice.pick(&everyone);
            let house = &houses[at];
            let me = house.user(name);
            let (other, other_at) = dice.pick(&everyone);
            let target = houses[other_at].user(other);
            let n = dice.below(1000);
            // Refusals are part of the game.
            let _ = match dice.below(7) {
                0 => house.say(&room, &me, &n.to_string()).await.map(drop),
                1 => {
                    house.state(&room, &me, "m.room.topic", Some(""), json!({ "topic": n.to_string() })).await.map(drop)
                }
                2 => house.change(&room, Action::Join, &me, &me).await,
                // Alice stays, so that there is somebody to compare with.
                3 if name != "alice" => house.change(&room, Action::Leave, &me, &me).await,
                4 => house.change(&room, Action::Ban, &me, &target).await,
                5 => house.change(&room, Action::Unban, &me, &target).await,
                _ => {
                    let rule = dice.pick(&["public", "invite"]);
                    house.state(&room, &me, "m.room.join_rules", Some(""), json!({ "join_rule": rule })).await.map(drop)
                }
            };
        }
        heal(&houses, &room, &mut dice).await;
        same_graph(&houses, &room, seed).await;
        // What one of them soft-failed another may have accepted. When those who are in the room have said something, each
        // has the branches of all.
        for _ in 0..2 {
            for (name, at) in &everyone {
                let _ = houses[*at].say(&room, &houses[*at].user(name), "amen").await;
            }
            heal(&houses, &room, &mut dice).await;
        }
        same_graph(&houses, &room, seed).await;
        let first = houses[0].current(&room).await;
        for house in &houses[1..] {
            // Who cannot speak cannot make the others hear of its branches.
            let speaks = houses[0].has_members_of(&room, &house.name).await;
            if speaks && house.has_members_of(&room, &house.name).await {
                assert_eq!(house.current(&room).await, first, "seed {seed}: {}", house.name);
            }
        }
    }
}

/// What an event follows decides the state before it and whether it is rejected, whatever came in which order.
async fn same_graph(houses: &[House], room: &OwnedRoomId, seed: u64) {
    let mut known = std::collections::HashMap::new();
    for house in houses {
        for (id, placed) in house.graph(room).await {
            let first = known.entry(id.clone()).or_insert_with(|| placed.clone());
            assert_eq!(*first, placed, "seed {seed}: {id} at {}", house.name);
        }
    }
}

/// Everybody hears everything, in an order of chance.
async fn heal(houses: &[House], room: &OwnedRoomId, dice: &mut Dice) {
    let mut all: Vec<Arc<Pdu>> = Vec::new();
    for house in houses {
        for (pdu, _) in house.events(room).await {
            if !all.iter().any(|known| known.event_id() == pdu.event_id()) {
                all.push(pdu);
            }
        }
    }
    for house in houses {
        let mut left = all.clone();
        for i in (1..left.len()).rev() {
            left.swap(i, dice.below(i + 1));
        }
        let mut rounds = 0;
        while !left.is_empty() {
            rounds += 1;
            assert!(rounds < 200, "events that nobody can judge: {left:?}");
            let outcomes = house.live(room, &left).await;
            let waiting = left.into_iter().zip(outcomes).filter(|(_, outcome)| matches!(outcome, Outcome::Needs(_)));
            left = waiting.map(|(pdu, _)| pdu).collect();
        }
    }
}

#[tokio::test]
async fn forks_heal() {
    let seeds: u64 = std::env::var("STOA_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(12);
    for seed in 0..seeds {
        let version = if seed % 3 == 0 { RoomVersionId::V10 } else { RoomVersionId::V12 };
        forks(seed, version).await;
    }
}
