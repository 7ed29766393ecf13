//! One request to another server: may it be asked, is it its turn, signing, sending, and what the answer says of the
//! server.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use stoa_event::{
    ids::{OwnedServerName, ServerName},
    sign::SigningKey,
};
use stoa_store::Env;

use crate::{
    allow::Lists,
    backoff::{Attempt, Destinations},
    config::Tuning,
    error::{Answer, Error},
    transport::{Limits, Transport, TransportError},
    xmatrix::{self, XMatrix},
};

/// How a request is made that is not as all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How long the answer may take.
    pub timeout: Option<Duration>,
    /// How large the answer may be.
    pub max_response: Option<usize>,
    /// Whether it is also made when the server failed lately.
    pub ignore_backoff: bool,
}

/// What every request needs.
pub(crate) struct Caller {
    pub(crate) env: Env,
    pub(crate) server: OwnedServerName,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) destinations: Destinations,
    pub(crate) lists: Lists,
    pub(crate) tuning: Tuning,
}

impl Caller {
    /// Sends a request, and gives an answer that is a success.
    pub(crate) async fn send(
        &self,
        to: &ServerName,
        mut request: http::Request<Bytes>,
        signed: bool,
        options: Options,
    ) -> Result<http::Response<Bytes>, Error> {
        self.prepare(to, &mut request, signed)?;
        let limits = Limits {
            timeout: options.timeout.unwrap_or(Duration::from_millis(self.tuning.timeout_ms)),
            max_bytes: options.max_response.unwrap_or(self.tuning.max_response),
        };
        let attempt = self.destinations.begin(to, options.ignore_backoff, limits.timeout).await?;
        tracing::debug!(%to, method = %request.method(), path = request.uri().path(), "asking another server");
        let answer = tokio::time::timeout(limits.timeout, self.transport.call(to, request, limits)).await;
        match answer.unwrap_or(Err(TransportError::Timeout)) {
            Ok(answer) if answer.body().len() > limits.max_bytes => {
                attempt.succeeded().await;
                Err(TransportError::TooLarge(limits.max_bytes).into())
            }
            Ok(answer) if answer.status().is_success() => {
                attempt.succeeded().await;
                Ok(answer)
            }
            Ok(answer) => Err(self.refused(&attempt, answer).await),
            Err(why) => {
                tracing::debug!(%to, %why, "another server did not answer");
                // Too much of an answer is an answer.
                if !matches!(why, TransportError::TooLarge(_)) {
                    attempt.failed().await;
                }
                Err(why.into())
            }
        }
    }

    /// Makes a request ready, if that server may be asked.
    pub(crate) fn prepare(
        &self,
        to: &ServerName,
        request: &mut http::Request<Bytes>,
        signed: bool,
    ) -> Result<(), Error> {
        if to == self.server {
            return Err(Error::Ourselves);
        }
        if !self.lists.allows(to) {
            return Err(Error::NotAllowed(to.to_owned()));
        }
        if signed {
            self.sign(to, request)?;
        }
        const AGENT: HeaderValue = HeaderValue::from_static(concat!("Stoa/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, AGENT);
        Ok(())
    }

    /// What an answer says that is no success.
    async fn refused(&self, attempt: &Attempt<'_>, answer: http::Response<Bytes>) -> Error {
        let status = answer.status();
        let answer = read_error(answer);
        if status == StatusCode::TOO_MANY_REQUESTS {
            if let Some(wait) = answer.retry_after_ms {
                attempt.asked_to_wait(wait).await;
            }
        } else if !status.is_client_error() {
            attempt.failed().await;
        } else if answer.errcode.is_some() {
            // Without an errcode it may be a web server where once a homeserver was: that tells nothing.
            attempt.succeeded().await;
        }
        Error::Answer(Box::new(answer))
    }

    fn sign(&self, to: &ServerName, request: &mut http::Request<Bytes>) -> Result<(), Error> {
        let uri = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let method = request.method().as_str();
        let message = xmatrix::signed_bytes(method, uri, &self.server, to, Some(request.body()))
            .map_err(|why| Error::Request(why.to_string()))?;
        let signature = XMatrix {
            origin: self.server.clone(),
            destination: Some(to.to_owned()),
            key: self.key.id().to_owned(),
            sig: self.key.sign_base64(&message),
        };
        let value = HeaderValue::try_from(signature.to_string()).map_err(|why| Error::Request(why.to_string()))?;
        request.headers_mut().insert(header::AUTHORIZATION, value);
        Ok(())
    }
}

/// Reads an answer that is no success.
pub(crate) fn read_error(answer: http::Response<Bytes>) -> Answer {
    #[derive(Default, serde::Deserialize)]
    struct Body {
        errcode: Option<String>,
        error: Option<String>,
        retry_after_ms: Option<u64>,
    }
    let header = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let header = header.and_then(|seconds| seconds.trim().parse::<u64>().ok()).map(|s| s.saturating_mul(1000));
    let body: Body = serde_json::from_slice(answer.body()).unwrap_or_default();
    Answer {
        status: answer.status().as_u16(),
        errcode: body.errcode,
        message: body.error,
        retry_after_ms: header.or(body.retry_after_ms),
        body: answer.into_body(),
    }
}
