//! Signing keys, ours and those of others (Server-Server API, "Retrieving server keys"). Anybody may ask.

use std::collections::BTreeMap;

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use ruma_common::OwnedServerName;
use serde::Deserialize;
use stoa_federation::Federation;
use stoa_http::{Error, Ip, JsonBytes, Limits, Params, Raw, Result, Segments, limit::Kind};
use stoa_remote::keys::{Wanted, read_wanted};

use crate::Api;

/// The most servers whose keys one request may ask for.
const SERVERS: usize = 100;

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/_matrix/key/v2/server", get(own))
        // Older servers name the key that they want; the answer always holds all.
        .route("/_matrix/key/v2/server/", get(own))
        .route("/_matrix/key/v2/server/{keyId}", get(own))
        .route("/_matrix/key/v2/query", post(several))
        .route("/_matrix/key/v2/query/{serverName}", get(of_one))
        .route("/_matrix/key/v2/query/{serverName}/{keyId}", get(one_of))
}

#[derive(Deserialize)]
struct Validity {
    minimum_valid_until_ts: Option<u64>,
}

/// `GET /_matrix/key/v2/server`
async fn own(State(federation): State<Federation>) -> Result<JsonBytes> {
    Ok(JsonBytes(federation.remote().keys().own_keys().await?))
}

/// `POST /_matrix/key/v2/query`
async fn several(
    ip: Ip,
    State(limits): State<Limits>,
    State(federation): State<Federation>,
    Raw(body): Raw,
) -> Result<JsonBytes> {
    let wanted = read_wanted(&body).ok_or_else(|| Error::bad_json("server_keys is missing or no map of maps"))?;
    ask(ip, &limits, &federation, wanted).await
}

/// `GET /_matrix/key/v2/query/{serverName}`
async fn of_one(
    ip: Ip,
    State(limits): State<Limits>,
    State(federation): State<Federation>,
    Segments(server): Segments<OwnedServerName>,
    Params(_): Params<Validity>,
) -> Result<JsonBytes> {
    ask(ip, &limits, &federation, Wanted::from([(server, BTreeMap::new())])).await
}

/// `GET /_matrix/key/v2/query/{serverName}/{keyId}`, as it was before the specification's version 1.6.
async fn one_of(
    ip: Ip,
    State(limits): State<Limits>,
    State(federation): State<Federation>,
    Segments((server, key)): Segments<(OwnedServerName, String)>,
    Params(validity): Params<Validity>,
) -> Result<JsonBytes> {
    let keys = BTreeMap::from([(key, validity.minimum_valid_until_ts)]);
    ask(ip, &limits, &federation, Wanted::from([(server, keys)])).await
}

async fn ask(Ip(ip): Ip, limits: &Limits, federation: &Federation, mut wanted: Wanted) -> Result<JsonBytes> {
    limits.take(Kind::Keys, ip)?;
    if wanted.len() > SERVERS {
        // What is not answered counts as not known, which is what the other side must expect anyway.
        wanted = wanted.into_iter().take(SERVERS).collect();
    }
    Ok(JsonBytes(federation.remote().keys().notary(&wanted).await?))
}
