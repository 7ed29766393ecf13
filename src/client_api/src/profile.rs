//! Profiles (Client-Server API, "Profiles").

use axum::{Router, extract::State, routing::get};
use ruma_common::OwnedUserId;
use serde_json::{Map, Value};
use stoa_accounts::{Accounts, ShortProfile};
use stoa_federation::Federation;
use stoa_http::{Body, Empty, Error, Json, Result, Segments, Who};
use stoa_notify::appservice::Appservices;
use stoa_rooms::Profile;

use crate::{Api, appservices, paths::Paths};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/profile/{userId}", get(whole))
        .v3("/profile/{userId}/{keyName}", get(one).put(set).delete(remove))
}

/// `GET /_matrix/client/v3/profile/{userId}`
async fn whole(
    State(accounts): State<Accounts>,
    State(federation): State<Federation>,
    State(services): State<Appservices>,
    Segments(user): Segments<OwnedUserId>,
) -> Result<Json<Value>> {
    appservices::meet(&services, &user).await?;
    let profile = match user.server_name() == federation.server() {
        true => accounts.profile(&user).await?,
        false => federation.profile(&user, None).await?,
    };
    Ok(Json(profile.into()))
}

/// `GET /_matrix/client/v3/profile/{userId}/{keyName}`
async fn one(
    State(accounts): State<Accounts>,
    State(federation): State<Federation>,
    State(services): State<Appservices>,
    Segments((user, key)): Segments<(OwnedUserId, String)>,
) -> Result<Json<Value>> {
    appservices::meet(&services, &user).await?;
    if user.server_name() != federation.server() {
        let profile = federation.profile(&user, Some(&key)).await?;
        return match profile.is_empty() {
            false => Ok(Json(profile.into())),
            true => Err(Error::not_found("the user has no such profile field")),
        };
    }
    let value = accounts.profile_field(&user, &key).await?;
    Ok(Json(Map::from_iter([(key, value)]).into()))
}

/// `PUT /_matrix/client/v3/profile/{userId}/{keyName}`
async fn set(
    State(accounts): State<Accounts>,
    State(federation): State<Federation>,
    who: Who,
    Segments((user, key)): Segments<(OwnedUserId, String)>,
    Body(mut body): Body<Map<String, Value>>,
) -> Result<Empty> {
    guests_only_show_a_name(&who, &key)?;
    let value = body.remove(&key).ok_or_else(|| Error::missing_param(format!("{key} is missing")))?;
    if accounts.set_profile_field(&who, &user, &key, Some(&value)).await? {
        show(&accounts, &federation, &user).await?;
    }
    Ok(Empty {})
}

/// `DELETE /_matrix/client/v3/profile/{userId}/{keyName}`
async fn remove(
    State(accounts): State<Accounts>,
    State(federation): State<Federation>,
    who: Who,
    Segments((user, key)): Segments<(OwnedUserId, String)>,
) -> Result<Empty> {
    guests_only_show_a_name(&who, &key)?;
    if accounts.set_profile_field(&who, &user, &key, None).await? {
        show(&accounts, &federation, &user).await?;
    }
    Ok(Empty {})
}

/// The rest of a profile is not for guests (Client-Server API, "Guest Access").
fn guests_only_show_a_name(who: &Who, key: &str) -> Result<()> {
    match who.guest && key != stoa_accounts::DISPLAYNAME {
        true => Err(stoa_accounts::Error::GuestAccess.into()),
        false => Ok(()),
    }
}

/// Shows the new name and picture in the rooms of the user.
async fn show(accounts: &Accounts, federation: &Federation, user: &OwnedUserId) -> Result<()> {
    Ok(federation.show_profile(user, &in_rooms(accounts, user).await?).await?)
}

/// Name and picture of a local user, as member events show them.
pub(crate) async fn in_rooms(accounts: &Accounts, user: &OwnedUserId) -> Result<Profile> {
    let ShortProfile { displayname, avatar_url } = accounts.short_profile(user).await?;
    Ok(Profile { displayname, avatar_url: avatar_url.map(String::from) })
}
