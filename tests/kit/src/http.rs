//! One HTTP/1.1 client with kept connections, and one answer with everything that a test asks of it.

use std::fmt;
use std::io::Write as _;
use std::ops::Index;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Where the Client-Server API lives; paths that begin elsewhere are taken as they are.
const API: &str = "/_matrix/client/v3";

/// Longer than any long poll of a test: a server that never answers fails the test instead of hanging it.
const PATIENCE: Duration = Duration::from_secs(90);

/// Sends requests to one homeserver.
#[derive(Clone)]
pub struct Client {
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    base: String,
    patience: Duration,
}

impl Client {
    /// A client of the homeserver at `base`, such as `http://127.0.0.1:8008`.
    pub fn new(base: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        Self { http, base: base.trim_end_matches('/').to_owned(), patience: PATIENCE }
    }

    /// The same for a server that may take longer than a test would wait.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The address of the homeserver.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The path as it is sent: `/rooms/..` means `/_matrix/client/v3/rooms/..`.
    pub fn path(path: &str) -> String {
        match path.starts_with("/_") || path.starts_with("/.well-known") {
            true => path.to_owned(),
            false => format!("{API}{path}"),
        }
    }

    /// One request with a JSON body.
    pub async fn json(&self, method: Method, path: &str, token: Option<&str>, body: Option<&Value>) -> Reply {
        let body = body.map(|value| Bytes::from(value.to_string())).unwrap_or_default();
        self.raw(method, path, token, "application/json", body).await
    }

    /// One request with any body.
    ///
    /// # Panics
    /// If the server cannot be reached or does not finish its answer.
    pub async fn raw(&self, method: Method, path: &str, token: Option<&str>, kind: &str, body: Bytes) -> Reply {
        self.attempt(method.clone(), path, token, kind, body)
            .await
            .unwrap_or_else(|error| panic!("{method} {path} was not answered: {error}"))
    }

    /// Like [`Client::raw`] for callers that expect the server to die.
    pub async fn attempt(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        kind: &str,
        body: Bytes,
    ) -> Result<Reply, String> {
        let what = format!("{method} {path}");
        let mut request = Request::builder().method(method).uri(format!("{}{}", self.base, Self::path(path)));
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if !body.is_empty() {
            request = request.header("Content-Type", kind);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        self.send(what, request).await
    }

    /// Any request at all.
    pub async fn send(&self, what: String, request: Request<Full<Bytes>>) -> Result<Reply, String> {
        let start = tokio::time::Instant::now();
        let call = format!("{} {}", request.method(), request.uri().path());
        let answer = async {
            let (parts, body) = self.http.request(request).await.map_err(|error| format!("{error:?}"))?.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok::<_, String>((parts, body))
        };
        let (parts, body) = tokio::time::timeout(self.patience, answer)
            .await
            .map_err(|_| format!("nothing within {:?}", self.patience))??;
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        note(&call, parts.status.as_u16());
        Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body, json, took: start.elapsed(), what })
    }
}

/// Where `STOA_TEST_CALLS` names a folder, writes there what was asked and how it was answered: `scripts/spec-coverage` makes a
/// page of it.
fn note(call: &str, status: u16) {
    let (Ok(folder), Ok(test)) = (std::env::var("STOA_TEST_CALLS"), std::env::var("NEXTEST_TEST_NAME")) else { return };
    let house = std::env::var("NEXTEST_BINARY_ID").unwrap_or_default();
    let file = std::path::Path::new(&folder).join(std::process::id().to_string());
    if let Ok(mut file) = std::fs::File::options().create(true).append(true).open(file) {
        // A page that lacks a line is no reason for a test to fail.
        let _ = file.write_all(format!("{house}\t{test}\t{call}\t{status}\n").as_bytes());
    }
}

/// One answer of a homeserver.
#[must_use = "say what is expected: .ok() or .expect(status, errcode)"]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
    /// The body as JSON, `null` if it is none.
    pub json: Value,
    /// From the request to the last byte of the answer.
    pub took: Duration,
    what: String,
}

impl Reply {
    /// The JSON of a success.
    ///
    /// # Panics
    /// If the status is not 200.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "expected success, got {self:?}");
        self.json
    }

    /// The JSON of exactly this failure.
    ///
    /// # Panics
    /// If status or errcode differ, or if the error has no text in `error`.
    #[track_caller]
    pub fn expect(self, status: u16, errcode: &str) -> Value {
        let found = self.json["errcode"].as_str().unwrap_or_default();
        assert!(self.status == status && found == errcode, "expected {status} {errcode}, got {self:?}");
        assert!(self.json["error"].is_string(), "an error says why in `error`: {self:?}");
        self.json
    }

    /// The JSON of a failure that may come in several forms: any of these statuses, any of these errcodes.
    ///
    /// # Panics
    /// If none fits.
    #[track_caller]
    pub fn expect_any(self, statuses: &[u16], errcodes: &[&str]) -> Value {
        let found = self.json["errcode"].as_str().unwrap_or_default();
        let fits = statuses.contains(&self.status) && errcodes.contains(&found);
        assert!(fits, "expected one of {statuses:?} {errcodes:?}, got {self:?}");
        self.json
    }

    /// The `event_id` of a success.
    ///
    /// # Panics
    /// If it failed or names no event.
    #[track_caller]
    pub fn event_id(self) -> String {
        let text = format!("{self:?}");
        self.ok()["event_id"].as_str().unwrap_or_else(|| panic!("no event_id in {text}")).to_owned()
    }

    /// The `room_id` of a success.
    ///
    /// # Panics
    /// If it failed or names no room.
    #[track_caller]
    pub fn room_id(self) -> String {
        let text = format!("{self:?}");
        self.ok()["room_id"].as_str().unwrap_or_else(|| panic!("no room_id in {text}")).to_owned()
    }

    /// A header as text, empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Index<&str> for Reply {
    type Output = Value;

    fn index(&self, key: &str) -> &Value {
        &self.json[key]
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        let short: String = body.chars().take(600).collect();
        write!(out, "{} for {}: {short}", self.status, self.what)
    }
}

/// Percent-encodes one segment of a path or one value of a query.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
