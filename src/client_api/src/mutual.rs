//! Rooms that one shares with somebody (Client-Server API, "Mutual rooms").

use axum::{Router, extract::State, routing::get};
use ruma_common::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};
use stoa_http::{Error, Json, Params, Result, Who};
use stoa_view::View;

use crate::{Api, paths::Paths, sync::viewer};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v1("/mutual_rooms", get(mutual_rooms))
        .unstable("/uk.half-shot.msc2666/user/mutual_rooms", get(mutual_rooms))
}

#[derive(Deserialize)]
struct Query {
    user_id: OwnedUserId,
    from: Option<String>,
}

/// `GET /_matrix/client/v1/mutual_rooms`
async fn mutual_rooms(who: Who, State(view): State<View>, Params(query): Params<Query>) -> Result<Json<Value>> {
    if query.user_id.validate_strict().is_err() {
        return Err(Error::invalid_param("user_id is not written as user ids are"));
    }
    let found = view.mutual_rooms(&viewer(&who), &query.user_id, query.from.as_deref()).await?;
    let mut answer = json!({ "joined": found.joined, "count": found.count });
    if let Some(next) = found.next {
        answer["next_batch"] = next.into();
    }
    Ok(Json(answer))
}
