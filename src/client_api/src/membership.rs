//! Joining, inviting, leaving, kicking, banning, forgetting (Client-Server API, "Room membership").

use std::time::Duration;

use axum::{
    Router,
    extract::{FromRef, State},
    routing::{get, post},
};
use ruma_common::{OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stoa_accounts::Accounts;
use stoa_federation::{Federation, ThirdParty, Via};
use stoa_http::{Body, Empty, Error, Json, Params, Result, Segments, Who};
use stoa_notify::appservice::Appservices;
use stoa_rooms::{
    Action, Change,
    Error::{CannotTell, CannotVouch},
    Profile, Rooms,
};
use stoa_store::Membership;

use crate::{Api, appservices, paths::Paths};

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

/// How many servers a client may name.
const MANY_SERVERS: usize = 20;

/// How long a change waits until all members of a room are known that was just joined.
const FOR_MEMBERS: Duration = Duration::from_secs(60);

/// Servers that a client names; the second is the name from before Matrix 1.12.
#[derive(Deserialize)]
struct Servers {
    #[serde(default)]
    via: Via,
    #[serde(default)]
    server_name: Via,
}

/// What memberships are made of.
#[derive(Clone)]
struct Parts {
    rooms: Rooms,
    accounts: Accounts,
    federation: Federation,
    services: Appservices,
}

impl FromRef<Api> for Parts {
    fn from_ref(api: &Api) -> Parts {
        Parts {
            rooms: api.rooms.clone(),
            accounts: api.accounts.clone(),
            federation: api.federation.clone(),
            services: api.services.clone(),
        }
    }
}

#[derive(Deserialize)]
struct Reason {
    reason: Option<String>,
    third_party_signed: Option<ThirdPartySigned>,
}

/// The proof that an invited address is the user's: who invited, and what the identity server signed.
#[derive(Clone, Deserialize)]
struct ThirdPartySigned {
    sender: OwnedUserId,
    #[serde(flatten)]
    signed: Map<String, Value>,
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
    #[serde(flatten)]
    address: Map<String, Value>,
}

/// The four fields of an invite by a third-party identifier.
pub(crate) fn third_party(mut fields: Map<String, Value>) -> Result<ThirdParty> {
    const FIELDS: [&str; 4] = ["id_server", "id_access_token", "medium", "address"];
    if let Some(missing) = FIELDS.into_iter().find(|field| !fields.contains_key(*field)) {
        return Err(Error::missing_param(format!("{missing} is missing")));
    }
    fields.retain(|field, _| FIELDS.contains(&field.as_str()));
    serde_json::from_value(fields.into()).map_err(|why| Error::invalid_param(why.to_string()))
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

/// A room by its id or by an alias, and servers that may know it.
async fn named(parts: &Parts, name: &str, query: Servers) -> Result<(OwnedRoomId, Via)> {
    let Parts { rooms, federation, services, .. } = parts;
    let mut via: Via = query.via.into_iter().chain(query.server_name).take(MANY_SERVERS).collect();
    let Ok(alias) = RoomAliasId::parse(name) else {
        let id = RoomId::parse(name);
        let id = id.map_err(|_| Error::invalid_param(format!("{name} is neither a room id nor an alias")))?;
        return Ok((id, via));
    };
    if alias.server_name() == rooms.server() {
        return Ok((appservices::resolve(rooms, services, &alias).await?, via));
    }
    let (room, servers) = federation.resolve_alias(&alias).await?;
    via.extend(servers);
    Ok((room, via))
}

/// Why a membership was not changed.
enum Failed {
    Federation(stoa_federation::Error),
    Other(Error),
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Error {
        match failed {
            Failed::Federation(error) => error.into(),
            Failed::Other(error) => error,
        }
    }
}

async fn change(
    federation: &Federation,
    accounts: &Accounts,
    room: &RoomId,
    action: Action,
    sender: &OwnedUserId,
    target: OwnedUserId,
    reason: Option<String>,
) -> Result<(), Failed> {
    let profile = profile(accounts, &target).await.map_err(Failed::Other)?;
    let change = Change { action, sender: sender.clone(), target, reason, content: Map::new(), profile };
    match federation.change(room, change.clone()).await {
        Err(stoa_federation::Error::Rooms(stoa_rooms::Error::Partial)) => {
            federation.wait_whole(room, FOR_MEMBERS).await.map_err(Failed::Federation)?;
            federation.change(room, change).await.map_err(Failed::Federation)
        }
        other => other.map_err(Failed::Federation),
    }
}

/// `GET /_matrix/client/v3/joined_rooms`
async fn joined_rooms(who: Who, State(rooms): State<Rooms>) -> Result<Json<Value>> {
    let joined = rooms.rooms_of(&who.user, &[Membership::Join]).await?;
    Ok(Json(json!({ "joined_rooms": joined })))
}

/// `POST /_matrix/client/v3/join/{roomIdOrAlias}`
async fn join_by_name(
    who: Who,
    State(parts): State<Parts>,
    Segments(name): Segments<String>,
    Params(query): Params<Servers>,
    Body(body): Body<Reason>,
) -> Result<Json<RoomIdAnswer>> {
    let (room_id, via) = named(&parts, &name, query).await?;
    enter(&parts, &who, room_id, via, body).await
}

/// `POST /_matrix/client/v3/rooms/{roomId}/join`
async fn join(
    who: Who,
    State(parts): State<Parts>,
    Segments(room): Segments<OwnedRoomId>,
    Body(body): Body<Reason>,
) -> Result<Json<RoomIdAnswer>> {
    enter(&parts, &who, room, Via::new(), body).await
}

async fn enter(parts: &Parts, who: &Who, room_id: OwnedRoomId, via: Via, body: Reason) -> Result<Json<RoomIdAnswer>> {
    let Parts { rooms, accounts, federation, .. } = parts;
    if let Some(ThirdPartySigned { sender, signed }) = body.third_party_signed {
        federation.redeem(&room_id, &sender, &who.user, signed).await?;
    }
    let here = rooms.knows(&room_id).await?;
    if who.guest && !federation.takes_guests(&room_id).await? {
        return Err(stoa_accounts::Error::GuestAccess.into());
    }
    let joined = match here {
        true => {
            change(federation, accounts, &room_id, Action::Join, &who.user, who.user.clone(), body.reason.clone()).await
        }
        false => Ok(()),
    };
    match joined {
        Ok(()) if here => {}
        // Another server may let in whom nobody here may.
        Err(Failed::Federation(stoa_federation::Error::Rooms(CannotVouch(_) | CannotTell(_)))) | Ok(()) => {
            let content = own_content(accounts, &who.user, body.reason).await?;
            federation.join(&room_id, &who.user, via, content).await?;
        }
        Err(other) => return Err(other.into()),
    }
    move_along(rooms, accounts, who, &room_id).await;
    Ok(Json(RoomIdAnswer { room_id }))
}

/// Who joins a room that replaces another one keeps what was set for that one. The join is done, whatever comes of this.
pub(crate) async fn move_along(rooms: &Rooms, accounts: &Accounts, who: &Who, room: &RoomId) {
    let moved = match rooms.predecessor(room).await {
        Ok(Some(old)) => accounts.move_along(who, &old, room).await.map_err(Error::from),
        Ok(None) => Ok(()),
        Err(error) => Err(error.into()),
    };
    if let Err(why) = moved {
        tracing::warn!(%room, ?why, "settings do not follow into the new room");
    }
}

/// What our user's own member event says beside the membership.
async fn own_content(accounts: &Accounts, user: &UserId, reason: Option<String>) -> Result<Map<String, Value>> {
    let mut content = Map::new();
    profile(accounts, user).await?.write(&mut content);
    if let Some(reason) = reason {
        content.insert("reason".into(), reason.into());
    }
    Ok(content)
}

/// `POST /_matrix/client/v3/knock/{roomIdOrAlias}`
async fn knock(
    who: Who,
    State(parts): State<Parts>,
    Segments(name): Segments<String>,
    Params(query): Params<Servers>,
    Body(body): Body<Reason>,
) -> Result<Json<RoomIdAnswer>> {
    let Parts { rooms, accounts, federation, .. } = &parts;
    let (room_id, via) = named(&parts, &name, query).await?;
    if rooms.knows(&room_id).await? {
        change(federation, accounts, &room_id, Action::Knock, &who.user, who.user.clone(), body.reason).await?;
    } else {
        let content = own_content(accounts, &who.user, body.reason).await?;
        federation.knock(&room_id, &who.user, via, content).await?;
    }
    Ok(Json(RoomIdAnswer { room_id }))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/leave`
async fn leave(
    who: Who,
    State(parts): State<Parts>,
    Segments(room): Segments<OwnedRoomId>,
    Body(body): Body<Reason>,
) -> Result<Empty> {
    let Parts { rooms, accounts, federation, .. } = &parts;
    let outside = rooms.membership_outside(&room, &who.user).await?;
    let waits = outside.is_some_and(|own| matches!(own.membership, Membership::Invite | Membership::Knock));
    if waits && !rooms.knows(&room).await? {
        let reason = body.reason.map(|reason| ("reason".to_owned(), Value::from(reason)));
        federation.leave(&room, &who.user, reason.into_iter().collect()).await?;
    } else {
        change(federation, accounts, &room, Action::Leave, &who.user, who.user.clone(), body.reason).await?;
    }
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
    State(Parts { rooms, accounts, federation, services }): State<Parts>,
    Segments(room): Segments<OwnedRoomId>,
    Body(body): Body<Invitation>,
) -> Result<Empty> {
    let Some(user) = body.user_id else {
        if !body.address.contains_key("id_server") {
            return Err(Error::bad_json("user_id is missing"));
        }
        federation.invite_address(&room, &who.user, third_party(body.address)?).await?;
        return Ok(Empty {});
    };
    if user.server_name() == rooms.server() {
        // Who is away hears of the invite later.
        if let Err(why) = appservices::meet(&services, &user).await {
            tracing::info!(%user, ?why, "an invited user of an application service is not there yet");
        }
        change(&federation, &accounts, &room, Action::Invite, &who.user, user, body.reason).await?;
    } else {
        let (action, sender, profile) = (Action::Invite, who.user.clone(), Profile::default());
        let change = Change { action, sender, target: user, reason: body.reason, content: Map::new(), profile };
        match federation.invite(&room, change.clone()).await {
            Err(stoa_federation::Error::Rooms(stoa_rooms::Error::Partial)) => {
                federation.wait_whole(&room, FOR_MEMBERS).await?;
                federation.invite(&room, change).await?;
            }
            other => other?,
        }
    }
    Ok(Empty {})
}

macro_rules! moderate {
    ($($(#[$doc:meta])* $name:ident $action:ident;)*) => {$(
        $(#[$doc])*
        async fn $name(
            who: Who,
            State(federation): State<Federation>,
            State(accounts): State<Accounts>,
            Segments(room): Segments<OwnedRoomId>,
            Body(body): Body<Target>,
        ) -> Result<Empty> {
            change(&federation, &accounts, &room, Action::$action, &who.user, body.user_id, body.reason).await?;
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
