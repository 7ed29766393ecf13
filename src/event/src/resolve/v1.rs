//! State resolution of room version 1.
//!
//! The text leaves some things open; in all of them this does what Synapse does, which made the states of these rooms:
//! - only different events for the same state key are a conflict, not that some states have none;
//! - every state key is resolved for itself, and what comes out for a type is seen by the types after it, not by other
//!   state keys of the same type;
//! - events are judged by what is agreed or resolved so far, never by their own auth events;
//! - events that are rejected or not here take no part; what is left of a conflict then stands, and authorises nobody;
//! - where no event of a conflict passes, the one with the least depth stands.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use sha1::{Digest, Sha1};

use super::{
    Graph,
    replay::{Found, Room, judge},
};
use crate::{auth::kind, version::Rules};

/// What counts while conflicts are resolved: what the states agree on, and above it what came out so far.
struct Standing<'a> {
    unconflicted: &'a dyn Fn(u32) -> Option<u32>,
    decided: HashMap<u32, u32>,
}

impl Standing<'_> {
    /// The event of a type and key, unless `instead` is to be taken in its place.
    fn find(&self, room: &mut Room<'_>, kind: &str, key: &str, instead: Option<(u32, u32)>) -> Found {
        let number = room.graph.find_key(kind, key)?;
        let event = match instead {
            Some((at, event)) if at == number => event,
            _ => self.decided.get(&number).copied().or_else(|| (self.unconflicted)(number))?,
        };
        if room.graph.is_rejected(event) {
            return None;
        }
        Some((event, room.pdu(event)?))
    }

    fn allows(&self, room: &mut Room<'_>, event: u32, instead: Option<(u32, u32)>) -> bool {
        let Some(pdu) = room.pdu(event) else {
            return false;
        };
        judge(room, &pdu, &mut |room, kind, key| self.find(room, kind, key, instead))
    }
}

/// The passes, in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Pass {
    PowerLevels,
    JoinRules,
    Members,
    Others,
}

/// See [`super::resolve`].
pub(super) fn resolve(
    rules: &Rules,
    conflicted: &BTreeMap<u32, Vec<u32>>,
    unconflicted: &dyn Fn(u32) -> Option<u32>,
    graph: &dyn Graph,
) -> BTreeMap<u32, u32> {
    let mut room = Room::new(rules, graph);
    let mut standing = Standing { unconflicted, decided: HashMap::new() };
    let mut result = BTreeMap::new();
    let mut passes: BTreeMap<Pass, Vec<(u32, Vec<u32>)>> = BTreeMap::new();
    for (key, events) in conflicted {
        if let [only] = events.as_slice() {
            standing.decided.insert(*key, *only);
            result.insert(*key, *only);
            continue;
        }
        let here = ranked(&mut room, events);
        match here.as_slice() {
            [] => {}
            [only] => drop(result.insert(*key, *only)),
            [first, ..] => passes.entry(pass_of(&mut room, *first)).or_default().push((*key, here)),
        }
    }
    for (pass, conflicts) in passes {
        let resolved: Vec<(u32, u32)> = conflicts
            .into_iter()
            .filter_map(|(key, events)| {
                let event = match pass {
                    Pass::Others => first_allowed(&mut room, &standing, &events),
                    _ => last_in_turn(&mut room, &standing, key, &events),
                };
                Some((key, event?))
            })
            .collect();
        standing.decided.extend(resolved.iter().copied());
        result.extend(resolved);
    }
    result
}

fn pass_of(room: &mut Room<'_>, event: u32) -> Pass {
    let Some(pdu) = room.pdu(event) else {
        return Pass::Others;
    };
    match pdu.kind() {
        kind::POWER_LEVELS if pdu.state_key() == Some("") => Pass::PowerLevels,
        kind::JOIN_RULES => Pass::JoinRules,
        kind::MEMBER => Pass::Members,
        _ => Pass::Others,
    }
}

/// Those that can take part: the deepest first, and of equal depth the one whose id has the least SHA-1.
fn ranked(room: &mut Room<'_>, events: &[u32]) -> Vec<u32> {
    let mut rank = |event: u32| {
        let pdu = room.pdu(event).filter(|_| !room.graph.is_rejected(event))?;
        let hash: [u8; 20] = Sha1::digest(pdu.event_id().as_str()).into();
        Some((Reverse(pdu.depth()), hash, event))
    };
    let mut ranked: Vec<_> = events.iter().filter_map(|event| rank(*event)).collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(.., event)| event).collect()
}

/// From the least depth up, each judged with the one before it in place, until one is not allowed.
fn last_in_turn(room: &mut Room<'_>, standing: &Standing<'_>, key: u32, ranked: &[u32]) -> Option<u32> {
    let mut upwards = ranked.iter().rev().copied();
    let mut last = upwards.next()?;
    for event in upwards {
        if !standing.allows(room, event, Some((key, last))) {
            break;
        }
        last = event;
    }
    Some(last)
}

fn first_allowed(room: &mut Room<'_>, standing: &Standing<'_>, ranked: &[u32]) -> Option<u32> {
    let allowed = ranked.iter().copied().find(|event| standing.allows(room, *event, None));
    allowed.or_else(|| ranked.last().copied())
}
