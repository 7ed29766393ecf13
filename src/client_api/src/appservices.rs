//! What only application services are served (Application Service API, "Client-Server API Extensions"), and what they are asked for
//! on behalf of others ("Querying").

use axum::{
    Router,
    extract::State,
    routing::{post, put},
};
use http::StatusCode;
use ruma_common::{OwnedRoomId, RoomAliasId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};
use stoa_http::{Body, Empty, Error, Json, MaybeService, Result, Segments, Who};
use stoa_notify::appservice::{self, Appservices, instance_id};
use stoa_rooms::Rooms;

use crate::{Api, aliases::Listing, paths::Paths};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v1("/appservice/{appserviceId}/ping", post(ping))
        .unstable("/fi.mau.msc2659/appservice/{appserviceId}/ping", post(ping))
        .v3("/directory/list/appservice/{networkId}/{roomId}", put(list))
}

fn not_a_service() -> Error {
    Error::forbidden("Only application services may do that")
}

#[derive(Deserialize)]
struct Ping {
    transaction_id: Option<String>,
}

/// `POST /_matrix/client/v1/appservice/{appserviceId}/ping`. Bridges name as whom they ask even before that user is there.
async fn ping(
    MaybeService(service): MaybeService,
    who: Result<Who>,
    State(services): State<Appservices>,
    Segments(id): Segments<String>,
    Body(body): Body<Ping>,
) -> Result<Json<Value>> {
    let Some(service) = service else { return who.and(Err(not_a_service())) };
    if service.id != id {
        return Err(Error::forbidden("That is another application service"));
    }
    let took = services.ping(&service, body.transaction_id.as_deref()).await;
    Ok(Json(json!({ "duration_ms": took.map_err(unpinged)? })))
}

/// The errors of the ping, as its endpoint names them.
fn unpinged(error: appservice::Error) -> Error {
    use appservice::Error as E;
    let message = error.to_string();
    match error {
        E::NoUrl => Error::new(StatusCode::BAD_REQUEST, "M_URL_NOT_SET", message),
        E::Status { status, body } => {
            Error::new(StatusCode::BAD_GATEWAY, "M_BAD_STATUS", message).with("status", status).with("body", body)
        }
        E::Unreached(why) if appservice::is_late(&why) => {
            Error::new(StatusCode::GATEWAY_TIMEOUT, "M_CONNECTION_TIMEOUT", message)
        }
        E::Unreached(_) => Error::new(StatusCode::BAD_GATEWAY, "M_CONNECTION_FAILED", message),
        E::Store(error) => error.into(),
        E::View(error) => error.into(),
        E::Accounts(error) => error.into(),
    }
}

/// `PUT /_matrix/client/v3/directory/list/appservice/{networkId}/{roomId}`
async fn list(
    who: Who,
    State(rooms): State<Rooms>,
    Segments((network, room)): Segments<(String, OwnedRoomId)>,
    Body(body): Body<Listing>,
) -> Result<Empty> {
    let service = who.service.as_ref().ok_or_else(not_a_service)?;
    rooms.list_in_network(&room, &instance_id(&service.id, &network), body.is_public()).await?;
    Ok(Empty {})
}

/// The room of an alias of this server. Where there is none, the service that such aliases belong to is asked for it.
pub(crate) async fn resolve(rooms: &Rooms, services: &Appservices, alias: &RoomAliasId) -> Result<OwnedRoomId> {
    match rooms.resolve_alias(alias).await {
        Err(stoa_rooms::Error::NotFound(_)) if services.make_alias(alias.as_str()).await.map_err(unanswered)? => {
            Ok(rooms.resolve_alias(alias).await?)
        }
        other => Ok(other?),
    }
}

/// Has a user of this server made by the service that such names belong to, where there is none.
pub(crate) async fn meet(services: &Appservices, user: &UserId) -> Result<()> {
    services.meet(user).await.map_err(unanswered)
}

/// "This should result in an HTTP status 408 on the client which initiated this request."
fn unanswered(error: appservice::Error) -> Error {
    match error {
        appservice::Error::Store(error) => error.into(),
        appservice::Error::View(error) => error.into(),
        appservice::Error::Accounts(error) => error.into(),
        error => Error::new(StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", error.to_string()),
    }
}
