//! Reading rooms (Client-Server API, "Getting events for a room", "Published room directory").

use axum::{Router, extract::State, routing::get};
use ruma_common::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use stoa_http::{Body, Error, JsonBytes, MaybeWho, Params, Result, Segments, Who, body};
use stoa_rooms::Rooms;
use stoa_store::Membership;
use stoa_view::{ContextRequest, DirectoryRequest, MembersRequest, MessagesRequest, RoomEventFilter, View};

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
pub(crate) struct StateQuery {
    format: Option<String>,
}

#[derive(Deserialize)]
struct DirectoryQuery {
    limit: Option<u64>,
    since: Option<String>,
    server: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DirectoryBody {
    limit: Option<u64>,
    since: Option<String>,
    filter: DirectoryFilter,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DirectoryFilter {
    generic_search_term: Option<String>,
    room_types: Option<Vec<Option<String>>>,
}

#[derive(Deserialize)]
struct Server {
    server: Option<String>,
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

/// `GET /_matrix/client/v3/rooms/{roomId}/messages`
async fn messages(
    who: Who,
    State(view): State<View>,
    Segments(room): Segments<OwnedRoomId>,
    Params(query): Params<MessagesQuery>,
) -> Result<JsonBytes> {
    let request = MessagesRequest {
        viewer: viewer(&who),
        room,
        from: query.from,
        to: query.to,
        backward: query.dir == Dir::Backward,
        limit: query.limit,
        filter: filter(query.filter.as_deref())?,
    };
    Ok(JsonBytes(view.messages(&request).await?.into()))
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

/// `GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}`
async fn event(
    who: Who,
    State(view): State<View>,
    Segments((room, event)): Segments<(OwnedRoomId, OwnedEventId)>,
) -> Result<JsonBytes> {
    Ok(JsonBytes(view.event(&viewer(&who), &room, &event).await?.into()))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state`
async fn state(who: Who, State(view): State<View>, Segments(room): Segments<OwnedRoomId>) -> Result<JsonBytes> {
    Ok(JsonBytes(view.state(&viewer(&who), &room).await?.into()))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
pub(crate) async fn state_event(
    who: Who,
    State(view): State<View>,
    Segments((room, kind, key)): Segments<(OwnedRoomId, String, String)>,
    Params(query): Params<StateQuery>,
) -> Result<JsonBytes> {
    let whole = match query.format.as_deref() {
        None | Some("content") => false,
        Some("event") => true,
        Some(_) => return Err(Error::invalid_param("format is `content` or `event`")),
    };
    Ok(JsonBytes(view.state_event(&viewer(&who), &room, &kind, &key, whole).await?.into()))
}

/// The same with an empty state key, which paths may leave out.
pub(crate) async fn state_event_without_key(
    who: Who,
    view: State<View>,
    Segments((room, kind)): Segments<(OwnedRoomId, String)>,
    query: Params<StateQuery>,
) -> Result<JsonBytes> {
    state_event(who, view, Segments((room, kind, String::new())), query).await
}

/// `GET /_matrix/client/v3/rooms/{roomId}/members`
async fn members(
    who: Who,
    State(view): State<View>,
    Segments(room): Segments<OwnedRoomId>,
    Params(query): Params<MembersQuery>,
) -> Result<JsonBytes> {
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
    Segments(room): Segments<OwnedRoomId>,
) -> Result<JsonBytes> {
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
    let aliases = serde_json::json!({ "aliases": rooms.aliases(&room).await? });
    Ok(JsonBytes(aliases.to_string().into()))
}

/// Other servers' directories come with federation.
fn own(rooms: &Rooms, server: Option<&str>) -> Result<()> {
    match server {
        Some(server) if server != rooms.server().as_str() => {
            Err(Error::not_found("This server does not federate yet, so it cannot ask others for their rooms"))
        }
        _ => Ok(()),
    }
}

/// `GET /_matrix/client/v3/publicRooms`. Needs no token.
async fn directory(
    _: MaybeWho,
    State(view): State<View>,
    State(rooms): State<Rooms>,
    Params(query): Params<DirectoryQuery>,
) -> Result<JsonBytes> {
    own(&rooms, query.server.as_deref())?;
    let request = DirectoryRequest { limit: query.limit, since: query.since, ..DirectoryRequest::default() };
    Ok(JsonBytes(view.directory(&request).await?.into()))
}

/// `POST /_matrix/client/v3/publicRooms`
async fn search_directory(
    _: Who,
    State(view): State<View>,
    State(rooms): State<Rooms>,
    Params(query): Params<Server>,
    Body(body): Body<DirectoryBody>,
) -> Result<JsonBytes> {
    own(&rooms, query.server.as_deref())?;
    let request = DirectoryRequest {
        limit: body.limit,
        since: body.since,
        term: body.filter.generic_search_term,
        room_types: body.filter.room_types,
    };
    Ok(JsonBytes(view.directory(&request).await?.into()))
}
