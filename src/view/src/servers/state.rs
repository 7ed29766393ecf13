//! The state of a room at an event, for another server.

use stoa_event::ids::{EventId, RoomId, ServerName};
use stoa_store::{EventNo, rows::events::Standing, state::Root};

use super::{Guest, Pdus, missing};
use crate::{Error, View};

/// The state before an event.
#[derive(Clone)]
pub struct WholeState {
    /// Its events.
    pub state: Pdus,
    /// Their auth chain.
    pub auth: Pdus,
}

/// The ids of the state before an event.
#[derive(Clone, Debug)]
pub struct StateIds {
    /// Its events.
    pub state: Vec<String>,
    /// Their auth chain.
    pub auth: Vec<String>,
}

impl View {
    /// The state before an event, for another server.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a server that may not read in the room, [`Error::NotFound`]
    pub async fn state_for_server(
        &self,
        server: &ServerName,
        room: &RoomId,
        at: &EventId,
    ) -> Result<WholeState, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let guest = self.guest(&snapshot, server, room).await?;
        let root = guest.before(at).await?;
        guest.whole(root).await
    }

    /// The ids of the state before an event, for another server.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a server that may not read in the room, [`Error::NotFound`]
    pub async fn state_ids_for_server(
        &self,
        server: &ServerName,
        room: &RoomId,
        at: &EventId,
    ) -> Result<StateIds, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let guest = self.guest(&snapshot, server, room).await?;
        let root = guest.before(at).await?;
        let state = guest.state_events(root).await?;
        let auth = guest.chain(state.iter().copied()).await?;
        Ok(StateIds { state: guest.ids(state).await?, auth: guest.ids(auth.iter().map(EventNo)).await? })
    }

    /// What a server is told whose user has just joined by that event.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the room or the event is not there.
    pub async fn state_for_join(
        &self,
        server: &ServerName,
        room: &RoomId,
        join: &EventId,
    ) -> Result<WholeState, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let no = self.inner.store.names().room(&snapshot, room.as_str()).await?.ok_or_else(missing)?;
        let guest = Guest::inside(&self.inner, &snapshot, server, no).await?;
        let root = guest.before(join).await?;
        guest.whole(root).await
    }
}

impl Guest<'_> {
    /// The state before an event of this room.
    async fn before(&self, id: &EventId) -> Result<Root, Error> {
        let (_, event) = self.by_id(id).await?.ok_or_else(missing)?;
        match event.header.standing {
            Standing::Accepted | Standing::SoftFailed => event.header.before.ok_or_else(missing),
            Standing::Rejected | Standing::Outlier => Err(missing()),
        }
    }

    async fn state_events(&self, root: Root) -> Result<Vec<EventNo>, Error> {
        let entries = self.inner.store.state(self.snapshot, self.room).entries(root).await?;
        Ok(entries.into_iter().map(|(_, no)| no).collect())
    }

    async fn whole(&self, root: Root) -> Result<WholeState, Error> {
        let state = self.state_events(root).await?;
        let auth = self.chain(state.iter().copied()).await?;
        Ok(WholeState { state: self.pdus(state), auth: self.pdus(auth.iter().map(EventNo)) })
    }
}
