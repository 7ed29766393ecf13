//! Server-side key backup (Client-Server API, "Server-side key backups").

use std::collections::BTreeMap;

use axum::{Router, extract::State, routing::get};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stoa_accounts::{Accounts, BackupKeys, NumberedVersion, Which};
use stoa_http::{Body, Empty, Error, Json, Params, Result, Segments, Who};
use stoa_store::rows::key_backup::BackupVersion;

use crate::{Api, paths::Paths};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/room_keys/version", get(current).post(create))
        .v3("/room_keys/version/{version}", get(one).put(update).delete(delete))
        .v3("/room_keys/keys", get(all_keys).put(put_all).delete(delete_all))
        .v3("/room_keys/keys/{roomId}", get(room_keys).put(put_room).delete(delete_room))
        .v3("/room_keys/keys/{roomId}/{sessionId}", get(key).put(put_key).delete(delete_key))
}

#[derive(Deserialize)]
struct Backup {
    algorithm: String,
    auth_data: Map<String, Value>,
    version: Option<String>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Sessions {
    sessions: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Rooms {
    rooms: BTreeMap<String, Sessions>,
}

fn describe((version, row): NumberedVersion) -> Json<Value> {
    let auth_data: Value = serde_json::from_slice(&row.auth_data).unwrap_or_default();
    Json(json!({
        "algorithm": row.algorithm,
        "auth_data": auth_data,
        "count": row.count,
        "etag": row.etag.to_string(),
        "version": version.to_string(),
    }))
}

fn counted(row: &BackupVersion) -> Json<Value> {
    Json(json!({ "count": row.count, "etag": row.etag.to_string() }))
}

/// `POST /_matrix/client/v3/room_keys/version`
async fn create(State(accounts): State<Accounts>, who: Who, Body(body): Body<Backup>) -> Result<Json<Value>> {
    let version = accounts.create_backup(&who, body.algorithm, &body.auth_data).await?;
    Ok(Json(json!({ "version": version.to_string() })))
}

/// `GET /_matrix/client/v3/room_keys/version`
async fn current(State(accounts): State<Accounts>, who: Who) -> Result<Json<Value>> {
    Ok(describe(accounts.backup(&who, None).await?))
}

/// `GET /_matrix/client/v3/room_keys/version/{version}`
async fn one(State(accounts): State<Accounts>, who: Who, Segments(version): Segments<String>) -> Result<Json<Value>> {
    Ok(describe(accounts.backup(&who, Some(&version)).await?))
}

/// `PUT /_matrix/client/v3/room_keys/version/{version}`
async fn update(
    State(accounts): State<Accounts>,
    who: Who,
    Segments(version): Segments<String>,
    Body(body): Body<Backup>,
) -> Result<Empty> {
    if body.version.is_some_and(|named| named != version) {
        return Err(Error::invalid_param("The version in the body is not the one in the path"));
    }
    accounts.update_backup(&who, &version, &body.algorithm, &body.auth_data).await?;
    Ok(Empty {})
}

/// `DELETE /_matrix/client/v3/room_keys/version/{version}`
async fn delete(State(accounts): State<Accounts>, who: Who, Segments(version): Segments<String>) -> Result<Empty> {
    accounts.delete_backup(&who, &version).await?;
    Ok(Empty {})
}

fn by_room(keys: BackupKeys) -> Value {
    let rooms: Map<String, Value> =
        keys.into_iter().map(|(room, sessions)| (room, json!({ "sessions": sessions }))).collect();
    json!({ "rooms": rooms })
}

/// `GET /_matrix/client/v3/room_keys/keys`
async fn all_keys(State(accounts): State<Accounts>, who: Who, Params(query): Params<Version>) -> Result<Json<Value>> {
    Ok(Json(by_room(accounts.backup_keys(&who, &query.version, &Which::default()).await?)))
}

/// `GET /_matrix/client/v3/room_keys/keys/{roomId}`
async fn room_keys(
    State(accounts): State<Accounts>,
    who: Who,
    Segments(room): Segments<String>,
    Params(query): Params<Version>,
) -> Result<Json<Value>> {
    let which = Which { room: Some(room.clone()), session: None };
    let mut keys = accounts.backup_keys(&who, &query.version, &which).await?;
    Ok(Json(json!({ "sessions": keys.remove(&room).unwrap_or_default() })))
}

/// `GET /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}`
async fn key(
    State(accounts): State<Accounts>,
    who: Who,
    Segments((room, session)): Segments<(String, String)>,
    Params(query): Params<Version>,
) -> Result<Json<Value>> {
    let which = Which { room: Some(room.clone()), session: Some(session.clone()) };
    let mut keys = accounts.backup_keys(&who, &query.version, &which).await?;
    let key = keys.remove(&room).and_then(|mut sessions| sessions.remove(&session));
    Ok(Json(key.ok_or_else(|| Error::not_found("There is no such key"))?))
}

/// `PUT /_matrix/client/v3/room_keys/keys`
async fn put_all(
    State(accounts): State<Accounts>,
    who: Who,
    Params(query): Params<Version>,
    Body(body): Body<Rooms>,
) -> Result<Json<Value>> {
    let keys = body.rooms.into_iter().map(|(room, it)| (room, it.sessions)).collect();
    Ok(counted(&accounts.put_backup_keys(&who, &query.version, &keys).await?))
}

/// `PUT /_matrix/client/v3/room_keys/keys/{roomId}`
async fn put_room(
    State(accounts): State<Accounts>,
    who: Who,
    Segments(room): Segments<String>,
    Params(query): Params<Version>,
    Body(body): Body<Sessions>,
) -> Result<Json<Value>> {
    let keys = BackupKeys::from([(room, body.sessions)]);
    Ok(counted(&accounts.put_backup_keys(&who, &query.version, &keys).await?))
}

/// `PUT /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}`
async fn put_key(
    State(accounts): State<Accounts>,
    who: Who,
    Segments((room, session)): Segments<(String, String)>,
    Params(query): Params<Version>,
    Body(body): Body<Map<String, Value>>,
) -> Result<Json<Value>> {
    let keys = BackupKeys::from([(room, BTreeMap::from([(session, Value::Object(body))]))]);
    Ok(counted(&accounts.put_backup_keys(&who, &query.version, &keys).await?))
}

/// `DELETE /_matrix/client/v3/room_keys/keys`
async fn delete_all(State(accounts): State<Accounts>, who: Who, Params(query): Params<Version>) -> Result<Json<Value>> {
    Ok(counted(&accounts.delete_backup_keys(&who, &query.version, &Which::default()).await?))
}

/// `DELETE /_matrix/client/v3/room_keys/keys/{roomId}`
async fn delete_room(
    State(accounts): State<Accounts>,
    who: Who,
    Segments(room): Segments<String>,
    Params(query): Params<Version>,
) -> Result<Json<Value>> {
    let which = Which { room: Some(room), session: None };
    Ok(counted(&accounts.delete_backup_keys(&who, &query.version, &which).await?))
}

/// `DELETE /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}`
async fn delete_key(
    State(accounts): State<Accounts>,
    who: Who,
    Segments((room, session)): Segments<(String, String)>,
    Params(query): Params<Version>,
) -> Result<Json<Value>> {
    let which = Which { room: Some(room), session: Some(session) };
    Ok(counted(&accounts.delete_backup_keys(&who, &query.version, &which).await?))
}
