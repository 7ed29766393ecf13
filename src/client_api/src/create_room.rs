//! Creating rooms (Client-Server API, "Creation").

use axum::{Router, extract::State, routing::post};
use ruma_common::{OwnedRoomId, OwnedUserId, RoomVersionId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use stoa_accounts::Accounts;
use stoa_federation::Federation;
use stoa_http::{Body, Error, Json, Result, Who};
use stoa_rooms::{Action, Change, CreateRoom, InitialState, Preset, Profile, Rooms};

use crate::{
    Api,
    membership::{profile, third_party},
    paths::Paths,
};

pub(crate) fn routes() -> Router<Api> {
    Router::new().v3("/createRoom", post(create))
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Visibility {
    #[default]
    Private,
    Public,
}

#[derive(Clone, Copy, Deserialize)]
enum PresetName {
    #[serde(rename = "private_chat")]
    Private,
    #[serde(rename = "public_chat")]
    Public,
    #[serde(rename = "trusted_private_chat")]
    TrustedPrivate,
}

#[derive(Deserialize)]
struct FirstState {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    state_key: String,
    content: Map<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Request {
    visibility: Visibility,
    room_alias_name: Option<String>,
    name: Option<String>,
    topic: Option<String>,
    invite: Vec<OwnedUserId>,
    invite_3pid: Vec<Map<String, Value>>,
    room_version: Option<String>,
    creation_content: Map<String, Value>,
    initial_state: Vec<FirstState>,
    preset: Option<PresetName>,
    is_direct: bool,
    power_level_content_override: Map<String, Value>,
}

#[derive(Serialize)]
struct Response {
    room_id: OwnedRoomId,
}

/// `POST /_matrix/client/v3/createRoom`
async fn create(
    who: Who,
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    State(federation): State<Federation>,
    Body(request): Body<Request>,
) -> Result<Json<Response>> {
    if let Some(name) = &request.room_alias_name {
        accounts.may_have_alias(&who, &format!("#{name}:{}", rooms.server()))?;
    }
    let addresses = request.invite_3pid.into_iter().map(third_party).collect::<Result<Vec<_>>>()?;
    let mut invite = Vec::with_capacity(request.invite.len());
    for user in request.invite {
        if !invite.iter().any(|(other, _)| *other == user) && user != who.user {
            let profile = profile(&accounts, &user).await?;
            invite.push((user, profile));
        }
    }
    let away = invite.iter().filter(|(user, _)| user.server_name() != rooms.server());
    let away: Vec<OwnedUserId> = away.map(|(user, _)| user.clone()).collect();
    let preset = match (request.preset, request.visibility) {
        (Some(PresetName::Private), _) | (None, Visibility::Private) => Preset::Private,
        (Some(PresetName::TrustedPrivate), _) => Preset::TrustedPrivate,
        (Some(PresetName::Public), _) | (None, Visibility::Public) => Preset::Public,
    };
    let version = request.room_version.map(|version| {
        RoomVersionId::try_from(version)
            .map_err(|error| Error::new(http::StatusCode::BAD_REQUEST, "M_UNSUPPORTED_ROOM_VERSION", error.to_string()))
    });
    let state = |it: FirstState| InitialState { kind: it.kind, state_key: it.state_key, content: it.content };
    let room_id = rooms
        .create(CreateRoom {
            profile: profile(&accounts, &who.user).await?,
            creator: who.user.clone(),
            version: version.transpose()?,
            preset,
            listed: request.visibility == Visibility::Public,
            alias: request.room_alias_name,
            name: request.name,
            topic: request.topic,
            invite,
            is_direct: request.is_direct,
            creation_content: request.creation_content,
            initial_state: request.initial_state.into_iter().map(state).collect(),
            power_levels: request.power_level_content_override,
        })
        .await?;
    invite_away(&federation, &room_id, &who.user, away, request.is_direct).await;
    for address in addresses {
        if let Err(why) = federation.invite_address(&room_id, &who.user, address).await {
            tracing::info!(room = %room_id, %why, "cannot invite an address into a new room");
        }
    }
    Ok(Json(Response { room_id }))
}

/// Invites users of other servers. The room is there by now: who cannot be reached can be invited again.
async fn invite_away(
    federation: &Federation,
    room: &OwnedRoomId,
    sender: &OwnedUserId,
    users: Vec<OwnedUserId>,
    is_direct: bool,
) {
    for target in users {
        let mut content = Map::new();
        if is_direct {
            content.insert("is_direct".into(), true.into());
        }
        let (action, sender, profile) = (Action::Invite, sender.clone(), Profile::default());
        let change = Change { action, sender, target: target.clone(), reason: None, content, profile };
        if let Err(why) = federation.invite(room, change).await {
            tracing::info!(%room, user = %target, %why, "cannot invite into a new room");
        }
    }
}
