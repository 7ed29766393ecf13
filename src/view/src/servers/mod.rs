//! What another server may read: the only place that decides it (Server-Server API, "Room State Resolution", "Backfilling and
//! retrieving missing events", "Retrieving events").
//!
//! A server reads of a room while one of its users is joined and the room's ACL admits it. What none of its users could see
//! goes out redacted, so that the graph holds together. Whether a room or an event exists is not told to anybody else.

mod graph;
mod pdus;
mod seen;
mod spaces;
mod state;
mod time;

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use stoa_event::{
    acl::ServerAcl,
    ids::{EventId, RoomId, RoomVersionId, ServerName},
    version::Rules,
    visible::{HistoryVisibility, Membership},
};
use stoa_store::{
    Direction, EventNo, RoomNo, Snapshot,
    rows::{
        events::{Standing, StoredEvent},
        rooms::Head,
    },
    schema,
};

use self::seen::{Look, Sight};
pub use self::{
    graph::MissingRequest,
    pdus::Pdus,
    state::{JoinState, StateIds, WholeState},
};
use crate::{Error, Inner, View};

/// How many events are read at once.
const BATCH: usize = 256;
/// How many servers of a room are named at most.
const MANY_SERVERS: usize = 10_000;

/// A room in which a server may read.
pub(crate) struct Guest<'a> {
    inner: &'a Inner,
    snapshot: &'a Snapshot,
    room: RoomNo,
    head: Head,
    rules: Rules,
    sight: Sight,
}

impl View {
    /// Comes to a room for another server; refused where the server has no joined user there, or the ACL does not admit it.
    async fn guest<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        server: &ServerName,
        room: &RoomId,
    ) -> Result<Guest<'a>, Error> {
        let no = self.inner.store.names().room(snapshot, room.as_str()).await?.ok_or_else(outside)?;
        Guest::open(&self.inner, snapshot, server, no).await
    }

    /// One event, as the bytes that its server signed, or redacted.
    ///
    /// # Errors
    /// [`Error::NotFound`] where it is not there, or not for that server.
    pub async fn event_for_server(&self, server: &ServerName, id: &EventId) -> Result<Bytes, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let found = self.inner.store.events().by_id(&snapshot, id.as_str()).await?;
        let (place, event) = found.ok_or_else(missing)?;
        let mut guest = match Guest::open(&self.inner, &snapshot, server, place.room).await {
            Err(Error::Forbidden(_)) => return Err(missing()),
            guest => guest?,
        };
        match event.header.standing {
            Standing::Rejected => Err(missing()),
            Standing::Accepted | Standing::SoftFailed | Standing::Outlier => guest.show(&event).await,
        }
    }

    /// The servers that have joined users in a room.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn servers_in(&self, room: &RoomId) -> Result<Vec<String>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let Some(no) = self.inner.store.names().room(&snapshot, room.as_str()).await? else { return Ok(Vec::new()) };
        let rows = snapshot.scan(&schema::ROOM_SERVERS, &no, Direction::Forward, MANY_SERVERS).await?;
        let mut servers: BTreeSet<String> = rows.into_iter().map(|((_, server), _)| server).collect();
        if let Some(partial) = snapshot.get(&schema::PARTIAL_ROOMS, &no).await? {
            servers.extend(partial.servers);
        }
        Ok(servers.into_iter().collect())
    }
}

