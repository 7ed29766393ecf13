//! Reporting (Client-Server API, "Reporting Content").

use axum::{Router, extract::State, routing::post};
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use stoa_accounts::{Accounts, reports::Reported};
use stoa_http::{Body, Empty, Limits, Result, Segments, Who, limit::Kind};
use stoa_view::View;

use crate::{Api, paths::Paths, sync::viewer, throttle};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/rooms/{roomId}/report/{eventId}", post(event))
        .v3("/rooms/{roomId}/report", post(room))
        .v3("/users/{userId}/report", post(user))
}

/// Of an event, where nothing has to be said. Clients of before 1.18 also send a `score`.
#[derive(Deserialize)]
struct Why {
    #[serde(default)]
    reason: Option<String>,
}

/// Of a room or a user.
#[derive(Deserialize)]
struct Reason {
    reason: String,
}

/// `POST /_matrix/client/v3/rooms/{roomId}/report/{eventId}`
async fn event(
    who: Who,
    State(accounts): State<Accounts>,
    State(view): State<View>,
    State(limits): State<Limits>,
    Segments((room, event)): Segments<(OwnedRoomId, OwnedEventId)>,
    Body(why): Body<Why>,
) -> Result<Empty> {
    throttle::take(&limits, Kind::Report, &who)?;
    let sender = view.sender(&viewer(&who), &room, &event).await?;
    let what = Reported::Event { room: room.into(), event: event.into(), sender };
    accounts.report(&who, what, why.reason.as_deref().unwrap_or_default()).await?;
    Ok(Empty {})
}

/// `POST /_matrix/client/v3/rooms/{roomId}/report`: whether there is such a room is not told.
async fn room(
    who: Who,
    State(accounts): State<Accounts>,
    State(limits): State<Limits>,
    Segments(room): Segments<OwnedRoomId>,
    Body(why): Body<Reason>,
) -> Result<Empty> {
    throttle::take(&limits, Kind::Report, &who)?;
    accounts.report(&who, Reported::Room(room.into()), &why.reason).await?;
    Ok(Empty {})
}

/// `POST /_matrix/client/v3/users/{userId}/report`: whether there is such a user is not told.
async fn user(
    who: Who,
    State(accounts): State<Accounts>,
    State(limits): State<Limits>,
    Segments(user): Segments<OwnedUserId>,
    Body(why): Body<Reason>,
) -> Result<Empty> {
    throttle::take(&limits, Kind::Report, &who)?;
    accounts.report(&who, Reported::User(user.into()), &why.reason).await?;
    Ok(Empty {})
}
