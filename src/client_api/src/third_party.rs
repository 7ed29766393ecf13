//! Third-party networks (Client-Server API, "Third-party Networks"): what application services know of the networks that they lead
//! to.

use axum::{Router, extract::State, routing::get};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stoa_http::{Error, Json, Params, Result, Segments, Who};
use stoa_notify::appservice::{Appservices, Thirds};

use crate::{Api, paths::Paths};

/// How many fields a question may have, and how long names and values may be, in bytes.
const FIELDS: usize = 20;
const FIELD_BYTES: usize = 512;
/// Parameters that are none of the network's.
const OURS: [&str; 4] = ["access_token", "user_id", "device_id", "org.matrix.msc3202.device_id"];

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/thirdparty/protocols", get(protocols))
        .v3("/thirdparty/protocol/{protocol}", get(protocol))
        .v3("/thirdparty/location", get(by_alias))
        .v3("/thirdparty/location/{protocol}", get(locations))
        .v3("/thirdparty/user", get(by_user))
        .v3("/thirdparty/user/{protocol}", get(users))
}

fn unknown() -> Error {
    Error::not_found("The protocol is unknown")
}

/// `GET /_matrix/client/v3/thirdparty/protocols`
async fn protocols(_: Who, State(services): State<Appservices>) -> Json<Map<String, Value>> {
    Json(services.networks().await)
}

/// `GET /_matrix/client/v3/thirdparty/protocol/{protocol}`
async fn protocol(
    _: Who,
    State(services): State<Appservices>,
    Segments(protocol): Segments<String>,
) -> Result<Json<Value>> {
    services.network(&protocol).await.map(Json).ok_or_else(unknown)
}

type Fields = Vec<(String, String)>;

async fn found(services: &Appservices, what: Thirds, protocol: &str, mut fields: Fields) -> Result<Json<Value>> {
    fields.retain(|(name, _)| !OURS.contains(&name.as_str()));
    if fields.len() > FIELDS || fields.iter().any(|(name, value)| name.len().max(value.len()) > FIELD_BYTES) {
        return Err(Error::invalid_param("that is too much to look for"));
    }
    services.find(what, protocol, &fields).await.map(|found| Json(json!(found))).ok_or_else(unknown)
}

/// `GET /_matrix/client/v3/thirdparty/location/{protocol}`
async fn locations(
    _: Who,
    State(services): State<Appservices>,
    Segments(protocol): Segments<String>,
    Params(fields): Params<Fields>,
) -> Result<Json<Value>> {
    found(&services, Thirds::Locations, &protocol, fields).await
}

/// `GET /_matrix/client/v3/thirdparty/user/{protocol}`
async fn users(
    _: Who,
    State(services): State<Appservices>,
    Segments(protocol): Segments<String>,
    Params(fields): Params<Fields>,
) -> Result<Json<Value>> {
    found(&services, Thirds::Users, &protocol, fields).await
}

#[derive(Deserialize)]
struct Name {
    alias: Option<String>,
    userid: Option<String>,
}

async fn named(services: &Appservices, what: Thirds, name: Option<String>) -> Result<Json<Value>> {
    let found = match name.filter(|name| name.len() <= FIELD_BYTES) {
        Some(name) => services.find_by_name(what, &name).await,
        None => Vec::new(),
    };
    match found.is_empty() {
        true => Err(Error::not_found("No mappings were found")),
        false => Ok(Json(found.into())),
    }
}

/// `GET /_matrix/client/v3/thirdparty/location`: what an alias is called elsewhere.
async fn by_alias(_: Who, State(services): State<Appservices>, Params(name): Params<Name>) -> Result<Json<Value>> {
    named(&services, Thirds::Locations, name.alias).await
}

/// `GET /_matrix/client/v3/thirdparty/user`: what a user is called elsewhere.
async fn by_user(_: Who, State(services): State<Appservices>, Params(name): Params<Name>) -> Result<Json<Value>> {
    named(&services, Thirds::Users, name.userid).await
}
