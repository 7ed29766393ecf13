//! Setting state (Client-Server API, "Sending events to a room").

use axum::{Router, extract::State, routing::get};
use ruma_common::OwnedRoomId;
use stoa_federation::Federation;
use stoa_http::{Json, Raw, Result, Segments, Who};
use stoa_rooms::NewEvent;

use crate::{
    Api,
    paths::Paths,
    read::{state_event, state_event_without_key},
    send::EventIdAnswer,
};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/rooms/{roomId}/state/{eventType}", get(state_event_without_key).put(set_without_key))
        .v3("/rooms/{roomId}/state/{eventType}/", get(state_event_without_key).put(set_without_key))
        .v3("/rooms/{roomId}/state/{eventType}/{stateKey}", get(state_event).put(set))
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
async fn set(
    who: Who,
    State(federation): State<Federation>,
    Segments((room, kind, state_key)): Segments<(OwnedRoomId, String, String)>,
    Raw(content): Raw,
) -> Result<Json<EventIdAnswer>> {
    if who.guest && kind == "m.room.member" {
        // Guests come by the endpoint that asks whether the room takes them.
        return Err(stoa_accounts::Error::GuestAccess.into());
    }
    let event = NewEvent {
        sender: who.user.clone(),
        kind,
        state_key: Some(state_key),
        content: content.to_vec(),
        redacts: None,
        txn: None,
        ts: None,
    };
    Ok(Json(EventIdAnswer { event_id: federation.send(&room, event).await? }))
}

/// The same with an empty state key, which paths may leave out.
async fn set_without_key(
    who: Who,
    federation: State<Federation>,
    Segments((room, kind)): Segments<(OwnedRoomId, String)>,
    content: Raw,
) -> Result<Json<EventIdAnswer>> {
    set(who, federation, Segments((room, kind, String::new())), content).await
}
