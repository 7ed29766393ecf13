//! Which event of a room is closest to a moment (Server-Server API, "timestamp_to_event").

use stoa_event::ids::{RoomId, ServerName};

use super::missing;
use crate::{Error, View, time::ByTime};

impl View {
    /// The id and the time of the event that is closest to a moment, before it or after it.
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
        let history = ByTime { store: &self.inner.store, snapshot: &snapshot, room: guest.room };
        for event in history.near(ts, backward).await?.events {
            if guest.sees(&event).await? {
                return Ok((event.header.event_id.clone(), event.header.origin_server_ts));
            }
        }
        Err(missing())
    }
}
