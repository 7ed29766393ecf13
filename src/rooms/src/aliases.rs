//! Room aliases and the published directory (Client-Server API, "Room aliases", "Published room directory"), and the
//! checks of content that the law leaves to the user's own server.

use serde::Deserialize;
use stoa_event::ids::{OwnedRoomId, OwnedUserId, RoomAliasId, RoomId};
use stoa_store::{
    Direction, Snapshot, Tx, rows,
    rows::{events::Relation, rooms::Alias},
    schema,
};

use crate::{Error, Rooms, effects::relation, send::NewEvent, writer::Writer};

#[derive(Default, Deserialize)]
struct CanonicalAlias {
    #[serde(default)]
    alias: Option<String>,
    #[serde(default)]
    alt_aliases: Vec<String>,
}

impl CanonicalAlias {
    fn all(&self) -> impl Iterator<Item = &String> {
        self.alias.iter().filter(|alias| !alias.is_empty()).chain(&self.alt_aliases)
    }
}

/// How many reactions to one event are looked at for one that is there already.
const MANY_REACTIONS: usize = 1000;

/// The parent and the key of an annotation.
fn annotation(content: &[u8]) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "m.relates_to")]
        relates_to: RelatesTo,
    }
    #[derive(Deserialize)]
    struct RelatesTo {
        rel_type: String,
        event_id: String,
        key: String,
    }
    let Content { relates_to } = serde_json::from_slice(content).ok()?;
    (relates_to.rel_type == "m.annotation").then_some((relates_to.event_id, relates_to.key))
}

impl Rooms {
    /// Makes an alias of this server for a room.
    ///
    /// # Errors
    /// Where the alias is not of this server, is taken, or the room is not known.
    pub async fn create_alias(&self, alias: &RoomAliasId, room: &RoomId, user: &OwnedUserId) -> Result<(), Error> {
        let snapshot = self.inner.store.snapshot().await?;
        self.check_alias_is_free(&snapshot, alias).await?;
        let no = self.room_no(&snapshot, room).await?;
        let mut tx = Tx::new();
        tx.assert(&schema::ALIASES, &alias.to_string(), None);
        rows::rooms::put_alias(&mut tx, alias.as_str(), &Alias { room: no, creator: user.to_string() });
        self.inner.store.commit(tx).await.map(drop).map_err(|error| match error {
            stoa_store::Error::Conflict => Error::AliasTaken,
            other => other.into(),
        })
    }

    pub(crate) async fn check_alias_is_free(&self, snapshot: &Snapshot, alias: &RoomAliasId) -> Result<(), Error> {
        if alias.server_name() != self.inner.server {
            return Err(Error::InvalidParam(format!("{alias} is not of this server")));
        }
        match snapshot.has(&schema::ALIASES, &alias.to_string()).await? {
            true => Err(Error::AliasTaken),
            false => Ok(()),
        }
    }

