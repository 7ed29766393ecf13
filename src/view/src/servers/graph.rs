//! Walking a room's graph for another server: what came before, what lies between, and what allows an event.

use std::{
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use roaring::RoaringBitmap;
use stoa_event::ids::{EventId, OwnedEventId, RoomId, ServerName};
use stoa_store::{
    EventNo,
    rows::events::{Standing, StoredEvent},
};

use super::{BATCH, Guest, Pdus, missing};
use crate::{Error, View};

/// The most events that one answer of backfill has.
const MAX_BACKFILL: usize = 100;
/// The most events that one answer about missing ones has.
const MAX_MISSING: usize = 20;
/// The most events that are named in a question; more are passed over.
const MAX_NAMED: usize = 100;
/// How many events are looked at for each one that may be shown: those that became no part of the room are walked through.
const PATIENCE: usize = 20;
/// How many are looked at in any case: else a few rejected ones would end the history of whoever asks for little.
const LEAST: usize = 2_000;

/// Which events another server misses.
#[derive(Clone, Debug, Default)]
pub struct MissingRequest {
    /// Events that it has: where to stop.
    pub earliest: Vec<OwnedEventId>,
    /// Events whose predecessors it wants.
    pub latest: Vec<OwnedEventId>,
    /// At most so many.
    pub limit: Option<u64>,
    /// Only from this depth on.
    pub min_depth: u64,
}

impl View {
    /// History of a room for another server: the events named and what came before them, the newest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a server that may not read in the room.
    pub async fn backfill(
        &self,
        server: &ServerName,
        room: &RoomId,
        from: &[OwnedEventId],
        limit: u64,
    ) -> Result<Vec<Bytes>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let mut guest = self.guest(&snapshot, server, room).await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(MAX_BACKFILL);
        let (mut met, mut next) = (RoaringBitmap::new(), BinaryHeap::new());
        for id in from.iter().take(MAX_NAMED) {
            if let Some((no, event)) = guest.by_id(id).await?
                && met.insert(no.0)
            {
                next.push((event.header.depth, event.header.at, no));
            }
        }
        let mut shown = Vec::new();
        for _ in 0..(limit * PATIENCE).max(LEAST) {
            let Some((.., no)) = next.pop() else { break };
            let Some(event) = guest.event(no).await? else { continue };
            if event.header.standing == Standing::Accepted {
                shown.push(guest.show(&event).await?);
            }
            if shown.len() >= limit {
                break;
            }
            let new: Vec<EventNo> = event.header.prev.iter().copied().filter(|no| met.insert(no.0)).collect();
            for (no, event) in guest.events(&new).await? {
                next.push((event.header.depth, event.header.at, no));
            }
        }
        Ok(shown)
    }

    /// Events between those that another server has and those that it has heard of, the oldest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a server that may not read in the room.
    pub async fn missing_events(
        &self,
        server: &ServerName,
        room: &RoomId,
        request: &MissingRequest,
    ) -> Result<Vec<Bytes>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let mut guest = self.guest(&snapshot, server, room).await?;
        let limit = request.limit.map_or(10, |limit| usize::try_from(limit).unwrap_or(usize::MAX)).min(MAX_MISSING);
        let mut met = RoaringBitmap::new();
        for id in request.earliest.iter().take(MAX_NAMED) {
            met.extend(guest.by_id(id).await?.map(|(no, _)| no.0));
        }
        let mut next = VecDeque::new();
        for id in request.latest.iter().take(MAX_NAMED) {
            if let Some((no, event)) = guest.by_id(id).await?
                && met.insert(no.0)
            {
                next.push_back(event);
            }
        }
        let mut found: Vec<Arc<StoredEvent>> = Vec::new();
        for _ in 0..((limit + MAX_NAMED) * PATIENCE).max(LEAST) {
            let Some(event) = next.pop_front() else { break };
            let new: Vec<EventNo> = event.header.prev.iter().copied().filter(|no| met.insert(no.0)).collect();
            for (_, event) in guest.events(&new).await? {
                if event.header.depth < request.min_depth {
                    continue;
                }
                if event.header.standing == Standing::Accepted && found.len() < limit {
                    found.push(event.clone());
                }
                next.push_back(event);
            }
            if found.len() >= limit {
                break;
            }
        }
        found.sort_by_key(|event| (event.header.depth, event.header.at));
        let mut shown = Vec::with_capacity(found.len());
        for event in found {
            shown.push(guest.show(&event).await?);
        }
        Ok(shown)
    }

    /// The auth chain of an event.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a server that may not read in the room, [`Error::NotFound`]
    pub async fn auth_chain(&self, server: &ServerName, room: &RoomId, id: &EventId) -> Result<Pdus, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let guest = self.guest(&snapshot, server, room).await?;
        let (no, event) = guest.by_id(id).await?.ok_or_else(missing)?;
        if event.header.standing == Standing::Rejected {
            return Err(missing());
        }
        let chain = guest.chain([no]).await?;
        Ok(guest.pdus(chain.iter().map(EventNo)))
    }
}

impl Guest<'_> {
    /// Events of the room that are there.
    pub(super) async fn events(&self, nos: &[EventNo]) -> Result<Vec<(EventNo, Arc<StoredEvent>)>, Error> {
        let events = self.inner.store.events().get_many(self.snapshot, self.room, nos).await?;
        Ok(nos.iter().copied().zip(events).filter_map(|(no, event)| Some((no, event?))).collect())
    }

    /// The auth chain of events; themselves only where another one of them names them. Each event is read once.
    pub(super) async fn chain(&self, of: impl IntoIterator<Item = EventNo>) -> Result<RoaringBitmap, Error> {
        let mut chain = RoaringBitmap::new();
        let mut next: Vec<EventNo> = of.into_iter().collect();
        // Those that were asked about are not walked a second time.
        let mut walked: RoaringBitmap = next.iter().map(|no| no.0).collect();
        while !next.is_empty() {
            let mut new = Vec::new();
            for batch in next.chunks(BATCH) {
                for (_, event) in self.events(batch).await? {
                    for auth in &event.header.auth {
                        chain.insert(auth.0);
                        if walked.insert(auth.0) {
                            new.push(*auth);
                        }
                    }
                }
            }
            next = new;
        }
        Ok(chain)
    }

    pub(super) fn pdus(&self, nos: impl IntoIterator<Item = EventNo>) -> Pdus {
        Pdus::new(&self.inner.store, self.room, nos)
    }

    /// The ids of events, rejected ones left out.
    pub(super) async fn ids(&self, nos: impl IntoIterator<Item = EventNo>) -> Result<Vec<String>, Error> {
        let nos: Vec<EventNo> = nos.into_iter().collect();
        let mut ids = Vec::with_capacity(nos.len());
        for batch in nos.chunks(BATCH) {
            for (_, event) in self.events(batch).await? {
                if event.header.standing != Standing::Rejected {
                    ids.push(event.header.event_id.clone());
                }
            }
        }
        Ok(ids)
    }
}
