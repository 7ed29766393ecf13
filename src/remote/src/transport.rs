//! The seam between this server and the network. Everything above it (signing, back-off, keys) works with any transport:
//! [`crate::HttpTransport`] in production, a call into another server's router in a simulation.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use stoa_event::ids::ServerName;

use crate::stream::{Pieces, whole};

/// How long an answer may take and how large it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the first look at the server's name to the last byte of the answer.
    pub timeout: Duration,
    /// Bytes of the body, after decompression.
    pub max_bytes: usize,
}

/// Carries requests to other servers.
pub trait Transport: Send + Sync {
    /// Sends a request to the server of that name and gives its answer, whatever its status. The URI of the request is the
    /// path with the query. A transport finds the server and makes sure that it is the right one; it does not sign.
    fn call(
        &self,
        to: &ServerName,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>>;

    /// The same with a body that comes piece by piece. A transport that cannot do so gives it in one.
    fn open(
        &self,
        to: &ServerName,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'_, Result<http::Response<Pieces>, TransportError>> {
        let answer = self.call(to, request, limits);
        Box::pin(async move { Ok(answer.await?.map(whole)) })
    }

    /// Sends a request whose URI is a URL that somebody named, and gives its answer, whatever its status.
    fn ask_url(
        &self,
        _request: http::Request<Bytes>,
        _: Limits,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        Box::pin(async { Err(TransportError::BadUrl("URLs cannot be asked here")) })
    }

    /// Gets what is at a URL that another server named.
    fn open_url(&self, _url: &str, _: Limits) -> BoxFuture<'_, Result<http::Response<Pieces>, TransportError>> {
        Box::pin(async { Err(TransportError::BadUrl("URLs cannot be had here")) })
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The name leads to an address that is not public, or that the settings forbid. The text does not say which: it may
    /// reach who asked, and nobody is to learn how names resolve in the network of this server.
    #[error("the address of that server is not public")]
    Refused(IpAddr),
    /// The URL is none that may be asked.
    #[error("{0}")]
    BadUrl(&'static str),
    /// The settings do not let this URL be asked.
    #[error("the settings do not allow this URL")]
    NotAllowed,
    /// There is no address for the name.
    #[error("no address: {0}")]
    Resolve(String),
    /// There is no connection, or the certificate is not the right one.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The answer took too long.
    #[error("no answer in time")]
    Timeout,
    /// The answer is too large.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    /// The connection broke, or what came is not HTTP.
    #[error("{0}")]
    Broken(String),
}
