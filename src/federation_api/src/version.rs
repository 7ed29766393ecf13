//! What runs here (Server-Server API, "Server implementation").

use axum::{Router, routing::get};
use serde_json::{Value, json};
use stoa_http::Json;

use crate::Api;

pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/_matrix/federation/v1/version", get(version))
}

/// `GET /_matrix/federation/v1/version`
async fn version() -> Json<Value> {
    Json(json!({ "server": { "name": "Stoa", "version": env!("CARGO_PKG_VERSION") } }))
}
