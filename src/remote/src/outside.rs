//! A client for URLs that strangers named (well-known files, previews of links, push gateways): it connects to no address
//! that the filter refuses, follows redirects one by one, and reads no more than it is told.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, future::BoxFuture, stream};
use http::{Method, StatusCode, header};
pub use reqwest::Url;
use reqwest::redirect::Policy;

use crate::{
    addresses::Filter,
    allow::Urls,
    config::Config,
    dns::{Dns, Plain},
    http_transport::BuildError,
    stream::Pieces,
    transport::{Limits, TransportError},
};

/// One request without following redirects. What discovery asks of the web; a test puts something else in its place.
pub trait Hop: Send + Sync {
    /// Sends a request whose URI is absolute.
    fn hop(
        &self,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>>;
}

/// What a request may do.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Time for everything together, and size of the answer.
    pub limits: Limits,
    /// How many redirects are followed.
    pub redirects: usize,
    /// Whether every URL on the way must be HTTPS.
    pub https_only: bool,
}

/// An answer, and where it came from in the end.
#[derive(Debug)]
pub struct Fetched<B = Bytes> {
    /// The URL after redirects.
    pub url: Url,
    /// The answer, whatever its status.
    pub response: http::Response<B>,
}

/// The client.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    filter: Filter,
    urls: Arc<Urls>,
}

impl Client {
    /// A client with these settings.
    ///
    /// # Errors
    /// If a certificate cannot be read, or TLS cannot be had.
    pub fn new(config: &Config, dns: Arc<dyn Dns>) -> Result<Client, BuildError> {
        let filter = Filter::new(config);
        let resolver = Plain { dns, filter: filter.clone() };
        let resolver = Arc::new(resolver);
        let http = build(config, |builder| builder.dns_resolver(resolver.clone()))?;
        Ok(Client { http, filter, urls: Arc::default() })
    }

    /// The same for certain URLs only: where `allow` is not empty, what matches one of it; never what matches one of `deny`.
    /// It holds for every URL that a redirect leads to. A pattern is of a host, of a host and a path, or of a whole URL; `*`
    /// stands for any characters, `?` for one.
    pub fn only(self, allow: &[String], deny: &[String]) -> Client {
        Client { urls: Arc::new(Urls::new(allow, deny)), ..self }
    }

    /// Sends a request and follows redirects of a GET.
    ///
    /// # Errors
    /// Where there is no answer within the rules.
    pub async fn fetch(&self, request: http::Request<Bytes>, rules: Rules) -> Result<Fetched, TransportError> {
        follow(self, request, rules).await
    }

    /// Sends a request and follows redirects of a GET; the body comes piece by piece, and it may be of any size.
    ///
    /// # Errors
    /// Where there is no answer within the rules.
    pub async fn open(&self, request: http::Request<Bytes>, rules: Rules) -> Result<Fetched<Pieces>, TransportError> {
        let hop = |request: http::Request<Bytes>| -> BoxFuture<'_, _> {
            Box::pin(async move {
                let url = self.check(&request)?;
                open(&self.http, url, request, rules.limits.timeout).await
            })
        };
        redirected(hop, request, rules).await.map(|(url, response)| Fetched { url, response })
    }

    fn check(&self, request: &http::Request<Bytes>) -> Result<Url, TransportError> {
        let url = Url::parse(&request.uri().to_string()).map_err(|_| TransportError::BadUrl("not a URL"))?;
        check_url(&url, &self.filter)?;
        self.urls.check(&url)?;
        Ok(url)
    }
}

impl Hop for Client {
    fn hop(
        &self,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        Box::pin(async move {
            let url = self.check(&request)?;
            send(&self.http, url, request, limits).await
        })
    }
}

/// Sends a request and follows redirects of a GET.
///
/// # Errors
/// Where there is no answer within the rules.
pub async fn follow(web: &dyn Hop, request: http::Request<Bytes>, rules: Rules) -> Result<Fetched, TransportError> {
    let hop = |request| web.hop(request, rules.limits);
    let answer = tokio::time::timeout(rules.limits.timeout, redirected(hop, request, rules)).await;
    let (url, response) = answer.unwrap_or(Err(TransportError::Timeout))?;
    Ok(Fetched { url, response })
}

async fn redirected<'a, B>(
    hop: impl Fn(http::Request<Bytes>) -> BoxFuture<'a, Result<http::Response<B>, TransportError>>,
    mut request: http::Request<Bytes>,
    rules: Rules,
) -> Result<(Url, http::Response<B>), TransportError> {
    let not_a_url = TransportError::BadUrl("not a URL");
    let mut url = Url::parse(&request.uri().to_string()).map_err(|_| not_a_url.clone())?;
    for _ in 0..=rules.redirects {
        match url.scheme() {
            "https" => {}
            "http" if !rules.https_only => {}
            _ => return Err(TransportError::BadUrl("the scheme is not allowed")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TransportError::BadUrl("the URL has a user"));
        }
        url.set_fragment(None);
        *request.uri_mut() = url.as_str().parse().map_err(|_| not_a_url.clone())?;
        let response = hop(request.clone()).await?;
        let status = response.status();
        let follow = *request.method() == Method::GET
            && matches!(
                status,
                StatusCode::MOVED_PERMANENTLY
                    | StatusCode::FOUND
                    | StatusCode::SEE_OTHER
                    | StatusCode::TEMPORARY_REDIRECT
                    | StatusCode::PERMANENT_REDIRECT
            );
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let (true, Some(location)) = (follow, location) else {
            return Ok((url, response));
        };
        let next = url.join(location).map_err(|_| not_a_url.clone())?;
        if next.origin() != url.origin() {
            // What was for one server is not for another.
            request.headers_mut().remove(header::AUTHORIZATION);
            request.headers_mut().remove(header::COOKIE);
        }
        url = next;
    }
    Err(TransportError::BadUrl("too many redirects"))
}

