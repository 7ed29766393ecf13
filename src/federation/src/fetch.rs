//! Events from other servers: reading, checking signatures, and fetching what an event needs before it can be judged.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use stoa_event::{
    format::Received,
    ids::{EventId, OwnedEventId, RoomId, ServerName},
    pdu::Pdu,
    sign::Keys,
    version::Rules,
};
use stoa_rooms::{Arrival, Needs, Outcome, StateAfter};

use crate::{
    Error, Inner,
    ask::{Path, USUAL},
};

/// How many events are asked for by id to judge one event. Beyond it, the whole state is asked for.
const BY_ID: usize = 50;
/// How many are asked for at once.
const AT_ONCE: usize = 8;
/// How many events that were missed are fetched before the gap is left open.
const GAP: usize = 400;
/// How many events one state may have.
const STATE: usize = 500_000;
/// How long a whole state may take: the other server may have to gather much.
const WHOLE: Duration = Duration::from_secs(180);
/// How many signatures are checked by one core before the next turn, and how many cores do so for one who asks.
const CHUNK: usize = 256;
const CORES: usize = 4;
/// How many events are kept in one commit.
const BATCH: usize = 500;

type Raw = Box<RawValue>;

#[derive(Deserialize)]
struct StateIds {
    #[serde(default)]
    pdu_ids: Vec<OwnedEventId>,
    #[serde(default)]
    auth_chain_ids: Vec<OwnedEventId>,
}

#[derive(Deserialize)]
struct State<'a> {
    #[serde(borrow, default)]
    pdus: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    auth_chain: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Events {
    #[serde(default)]
    events: Vec<Raw>,
}

#[derive(Deserialize)]
struct Pdus {
    #[serde(default)]
    pdus: Vec<Raw>,
}

#[derive(Deserialize)]
struct AuthChain {
    #[serde(default)]
    auth_chain: Vec<Raw>,
}

impl Inner {
    /// Reads events and checks their signatures; what is not an event, or not signed as it must be, is left out. Keys that
    /// are missing are fetched, all at once.
    pub(crate) async fn verified(&self, rules: &Arc<Rules>, raw: Vec<Bytes>) -> Vec<Arc<Pdu>> {
        let mut read = Vec::with_capacity(raw.len());
        for json in raw {
            match Received::read(json, rules) {
                Ok(event) => read.push(event),
                Err(why) => tracing::debug!(%why, "what another server sent is no event"),
            }
        }
        // With the event's time where keys must have been valid then: one that ended, as far as we know, is asked for again.
        let wanted = read.iter().flat_map(|event| {
            let at = rules.enforce_key_validity.then(|| event.pdu().origin_server_ts());
            event.wanted_keys().unwrap_or_default().into_iter().map(move |(server, id)| (server, id, at))
        });
        let wanted: Vec<_> = wanted.collect();
        self.remote.keys().fetch_each(wanted).await;
        let keys = self.remote.keys().known();
        if read.len() <= CHUNK {
            return check(read, rules, &keys);
        }
        let mut chunks = Vec::with_capacity(read.len() / CHUNK + 1);
        while !read.is_empty() {
            chunks.push(read.split_off(read.len().saturating_sub(CHUNK)));
        }
        // In the order in which they came.
        let mut verified = Vec::new();
        let mut running = VecDeque::with_capacity(CORES);
        while let Some(chunk) = chunks.pop() {
            let (keys, rules) = (keys.clone(), rules.clone());
            // Whoever joins a large room must not have all the cores: others wait for their signatures too.
            if running.len() == CORES
                && let Some(first) = running.pop_front()
            {
                verified.extend(first.await);
            }
            running.push_back(tokio::task::spawn_blocking(move || check(chunk, &rules, &keys)));
        }
        for rest in running {
            verified.extend(rest.await);
        }
        verified.into_iter().flatten().collect()
    }

    async fn verified_raw(&self, rules: &Arc<Rules>, raw: Vec<Raw>) -> Vec<Arc<Pdu>> {
        self.verified(rules, raw.iter().map(bytes_of).collect()).await
    }

    /// One event by its id.
    pub(crate) async fn event(&self, from: &ServerName, rules: &Arc<Rules>, id: &EventId) -> Result<Arc<Pdu>, Error> {
        let path = Path::new("v1/event").part(id.as_str());
        let answer: Pdus = self.get(from, path, USUAL).await?;
        let events = self.verified_raw(rules, answer.pdus.into_iter().take(1).collect()).await;
        let found = events.into_iter().find(|pdu| pdu.event_id() == id);
        found.ok_or_else(|| Error::Bad(format!("{from} answered with another event than {id}")))
    }

