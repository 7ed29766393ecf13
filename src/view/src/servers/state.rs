//! The state of a room at an event, for another server.

use roaring::RoaringBitmap;
use stoa_event::ids::{EventId, RoomId, ServerName};
use stoa_store::{
    Direction, EventNo, Membership,
    rows::events::{Standing, StoredEvent},
    schema,
    state::{Change, Class, Root},
};

use super::{Guest, MANY_SERVERS, Pdus, missing};
use crate::{
    Error, View,
    eyes::membership_of,
    sync::summary::{HEROES, LOOKED_AT},
};

/// The state before an event.
#[derive(Clone)]
pub struct WholeState {
    /// Its events.
    pub state: Pdus,
    /// Their auth chain.
    pub auth: Pdus,
}

/// What a server is told whose user has just joined.
#[derive(Clone)]
pub struct JoinState {
    /// The events of the state before the join.
    pub state: Pdus,
    /// The auth chain of them and of the join.
    pub auth: Pdus,
    /// Given where members are left out: the servers in the room before the join.
    pub servers: Option<Vec<String>>,
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

    /// What a server is told whose user has just joined by that event; with `omit`, without the members whom it does not
    /// need at once (Server-Server API, `send_join`, `omit_members`).
    ///
    /// # Errors
    /// [`Error::NotFound`] where the room or the event is not there.
    pub async fn state_for_join(
        &self,
        server: &ServerName,
        room: &RoomId,
        join: &EventId,
        omit: bool,
    ) -> Result<JoinState, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let no = self.inner.store.names().room(&snapshot, room.as_str()).await?.ok_or_else(missing)?;
        let guest = Guest::inside(&self.inner, &snapshot, server, no).await?;
        let root = guest.before(join).await?;
        let (no, event) = guest.by_id(join).await?.ok_or_else(missing)?;
        if omit && let Some(told) = guest.without_members(root, no, &event).await? {
            return Ok(told);
        }
        let WholeState { state, auth } = guest.whole(root).await?;
        Ok(JoinState { state, auth, servers: None })
    }
}

impl Guest<'_> {
    /// The state before an event of this room.
    async fn before(&self, id: &EventId) -> Result<Root, Error> {
        let (_, event) = self.by_id(id).await?.ok_or_else(missing)?;
        if event.header.partial {
            return Err(Error::NotFound("this server does not have the whole state of the room there"));
        }
        match event.header.standing {
            Standing::Accepted | Standing::SoftFailed => event.header.before.ok_or_else(missing),
            Standing::Rejected | Standing::Outlier => Err(missing()),
        }
    }

    async fn state_events(&self, root: Root) -> Result<Vec<EventNo>, Error> {
        let entries = self.inner.store.state(self.snapshot, self.room).entries(root).await?;
        Ok(entries.into_iter().map(|(_, no)| no).collect())
    }

    /// The state before a join without members; only those are in it by whom a room without a name is called. `None` where
    /// that would be all of them.
    async fn without_members(
        &self,
        root: Root,
        join: EventNo,
        event: &StoredEvent,
    ) -> Result<Option<JoinState>, Error> {
        let tree = self.inner.store.state(self.snapshot, self.room);
        let nos = |changes: Vec<Change>| changes.into_iter().filter_map(|change| change.after);
        let mut state: Vec<EventNo> = nos(tree.changes_of(Class::Others, Root::EMPTY, root).await?).collect();
        let members: Vec<EventNo> = nos(tree.changes_of(Class::Members, Root::EMPTY, root).await?).collect();
        let heroes = match self.is_named().await? {
            true => Vec::new(),
            false => self.heroes(&members, event.header.state_key.as_deref()).await?,
        };
        if heroes.len() == members.len() {
            return Ok(None);
        }
        state.extend(heroes);
        let told: RoaringBitmap = state.iter().map(|no| no.0).collect();
        let auth = self.chain(state.iter().copied().chain([join])).await? - told;
        let servers = Some(self.servers_before(event).await?);
        Ok(Some(JoinState { state: self.pdus(state), auth: self.pdus(auth.iter().map(EventNo)), servers }))
    }

    async fn is_named(&self) -> Result<bool, Error> {
        for (kind, field) in [("m.room.name", "name"), ("m.room.canonical_alias", "alias")] {
            let Some(event) = self.state_event(kind).await? else { continue };
            let content: serde_json::Value = serde_json::from_slice(event.content()).unwrap_or_default();
            if content[field].as_str().is_some_and(|name| !name.is_empty()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The members by whom a room is called that has no name (Client-Server API, `m.heroes`).
    async fn heroes(&self, members: &[EventNo], joiner: Option<&str>) -> Result<Vec<EventNo>, Error> {
        let some = &members[..members.len().min(LOOKED_AT)];
        let (mut here, mut gone) = (Vec::new(), Vec::new());
        for (no, event) in self.events(some).await? {
            if event.header.state_key.as_deref() == joiner {
                continue;
            }
            match membership_of(&event) {
                Membership::Join | Membership::Invite => here.push(no),
                _ => gone.push(no),
            }
        }
        let mut heroes = if here.is_empty() { gone } else { here };
        heroes.truncate(HEROES);
        Ok(heroes)
    }

    /// The servers that were in the room before a join.
    async fn servers_before(&self, join: &StoredEvent) -> Result<Vec<String>, Error> {
        let rows = self.snapshot.scan(&schema::ROOM_SERVERS, &self.room, Direction::Forward, MANY_SERVERS).await?;
        let joiner = join.header.sender.split_once(':').map_or("", |(_, server)| server);
        let before = rows.into_iter().filter(|((_, server), joined)| server != joiner || *joined > 1);
        Ok(before.map(|((_, server), _)| server).collect())
    }

    async fn whole(&self, root: Root) -> Result<WholeState, Error> {
        let state = self.state_events(root).await?;
        let auth = self.chain(state.iter().copied()).await?;
        Ok(WholeState { state: self.pdus(state), auth: self.pdus(auth.iter().map(EventNo)) })
    }
}
