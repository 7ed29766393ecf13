//! Pushers (Client-Server API, "Push Notifications").

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json, value::RawValue};
use stoa_accounts::Accounts;
use stoa_http::{Body, Empty, Error, Json, Result, Who};

use crate::{Api, paths::Paths};

pub(crate) fn routes() -> Router<Api> {
    Router::new().v3("/pushers", get(list)).v3("/pushers/set", post(set))
}

#[derive(Serialize)]
struct Pushers {
    pushers: Vec<Box<RawValue>>,
}

/// `GET /_matrix/client/v3/pushers`
async fn list(State(accounts): State<Accounts>, who: Who) -> Result<Json<Pushers>> {
    let rows = accounts.pushers(who.user_no).await?;
    let pushers = rows.iter().map(|json| serde_json::from_slice(json)).collect::<Result<_, _>>();
    Ok(Json(Pushers { pushers: pushers.map_err(Error::internal)? }))
}

#[derive(Deserialize)]
struct Set {
    app_id: String,
    pushkey: String,
    // Said to be nothing, not left out.
    kind: Value,
    app_display_name: Option<String>,
    device_display_name: Option<String>,
    profile_tag: Option<String>,
    lang: Option<String>,
    data: Option<Map<String, Value>>,
    #[serde(default)]
    append: bool,
}

/// `POST /_matrix/client/v3/pushers/set`
async fn set(State(accounts): State<Accounts>, who: Who, Body(body): Body<Set>) -> Result<Empty> {
    if body.kind.is_null() {
        accounts.delete_pusher(who.user_no, &body.app_id, &body.pushkey).await?;
        return Ok(Empty {});
    }
    let json = pusher(&body)?.to_string();
    accounts.set_pusher(&who, &body.app_id, &body.pushkey, json.as_bytes(), body.append).await?;
    Ok(Empty {})
}

/// The pusher as it is listed.
fn pusher(body: &Set) -> Result<Value> {
    let missing = |name: &str| Error::missing_param(format!("{name} is missing"));
    let data = body.data.as_ref().ok_or_else(|| missing("data"))?;
    match body.kind.as_str() {
        Some("http") => check_url(data)?,
        Some("email") => return Err(Error::invalid_param("This server sends no e-mail")),
        _ => return Err(Error::invalid_param("kind is http, email or null")),
    }
    let mut pusher = json!({
        "app_id": body.app_id,
        "pushkey": body.pushkey,
        "kind": body.kind,
        "app_display_name": body.app_display_name.as_ref().ok_or_else(|| missing("app_display_name"))?,
        "device_display_name": body.device_display_name.as_ref().ok_or_else(|| missing("device_display_name"))?,
        "lang": body.lang.as_ref().ok_or_else(|| missing("lang"))?,
        "data": data,
    });
    if let Some(tag) = &body.profile_tag {
        pusher["profile_tag"] = tag.as_str().into();
    }
    Ok(pusher)
}

/// A push gateway is reached at this path and by no other (Push Gateway API).
fn check_url(data: &Map<String, Value>) -> Result<()> {
    let url = data.get("url").ok_or_else(|| Error::missing_param("data.url is missing"))?;
    let url: http::Uri = url.as_str().unwrap_or_default().parse().unwrap_or_default();
    let there = url.authority().is_some() && matches!(url.scheme_str(), Some("https" | "http"));
    if !there || url.path() != "/_matrix/push/v1/notify" {
        return Err(Error::invalid_param("data.url is not https://.../_matrix/push/v1/notify"));
    }
    Ok(())
}
