//! Account data and room tags (Client-Server API, "Client Config", "Room Tagging").

use axum::{Router, extract::State, routing::get};
use ruma_common::{OwnedRoomId, OwnedUserId};
use serde_json::{Map, Value, json};
use stoa_accounts::Accounts;
use stoa_http::{Body, Empty, Json, JsonBytes, Raw, Result, Segments, Who};

use crate::{Api, paths::Paths};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/user/{userId}/account_data/{type}", get(global).put(set_global))
        .v3("/user/{userId}/rooms/{roomId}/account_data/{type}", get(of_room).put(set_of_room))
        .v3("/user/{userId}/rooms/{roomId}/tags", get(tags))
        .v3("/user/{userId}/rooms/{roomId}/tags/{tag}", axum::routing::put(set_tag).delete(delete_tag))
}

/// `GET /_matrix/client/v3/user/{userId}/account_data/{type}`
async fn global(
    State(accounts): State<Accounts>,
    who: Who,
    Segments((user, kind)): Segments<(OwnedUserId, String)>,
) -> Result<JsonBytes> {
    Ok(JsonBytes(accounts.account_data(&who, &user, None, &kind).await?.into()))
}

/// `PUT /_matrix/client/v3/user/{userId}/account_data/{type}`
async fn set_global(
    State(accounts): State<Accounts>,
    who: Who,
    Segments((user, kind)): Segments<(OwnedUserId, String)>,
    Raw(json): Raw,
) -> Result<Empty> {
    accounts.set_account_data(&who, &user, None, &kind, &json).await?;
    Ok(Empty {})
}

/// `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
async fn of_room(
    State(accounts): State<Accounts>,
    who: Who,
    Segments((user, room, kind)): Segments<(OwnedUserId, OwnedRoomId, String)>,
) -> Result<JsonBytes> {
    Ok(JsonBytes(accounts.account_data(&who, &user, Some(&room), &kind).await?.into()))
}

/// `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
async fn set_of_room(
    State(accounts): State<Accounts>,
    who: Who,
    Segments((user, room, kind)): Segments<(OwnedUserId, OwnedRoomId, String)>,
    Raw(json): Raw,
) -> Result<Empty> {
    accounts.set_account_data(&who, &user, Some(&room), &kind, &json).await?;
    Ok(Empty {})
}

/// `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags`
async fn tags(
    State(accounts): State<Accounts>,
    who: Who,
    Segments((user, room)): Segments<(OwnedUserId, OwnedRoomId)>,
) -> Result<Json<Value>> {
    Ok(Json(json!({ "tags": accounts.tags(&who, &user, &room).await? })))
}

/// `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`
async fn set_tag(
    State(accounts): State<Accounts>,
    who: Who,
    Segments((user, room, tag)): Segments<(OwnedUserId, OwnedRoomId, String)>,
    Body(content): Body<Map<String, Value>>,
) -> Result<Empty> {
    accounts.set_tag(&who, &user, &room, &tag, Some(content)).await?;
    Ok(Empty {})
}

/// `DELETE /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`
async fn delete_tag(
    State(accounts): State<Accounts>,
    who: Who,
    Segments((user, room, tag)): Segments<(OwnedUserId, OwnedRoomId, String)>,
) -> Result<Empty> {
    accounts.set_tag(&who, &user, &room, &tag, None).await?;
    Ok(Empty {})
}