    /// Events by their ids, a few at a time; those that cannot be had are left out.
    async fn events(&self, from: &ServerName, rules: &Arc<Rules>, ids: &[OwnedEventId]) -> Vec<Arc<Pdu>> {
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(AT_ONCE) {
            // A closure over references would make the future one that cannot be sent to other threads.
            let mut asking = Vec::with_capacity(ids.len());
            for id in ids {
                asking.push(self.event(from, rules, id));
            }
            let asked = join_all(asking).await;
            found.extend(asked.into_iter().filter_map(Result::ok));
        }
        found
    }

    /// Judges events of one room that came from a server, fetching from it what they need, until each is judged or
    /// cannot be. What needs nothing is one commit.
    pub(crate) async fn take_in(
        &self,
        from: &ServerName,
        room: &RoomId,
        rules: &Arc<Rules>,
        events: Vec<Arc<Pdu>>,
    ) -> Result<Vec<(OwnedEventId, Result<Outcome, Error>)>, Error> {
        let arrivals: Vec<Arrival> = events.into_iter().map(|pdu| Arrival::Live(pdu, Vec::new())).collect();
        let first = self.rooms.ingest(room, arrivals.clone()).await?;
        let mut outcomes = Vec::with_capacity(first.len());
        for (arrival, outcome) in arrivals.into_iter().zip(first) {
            let id = arrival.pdu().event_id().clone();
            let outcome = match outcome {
                Outcome::Needs(_) => self.settle(from, room, rules, arrival).await,
                judged => Ok(judged),
            };
            outcomes.push((id, outcome));
        }
        Ok(outcomes)
    }

    /// Judges one event, fetching what it needs.
    pub(crate) async fn settle(
        &self,
        from: &ServerName,
        room: &RoomId,
        rules: &Arc<Rules>,
        mut arrival: Arrival,
    ) -> Result<Outcome, Error> {
        let mut tried_gap = false;
        // Each round removes a reason; there are five of them.
        for _ in 0..7 {
            let outcome = self.rooms.ingest(room, vec![arrival.clone()]).await?.pop();
            let Some(Outcome::Needs(needs)) = outcome else {
                return outcome.ok_or_else(|| Error::Bad("nothing was judged".into()));
            };
            let Needs { events, prevs, policy } = &needs;
            if let Some(policy) = policy {
                arrival = self.asked(rules, arrival, policy).await;
            } else if !events.is_empty() {
                self.fetch_auth(from, room, rules, arrival.pdu(), events).await?;
            } else if !tried_gap && matches!(arrival, Arrival::Live(..)) {
                tried_gap = true;
                self.close_gap(from, room, rules, arrival.pdu()).await?;
            } else {
                let mut states = Vec::with_capacity(prevs.len());
                for prev in prevs {
                    states.push(self.state_after(from, room, rules, prev).await?);
                }
                match &mut arrival {
                    Arrival::Live(_, told) | Arrival::History(_, told) => told.extend(states),
                    Arrival::Unsigned(..) | Arrival::Outlier(_) => {}
                }
            }
        }
        Ok(Outcome::Rejected(format!("{from} does not have what the event builds on")))
    }

    /// Fetches the events that an event names as its auth events, and theirs in turn.
    async fn fetch_auth(
        &self,
        from: &ServerName,
        room: &RoomId,
        rules: &Arc<Rules>,
        pdu: &Pdu,
        missing: &[OwnedEventId],
    ) -> Result<(), Error> {
        if missing.len() <= AT_ONCE {
            let events = self.events(from, rules, missing).await;
            let outcomes = self.keep(room, events.clone()).await?;
            if events.len() == missing.len() && !outcomes.iter().any(|outcome| matches!(outcome, Outcome::Needs(_))) {
                return Ok(());
            }
        }
        let path = Path::new("v1/event_auth").part(room.as_str()).part(pdu.event_id().as_str());
        let answer: AuthChain = self.get(from, path, USUAL).await?;
        let events = self.verified_raw(rules, answer.auth_chain.into_iter().take(STATE).collect()).await;
        self.keep(room, events).await.map(drop)
    }

