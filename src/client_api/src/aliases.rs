//! Room aliases and whether a room is listed (Client-Server API, "Room aliases", "Published room directory").

use axum::{Router, extract::State, routing::get};
use ruma_common::{OwnedRoomAliasId, OwnedRoomId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stoa_accounts::Accounts;
use stoa_federation::Federation;
use stoa_http::{Body, Empty, Error, Json, Result, Segments, Who};
use stoa_notify::appservice::Appservices;
use stoa_rooms::Rooms;

use crate::{Api, appservices, paths::Paths};

/// How many servers an answer names.
const MANY_SERVERS: usize = 50;

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/directory/room/{roomAlias}", get(resolve).put(create).delete(delete))
        .v3("/directory/list/room/{roomId}", get(listed).put(set_listed))
}

#[derive(Deserialize)]
struct RoomIdBody {
    room_id: OwnedRoomId,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Visibility {
    #[default]
    Public,
    Private,
}

#[derive(Deserialize, Serialize)]
pub(crate) struct Listing {
    #[serde(default)]
    visibility: Visibility,
}

impl Listing {
    /// Whether everybody is shown the room.
    pub(crate) fn is_public(&self) -> bool {
        matches!(self.visibility, Visibility::Public)
    }
}

/// `GET /_matrix/client/v3/directory/room/{roomAlias}`. Needs no token.
async fn resolve(
    State(rooms): State<Rooms>,
    State(federation): State<Federation>,
    State(services): State<Appservices>,
    Segments(alias): Segments<OwnedRoomAliasId>,
) -> Result<Json<Value>> {
    if alias.server_name() != rooms.server() {
        let (room_id, servers) = federation.resolve_alias(&alias).await?;
        return Ok(Json(json!({ "room_id": room_id, "servers": servers })));
    }
    let room_id = appservices::resolve(&rooms, &services, &alias).await?;
    // Ourselves first: that we know the alias is certain.
    let mut servers = vec![rooms.server().to_owned()];
    servers.extend(rooms.servers(&room_id).await?.into_iter().filter(|server| server != rooms.server()));
    servers.truncate(MANY_SERVERS);
    Ok(Json(json!({ "room_id": room_id, "servers": servers })))
}

/// `PUT /_matrix/client/v3/directory/room/{roomAlias}`
async fn create(
    who: Who,
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    Segments(alias): Segments<OwnedRoomAliasId>,
    Body(body): Body<RoomIdBody>,
) -> Result<Empty> {
    accounts.may_have_alias(&who, alias.as_str())?;
    match rooms.create_alias(&alias, &body.room_id, &who.user).await {
        Err(error @ stoa_rooms::Error::AliasTaken) => {
            Err(Error::new(http::StatusCode::CONFLICT, "M_UNKNOWN", error.to_string()))
        }
        other => Ok(other.map(|()| Empty {})?),
    }
}

/// `DELETE /_matrix/client/v3/directory/room/{roomAlias}`
async fn delete(
    who: Who,
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    Segments(alias): Segments<OwnedRoomAliasId>,
) -> Result<Empty> {
    // An administrator may take away what a service left behind.
    if !who.admin {
        accounts.may_have_alias(&who, alias.as_str())?;
    }
    // What is in its namespace is a service's to manage.
    rooms.delete_alias(&alias, &who.user, who.admin || who.service.is_some()).await?;
    Ok(Empty {})
}

/// `GET /_matrix/client/v3/directory/list/room/{roomId}`. Needs no token.
async fn listed(State(rooms): State<Rooms>, Segments(room): Segments<OwnedRoomId>) -> Result<Json<Listing>> {
    let visibility = if rooms.is_listed(&room).await? { Visibility::Public } else { Visibility::Private };
    Ok(Json(Listing { visibility }))
}

/// `PUT /_matrix/client/v3/directory/list/room/{roomId}`
async fn set_listed(
    who: Who,
    State(rooms): State<Rooms>,
    Segments(room): Segments<OwnedRoomId>,
    Body(body): Body<Listing>,
) -> Result<Empty> {
    rooms.set_listed(&room, &who.user, who.admin, body.is_public()).await?;
    Ok(Empty {})
}
