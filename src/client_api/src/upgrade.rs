//! Room upgrades (Client-Server API, "Room Upgrades").

use axum::{Router, extract::State, routing::post};
use ruma_common::{OwnedRoomId, OwnedUserId, RoomVersionId};
use serde::Deserialize;
use serde_json::{Value, json};
use stoa_accounts::Accounts;
use stoa_http::{Body, Error, Json, Result, Segments, Who};
use stoa_rooms::{Rooms, Upgrade};

use crate::{
    Api,
    membership::{move_along, profile},
    paths::Paths,
};

pub(crate) fn routes() -> Router<Api> {
    Router::new().v3("/rooms/{roomId}/upgrade", post(upgrade))
}

#[derive(Deserialize)]
struct Request {
    new_version: String,
    #[serde(default)]
    additional_creators: Vec<OwnedUserId>,
}

/// `POST /_matrix/client/v3/rooms/{roomId}/upgrade`
async fn upgrade(
    who: Who,
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    Segments(room): Segments<OwnedRoomId>,
    Body(body): Body<Request>,
) -> Result<Json<Value>> {
    let version = RoomVersionId::try_from(body.new_version)
        .map_err(|error| Error::new(http::StatusCode::BAD_REQUEST, "M_UNSUPPORTED_ROOM_VERSION", error.to_string()))?;
    let profile = profile(&accounts, &who.user).await?;
    let request = Upgrade { user: who.user.clone(), profile, version, additional_creators: body.additional_creators };
    let replacement = rooms.upgrade(&room, &request).await?;
    move_along(&rooms, &accounts, &who, &replacement).await;
    Ok(Json(json!({ "replacement_room": replacement })))
}
