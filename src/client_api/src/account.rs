//! The account of who asks (Client-Server API, "Account management", "Current account information").

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use ruma_common::OwnedUserId;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stoa_accounts::{
    Accounts,
    uia::{AuthData, Operation},
};
use stoa_federation::Federation;
use stoa_http::{Body, Empty, Error, Json, MaybeWho, Result, Who};
use stoa_rooms::{Action, Change, Profile, Rooms};
use stoa_store::Membership;

use crate::{Api, paths::Paths};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/account/whoami", get(whoami))
        .v3("/account/password", post(password))
        .v3("/account/deactivate", post(deactivate))
}

/// `GET /_matrix/client/v3/account/whoami`
async fn whoami(who: Who) -> Json<Value> {
    let mut answer = json!({ "user_id": who.user, "is_guest": who.guest });
    if who.has_device() {
        answer["device_id"] = who.device.clone().into();
    }
    Json(answer)
}

#[derive(Deserialize)]
struct Password {
    auth: Option<AuthData>,
    new_password: Option<String>,
    logout_devices: Option<bool>,
}

/// `POST /_matrix/client/v3/account/password`
async fn password(
    State(accounts): State<Accounts>,
    MaybeWho(who): MaybeWho,
    Body(body): Body<Password>,
) -> Result<Empty> {
    let Some(who) = who else { return reset(&accounts, body).await };
    let Some(new) = body.new_password else {
        // Some clients ask with an empty body for the flows.
        let _ = accounts.confirm(&who, Operation::password(), None).await?;
        return Err(Error::missing_param("new_password is missing"));
    };
    let logout = body.logout_devices.unwrap_or(true);
    accounts.change_password(&who, &new, logout, body.auth.as_ref()).await?;
    Ok(Empty {})
}

/// The same for who is not logged in, and shows an e-mail address of the account.
async fn reset(accounts: &Accounts, body: Password) -> Result<Empty> {
    if !accounts.sends_mail() {
        return Err(Error::missing_token());
    }
    let new = body.new_password.ok_or_else(|| Error::missing_param("new_password is missing"))?;
    accounts.reset_password(&new, body.logout_devices.unwrap_or(true), body.auth.as_ref()).await?;
    Ok(Empty {})
}

#[derive(Deserialize)]
struct Deactivate {
    auth: Option<AuthData>,
    #[serde(default)]
    erase: bool,
}

/// `POST /_matrix/client/v3/account/deactivate`
async fn deactivate(
    State(accounts): State<Accounts>,
    State(rooms): State<Rooms>,
    State(federation): State<Federation>,
    who: Who,
    Body(body): Body<Deactivate>,
) -> Result<Json<Value>> {
    let proof = accounts.confirm(&who, Operation::deactivate(), body.auth.as_ref()).await?;
    let ended = accounts.deactivate(&who.user, body.erase).await;
    accounts.settle(proof, ended)?;
    leave_all(&rooms, &federation, &who.user).await?;
    Ok(Json(json!({ "id_server_unbind_result": "no-support" })))
}

/// Ends an account and takes its user out of all rooms, as the administrator does. Doing it again leaves the rooms that
/// were not left the first time.
///
/// # Errors
/// Where there is no such account, or the store fails.
pub async fn end_account(api: &Api, user: &OwnedUserId, erase: bool) -> Result<()> {
    api.accounts.deactivate(user, erase).await?;
    leave_all(&api.rooms, &api.federation, user).await
}

async fn leave_all(rooms: &Rooms, federation: &Federation, user: &OwnedUserId) -> Result<()> {
    rooms.cancel_all_delayed(user).await?;
    for room in rooms.rooms_of(user, &[Membership::Join, Membership::Invite, Membership::Knock]).await? {
        let leave = Change {
            action: Action::Leave,
            sender: user.clone(),
            target: user.clone(),
            reason: None,
            content: Map::new(),
            profile: Profile::default(),
        };
        if let Err(error) = federation.change(&room, leave).await {
            tracing::warn!(%room, %error, "a deactivated user could not leave a room");
        }
    }
    Ok(())
}
