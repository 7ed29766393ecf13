//! State resolution: the problems that version 2.1 was made for, the specification's example, classic disputes, and
//! graphs that are out of order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod room;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use room::{
    Plan, VERSIONS, rules,
    world::{USERS, World, levels},
};
use serde_json::{Value, json};
use stoa_event::{
    ids::RoomVersionId,
    pdu::Pdu,
    resolve::{AuthEvents, Conflicts, Graph, auth_difference, conflicted_subgraph, conflicts, resolve_states},
    version::Rules,
};

const ALICE: &str = USERS[0];
const BOB: &str = USERS[1];
const CHARLIE: &str = USERS[2];
const EVE: &str = USERS[3];
const ZARA: &str = USERS[4];

fn named(user: &str, name: &str) -> Plan {
    let mut plan = Plan::member(user, "join");
    plan.content["displayname"] = json!(name);
    plan
}

fn state(kind: &str, sender: &str, content: Value) -> Plan {
    Plan::new(kind, Some(""), sender, content)
}

fn join_rule(rule: &str) -> Plan {
    state("m.room.join_rules", ALICE, json!({ "join_rule": rule }))
}

/// Power levels by a sender. In version 12 Alice stands in none, as she is the creator.
fn powers(rules: &Rules, sender: &str, mut users: Value) -> Plan {
    if !rules.creators_are_privileged {
        users[ALICE] = json!(100);
    }
    let mut content = levels(users);
    content["events"]["m.room.power_levels"] = json!(50);
    state("m.room.power_levels", sender, content)
}

fn room_of(version: &RoomVersionId) -> World {
    World::new(version, 4297, json!({ "creator": ALICE, "room_version": version }))
}

/// MSC4297, problem A: both sides agree that Alice, who made the join rules, has left; one has outdated join rules.
#[test]
fn problem_a_loses_the_join_rules_only_before_2_1() {
    for version in VERSIONS {
        let mut room = room_of(&version);
        room.must(Plan::member(ALICE, "join"));
        room.must(powers(&rules(&version), ALICE, json!({})));
        let public = room.must(join_rule("public"));
        room.must(Plan::member(BOB, "join"));
        room.must(Plan::member(CHARLIE, "join"));
        let invite = room.must(join_rule("invite"));
        let left = room.must(Plan::member(ALICE, "leave"));
        let bob = room.must_after(left, named(BOB, "B."));
        let charlie = room.must_after(left, named(CHARLIE, "C."));

        let key = room.key("m.room.join_rules", "");
        let at_bob = room.after[bob as usize].clone();
        let mut at_charlie = room.after[charlie as usize].clone();
        assert_eq!(at_charlie.insert(key, public), Some(invite));
        let resolved = room.resolve(&[&at_bob, &at_charlie]);

        let expected = if version == RoomVersionId::V12 { Some(&invite) } else { None };
        assert_eq!(resolved.get(&key), expected, "version {version}");
        assert_eq!(resolved[&room.key("m.room.member", ALICE)], left);
        if version == RoomVersionId::V12 {
            assert_eq!(resolved[&room.key("m.room.member", BOB)], bob);
            assert_eq!(resolved[&room.key("m.room.member", CHARLIE)], charlie);
        }
    }
}

/// MSC4297, problem B: Alice promotes Bob, who promotes Charlie; one side has the power levels from before both.
#[test]
fn problem_b_loses_the_promotions_only_before_2_1() {
    for version in VERSIONS {
        let rules = rules(&version);
        let mut room = room_of(&version);
        room.must(Plan::member(ALICE, "join"));
        let first = room.must(powers(&rules, ALICE, json!({})));
        room.must(join_rule("public"));
        room.must(Plan::member(BOB, "join"));
        room.must(Plan::member(CHARLIE, "join"));
        room.must(powers(&rules, ALICE, json!({ BOB: 50 })));
        let third = room.must(powers(&rules, BOB, json!({ BOB: 50, CHARLIE: 50 })));
        room.must_after(third, Plan::member(EVE, "join"));
        let eve = room.must(named(EVE, "E."));
        let zara = room.must_after(third, Plan::member(ZARA, "join"));

        let key = room.key("m.room.power_levels", "");
        let mut at_eve = room.after[eve as usize].clone();
        assert_eq!(at_eve.insert(key, first), Some(third));
        let resolved = room.resolve(&[&at_eve, &room.after[zara as usize]]);

        let expected = if version == RoomVersionId::V12 { third } else { first };
        assert_eq!(resolved[&key], expected, "version {version}");
        assert_eq!(resolved[&room.key("m.room.member", EVE)], eve);
        assert_eq!(resolved[&room.key("m.room.member", ZARA)], zara);
    }
}

