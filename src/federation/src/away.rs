//! The transport of a server that does not federate: nobody is there.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use stoa_event::ids::ServerName;
use stoa_remote::{Limits, Transport, TransportError};

/// Reaches nobody.
pub struct Nobody;

impl Transport for Nobody {
    fn call(
        &self,
        _: &ServerName,
        _: http::Request<Bytes>,
        _: Limits,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        Box::pin(async { Err(TransportError::Connect("this server does not federate".into())) })
    }
}
