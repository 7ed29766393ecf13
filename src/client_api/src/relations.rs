//! What relates to an event (Client-Server API, "Relationships API").

use axum::{Router, extract::State, routing::get};
use ruma_common::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use stoa_http::{Error, JsonBytes, Params, Result, Segments, Who};
use stoa_view::{RelationsRequest, ThreadsRequest, View};

use crate::{Api, paths::Paths, sync::viewer};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v1("/rooms/{roomId}/relations/{eventId}", get(all))
        .v1("/rooms/{roomId}/relations/{eventId}/{relType}", get(of_type))
        .v1("/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}", get(of_types))
        .v1("/rooms/{roomId}/threads", get(threads))
}

#[derive(Deserialize)]
struct Query {
    dir: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<u64>,
    #[serde(default)]
    recurse: bool,
}

#[derive(Deserialize)]
struct ThreadsQuery {
    include: Option<String>,
    from: Option<String>,
    limit: Option<u64>,
}

async fn list(
    view: &View,
    who: &Who,
    room: OwnedRoomId,
    event: &OwnedEventId,
    (rel_type, kind): (Option<String>, Option<String>),
    query: Query,
) -> Result<JsonBytes> {
    let backward = match query.dir.as_deref() {
        None | Some("b") => true,
        Some("f") => false,
        Some(_) => return Err(Error::invalid_param("dir is `b` or `f`")),
    };
    let request = RelationsRequest {
        viewer: viewer(who),
        room,
        rel_type,
        kind,
        from: query.from,
        to: query.to,
        backward,
        limit: query.limit,
        recurse: query.recurse,
    };
    Ok(JsonBytes(view.relations(&request, event).await?.into()))
}

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}`
async fn all(
    State(view): State<View>,
    who: Who,
    Segments((room, event)): Segments<(OwnedRoomId, OwnedEventId)>,
    Params(query): Params<Query>,
) -> Result<JsonBytes> {
    list(&view, &who, room, &event, (None, None), query).await
}

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}`
async fn of_type(
    State(view): State<View>,
    who: Who,
    Segments((room, event, rel_type)): Segments<(OwnedRoomId, OwnedEventId, String)>,
    Params(query): Params<Query>,
) -> Result<JsonBytes> {
    list(&view, &who, room, &event, (Some(rel_type), None), query).await
}

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}`
async fn of_types(
    State(view): State<View>,
    who: Who,
    Segments((room, event, rel_type, kind)): Segments<(OwnedRoomId, OwnedEventId, String, String)>,
    Params(query): Params<Query>,
) -> Result<JsonBytes> {
    list(&view, &who, room, &event, (Some(rel_type), Some(kind)), query).await
}

/// `GET /_matrix/client/v1/rooms/{roomId}/threads`
async fn threads(
    State(view): State<View>,
    who: Who,
    Segments(room): Segments<OwnedRoomId>,
    Params(query): Params<ThreadsQuery>,
) -> Result<JsonBytes> {
    let participated = match query.include.as_deref() {
        None | Some("all") => false,
        Some("participated") => true,
        Some(_) => return Err(Error::invalid_param("include is `all` or `participated`")),
    };
    let request = ThreadsRequest { viewer: viewer(&who), room, participated, from: query.from, limit: query.limit };
    Ok(JsonBytes(view.threads(&request).await?.into()))
}