/// A room with Alice as admin and Bob, who may set topics; the number of the last event.
fn with_bob(version: &RoomVersionId) -> (World, u32) {
    let mut room = room_of(version);
    room.must(Plan::member(ALICE, "join"));
    room.must(powers(&rules(version), ALICE, json!({ BOB: 50, CHARLIE: 50 })));
    room.must(join_rule("public"));
    room.must(Plan::member(BOB, "join"));
    let last = room.must(Plan::member(CHARLIE, "join"));
    (room, last)
}

/// Server-Server API, "Soft failure": B bans a user who sets the topic with C at the same time. Later versions of the
/// algorithm prioritise the ban over the topic.
#[test]
fn a_ban_comes_before_what_the_banned_did_meanwhile() {
    for version in VERSIONS {
        let (mut room, last) = with_bob(&version);
        let topic = room.must_after(last, state("m.room.topic", BOB, json!({ "topic": "mine" })));
        let ban = room.must_after(last, Plan::member(BOB, "ban").by(ALICE));
        assert!(room.pdus[topic as usize].origin_server_ts() < room.pdus[ban as usize].origin_server_ts());
        let resolved = room.resolve(&[&room.after[topic as usize], &room.after[ban as usize]]);
        assert_eq!(resolved[&room.key("m.room.member", BOB)], ban);
        assert_eq!(resolved.get(&room.key("m.room.topic", "")), None);
    }
}

#[test]
fn what_the_banned_banned_meanwhile_does_not_count() {
    for version in VERSIONS {
        let (mut room, last) = with_bob(&version);
        let by_bob = room.must_after(last, Plan::member(EVE, "ban").by(BOB));
        let bans_bob = room.must_after(last, Plan::member(BOB, "ban").by(ALICE));
        let resolved = room.resolve(&[&room.after[by_bob as usize], &room.after[bans_bob as usize]]);
        assert_eq!(resolved[&room.key("m.room.member", BOB)], bans_bob);
        assert_eq!(resolved.get(&room.key("m.room.member", EVE)), None, "Bob was banned when he banned Eve");
    }
}

#[test]
fn of_two_topics_the_later_stays() {
    for version in VERSIONS {
        let (mut room, last) = with_bob(&version);
        let one = room.must_after(last, state("m.room.topic", BOB, json!({ "topic": "one" })));
        let two = room.must_after(last, state("m.room.topic", CHARLIE, json!({ "topic": "two" })));
        for states in [[one, two], [two, one]] {
            let states = states.map(|n| room.after[n as usize].clone());
            assert_eq!(room.resolve(&[&states[0], &states[1]])[&room.key("m.room.topic", "")], two);
        }
    }
}

/// A topic that knows the newer power levels stays, whatever the clock of the other says.
#[test]
fn the_mainline_weighs_more_than_the_clock() {
    for version in VERSIONS {
        let (mut room, last) = with_bob(&version);
        let mut late = state("m.room.topic", CHARLIE, json!({ "topic": "old levels, late clock" }));
        late.ts = 1_000_000;
        let late = room.must_after(last, late);
        room.must_after(last, powers(&rules(&version), ALICE, json!({ BOB: 50, CHARLIE: 50, EVE: 10 })));
        let new = room.must(state("m.room.topic", BOB, json!({ "topic": "new levels" })));
        let resolved = room.resolve(&[&room.after[late as usize], &room.after[new as usize]]);
        assert_eq!(resolved[&room.key("m.room.topic", "")], new);
    }
}

/// A demotion by an equal: of two power level changes by people of the same power the earlier wins.
#[test]
fn equals_are_ordered_by_time() {
    for version in VERSIONS {
        let (mut room, last) = with_bob(&version);
        let rules = rules(&version);
        let by_charlie = room.must_after(last, powers(&rules, CHARLIE, json!({ BOB: 50, CHARLIE: 50, EVE: 40 })));
        let by_bob = room.must_after(last, powers(&rules, BOB, json!({ BOB: 50, CHARLIE: 50, EVE: 50 })));
        let resolved = room.resolve(&[&room.after[by_bob as usize], &room.after[by_charlie as usize]]);
        // Charlie's came first; by Bob's, Eve rises further; then nobody touches her again.
        assert_eq!(resolved[&room.key("m.room.power_levels", "")], by_bob);
    }
}

