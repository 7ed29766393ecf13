//! Who an OpenID token is of (Server-Server API, "OpenID"). Anybody may ask who has the token.

use axum::{Router, extract::State, routing::get};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use stoa_accounts::Accounts;
use stoa_http::{Error, Ip, Json, Limits, Params, Result, limit::Kind};

use crate::Api;

pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/_matrix/federation/v1/openid/userinfo", get(userinfo))
}

#[derive(Deserialize)]
struct Token {
    access_token: Option<String>,
}

/// `GET /_matrix/federation/v1/openid/userinfo`
async fn userinfo(
    Ip(ip): Ip,
    State(accounts): State<Accounts>,
    State(limits): State<Limits>,
    Params(token): Params<Token>,
) -> Result<Json<Value>> {
    limits.take(Kind::Keys, ip)?;
    let refused = |errcode, why| Error::new(StatusCode::UNAUTHORIZED, errcode, why);
    let token = token.access_token.ok_or_else(|| refused("M_MISSING_TOKEN", "access_token is missing"))?;
    let user = accounts.user_of_openid_token(&token);
    let user = user.ok_or_else(|| refused("M_UNKNOWN_TOKEN", "Access token unknown or expired"))?;
    Ok(Json(json!({ "sub": user })))
}
