//! Joining, inviting, leaving, kicking, banning, forgetting (Client-Server API, "Room membership").

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use ruma_common::{OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stoa_accounts::Accounts;
use stoa_http::{Body, Empty, Error, Json, Result, Segments, Who};
use stoa_rooms::{Action, Change, Profile, Rooms};
use stoa_store::Membership;

use crate::{Api, paths::Paths};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/joined_rooms", get(joined_rooms))
        .v3("/join/{roomIdOrAlias}", post(join_by_name))
        .v3("/knock/{roomIdOrAlias}", post(knock))
        .v3("/rooms/{roomId}/join", post(join))
        .v3("/rooms/{roomId}/leave", post(leave))
        .v3("/rooms/{roomId}/forget", post(forget))
        .v3("/rooms/{roomId}/invite", post(invite))
        .v3("/rooms/{roomId}/kick", post(kick))
        .v3("/rooms/{roomId}/ban", post(ban))
        .v3("/rooms/{roomId}/unban", post(unban))
}

#[derive(Deserialize)]
struct Reason {
    reason: Option<String>,
    third_party_signed: Option<Value>,
}

#[derive(Deserialize)]
struct Target {
    user_id: OwnedUserId,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Invitation {
    user_id: Option<OwnedUserId>,
    reason: Option<String>,
    id_server: Option<String>,
}

#[derive(Serialize)]
struct RoomIdAnswer {
    room_id: OwnedRoomId,
}

/// Name and picture of a user of this server; nothing for others.
pub(crate) async fn profile(accounts: &Accounts, user: &UserId) -> Result<Profile> {
    match accounts.short_profile(user).await {
        Ok(short) => {
            Ok(Profile { displayname: short.displayname, avatar_url: short.avatar_url.map(|url| url.to_string()) })
        }
        Err(stoa_accounts::Error::NotFound(_)) => Ok(Profile::default()),
        Err(error) => Err(error.into()),
    }
}

/// Until this server federates, only its own users can be reached.
pub(crate) fn local(rooms: &Rooms, user: &UserId) -> Result<()> {
    match user.server_name() == rooms.server() {
        true => Ok(()),
        false => Err(Error::forbidden(format!("This server does not federate yet, so {user} cannot be reached"))),
    }
}

/// A room by its id or by an alias.
async fn named(rooms: &Rooms, name: &str) -> Result<OwnedRoomId> {
    if let Ok(alias) = RoomAliasId::parse(name) {
        return Ok(rooms.resolve_alias(&alias).await?);
    }
    RoomId::parse(name).map_err(|_| Error::invalid_param(format!("{name} is neither a room id nor an alias")))
}

async fn change(
    rooms: &Rooms,
    accounts: &Accounts,
    room: &RoomId,
    action: Action,
    sender: &OwnedUserId,
    target: OwnedUserId,
    reason: Option<String>,
) -> Result<()> {
    let profile = profile(accounts, &target).await?;
    let change = Change { action, sender: sender.clone(), target, reason, content: Map::new(), profile };
    Ok(rooms.change(room, change).await?)
}

/// `GET /_matrix/client/v3/joined_rooms`
async fn joined_rooms(who: Who, State(rooms): State<Rooms>) -> Result<Json<Value>> {
    let joined = rooms.rooms_of(&who.user, &[Membership::Join]).await?;
    Ok(Json(json!({ "joined_rooms": joined })))
}

/// `POST /_matrix/client/v3/join/{roomIdOrAlias}`
async fn join_by_name(
    who: Who,
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    Segments(name): Segments<String>,
    Body(body): Body<Reason>,
) -> Result<Json<RoomIdAnswer>> {
    let room_id = named(&rooms, &name).await?;
    enter(&rooms, &accounts, &who, room_id, body).await
}

/// `POST /_matrix/client/v3/rooms/{roomId}/join`
async fn join(
    who: Who,
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    Segments(room): Segments<OwnedRoomId>,
    Body(body): Body<Reason>,
) -> Result<Json<RoomIdAnswer>> {
    enter(&rooms, &accounts, &who, room, body).await
}

async fn enter(
    rooms: &Rooms,
    accounts: &Accounts,
    who: &Who,
    room_id: OwnedRoomId,
    body: Reason,
) -> Result<Json<RoomIdAnswer>> {
    if body.third_party_signed.is_some() {
        return Err(Error::forbidden("This server does not accept third-party invites"));
    }
    change(rooms, accounts, &room_id, Action::Join, &who.user, who.user.clone(), body.reason).await?;
    Ok(Json(RoomIdAnswer { room_id }))
}

/// `POST /_matrix/client/v3/knock/{roomIdOrAlias}`
async fn knock(
    who: Who,
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    Segments(name): Segments<String>,
    Body(body): Body<Reason>,
) -> Result<Json<RoomIdAnswer>> {
    let room_id = named(&rooms, &name).await?;
    change(&rooms, &accounts, &room_id, Action::Knock, &who.user, who.user.clone(), body.reason).await?;
    Ok(Json(RoomIdAnswer { room_id }))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/leave`
async fn leave(
    who: Who,
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    Segments(room): Segments<OwnedRoomId>,
    Body(body): Body<Reason>,
) -> Result<Empty> {
    change(&rooms, &accounts, &room, Action::Leave, &who.user, who.user.clone(), body.reason).await?;
    Ok(Empty {})
}

/// `POST /_matrix/client/v3/rooms/{roomId}/forget`
async fn forget(who: Who, State(rooms): State<Rooms>, Segments(room): Segments<OwnedRoomId>) -> Result<Empty> {
    match rooms.forget(&room, &who.user).await {
        Err(stoa_rooms::Error::InvalidParam(why)) => Err(Error::unknown(why)),
        other => Ok(other.map(|()| Empty {})?),
    }
}

/// `POST /_matrix/client/v3/rooms/{roomId}/invite`
async fn invite(
    who: Who,
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    Segments(room): Segments<OwnedRoomId>,
    Body(body): Body<Invitation>,
) -> Result<Empty> {
    let Some(user) = body.user_id else {
        return Err(match body.id_server {
            Some(_) => Error::forbidden("This server does not invite by third-party identifiers"),
            None => Error::bad_json("user_id is missing"),
        });
    };
    local(&rooms, &user)?;
    change(&rooms, &accounts, &room, Action::Invite, &who.user, user, body.reason).await?;
    Ok(Empty {})
}

macro_rules! moderate {
    ($($(#[$doc:meta])* $name:ident $action:ident;)*) => {$(
        $(#[$doc])*
        async fn $name(
            who: Who,
            State(rooms): State<Rooms>,
            State(accounts): State<Accounts>,
            Segments(room): Segments<OwnedRoomId>,
            Body(body): Body<Target>,
        ) -> Result<Empty> {
            change(&rooms, &accounts, &room, Action::$action, &who.user, body.user_id, body.reason).await?;
            Ok(Empty {})
        }
    )*};
}

moderate! {
    /// `POST /_matrix/client/v3/rooms/{roomId}/kick`
    kick Kick;
    /// `POST /_matrix/client/v3/rooms/{roomId}/ban`
    ban Ban;
    /// `POST /_matrix/client/v3/rooms/{roomId}/unban`
    unban Unban;
}
