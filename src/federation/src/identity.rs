//! Identity servers (Identity Service API): whose an address is, invites that wait there for who proves an address, and
//! whether their keys still hold. They are named by users, so nothing they say is believed beyond that, and they are
//! reached at public addresses only.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{Request, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use stoa_event::{
    hash::{base64_encode, sha256},
    ids::{OwnedServerName, OwnedUserId, ServerName},
};
use stoa_remote::Limits;

use crate::{Error, Inner};

/// How long an identity server may take, and how much it may say.
const LIMITS: Limits = Limits { timeout: Duration::from_secs(20), max_bytes: 1 << 16 };
/// How long a token may be.
const MAX_TOKEN: usize = 255;

/// An invite by a third-party identifier, as a client asks for it.
#[derive(Clone, Debug, Deserialize)]
pub struct ThirdParty {
    /// The identity server.
    pub id_server: OwnedServerName,
    /// The user's access token there.
    pub id_access_token: String,
    /// `email` or `msisdn`.
    pub medium: String,
    /// The address.
    pub address: String,
}

/// What an identity server says of an invite that waits there.
#[derive(Deserialize)]
pub(crate) struct Stored {
    pub(crate) token: String,
    pub(crate) public_keys: Vec<Key>,
    pub(crate) display_name: String,
}

/// A key with which an identity server signs, and where it is told whether it holds.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
pub(crate) struct Key {
    pub(crate) public_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_validity_url: Option<String>,
}

#[derive(Deserialize)]
struct HashDetails {
    algorithms: Vec<String>,
    lookup_pepper: String,
}

#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    mappings: BTreeMap<String, OwnedUserId>,
}

#[derive(Deserialize)]
struct Validity {
    valid: bool,
}

impl Inner {
    async fn ask_identity<T: DeserializeOwned>(
        &self,
        of: &ThirdParty,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, Error> {
        let url = format!("https://{}/_matrix/identity/v2/{path}", of.id_server);
        let request = if body.is_some() { Request::post(url) } else { Request::get(url) };
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", of.id_access_token))
            .body(body.map(|body| Bytes::from(body.to_string())).unwrap_or_default())
            .map_err(|_| Error::Bad("id_access_token cannot be sent".into()))?;
        self.ask_outside(request).await
    }

    async fn ask_outside<T: DeserializeOwned>(&self, request: Request<Bytes>) -> Result<T, Error> {
        let answer = self.remote.ask_url(request, LIMITS).await?;
        let read = serde_json::from_slice(answer.body());
        Ok(read.map_err(|why| stoa_remote::Error::Malformed(why.to_string()))?)
    }

    /// Whose an address is, if anybody's (`POST /_matrix/identity/v2/lookup`).
    pub(crate) async fn look_up(&self, of: &ThirdParty) -> Result<Option<OwnedUserId>, Error> {
        let HashDetails { algorithms, lookup_pepper } = self.ask_identity(of, "hash_details", None).await?;
        if !algorithms.iter().any(|algorithm| algorithm == "sha256") {
            return Err(Error::Bad(format!("{} does not know sha256", of.id_server)));
        }
        let hash = sha256(format!("{} {} {lookup_pepper}", of.address, of.medium).as_bytes());
        let hash = base64_encode(&hash).replace('+', "-").replace('/', "_");
        let body = json!({ "algorithm": "sha256", "pepper": lookup_pepper, "addresses": [hash] });
        let mut found: Found = self.ask_identity(of, "lookup", Some(body)).await?;
        Ok(found.mappings.remove(&hash))
    }

    /// Leaves an invite there for who proves the address (`POST /_matrix/identity/v2/store-invite`).
    pub(crate) async fn store_invite(&self, of: &ThirdParty, about: Value) -> Result<Stored, Error> {
        let stored: Stored = self.ask_identity(of, "store-invite", Some(about)).await?;
        let fits = |c: char| c.is_ascii_alphanumeric() || ".=_-".contains(c);
        if stored.token.is_empty() || stored.token.len() > MAX_TOKEN || !stored.token.chars().all(fits) {
            return Err(Error::Bad(format!("{} gave no token", of.id_server)));
        }
        Ok(stored)
    }

    /// Whether the identity server still stands by a key.
    pub(crate) async fn is_valid(&self, key: &Key) -> bool {
        let Some(url) = &key.key_validity_url else { return true };
        let (joint, key) =
            (if url.contains('?') { '&' } else { '?' }, utf8_percent_encode(&key.public_key, NON_ALPHANUMERIC));
        let Ok(request) = Request::get(format!("{url}{joint}public_key={key}")).body(Bytes::new()) else {
            return false;
        };
        match self.ask_outside::<Validity>(request).await {
            Ok(Validity { valid }) => valid,
            Err(why) => {
                tracing::info!(%why, "an identity server does not say whether its key is valid");
                false
            }
        }
    }

    /// Whether the settings let us speak with an identity server.
    pub(crate) fn may_ask(&self, server: &ServerName) -> Result<(), Error> {
        match self.remote.is_allowed(server) {
            true => Ok(()),
            false => Err(Error::Forbidden(format!("this server does not speak with {server}"))),
        }
    }
}
