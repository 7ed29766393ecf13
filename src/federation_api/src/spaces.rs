//! Spaces (Server-Server API, "Spaces").

use axum::{Router, extract::State, routing::get};
use ruma_common::OwnedRoomId;
use serde::Deserialize;
use stoa_http::{JsonBytes, Params, Result, Segments, origin::Origin};
use stoa_view::View;

use crate::Api;

pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/_matrix/federation/v1/hierarchy/{roomId}", get(hierarchy))
}

#[derive(Deserialize)]
struct Which {
    #[serde(default)]
    suggested_only: bool,
}

/// `GET /_matrix/federation/v1/hierarchy/{roomId}`
async fn hierarchy(
    Origin(origin): Origin,
    State(view): State<View>,
    Segments(room): Segments<OwnedRoomId>,
    Params(which): Params<Which>,
) -> Result<JsonBytes> {
    Ok(JsonBytes(view.hierarchy_for_server(&origin, &room, which.suggested_only).await?.into()))
}
