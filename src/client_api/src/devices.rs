//! Devices (Client-Server API, "Device Management").

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stoa_accounts::{Accounts, DeviceInfo, uia::AuthData};
use stoa_http::{Body, Empty, Json, Result, Segments, Who};

use crate::{Api, paths::Paths};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/devices", get(list))
        .v3("/devices/{deviceId}", get(one).put(rename).delete(delete))
        .v3("/delete_devices", post(delete_many))
}

#[derive(Serialize)]
struct Device {
    device_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_ts: Option<u64>,
}

impl From<DeviceInfo> for Device {
    fn from(device: DeviceInfo) -> Self {
        let DeviceInfo { id, name, last_seen_ts, last_seen_ip } = device;
        Device { device_id: id, display_name: name, last_seen_ip, last_seen_ts }
    }
}

/// `GET /_matrix/client/v3/devices`
async fn list(State(accounts): State<Accounts>, who: Who) -> Result<Json<Value>> {
    let devices: Vec<_> = accounts.devices(who.user_no).await?.into_iter().map(Device::from).collect();
    Ok(Json(json!({ "devices": devices })))
}

/// `GET /_matrix/client/v3/devices/{deviceId}`
async fn one(State(accounts): State<Accounts>, who: Who, Segments(id): Segments<String>) -> Result<Json<Device>> {
    Ok(Json(accounts.device(who.user_no, &id).await?.into()))
}

#[derive(Deserialize)]
struct Rename {
    display_name: Option<String>,
}

/// `PUT /_matrix/client/v3/devices/{deviceId}`. Application services make devices by it (v1.17, "Device management").
async fn rename(
    State(accounts): State<Accounts>,
    who: Who,
    Segments(id): Segments<String>,
    Body(body): Body<Rename>,
) -> Result<(StatusCode, Empty)> {
    let name = body.display_name.as_deref();
    if who.service.is_some() && accounts.put_device(&who, &id, name).await? {
        return Ok((StatusCode::CREATED, Empty {}));
    }
    if who.service.is_none() {
        accounts.rename_device(who.user_no, &id, name).await?;
    }
    Ok((StatusCode::OK, Empty {}))
}

#[derive(Deserialize)]
struct Delete {
    auth: Option<AuthData>,
}

/// `DELETE /_matrix/client/v3/devices/{deviceId}`
async fn delete(
    State(accounts): State<Accounts>,
    who: Who,
    Segments(id): Segments<String>,
    Body(body): Body<Delete>,
) -> Result<Empty> {
    accounts.delete_devices(&who, &[id], body.auth.as_ref()).await?;
    Ok(Empty {})
}

#[derive(Deserialize)]
struct DeleteMany {
    auth: Option<AuthData>,
    devices: Vec<String>,
}

/// `POST /_matrix/client/v3/delete_devices`
async fn delete_many(State(accounts): State<Accounts>, who: Who, Body(body): Body<DeleteMany>) -> Result<Empty> {
    accounts.delete_devices(&who, &body.devices, body.auth.as_ref()).await?;
    Ok(Empty {})
}
