//! Invites for users of this server (Server-Server API, "Inviting to a room").

use axum::{Router, extract::State, routing::put};
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId};
use serde::Deserialize;
use serde_json::value::RawValue;
use stoa_federation::{Federation, Invitation};
use stoa_http::{Error, Raw, Result, Segments, body, origin::Origin};
use stoa_notify::appservice::Appservices;

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

#[derive(Deserialize)]
struct Invited {
    state_key: OwnedUserId,
}

/// Has who is invited made by the application service that such names belong to, where there is nobody.
async fn meet(services: &Appservices, event: &RawValue) {
    let Ok(Invited { state_key: user }) = serde_json::from_str(event.get()) else { return };
    if let Err(why) = services.meet(&user).await {
        tracing::info!(%user, %why, "an invited user of an application service is not there yet");
    }
}

/// `PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`
async fn second(
    Origin(origin): Origin,
    State(federation): State<Federation>,
    State(services): State<Appservices>,
    Segments((room, id)): Place,
    Raw(body): Raw,
) -> Result<Answer> {
    let invitation: Invitation = body::parse(&body)?;
    meet(&services, &invitation.event).await;
    let event = federation.invited(&origin, &room, &id, invitation).await?;
    Ok(Answer::new().raw("event", event.json().clone()))
}

/// `PUT /_matrix/federation/v1/invite/{roomId}/{eventId}`: the body is the event, of room version 1 or 2.
async fn first(
    Origin(origin): Origin,
    State(federation): State<Federation>,
    State(services): State<Appservices>,
    Segments((room, id)): Place,
    Raw(body): Raw,
) -> Result<Answer> {
    let Inside { unsigned } = body::parse(&body)?;
    let event: Box<RawValue> = serde_json::from_slice(&body).map_err(|why| Error::not_json(why.to_string()))?;
    meet(&services, &event).await;
    let invitation =
        Invitation { room_version: RoomVersionId::V1, event, invite_room_state: unsigned.invite_room_state };
    let event = federation.invited(&origin, &room, &id, invitation).await?;
    Ok(Answer::with_status().raw("event", event.json().clone()))
}
