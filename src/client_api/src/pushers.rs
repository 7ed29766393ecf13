//! Pushers, and what they would have been told (Client-Server API, "Push Notifications").

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stoa_accounts::{Accounts, NewPusher};
use stoa_http::{Body, Empty, Error, Json, JsonBytes, Params, Result, Who};
use stoa_notify::push::{NotActivated, Push};
use stoa_store::rows::pushers::Pusher;
use stoa_view::{NotificationsRequest, View};

use crate::{Api, paths::Paths, sync::viewer};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/pushers", get(list))
        .v3("/pushers/set", post(set))
        .v3("/pushers/ack", post(activate))
        .unstable("/org.matrix.msc4174/pushers/ack", post(activate))
        .v3("/notifications", get(notifications))
}

/// `GET /_matrix/client/v3/pushers`
async fn list(State(accounts): State<Accounts>, who: Who) -> Result<Json<Value>> {
    let rows = accounts.pushers(who.user_no).await?;
    let pushers = rows.iter().map(listed).collect::<Result<Vec<_>>>()?;
    Ok(Json(json!({ "pushers": pushers })))
}

/// A pusher as its owner set it, with what this server knows of it (MSC3881, MSC4174).
fn listed(row: &Pusher) -> Result<Value> {
    let mut pusher: Value = serde_json::from_slice(&row.json).map_err(Error::internal)?;
    pusher["org.matrix.msc3881.enabled"] = (!row.disabled).into();
    pusher["org.matrix.msc3881.device_id"] = row.device.as_str().into();
    if pusher["kind"].as_str().is_some_and(Push::is_web_push) {
        pusher["activated"] = (!row.dormant).into();
        pusher["data"]["activated"] = (!row.dormant).into();
    }
    Ok(pusher)
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
    #[serde(default, rename = "org.matrix.msc3881.enabled")]
    enabled: Option<bool>,
}

/// `POST /_matrix/client/v3/pushers/set`
async fn set(
    State(accounts): State<Accounts>,
    State(push): State<Option<Push>>,
    who: Who,
    Body(body): Body<Set>,
) -> Result<(StatusCode, Empty)> {
    if body.kind.is_null() {
        accounts.delete_pusher(who.user_no, &body.app_id, &body.pushkey).await?;
        return Ok((StatusCode::OK, Empty {}));
    }
    let web_push = body.kind.as_str().is_some_and(Push::is_web_push);
    let new = NewPusher {
        json: pusher(&body, push.as_ref())?.to_string().into_bytes(),
        append: body.append,
        disabled: body.enabled == Some(false),
        to_be_shown: web_push,
        app: body.app_id,
        key: body.pushkey,
    };
    let dormant = accounts.set_pusher(&who, &new).await?;
    let Some(push) = push.filter(|_| dormant) else { return Ok((StatusCode::OK, Empty {})) };
    push.ask_back(who.user_no, &new.app, &new.key);
    // "The pusher is set but needs to be activated".
    Ok((StatusCode::CREATED, Empty {}))
}

#[derive(Deserialize)]
struct Activate {
    app_id: String,
    ack_token: String,
}

/// `POST /_matrix/client/v3/pushers/ack` (MSC4174)
async fn activate(State(push): State<Option<Push>>, who: Who, Body(body): Body<Activate>) -> Result<Empty> {
    let push = push.ok_or_else(|| Error::not_found("there is no pusher of that app"))?;
    let activated = push.activate(who.user_no, &body.app_id, &body.ack_token).await.map_err(Error::internal)?;
    activated.map(|()| Empty {}).map_err(|why| match why {
        NotActivated::NoPusher => Error::not_found(why.to_string()),
        NotActivated::Expired => Error::new(StatusCode::GONE, "M_EXPIRED_ACTIVATION_TOKEN", why.to_string()),
        NotActivated::Unknown => Error::new(StatusCode::BAD_REQUEST, "M_UNKNOWN_ACTIVATION_TOKEN", why.to_string()),
    })
}

/// The pusher as it is listed.
fn pusher(body: &Set, push: Option<&Push>) -> Result<Value> {
    let missing = |name: &str| Error::missing_param(format!("{name} is missing"));
    let data = body.data.as_ref().ok_or_else(|| missing("data"))?;
    match body.kind.as_str() {
        Some("http") => check_gateway(&url(data, push)?)?,
        Some(kind) if Push::is_web_push(kind) => check_subscription(body, data, push)?,
        Some("email") => return Err(Error::invalid_param("This server sends no e-mail")),
        _ => return Err(Error::invalid_param("kind is http, webpush, email or null")),
    }
    let mut data = data.clone();
    // For the server to say.
    data.remove("activated");
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

/// `data.url`: "MUST be an HTTPS URL", unless the settings say otherwise.
fn url(data: &Map<String, Value>, push: Option<&Push>) -> Result<http::Uri> {
    let url = data.get("url").ok_or_else(|| Error::missing_param("data.url is missing"))?;
    let url: http::Uri = url.as_str().unwrap_or_default().parse().unwrap_or_default();
    let scheme = match url.scheme_str() {
        Some("https") => true,
        Some("http") => push.is_some_and(Push::allows_http),
        _ => false,
    };
    match scheme && url.authority().is_some() {
        true => Ok(url),
        false => Err(Error::invalid_param("data.url is not an HTTPS URL")),
    }
}

/// A push gateway is reached at this path and by no other (Push Gateway API).
fn check_gateway(url: &http::Uri) -> Result<()> {
    match url.path() {
        "/_matrix/push/v1/notify" => Ok(()),
        _ => Err(Error::invalid_param("data.url is not https://.../_matrix/push/v1/notify")),
    }
}

/// The push service of a browser, and the keys that its messages are encrypted with (MSC4174).
fn check_subscription(body: &Set, data: &Map<String, Value>, push: Option<&Push>) -> Result<()> {
    if push.is_none() {
        return Err(Error::invalid_param("This server sends no Web Push"));
    }
    url(data, push)?;
    let auth = data.get("auth").ok_or_else(|| Error::missing_param("data.auth is missing"))?;
    match Push::is_subscription(&body.pushkey, auth.as_str().unwrap_or_default()) {
        true => Ok(()),
        false => Err(Error::invalid_param("pushkey and data.auth are not a P-256 key and 16 bytes in base64")),
    }
}

#[derive(Deserialize)]
struct Query {
    from: Option<String>,
    limit: Option<u64>,
    only: Option<String>,
}

/// `GET /_matrix/client/v3/notifications`
async fn notifications(State(view): State<View>, who: Who, Params(query): Params<Query>) -> Result<JsonBytes> {
    let request = NotificationsRequest {
        viewer: viewer(&who),
        from: query.from,
        limit: query.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        only_highlights: query.only.as_deref() == Some("highlight"),
    };
    Ok(JsonBytes(view.notifications(&request).await?.into()))
}
