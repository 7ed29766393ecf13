//! A cache of events as they are stored, within the memory budget.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use quick_cache::{Weighter, sync::Cache};

use crate::{
    Error, EventNo, RoomNo, Snapshot,
    rows::events::{EventPlace, StoredEvent},
    schema,
};

/// Over how many relations a thread is looked for, as the specification recommends.
const THREAD_HOPS: usize = 3;

#[derive(Clone)]
struct Weight;

impl Weighter<(RoomNo, EventNo), Arc<StoredEvent>> for Weight {
    fn weight(&self, _: &(RoomNo, EventNo), event: &Arc<StoredEvent>) -> u64 {
        600 + event.json.len() as u64
    }
}

/// Events that were read before.
pub struct Events {
    cache: Cache<(RoomNo, EventNo), Arc<StoredEvent>, Weight>,
    /// Counts the rewrites: who read the old form during one must not leave it in the cache.
    rewrites: AtomicU64,
}

impl Events {
    pub(crate) fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes / 1500).unwrap_or(usize::MAX).max(16);
        Events { cache: Cache::with_weighter(items, bytes, Weight), rewrites: AtomicU64::new(0) }
    }

    pub(crate) fn forget(&self, rewritten: &[(RoomNo, EventNo)]) {
        if rewritten.is_empty() {
            return;
        }
        self.rewrites.fetch_add(1, Ordering::SeqCst);
        for key in rewritten {
            self.cache.remove(key);
        }
    }

    pub(crate) fn rewrites(&self) -> u64 {
        self.rewrites.load(Ordering::SeqCst)
    }

    /// Events of one room, in the order asked for; `None` where there is no such event.
    ///
    /// # Errors
    /// Where the engine fails or a row cannot be read.
    pub async fn get_many(
        &self,
        snapshot: &Snapshot,
        room: RoomNo,
        events: &[EventNo],
    ) -> Result<Vec<Option<Arc<StoredEvent>>>, Error> {
        let mut found: Vec<_> = events.iter().map(|no| self.cache.get(&(room, *no))).collect();
        let missing: Vec<usize> = (0..events.len()).filter(|i| found[*i].is_none()).collect();
        if missing.is_empty() {
            return Ok(found);
        }
        let keys = missing.iter().map(|i| (room, events[*i]));
        let rows = snapshot.get_many(&schema::EVENTS, keys).await?;
        for (i, row) in missing.into_iter().zip(rows) {
            let Some(event) = row.map(Arc::new) else { continue };
            self.keep(snapshot, (room, events[i]), &event);
            found[i] = Some(event);
        }
        Ok(found)
    }

    /// One event.
    ///
    /// # Errors
    /// Where the engine fails or the row cannot be read.
    pub async fn get(&self, snapshot: &Snapshot, room: RoomNo, no: EventNo) -> Result<Option<Arc<StoredEvent>>, Error> {
        if let Some(event) = self.cache.get(&(room, no)) {
            return Ok(Some(event));
        }
        let event = snapshot.get(&schema::EVENTS, &(room, no)).await?.map(Arc::new);
        if let Some(event) = &event {
            self.keep(snapshot, (room, no), event);
        }
        Ok(event)
    }

    /// The event of an id and where it is.
    ///
    /// # Errors
    /// Where the engine fails or a row cannot be read.
    pub async fn by_id(&self, snapshot: &Snapshot, id: &str) -> Result<Option<(EventPlace, Arc<StoredEvent>)>, Error> {
        let Some(place) = snapshot.get(&schema::EVENT_IDS, &id.to_owned()).await? else { return Ok(None) };
        Ok(self.get(snapshot, place.room, place.event).await?.map(|event| (place, event)))
    }

    /// The root of the thread that an event is in: its own `m.thread` relation, or that of what it relates to (Client-Server
    /// API, "Threaded read receipts"). `None` is the main timeline.
    ///
    /// # Errors
    /// Where the engine fails or a row cannot be read.
    pub async fn thread_of(
        &self,
        snapshot: &Snapshot,
        room: RoomNo,
        event: &StoredEvent,
    ) -> Result<Option<String>, Error> {
        let mut next = event.header.relates_to.clone();
        for hop in 0..=THREAD_HOPS {
            let Some(relation) = next else { return Ok(None) };
            if relation.rel_type == "m.thread" {
                return Ok(Some(relation.event_id));
            }
            if hop == THREAD_HOPS {
                break;
            }
            let parent = self.by_id(snapshot, &relation.event_id).await?;
            next =
                parent.filter(|(place, _)| place.room == room).and_then(|(_, event)| event.header.relates_to.clone());
        }
        Ok(None)
    }

    fn keep(&self, snapshot: &Snapshot, key: (RoomNo, EventNo), event: &Arc<StoredEvent>) {
        if snapshot.rewrites() != self.rewrites() {
            return;
        }
        self.cache.insert(key, event.clone());
        if snapshot.rewrites() != self.rewrites() {
            self.cache.remove(&key);
        }
    }
}
