//! State resolution 1 as the text has it, in words instead of numbers and as plainly as possible. Where the text leaves
//! something open it is as in `resolve/v1.rs` says.

use std::{collections::BTreeMap, sync::Arc};

use sha1::{Digest as _, Sha1};
use stoa_event::{
    auth::{self, AuthState, needs},
    pdu::Pdu,
    resolve::Graph as _,
};

use super::world::{StateOf, World};

type Key = (String, String);
type State = BTreeMap<Key, Arc<Pdu>>;

pub fn resolve(world: &World, states: &[&StateOf]) -> StateOf {
    let mut resolved = State::new();
    let mut agreed = State::new();
    let mut conflicts: BTreeMap<Key, Vec<Arc<Pdu>>> = BTreeMap::new();
    for state in states {
        for number in state.values() {
            let pdu = world.pdus[*number as usize].clone();
            let events = conflicts.entry((pdu.kind().into(), pdu.state_key().unwrap().into())).or_default();
            if !events.iter().any(|there| there.event_id() == pdu.event_id()) {
                events.push(pdu);
            }
        }
    }
    // Start by setting R to the union of the states to be resolved, excluding any conflicting events.
    conflicts.retain(|key, events| {
        if events.len() == 1 {
            resolved.insert(key.clone(), events[0].clone());
            if !rejected(world, &events[0]) {
                agreed.insert(key.clone(), events[0].clone());
            }
            return false;
        }
        events.retain(|event| !rejected(world, event));
        if events.len() == 1 {
            resolved.insert(key.clone(), events[0].clone());
        }
        events.len() > 1
    });
    for pass in 0..4 {
        let mut outcome = State::new();
        for (key, events) in &conflicts {
            if pass_of(key) != pass {
                continue;
            }
            let mut events = events.clone();
            events.sort_by_key(|event| (event.depth(), std::cmp::Reverse(hex(event))));
            outcome.insert(
                key.clone(),
                if pass < 3 { listed(world, key, &events, &agreed) } else { picked(world, &events, &agreed) },
            );
        }
        agreed.extend(outcome.clone());
        resolved.extend(outcome);
    }
    resolved.values().map(|pdu| world.numbers[pdu.event_id()]).map(|n| (world.state_key(n).unwrap(), n)).collect()
}

fn pass_of((kind, key): &Key) -> usize {
    match (kind.as_str(), key.as_str()) {
        ("m.room.power_levels", "") => 0,
        ("m.room.join_rules", _) => 1,
        ("m.room.member", _) => 2,
        _ => 3,
    }
}

fn rejected(world: &World, pdu: &Pdu) -> bool {
    world.rejected[world.numbers[pdu.event_id()] as usize]
}

fn hex(pdu: &Pdu) -> String {
    Sha1::digest(pdu.event_id().as_str()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Add the first event in the list to R; each that would be allowed after it replaces it, until one would not.
fn listed(world: &World, key: &Key, events: &[Arc<Pdu>], agreed: &State) -> Arc<Pdu> {
    let mut r = agreed.clone();
    let mut last = events[0].clone();
    for event in &events[1..] {
        r.insert(key.clone(), last.clone());
        if !allowed(world, event, &r) {
            break;
        }
        last = event.clone();
    }
    last
}

/// The event with the highest depth and lowest hash that passes; the last one if none does.
fn picked(world: &World, events: &[Arc<Pdu>], agreed: &State) -> Arc<Pdu> {
    events.iter().rev().find(|event| allowed(world, event, agreed)).unwrap_or(&events[0]).clone()
}

fn allowed(world: &World, event: &Pdu, r: &State) -> bool {
    let needed = needs(&world.rules, event.sender(), event.kind(), event.state_key(), event.content());
    let state: AuthState =
        needed.iter().filter_map(|(kind, key)| r.get(&((*kind).into(), key.to_string())).cloned()).collect();
    let create = r.get(&("m.room.create".into(), String::new()));
    create.is_some_and(|create| auth::check(&world.rules, event, create, &state).is_ok())
}