    /// Removes an alias. Its maker may, a server administrator may, and who may set the room's canonical alias.
    ///
    /// # Errors
    /// Where there is no such alias or the user may not.
    pub async fn delete_alias(&self, alias: &RoomAliasId, user: &OwnedUserId, admin: bool) -> Result<(), Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let missing = Error::NotFound("there is no such alias");
        let row = snapshot.get(&schema::ALIASES, &alias.to_string()).await?.ok_or(missing)?;
        if row.creator != user.as_str() && !admin {
            let id = self.inner.store.names().room_id(&snapshot, row.room).await?;
            let id = OwnedRoomId::try_from(&*id).map_err(|_| Error::UnknownRoom)?;
            let may = |powers: &stoa_event::auth::Powers| powers.can_send(user, "m.room.canonical_alias", true);
            if !self.with_powers(&id, user, may).await.unwrap_or(false) {
                return Err(Error::forbidden("only who made the alias or may set the canonical alias can delete it"));
            }
        }
        let mut tx = Tx::new();
        rows::rooms::delete_alias(&mut tx, alias.as_str(), row.room);
        self.inner.store.commit(tx).await?;
        Ok(())
    }

    /// The room of an alias of this server.
    ///
    /// # Errors
    /// Where there is no such alias.
    pub async fn resolve_alias(&self, alias: &RoomAliasId) -> Result<OwnedRoomId, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let missing = || Error::NotFound("there is no such alias");
        let row = snapshot.get(&schema::ALIASES, &alias.to_string()).await?.ok_or_else(missing)?;
        let id = self.inner.store.names().room_id(&snapshot, row.room).await?;
        OwnedRoomId::try_from(&*id).map_err(|_| missing())
    }

    /// All aliases of a room.
    ///
    /// # Errors
    /// Where the room is not known.
    pub async fn aliases(&self, room: &RoomId) -> Result<Vec<String>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let no = self.room_no(&snapshot, room).await?;
        let rows = snapshot.scan(&schema::ROOM_ALIASES, &no, Direction::Forward, 10_000).await?;
        Ok(rows.into_iter().map(|((_, alias), ())| alias).collect())
    }

    /// Lists a room in the directory, or no longer. Who may set the canonical alias may.
    ///
    /// # Errors
    /// Where the room is not known or the user may not.
    pub async fn set_listed(&self, room: &RoomId, user: &OwnedUserId, admin: bool, listed: bool) -> Result<(), Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let no = self.room_no(&snapshot, room).await.map_err(|_| Error::NotFound("there is no such room"))?;
        let may = |powers: &stoa_event::auth::Powers| powers.can_send(user, "m.room.canonical_alias", true);
        if !admin && !self.with_powers(room, user, may).await? {
            return Err(Error::forbidden("listing the room needs the power to set its canonical alias"));
        }
        let mut tx = Tx::new();
        rows::rooms::put_listed(&mut tx, no, listed);
        self.inner.store.commit(tx).await?;
        Ok(())
    }

    /// Lists a room in the directory of a network of an application service (`instance_id`), or no longer.
    ///
    /// # Errors
    /// Where the room is not known.
    pub async fn list_in_network(&self, room: &RoomId, network: &str, listed: bool) -> Result<(), Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let no = self.room_no(&snapshot, room).await.map_err(|_| Error::NotFound("there is no such room"))?;
        let mut tx = Tx::new();
        rows::services::put_in_network(&mut tx, network, no, listed);
        self.inner.store.commit(tx).await?;
        Ok(())
    }

    /// Whether a room is listed in the directory.
    ///
    /// # Errors
    /// Where the room is not known.
    pub async fn is_listed(&self, room: &RoomId) -> Result<bool, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let no = self.room_no(&snapshot, room).await.map_err(|_| Error::NotFound("there is no such room"))?;
        Ok(snapshot.has(&schema::DIRECTORY, &no).await?)
    }

    /// What the law does not look at but clients rely on.
    pub(crate) async fn check_content(&self, writer: &mut Writer<'_>, new: &NewEvent) -> Result<(), Error> {
        match (new.kind.as_str(), &new.state_key) {
            ("m.room.canonical_alias", Some(_)) => self.check_canonical_alias(writer, new).await,
            ("m.reaction", None) => self.check_annotation(writer, new).await,
            (_, None) => self.check_start_of_thread(writer, new).await,
            _ => Ok(()),
        }
    }

    /// Threads begin at events that relate to nothing (Client-Server API, "Validation of `m.thread` relationships").
    async fn check_start_of_thread(&self, writer: &mut Writer<'_>, new: &NewEvent) -> Result<(), Error> {
        let Some(relates_to) = relation(&new.content).filter(|it| it.rel_type == rows::events::THREAD) else {
            return Ok(());
        };
        let Some(root) = writer.in_room(&relates_to.event_id).await? else { return Ok(()) };
        let root = self.inner.store.events().get(writer.snapshot, writer.room(), root).await?;
        match root.is_some_and(|root| root.header.relates_to.is_some()) {
            true => Err(Error::BadThread),
            false => Ok(()),
        }
    }

    /// The same annotation twice by one user is one too many (Client-Server API, "Event annotations and reactions").
    async fn check_annotation(&self, writer: &mut Writer<'_>, new: &NewEvent) -> Result<(), Error> {
        let Some((parent, key)) = annotation(&new.content) else { return Ok(()) };
        let Some(parent) = writer.in_room(&parent).await? else { return Ok(()) };
        let children = writer
            .snapshot
            .scan(&schema::RELATIONS, &(writer.room(), parent), Direction::Backward, MANY_REACTIONS)
            .await?;
        let own = |child: &Relation| child.rel_type == "m.annotation" && child.sender == new.sender.as_str();
        for (_, child) in children.into_iter().filter(|(_, child)| own(child)) {
            let event = self.inner.store.events().get(writer.snapshot, writer.room(), child.event).await?;
            let same = event.is_some_and(|event| {
                event.header.redacted_by.is_none() && annotation(event.content()).is_some_and(|(_, other)| other == key)
            });
            if same {
                return Err(Error::DuplicateAnnotation);
            }
        }
        Ok(())
    }

    /// New aliases in `m.room.canonical_alias` must point to the room (Client-Server API, `m.room.canonical_alias`).
    async fn check_canonical_alias(&self, writer: &mut Writer<'_>, new: &NewEvent) -> Result<(), Error> {
        let wanted: CanonicalAlias =
            serde_json::from_slice(&new.content).map_err(|error| Error::BadContent(error.to_string()))?;
        let current: CanonicalAlias = match writer.current(&new.kind, "").await? {
            Some((_, current)) => current.content_as().unwrap_or_default(),
            None => CanonicalAlias::default(),
        };
        let known: Vec<&String> = current.all().collect();
        for alias in wanted.all().filter(|alias| !known.contains(alias)) {
            if <&RoomAliasId>::try_from(alias.as_str()).is_err() {
                return Err(Error::InvalidParam(format!("{alias} is no room alias")));
            }
            let row = writer.snapshot.get(&schema::ALIASES, alias).await?;
            if row.is_none_or(|row| row.room != writer.room()) {
                return Err(Error::BadAlias(format!("{alias} does not point to this room")));
            }
        }
        Ok(())
    }
}