    /// Keeps events as outliers, each after those that it names.
    pub(crate) async fn keep(&self, room: &RoomId, events: Vec<Arc<Pdu>>) -> Result<Vec<Outcome>, Error> {
        let mut outcomes = Vec::with_capacity(events.len());
        for events in in_order(events).chunks(BATCH) {
            let outliers = events.iter().cloned().map(Arrival::Outlier).collect();
            outcomes.extend(self.rooms.ingest(room, outliers).await?);
        }
        Ok(outcomes)
    }

    /// Fetches what happened between what we hold and an event (Server-Server API, "Retrieving missing events").
    async fn close_gap(
        &self,
        from: &ServerName,
        room: &RoomId,
        rules: &Arc<Rules>,
        pdu: &Arc<Pdu>,
    ) -> Result<(), Error> {
        let earliest = self.rooms.tips(room).await?;
        let mut found: HashMap<OwnedEventId, Arc<Pdu>> = HashMap::new();
        let mut latest = vec![pdu.event_id().clone()];
        while found.len() < GAP && !latest.is_empty() {
            let body = json!({
                "earliest_events": earliest.iter().take(20).collect::<Vec<_>>(),
                "latest_events": latest.iter().take(20).collect::<Vec<_>>(),
                "limit": 50,
                "min_depth": 0,
            });
            let path = Path::new("v1/get_missing_events").part(room.as_str());
            let answer: Events = match self.post(from, path, &body, USUAL).await {
                Ok(answer) => answer,
                Err(why) => {
                    tracing::debug!(%room, %from, %why, "missing events cannot be had");
                    break;
                }
            };
            let events = self.verified_raw(rules, answer.events.into_iter().take(100).collect()).await;
            let mut new = Vec::new();
            for event in events {
                if event.room_id() == room
                    && !found.contains_key(event.event_id())
                    && event.event_id() != pdu.event_id()
                {
                    new.push(event.clone());
                    found.insert(event.event_id().clone(), event);
                }
            }
            // Further down only from those whose past is not there yet.
            latest.clear();
            for event in &new {
                for prev in event.prev_events() {
                    if !found.contains_key(prev) && !self.rooms.holds(room, prev).await? {
                        latest.push(event.event_id().clone());
                        break;
                    }
                }
            }
        }
        let mut events: Vec<_> = found.into_values().collect();
        events.sort_by_key(|event| event.depth());
        for event in by_prevs(events) {
            Box::pin(self.settle_older(from, room, rules, event)).await?;
        }
        Ok(())
    }

    /// Judges an event of a gap: what it needs besides is fetched, but no further gap is closed.
    async fn settle_older(
        &self,
        from: &ServerName,
        room: &RoomId,
        rules: &Arc<Rules>,
        pdu: Arc<Pdu>,
    ) -> Result<(), Error> {
        let mut states: Vec<StateAfter> = Vec::new();
        let mut arrival = Arrival::Live(pdu.clone(), Vec::new());
        for _ in 0..5 {
            let Some(Outcome::Needs(needs)) = self.rooms.ingest(room, vec![arrival.clone()]).await?.pop() else {
                return Ok(());
            };
            if let Some(policy) = &needs.policy {
                arrival = self.asked(rules, arrival, policy).await;
                continue;
            }
            let fetched = match needs.events.is_empty() {
                false => self.fetch_auth(from, room, rules, &pdu, &needs.events).await,
                true => self.states_after(from, room, rules, &needs.prevs).await.map(|more| states.extend(more)),
            };
            if let Err(why) = fetched {
                tracing::debug!(%room, event = %pdu.event_id(), %why, "an event of a gap cannot be judged");
                return Ok(());
            }
            arrival = Arrival::Live(pdu.clone(), states.clone());
        }
        Ok(())
    }

    async fn states_after(
        &self,
        from: &ServerName,
        room: &RoomId,
        rules: &Arc<Rules>,
        events: &[OwnedEventId],
    ) -> Result<Vec<StateAfter>, Error> {
        let mut states = Vec::with_capacity(events.len());
        for event in events {
            states.push(self.state_after(from, room, rules, event).await?);
        }
        Ok(states)
    }

    /// The state after an event that we do not hold in the graph, all of whose events are held when this returns.
    pub(crate) async fn state_after(
        &self,
        from: &ServerName,
        room: &RoomId,
        rules: &Arc<Rules>,
        event: &EventId,
    ) -> Result<StateAfter, Error> {
        let it = self.event(from, rules, event).await?;
        let (mut state, mut events) = self.state_before(from, room, rules, event, it.auth_events()).await?;
        if it.room_id() == room && it.state_key().is_some() {
            // It stands where the one before it stood: a later entry of the same key wins.
            state.push(it.event_id().clone());
        }
        events.push(it);
        self.keep(room, events).await?;
        Ok(StateAfter { event: event.to_owned(), state })
    }

