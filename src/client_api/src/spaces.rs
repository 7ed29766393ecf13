//! Spaces and room summaries (Client-Server API, "Spaces", "Room summary"): what this server knows itself, and what others
//! show of the rooms that it is not in.

use std::collections::{HashMap, HashSet};

use axum::{Router, extract::State, routing::get};
use ruma_common::{OwnedRoomAliasId, OwnedRoomId, OwnedServerName, RoomId};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stoa_federation::Federation;
use stoa_http::{Error, Json, JsonBytes, MaybeWho, Params, Result, Segments, Who};
use stoa_rooms::Rooms;
use stoa_view::{Doors, Glance, SpaceChild, View, Viewer};

use crate::{Api, paths::Paths, sync::viewer};

/// How many rooms one page has, if nothing is said, and at most.
const LIMIT: usize = 50;
const MOST: usize = 100;
/// How many rooms of a tree are walked for all its pages together.
const WALKED: usize = 5000;
/// How deep a tree is walked.
const DEPTH: usize = 20;
/// How many rooms other servers are asked about for one page.
const ASKED: usize = 50;

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v1("/rooms/{roomId}/hierarchy", get(hierarchy))
        .v1("/room_summary/{roomIdOrAlias}", get(summary))
        .unstable("/im.nheko.summary/summary/{roomIdOrAlias}", get(summary))
        .unstable("/im.nheko.summary/rooms/{roomIdOrAlias}/summary", get(summary))
}

#[derive(Deserialize)]
struct Query {
    #[serde(default)]
    suggested_only: bool,
    limit: Option<usize>,
    max_depth: Option<usize>,
    from: Option<String>,
}

#[derive(Deserialize)]
struct Servers {
    #[serde(default)]
    via: Vec<OwnedServerName>,
}

/// A walk through a space, depth first.
struct Walk<'a> {
    view: &'a View,
    federation: &'a Federation,
    viewer: Viewer,
    suggested_only: bool,
    max_depth: usize,
    /// What is still to be looked at: a room, and how deep it lies. The last comes first.
    ahead: Vec<(SpaceChild, usize)>,
    seen: HashSet<String>,
    /// What other servers told of rooms beside those that they were asked for.
    told: HashMap<String, Map<String, Value>>,
    /// Rooms that other servers would not show.
    closed: HashSet<String>,
    asked: usize,
}

impl Walk<'_> {
    /// The next room that who asks may see.
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        while let Some((child, depth)) = self.ahead.pop() {
            // A space may contain itself, and a room may be in several.
            if self.seen.len() >= WALKED || !self.seen.insert(child.room.clone()) {
                continue;
            }
            let server = self.federation.server();
            let glance = self.view.glance(server, Some(&self.viewer), &child.room, Some(self.suggested_only)).await?;
            let (summary, children) = match glance {
                Glance::Open(room) => (room.summary, room.children),
                Glance::Closed => continue,
                Glance::Elsewhere => match self.elsewhere(&child).await? {
                    Some(found) => found,
                    None => continue,
                },
            };
            if depth < self.max_depth {
                self.ahead.extend(children.into_iter().rev().map(|child| (child, depth + 1)));
            }
            return Ok(Some(summary));
        }
        Ok(None)
    }

    /// A room of other servers.
    async fn elsewhere(&mut self, child: &SpaceChild) -> Result<Option<(Vec<u8>, Vec<SpaceChild>)>> {
        let Ok(id) = RoomId::parse(&child.room) else { return Ok(None) };
        let told = self.told.remove(&child.room);
        // What is no space leads nowhere: what was told of it is enough.
        if let Some(mut room) = told.filter(|room| room.get("room_type").is_none_or(|kind| kind != "m.space")) {
            room.insert("children_state".into(), json!([]));
            return Ok(self.if_open(room).await?.map(|room| (room, Vec::new())));
        }
        if self.asked >= ASKED || self.closed.contains(&child.room) {
            return Ok(None);
        }
        self.asked += 1;
        let via: Vec<_> = child.via.iter().filter_map(|name| OwnedServerName::try_from(name.as_str()).ok()).collect();
        let Some(shown) = self.federation.shown(&id, &via, self.suggested_only).await? else { return Ok(None) };
        let Some(summary) = self.if_open(shown.room.clone()).await? else { return Ok(None) };
        self.closed.extend(shown.closed.iter().cloned());
        for child in &shown.children {
            if let Some(id) = child["room_id"].as_str() {
                self.told.insert(id.to_owned(), child.clone());
            }
        }
        Ok(Some((summary, children_of(&shown.room))))
    }

    async fn if_open(&self, room: Map<String, Value>) -> Result<Option<Vec<u8>>> {
        let open = is_open(self.view, Some(&self.viewer), &room).await?;
        Ok(open.then(|| Value::Object(room).to_string().into_bytes()))
    }
}

/// Whether somebody may see a room of which another server tells.
async fn is_open(view: &View, viewer: Option<&Viewer>, room: &Map<String, Value>) -> Result<bool> {
    let Ok(doors) = serde_json::from_value::<Doors>(Value::Object(room.clone())) else { return Ok(false) };
    Ok(view.may_glance(viewer, &doors).await?)
}

