//! State resolution: one state out of several (room versions 1, 2 and 12, "State resolution").
//!
//! Events and state keys are small numbers, dense in a room. A caller whose states know where they differ gives just
//! that to [`resolve`]; [`resolve_states`] takes whole states. Work is bounded by the part of the auth graph that is
//! looked at; a graph with cycles, which hashes rule out, would be sorted badly but not for ever.

mod order;
mod replay;
mod sets;
mod v1;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

pub use sets::{Conflicts, auth_difference, conflicted_subgraph, conflicts};
use smallvec::SmallVec;

use self::replay::Room;
use crate::{
    pdu::Pdu,
    version::{Rules, StateResolution},
};

/// The numbers of an event's `auth_events`.
pub type AuthEvents = SmallVec<[u32; 8]>;

/// The events of a room by number.
pub trait Graph {
    /// An event. Those that are missing are left out of the resolution.
    fn pdu(&self, event: u32) -> Option<Arc<Pdu>>;

    /// The numbers of the events that an event names as its auth events.
    fn auth_events(&self, event: u32) -> AuthEvents;

    /// Whether an event was rejected.
    fn is_rejected(&self, event: u32) -> bool;

    /// The number of the state key, that is of type and key together, that an event sets. `None` for messages.
    fn state_key(&self, event: u32) -> Option<u32>;

    /// The number of a type and key. `None` if no event of the room has it.
    fn find_key(&self, kind: &str, key: &str) -> Option<u32>;

    /// The room's create event.
    fn create(&self) -> Option<u32>;

    /// Whether an event's auth events always have lower numbers than itself, as they were stored before it. Then walks
    /// end early. Must not be claimed where it does not hold: states would be resolved wrongly.
    fn is_ordered(&self) -> bool {
        true
    }
}

/// Resolves what differs between several states.
///
/// - `conflicted`: for every state key that not all states set, or not to the same event, the events that it has.
/// - `auth_difference`: the events in the auth chains of some of the states but not of all, see [`auth_difference`]. Not
///   looked at in version 1.
/// - `unconflicted`: what all states have under a state key, if all have the same.
///
/// The result has the state keys that are not unconflicted; one that is missing in it is not set.
pub fn resolve(
    rules: &Rules,
    conflicted: &BTreeMap<u32, Vec<u32>>,
    auth_difference: &[u32],
    unconflicted: &dyn Fn(u32) -> Option<u32>,
    graph: &dyn Graph,
) -> BTreeMap<u32, u32> {
    let is_2_1 = match rules.state_resolution {
        StateResolution::V1 => return v1::resolve(rules, conflicted, unconflicted, graph),
        StateResolution::V2 => false,
        StateResolution::V2_1 => true,
    };
    let mut room = Room::new(rules, graph);
    let events: Vec<u32> = conflicted.values().flatten().copied().collect();
    let subgraph = if is_2_1 { conflicted_subgraph(&events, graph) } else { Vec::new() };
    let mut full: HashSet<u32> = events.into_iter().chain(auth_difference.iter().copied()).chain(subgraph).collect();
    full.retain(|event| room.pdu(*event).is_some_and(|pdu| pdu.state_key().is_some()));

    // 1 and 2: what can take power away, and what leads to it.
    let powerful = order::by_power(&mut room, &full);
    let empty = |_| None;
    let base: &dyn Fn(u32) -> Option<u32> = if is_2_1 { &empty } else { unconflicted };
    let mut state = BTreeMap::new();
    replay::apply(&mut room, &powerful, base, &mut state);

    // 3 and 4: all others, along the history of the power levels.
    let powerful: HashSet<u32> = powerful.into_iter().collect();
    let others: Vec<u32> = full.difference(&powerful).copied().collect();
    let levels = graph.find_key(crate::auth::kind::POWER_LEVELS, "");
    let levels = levels.and_then(|key| state.get(&key).copied().or_else(|| base(key)));
    let others = order::by_mainline(&mut room, levels, others);
    replay::apply(&mut room, &others, base, &mut state);

    // 5: what all agree on stays.
    state.retain(|key, _| unconflicted(*key).is_none());
    state
}

/// Resolves whole states, maps of state keys to events.
pub fn resolve_states(rules: &Rules, states: &[&BTreeMap<u32, u32>], graph: &dyn Graph) -> BTreeMap<u32, u32> {
    let Conflicts { mut unconflicted, conflicted, sets } = conflicts(states);
    if conflicted.is_empty() {
        return unconflicted;
    }
    let sets: Vec<&[u32]> = sets.iter().map(Vec::as_slice).collect();
    let difference = match rules.state_resolution {
        StateResolution::V1 => Vec::new(),
        _ => auth_difference(&sets, unconflicted.values().copied(), graph),
    };
    let agreed = |key| unconflicted.get(&key).copied();
    let resolved = resolve(rules, &conflicted, &difference, &agreed, graph);
    unconflicted.extend(resolved);
    unconflicted
}
