//! Invites for users of this server (Server-Server API, "Inviting to a room").

use axum::{Router, extract::State, routing::put};
use ruma_common::{OwnedEventId, OwnedRoomId, RoomVersionId};
use serde::Deserialize;
use serde_json::value::RawValue;
use stoa_federation::{Federation, Invitation};
use stoa_http::{Error, Raw, Result, Segments, body, origin::Origin};

use crate::{Api, answer::Answer};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/_matrix/federation/v1/invite/{roomId}/{eventId}", put(first))
        .route("/_matrix/federation/v2/invite/{roomId}/{eventId}", put(second))
}

type Place = Segments<(OwnedRoomId, OwnedEventId)>;

/// What the first version of the endpoint has inside of the event.
#[derive(Deserialize)]
struct Inside {
    #[serde(default)]
    unsigned: Unsigned,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Unsigned {
    invite_room_state: Vec<Box<RawValue>>,
}

/// `PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`
async fn second(
    Origin(origin): Origin,
    State(federation): State<Federation>,
    Segments((room, id)): Place,
    Raw(body): Raw,
) -> Result<Answer> {
    let invitation: Invitation = body::parse(&body)?;
    let event = federation.invited(&origin, &room, &id, invitation).await?;
    Ok(Answer::new().raw("event", event.json().clone()))
}

/// `PUT /_matrix/federation/v1/invite/{roomId}/{eventId}`: the body is the event, of room version 1 or 2.
async fn first(
    Origin(origin): Origin,
    State(federation): State<Federation>,
    Segments((room, id)): Place,
    Raw(body): Raw,
) -> Result<Answer> {
    let Inside { unsigned } = body::parse(&body)?;
    let event: Box<RawValue> = serde_json::from_slice(&body).map_err(|why| Error::not_json(why.to_string()))?;
    let invitation =
        Invitation { room_version: RoomVersionId::V1, event, invite_room_state: unsigned.invite_room_state };
    let event = federation.invited(&origin, &room, &id, invitation).await?;
    Ok(Answer::with_status().raw("event", event.json().clone()))
}
