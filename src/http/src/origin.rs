//! Which server asks: requests between servers are signed (Server-Server API, "Request Authentication").
//!
//! The check is a layer around all signed endpoints, so that no handler can forget it. It reads the body, because the body is
//! signed too, and gives it on as it came.

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, OriginalUri, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header, request::Parts};
use ruma_common::OwnedServerName;
use stoa_remote::{Remote, XMatrix};

use crate::{Error, Limits, body, limit::Kind};

/// The most bytes of a transaction: 50 events and 100 EDUs of 64 KiB each, with what is around them.
const TRANSACTION_BYTES: usize = 10 << 20;
/// How many signatures of one request are looked at.
const SIGNATURES: usize = 4;

/// The server that signed the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(pub OwnedServerName);

/// The body of a signed request as it came, which may be larger and nested deeper than those of clients.
#[derive(Clone, Debug)]
pub struct SignedBody(pub Bytes);

/// What the check needs.
#[derive(Clone)]
pub struct Gate {
    /// The keys of other servers.
    pub remote: Remote,
    /// How much each of them may ask.
    pub limits: Limits,
}

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let origin = parts.extensions.get::<Origin>().cloned();
        origin.ok_or_else(|| Error::internal("a signed endpoint stands outside of the check of signatures"))
    }
}

impl<S: Send + Sync> FromRequest<S> for SignedBody {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        body::read(request.into_body(), TRANSACTION_BYTES).await.map(SignedBody)
    }
}

/// The layer.
pub async fn signed(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    match gate.check(request).await {
        Ok(request) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

impl Gate {
    async fn check(&self, request: Request) -> Result<Request, Error> {
        let (mut parts, body) = request.into_parts();
        let claims = claims(&parts.headers)?;
        // Nobody sends us megabytes with a name that we would not hear.
        self.worth_reading(&claims)?;
        let limit = match parts.uri.path().starts_with("/_matrix/federation/v1/send/") {
            true => TRANSACTION_BYTES,
            false => body::JSON_BYTES,
        };
        let bytes = body::read(body, limit).await?;
        let origin = self.verify(&parts, &claims, &bytes).await?;
        self.limits.take(Kind::Federation, &origin)?;
        self.remote.heard_from(&origin).await;
        parts.extensions.insert(Origin(origin));
        Ok(Request::from_parts(parts, Body::from(bytes)))
    }

    fn worth_reading(&self, claims: &[XMatrix]) -> Result<(), Error> {
        let us = self.remote.server();
        let ours = |claim: &XMatrix| claim.destination.as_ref().is_none_or(|destination| destination == us);
        if !claims.iter().any(ours) {
            return Err(unauthorized("the request is meant for another server"));
        }
        match claims.iter().find(|claim| self.remote.is_allowed(&claim.origin)) {
            Some(_) => Ok(()),
            None => Err(Error::forbidden("this server does not federate with that server")),
        }
    }

    /// The server whose signature holds. One that does is enough.
    async fn verify(&self, parts: &Parts, claims: &[XMatrix], bytes: &[u8]) -> Result<OwnedServerName, Error> {
        let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
        let uri = uri.path_and_query().map_or("/", |uri| uri.as_str());
        let mut refused = unauthorized("the request is not signed");
        for claim in claims {
            let checked = self
                .remote
                .keys()
                .verify_request(
                    parts.method.as_str(),
                    uri,
                    &claim.origin,
                    claim.destination.as_deref(),
                    &claim.key,
                    &claim.sig,
                    Some(bytes),
                )
                .await;
            match checked {
                Ok(()) => return Ok(claim.origin.clone()),
                Err(why) => {
                    tracing::debug!(origin = %claim.origin, key = %claim.key, %why, "a signed request is refused");
                    refused = why.into();
                }
            }
        }
        Err(refused)
    }
}

/// All that the headers claim. Headers of other schemes are passed over.
fn claims(headers: &HeaderMap) -> Result<Vec<XMatrix>, Error> {
    let mut refused = "the request is not signed".to_owned();
    let mut claims = Vec::new();
    for value in headers.get_all(header::AUTHORIZATION).iter().take(SIGNATURES) {
        let Ok(text) = value.to_str() else { continue };
        match XMatrix::parse(text) {
            Ok(claim) => claims.push(claim),
            Err(why) => refused = why.to_string(),
        }
    }
    if claims.is_empty() { Err(unauthorized(refused)) } else { Ok(claims) }
}

fn unauthorized(why: impl Into<String>) -> Error {
    Error::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", why)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn claims_are_read_from_all_headers() {
        let good = r#"X-Matrix origin="a.example",destination="b.example",key="ed25519:1",sig="AAAA""#;
        let other = r#"X-Matrix origin="a.example",destination="b.example",key="ed25519:2",sig="BBBB""#;
        let found = claims(&headers(&[good, "Bearer x", other])).unwrap();
        assert_eq!(found.iter().map(|claim| claim.key.as_str()).collect::<Vec<_>>(), ["ed25519:1", "ed25519:2"]);
        for bad in [&[][..], &["Bearer x"], &["X-Matrix origin=a.example"]] {
            let error = claims(&headers(bad)).unwrap_err();
            assert_eq!((error.status.as_u16(), error.errcode), (401, "M_UNAUTHORIZED"));
        }
        assert_eq!(claims(&headers(&[good; 100])).unwrap().len(), SIGNATURES);
    }
}
