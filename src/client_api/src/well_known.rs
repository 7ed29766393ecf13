//! How clients find the server (Client-Server API, "Well-known URIs").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use http::{HeaderMap, header, uri::Authority};
use serde_json::{Value, json};
use stoa_http::{Error, Json, Result};

use crate::{Api, Config};

pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/.well-known/matrix/client", get(client))
}

/// `GET /.well-known/matrix/client`
async fn client(State(config): State<Arc<Config>>, headers: HeaderMap) -> Result<Json<Value>> {
    let base_url = match &config.base_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => url_of(&headers).ok_or_else(|| Error::not_found("This server does not say where it is"))?,
    };
    Ok(Json(json!({ "m.homeserver": { "base_url": base_url } })))
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
