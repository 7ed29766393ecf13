//! Third-party networks (Client-Server API, "Third-party Networks"): there are none until application services bring them.

use axum::{Router, routing::get};
use serde_json::{Value, json};
use stoa_http::{Error, Json, Who};

use crate::{Api, paths::Paths};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/thirdparty/protocols", get(protocols))
        .v3("/thirdparty/protocol/{protocol}", get(unknown))
        .v3("/thirdparty/location", get(nothing))
        .v3("/thirdparty/location/{protocol}", get(unknown))
        .v3("/thirdparty/user", get(nothing))
        .v3("/thirdparty/user/{protocol}", get(unknown))
}

/// `GET /_matrix/client/v3/thirdparty/protocols`
async fn protocols(_: Who) -> Json<Value> {
    Json(json!({}))
}

/// `GET /_matrix/client/v3/thirdparty/protocol/{protocol}`, `.../location/{protocol}`, `.../user/{protocol}`
async fn unknown(_: Who) -> Error {
    Error::not_found("The protocol is unknown")
}

/// `GET /_matrix/client/v3/thirdparty/location`, `.../user`: what an alias or a user is called elsewhere.
async fn nothing(_: Who) -> Error {
    Error::not_found("No mappings were found")
}
