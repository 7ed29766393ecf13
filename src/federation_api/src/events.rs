//! Events, history and state (Server-Server API, "Backfilling and retrieving missing events", "Retrieving events").

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use ruma_common::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use stoa_federation::Federation;
use stoa_http::{Body, Error, Params, Result, Segments, origin::Origin};
use stoa_store::Env;
use stoa_view::{MissingRequest, View};

use crate::{Api, answer::Answer};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/_matrix/federation/v1/event/{eventId}", get(event))
        .route("/_matrix/federation/v1/backfill/{roomId}", get(backfill))
        .route("/_matrix/federation/v1/get_missing_events/{roomId}", post(missing))
        .route("/_matrix/federation/v1/timestamp_to_event/{roomId}", get(at_time))
}

/// Those that need the whole state.
pub(crate) fn large() -> Router<Api> {
    Router::new()
        .route("/_matrix/federation/v1/state/{roomId}", get(state))
        .route("/_matrix/federation/v1/state_ids/{roomId}", get(state_ids))
        .route("/_matrix/federation/v1/event_auth/{roomId}/{eventId}", get(event_auth))
}

#[derive(Deserialize)]
struct At {
    event_id: OwnedEventId,
}

#[derive(Deserialize)]
struct Backfill {
    #[serde(default)]
    v: Vec<OwnedEventId>,
    limit: u64,
}

#[derive(Deserialize)]
struct Missing {
    limit: Option<u64>,
    #[serde(default)]
    min_depth: u64,
    earliest_events: Vec<OwnedEventId>,
    latest_events: Vec<OwnedEventId>,
}

#[derive(Deserialize)]
struct Moment {
    ts: u64,
    dir: Dir,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
enum Dir {
    #[serde(rename = "b")]
    Backward,
    #[serde(rename = "f")]
    Forward,
}

/// The beginning of an answer in the form of a transaction.
fn transaction(federation: &Federation, env: &Env) -> Answer {
    Answer::new().value("origin", &federation.server()).value("origin_server_ts", &env.now_ms())
}

/// `GET /_matrix/federation/v1/event/{eventId}`
async fn event(
    Origin(origin): Origin,
    State(view): State<View>,
    State(federation): State<Federation>,
    State(env): State<Env>,
    Segments(id): Segments<OwnedEventId>,
) -> Result<Answer> {
    let event = view.event_for_server(&origin, &id).await?;
    Ok(transaction(&federation, &env).list("pdus", &[event]))
}

/// `GET /_matrix/federation/v1/state/{roomId}`
async fn state(
    Origin(origin): Origin,
    State(view): State<View>,
    Segments(room): Segments<OwnedRoomId>,
    Params(at): Params<At>,
) -> Result<Answer> {
    let whole = view.state_for_server(&origin, &room, &at.event_id).await?;
    Answer::new().events("pdus", whole.state).await?.events("auth_chain", whole.auth).await
}

/// `GET /_matrix/federation/v1/state_ids/{roomId}`
async fn state_ids(
    Origin(origin): Origin,
    State(view): State<View>,
    Segments(room): Segments<OwnedRoomId>,
    Params(at): Params<At>,
) -> Result<Answer> {
    let ids = view.state_ids_for_server(&origin, &room, &at.event_id).await?;
    Ok(Answer::new().value("pdu_ids", &ids.state).value("auth_chain_ids", &ids.auth))
}

/// `GET /_matrix/federation/v1/event_auth/{roomId}/{eventId}`
async fn event_auth(
    Origin(origin): Origin,
    State(view): State<View>,
    Segments((room, id)): Segments<(OwnedRoomId, OwnedEventId)>,
) -> Result<Answer> {
    Answer::new().events("auth_chain", view.auth_chain(&origin, &room, &id).await?).await
}

/// `GET /_matrix/federation/v1/backfill/{roomId}`
async fn backfill(
    Origin(origin): Origin,
    State(view): State<View>,
    State(federation): State<Federation>,
    State(env): State<Env>,
    Segments(room): Segments<OwnedRoomId>,
    Params(query): Params<Backfill>,
) -> Result<Answer> {
    if query.v.is_empty() {
        return Err(Error::missing_param("v names the events from which to go back"));
    }
    let events = view.backfill(&origin, &room, &query.v, query.limit).await?;
    Ok(transaction(&federation, &env).list("pdus", &events))
}

/// `POST /_matrix/federation/v1/get_missing_events/{roomId}`
async fn missing(
    Origin(origin): Origin,
    State(view): State<View>,
    Segments(room): Segments<OwnedRoomId>,
    Body(body): Body<Missing>,
) -> Result<Answer> {
    let request = MissingRequest {
        earliest: body.earliest_events,
        latest: body.latest_events,
        limit: body.limit,
        min_depth: body.min_depth,
    };
    Ok(Answer::new().list("events", &view.missing_events(&origin, &room, &request).await?))
}

/// `GET /_matrix/federation/v1/timestamp_to_event/{roomId}`
async fn at_time(
    Origin(origin): Origin,
    State(view): State<View>,
    Segments(room): Segments<OwnedRoomId>,
    Params(moment): Params<Moment>,
) -> Result<Answer> {
    let (id, ts) = view.event_at_time(&origin, &room, moment.ts, moment.dir == Dir::Backward).await?;
    Ok(Answer::new().value("event_id", &id).value("origin_server_ts", &ts))
}
