//! Reading rooms (Client-Server API, "Getting events for a room", "Published room directory").

use std::time::Duration;

use axum::{Router, extract::State, routing::get};
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stoa_federation::Federation;
use stoa_http::{Body, Error, Json, JsonBytes, MaybeWho, Params, Result, Segments, Who, body};
use stoa_rooms::Rooms;
use stoa_store::Membership;
use stoa_view::{ContextRequest, DirectoryRequest, MembersRequest, MessagesRequest, Network, RoomEventFilter, View};

use crate::{Api, paths::Paths, sync::viewer};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/rooms/{roomId}/messages", get(messages))
        .v3("/rooms/{roomId}/context/{eventId}", get(context))
        .v3("/rooms/{roomId}/event/{eventId}", get(event))
        .v3("/rooms/{roomId}/state", get(state))
        .v3("/rooms/{roomId}/members", get(members))
        .v3("/rooms/{roomId}/joined_members", get(joined_members))
        .v3("/rooms/{roomId}/aliases", get(aliases))
        .v1("/rooms/{roomId}/timestamp_to_event", get(at_time))
        .v3("/publicRooms", get(directory).post(search_directory))
}

#[derive(Deserialize)]
struct MessagesQuery {
    from: Option<String>,
    to: Option<String>,
    dir: Dir,
    limit: Option<u64>,
    filter: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
enum Dir {
    #[serde(rename = "b")]
    Backward,
    #[serde(rename = "f")]
    Forward,
}

#[derive(Deserialize)]
struct ContextQuery {
    limit: Option<u64>,
    filter: Option<String>,
}

#[derive(Deserialize)]
struct MembersQuery {
    at: Option<String>,
    membership: Option<String>,
    not_membership: Option<String>,
}

#[derive(Deserialize)]
struct Moment {
    ts: u64,
    dir: Dir,
}

#[derive(Deserialize)]
pub(crate) struct StateQuery {
    format: Option<String>,
}

/// How many times other servers are asked for more history before a page is as short as it is.
const PATIENCE: usize = 5;
/// How long a client waits for the members of a room that was just joined.
const FOR_MEMBERS: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct DirectoryQuery {
    limit: Option<u64>,
    since: Option<String>,
    server: Option<OwnedServerName>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DirectoryBody {
    limit: Option<u64>,
    since: Option<String>,
    filter: DirectoryFilter,
    third_party_instance_id: Option<String>,
    include_all_networks: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DirectoryFilter {
    generic_search_term: Option<String>,
    room_types: Option<Vec<Option<String>>>,
}

#[derive(Deserialize)]
struct Server {
    server: Option<OwnedServerName>,
}

fn filter(given: Option<&str>) -> Result<RoomEventFilter> {
    match given {
        None | Some("") => Ok(RoomEventFilter::default()),
        Some(json) => body::parse(json.as_bytes()).map_err(|error| Error::invalid_param(error.message)),
    }
}

fn membership(word: Option<&str>) -> Result<Option<Membership>> {
    let parse = |word| Membership::parse(word).ok_or_else(|| Error::invalid_param(format!("{word} is no membership")));
    word.map(parse).transpose()
}

/// Waits for all members of a room that was joined without them. Who is not in the room waits for nothing.
pub(crate) async fn whole(rooms: &Rooms, room: &RoomId, who: &Who) -> Result<()> {
    if rooms.partial(room).await.is_ok_and(|partial| partial.is_none()) {
        return Ok(());
    }
    let own = rooms.membership_outside(room, &who.user).await?;
    let joined = own.is_some_and(|own| own.membership == Membership::Join);
    match !joined || rooms.wait_whole(room, FOR_MEMBERS).await? {
        true => Ok(()),
        false => Err(stoa_rooms::Error::Partial.into()),
    }
}

/// `GET /_matrix/client/v3/rooms/{roomId}/messages`
async fn messages(
    who: Who,
    State(view): State<View>,
    State(federation): State<Federation>,
    Segments(room): Segments<OwnedRoomId>,
    Params(query): Params<MessagesQuery>,
) -> Result<JsonBytes> {
    let mut request = MessagesRequest {
        viewer: viewer(&who),
        room,
        over_gaps: false,
        from: query.from,
        to: query.to,
        backward: query.dir == Dir::Backward,
        limit: query.limit,
        filter: filter(query.filter.as_deref())?,
    };
    // Each time other servers may give a hundred events more.
    for _ in 0..PATIENCE {
        let page = view.messages(&request).await?;
        let Some(depth) = page.gap else { return Ok(JsonBytes(page.body.into())) };
        if !federation.backfill(&request.room, depth).await? {
            break;
        }
    }
    request.over_gaps = true;
    Ok(JsonBytes(view.messages(&request).await?.body.into()))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}`
async fn context(
    who: Who,
    State(view): State<View>,
    Segments((room, event)): Segments<(OwnedRoomId, OwnedEventId)>,
    Params(query): Params<ContextQuery>,
) -> Result<JsonBytes> {
    let filter = filter(query.filter.as_deref())?;
    let request = ContextRequest { viewer: viewer(&who), room, limit: query.limit, filter };
    Ok(JsonBytes(view.context(&request, &event).await?.into()))
}

/// `GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event`
async fn at_time(
    who: Who,
    State(view): State<View>,
    State(federation): State<Federation>,
    Segments(room): Segments<OwnedRoomId>,
    Params(Moment { ts, dir }): Params<Moment>,
) -> Result<Json<Value>> {
    let (viewer, backward) = (viewer(&who), dir == Dir::Backward);
    let mut found = view.event_near(&viewer, &room, ts, backward).await?;
    // Where history is missing, others may have one that is closer: it is fetched, and then judged here.
    let held = found.event.as_ref().map(|(_, ts)| *ts);
    if found.gap && federation.history_near(&room, ts, backward, held).await? {
        found = view.event_near(&viewer, &room, ts, backward).await?;
    }
    let (id, ts) = found.event.ok_or_else(|| Error::not_found("There is no event in that direction"))?;
    Ok(Json(json!({ "event_id": id, "origin_server_ts": ts })))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}`
async fn event(
    who: Who,
    State(view): State<View>,
    Segments((room, event)): Segments<(OwnedRoomId, OwnedEventId)>,
) -> Result<JsonBytes> {
    Ok(JsonBytes(view.event(&viewer(&who), &room, &event).await?.into()))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state`
async fn state(
    who: Who,
    State(view): State<View>,
    State(rooms): State<Rooms>,
    Segments(room): Segments<OwnedRoomId>,
) -> Result<JsonBytes> {
    whole(&rooms, &room, &who).await?;
    Ok(JsonBytes(view.state(&viewer(&who), &room).await?.into()))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
pub(crate) async fn state_event(
    who: Who,
    State(view): State<View>,
    State(rooms): State<Rooms>,
    Segments((room, kind, key)): Segments<(OwnedRoomId, String, String)>,
    Params(query): Params<StateQuery>,
) -> Result<JsonBytes> {
    let format = match query.format.as_deref() {
        None | Some("content") => false,
        Some("event") => true,
        Some(_) => return Err(Error::invalid_param("format is `content` or `event`")),
    };
    let viewer = viewer(&who);
    let found = match view.state_event(&viewer, &room, &kind, &key, format).await {
        // A member whom we may only not know yet.
        Err(stoa_view::Error::NotFound(_)) if kind == "m.room.member" => {
            whole(&rooms, &room, &who).await?;
            view.state_event(&viewer, &room, &kind, &key, format).await
        }
        found => found,
    };
    Ok(JsonBytes(found?.into()))
}

/// The same with an empty state key, which paths may leave out.
pub(crate) async fn state_event_without_key(
    who: Who,
    view: State<View>,
    rooms: State<Rooms>,
    Segments((room, kind)): Segments<(OwnedRoomId, String)>,
    query: Params<StateQuery>,
) -> Result<JsonBytes> {
    state_event(who, view, rooms, Segments((room, kind, String::new())), query).await
}

/// `GET /_matrix/client/v3/rooms/{roomId}/members`
async fn members(
    who: Who,
    State(view): State<View>,
    State(rooms): State<Rooms>,
    Segments(room): Segments<OwnedRoomId>,
    Params(query): Params<MembersQuery>,
) -> Result<JsonBytes> {
    whole(&rooms, &room, &who).await?;
    let request = MembersRequest {
        at: query.at,
        membership: membership(query.membership.as_deref())?,
        not_membership: membership(query.not_membership.as_deref())?,
    };
    Ok(JsonBytes(view.members(&viewer(&who), &room, &request).await?.into()))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/joined_members`
async fn joined_members(
    who: Who,
    State(view): State<View>,
    State(rooms): State<Rooms>,
    Segments(room): Segments<OwnedRoomId>,
) -> Result<JsonBytes> {
    whole(&rooms, &room, &who).await?;
    Ok(JsonBytes(view.joined_members(&viewer(&who), &room).await?.into()))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/aliases`: to those who may see the room's state.
async fn aliases(
    who: Who,
    State(view): State<View>,
    State(rooms): State<Rooms>,
    Segments(room): Segments<OwnedRoomId>,
) -> Result<JsonBytes> {
    view.state(&viewer(&who), &room).await?;
    let aliases = json!({ "aliases": rooms.aliases(&room).await? });
    Ok(JsonBytes(aliases.to_string().into()))
}

/// A page of the directory of another server, if one is asked for.
async fn elsewhere(
    federation: &Federation,
    server: Option<&OwnedServerName>,
    request: Value,
) -> Result<Option<JsonBytes>> {
    match server {
        Some(server) if server != federation.server() => {
            let page = federation.public_rooms(server, &request).await?;
            Ok(Some(JsonBytes(page.to_string().into())))
        }
        _ => Ok(None),
    }
}

/// `GET /_matrix/client/v3/publicRooms`. Needs no token.
async fn directory(
    _: MaybeWho,
    State(view): State<View>,
    State(federation): State<Federation>,
    Params(query): Params<DirectoryQuery>,
) -> Result<JsonBytes> {
    let mut request = Map::new();
    request.extend(query.limit.map(|limit| ("limit".to_owned(), limit.into())));
    request.extend(query.since.clone().map(|since| ("since".to_owned(), since.into())));
    if let Some(page) = elsewhere(&federation, query.server.as_ref(), request.into()).await? {
        return Ok(page);
    }
    let request = DirectoryRequest { limit: query.limit, since: query.since, ..DirectoryRequest::default() };
    Ok(JsonBytes(view.directory(&request).await?.into()))
}

/// `POST /_matrix/client/v3/publicRooms`
async fn search_directory(
    _: Who,
    State(view): State<View>,
    State(federation): State<Federation>,
    Params(query): Params<Server>,
    Body(body): Body<Map<String, Value>>,
) -> Result<JsonBytes> {
    let request: DirectoryBody =
        serde_json::from_value(Value::Object(body.clone())).map_err(|why| Error::bad_json(why.to_string()))?;
    if let Some(page) = elsewhere(&federation, query.server.as_ref(), body.into()).await? {
        return Ok(page);
    }
    let request = DirectoryRequest {
        limit: request.limit,
        since: request.since,
        term: request.filter.generic_search_term,
        room_types: request.filter.room_types,
        network: Network::named(request.third_party_instance_id, request.include_all_networks),
    };
    Ok(JsonBytes(view.directory(&request).await?.into()))
}
