//! Questions about aliases and profiles (Server-Server API, "Querying for information").

use axum::{Router, extract::State, routing::get};
use ruma_common::{OwnedRoomAliasId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stoa_accounts::Accounts;
use stoa_http::{Error, Json, Params, Result, origin::Origin};
use stoa_notify::appservice::{self, Appservices};
use stoa_rooms::Rooms;
use stoa_view::View;

use crate::Api;

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/_matrix/federation/v1/query/directory", get(directory))
        .route("/_matrix/federation/v1/query/profile", get(profile))
        .route("/_matrix/federation/v1/query/{queryType}", get(unknown))
}

#[derive(Deserialize)]
struct Alias {
    room_alias: OwnedRoomAliasId,
}

#[derive(Deserialize)]
struct Profile {
    user_id: OwnedUserId,
    field: Option<String>,
}

/// `GET /_matrix/federation/v1/query/directory`
async fn directory(
    _: Origin,
    State(rooms): State<Rooms>,
    State(view): State<View>,
    State(services): State<Appservices>,
    Params(query): Params<Alias>,
) -> Result<Json<Value>> {
    let room_id = match rooms.resolve_alias(&query.room_alias).await {
        // The service that such aliases belong to may make it.
        Err(stoa_rooms::Error::NotFound(_)) if made(services.make_alias(query.room_alias.as_str()).await) => {
            rooms.resolve_alias(&query.room_alias).await?
        }
        other => other?,
    };
    let us = rooms.server().to_string();
    let others = view.servers_in(&room_id).await?;
    let servers: Vec<String> = std::iter::once(us.clone()).chain(others.into_iter().filter(|it| *it != us)).collect();
    Ok(Json(json!({ "room_id": room_id, "servers": servers })))
}

/// `GET /_matrix/federation/v1/query/profile`
async fn profile(
    _: Origin,
    State(accounts): State<Accounts>,
    State(services): State<Appservices>,
    Params(query): Params<Profile>,
) -> Result<Json<Map<String, Value>>> {
    if query.user_id.server_name() != accounts.server_name() {
        return Err(Error::not_found("there is no such user"));
    }
    if let Err(why) = services.meet(&query.user_id).await {
        tracing::info!(%why, "an application service was asked in vain");
    }
    let mut fields = accounts.profile(&query.user_id).await?;
    if let Some(field) = &query.field {
        fields.retain(|name, _| name == field);
    }
    Ok(Json(fields))
}

/// Whether a service made what it was asked for. Who does not answer made nothing.
fn made(asked: Result<bool, appservice::Error>) -> bool {
    asked.unwrap_or_else(|why| {
        tracing::info!(%why, "an application service was asked in vain");
        false
    })
}

/// `GET /_matrix/federation/v1/query/{queryType}`
async fn unknown(_: Origin) -> Error {
    Error::not_found("this server does not answer questions of that type")
}
