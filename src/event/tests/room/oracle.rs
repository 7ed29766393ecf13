//! ruma-state-res as the oracle.

use std::{collections::HashMap, sync::Arc};

use ruma_common::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, RoomVersionId, UserId,
    room_version_rules::{AuthorizationRules, RoomVersionRules},
};
use ruma_events::{StateEventType, TimelineEventType};
use ruma_state_res::{Event, StateMap, utils::event_id_set::EventIdSet};
use serde_json::value::RawValue;
use stoa_event::pdu::Pdu;

pub fn ruma_rules(version: &RoomVersionId) -> RoomVersionRules {
    version.rules().unwrap()
}

/// One of our events as ruma wants it.
#[derive(Clone)]
pub struct Seen {
    pdu: Arc<Pdu>,
    kind: TimelineEventType,
    content: Arc<RawValue>,
    ts: MilliSecondsSinceUnixEpoch,
    rejected: bool,
    /// Version 12 create events have no room id.
    no_room: bool,
}

impl Seen {
    pub fn new(pdu: &Arc<Pdu>, rejected: bool, version: &RoomVersionId) -> Seen {
        let content: Box<RawValue> = serde_json::from_slice(pdu.content()).unwrap();
        Seen {
            kind: pdu.kind().into(),
            content: content.into(),
            ts: serde_json::from_value(pdu.origin_server_ts().into()).unwrap(),
            rejected,
            no_room: pdu.kind() == "m.room.create" && *version == RoomVersionId::V12,
            pdu: pdu.clone(),
        }
    }
}

impl Event for Seen {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        self.pdu.event_id()
    }
    fn room_id(&self) -> Option<&RoomId> {
        (!self.no_room).then(|| self.pdu.room_id().as_ref())
    }
    fn sender(&self) -> &UserId {
        self.pdu.sender()
    }
    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.ts
    }
    fn event_type(&self) -> &TimelineEventType {
        &self.kind
    }
    fn content(&self) -> &RawValue {
        &self.content
    }
    fn state_key(&self) -> Option<&str> {
        self.pdu.state_key()
    }
    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.pdu.prev_events().iter())
    }
    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.pdu.auth_events().iter())
    }
    fn redacts(&self) -> Option<&OwnedEventId> {
        self.pdu.redacts()
    }
    fn rejected(&self) -> bool {
        self.rejected
    }
}

pub type Events = HashMap<OwnedEventId, Seen>;

/// Everything that is reached from some events along their auth events, themselves included.
pub fn chain<'a>(events: &Events, from: impl IntoIterator<Item = &'a OwnedEventId>) -> EventIdSet<OwnedEventId> {
    let mut chain = EventIdSet::new();
    let mut work: Vec<OwnedEventId> = from.into_iter().cloned().collect();
    while let Some(id) = work.pop() {
        if chain.insert(id.clone()) {
            work.extend(events[&id].pdu.auth_events().iter().cloned());
        }
    }
    chain
}

/// The conflicted state subgraph as the text defines it: all that is reached from one conflicted event and reaches one.
fn subgraph(events: &Events, conflicted: &StateMap<Vec<OwnedEventId>>) -> EventIdSet<OwnedEventId> {
    let conflicted: Vec<&OwnedEventId> = conflicted.values().flatten().collect();
    let reached = chain(events, conflicted.iter().copied());
    let mut found = EventIdSet::new();
    for id in reached.iter() {
        let below = chain(events, [id]);
        if conflicted.iter().any(|conflicted| below.contains(conflicted)) {
            found.insert(id.clone());
        }
    }
    found
}

/// What ruma resolves several states to.
pub fn resolve(version: &RoomVersionId, events: &Events, states: &[StateMap<OwnedEventId>]) -> StateMap<OwnedEventId> {
    let rules = ruma_rules(version);
    let chains = states.iter().map(|state| chain(events, state.values())).collect();
    ruma_state_res::resolve(
        &rules.authorization,
        rules.state_res.v2_rules().unwrap(),
        states,
        chains,
        |id: &EventId| events.get(id).cloned(),
        |conflicted| Some(subgraph(events, conflicted)),
    )
    .unwrap()
}

/// Whether ruma allows an event by a state.
pub fn check(rules: &AuthorizationRules, event: &Seen, state: &[Seen]) -> Result<(), String> {
    ruma_state_res::check_state_dependent_auth_rules(rules, event, |kind: &StateEventType, key: &str| {
        state.iter().find(|e| e.kind == TimelineEventType::from(kind.clone()) && e.state_key() == Some(key)).cloned()
    })
}

/// Whether ruma allows an event by the list of its auth events.
pub fn check_auth_events(rules: &AuthorizationRules, event: &Seen, known: &Events) -> Result<(), String> {
    ruma_state_res::check_state_independent_auth_rules(rules, event, |id: &EventId| known.get(id).cloned())
}
