//! Which event of a room is closest to a moment (Server-Server API, "timestamp_to_event").

use std::ops::Bound;

use stoa_event::ids::{RoomId, ServerName};
use stoa_store::{Direction, EventNo, Position, schema};

use super::{Guest, missing};
use crate::{Error, View};

/// How many events are looked at on both sides of the place where the moment should be.
const AROUND: usize = 200;

impl View {
    /// The id and the time of the event that is closest to a moment, before it or after it.
    ///
    /// There is no index by time: history is ordered by depth, along which times grow, but for clocks that are wrong. The place
    /// is found by bisection, and the closest event near it is taken.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a server that may not read in the room, [`Error::NotFound`]
    pub async fn event_at_time(
        &self,
        server: &ServerName,
        room: &RoomId,
        ts: u64,
        backward: bool,
    ) -> Result<(String, u64), Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let mut guest = self.guest(&snapshot, server, room).await?;
        let depth = guest.depth_at(ts).await?;
        let mut near = guest.rows(depth, Direction::Backward).await?;
        near.extend(guest.rows(depth, Direction::Forward).await?);
        let mut events = guest.events(&near).await?;
        events.retain(|(_, event)| match backward {
            true => event.header.origin_server_ts <= ts,
            false => event.header.origin_server_ts >= ts,
        });
        events.sort_by_key(|(_, event)| (event.header.origin_server_ts.abs_diff(ts), event.header.depth));
        for (_, event) in events {
            if guest.sees(&event).await? {
                return Ok((event.header.event_id.clone(), event.header.origin_server_ts));
            }
        }
        Err(missing())
    }
}

impl Guest<'_> {
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
                    self.event(*no).await?.map(|event| (*depth, event.header.origin_server_ts))
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
}
