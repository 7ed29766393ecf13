//! OpenID tokens (Client-Server API, "OpenID").

use axum::{Router, extract::State, routing::post};
use ruma_common::OwnedUserId;
use serde_json::{Map, Value, json};
use stoa_accounts::{Accounts, openid::LIFE_MS};
use stoa_http::{Body, Error, Json, Limits, Result, Segments, Who, limit::Kind};

use crate::{Api, paths::Paths, throttle};

pub(crate) fn routes() -> Router<Api> {
    Router::new().v3("/user/{userId}/openid/request_token", post(request))
}

/// `POST /_matrix/client/v3/user/{userId}/openid/request_token`
async fn request(
    who: Who,
    State(accounts): State<Accounts>,
    State(limits): State<Limits>,
    Segments(user): Segments<OwnedUserId>,
    Body(_): Body<Map<String, Value>>,
) -> Result<Json<Value>> {
    if user != who.user {
        return Err(Error::forbidden("nobody gets a token for somebody else"));
    }
    throttle::take(&limits, Kind::Message, &who)?;
    Ok(Json(json!({
        "access_token": accounts.new_openid_token(&who),
        "token_type": "Bearer",
        "matrix_server_name": accounts.server_name(),
        "expires_in": LIFE_MS / 1000,
    })))
}