impl<'a> Guest<'a> {
    async fn open(
        inner: &'a Inner,
        snapshot: &'a Snapshot,
        server: &ServerName,
        room: RoomNo,
    ) -> Result<Guest<'a>, Error> {
        if !is_there(snapshot, room, server).await? {
            return Err(outside());
        }
        let guest = Guest::inside(inner, snapshot, server, room).await?;
        if !guest.is_admitted(server).await? {
            return Err(Error::Forbidden("the room's server ACL does not admit that server".into()));
        }
        Ok(guest)
    }

    /// The room itself, without asking whether the server may read there.
    async fn inside(
        inner: &'a Inner,
        snapshot: &'a Snapshot,
        server: &ServerName,
        room: RoomNo,
    ) -> Result<Guest<'a>, Error> {
        let head = snapshot.get(&schema::ROOMS, &room).await?.ok_or_else(outside)?;
        let version = RoomVersionId::try_from(head.version.as_str()).ok();
        let rules = version.and_then(|version| Rules::of(&version));
        let rules = rules.ok_or(stoa_store::Error::Corrupt("a room has a version that is not known"))?;
        Ok(Guest { inner, snapshot, room, head, rules, sight: Sight::new(server) })
    }

    /// Whether the current ACL admits a server. A room without one, or with one that cannot be read, admits all.
    async fn is_admitted(&self, server: &ServerName) -> Result<bool, Error> {
        let event = self.state_event("m.room.server_acl").await?;
        Ok(event.and_then(|event| ServerAcl::parse(event.content()).ok()).is_none_or(|acl| acl.allows(server)))
    }

    /// A state event of the current state with an empty key.
    async fn state_event(&self, kind: &str) -> Result<Option<Arc<StoredEvent>>, Error> {
        let key = (self.room, kind.to_owned(), String::new());
        let Some(key) = self.snapshot.get(&schema::STATE_KEYS, &key).await? else { return Ok(None) };
        let state = self.inner.store.state(self.snapshot, self.room);
        match state.get(self.head.root, key).await? {
            Some(no) => self.event(no).await,
            None => Ok(None),
        }
    }

    fn look(&self) -> Look<'a> {
        Look { store: &self.inner.store, snapshot: self.snapshot, room: self.room }
    }

    /// Whether the server may see an event.
    async fn sees(&mut self, event: &StoredEvent) -> Result<bool, Error> {
        let look = self.look();
        self.sight.sees(look, event).await
    }

    async fn is_world_readable(&mut self) -> Result<bool, Error> {
        let look = self.look();
        Ok(self.sight.visibility(look, self.head.root).await? == HistoryVisibility::WorldReadable)
    }

    /// Whether a user of the server is invited or joined now.
    async fn is_invited(&mut self) -> Result<bool, Error> {
        let look = self.look();
        Ok(self.sight.membership(look, self.head.root).await? >= Membership::Invited)
    }

    async fn event(&self, no: EventNo) -> Result<Option<Arc<StoredEvent>>, Error> {
        Ok(self.inner.store.events().get(self.snapshot, self.room, no).await?)
    }

    /// An event of this room by its id.
    async fn by_id(&self, id: &EventId) -> Result<Option<(EventNo, Arc<StoredEvent>)>, Error> {
        let found = self.inner.store.events().by_id(self.snapshot, id.as_str()).await?;
        Ok(found.filter(|(place, _)| place.room == self.room).map(|(place, event)| (place.event, event)))
    }

    /// An event as the server may see it.
    async fn show(&mut self, event: &StoredEvent) -> Result<Bytes, Error> {
        if self.sees(event).await? {
            return Ok(event.json.clone());
        }
        let redacted = stoa_event::redact::redact(&event.json, &self.rules);
        Ok(redacted.map_err(|_| stoa_store::Error::Corrupt("a stored event cannot be redacted"))?.into())
    }
}

/// Whether a server has joined users in a room, as far as we know; where not all members are known, as we were told.
async fn is_there(snapshot: &Snapshot, room: RoomNo, server: &ServerName) -> Result<bool, Error> {
    if snapshot.has(&schema::ROOM_SERVERS, &(room, server.to_string())).await? {
        return Ok(true);
    }
    let partial = snapshot.get(&schema::PARTIAL_ROOMS, &room).await?;
    Ok(partial.is_some_and(|partial| partial.servers.iter().any(|name| name == server.as_str())))
}

/// What everybody hears who is not in the room, whether it exists or not.
fn outside() -> Error {
    Error::Forbidden("the server is not in the room".into())
}

/// What is said of an event that is not there, or not for that server.
fn missing() -> Error {
    Error::NotFound("there is no such event")
}
