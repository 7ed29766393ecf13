//! A client for application services. Their addresses are the administrator's, who may put them on this machine: it connects to
//! any. It follows no redirects and has the limits of all others.

use bytes::Bytes;
use reqwest::Url;

use crate::{
    config::Config,
    http_transport::BuildError,
    outside,
    transport::{Limits, TransportError},
};

/// The client.
#[derive(Clone, Debug)]
pub struct ServiceClient {
    http: reqwest::Client,
}

impl ServiceClient {
    /// A client with these settings.
    ///
    /// # Errors
    /// If a certificate cannot be read, or TLS cannot be had.
    pub fn new(config: &Config) -> Result<ServiceClient, BuildError> {
        Ok(ServiceClient { http: outside::build(config, |client| client)? })
    }

    /// Sends a request whose URI is absolute, and gives the answer, whatever its status.
    ///
    /// # Errors
    /// Where there is no answer within the limits.
    pub async fn ask(
        &self,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let url = Url::parse(&request.uri().to_string()).map_err(|_| TransportError::BadUrl("not a URL"))?;
        let answer = tokio::time::timeout(limits.timeout, outside::send(&self.http, url, request, limits)).await;
        answer.unwrap_or(Err(TransportError::Timeout))
    }
}
