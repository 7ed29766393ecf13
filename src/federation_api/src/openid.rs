//! Who an OpenID token is of (Server-Server API, "OpenID").

use axum::{Router, routing::get};
use http::StatusCode;
use serde::Deserialize;
use stoa_http::{Error, Params};

use crate::Api;

pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/_matrix/federation/v1/openid/userinfo", get(userinfo))
}

#[derive(Deserialize)]
struct Token {
    #[expect(dead_code, reason = "no token is one of ours yet")]
    access_token: String,
}

/// `GET /_matrix/federation/v1/openid/userinfo`. This server gives out no OpenID tokens yet, so it knows none.
async fn userinfo(Params(_): Params<Token>) -> Error {
    Error::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", "Access token unknown or expired")
}
