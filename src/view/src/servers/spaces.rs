//! What another server is shown of rooms that it might join: spaces with their children, and the state that goes with a
//! knock (Server-Server API, "Spaces", "Knocking upon a room").

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use stoa_event::ids::{RoomId, ServerName};
use stoa_store::{
    Snapshot,
    rows::events::StoredEvent,
    state::{Class, Root},
};

use super::{Guest, is_there, missing};
use crate::{Error, View, json::Object, spaces::Doors};

/// How many children of a space are looked at.
const CHILDREN: usize = 100;
/// How many rooms a join rule may name that let people in.
const ALLOWED: usize = 100;
/// What is shown to who is not in a room.
const STRIPPED: [&str; 7] = [
    "m.room.create",
    "m.room.join_rules",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.canonical_alias",
    "m.room.encryption",
];

#[derive(Default, Deserialize)]
struct Child {
    #[serde(default)]
    via: Vec<String>,
    order: Option<String>,
    #[serde(default)]
    suggested: bool,
}

#[derive(Default, Deserialize)]
struct JoinRules {
    join_rule: String,
    #[serde(default)]
    allow: Vec<Allow>,
}

#[derive(Deserialize)]
struct Allow {
    room_id: Option<String>,
}

#[derive(Default, Deserialize)]
struct Encryption {
    algorithm: Option<String>,
}

#[derive(Default, Deserialize)]
struct Create {
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// A room with what decides who may come in.
pub(crate) struct Room<'a> {
    guest: Guest<'a>,
    rules: JoinRules,
}

impl View {
    /// A space and its children, as far as the server might come in.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the room is not known or the server has no way into it.
    pub async fn hierarchy_for_server(
        &self,
        server: &ServerName,
        room: &RoomId,
        suggested_only: bool,
    ) -> Result<Vec<u8>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let mut space = self.known(&snapshot, server, room.as_str()).await?.ok_or_else(missing_room)?;
        if !self.may_come(&snapshot, server, &mut space).await? {
            return Err(missing_room());
        }
        let children = space.children(suggested_only).await?;
        let (mut shown, mut closed) = (Vec::new(), Vec::new());
        for child in &children {
            let id = child.header.state_key.as_deref().unwrap_or_default();
            let Some(mut room) = self.known(&snapshot, server, id).await? else { continue };
            match self.may_come(&snapshot, server, &mut room).await? {
                true => shown.push(self.summary(&snapshot, &room, None).await?),
                false => closed.push(id),
            }
        }
        let mut out = Vec::new();
        let mut body = Object::new(&mut out);
        body.raw("room", &self.summary(&snapshot, &space, Some(&children)).await?);
        body.array("children", shown).strings("inaccessible_children", closed);
        body.end();
        Ok(out)
    }

    /// What who knocks is shown of a room.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the room is not known.
    pub async fn stripped_state(&self, server: &ServerName, room: &RoomId) -> Result<Vec<Bytes>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let no = self.inner.store.names().room(&snapshot, room.as_str()).await?.ok_or_else(missing)?;
        let guest = Guest::inside(&self.inner, &snapshot, server, no).await?;
        let mut shown = Vec::new();
        for kind in STRIPPED {
            shown.extend(guest.state_event(kind).await?.map(|event| Bytes::from(stripped(&event, false))));
        }
        Ok(shown)
    }

    /// A room in which we are.
    pub(crate) async fn known<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        server: &ServerName,
        id: &str,
    ) -> Result<Option<Room<'a>>, Error> {
        let Some(no) = self.inner.store.names().room(snapshot, id).await? else { return Ok(None) };
        if self.inner.store.who().local(no).is_empty() {
            return Ok(None);
        }
        let guest = Guest::inside(&self.inner, snapshot, server, no).await?;
        let rules = guest.state_event("m.room.join_rules").await?;
        let rules = rules.and_then(|event| serde_json::from_slice(event.content()).ok()).unwrap_or_default();
        Ok(Some(Room { guest, rules }))
    }

    /// Whether a server, or a user of it, could look into a room or join it.
    async fn may_come(&self, snapshot: &Snapshot, server: &ServerName, room: &mut Room<'_>) -> Result<bool, Error> {
        if !room.guest.is_admitted(server).await? {
            return Ok(false);
        }
        if matches!(room.rules.join_rule.as_str(), "public" | "knock" | "knock_restricted") {
            return Ok(true);
        }
        if is_there(snapshot, room.guest.room, server).await? || room.guest.is_world_readable().await? {
            return Ok(true);
        }
        for id in room.rules.allowed() {
            if let Some(no) = self.inner.store.names().room(snapshot, id).await?
                && is_there(snapshot, no, server).await?
            {
                return Ok(true);
            }
        }
        room.guest.is_invited().await
    }

    /// What is shown of a room, with the children that it names if they are given.
    pub(crate) async fn summary(
        &self,
        snapshot: &Snapshot,
        room: &Room<'_>,
        children: Option<&[Arc<StoredEvent>]>,
    ) -> Result<Vec<u8>, Error> {
        let guest = &room.guest;
        let entry = self.entry(snapshot, guest.room, &guest.head).await?;
        let mut out = Vec::new();
        let mut body = Object::new(&mut out);
        entry.fields(&mut body);
        body.str("room_version", &guest.head.version).strings("allowed_room_ids", room.rules.allowed());
        let encryption = guest.state_event("m.room.encryption").await?;
        let encryption = encryption.and_then(|event| serde_json::from_slice::<Encryption>(event.content()).ok());
        if let Some(algorithm) = encryption.and_then(|encryption| encryption.algorithm) {
            body.str("encryption", &algorithm);
        }
        if let Some(children) = children {
            body.array("children_state", children.iter().map(|child| stripped(child, true)));
        }
        body.end();
        Ok(out)
    }
}

