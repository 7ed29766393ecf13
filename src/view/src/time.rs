//! Which event of a room is closest to a moment (Client-Server API and Server-Server API, "timestamp_to_event").
//!
//! There is no index by time: history is ordered by depth, along which times grow, but for clocks that are wrong. The place is
//! found by bisection, and the closest event near it is taken.

use std::{ops::Bound, sync::Arc};

use stoa_event::ids::RoomId;
use stoa_store::{Direction, EventNo, Position, RoomNo, Snapshot, Store, rows::events::StoredEvent, schema};

use crate::{Error, View, Viewer};

/// How many events are looked at on both sides of the place where the moment should be.
const AROUND: usize = 200;
/// How many of those just after it tell whether history is missing there.
const NEAR: usize = 5;

/// The event of a room that is closest to a moment.
#[derive(Clone, Debug)]
pub struct AtTime {
    /// Its id and its time, if one was found.
    pub event: Option<(String, u64)>,
    /// Whether history is missing there, so that other servers may know a closer one.
    pub gap: bool,
}

/// Events near a moment.
pub(crate) struct Near {
    /// Those before it or after it, as asked, the closest first.
    pub(crate) events: Vec<Arc<StoredEvent>>,
    gap: bool,
}

/// A room's history by time.
pub(crate) struct ByTime<'a> {
    pub(crate) store: &'a Store,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) room: RoomNo,
}

impl View {
    /// The event that is closest to a moment, before it or after it, among those that the user may see.
    ///
    /// # Errors
    /// Where the user may not look.
    pub async fn event_near(&self, viewer: &Viewer, room: &RoomId, ts: u64, backward: bool) -> Result<AtTime, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let mut reach = self.reach(&snapshot, viewer, room).await?;
        let history = ByTime { store: &self.inner.store, snapshot: &snapshot, room: reach.room };
        let near = history.near(ts, backward).await?;
        for event in near.events {
            if reach.eyes.look(&event).await?.is_some() {
                let header = &event.header;
                return Ok(AtTime { event: Some((header.event_id.clone(), header.origin_server_ts)), gap: near.gap });
            }
        }
        Ok(AtTime { event: None, gap: near.gap })
    }
}

impl ByTime<'_> {
    /// The events before or after a moment that are close to it, the closest first.
    pub(crate) async fn near(&self, ts: u64, backward: bool) -> Result<Near, Error> {
        let depth = self.depth_at(ts).await?;
        let after = self.events(&self.rows(depth, Direction::Forward).await?).await?;
        let gap = after.iter().take(NEAR).any(|event| event.header.gap);
        let mut events = self.events(&self.rows(depth, Direction::Backward).await?).await?;
        events.extend(after);
        events.retain(|event| match backward {
            true => event.header.origin_server_ts <= ts,
            false => event.header.origin_server_ts >= ts,
        });
        events.sort_by_key(|event| (event.header.origin_server_ts.abs_diff(ts), event.header.depth));
        Ok(Near { events, gap })
    }

    /// The least depth whose events are not before the moment, as if times grew with depth.
    async fn depth_at(&self, ts: u64) -> Result<u64, Error> {
        let last = self.snapshot.scan(&schema::HISTORY, &self.room, Direction::Backward, 1).await?;
        let (mut low, mut high) = (0, last.first().map_or(0, |((_, depth, _), _)| depth.saturating_add(1)));
        while low < high {
            let middle = low + (high - low) / 2;
            let from = Bound::Included((self.room, middle));
            let to = Bound::Included(self.room);
            let row = self.snapshot.range(&schema::HISTORY, from, to, Direction::Forward, 1).await?;
            let found = match row.first() {
                Some(((_, depth, _), no)) => {
                    let event = self.store.events().get(self.snapshot, self.room, *no).await?;
                    event.map(|event| (*depth, event.header.origin_server_ts))
                }
                None => None,
            };
            match found {
                Some((depth, time)) if time < ts => low = depth.max(middle) + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// Events from a depth on, in one direction.
    async fn rows(&self, depth: u64, direction: Direction) -> Result<Vec<EventNo>, Error> {
        let place = (self.room, depth, Position::MIN);
        let rows = match direction {
            Direction::Forward => {
                let (from, to) = (Bound::Included(place), Bound::Included(self.room));
                self.snapshot.range(&schema::HISTORY, from, to, direction, AROUND).await?
            }
            Direction::Backward => {
                let (from, to) = (Bound::Included(self.room), Bound::Excluded(place));
                self.snapshot.range(&schema::HISTORY, from, to, direction, AROUND).await?
            }
        };
        Ok(rows.into_iter().map(|(_, no)| no).collect())
    }

    async fn events(&self, nos: &[EventNo]) -> Result<Vec<Arc<StoredEvent>>, Error> {
        let events = self.store.events().get_many(self.snapshot, self.room, nos).await?;
        Ok(events.into_iter().flatten().collect())
    }
}
