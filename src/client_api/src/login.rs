//! Login, logout and refreshing (Client-Server API, "Login", "Refreshing access tokens").

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stoa_accounts::{
    Accounts, LoggedIn, NewDevice, Password, TOKEN_LIFE_MS, Tokens,
    uia::{AuthData, Identifier},
};
use stoa_http::{AsService, Body, Empty, Error, Ip, Json, Result, Who};

use crate::{Api, paths::Paths};

const PASSWORD: &str = "m.login.password";
const TOKEN: &str = "m.login.token";
/// Of application services (Application Service API, "Server admin style permissions").
pub(crate) const SERVICE: &str = "m.login.application_service";
/// As Synapse calls it; there is no stable name.
const JWT: &str = "org.matrix.login.jwt";

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/login", get(flows).post(login))
        .v1("/login/get_token", post(get_token))
        .v3("/refresh", post(refresh))
        .v3("/logout", post(logout))
        .v3("/logout/all", post(logout_all))
}

#[derive(Deserialize)]
struct Login {
    #[serde(rename = "type")]
    kind: Option<String>,
    identifier: Option<Identifier>,
    user: Option<String>,
    address: Option<String>,
    password: Option<String>,
    token: Option<String>,
    device_id: Option<String>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    refresh_token: bool,
}

/// A new session as the answer shows it.
#[derive(Serialize)]
pub(crate) struct Session {
    user_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<String>,
    #[serde(flatten)]
    tokens: Option<Fresh>,
}

#[derive(Serialize)]
struct Fresh {
    access_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_ms: Option<u64>,
}

impl From<Tokens> for Fresh {
    fn from(tokens: Tokens) -> Self {
        let Tokens { access, refresh, expires_in_ms } = tokens;
        Fresh { access_token: access, refresh_token: refresh, expires_in_ms }
    }
}

impl Session {
    pub(crate) fn new(user_id: String, session: Option<(String, Tokens)>) -> Self {
        let (device_id, tokens) = session.unzip();
        Session { user_id, device_id, tokens: tokens.map(Fresh::from) }
    }
}

/// `GET /_matrix/client/v3/login`
async fn flows(State(accounts): State<Accounts>) -> Json<Value> {
    let mut flows = vec![json!({ "type": PASSWORD }), json!({ "type": TOKEN, "get_login_token": true })];
    if accounts.config().jwt.is_some() {
        flows.push(json!({ "type": JWT }));
    }
    if !accounts.services().all().is_empty() {
        flows.push(json!({ "type": SERVICE }));
    }
    Json(json!({ "flows": flows }))
}

/// `POST /_matrix/client/v3/login`
async fn login(
    State(accounts): State<Accounts>,
    Ip(ip): Ip,
    service: Result<AsService>,
    Body(mut body): Body<Login>,
) -> Result<Json<Session>> {
    let device = NewDevice {
        id: body.device_id.take(),
        name: body.initial_device_display_name.take(),
        refresh: body.refresh_token,
        ip: Some(ip),
    };
    let LoggedIn { user, device, tokens } = match body.kind.as_deref() {
        Some(PASSWORD) => {
            let user = named(&accounts, &body).await?;
            let password = body.password.ok_or_else(|| Error::missing_param("password is missing"))?;
            accounts.login(&user, Password::new(password), &device).await?
        }
        Some(SERVICE) => accounts.login_for(&service?.0, &named(&accounts, &body).await?, &device).await?,
        Some(TOKEN) => accounts.login_by_token(&token(body)?, &device).await?,
        Some(JWT) if accounts.config().jwt.is_some() => accounts.login_by_jwt(&token(body)?, &device).await?,
        Some(_) => return Err(Error::unknown("This server does not know that way to log in")),
        None => return Err(Error::missing_param("type is missing")),
    };
    Ok(Json(Session::new(user.into(), Some((device, tokens)))))
}

fn token(body: Login) -> Result<String> {
    body.token.ok_or_else(|| Error::missing_param("token is missing"))
}

#[derive(Deserialize)]
struct GetToken {
    auth: Option<AuthData>,
}

/// `POST /_matrix/client/v1/login/get_token`
async fn get_token(State(accounts): State<Accounts>, who: Who, Body(body): Body<GetToken>) -> Result<Json<Value>> {
    let token = accounts.new_login_token(&who, body.auth.as_ref()).await?;
    Ok(Json(json!({ "login_token": token, "expires_in_ms": TOKEN_LIFE_MS })))
}

/// Whom a login names: by name, or by an e-mail address of the account. Phone numbers are not known here.
async fn named(accounts: &Accounts, body: &Login) -> Result<String> {
    let third_party = || Error::forbidden("This server does not know this address or phone number");
    let by_email = async |address: &str| accounts.user_of_email(address).await?.ok_or_else(third_party);
    match (&body.identifier, &body.user) {
        (Some(identifier), _) => match (identifier.kind.as_deref(), identifier.email()) {
            (Some("m.id.user"), _) => {
                identifier.user().map(str::to_owned).ok_or_else(|| Error::missing_param("identifier.user is missing"))
            }
            (_, Some(address)) => by_email(address).await,
            (Some("m.id.thirdparty" | "m.id.phone") | None, None) => Err(third_party()),
            (Some(_), None) => Err(Error::unknown("This server knows only m.id.user and m.id.thirdparty")),
        },
        (None, Some(user)) => Ok(user.clone()),
        (None, None) => match &body.address {
            Some(address) => by_email(address).await,
            None => Err(Error::missing_param("identifier is missing")),
        },
    }
}

#[derive(Deserialize)]
struct Refresh {
    refresh_token: Option<String>,
}

/// `POST /_matrix/client/v3/refresh`
async fn refresh(State(accounts): State<Accounts>, Body(body): Body<Refresh>) -> Result<Json<Fresh>> {
    let token = body.refresh_token.ok_or_else(|| Error::missing_param("refresh_token is missing"))?;
    Ok(Json(accounts.refresh(&token).await?.into()))
}

/// `POST /_matrix/client/v3/logout`
async fn logout(State(accounts): State<Accounts>, who: Who) -> Result<Empty> {
    accounts.logout(&who).await?;
    Ok(Empty {})
}

/// `POST /_matrix/client/v3/logout/all`
async fn logout_all(State(accounts): State<Accounts>, who: Who) -> Result<Empty> {
    accounts.logout_all(who.user_no).await?;
    Ok(Empty {})
}