/// "The appropriate state event from the event's `auth_events` is used if the auth event is not rejected."
#[test]
fn rejected_auth_events_authorise_nothing() {
    let (mut room, last) = with_bob(&RoomVersionId::V12);
    let topic = |sender, name| state("m.room.topic", sender, json!({ "topic": name }));
    let one = room.must_after(last, topic(CHARLIE, "one"));
    let two = room.must_after(last, topic(BOB, "two"));
    let (topic, bob) = (room.key("m.room.topic", ""), room.key("m.room.member", BOB));
    let states = [room.after[one as usize].clone(), room.after[two as usize].clone()];
    assert_eq!(room.resolve(&[&states[0], &states[1]])[&topic], two);
    room.reject(states[0][&bob]);
    assert_eq!(room.resolve(&[&states[0], &states[1]])[&topic], one);
}

/// Events that were rejected by the state before them are judged like all others: the state may be another now.
#[test]
fn rejected_events_are_judged_again() {
    for version in VERSIONS {
        let (mut room, last) = with_bob(&version);
        let topic = |sender, name| state("m.room.topic", sender, json!({ "topic": name }));
        let one = room.must_after(last, topic(CHARLIE, "one"));
        let two = room.must_after(last, topic(BOB, "two"));
        room.reject(two);
        let states = [&room.after[one as usize], &room.after[two as usize]];
        assert_eq!(room.resolve(&states)[&room.key("m.room.topic", "")], two);
    }
}

#[test]
fn states_that_agree_resolve_to_themselves() {
    let (room, last) = with_bob(&RoomVersionId::V12);
    let state = &room.after[last as usize];
    assert_eq!(room.resolve(&[state]), *state);
    assert_eq!(room.resolve(&[state, state, state]), *state);
}

#[test]
fn conflicts_are_keys_that_not_all_have_or_that_differ() {
    let one = BTreeMap::from([(1, 10), (2, 20), (3, 30)]);
    let two = BTreeMap::from([(1, 10), (2, 21), (4, 40)]);
    let found = conflicts(&[&one, &two]);
    let expected = Conflicts {
        unconflicted: BTreeMap::from([(1, 10)]),
        conflicted: BTreeMap::from([(2, vec![20, 21]), (3, vec![30]), (4, vec![40])]),
        sets: vec![vec![20, 30], vec![21, 40]],
    };
    assert_eq!(found, expected);
}

/// A bare graph: who names whom.
struct Bare(Vec<Vec<u32>>, bool);

impl Graph for Bare {
    fn pdu(&self, _: u32) -> Option<Arc<Pdu>> {
        None
    }
    fn auth_events(&self, event: u32) -> AuthEvents {
        self.0.get(event as usize).into_iter().flatten().copied().collect()
    }
    fn is_rejected(&self, _: u32) -> bool {
        false
    }
    fn state_key(&self, event: u32) -> Option<u32> {
        Some(event)
    }
    fn find_key(&self, _: &str, _: &str) -> Option<u32> {
        None
    }
    fn create(&self) -> Option<u32> {
        None
    }
    fn is_ordered(&self) -> bool {
        self.1
    }
}

impl Bare {
    fn chain(&self, from: &[u32]) -> HashSet<u32> {
        let (mut chain, mut work) = (HashSet::new(), from.to_vec());
        while let Some(event) = work.pop() {
            if chain.insert(event) {
                work.extend(self.auth_events(event));
            }
        }
        chain
    }
}

/// The sets by their definitions, on graphs of chance: with edges downwards, and with edges anywhere, cycles included.
#[test]
fn sets_are_as_defined_even_in_graphs_out_of_order() {
    let mut dice = room::dice::Dice::new(7);
    for round in 0..room::rounds(600) {
        let count = 2 + dice.below(40) as u32;
        let anywhere = round % 3 == 0;
        let edges = |event: u32, dice: &mut room::dice::Dice| {
            let below = if anywhere { count } else { event };
            let edges = if below == 0 { 0 } else { dice.below(4) };
            (0..edges).map(|_| dice.below(below as usize) as u32).collect()
        };
        let graph = Bare((0..count).map(|event| edges(event, &mut dice)).collect(), !anywhere);
        // More than 64 states at times, as they share the words of a mask.
        let states = if round % 20 == 0 { 70 } else { 1 + dice.below(4) };
        let some = |dice: &mut room::dice::Dice| -> Vec<u32> {
            (0..dice.below(4)).map(|_| dice.below(count as usize) as u32).collect()
        };
        let sets: Vec<Vec<u32>> = (0..states).map(|_| some(&mut dice)).collect();
        let agreed = some(&mut dice);

        let chains: Vec<HashSet<u32>> =
            sets.iter().map(|set| graph.chain(&[set.as_slice(), &agreed].concat())).collect();
        let mut expected: Vec<u32> = (0..count)
            .filter(|n| chains.iter().any(|c| c.contains(n)) && !chains.iter().all(|c| c.contains(n)))
            .collect();
        let slices: Vec<&[u32]> = sets.iter().map(Vec::as_slice).collect();
        let mut found = auth_difference(&slices, agreed.iter().copied(), &graph);
        found.sort_unstable();
        assert_eq!(found, expected, "round {round}: {sets:?} over {agreed:?} in {:?}", graph.0);

        let ends = sets.concat();
        expected = graph
            .chain(&ends)
            .into_iter()
            .filter(|n| ends.iter().any(|end| graph.chain(&[*n]).contains(end)))
            .collect();
        expected.sort_unstable();
        let mut found = conflicted_subgraph(&ends, &graph);
        found.sort_unstable();
        assert_eq!(found, expected, "round {round}: between {ends:?} in {:?}", graph.0);
    }
}