impl JoinRules {
    /// The rooms whose members may come in.
    fn allowed(&self) -> impl Iterator<Item = &str> {
        let restricted = matches!(self.join_rule.as_str(), "restricted" | "knock_restricted");
        let all = self.allow.iter().filter(move |_| restricted);
        all.filter_map(|allow| allow.room_id.as_deref()).take(ALLOWED)
    }
}

impl Room<'_> {
    /// What decides who may look at it.
    pub(crate) async fn doors(&mut self, id: &str) -> Result<Doors, Error> {
        let rule = Some(self.rules.join_rule.as_str()).filter(|rule| !rule.is_empty());
        Ok(Doors {
            room_id: id.to_owned(),
            join_rule: Some(rule.unwrap_or("invite").to_owned()),
            world_readable: self.guest.is_world_readable().await?,
            allowed_room_ids: self.rules.allowed().map(str::to_owned).collect(),
        })
    }

    /// The children that a space names, in its order; what is no space leads nowhere.
    pub(crate) async fn children(&self, suggested_only: bool) -> Result<Vec<Arc<StoredEvent>>, Error> {
        let guest = &self.guest;
        let create = guest.state_event("m.room.create").await?;
        let create =
            create.and_then(|event| serde_json::from_slice::<Create>(event.content()).ok()).unwrap_or_default();
        if create.kind.as_deref() != Some("m.space") {
            return Ok(Vec::new());
        }
        let state = guest.inner.store.state(guest.snapshot, guest.room);
        let changes = state.changes_of(Class::Others, Root::EMPTY, guest.head.root).await?;
        let nos: Vec<_> = changes.iter().filter_map(|change| change.after).collect();
        let mut children = Vec::new();
        for batch in nos.chunks(super::BATCH) {
            for (_, event) in guest.events(batch).await? {
                if event.header.kind != "m.space.child" {
                    continue;
                }
                let Ok(child) = serde_json::from_slice::<Child>(event.content()) else { continue };
                if !child.via.is_empty() && (child.suggested || !suggested_only) {
                    // Children without an order come after those with one.
                    let order = child.order.filter(|order| is_order(order));
                    children.push(((order.is_none(), order, event.header.origin_server_ts), event));
                }
            }
        }
        children
            .sort_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.header.state_key.cmp(&other.header.state_key)));
        Ok(children.into_iter().map(|(_, event)| event).take(CHILDREN).collect())
    }
}

/// Client-Server API, "Ordering of children within a space": what is none counts as not there.
fn is_order(order: &str) -> bool {
    order.len() <= 50 && order.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn stripped(event: &StoredEvent, time: bool) -> Vec<u8> {
    let header = &event.header;
    let mut out = Vec::with_capacity(event.content().len() + 200);
    let mut object = Object::new(&mut out);
    object.str("type", &header.kind).str("state_key", header.state_key.as_deref().unwrap_or_default());
    object.str("sender", &header.sender).raw("content", event.content());
    if time {
        object.plain("origin_server_ts", header.origin_server_ts);
    }
    object.end();
    out
}

/// What is said of a room that is not there, or not for that server.
fn missing_room() -> Error {
    Error::NotFound("there is no such room")
}
