//! Servers that act while they do not hear each other: they change power levels, ban, invite and join, and end in the same state
//! when they have heard everything. At every merge that state is the one of ruma-state-res, which is the oracle here.

mod common;
#[path = "../../event/tests/room/oracle.rs"]
#[allow(dead_code)]
mod oracle;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use common::{Dice, House, clock};
use ruma_state_res::StateMap;
use serde_json::{Value, json};
use stoa_event::{
    ids::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId},
    pdu::Pdu,
};
use stoa_rooms::{Action, Outcome};
use stoa_store::rows::events::Standing;

/// The versions that ruma resolves, those of today first.
const VERSIONS: [RoomVersionId; 6] = [
    RoomVersionId::V12,
    RoomVersionId::V11,
    RoomVersionId::V10,
    RoomVersionId::V12,
    RoomVersionId::V8,
    RoomVersionId::V6,
];

/// Who is in the play, and on which server.
const EVERYONE: [(&str, usize); 5] = [("alice", 0), ("bob", 1), ("carol", 2), ("dan", 1), ("eve", 2)];

/// How many merges were held against the oracle, and how many of them were between different states.
#[derive(Default)]
struct Merges {
    all: usize,
    of_different: usize,
}

async fn forks(seed: u64, version: RoomVersionId, merges: &mut Merges) {
    let mut dice = Dice(seed);
    let clock = clock();
    let mut houses = Vec::new();
    for name in ["a.test", "b.test", "c.test"] {
        houses.push(House::open(name, &clock).await);
    }
    let room = begin(&houses, version.clone()).await;
    for _ in 0..3 {
        for _ in 0..10 {
            act(&houses, &room, &mut dice).await;
        }
        heal(&houses, &room, &mut dice).await;
        same_graph(&houses, &room, seed).await;
        // What one of them soft-failed another may have accepted. When those who are in the room have said something, each
        // has the branches of all.
        for _ in 0..2 {
            for (name, at) in &EVERYONE {
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
    for house in &houses {
        as_ruma(house, &room, &version, seed, merges).await;
    }
}

/// A room of Alice's with a user of each other server in it, who all have some power, so that they can quarrel.
async fn begin(houses: &[House], version: RoomVersionId) -> OwnedRoomId {
    let alice = houses[0].user("alice");
    let room = houses[0].create(&alice, version).await;
    let join = houses[1].join_by(&houses[0], &room, &houses[1].user("bob")).await;
    assert!(houses[1].rooms.holds(&room, &join).await.unwrap());
    let join = houses[2].join_by(&houses[0], &room, &houses[2].user("carol")).await;
    let pdu = houses[0].event(&room, &join).await;
    houses[1].live(&room, &[pdu]).await;
    let mut users = json!({ "@bob:b.test": 60, "@carol:c.test": 50 });
    if !houses[0].rooms.rules_of(&room).await.unwrap().creators_are_privileged {
        users[alice.as_str()] = json!(100);
    }
    let levels = json!({
        "users": users, "state_default": 50, "ban": 50, "kick": 50, "redact": 50, "invite": 0, "users_default": 0,
        "events_default": 0, "events": { "m.room.power_levels": 50 },
    });
    houses[0].state(&room, &alice, "m.room.power_levels", Some(""), levels).await.unwrap();
    room
}

/// Somebody does something. Refusals are part of the game.
async fn act(houses: &[House], room: &OwnedRoomId, dice: &mut Dice) {
    let (name, at) = dice.pick(&EVERYONE);
    let house = &houses[at];
    let me = house.user(name);
    let (other, other_at) = dice.pick(&EVERYONE);
    let target = houses[other_at].user(other);
    let n = dice.below(1000);
    let state = async |kind: &str, content: Value| house.state(room, &me, kind, Some(""), content).await.map(drop);
    let _ = match dice.below(11) {
        0 => house.say(room, &me, &n.to_string()).await.map(drop),
        1 => state("m.room.topic", json!({ "topic": n.to_string() })).await,
        2 => house.change(room, Action::Join, &me, &me).await,
        // Alice stays, so that there is somebody to compare with.
        3 if name != "alice" => house.change(room, Action::Leave, &me, &me).await,
        4 if other != "alice" => house.change(room, Action::Ban, &me, &target).await,
        5 => house.change(room, Action::Unban, &me, &target).await,
        6 if other != "alice" => house.change(room, Action::Kick, &me, &target).await,
        7 => house.change(room, Action::Invite, &me, &target).await,
        8 => house.change(room, Action::Knock, &me, &me).await,
        9 => {
            let rule = dice.pick(&["public", "invite", "knock"]);
            state("m.room.join_rules", json!({ "join_rule": rule })).await
        }
        _ => state("m.room.power_levels", other_levels(house, room, &target, dice).await).await,
    };
}

/// The power levels as a server sees them, with another power for somebody, or for something.
async fn other_levels(house: &House, room: &OwnedRoomId, target: &OwnedUserId, dice: &mut Dice) -> Value {
    let current = house.current(room).await;
    let id = OwnedEventId::try_from(current[&("m.room.power_levels".to_owned(), String::new())].as_str()).unwrap();
    let mut levels: Value = serde_json::from_slice(house.event(room, &id).await.content()).unwrap();
    let power = dice.pick(&[0, 25, 50, 60, 75, 100]);
    match dice.pick(&["users", "users", "users", "ban", "kick", "events_default", "state_default"]) {
        "users" => levels["users"][target.as_str()] = json!(power),
        other => levels[other] = json!(power),
    }
    levels
}

/// What an event follows decides the state before it and whether it is rejected, whatever came in which order.
async fn same_graph(houses: &[House], room: &OwnedRoomId, seed: u64) {
    let mut known = HashMap::new();
    for house in houses {
        for (id, placed) in house.graph(room).await {
            let first = known.entry(id.clone()).or_insert_with(|| placed.clone());
            assert_eq!(*first, placed, "seed {seed}: {id} at {}", house.name);
        }
    }
}

/// Everybody hears everything, in an order of chance.
async fn heal(houses: &[House], room: &OwnedRoomId, dice: &mut Dice) {
    let mut all: BTreeMap<OwnedEventId, Arc<Pdu>> = BTreeMap::new();
    for house in houses {
        all.extend(house.events(room).await.into_iter().map(|(pdu, _)| (pdu.event_id().clone(), pdu)));
    }
    for house in houses {
        let mut left: Vec<Arc<Pdu>> = all.values().cloned().collect();
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

/// At every event that follows several others, and at the end of the room, the state is what ruma makes of theirs.
async fn as_ruma(house: &House, room: &OwnedRoomId, version: &RoomVersionId, seed: u64, merges: &mut Merges) {
    let events = house.events(room).await;
    let rejected: BTreeSet<&OwnedEventId> =
        events.iter().filter(|(_, standing)| *standing == Standing::Rejected).map(|(pdu, _)| pdu.event_id()).collect();
    let by_id: HashMap<&OwnedEventId, &Arc<Pdu>> = events.iter().map(|(pdu, _)| (pdu.event_id(), pdu)).collect();
    let seen: oracle::Events = events
        .iter()
        .map(|(pdu, _)| (pdu.event_id().clone(), oracle::Seen::new(pdu, rejected.contains(pdu.event_id()), version)))
        .collect();
    let key = |pdu: &Pdu| (pdu.kind().into(), pdu.state_key().unwrap().to_owned());
    let mut after: HashMap<OwnedEventId, StateMap<OwnedEventId>> = HashMap::new();
    let mut before: HashMap<OwnedEventId, StateMap<OwnedEventId>> = HashMap::new();
    for (id, (is_rejected, state)) in house.graph(room).await {
        let id = OwnedEventId::try_from(id).unwrap();
        let ids = state.into_iter().map(|id| OwnedEventId::try_from(id).unwrap());
        let mut state: StateMap<OwnedEventId> = ids.map(|id| (key(by_id[&id]), id)).collect();
        before.insert(id.clone(), state.clone());
        let pdu = by_id[&id];
        if pdu.state_key().is_some() && !is_rejected {
            state.insert(key(pdu), id.clone());
        }
        after.insert(id, state);
    }
    let mut check = |of: &[OwnedEventId], ours: &StateMap<OwnedEventId>, what: &str| {
        // Those who came later do not have the graph before they came.
        let states: Option<Vec<_>> = of.iter().map(|id| after.get(id).cloned()).collect();
        let Some(states) = states.filter(|states| states.len() > 1) else { return };
        merges.all += 1;
        merges.of_different += usize::from(states.iter().any(|state| *state != states[0]));
        let rumas = oracle::resolve(version, &seen, &states);
        assert_eq!(*ours, rumas, "seed {seed}, version {version}, {}: {what}", house.name);
    };
    for (pdu, _) in &events {
        if let Some(ours) = before.get(pdu.event_id()) {
            check(pdu.prev_events(), ours, pdu.event_id().as_str());
        }
    }
    let current = house.current(room).await.into_values().map(|id| OwnedEventId::try_from(id).unwrap());
    let current: StateMap<OwnedEventId> = current.map(|id| (key(by_id[&id]), id)).collect();
    check(&house.rooms.tips(room).await.unwrap(), &current, "now");
}

#[tokio::test]
async fn forks_heal_and_resolve_as_in_ruma() {
    let seeds: u64 = std::env::var("STOA_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(12);
    let first: u64 = std::env::var("STOA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let mut merges = Merges::default();
    for seed in first..first + seeds {
        let version = VERSIONS[usize::try_from(seed % 6).unwrap()].clone();
        forks(seed, version, &mut merges).await;
    }
    // The rooms must be such that there is something to resolve.
    let (all, different, seeds) = (merges.all, merges.of_different, usize::try_from(seeds).unwrap());
    assert!(different >= seeds * 3, "{different} of {all} merges in {seeds} rooms were between different states");
}
