//! Stored filters (Client-Server API, "Filtering").

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use ruma_common::OwnedUserId;
use serde_json::{Value, json};
use stoa_accounts::Accounts;
use stoa_http::{Json, JsonBytes, Raw, Result, Segments, Who};

use crate::{Api, paths::Paths};

pub(crate) fn routes() -> Router<Api> {
    Router::new().v3("/user/{userId}/filter", post(add)).v3("/user/{userId}/filter/{filterId}", get(one))
}

/// `POST /_matrix/client/v3/user/{userId}/filter`
async fn add(
    State(accounts): State<Accounts>,
    who: Who,
    Segments(user): Segments<OwnedUserId>,
    Raw(json): Raw,
) -> Result<Json<Value>> {
    Ok(Json(json!({ "filter_id": accounts.add_filter(&who, &user, &json).await? })))
}

/// `GET /_matrix/client/v3/user/{userId}/filter/{filterId}`
async fn one(
    State(accounts): State<Accounts>,
    who: Who,
    Segments((user, id)): Segments<(OwnedUserId, String)>,
) -> Result<JsonBytes> {
    Ok(JsonBytes(accounts.filter(&who, &user, &id).await?))
}
