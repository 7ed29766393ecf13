//! What calls need beside rooms: relays for two (Client-Server API, "Voice over IP") and the infrastructure of group calls
//! (MSC4143).

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha1::Sha1;
use stoa_http::{Json, Who};
use stoa_store::Env;

use crate::{Api, Config, paths::Paths};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/voip/turnServer", get(turn_server))
        .v1("/rtc/transports", get(transports))
        .unstable("/org.matrix.msc4143/rtc/transports", get(transports))
}

/// The relays that calls go by where two cannot reach each other.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Turn {
    /// Where they are: `turn:turn.example.org?transport=udp`.
    pub uris: Vec<String>,
    /// What they share with this server (coturn's `static-auth-secret`).
    pub secret: String,
    /// For how many seconds a user name and password hold.
    pub ttl: u64,
}

impl Default for Turn {
    fn default() -> Self {
        Turn { uris: Vec::new(), secret: String::new(), ttl: 24 * 60 * 60 }
    }
}

/// The infrastructure of group calls.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rtc {
    /// The transports, the preferred one first, as clients are told them: each has a `type`.
    pub transports: Vec<Map<String, Value>>,
}

impl Turn {
    /// Whether it can be used.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check(&self) -> Result<(), String> {
        if let Some(uri) = self.uris.iter().find(|uri| !uri.starts_with("turn:") && !uri.starts_with("turns:")) {
            return Err(format!("`{uri}` must begin with turn: or turns:"));
        }
        match (self.uris.is_empty(), self.secret.is_empty(), self.ttl) {
            (false, true, _) => Err("there are uris, but no secret".to_owned()),
            (true, false, _) => Err("there is a secret, but no uris".to_owned()),
            (false, _, 0) => Err("ttl is 0: no password would ever hold".to_owned()),
            _ => Ok(()),
        }
    }

    /// The password that goes with a user name: what the relays work out too, by the convention "A REST API For Access To TURN
    /// Services" (draft-uberti-behave-turn-rest-00).
    fn password(&self, name: &str) -> Option<String> {
        let mut mac = Hmac::<Sha1>::new_from_slice(self.secret.as_bytes()).ok()?;
        mac.update(name.as_bytes());
        Some(STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl Rtc {
    /// Whether it can be used.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check(&self) -> Result<(), String> {
        let typed = |transport: &Map<String, Value>| transport.get("type").is_some_and(Value::is_string);
        match self.transports.iter().all(typed) {
            true => Ok(()),
            false => Err("each of the transports needs a type".to_owned()),
        }
    }
}

/// `GET /_matrix/client/v3/voip/turnServer`: nothing where there are no relays.
async fn turn_server(who: Who, State(env): State<Env>, State(config): State<Arc<Config>>) -> Json<Value> {
    let turn = &config.turn;
    let name = format!("{}:{}", env.now_ms() / 1000 + turn.ttl, who.user);
    match turn.password(&name).filter(|_| !turn.uris.is_empty()) {
        Some(password) => Json(json!({ "username": name, "password": password, "uris": turn.uris, "ttl": turn.ttl })),
        None => Json(json!({})),
    }
}

/// `GET /_matrix/client/v1/rtc/transports` (MSC4143)
async fn transports(_: Who, State(config): State<Arc<Config>>) -> Json<Value> {
    Json(json!({ "rtc_transports": config.rtc.transports }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_what_the_relay_works_out() {
        // printf '%s' 1443779631:@user:example.com | openssl dgst -sha1 -hmac north -binary | base64
        let turn = Turn { secret: "north".into(), ..Turn::default() };
        assert_eq!(turn.password("1443779631:@user:example.com").as_deref(), Some("lamN4QwbavBEEp/krb3yR5mgsEg="));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let turn = |uri: &str, secret: &str| Turn { uris: vec![uri.into()], secret: secret.into(), ttl: 60 };
        assert!(turn("turns:a.example", "s").check().is_ok());
        assert!(turn("turn:a.example", "").check().is_err());
        assert!(turn("stun:a.example", "s").check().is_err());
        assert!(Turn::default().check().is_ok());
        assert!(Turn { secret: "s".into(), ..Turn::default() }.check().is_err());
        assert!(Rtc { transports: vec![Map::new()] }.check().is_err());
    }
}
