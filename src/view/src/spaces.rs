//! Rooms as somebody sees them who might come in: the tree of a space, and the summary of a room (Client-Server API, "Spaces",
//! "Room summary").

use serde::Deserialize;
use stoa_event::ids::ServerName;
use stoa_store::{Membership, Snapshot, schema};

use crate::{Error, View, Viewer};

/// A child of a space.
#[derive(Clone, Debug)]
pub struct SpaceChild {
    /// The room.
    pub room: String,
    /// Servers that know it.
    pub via: Vec<String>,
}

/// A room that somebody may look at.
#[derive(Clone, Debug)]
pub struct SpaceRoom {
    /// What is shown of it: a JSON object.
    pub summary: Vec<u8>,
    /// Where it leads, if it is a space.
    pub children: Vec<SpaceChild>,
}

/// What there is to see of a room.
#[derive(Clone, Debug)]
pub enum Glance {
    /// This server is not in it: another one has to be asked.
    Elsewhere,
    /// It is not for who asks.
    Closed,
    /// This.
    Open(SpaceRoom),
}

/// What decides who may look at a room, of a summary that another server wrote.
#[derive(Clone, Debug, Deserialize)]
pub struct Doors {
    /// The room.
    pub room_id: String,
    /// Its join rule.
    #[serde(default)]
    pub join_rule: Option<String>,
    /// Whether everybody may read it.
    #[serde(default)]
    pub world_readable: bool,
    /// The rooms whose members may come in.
    #[serde(default)]
    pub allowed_room_ids: Vec<String>,
}

/// How many rooms are looked at that let in.
const ALLOWED: usize = 100;

impl View {
    /// A room as somebody sees it who might come in; nobody in particular, if no viewer is given. `children` says whether its
    /// `children_state` is wanted, and whether only what it suggests.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn glance(
        &self,
        server: &ServerName,
        viewer: Option<&Viewer>,
        room: &str,
        children: Option<bool>,
    ) -> Result<Glance, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let Some(mut known) = self.known(&snapshot, server, room).await? else { return Ok(Glance::Elsewhere) };
        let doors = known.doors(room).await?;
        if !self.may_look(&snapshot, viewer, &doors).await? {
            return Ok(Glance::Closed);
        }
        let Some(suggested_only) = children else {
            return Ok(Glance::Open(SpaceRoom {
                summary: self.summary(&snapshot, &known, None).await?,
                children: vec![],
            }));
        };
        let events = known.children(suggested_only).await?;
        let children = events.iter().filter_map(|event| {
            let room = event.header.state_key.clone()?;
            let content: Via = serde_json::from_slice(event.content()).ok()?;
            Some(SpaceChild { room, via: content.via })
        });
        let children = children.collect();
        Ok(Glance::Open(SpaceRoom { summary: self.summary(&snapshot, &known, Some(&events)).await?, children }))
    }

    /// Whether somebody may look at a room of which another server wrote this.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn may_glance(&self, viewer: Option<&Viewer>, doors: &Doors) -> Result<bool, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        self.may_look(&snapshot, viewer, doors).await
    }

    /// The membership of somebody in a room, as a word.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn membership(&self, viewer: &Viewer, room: &str) -> Result<&'static str, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        Ok(self.own(&snapshot, viewer, room).await?.unwrap_or(Membership::Leave).as_str())
    }

    async fn own(&self, snapshot: &Snapshot, viewer: &Viewer, room: &str) -> Result<Option<Membership>, Error> {
        let Some(no) = self.inner.store.names().room(snapshot, room).await? else { return Ok(None) };
        let own = snapshot.get(&schema::MEMBERSHIPS, &(viewer.user_no, no)).await?;
        Ok(own.map(|own| own.membership))
    }

    /// The conditions of `GET /hierarchy`: who is in, may come in, or may read without.
    async fn may_look(&self, snapshot: &Snapshot, viewer: Option<&Viewer>, doors: &Doors) -> Result<bool, Error> {
        let own = match viewer {
            Some(viewer) => self.own(snapshot, viewer, &doors.room_id).await?,
            None => None,
        };
        let rule = doors.join_rule.as_deref().unwrap_or("public");
        match own {
            _ if doors.world_readable => return Ok(true),
            Some(Membership::Join | Membership::Invite) => return Ok(true),
            Some(Membership::Ban) => return Ok(false),
            _ if matches!(rule, "public" | "knock" | "knock_restricted") => return Ok(true),
            _ if rule != "restricted" => return Ok(false),
            _ => {}
        }
        let Some(viewer) = viewer else { return Ok(false) };
        for allowed in doors.allowed_room_ids.iter().take(ALLOWED) {
            if self.own(snapshot, viewer, allowed).await? == Some(Membership::Join) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[derive(Deserialize)]
struct Via {
    via: Vec<String>,
}
