//! Resolving several states of a room into one: the law's algorithm over what the store holds.
//!
//! The law asks for events by number and does not wait. So it works on what is in memory, notes what it lacked, and is
//! asked again when that was read; each time more of the graph is read ahead, so that a chain of any length takes few rounds.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use stoa_event::{
    pdu::Pdu,
    resolve::{AuthEvents, Graph, auth_difference, resolve},
    version::{Rules, StateResolution},
};
use stoa_store::{EventNo, StateKeyNo, rows::events::Standing, state::Root};

use crate::{Error, writer::Writer};

/// What resolving needs to know of an event.
#[derive(Clone)]
pub(crate) struct Node {
    pdu: Arc<Pdu>,
    auth: AuthEvents,
    rejected: bool,
    key: Option<u32>,
}

/// The part of a room that is in memory.
struct Known<'a> {
    nodes: &'a HashMap<u32, Node>,
    keys: &'a HashMap<(String, String), StateKeyNo>,
    create: EventNo,
    lacks: RefCell<Lacks>,
}

#[derive(Default)]
struct Lacks {
    events: BTreeSet<u32>,
    keys: HashSet<(String, String)>,
}

impl Known<'_> {
    fn node(&self, event: u32) -> Option<&Node> {
        let node = self.nodes.get(&event);
        if node.is_none() {
            self.lacks.borrow_mut().events.insert(event);
        }
        node
    }
}

impl Graph for Known<'_> {
    fn pdu(&self, event: u32) -> Option<Arc<Pdu>> {
        self.node(event).map(|node| node.pdu.clone())
    }

    fn auth_events(&self, event: u32) -> AuthEvents {
        self.node(event).map(|node| node.auth.clone()).unwrap_or_default()
    }

    fn is_rejected(&self, event: u32) -> bool {
        self.node(event).is_some_and(|node| node.rejected)
    }

    fn state_key(&self, event: u32) -> Option<u32> {
        self.node(event).and_then(|node| node.key)
    }

    fn find_key(&self, kind: &str, key: &str) -> Option<u32> {
        let name = (kind.to_owned(), key.to_owned());
        let found = self.keys.get(&name).map(|no| no.0);
        if found.is_none() {
            self.lacks.borrow_mut().keys.insert(name);
        }
        found
    }

    fn create(&self) -> Option<u32> {
        Some(self.create.0)
    }
}

/// Where several states differ.
struct Differing {
    conflicted: BTreeMap<u32, Vec<u32>>,
    sets: Vec<Vec<u32>>,
    /// What all have.
    agreed: BTreeMap<u32, u32>,
}

fn attempt(rules: &Rules, differing: &Differing, known: &Known<'_>) -> BTreeMap<u32, u32> {
    let sets: Vec<&[u32]> = differing.sets.iter().map(Vec::as_slice).collect();
    let difference = match rules.state_resolution {
        StateResolution::V1 => Vec::new(),
        _ => auth_difference(&sets, differing.agreed.values().copied(), known),
    };
    if !known.lacks.borrow().events.is_empty() {
        return BTreeMap::new();
    }
    let agreed = |key| differing.agreed.get(&key).copied();
    resolve(rules, &differing.conflicted, &difference, &agreed, known)
}

