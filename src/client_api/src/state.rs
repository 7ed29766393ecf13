//! Setting state (Client-Server API, "Sending events to a room").

use axum::{Router, extract::State, routing::get};
use ruma_common::OwnedRoomId;
use stoa_federation::Federation;
use stoa_http::{Json, Params, Raw, Result, Segments, Who};
use stoa_rooms::{NewDelayed, NewEvent, Rooms};

use crate::{
    Api,
    delayed::{self, Delay},
    paths::Paths,
    read::{state_event, state_event_without_key},
    send::{Sent, Stamp},
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
    Params(delay): Params<Delay>,
    Params(stamp): Params<Stamp>,
    State(rooms): State<Rooms>,
    Raw(content): Raw,
) -> Result<Json<Sent>> {
    if who.guest && kind == "m.room.member" {
        // Guests come by the endpoint that asks whether the room takes them.
        return Err(stoa_accounts::Error::GuestAccess.into());
    }
    if let Some(delay_ms) = delay.ms {
        let (sender, content) = (who.user.clone(), content.to_vec());
        let new = NewDelayed { sender, kind, state_key: Some(state_key), content, delay_ms, txn: None };
        return delayed::by_query(&rooms, &room, new).await;
    }
    let event = NewEvent {
        sender: who.user.clone(),
        kind,
        state_key: Some(state_key),
        content: content.to_vec(),
        redacts: None,
        txn: None,
        ts: stamp.of(&who)?,
    };
    Ok(Json(Sent::Now { event_id: federation.send(&room, event).await? }))
}

/// The same with an empty state key, which paths may leave out.
async fn set_without_key(
    who: Who,
    federation: State<Federation>,
    Segments((room, kind)): Segments<(OwnedRoomId, String)>,
    delay: Params<Delay>,
    stamp: Params<Stamp>,
    rooms: State<Rooms>,
    content: Raw,
) -> Result<Json<Sent>> {
    set(who, federation, Segments((room, kind, String::new())), delay, stamp, rooms, content).await
}
