//! How clients and other servers find the server, and people those who run it (Client-Server API, "Well-known URIs";
//! Server-Server API, "Resolving server names").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use http::{HeaderMap, header, uri::Authority};
use ruma_common::OwnedUserId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stoa_http::{Error, Json, Result};

use crate::{Api, Config};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/.well-known/matrix/client", get(client))
        .route("/.well-known/matrix/server", get(server))
        .route("/.well-known/matrix/support", get(support))
}

/// Whom to ask about the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Support {
    /// People.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contacts: Vec<Contact>,
    /// A page with help.
    #[serde(rename(serialize = "support_page"), skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
}

/// Somebody who can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// For what: `m.role.admin`, `m.role.security`, or a name of one's own.
    pub role: String,
    /// A Matrix user, here or elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix_id: Option<OwnedUserId>,
    /// An e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email_address: Option<String>,
}

impl Support {
    /// Whether it says what the specification asks for.
    ///
    /// # Errors
    /// What is missing, for people.
    pub fn check(&self) -> std::result::Result<(), String> {
        let reachable = |contact: &&Contact| contact.matrix_id.is_some() || contact.email_address.is_some();
        if let Some(contact) = self.contacts.iter().find(|contact| !reachable(contact)) {
            return Err(format!("the contact for {} needs a matrix_id or an email_address", contact.role));
        }
        match &self.page {
            Some(page) if !page.starts_with("https://") && !page.starts_with("http://") => {
                Err("page must begin with http:// or https://".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// `GET /.well-known/matrix/client`
async fn client(State(config): State<Arc<Config>>, headers: HeaderMap) -> Result<Json<Value>> {
    let base_url = match &config.base_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => url_of(&headers).ok_or_else(|| Error::not_found("This server does not say where it is"))?,
    };
    let mut found = json!({ "m.homeserver": { "base_url": base_url } });
    if !config.rtc.transports.is_empty() {
        // Where clients look that do not ask `/rtc/transports` yet.
        found["org.matrix.msc4143.rtc_foci"] = json!(config.rtc.transports);
    }
    Ok(Json(found))
}

/// `GET /.well-known/matrix/server`
async fn server(State(config): State<Arc<Config>>) -> Result<Json<Value>> {
    let delegate = config.delegate.as_ref();
    let delegate = delegate.ok_or_else(|| Error::not_found("This server is found under its own name"))?;
    Ok(Json(json!({ "m.server": delegate })))
}

/// `GET /.well-known/matrix/support`
async fn support(State(config): State<Arc<Config>>) -> Result<Json<Support>> {
    match config.support == Support::default() {
        true => Err(Error::not_found("This server does not say whom to ask")),
        false => Ok(Json(config.support.clone())),
    }
}

/// The address that the client used. A proxy that speaks TLS for us says so.
fn url_of(headers: &HeaderMap) -> Option<String> {
    let host: Authority = headers.get(header::HOST)?.to_str().ok()?.parse().ok()?;
    let forwarded = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
    let scheme = if forwarded == Some("https") { "https" } else { "http" };
    Some(format!("{scheme}://{host}"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_address_is_that_of_the_request() {
        let mut headers = HeaderMap::new();
        assert_eq!(url_of(&headers), None);
        headers.insert(header::HOST, HeaderValue::from_static("localhost:8008"));
        assert_eq!(url_of(&headers).as_deref(), Some("http://localhost:8008"));
        headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
        assert_eq!(url_of(&headers).as_deref(), Some("https://localhost:8008"));
        headers.insert(header::HOST, HeaderValue::from_static("a b\"c"));
        assert_eq!(url_of(&headers), None);
    }
}