    /// The ids of the state before an event, and those of its events, of their auth chain and of `also` that are not held.
    pub(crate) async fn state_before(
        &self,
        from: &ServerName,
        room: &RoomId,
        rules: &Arc<Rules>,
        event: &EventId,
        also: &[OwnedEventId],
    ) -> Result<(Vec<OwnedEventId>, Vec<Arc<Pdu>>), Error> {
        let path = Path::new("v1/state_ids").part(room.as_str()).ask("event_id", event.as_str());
        let StateIds { pdu_ids, auth_chain_ids } = self.get(from, path, USUAL * 2).await?;
        if pdu_ids.len() + auth_chain_ids.len() > STATE {
            return Err(Error::Bad(format!("{from} told a state of {} events", pdu_ids.len())));
        }
        let all = [&pdu_ids[..], &auth_chain_ids, also].concat();
        let missing = self.rooms.not_held(room, &all).await?;
        let events = match missing.len() > BY_ID {
            false => self.events(from, rules, &missing).await,
            true => self.whole_state(from, room, rules, event).await?,
        };
        Ok((pdu_ids, events))
    }

    async fn whole_state(
        &self,
        from: &ServerName,
        room: &RoomId,
        rules: &Arc<Rules>,
        event: &EventId,
    ) -> Result<Vec<Arc<Pdu>>, Error> {
        let path = Path::new("v1/state").part(room.as_str()).ask("event_id", event.as_str());
        let body = self.get_bytes(from, path, WHOLE).await?;
        let State { pdus, auth_chain } =
            serde_json::from_slice(&body).map_err(|why| stoa_remote::Error::Malformed(why.to_string()))?;
        let pieces = auth_chain.into_iter().chain(pdus).take(STATE).map(|event| piece_of(&body, event)).collect();
        Ok(self.verified(rules, pieces).await)
    }
}

/// Checks signatures, one after the other.
fn check(events: Vec<Received>, rules: &Rules, keys: &impl Keys) -> Vec<Arc<Pdu>> {
    let mut verified = Vec::with_capacity(events.len());
    for event in events {
        match event.verify(rules, keys) {
            Ok((pdu, _)) => verified.push(Arc::new(pdu)),
            Err(why) => tracing::debug!(event = %event.pdu().event_id(), %why, "an event is not signed as it must be"),
        }
    }
    verified
}

/// An event of an answer, whose bytes it shares.
pub(crate) fn piece_of(answer: &Bytes, event: &RawValue) -> Bytes {
    answer.slice_ref(event.get().as_bytes())
}

pub(crate) fn bytes_of(raw: &Raw) -> Bytes {
    Bytes::copy_from_slice(raw.get().as_bytes())
}

/// Events so that each comes after those of them that it names as auth events.
pub(crate) fn in_order(events: Vec<Arc<Pdu>>) -> Vec<Arc<Pdu>> {
    sorted(events, |pdu| pdu.auth_events())
}

/// Events so that each comes after those of them that it follows.
pub(crate) fn by_prevs(events: Vec<Arc<Pdu>>) -> Vec<Arc<Pdu>> {
    sorted(events, |pdu| pdu.prev_events())
}

fn sorted(events: Vec<Arc<Pdu>>, after: impl Fn(&Pdu) -> &[OwnedEventId]) -> Vec<Arc<Pdu>> {
    let by_id: HashMap<OwnedEventId, Arc<Pdu>> =
        events.iter().map(|pdu| (pdu.event_id().clone(), pdu.clone())).collect();
    let (mut done, mut order) = (HashSet::new(), Vec::with_capacity(events.len()));
    for first in &events {
        // Depth first, without recursion: chains may be long.
        let mut stack = vec![(first.clone(), false)];
        while let Some((pdu, ready)) = stack.pop() {
            if ready {
                order.push(pdu);
            } else if done.insert(pdu.event_id().clone()) {
                stack.push((pdu.clone(), true));
                stack.extend(after(&pdu).iter().filter_map(|id| Some((by_id.get(id)?.clone(), false))));
            }
        }
    }
    order
}
