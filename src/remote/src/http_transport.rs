//! Requests over the real network: discovery, TLS, addresses that are refused, connections that are used again.
//!
//! Three clients, because a client asks its resolver for a host only: one for URLs with a port, one for URLs without, whose
//! resolver finds the port too, and one for where the `Host` header is not what the URL has.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, header};
use reqwest::Url;
use stoa_event::ids::{OwnedServerName, ServerName};
use stoa_store::Env;

use crate::{
    addresses::Filter,
    config::Config,
    discovery::{self, Route},
    dns::{Dns, Plain, SystemDns},
    outside::{self, Rules, build},
    stream::Pieces,
    transport::{Limits, Transport, TransportError},
    well_known::{self, WellKnown},
};

/// How long a well-known file may take.
const WELL_KNOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How many redirects are followed from a URL that another server named.
const MAX_REDIRECTS: usize = 5;

/// Why there is no transport.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The certificates of an authority cannot be read.
    #[error("cannot use the authority in {}: {why}", .path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// TLS cannot be had.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// Names cannot be resolved.
    #[error("cannot resolve names: {0}")]
    Dns(String),
}

/// Requests over the real network.
pub struct HttpTransport {
    with_port: reqwest::Client,
    by_dns: reqwest::Client,
    /// HTTP/1.1 only: in HTTP/2 the URL is the host.
    other_host: reqwest::Client,
    well_known: WellKnown,
    web: outside::Client,
    filter: Filter,
}

/// Names for a client whose URLs have no port.
struct ByDns {
    dns: Arc<dyn Dns>,
    filter: Filter,
    env: Env,
}

impl reqwest::dns::Resolve for ByDns {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let (dns, filter, env) = (self.dns.clone(), self.filter.clone(), self.env.clone());
        Box::pin(async move {
            let found = discovery::addresses(&*dns, &filter, &env, name.as_str()).await?;
            Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

impl HttpTransport {
    /// With the resolver of the system.
    ///
    /// # Errors
    /// If a certificate cannot be read, or TLS or DNS cannot be had.
    pub fn new(config: &Config, env: Env) -> Result<HttpTransport, BuildError> {
        let dns = SystemDns::new().map_err(|why| BuildError::Dns(why.to_string()))?;
        HttpTransport::with_dns(config, env, Arc::new(dns))
    }

    /// With another resolver.
    ///
    /// # Errors
    /// If a certificate cannot be read, or TLS cannot be had.
    pub fn with_dns(config: &Config, env: Env, dns: Arc<dyn Dns>) -> Result<HttpTransport, BuildError> {
        let filter = Filter::new(config);
        let plain = Arc::new(Plain { dns: dns.clone(), filter: filter.clone() });
        let by_dns = Arc::new(ByDns { dns: dns.clone(), filter: filter.clone(), env: env.clone() });
        let web = outside::Client::new(config, dns.clone())?;
        let limits = Limits { timeout: WELL_KNOWN_TIMEOUT, max_bytes: well_known::MAX_BYTES };
        Ok(HttpTransport {
            with_port: build(config, |client| client.https_only(true).dns_resolver(plain.clone()))?,
            by_dns: build(config, |client| client.https_only(true).dns_resolver(by_dns.clone()))?,
            other_host: build(config, |client| client.https_only(true).dns_resolver(plain.clone()).http1_only())?,
            well_known: WellKnown::new(Arc::new(web.clone()), env, limits),
            web,
            filter,
        })
    }

    /// Finds a server, and which client reaches it at which URL.
    async fn find(
        &self,
        to: &ServerName,
        request: &mut http::Request<Bytes>,
    ) -> Result<(&reqwest::Client, Url), TransportError> {
        let (client, authority) = match discovery::route(to, &self.well_known).await {
            Route::Direct { authority, host: None } => (&self.with_port, authority),
            Route::Direct { authority, host: Some(host) } => {
                let host = HeaderValue::try_from(host).map_err(|_| TransportError::BadUrl("not a host"))?;
                request.headers_mut().insert(header::HOST, host);
                (&self.other_host, authority)
            }
            Route::Lookup { host } => (&self.by_dns, host),
        };
        let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let url = Url::parse(&format!("https://{authority}{path}")).map_err(|_| TransportError::BadUrl("not a URL"))?;
        outside::check_url(&url, &self.filter)?;
        // What is asked must be what was signed: the parser resolves dots, for one.
        let (before, query) = path.split_once('?').map_or((path, None), |(before, query)| (before, Some(query)));
        if (url.path(), url.query()) != (before, query) {
            return Err(TransportError::BadUrl("the path would be changed on the way"));
        }
        Ok((client, url))
    }

    async fn send(
        &self,
        to: &ServerName,
        mut request: http::Request<Bytes>,
        limits: Limits,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let (client, url) = self.find(to, &mut request).await?;
        outside::send(client, url, request, limits).await
    }
}

impl Transport for HttpTransport {
    fn call(
        &self,
        to: &ServerName,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        let to: OwnedServerName = to.to_owned();
        Box::pin(async move {
            let sent = tokio::time::timeout(limits.timeout, self.send(&to, request, limits)).await;
            sent.unwrap_or(Err(TransportError::Timeout))
        })
    }

    fn open(
        &self,
        to: &ServerName,
        mut request: http::Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'_, Result<http::Response<Pieces>, TransportError>> {
        let to: OwnedServerName = to.to_owned();
        Box::pin(async move {
            let (client, url) = self.find(&to, &mut request).await?;
            outside::open(client, url, request, limits.timeout).await
        })
    }

    fn ask_url(
        &self,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        let rules = Rules { limits, redirects: MAX_REDIRECTS, https_only: true };
        Box::pin(async move { Ok(self.web.fetch(request, rules).await?.response) })
    }

    fn open_url(&self, url: &str, limits: Limits) -> BoxFuture<'_, Result<http::Response<Pieces>, TransportError>> {
        let request = http::Request::get(url).body(Bytes::new());
        let rules = Rules { limits, redirects: MAX_REDIRECTS, https_only: true };
        Box::pin(async move {
            let request = request.map_err(|_| TransportError::BadUrl("not a URL"))?;
            Ok(self.web.open(request, rules).await?.response)
        })
    }
}
