//! Which versions of the specification this server meets (Client-Server API, "API Versions").

use axum::{Router, routing::get};
use serde_json::{Value, json};
use stoa_http::Json;

use crate::Api;

/// Clients switch features on by the version that brought them, and refuse to work without the older ones, so all are named
/// up to the newest whose changes are met. What is optional and not there (OAuth 2.0, single sign-on), or not there yet
/// (e-mail), is so in docs/spec-coverage.md.
const VERSIONS: &[&str] = &[
    "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12",
    "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18", "v1.19",
];

/// Features that clients look for under their proposals' names.
const FEATURES: &[&str] = &[
    "org.matrix.e2e_cross_signing",
    // User-defined ephemeral events.
    "org.matrix.msc2477",
    // Simplified sliding sync, MSC4186; Element X refuses servers without it.
    "org.matrix.simplified_msc3575",
    // The presence `busy`.
    "org.matrix.msc3026.busy_presence",
    // Room summaries, v1.15.
    "org.matrix.msc3266",
    // Pushers that can be switched off.
    "org.matrix.msc3881",
    // Authenticated media, v1.11.
    "org.matrix.msc3916.stable",
    // Delayed events.
    "org.matrix.msc4140",
    "org.matrix.msc4140.stable",
    // Web Push.
    "org.matrix.msc4174",
    // The infrastructure of group calls.
    "org.matrix.msc4143",
    // Invite permission, v1.18, and its filters.
    "org.matrix.msc4380",
    "org.matrix.msc4380.stable",
    "org.matrix.msc4155",
    // Subscriptions to threads.
    "org.matrix.msc4306",
    // Mutual rooms, v1.19.
    "uk.half-shot.msc2666.query_mutual_rooms",
    "uk.half-shot.msc2666.query_mutual_rooms.stable",
    // `state_after` in `/sync`, v1.16.
    "org.matrix.msc4222",
    // Profile fields, v1.16.
    "uk.tcpip.msc4133.stable",
];

pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/_matrix/client/versions", get(versions))
}

/// `GET /_matrix/client/versions`
async fn versions() -> Json<Value> {
    let features: serde_json::Map<String, Value> =
        FEATURES.iter().map(|name| ((*name).to_owned(), true.into())).collect();
    Json(json!({ "versions": VERSIONS, "unstable_features": features }))
}