/// A client with what all have in common, and more.
///
/// A system without any authority gives one that trusts nobody: a server that speaks with nobody must still start there.
pub(crate) fn build(
    config: &Config,
    more: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> Result<reqwest::Client, BuildError> {
    let failed = match more(builder(config)?).build() {
        Ok(client) => return Ok(client),
        Err(why) => why,
    };
    if config.extra_ca.is_empty()
        && let Ok(client) = more(builder(config)?.tls_certs_only([])).build()
    {
        tracing::error!(why = chain(&failed), "no authority is trusted, so no other server can be reached");
        return Ok(client);
    }
    Err(BuildError::Tls(chain(&failed)))
}

fn builder(config: &Config) -> Result<reqwest::ClientBuilder, BuildError> {
    let mut authorities = Vec::new();
    for path in &config.extra_ca {
        let bad = |why: String| BuildError::Authority { path: path.clone(), why };
        let pem = std::fs::read(path).map_err(|why| bad(why.to_string()))?;
        let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|why| bad(chain(&why)))?;
        if found.is_empty() {
            return Err(bad("there is no certificate in it".to_owned()));
        }
        authorities.extend(found);
    }
    Ok(reqwest::Client::builder()
        .tls_certs_merge(authorities)
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .connect_timeout(Duration::from_millis(config.tuning.connect_timeout_ms))
        .pool_idle_timeout(Duration::from_secs(20))
        .pool_max_idle_per_host(4)
        .http2_keep_alive_interval(Duration::from_secs(15))
        .http2_keep_alive_timeout(Duration::from_secs(10)))
}

/// An address in a URL never meets the resolver, so it is looked at here. Hosts are compared as the URL parser reads them:
/// `0x7f.1` is an address too.
pub(crate) fn check_url(url: &Url, filter: &Filter) -> Result<(), TransportError> {
    match url.host_str() {
        None | Some("") => Err(TransportError::BadUrl("the URL has no host")),
        Some(host) => match host.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(address) => filter.check(address),
            Err(_) => Ok(()),
        },
    }
}

/// Sends one request; the body of the answer comes piece by piece. The time is for all of it.
pub(crate) async fn open(
    http: &reqwest::Client,
    url: Url,
    request: http::Request<Bytes>,
    timeout: Duration,
) -> Result<http::Response<Pieces>, TransportError> {
    let mut answer = begin(http, url, request, timeout).await?;
    let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
    let next = |mut answer: reqwest::Response| async move {
        let piece = answer.chunk().await.map_err(|why| error(&why))?;
        Ok(piece.map(|piece| (piece, answer)))
    };
    let mut response = http::Response::new(stream::try_unfold(answer, next).boxed());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

async fn begin(
    http: &reqwest::Client,
    url: Url,
    request: http::Request<Bytes>,
    timeout: Duration,
) -> Result<reqwest::Response, TransportError> {
    let (parts, body) = request.into_parts();
    let request = http.request(parts.method, url).headers(parts.headers).body(body).timeout(timeout);
    request.send().await.map_err(|why| error(&why))
}

/// Sends one request and reads the answer, within limits.
pub(crate) async fn send(
    http: &reqwest::Client,
    url: Url,
    request: http::Request<Bytes>,
    limits: Limits,
) -> Result<http::Response<Bytes>, TransportError> {
    let mut answer = begin(http, url, request, limits.timeout).await?;
    let too_large = TransportError::TooLarge(limits.max_bytes);
    if answer.content_length().is_some_and(|length| length > limits.max_bytes as u64) {
        return Err(too_large);
    }
    let mut body = BytesMut::new();
    // Decompressed piece by piece: a small answer cannot become a large one unseen.
    while let Some(piece) = answer.chunk().await.map_err(|why| error(&why))? {
        if body.len() + piece.len() > limits.max_bytes {
            return Err(too_large);
        }
        body.extend_from_slice(&piece);
    }
    let mut response = http::Response::new(body.freeze());
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    Ok(response)
}

/// What went wrong; what our own resolver said comes through.
fn error(why: &reqwest::Error) -> TransportError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(why);
    while let Some(error) = source {
        if let Some(ours) = error.downcast_ref::<TransportError>() {
            return ours.clone();
        }
        source = error.source();
    }
    if why.is_timeout() {
        TransportError::Timeout
    } else if why.is_connect() {
        TransportError::Connect(chain(why))
    } else {
        TransportError::Broken(chain(why))
    }
}

/// An error with what caused it. URLs stay out: they may hold secrets.
pub(crate) fn chain(why: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(why);
    while let Some(error) = source {
        source = error.source();
        // The outermost one of reqwest names the URL and little else.
        if text.is_empty() && source.is_some() && error.is::<reqwest::Error>() {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
    }
    text
}
