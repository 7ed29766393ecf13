//! Users of other servers who join, leave and knock (Server-Server API, "Joining Rooms", "Knocking upon a room", "Leaving
//! Rooms (Rejecting Invites)").

use axum::{
    Router,
    extract::State,
    routing::{get, put},
};
use bytes::Bytes;
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomVersionId};
use serde::Deserialize;
use stoa_federation::{Accepted, Federation};
use stoa_http::{Params, Raw, Result, Segments, origin::Origin};

use crate::{Api, answer::Answer};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/_matrix/federation/v1/make_join/{roomId}/{userId}", get(make_join))
        .route("/_matrix/federation/v1/make_leave/{roomId}/{userId}", get(make_leave))
        .route("/_matrix/federation/v1/make_knock/{roomId}/{userId}", get(make_knock))
        .route("/_matrix/federation/v1/send_leave/{roomId}/{eventId}", put(first_leave))
        .route("/_matrix/federation/v2/send_leave/{roomId}/{eventId}", put(second_leave))
        .route("/_matrix/federation/v1/send_knock/{roomId}/{eventId}", put(send_knock))
}

/// Those that are answered with the whole state.
pub(crate) fn large() -> Router<Api> {
    Router::new()
        .route("/_matrix/federation/v1/send_join/{roomId}/{eventId}", put(first_join))
        .route("/_matrix/federation/v2/send_join/{roomId}/{eventId}", put(second_join))
}

type Place = Segments<(OwnedRoomId, OwnedEventId)>;

#[derive(Deserialize)]
struct Versions {
    #[serde(default)]
    ver: Vec<RoomVersionId>,
}

#[derive(Deserialize)]
struct Omit {
    #[serde(default)]
    omit_members: bool,
}

impl Versions {
    /// Servers that do not say it know version 1.
    fn known(self) -> Vec<RoomVersionId> {
        if self.ver.is_empty() { vec![RoomVersionId::V1] } else { self.ver }
    }
}

/// `GET /_matrix/federation/v1/make_join/{roomId}/{userId}`
async fn make_join(
    Origin(origin): Origin,
    State(federation): State<Federation>,
    Segments(of): Segments<(OwnedRoomId, OwnedUserId)>,
    Params(versions): Params<Versions>,
) -> Result<Answer> {
    template(&federation, &origin, of, "join", Some(versions.known())).await
}

/// `GET /_matrix/federation/v1/make_leave/{roomId}/{userId}`
async fn make_leave(
    Origin(origin): Origin,
    State(federation): State<Federation>,
    Segments(of): Segments<(OwnedRoomId, OwnedUserId)>,
) -> Result<Answer> {
    template(&federation, &origin, of, "leave", None).await
}

/// `GET /_matrix/federation/v1/make_knock/{roomId}/{userId}`
async fn make_knock(
    Origin(origin): Origin,
    State(federation): State<Federation>,
    Segments(of): Segments<(OwnedRoomId, OwnedUserId)>,
    Params(versions): Params<Versions>,
) -> Result<Answer> {
    template(&federation, &origin, of, "knock", Some(versions.known())).await
}

async fn template(
    federation: &Federation,
    origin: &OwnedServerName,
    (room, user): (OwnedRoomId, OwnedUserId),
    membership: &str,
    versions: Option<Vec<RoomVersionId>>,
) -> Result<Answer> {
    let made = federation.make(origin, &room, &user, membership, versions.as_deref()).await?;
    Ok(Answer::new().value("room_version", &made.version).value("event", &made.event))
}

async fn accept(
    Origin(origin): Origin,
    api: &Api,
    Segments((room, id)): Place,
    Raw(body): Raw,
    membership: &str,
) -> Result<Accepted> {
    Ok(api.federation.accept(&origin, &room, &id, body, membership).await?)
}

/// `PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}`
async fn second_join(
    origin: Origin,
    State(api): State<Api>,
    path: Place,
    Params(query): Params<Omit>,
    body: Raw,
) -> Result<Answer> {
    join(origin, &api, path, body, Answer::new(), query.omit_members).await
}

/// `PUT /_matrix/federation/v1/send_join/{roomId}/{eventId}`
async fn first_join(origin: Origin, State(api): State<Api>, path: Place, body: Raw) -> Result<Answer> {
    join(origin, &api, path, body, Answer::with_status(), false).await
}

/// `PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}`
async fn second_leave(origin: Origin, State(api): State<Api>, path: Place, body: Raw) -> Result<Answer> {
    accept(origin, &api, path, body, "leave").await.map(|_| Answer::new())
}

/// `PUT /_matrix/federation/v1/send_leave/{roomId}/{eventId}`
async fn first_leave(origin: Origin, State(api): State<Api>, path: Place, body: Raw) -> Result<Answer> {
    accept(origin, &api, path, body, "leave").await.map(|_| Answer::with_status())
}

async fn join(origin: Origin, api: &Api, path: Place, body: Raw, mut answer: Answer, omit: bool) -> Result<Answer> {
    let (Origin(server), Segments((room, id))) = (origin.clone(), path.clone());
    let accepted = accept(origin, api, path, body, "join").await?;
    let told = api.view.state_for_join(&server, &room, &id, omit).await?;
    answer = answer
        .value("origin", &api.federation.server())
        .value("members_omitted", &told.servers.is_some())
        .raw("event", accepted.event.json().clone());
    if let Some(servers) = told.servers {
        answer = answer.value("servers_in_room", &servers);
    }
    answer.events("state", told.state).await?.events("auth_chain", told.auth).await
}

/// `PUT /_matrix/federation/v1/send_knock/{roomId}/{eventId}`
async fn send_knock(origin: Origin, State(api): State<Api>, path: Place, body: Raw) -> Result<Answer> {
    let (Origin(server), Segments((room, _))) = (origin.clone(), path.clone());
    accept(origin, &api, path, body, "knock").await?;
    let shown: Vec<Bytes> = api.view.stripped_state(&server, &room).await?;
    Ok(Answer::new().list("knock_room_state", &shown))
}
