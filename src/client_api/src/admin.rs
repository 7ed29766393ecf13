//! What administrators ask and do (Client-Server API, "Server Administration", "Account moderation").

use axum::{Router, extract::State, routing::get};
use ruma_common::OwnedUserId;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stoa_accounts::{Accounts, DeviceInfo, Measure};
use stoa_http::{Body, Json, Result, Segments, Who};

use crate::{Api, paths::Paths};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/admin/whois/{userId}", get(whois))
        .v1("/admin/lock/{userId}", get(locked).put(lock))
        .v1("/admin/suspend/{userId}", get(suspended).put(suspend))
        // MSC4323, from before 1.18.
        .unstable("/uk.timedout.msc4323/admin/lock/{userId}", get(locked).put(lock))
        .unstable("/uk.timedout.msc4323/admin/suspend/{userId}", get(suspended).put(suspend))
}

/// `GET /_matrix/client/v3/admin/whois/{userId}`
async fn whois(
    who: Who,
    State(accounts): State<Accounts>,
    Segments(user): Segments<OwnedUserId>,
) -> Result<Json<Value>> {
    let devices = accounts.whois(&who, &user).await?;
    let shown = devices.into_iter().map(|device| (device.id.clone(), sessions(&device)));
    Ok(Json(json!({ "user_id": user, "devices": shown.collect::<Map<String, Value>>() })))
}

fn sessions(device: &DeviceInfo) -> Value {
    let mut connection = Map::new();
    if let Some(ip) = &device.last_seen_ip {
        connection.insert("ip".into(), ip.clone().into());
    }
    if let Some(seen) = device.last_seen_ts {
        connection.insert("last_seen".into(), seen.into());
    }
    json!({ "sessions": [{ "connections": [connection] }] })
}

#[derive(Deserialize)]
struct Lock {
    locked: bool,
}

#[derive(Deserialize)]
struct Suspend {
    suspended: bool,
}

/// `GET /_matrix/client/v1/admin/lock/{userId}`
async fn locked(
    who: Who,
    State(accounts): State<Accounts>,
    Segments(user): Segments<OwnedUserId>,
) -> Result<Json<Value>> {
    Ok(Json(json!({ "locked": accounts.measure(&who, &user, Measure::Lock).await? })))
}

/// `PUT /_matrix/client/v1/admin/lock/{userId}`
async fn lock(
    who: Who,
    State(accounts): State<Accounts>,
    Segments(user): Segments<OwnedUserId>,
    Body(Lock { locked }): Body<Lock>,
) -> Result<Json<Value>> {
    accounts.set_measure(&who, &user, Measure::Lock, locked).await?;
    Ok(Json(json!({ "locked": locked })))
}

/// `GET /_matrix/client/v1/admin/suspend/{userId}`
async fn suspended(
    who: Who,
    State(accounts): State<Accounts>,
    Segments(user): Segments<OwnedUserId>,
) -> Result<Json<Value>> {
    Ok(Json(json!({ "suspended": accounts.measure(&who, &user, Measure::Suspend).await? })))
}

/// `PUT /_matrix/client/v1/admin/suspend/{userId}`
async fn suspend(
    who: Who,
    State(accounts): State<Accounts>,
    Segments(user): Segments<OwnedUserId>,
    Body(Suspend { suspended }): Body<Suspend>,
) -> Result<Json<Value>> {
    accounts.set_measure(&who, &user, Measure::Suspend, suspended).await?;
    Ok(Json(json!({ "suspended": suspended })))
}
