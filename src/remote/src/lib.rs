//! Other servers as we call them (Server-Server API): where they are, whose signature is whose, and typed requests to them
//! that leave alone who fails.
//!
//! Nothing here knows rooms or accounts. Who asks gets an answer or an error; what it means is for the floors above.

pub mod addresses;
mod allow;
mod backoff;
mod caller;
pub mod config;
mod deep;
pub mod discovery;
pub mod dns;
mod error;
mod flight;
mod http_transport;
pub mod keys;
pub mod outside;
mod services;
mod stream;
mod transport;
pub mod well_known;
pub mod xmatrix;

use std::sync::Arc;

use bytes::Bytes;
use ruma_common::api::{
    IncomingResponseExt, OutgoingBody, OutgoingRequest,
    auth_scheme::{AuthScheme, NoAuthentication},
    error::IntoHttpError,
    path_builder::{PathBuilder, SinglePath},
};
use ruma_federation_api::authentication::ServerSignatures;
use stoa_event::{
    ids::{OwnedServerName, ServerName},
    sign::SigningKey,
};
use stoa_store::{Env, Store};
use tokio::sync::broadcast;

use crate::{allow::Lists, backoff::Destinations, caller::Caller};
pub use crate::{
    caller::Options,
    config::Config,
    error::{Answer, Error, Unauthorized},
    http_transport::{BuildError, HttpTransport},
    keys::KeyRing,
    services::ServiceClient,
    stream::{Pace, Pieces},
    transport::{Limits, Transport, TransportError},
    xmatrix::XMatrix,
};

/// Other servers; clones are the same.
#[derive(Clone)]
pub struct Remote {
    caller: Arc<Caller>,
    give_up_ms: Option<u64>,
    keys: KeyRing,
}

/// How requests of an endpoint are authenticated.
pub trait Scheme: AuthScheme {
    /// Whether they are signed.
    const SIGNED: bool;
}

impl Scheme for ServerSignatures {
    const SIGNED: bool = true;
}

impl Scheme for NoAuthentication {
    const SIGNED: bool = false;
}

impl Remote {
    /// The other servers, for the server of that name and key.
    pub fn new(
        store: Store,
        env: Env,
        server: OwnedServerName,
        key: Arc<SigningKey>,
        transport: Arc<dyn Transport>,
        config: Config,
    ) -> Remote {
        let caller = Arc::new(Caller {
            env: env.clone(),
            server,
            key,
            transport,
            destinations: Destinations::new(store.clone(), env, config.tuning.clone()),
            lists: Lists::new(&config),
            tuning: config.tuning.clone(),
        });
        Remote { keys: KeyRing::new(store, caller.clone(), &config), caller, give_up_ms: config.give_up_ms }
    }

    /// The name of this server.
    pub fn server(&self) -> &ServerName {
        &self.caller.server
    }

    /// The keys of other servers, and our own.
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// Whether the settings let us speak with a server.
    pub fn is_allowed(&self, server: &ServerName) -> bool {
        self.caller.lists.allows(server)
    }

    /// The other side spoke to us: it is alive.
    pub async fn heard_from(&self, server: &ServerName) {
        if server != self.caller.server {
            self.caller.destinations.alive(server).await;
        }
    }

    /// Until when a server is left alone because it failed, if it is.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn backing_off(&self, server: &ServerName) -> Result<Option<u64>, Error> {
        self.caller.destinations.until(server).await
    }

    /// Whether a server has been gone for so long that nobody expects it back.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn is_given_up(&self, server: &ServerName) -> Result<bool, Error> {
        let Some(give_up_ms) = self.give_up_ms else { return Ok(false) };
        let since = self.caller.destinations.failing_since(server).await?;
        Ok(since.is_some_and(|since| since.saturating_add(give_up_ms) < self.caller.env.now_ms()))
    }

    /// Hears from now on which servers are there again after they had failed. One that lags loses the oldest.
    pub fn back_again(&self) -> broadcast::Receiver<OwnedServerName> {
        self.caller.destinations.back_again()
    }

    /// Asks another server.
    ///
    /// # Errors
    /// Where it may not be asked, does not answer, or answers with an error.
    pub async fn call<R>(&self, to: &ServerName, request: R) -> Result<R::IncomingResponse, Error>
    where
        R: OutgoingRequest<PathBuilder = SinglePath, Authentication: Scheme> + Send,
    {
        self.call_with(to, request, Options::default()).await
    }

    /// Asks another server, with other limits than usual.
    ///
    /// # Errors
    /// As [`Remote::call`].
    pub async fn call_with<R>(
        &self,
        to: &ServerName,
        request: R,
        options: Options,
    ) -> Result<R::IncomingResponse, Error>
    where
        R: OutgoingRequest<PathBuilder = SinglePath, Authentication: Scheme> + Send,
    {
        let request = on_the_wire(request).map_err(|why| Error::Request(why.to_string()))?;
        let answer = self.caller.send(to, request, R::Authentication::SIGNED, options).await?;
        let (parts, body) = answer.into_parts();
        R::IncomingResponse::try_from_http_response(http::Response::from_parts(parts, &body[..]))
            .map_err(|why| Error::Malformed(why.to_string()))
    }

    /// Asks another server something that there is no type for. The URI is the path with the query; the answer is one of
    /// success.
    ///
    /// # Errors
    /// As [`Remote::call`].
    pub async fn call_raw(
        &self,
        to: &ServerName,
        request: http::Request<Bytes>,
        options: Options,
    ) -> Result<http::Response<Bytes>, Error> {
        self.caller.send(to, request, true, options).await
    }

    /// Asks a server that is no homeserver (an identity server) something, at a URL that somebody named: HTTPS, a public
    /// address, nothing signed. The answer is one of success.
    ///
    /// # Errors
    /// Where there is no answer, or an error.
    pub async fn ask_url(&self, request: http::Request<Bytes>, limits: Limits) -> Result<http::Response<Bytes>, Error> {
        let answer = tokio::time::timeout(limits.timeout, self.caller.transport.ask_url(request, limits)).await;
        let answer = answer.unwrap_or(Err(TransportError::Timeout))?;
        match answer.status().is_success() {
            true if answer.body().len() > limits.max_bytes => Err(TransportError::TooLarge(limits.max_bytes).into()),
            true => Ok(answer),
            false => Err(Error::Answer(Box::new(caller::read_error(answer)))),
        }
    }
}

/// Writes a typed request; its URI is the path with the query.
fn on_the_wire<R>(request: R) -> Result<http::Request<Bytes>, IntoHttpError>
where
    R: OutgoingRequest<PathBuilder = SinglePath>,
    SinglePath: for<'a> PathBuilder<Input<'a> = ()>,
{
    let (mut parts, body) = request.try_into_http_request_inner("", ())?.into_parts();
    if let Some(kind) = body.content_type() {
        parts.headers.entry(http::header::CONTENT_TYPE).or_insert(kind);
    }
    let body: Vec<u8> = body.try_into_buf().map_err(Into::into)?;
    Ok(http::Request::from_parts(parts, body.into()))
}
