//! What a writer knows of a room while it holds the lock.

use std::{collections::HashMap, sync::Arc};

use stoa_event::{
    auth::{Create, PowerLevels, Powers},
    ids::{OwnedEventId, OwnedRoomId, RoomVersionId},
    pdu::Pdu,
    version::Rules,
};
use stoa_store::{EventNo, Position, RoomNo, Snapshot, StateKeyNo, Store, rows::rooms::Head, schema, state::Root};

use crate::{Error, Policy, resolve::Node};

/// How many events and keys are kept between two writers.
const KEPT: usize = 256;

/// A room as the holder of its lock knows it: always equal to what is on disk.
pub(crate) struct Live {
    pub(crate) no: RoomNo,
    pub(crate) id: OwnedRoomId,
    pub(crate) rules: Arc<Rules>,
    pub(crate) head: Head,
    pub(crate) create: Arc<Pdu>,
    /// The ids of `head.extremities`.
    pub(crate) tips: Vec<OwnedEventId>,
    /// State keys that were asked for before.
    pub(crate) keys: HashMap<(String, String), StateKeyNo>,
    /// Events that were asked for before.
    pub(crate) pdus: HashMap<EventNo, Arc<Pdu>>,
    /// Power levels that were read before, and the event that they are from.
    pub(crate) powers: Option<(Option<EventNo>, Arc<Powers>)>,
    /// The room's policy server by a state that was asked for before.
    pub(crate) policy: Option<(Root, Option<Arc<Policy>>)>,
    /// The room's graph of auth events, as far as resolving states has looked at it.
    pub(crate) graph: HashMap<u32, Node>,
    /// What several states resolved to.
    pub(crate) resolved: HashMap<Vec<Root>, Root>,
}

impl Live {
    /// Reads a room from the store.
    pub(crate) async fn load(store: &Store, snapshot: &Snapshot, no: RoomNo) -> Result<Live, Error> {
        let head = snapshot.get(&schema::ROOMS, &no).await?.ok_or(Error::UnknownRoom)?;
        let rules = rules(&head.version)?;
        let id = store.names().room_id(snapshot, no).await?;
        let id = OwnedRoomId::try_from(&*id).map_err(|_| stoa_store::Error::Corrupt("a room has no valid id"))?;
        let wanted: Vec<_> = [head.create].into_iter().chain(head.extremities.iter().map(|(no, _)| *no)).collect();
        let mut pdus = Vec::with_capacity(wanted.len());
        for event in store.events().get_many(snapshot, no, &wanted).await? {
            let event = event.ok_or(stoa_store::Error::Missing("an event that the room's head names"))?;
            pdus.push(Arc::new(event.pdu(&rules)?));
        }
        let tips = pdus.iter().skip(1).map(|pdu| pdu.event_id().clone()).collect();
        let create = pdus.swap_remove(0);
        Ok(Live::new(no, id, rules, head, create, tips))
    }

    /// A room of which nothing is stored yet.
    pub(crate) fn unwritten(no: RoomNo, id: OwnedRoomId, rules: Arc<Rules>, create: Arc<Pdu>) -> Live {
        let head = Head {
            version: rules.id.to_string(),
            create: EventNo(0),
            next_event: EventNo(0),
            state_keys: 0,
            member_keys: 0,
            extremities: Vec::new(),
            root: Root::EMPTY,
            last: Position::MIN,
            joined: 0,
            invited: 0,
            partial: false,
            whole_since: None,
            encrypted: false,
        };
        Live::new(no, id, rules, head, create, Vec::new())
    }

    /// A room of which everything is known.
    pub(crate) fn new(
        no: RoomNo,
        id: OwnedRoomId,
        rules: Arc<Rules>,
        head: Head,
        create: Arc<Pdu>,
        tips: Vec<OwnedEventId>,
    ) -> Live {
        Live {
            no,
            id,
            rules,
            head,
            create,
            tips,
            keys: HashMap::new(),
            pdus: HashMap::new(),
            powers: None,
            policy: None,
            graph: HashMap::new(),
            resolved: HashMap::new(),
        }
    }

    /// Lets go of what is too much to keep.
    pub(crate) fn trim(&mut self) {
        if self.pdus.len() > KEPT {
            self.pdus.clear();
        }
        if self.keys.len() > KEPT * 4 {
            self.keys.clear();
        }
        if self.graph.len() > KEPT * 64 {
            self.graph.clear();
        }
        if self.resolved.len() > KEPT {
            self.resolved.clear();
        }
    }

    /// The powers by that power levels event, read once.
    pub(crate) fn powers_by(&mut self, levels: Option<(EventNo, &Pdu)>) -> Result<Arc<Powers>, Error> {
        let key = levels.map(|(no, _)| no);
        if let Some((known, powers)) = &self.powers
            && *known == key
        {
            return Ok(powers.clone());
        }
        let create = Create::read(&self.rules, &self.create);
        let levels = levels.map(|(_, pdu)| PowerLevels::read(&self.rules, pdu.content())).transpose()?;
        let powers = Arc::new(Powers::new(create, levels.map(Arc::new)));
        self.powers = Some((key, powers.clone()));
        Ok(powers)
    }
}

/// The rules of a stored version.
pub(crate) fn rules(version: &str) -> Result<Arc<Rules>, Error> {
    RoomVersionId::try_from(version)
        .ok()
        .and_then(|id| Rules::of(&id))
        .map(Arc::new)
        .ok_or_else(|| Error::UnsupportedVersion(version.to_owned()))
}
