//! Application services (Application Service API, "Pushing events", "Querying", "Third-party networks"): a follower of the feed notes
//! for each what concerns it, and each gets one transaction after the other until it has everything. What is noted outlives a
//! restart, of us and of them.

mod ask;
mod deliver;
mod fan_out;
mod interest;
mod live;
mod transaction;

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use parking_lot::{Mutex, RwLock};
use stoa_accounts::{Accounts, Service};
use stoa_remote::{Limits, ServiceClient, TransportError};
use stoa_store::{Env, Store};
use stoa_view::View;
use tokio::sync::{Notify, Semaphore};

use self::{ask::Cache, interest::Interest, live::Live, transaction::Told};
pub use self::{
    ask::{Thirds, instance_id},
    fan_out::FOLLOWER,
};

/// How large an answer of a service may be.
const MAX_ANSWER: usize = 4 << 20;
/// How many questions are asked of services at once.
const QUESTIONS: usize = 64;

/// Why an application service did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It wants to hear nothing.
    #[error("the application service has no URL")]
    NoUrl,
    /// It answered with an error.
    #[error("the application service answered with status {status}")]
    Status {
        /// The status.
        status: u16,
        /// The body.
        body: String,
    },
    /// It did not answer.
    #[error("the application service cannot be reached: {0}")]
    Unreached(#[from] TransportError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] stoa_store::Error),
    /// Looking for an account failed.
    #[error(transparent)]
    Accounts(#[from] stoa_accounts::Error),
    /// Reading failed.
    #[error(transparent)]
    View(#[from] stoa_view::Error),
}

/// What is kept in memory for one service.
#[derive(Default)]
struct Line {
    /// Something waits.
    wake: Notify,
    /// It is there again, as far as we know.
    retry: Notify,
    live: Mutex<Live>,
    /// What it was told of the keys of its users' devices.
    keys: Mutex<Told>,
}

struct Inner {
    store: Store,
    env: Env,
    view: View,
    accounts: Accounts,
    client: Option<ServiceClient>,
    legacy: bool,
    interest: RwLock<Interest>,
    lines: Mutex<HashMap<String, Arc<Line>>>,
    networks: Mutex<Cache>,
    questions: Semaphore,
}

/// A handle to the application services; clones are the same.
#[derive(Clone)]
pub struct Appservices {
    inner: Arc<Inner>,
}

impl Appservices {
    /// The application services that the accounts know. Without a client none is told or asked anything. With `legacy` the token
    /// is also sent in the query.
    pub fn new(
        store: Store,
        env: Env,
        view: View,
        accounts: Accounts,
        client: Option<ServiceClient>,
        legacy: bool,
    ) -> Appservices {
        let inner = Inner {
            store,
            env,
            view,
            accounts,
            client,
            legacy,
            interest: RwLock::default(),
            lines: Mutex::default(),
            networks: Mutex::default(),
            questions: Semaphore::new(QUESTIONS),
        };
        Appservices { inner: Arc::new(inner) }
    }

    /// Tells the application services what happens, for as long as it is polled. It must be run once, and its follower must be
    /// among those of the store.
    pub async fn run(self) {
        let inner = &*self.inner;
        tokio::join!(inner.follow(), inner.hear_live(), inner.hear_presence(), inner.deliver());
    }
}

impl Inner {
    fn line(&self, service: &str) -> Arc<Line> {
        self.lines.lock().entry(service.to_owned()).or_default().clone()
    }

    /// One request; where the service does not know the path, the same at the older one.
    async fn call(
        &self,
        service: &Service,
        method: Method,
        (path, old): (&str, Option<&str>),
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, Error> {
        match self.call_once(service, method.clone(), path, body.clone(), timeout).await {
            Err(Error::Status { status: 404 | 405 | 501, body: why })
                if old.is_some() && !why.contains("M_NOT_FOUND") =>
            {
                let old = old.unwrap_or_default();
                match self.call_once(service, method, old, body, timeout).await {
                    // What it says where it knows the path is worth more.
                    Err(Error::Status { status: 404 | 405, .. }) => Err(Error::Status { status: 404, body: why }),
                    other => other,
                }
            }
            other => other,
        }
    }

    async fn call_once(
        &self,
        service: &Service,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, Error> {
        let (Some(url), Some(client)) = (&service.url, &self.client) else { return Err(Error::NoUrl) };
        let mut uri = format!("{url}{path}");
        if self.legacy {
            let sign = if path.contains('?') { '&' } else { '?' };
            uri += &format!("{sign}access_token={}", ask::encode(&service.hs_token));
        }
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::AUTHORIZATION, format!("Bearer {}", service.hs_token));
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(body).map_err(|_| TransportError::BadUrl("not a URL"))?;
        let answer = client.ask(request, Limits { timeout, max_bytes: MAX_ANSWER }).await?;
        match answer.status() {
            status if status.is_success() => Ok(answer.into_body()),
            status => Err(refusal(status, answer.body())),
        }
    }
}

fn refusal(status: StatusCode, body: &Bytes) -> Error {
    // The administrator of a bridge reads it; a page of a proxy is not for them.
    let body = String::from_utf8_lossy(body).chars().take(4096).collect();
    Error::Status { status: status.as_u16(), body }
}

/// Whether a service was reached but did not answer in time.
pub fn is_late(why: &TransportError) -> bool {
    matches!(why, TransportError::Timeout)
}
