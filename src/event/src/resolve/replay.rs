//! The iterative auth checks: events are judged one after the other, each by what those before it left.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{AuthEvents, Graph};
use crate::{
    auth::{AuthState, Create, PowerLevels, Powers, check_with, kind, needs},
    pdu::Pdu,
    version::Rules,
};

/// A room during one resolution: what was read of its events is kept.
pub(super) struct Room<'a> {
    pub(super) rules: &'a Rules,
    pub(super) graph: &'a dyn Graph,
    pdus: HashMap<u32, Option<Arc<Pdu>>>,
    creates: HashMap<u32, Arc<Create>>,
    /// `None` for power levels that are malformed.
    levels: HashMap<u32, Option<Arc<PowerLevels>>>,
}

impl<'a> Room<'a> {
    pub(super) fn new(rules: &'a Rules, graph: &'a dyn Graph) -> Room<'a> {
        Room { rules, graph, pdus: HashMap::new(), creates: HashMap::new(), levels: HashMap::new() }
    }

    pub(super) fn pdu(&mut self, event: u32) -> Option<Arc<Pdu>> {
        self.pdus.entry(event).or_insert_with(|| self.graph.pdu(event)).clone()
    }

    fn named_by(&mut self, event: u32, kind: &str, key: &str) -> Option<u32> {
        let named: AuthEvents = self.graph.auth_events(event);
        named.into_iter().find(|named| self.pdu(*named).is_some_and(|pdu| pdu.is_state(kind, key)))
    }

    /// The power levels among an event's auth events.
    pub(super) fn levels_named_by(&mut self, event: u32) -> Option<u32> {
        self.named_by(event, kind::POWER_LEVELS, "")
    }

    /// The create event among an event's auth events; where the room id names it, that.
    pub(super) fn create_named_by(&mut self, event: u32) -> Option<u32> {
        if self.rules.room_id_is_create_hash {
            return self.graph.create();
        }
        self.named_by(event, kind::CREATE, "")
    }

    /// What a create event and power levels say. `None` if there is no create event or the levels are malformed.
    pub(super) fn powers(&mut self, create: Option<u32>, levels: Option<u32>) -> Option<Powers> {
        let create = create?;
        if !self.creates.contains_key(&create) {
            let read = Create::read(self.rules, self.pdu(create)?.as_ref());
            self.creates.insert(create, Arc::new(read));
        }
        let levels = match levels {
            Some(event) => Some(self.read_levels(event)?),
            None => None,
        };
        Some(Powers::new(self.creates.get(&create)?.clone(), levels))
    }

    fn read_levels(&mut self, event: u32) -> Option<Arc<PowerLevels>> {
        if let Some(known) = self.levels.get(&event) {
            return known.clone();
        }
        let read = PowerLevels::read(self.rules, self.pdu(event)?.content()).ok().map(Arc::new);
        self.levels.insert(event, read.clone());
        read
    }
}

/// Judges events in order and enters those that are allowed into `state`, which lies over `base`.
pub(super) fn apply(
    room: &mut Room<'_>,
    events: &[u32],
    base: &dyn Fn(u32) -> Option<u32>,
    state: &mut BTreeMap<u32, u32>,
) {
    for event in events {
        let Some(key) = room.graph.state_key(*event) else {
            continue;
        };
        if is_allowed(room, *event, base, state) {
            state.insert(key, *event);
        }
    }
}

fn is_allowed(room: &mut Room<'_>, event: u32, base: &dyn Fn(u32) -> Option<u32>, state: &BTreeMap<u32, u32>) -> bool {
    let Some(pdu) = room.pdu(event) else {
        return false;
    };
    judge(room, &pdu, &mut |room, kind, key| find(room, event, kind, key, base, state))
}

/// An event and its number.
pub(super) type Found = Option<(u32, Arc<Pdu>)>;

/// Whether an event is allowed by the state in which `find` finds the event of a type and key.
pub(super) fn judge(room: &mut Room<'_>, pdu: &Pdu, find: &mut dyn FnMut(&mut Room<'_>, &str, &str) -> Found) -> bool {
    if pdu.kind() == kind::CREATE {
        return true;
    }
    let (mut create, mut levels) = (None, None);
    let mut needed: AuthState = AuthState::new();
    for (kind, key) in needs(room.rules, pdu.sender(), pdu.kind(), pdu.state_key(), pdu.content()) {
        let Some((number, found)) = find(room, kind, &key) else {
            continue;
        };
        match kind {
            kind::CREATE => create = Some(number),
            kind::POWER_LEVELS => levels = Some(number),
            _ => needed.set(found),
        }
    }
    if room.rules.room_id_is_create_hash {
        create = room.graph.create();
    }
    let powers = room.powers(create, levels);
    powers.is_some_and(|powers| check_with(room.rules, pdu, &powers, &needed).is_ok())
}

/// What an event is judged by under a state key: what the state has there, or else what the event names itself.
///
/// Rejected events are passed over in both (in the state as in Synapse and ruma; the text says it of auth events only).
fn find(
    room: &mut Room<'_>,
    event: u32,
    kind: &str,
    key: &str,
    base: &dyn Fn(u32) -> Option<u32>,
    state: &BTreeMap<u32, u32>,
) -> Found {
    let number = room.graph.find_key(kind, key)?;
    let in_state = state.get(&number).copied().or_else(|| base(number));
    let in_state = in_state.filter(|found| !room.graph.is_rejected(*found));
    if let Some(found) = in_state.and_then(|found| Some((found, room.pdu(found)?))) {
        return Some(found);
    }
    let named = room.graph.auth_events(event);
    named.into_iter().filter(|named| !room.graph.is_rejected(*named)).find_map(|named| {
        let pdu = room.pdu(named)?;
        pdu.is_state(kind, key).then_some((named, pdu))
    })
}