fn children_of(room: &Map<String, Value>) -> Vec<SpaceChild> {
    let events = room.get("children_state").and_then(Value::as_array).into_iter().flatten();
    let child = |event: &Value| {
        let via = event["content"]["via"].as_array()?.iter().filter_map(|name| name.as_str().map(str::to_owned));
        Some(SpaceChild { room: event["state_key"].as_str()?.to_owned(), via: via.collect() })
    };
    events.filter_map(child).collect()
}

/// A place in a walk: how many rooms were shown, and of which walk.
fn token(shown: usize, max_depth: usize, suggested_only: bool) -> String {
    format!("h{shown}_{max_depth}_{}", u8::from(suggested_only))
}

/// `GET /_matrix/client/v1/rooms/{roomId}/hierarchy`
async fn hierarchy(
    who: Who,
    State(view): State<View>,
    State(federation): State<Federation>,
    Segments(room): Segments<OwnedRoomId>,
    Params(query): Params<Query>,
) -> Result<JsonBytes> {
    if query.limit == Some(0) {
        return Err(Error::invalid_param("limit is greater than zero"));
    }
    let limit = query.limit.unwrap_or(LIMIT).min(MOST);
    let max_depth = query.max_depth.unwrap_or(DEPTH).min(DEPTH);
    let before = match &query.from {
        None => 0,
        Some(from) => {
            let shown = from.strip_prefix('h').and_then(|rest| rest.split('_').next()?.parse().ok());
            let same = shown.filter(|shown| token(*shown, max_depth, query.suggested_only) == *from);
            same.ok_or_else(|| {
                Error::invalid_param("from is no token of this walk; max_depth and suggested_only stay")
            })?
        }
    };
    let viewer = viewer(&who);
    let root = SpaceChild { room: room.to_string(), via: Vec::new() };
    let mut walk = Walk {
        view: &view,
        federation: &federation,
        viewer,
        suggested_only: query.suggested_only,
        max_depth,
        ahead: vec![(root, 0)],
        seen: HashSet::new(),
        told: HashMap::new(),
        closed: HashSet::new(),
        asked: 0,
    };
    let (mut rooms, mut shown) = (Vec::new(), 0);
    let mut next = None;
    while let Some(room) = walk.next().await? {
        shown += 1;
        if shown <= before {
            continue;
        }
        if rooms.len() == limit {
            next = Some(token(shown - 1, max_depth, query.suggested_only));
            break;
        }
        rooms.push(room);
    }
    if shown == 0 {
        return Err(Error::forbidden("You cannot look into this room"));
    }
    Ok(JsonBytes(page(&rooms, next).into()))
}

fn page(rooms: &[Vec<u8>], next: Option<String>) -> Vec<u8> {
    let mut out = b"{\"rooms\":[".to_vec();
    out.extend_from_slice(&rooms.join(&b','));
    out.push(b']');
    if let Some(next) = next {
        out.extend_from_slice(format!(",\"next_batch\":\"{next}\"").as_bytes());
    }
    out.push(b'}');
    out
}

/// `GET /_matrix/client/v1/room_summary/{roomIdOrAlias}`. Needs no token for rooms into which everybody may look.
async fn summary(
    MaybeWho(who): MaybeWho,
    State(view): State<View>,
    State(rooms): State<Rooms>,
    State(federation): State<Federation>,
    Segments(name): Segments<String>,
    Params(Servers { mut via }): Params<Servers>,
) -> Result<Json<Value>> {
    let missing = || Error::not_found("There is no such room");
    let room = match OwnedRoomAliasId::try_from(name.as_str()) {
        Ok(alias) if alias.server_name() == rooms.server() => rooms.resolve_alias(&alias).await?,
        // Strangers do not make this server ask others.
        Ok(_) if who.is_none() => return Err(missing()),
        Ok(alias) => {
            let (room, servers) = federation.resolve_alias(&alias).await.map_err(|_| missing())?;
            via.extend(servers);
            room
        }
        Err(_) => OwnedRoomId::try_from(name)
            .map_err(|error| Error::invalid_param(format!("neither a room id nor an alias: {error}")))?,
    };
    let viewer = who.as_ref().map(viewer);
    let mut found = match view.glance(rooms.server(), viewer.as_ref(), room.as_str(), None).await? {
        Glance::Open(room) => serde_json::from_slice(&room.summary).map_err(Error::internal)?,
        Glance::Elsewhere if who.is_some() => {
            let shown = federation.shown(&room, &via, false).await?.ok_or_else(missing)?;
            if !is_open(&view, viewer.as_ref(), &shown.room).await? {
                return Err(missing());
            }
            shown.room.clone()
        }
        Glance::Elsewhere | Glance::Closed => return Err(missing()),
    };
    let found: &mut Map<String, Value> = &mut found;
    found.remove("children_state");
    if let Some(viewer) = &viewer {
        found.insert("membership".into(), view.membership(viewer, room.as_str()).await?.into());
    }
    Ok(Json(Value::Object(std::mem::take(found))))
}
