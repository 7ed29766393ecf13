//! Presence (Client-Server API, "Presence").

use axum::{Router, extract::State, routing::get};
use ruma_common::OwnedUserId;
use serde::Deserialize;
use stoa_accounts::Accounts;
use stoa_http::{Body, Empty, JsonBytes, Result, Segments, Who};
use stoa_view::View;

use crate::{Api, paths::Paths, sync::viewer};

pub(crate) fn routes() -> Router<Api> {
    Router::new().v3("/presence/{userId}/status", get(status).put(set))
}

#[derive(Deserialize)]
struct Status {
    presence: String,
    status_msg: Option<String>,
}

/// `GET /_matrix/client/v3/presence/{userId}/status`
async fn status(who: Who, State(view): State<View>, Segments(user): Segments<OwnedUserId>) -> Result<JsonBytes> {
    Ok(JsonBytes(view.presence(&viewer(&who), &user).await?.into()))
}

/// `PUT /_matrix/client/v3/presence/{userId}/status`
async fn set(
    who: Who,
    State(accounts): State<Accounts>,
    Segments(user): Segments<OwnedUserId>,
    Body(body): Body<Status>,
) -> Result<Empty> {
    accounts.set_presence(&who, &user, &body.presence, body.status_msg.as_deref())?;
    Ok(Empty {})
}
