//! Devices and their keys (Server-Server API, "Device Management", "End-to-End Encryption").

use std::collections::BTreeMap;

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use ruma_common::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};
use stoa_accounts::Accounts;
use stoa_http::{Body, Json, Result, Segments, origin::Origin};

use crate::Api;

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/_matrix/federation/v1/user/devices/{userId}", get(devices))
        .route("/_matrix/federation/v1/user/keys/query", post(query))
        .route("/_matrix/federation/v1/user/keys/claim", post(claim))
}

#[derive(Deserialize)]
struct Query {
    device_keys: BTreeMap<OwnedUserId, Vec<String>>,
}

#[derive(Deserialize)]
struct Claim {
    one_time_keys: BTreeMap<OwnedUserId, BTreeMap<String, String>>,
}

/// `GET /_matrix/federation/v1/user/devices/{userId}`
async fn devices(
    _: Origin,
    State(accounts): State<Accounts>,
    Segments(user): Segments<OwnedUserId>,
) -> Result<Json<Value>> {
    Ok(Json(accounts.devices_for_servers(&user).await?))
}

/// `POST /_matrix/federation/v1/user/keys/query`
async fn query(_: Origin, State(accounts): State<Accounts>, Body(body): Body<Query>) -> Result<Json<Value>> {
    Ok(Json(accounts.keys_for_servers(&body.device_keys).await?))
}

/// `POST /_matrix/federation/v1/user/keys/claim`. Users of other servers are passed over.
async fn claim(_: Origin, State(accounts): State<Accounts>, Body(body): Body<Claim>) -> Result<Json<Value>> {
    let claimed = accounts.claim_keys(&body.one_time_keys).await?;
    Ok(Json(json!({ "one_time_keys": claimed })))
}
