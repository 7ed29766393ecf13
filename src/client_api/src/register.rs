//! Registration (Client-Server API, "Account registration").

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use stoa_accounts::{Accounts, NewAccount, NewDevice, Registered, Registration, uia::AuthData};
use stoa_http::{AsService, Body, Error, Ip, Json, Params, Result};

use crate::{
    Api,
    login::{SERVICE, Session},
    paths::Paths,
};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/register", post(register))
        .v3("/register/available", get(available))
        .v1("/register/m.login.registration_token/validity", get(validity))
}

#[derive(Deserialize)]
struct Query {
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Register {
    #[serde(rename = "type")]
    kind: Option<String>,
    auth: Option<AuthData>,
    username: Option<String>,
    password: Option<String>,
    device_id: Option<String>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    inhibit_login: bool,
    guest_access_token: Option<String>,
    #[serde(default)]
    refresh_token: bool,
}

/// `POST /_matrix/client/v3/register`
async fn register(
    State(accounts): State<Accounts>,
    Ip(ip): Ip,
    Params(query): Params<Query>,
    service: Result<AsService>,
    Body(body): Body<Register>,
) -> Result<Json<Session>> {
    let guest = match query.kind.as_deref() {
        None | Some("user") => false,
        Some("guest") => true,
        Some(_) => return Err(Error::invalid_param("kind is user or guest")),
    };
    let device = NewDevice {
        id: body.device_id,
        name: body.initial_device_display_name,
        refresh: body.refresh_token,
        ip: Some(ip),
    };
    if guest {
        let Registered { user, session } = accounts.register_guest(&device).await?;
        return Ok(Json(Session::new(user.into(), session)));
    }
    let device = (!body.inhibit_login).then_some(device);
    if body.kind.as_deref() == Some(SERVICE) {
        let name = body.username.ok_or_else(|| Error::missing_param("username is missing"))?;
        let Registered { user, session } = accounts.register_for(&service?.0, &name, device.as_ref()).await?;
        return Ok(Json(Session::new(user.into(), session)));
    }
    let Register { auth, username, password, guest_access_token: guest_token, .. } = body;
    let new = NewAccount { username, password, device, guest_token };
    let Registered { user, session } = accounts.register(&new, auth.as_ref()).await?;
    Ok(Json(Session::new(user.into(), session)))
}

#[derive(Deserialize)]
struct Available {
    username: String,
}

/// `GET /_matrix/client/v3/register/available`
async fn available(State(accounts): State<Accounts>, Params(query): Params<Available>) -> Result<Json<Value>> {
    accounts.username_available(&query.username).await?;
    Ok(Json(json!({ "available": true })))
}

#[derive(Deserialize)]
struct Validity {
    token: String,
}

/// `GET /_matrix/client/v1/register/m.login.registration_token/validity`
async fn validity(State(accounts): State<Accounts>, Params(query): Params<Validity>) -> Result<Json<Value>> {
    if accounts.config().registration == Registration::Closed {
        return Err(Error::forbidden("Registration is closed on this server"));
    }
    Ok(Json(json!({ "valid": accounts.is_registration_token(&query.token) })))
}