/// A room whose auth events run in circles: nothing of it makes sense, but it ends.
struct Circles(World);

impl Graph for Circles {
    fn pdu(&self, event: u32) -> Option<Arc<Pdu>> {
        self.0.pdu(event)
    }
    fn auth_events(&self, event: u32) -> AuthEvents {
        let count = self.0.pdus.len() as u32;
        [event, (event + 1) % count, (event + 7) % count].into_iter().chain(self.0.auth_events(event)).collect()
    }
    fn is_rejected(&self, event: u32) -> bool {
        self.0.is_rejected(event)
    }
    fn state_key(&self, event: u32) -> Option<u32> {
        self.0.state_key(event)
    }
    fn find_key(&self, kind: &str, key: &str) -> Option<u32> {
        self.0.find_key(kind, key)
    }
    fn create(&self) -> Option<u32> {
        self.0.create()
    }
}

#[test]
fn circles_end() {
    for version in VERSIONS {
        let (mut room, last) = with_bob(&version);
        let rules = rules(&version);
        let one = room.must_after(last, powers(&rules, ALICE, json!({ BOB: 50, CHARLIE: 50, EVE: 40 })));
        let two = room.must_after(last, powers(&rules, BOB, json!({ BOB: 50 , CHARLIE: 50, EVE: 50 })));
        let three = room.must_after(two, state("m.room.topic", BOB, json!({ "topic": "round" })));
        let room = Circles(room);
        let states = [&room.0.after[one as usize], &room.0.after[three as usize]];
        let resolved = resolve_states(&rules, &states, &room);
        assert!(resolved.contains_key(&room.0.key("m.room.create", "")));
    }
}

/// An auth chain far longer than any stack.
#[test]
fn long_chains_need_no_stack() {
    let count = 300_000;
    let graph = Bare((0..count).map(|n: u32| n.checked_sub(1).into_iter().collect()).collect(), true);
    assert_eq!(auth_difference(&[&[count - 1], &[0]], [], &graph).len(), count as usize - 1);
    assert_eq!(conflicted_subgraph(&[count - 1, 0], &graph).len(), count as usize);
    // What all states have bounds the walk.
    assert_eq!(auth_difference(&[&[count - 1], &[count - 5]], [count - 10], &graph).len(), 4);
}

/// An event that is not there is left out, and with it what depends on it.
#[test]
fn missing_events_are_left_out() {
    struct Without(World, u32);
    impl Graph for Without {
        fn pdu(&self, event: u32) -> Option<Arc<Pdu>> {
            if event == self.1 { None } else { self.0.pdu(event) }
        }
        fn auth_events(&self, event: u32) -> AuthEvents {
            self.0.auth_events(event)
        }
        fn is_rejected(&self, event: u32) -> bool {
            self.0.is_rejected(event)
        }
        fn state_key(&self, event: u32) -> Option<u32> {
            self.0.state_key(event)
        }
        fn find_key(&self, kind: &str, key: &str) -> Option<u32> {
            self.0.find_key(kind, key)
        }
        fn create(&self) -> Option<u32> {
            self.0.create()
        }
    }
    let (mut room, last) = with_bob(&RoomVersionId::V12);
    let one = room.must_after(last, state("m.room.topic", BOB, json!({ "topic": "one" })));
    let two = room.must_after(last, state("m.room.topic", CHARLIE, json!({ "topic": "two" })));
    let topic = room.key("m.room.topic", "");
    let room = Without(room, two);
    let states = [&room.0.after[one as usize], &room.0.after[two as usize]];
    assert_eq!(resolve_states(&room.0.rules, &states, &room).get(&topic), Some(&one));
}