impl Writer<'_> {
    /// One state out of several (room versions, "State resolution"). Costs nothing where they are the same.
    pub(crate) async fn resolve(&mut self, roots: Vec<Root>) -> Result<Root, Error> {
        let mut distinct: Vec<Root> = Vec::with_capacity(roots.len());
        for root in roots {
            if !distinct.contains(&root) {
                distinct.push(root);
            }
        }
        let Some(first) = distinct.first().copied() else { return Ok(Root::EMPTY) };
        if distinct.len() == 1 {
            return Ok(first);
        }
        distinct.sort_by_key(|root| (root.others.top, root.members.top));
        if let Some(known) = self.live.resolved.get(&distinct) {
            return Ok(*known);
        }
        let differing = self.differing(&distinct).await?;
        let resolved = self.attempts(&differing).await?;
        let mut root = distinct[0];
        for key in differing.conflicted.keys() {
            let event = resolved.get(key).copied().map(EventNo);
            let key = StateKeyNo(*key);
            if self.state.get(root, key).await? != event {
                root = self.state.set(root, key, event).await?;
            }
        }
        self.roots.push(root);
        self.live.resolved.insert(distinct, root);
        Ok(root)
    }

    async fn differing(&self, roots: &[Root]) -> Result<Differing, Error> {
        let first = roots[0];
        let mut keys = BTreeSet::new();
        for other in &roots[1..] {
            keys.extend(self.state.changes(first, *other).await?.into_iter().map(|change| change.key));
        }
        let mut conflicted: BTreeMap<u32, Vec<u32>> = keys.iter().map(|key| (key.0, Vec::new())).collect();
        let mut sets = Vec::with_capacity(roots.len());
        for root in roots {
            let mut set = Vec::with_capacity(keys.len());
            for key in &keys {
                let Some(event) = self.state.get(*root, *key).await? else { continue };
                set.push(event.0);
                let events = conflicted.entry(key.0).or_default();
                if !events.contains(&event.0) {
                    events.push(event.0);
                }
            }
            sets.push(set);
        }
        let all = self.state.entries(first).await?.into_iter();
        let agreed = all.filter(|(key, _)| !keys.contains(key)).map(|(key, event)| (key.0, event.0)).collect();
        Ok(Differing { conflicted, sets, agreed })
    }

    async fn attempts(&mut self, differing: &Differing) -> Result<BTreeMap<u32, u32>, Error> {
        let mut ahead = 1;
        self.read_ahead(differing.sets.iter().flatten().copied().collect(), ahead).await?;
        // Keys of which no event is held are asked for once.
        let mut absent = HashSet::new();
        loop {
            let known = Known {
                nodes: &self.live.graph,
                keys: &self.live.keys,
                create: self.live.head.create,
                lacks: RefCell::default(),
            };
            let resolved = attempt(&self.live.rules, differing, &known);
            let Lacks { events, mut keys } = known.lacks.into_inner();
            keys.retain(|key| !absent.contains(key));
            if events.is_empty() && keys.is_empty() {
                return Ok(resolved);
            }
            for (kind, key) in keys {
                if self.known_state_key(&kind, &key).await?.is_none() {
                    absent.insert((kind, key));
                }
            }
            self.read_ahead(events, ahead).await?;
            ahead *= 2;
        }
    }

    /// Reads events into the graph, and what they name, so many levels down.
    async fn read_ahead(&mut self, events: BTreeSet<u32>, levels: u32) -> Result<(), Error> {
        let mut todo = events;
        for _ in 0..levels {
            todo.retain(|event| !self.live.graph.contains_key(event));
            if todo.is_empty() {
                return Ok(());
            }
            let nos: Vec<EventNo> = todo.iter().copied().map(EventNo).collect();
            todo = BTreeSet::new();
            for no in nos {
                let node = self.node(no).await?;
                todo.extend(node.auth.iter().copied());
                self.live.graph.insert(no.0, node);
            }
        }
        Ok(())
    }

    async fn node(&mut self, no: EventNo) -> Result<Node, Error> {
        let (auth, standing) = match self.added.get(&no) {
            Some(header) => (header.auth.clone(), header.standing),
            None => {
                let event = self.stored(no).await?;
                (event.header.auth.clone(), event.header.standing)
            }
        };
        let pdu = self.pdu(no).await?;
        let key = match pdu.state_key() {
            Some(key) => Some(self.state_key(pdu.kind(), key).await?.0),
            None => None,
        };
        let auth = auth.into_iter().map(|no| no.0).collect();
        Ok(Node { pdu, auth, rejected: standing == Standing::Rejected, key })
    }
}
