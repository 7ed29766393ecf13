//! `/.well-known/matrix/server` (Server-Server API, "Resolving server names", step 3): what it says and how long it holds.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, header};
use quick_cache::sync::Cache;
use stoa_event::ids::OwnedServerName;
use stoa_store::Env;

use crate::{
    flight::Gates,
    outside::{self, Hop, Rules},
    transport::{Limits, TransportError},
};

/// The most bytes that are read.
pub const MAX_BYTES: usize = 50 << 10;

const MINUTE_MS: u64 = 60 * 1000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
/// How long an answer holds that does not say it.
const DEFAULT_MS: u64 = 24 * HOUR_MS;
const LEAST_MS: u64 = 5 * MINUTE_MS;
const MOST_MS: u64 = 48 * HOUR_MS;
const REDIRECTS: usize = 5;
/// How many names are remembered.
const REMEMBERED: usize = 20_000;

/// The server name of a body, if it is valid.
pub fn parse(body: &[u8]) -> Option<OwnedServerName> {
    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(rename = "m.server")]
        server: String,
    }
    if body.len() > MAX_BYTES {
        return None;
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    OwnedServerName::try_from(body.server).ok()
}

/// How long an answer holds, by its headers, in milliseconds.
pub fn lifetime(headers: &HeaderMap, now_ms: u64) -> u64 {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let directives = text(header::CACHE_CONTROL).unwrap_or_default();
    let mut asked = None;
    for directive in directives.split(',').map(str::trim) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
            asked = Some(0);
            break;
        }
        if name.eq_ignore_ascii_case("max-age") {
            asked = value.trim_matches('"').parse::<u64>().ok().map(|seconds| seconds.saturating_mul(1000));
        }
    }
    let by_date = || {
        let until = text(header::EXPIRES)?;
        // Something that is no date, such as 0, says that it ended already (RFC 9111, section 5.3).
        Some(http_date(until).unwrap_or(0).saturating_sub(text(header::DATE).and_then(http_date).unwrap_or(now_ms)))
    };
    asked.or_else(by_date).unwrap_or(DEFAULT_MS).clamp(LEAST_MS, MOST_MS)
}

/// A date of HTTP, as everybody writes it today (`Sun, 06 Nov 1994 08:49:37 GMT`), in milliseconds since 1970.
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.trim().split(' ').skip(1);
    let day: u64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u64 + 1;
    let year: u64 = words.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut clock = words.next()?.split(':').map(|part| part.parse::<u64>().ok().filter(|n| *n <= 60));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if words.next() != Some("GMT") {
        return None;
    }
    // Days since 1970 by years that begin in March, so that the leap day is the last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day;
    let since = days.checked_sub(719_469)?;
    Some((since * 86_400 + hour * 3_600 + minute * 60 + second) * 1000)
}

/// Asks for `/.well-known/matrix/server` and remembers what came.
pub struct WellKnown {
    web: Arc<dyn Hop>,
    env: Env,
    limits: Limits,
    seen: Cache<String, Seen>,
    gates: Gates<String>,
}

#[derive(Clone)]
struct Seen {
    /// What the last valid answer said, and until when that may be used if nothing newer can be had.
    delegated: Option<(OwnedServerName, u64)>,
    /// When it is asked again.
    until: u64,
    /// How many times in a row there was none.
    failures: u32,
}

impl WellKnown {
    /// One that asks over `web`.
    pub fn new(web: Arc<dyn Hop>, env: Env, limits: Limits) -> WellKnown {
        WellKnown { web, env, limits, seen: Cache::new(REMEMBERED), gates: Gates::new() }
    }

    /// The server that a host name is delegated to, if it is.
    pub async fn delegated(&self, host: &str) -> Option<OwnedServerName> {
        let host = host.to_ascii_lowercase();
        let _gate = match self.fresh(&host) {
            Some(seen) => return seen.delegated.map(|(name, _)| name),
            None => self.gates.enter(host.clone()).await,
        };
        // Perhaps whoever was before us brought it.
        if let Some(seen) = self.fresh(&host) {
            return seen.delegated.map(|(name, _)| name);
        }
        let now = self.env.now_ms();
        let seen = match self.ask(&host).await {
            Ok((name, lifetime)) => Seen { delegated: Some((name, now + MOST_MS)), until: now + lifetime, failures: 0 },
            Err(gone) => {
                let before = self.seen.get(&host);
                let failures = before.as_ref().map_or(0, |seen| seen.failures);
                // Whoever says that there is none is believed; what does not answer may have trouble that passes.
                let kept = before.and_then(|seen| seen.delegated).filter(|(_, until)| !gone && now < *until);
                let wait = if gone { HOUR_MS } else { (MINUTE_MS << failures.min(10)).min(HOUR_MS) };
                Seen { delegated: kept, until: now + wait, failures: failures + 1 }
            }
        };
        let delegated = seen.delegated.clone().map(|(name, _)| name);
        self.seen.insert(host, seen);
        delegated
    }

    fn fresh(&self, host: &str) -> Option<Seen> {
        self.seen.get(host).filter(|seen| self.env.now_ms() < seen.until)
    }

    /// The name and how long it holds, or whether there certainly is none.
    async fn ask(&self, host: &str) -> Result<(OwnedServerName, u64), bool> {
        let mut request = http::Request::new(Bytes::new());
        let url = format!("https://{host}/.well-known/matrix/server");
        *request.uri_mut() = url.parse().map_err(|_| true)?;
        let rules = Rules { limits: self.limits, redirects: REDIRECTS, https_only: true };
        match outside::follow(&*self.web, request, rules).await {
            Ok(answer) if answer.response.status() == http::StatusCode::OK => {
                let name = parse(answer.response.body()).ok_or(true)?;
                Ok((name, lifetime(answer.response.headers(), self.env.now_ms())))
            }
            Ok(answer) => Err(answer.response.status().is_client_error()),
            Err(TransportError::TooLarge(_)) => Err(true),
            Err(why) => {
                tracing::debug!(%host, %why, "no well-known file");
                Err(false)
            }
        }
    }
}
