//! Keys of devices and cross-signing (Client-Server API, "Key management API", "Cross-signing").

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use ruma_common::OwnedUserId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stoa_accounts::{Accounts, CrossSigningUpload, FoundKeys, KeyUpload, SignatureFailures, uia::AuthData};
use stoa_federation::Federation;
use stoa_http::{Body, Empty, Json, JsonBytes, Params, Result, Who};
use stoa_view::View;

use crate::{Api, paths::Paths, sync::viewer};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/keys/upload", post(upload))
        .v3("/keys/query", post(query))
        .v3("/keys/claim", post(claim))
        .v3("/keys/changes", get(changes))
        .v3("/keys/device_signing/upload", post(upload_cross_signing))
        .v3("/keys/signatures/upload", post(upload_signatures))
        .unstable("/keys/device_signing/upload", post(upload_cross_signing))
        .unstable("/keys/signatures/upload", post(upload_signatures))
}

#[derive(Deserialize)]
struct Upload {
    device_keys: Option<Map<String, Value>>,
    #[serde(default)]
    one_time_keys: Map<String, Value>,
    #[serde(default)]
    fallback_keys: Map<String, Value>,
    /// Fallback keys as older clients name them.
    #[serde(default, rename = "org.matrix.msc2732.fallback_keys")]
    old_fallback_keys: Map<String, Value>,
}

#[derive(Serialize)]
struct Counts {
    one_time_key_counts: BTreeMap<String, u32>,
}

/// `POST /_matrix/client/v3/keys/upload`
async fn upload(State(accounts): State<Accounts>, who: Who, Body(body): Body<Upload>) -> Result<Json<Counts>> {
    let mut fallback_keys = body.old_fallback_keys;
    fallback_keys.extend(body.fallback_keys);
    let upload = KeyUpload { device_keys: body.device_keys, one_time_keys: body.one_time_keys, fallback_keys };
    let counts = accounts.upload_keys(&who, upload).await?;
    Ok(Json(Counts { one_time_key_counts: counts.one_time }))
}

#[derive(Deserialize)]
struct Query {
    device_keys: BTreeMap<OwnedUserId, Vec<String>>,
    timeout: Option<u64>,
}

/// `POST /_matrix/client/v3/keys/query`
async fn query(State(federation): State<Federation>, who: Who, Body(body): Body<Query>) -> Result<Json<FoundKeys>> {
    let patience = body.timeout.map(Duration::from_millis);
    Ok(Json(federation.query_keys(&who, &body.device_keys, patience).await?))
}

#[derive(Deserialize)]
struct Claim {
    one_time_keys: BTreeMap<OwnedUserId, BTreeMap<String, String>>,
    timeout: Option<u64>,
}

/// `POST /_matrix/client/v3/keys/claim`
async fn claim(State(federation): State<Federation>, _: Who, Body(body): Body<Claim>) -> Result<Json<Value>> {
    let patience = body.timeout.map(Duration::from_millis);
    let (claimed, failures) = federation.claim_keys(&body.one_time_keys, patience).await?;
    Ok(Json(json!({ "one_time_keys": claimed, "failures": failures })))
}

#[derive(Deserialize)]
struct Between {
    from: String,
    to: String,
}

/// `GET /_matrix/client/v3/keys/changes`
async fn changes(State(view): State<View>, who: Who, Params(query): Params<Between>) -> Result<JsonBytes> {
    Ok(JsonBytes(view.key_changes(&viewer(&who), &query.from, &query.to).await?.into()))
}

#[derive(Deserialize)]
struct CrossSigning {
    auth: Option<AuthData>,
    master_key: Option<Value>,
    self_signing_key: Option<Value>,
    user_signing_key: Option<Value>,
}

/// `POST /_matrix/client/v3/keys/device_signing/upload`
async fn upload_cross_signing(
    State(accounts): State<Accounts>,
    who: Who,
    Body(body): Body<CrossSigning>,
) -> Result<Empty> {
    let upload = CrossSigningUpload {
        master: body.master_key,
        self_signing: body.self_signing_key,
        user_signing: body.user_signing_key,
    };
    accounts.upload_cross_signing(&who, upload, body.auth.as_ref()).await?;
    Ok(Empty {})
}

#[derive(Serialize)]
struct Failures {
    failures: SignatureFailures,
}

/// `POST /_matrix/client/v3/keys/signatures/upload`
async fn upload_signatures(
    State(accounts): State<Accounts>,
    who: Who,
    Body(body): Body<BTreeMap<OwnedUserId, Map<String, Value>>>,
) -> Result<Json<Failures>> {
    Ok(Json(Failures { failures: accounts.upload_signatures(&who, &body).await? }))
}
