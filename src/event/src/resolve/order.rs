//! The two orders in which conflicted events are judged: reverse topological power ordering and mainline ordering.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
};

use super::replay::Room;
use crate::{
    auth::{Membership, Power, kind},
    pdu::Pdu,
};

/// A power event, one that might take somebody's ability to do something away.
///
/// Create events count too and the state key must be empty, as in Synapse and ruma; the text is silent on both.
fn is_power_event(pdu: &Pdu) -> bool {
    match pdu.kind() {
        kind::POWER_LEVELS | kind::JOIN_RULES | kind::CREATE => pdu.state_key() == Some(""),
        kind::MEMBER => {
            pdu.state_key() != Some(pdu.sender().as_str())
                && matches!(Membership::of_content(pdu.content()), Membership::Leave | Membership::Ban)
        }
        _ => false,
    }
}

/// The power events of a set, with what their auth chains have in the set, in reverse topological power ordering.
///
/// Chains are followed within the set, as in Synapse and ruma.
pub(super) fn by_power(room: &mut Room<'_>, full: &HashSet<u32>) -> Vec<u32> {
    let mut work: Vec<u32> =
        full.iter().copied().filter(|event| room.pdu(*event).is_some_and(|p| is_power_event(&p))).collect();
    let mut edges: HashMap<u32, Vec<u32>> = work.iter().map(|event| (*event, Vec::new())).collect();
    while let Some(event) = work.pop() {
        let mut named: Vec<u32> = room.graph.auth_events(event).into_iter().filter(|a| full.contains(a)).collect();
        named.sort_unstable();
        named.dedup();
        for named in &named {
            edges.entry(*named).or_insert_with(|| {
                work.push(*named);
                Vec::new()
            });
        }
        edges.insert(event, named);
    }
    let nodes: Vec<u32> = edges.keys().copied().collect();
    let ranked = ranked(room, nodes, |room, event| Reverse(room.sender_power(event)));
    kahn(&ranked, &edges)
}

/// The events from the least to the greatest by a first criterion, then by time, then by id.
fn ranked<K: Ord>(room: &mut Room<'_>, events: Vec<u32>, key: impl Fn(&mut Room<'_>, u32) -> K) -> Vec<u32> {
    let mut sorted: Vec<_> = events
        .into_iter()
        .filter_map(|event| room.pdu(event).map(|pdu| (key(room, event), pdu.exact_ts(), pdu, event)))
        .collect();
    sorted.sort_unstable_by(|a, b| {
        (&a.0, a.1).cmp(&(&b.0, b.1)).then_with(|| a.2.event_id().as_str().cmp(b.2.event_id().as_str()))
    });
    sorted.into_iter().map(|(_, _, _, event)| event).collect()
}

/// Kahn's algorithm: again and again the least of those whose auth events were all taken.
fn kahn(ranked: &[u32], edges: &HashMap<u32, Vec<u32>>) -> Vec<u32> {
    let ranks: HashMap<u32, usize> = ranked.iter().enumerate().map(|(rank, event)| (*event, rank)).collect();
    let mut missing: Vec<usize> = vec![0; ranked.len()];
    let mut referrers: Vec<Vec<usize>> = vec![Vec::new(); ranked.len()];
    let mut ready = BinaryHeap::new();
    for (rank, event) in ranked.iter().enumerate() {
        let named: Vec<usize> = edges.get(event).into_iter().flatten().filter_map(|a| ranks.get(a).copied()).collect();
        missing[rank] = named.len();
        if named.is_empty() {
            ready.push(Reverse(rank));
        }
        for named in named {
            referrers[named].push(rank);
        }
    }
    let mut order = Vec::with_capacity(ranked.len());
    while let Some(Reverse(rank)) = ready.pop() {
        order.push(ranked[rank]);
        for referrer in &referrers[rank] {
            missing[*referrer] -= 1;
            if missing[*referrer] == 0 {
                ready.push(Reverse(*referrer));
            }
        }
    }
    order
}

/// Events in the mainline ordering based on a power levels event.
pub(super) fn by_mainline(room: &mut Room<'_>, levels: Option<u32>, events: Vec<u32>) -> Vec<u32> {
    let mut mainline = Mainline::of(room, levels);
    let positions: HashMap<u32, u32> = events.iter().map(|event| (*event, mainline.position(room, *event))).collect();
    ranked(room, events, |_, event| Reverse(positions.get(&event).copied()))
}

/// Power levels events and where they are in the mainline.
struct Mainline(HashMap<u32, u32>);

impl Mainline {
    /// After all that are in it, as the text's infinity.
    const OUTSIDE: u32 = u32::MAX;

    fn of(room: &mut Room<'_>, mut levels: Option<u32>) -> Mainline {
        let mut positions = HashMap::new();
        while let Some(event) = levels {
            if positions.contains_key(&event) {
                break;
            }
            positions.insert(event, positions.len() as u32);
            levels = room.levels_named_by(event);
        }
        Mainline(positions)
    }

    /// The position of the first power levels event of the mainline on the way down from an event.
    fn position(&mut self, room: &mut Room<'_>, event: u32) -> u32 {
        let mut way = Vec::new();
        let mut at = Some(event);
        let position = loop {
            match at {
                None => break Self::OUTSIDE,
                Some(event) => match self.0.get(&event) {
                    Some(position) => break *position,
                    None => {
                        // Standing in for an answer while it is looked for, so that a cycle ends.
                        self.0.insert(event, Self::OUTSIDE);
                        way.push(event);
                        at = room.levels_named_by(event);
                    }
                },
            }
        };
        self.0.extend(way.into_iter().map(|event| (event, position)));
        position
    }
}

impl Room<'_> {
    /// The power of an event's sender by the auth events that it names.
    fn sender_power(&mut self, event: u32) -> Power {
        let Some(pdu) = self.pdu(event) else {
            return Power::Level(0);
        };
        let create = self.create_named_by(event);
        let levels = self.levels_named_by(event);
        self.powers(create, levels).map_or(Power::Level(0), |powers| powers.of(pdu.sender()))
    }
}
