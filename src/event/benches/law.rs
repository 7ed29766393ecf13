//! How long judging and resolving take. `cargo bench -p stoa-event`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../tests/room/mod.rs"]
mod room;

use std::{collections::BTreeMap, sync::Arc};

use divan::{Bencher, black_box};
use room::{
    Plan,
    world::{USERS, World, levels},
};
use serde_json::json;
use stoa_event::{
    auth::{self, AuthState, PowerLevels, Powers, kind},
    ids::{RoomVersionId, UserId},
    pdu::Pdu,
    resolve::{auth_difference, conflicts, resolve_states},
};

fn main() {
    divan::main();
}

/// A room with that many members, of whom fifty have a level.
fn big(members: usize) -> (World, u32) {
    let mut world = World::started(&RoomVersionId::V12, 1);
    let users: BTreeMap<String, i64> = (0..50).map(|n| (format!("@user{n}:many.example"), 50)).collect();
    world.must(Plan::new(kind::POWER_LEVELS, Some(""), USERS[0], levels(json!(users))));
    let mut last = 0;
    for n in 0..members {
        last = world.add_after(world.pdus.len() as u32 - 1, Plan::member(&format!("@user{n}:many.example"), "join"));
    }
    (world, last)
}

struct Sent {
    world: World,
    event: Arc<Pdu>,
    state: AuthState,
    powers: Powers,
}

fn sent() -> Sent {
    let (world, last) = big(100);
    let before = world.after[last as usize].clone();
    let plan =
        Plan::new("m.room.message", None, "@user7:many.example", json!({ "body": "hello", "msgtype": "m.text" }));
    let event = world.build(&world.completed(plan, &[last], &before, None));
    let at = |kind: &str, key: &str| world.pdus[before[&world.key(kind, key)] as usize].clone();
    let (levels, member) = (at(kind::POWER_LEVELS, ""), at(kind::MEMBER, "@user7:many.example"));
    let powers = Powers::read(&world.rules, &world.pdus[0], Some(levels.as_ref())).unwrap();
    Sent { state: [levels, member].into_iter().collect(), event, powers, world }
}

#[divan::bench]
fn check_message_with_known_powers(bencher: Bencher<'_, '_>) {
    let s = sent();
    bencher.bench_local(|| auth::check_with(&s.world.rules, black_box(&s.event), &s.powers, &s.state).is_ok());
}

#[divan::bench]
fn check_message_reading_everything(bencher: Bencher<'_, '_>) {
    let s = sent();
    bencher.bench_local(|| auth::check(&s.world.rules, black_box(&s.event), &s.world.pdus[0], &s.state).is_ok());
}

#[divan::bench]
fn read_power_levels_of_fifty(bencher: Bencher<'_, '_>) {
    let s = sent();
    let levels = auth::State::get(&s.state, kind::POWER_LEVELS, "").unwrap();
    bencher.bench_local(|| PowerLevels::read(&s.world.rules, black_box(levels.content())).is_ok());
}

#[divan::bench]
fn select_auth_events_of_a_message(bencher: Bencher<'_, '_>) {
    let sender = <&UserId>::try_from("@user7:many.example").unwrap();
    let rules = room::rules(&RoomVersionId::V12);
    bencher.bench_local(|| auth::needs(&rules, black_box(sender), "m.room.message", None, b"{}").len());
}

/// Two forks: on one somebody changes a topic, on the other somebody a name, after `n` of them have changed their names
/// on one of the sides.
fn forks(members: usize, renamed: usize) -> (World, [BTreeMap<u32, u32>; 2]) {
    let (mut world, last) = big(members);
    let mut one = last;
    for n in 0..renamed {
        let mut plan = Plan::member(&format!("@user{n}:many.example"), "join");
        plan.content["displayname"] = json!("new");
        one = world.add_after(one, plan);
    }
    let topic = |n: u32| Plan::new("m.room.topic", Some(""), USERS[0], json!({ "topic": n }));
    let one = world.add_after(one, topic(1));
    let two = world.add_after(last, topic(2));
    let states = [world.after[one as usize].clone(), world.after[two as usize].clone()];
    (world, states)
}

#[divan::bench(args = [0, 100, 1000])]
fn resolve_two_forks_of_2000_members(bencher: Bencher<'_, '_>, renamed: usize) {
    let (world, states) = forks(2_000, renamed);
    bencher.bench_local(|| resolve_states(&world.rules, &[&states[0], &states[1]], black_box(&world)).len());
}

#[divan::bench]
fn compare_two_states_of_2000_members(bencher: Bencher<'_, '_>) {
    let (_world, states) = forks(2_000, 10);
    bencher.bench_local(|| conflicts(black_box(&[&states[0], &states[1]])).conflicted.len());
}

#[divan::bench]
fn auth_difference_of_2000_members(bencher: Bencher<'_, '_>) {
    let (world, states) = forks(2_000, 10);
    let found = conflicts(&[&states[0], &states[1]]);
    let sets: Vec<&[u32]> = found.sets.iter().map(Vec::as_slice).collect();
    bencher.bench_local(|| auth_difference(&sets, found.unconflicted.values().copied(), black_box(&world)).len());
}
