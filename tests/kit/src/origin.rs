//! Another server that is in the hands of a test: a name and a signing key. It asks what the test wants, and answers what the
//! test told it to answer; by itself only which key it has, that its users may be invited, and that transactions arrived.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::ca::Ca;
use crate::home::Home;
use crate::http::{Client, Reply, encode};
use crate::process::lasting_port;
use crate::random::unique;
use crate::sign::{Keys, canonical};

const KEY_ID: &str = "ed25519:stranger";
const HOUR_MS: u64 = 60 * 60 * 1000;
const FEDERATION: &str = "/_matrix/federation/";

/// A request that a stranger got.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its path below `/_matrix/federation/`, decoded.
    pub path: String,
    /// Its query as it came.
    pub query: String,
    /// Its body, `null` if it is no JSON.
    pub body: Value,
}

impl Asked {
    /// A segment of the path; 0 is the version of the endpoint, 1 its name.
    pub fn segment(&self, n: usize) -> &str {
        self.path.split('/').nth(n).unwrap_or_default()
    }
}

/// What is answered: a status and a body, which need not be JSON.
pub type Told = (u16, String);
type Rule = Arc<dyn Fn(&Asked) -> Told + Send + Sync>;

/// A server of nobody's making: what it sends is what a test wants it to send.
pub struct Stranger {
    shared: Arc<Shared>,
    server: JoinHandle<()>,
    _folder: TempDir,
}

struct Shared {
    name: String,
    keys: Keys,
    document: Mutex<Value>,
    asked: AtomicUsize,
    rules: Mutex<Vec<(String, Rule)>>,
    heard: Mutex<Vec<Asked>>,
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "a server of its own, with a clock of its own")]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

impl Stranger {
    /// A server named `localhost:PORT`, which shows its key there, with a certificate of this authority.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start(ca: &Arc<Ca>, seed: u8) -> Stranger {
        let folder = tempfile::Builder::new().prefix("stoa-stranger-").tempdir().expect("a temporary folder");
        let files = ca.issue(folder.path(), &["localhost", "127.0.0.1"]);
        let chain = vec![CertificateDer::from_pem_file(&files.certificate).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("protocols").with_no_client_auth().with_single_cert(chain, key).expect("a pair");
        let port = lasting_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
        let (name, keys) = (format!("localhost:{port}"), Keys::new(seed));
        let (document, asked) = (Mutex::default(), AtomicUsize::new(0));
        let (rules, heard) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { name, keys, document, asked, rules, heard });
        let server = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), shared.clone()));
        let stranger = Stranger { shared, server, _folder: folder };
        stranger.set_validity(now_ms() + 24 * HOUR_MS);
        stranger
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// A user of it.
    pub fn user(&self, name: &str) -> String {
        format!("@{name}:{}", self.shared.name)
    }

    /// How many times somebody asked for its key.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// From now on answers so to requests whose path below `/_matrix/federation/` begins so. What was said last counts.
    pub fn answers(&self, start: &str, how: impl Fn(&Asked) -> Told + Send + Sync + 'static) {
        lock(&self.shared.rules).push((start.to_owned(), Arc::new(how)));
    }

    /// The same with one answer to all.
    pub fn answers_with(&self, start: &str, status: u16, body: Value) {
        self.answers(start, move |_| (status, body.to_string()));
    }

    /// The requests that came, of those whose path below `/_matrix/federation/` begins so.
    pub fn heard(&self, start: &str) -> Vec<Asked> {
        lock(&self.shared.heard).iter().filter(|asked| asked.path.starts_with(start)).cloned().collect()
    }

    /// Waits until an event with this id, or this text in it, came in a transaction, and gives it.
    ///
    /// # Panics
    /// If it does not come.
    pub async fn hears_of(&self, text: &str) -> Value {
        for _ in 0..1500 {
            for transaction in self.heard("v1/send/") {
                let pdus = transaction.body["pdus"].as_array().cloned().unwrap_or_default();
                if let Some(found) = pdus.into_iter().find(|pdu| pdu.to_string().contains(text)) {
                    return found;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} never hears of {text}", self.name());
    }

    /// Publishes the key as valid until then.
    pub fn set_validity(&self, valid_until_ts: u64) {
        let document = json!({
            "server_name": self.shared.name,
            "valid_until_ts": valid_until_ts,
            "verify_keys": { KEY_ID: { "key": self.shared.keys.public() } },
            "old_verify_keys": {},
        });
        self.publish(self.shared.keys.sign(&self.shared.name, KEY_ID, document));
    }

    /// Publishes the key as one that it signs with no longer.
    pub fn retire_key(&self, expired_ts: u64) {
        let document = json!({
            "server_name": self.shared.name,
            "valid_until_ts": now_ms() + 24 * HOUR_MS,
            "verify_keys": {},
            "old_verify_keys": { KEY_ID: { "key": self.shared.keys.public(), "expired_ts": expired_ts } },
        });
        self.publish(self.shared.keys.sign(&self.shared.name, KEY_ID, document));
    }

    fn publish(&self, document: Value) {
        *lock(&self.shared.document) = document;
    }

    /// The `Authorization` of a request from this server to that one.
    pub fn authorization(&self, method: &Method, path: &str, to: &str, body: Option<&Value>) -> String {
        let mut signed =
            json!({ "method": method.as_str(), "uri": path, "origin": self.shared.name, "destination": to });
        if let Some(body) = body {
            signed["content"] = body.clone();
        }
        let signature =
            &self.shared.keys.sign(&self.shared.name, KEY_ID, signed)["signatures"][&self.shared.name][KEY_ID];
        let signature = signature.as_str().unwrap_or_default();
        format!(r#"X-Matrix origin="{}",destination="{to}",key="{KEY_ID}",sig="{signature}""#, self.shared.name)
    }

    /// A signed request.
    pub async fn ask(&self, home: &Home, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let authorization = self.authorization(&method, path, &home.server_name(), body);
        ask_with(home.client(), method, path, body, &[&authorization]).await
    }

    /// A signed `GET`.
    pub async fn get(&self, home: &Home, path: &str) -> Reply {
        self.ask(home, Method::GET, path, None).await
    }

    /// A signed `PUT`.
    pub async fn put(&self, home: &Home, path: &str, body: &Value) -> Reply {
        self.ask(home, Method::PUT, path, Some(body)).await
    }

    /// A signed `POST`.
    pub async fn post(&self, home: &Home, path: &str, body: &Value) -> Reply {
        self.ask(home, Method::POST, path, Some(body)).await
    }

    /// A `PUT` of text, signed as what it is if it is JSON.
    pub async fn put_text(&self, home: &Home, path: &str, text: &str) -> Reply {
        let body = serde_json::from_str::<Value>(text).ok();
        let authorization = self.authorization(&Method::PUT, path, &home.server_name(), body.as_ref());
        let request = Request::put(format!("{}{path}", home.client().base())).header("Authorization", authorization);
        let request = request.body(Full::new(Bytes::copy_from_slice(text.as_bytes()))).expect("a request");
        home.client().send(format!("PUT {path}"), request).await.expect("an answer")
    }

    /// Sends events in a transaction.
    pub async fn send(&self, home: &Home, pdus: &[&Value]) -> Reply {
        let body = json!({ "origin": self.shared.name, "origin_server_ts": now_ms(), "pdus": pdus, "edus": [] });
        self.put(home, &format!("/_matrix/federation/v1/send/{}", unique()), &body).await
    }

    /// Sends one EDU.
    pub async fn send_edu(&self, home: &Home, kind: &str, content: Value) -> Reply {
        let edus = json!([{ "edu_type": kind, "content": content }]);
        let body = json!({ "origin": self.shared.name, "origin_server_ts": now_ms(), "pdus": [], "edus": edus });
        self.put(home, &format!("/_matrix/federation/v1/send/{}", unique()), &body).await
    }

    /// An event of room version 3 or later, or one that has its id in it, hashed and signed; first its id.
    pub fn event(&self, event: Value) -> (String, Value) {
        self.shared.event(event)
    }

    /// The id of an event of room version 4 or later.
    pub fn event_id(&self, event: &Value) -> String {
        hash_of(event)
    }

    /// Asks for a template for one of its users, and signs it.
    pub async fn make(&self, home: &Home, what: &str, room: &str, user: &str) -> (String, Value) {
        let versions = match what {
            "leave" => String::new(),
            _ => (1..=12).map(|version| format!("&ver={version}")).collect::<String>().replacen('&', "?", 1),
        };
        let path = format!("/_matrix/federation/v1/make_{what}/{}/{}{versions}", encode(room), encode(user));
        let made = self.get(home, &path).await.ok();
        let mut event = made["event"].clone();
        event["origin_server_ts"] = json!(now_ms());
        if ["1", "2"].iter().any(|version| made["room_version"] == *version) {
            event["event_id"] = json!(format!("${}:{}", unique(), self.shared.name));
        }
        self.event(event)
    }

    /// Brings one of its users into a room; gives the event's id and the answer, which has the room's state.
    pub async fn join(&self, home: &Home, room: &str, user: &str) -> (String, Value) {
        let (id, event) = self.make(home, "join", room, user).await;
        let answer = self.join_with(home, room, &id, &event).await;
        (id, answer)
    }

    /// The same with a join that was made of a template.
    pub async fn join_with(&self, home: &Home, room: &str, id: &str, event: &Value) -> Value {
        let path = format!("/_matrix/federation/v2/send_join/{}/{}", encode(room), encode(id));
        self.put(home, &path, event).await.ok()
    }

    /// Takes one of its users out of a room.
    pub async fn leave(&self, home: &Home, room: &str, user: &str) {
        let (id, event) = self.make(home, "leave", room, user).await;
        let path = format!("/_matrix/federation/v2/send_leave/{}/{}", encode(room), encode(&id));
        self.put(home, &path, &event).await.ok();
    }
}

impl Shared {
    fn event(&self, mut event: Value) -> (String, Value) {
        if let Some(fields) = event.as_object_mut() {
            fields.remove("unsigned");
            fields.remove("signatures");
            fields.remove("hashes");
        }
        let hash = Sha256::digest(canonical(&event).as_bytes());
        event["hashes"] = json!({ "sha256": STANDARD_NO_PAD.encode(hash) });
        let redacted = redacted(&event);
        let id = event["event_id"].as_str().map_or_else(|| hash_of(&event), str::to_owned);
        event["signatures"] = self.keys.sign(&self.name, KEY_ID, redacted)["signatures"].clone();
        (id, event)
    }

    fn told(&self, asked: Asked) -> Told {
        let rule = lock(&self.rules).iter().rev().find(|(start, _)| asked.path.starts_with(start)).cloned();
        let told = match rule {
            Some((_, rule)) => rule(&asked),
            None if asked.path.starts_with("v2/invite/") => (200, self.accept_invite(&asked.body).to_string()),
            None if asked.path.starts_with("v1/send/") => (200, json!({ "pdus": {} }).to_string()),
            None => unrecognised(),
        };
        lock(&self.heard).push(asked);
        told
    }

    /// What is said to an invite: yes.
    fn accept_invite(&self, invite: &Value) -> Value {
        let mut event = invite["event"].clone();
        let signed = self.keys.sign(&self.name, KEY_ID, redacted(&event));
        event["signatures"][&self.name] = signed["signatures"][&self.name].clone();
        json!({ "event": event })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A request with these `Authorization` headers.
///
/// # Panics
/// If the server cannot be reached.
pub async fn ask_with(
    client: &Client,
    method: Method,
    path: &str,
    body: Option<&Value>,
    authorizations: &[&str],
) -> Reply {
    let mut request = Request::builder().method(method.clone()).uri(format!("{}{path}", client.base()));
    for authorization in authorizations {
        request = request.header("Authorization", *authorization);
    }
    let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let request = request.body(Full::new(bytes)).expect("a request");
    let what = format!("{method} {path}");
    client.send(what.clone(), request).await.unwrap_or_else(|why| panic!("{what} was not answered: {why}"))
}

/// The id that an event has by what it is, in room version 4 or later.
fn hash_of(event: &Value) -> String {
    let mut redacted = redacted(event);
    if let Some(fields) = redacted.as_object_mut() {
        fields.remove("signatures");
    }
    format!("${}", URL_SAFE_NO_PAD.encode(Sha256::digest(canonical(&redacted).as_bytes())))
}

/// What redaction leaves of an event, by room version 11 (and 12).
fn redacted(event: &Value) -> Value {
    const FIELDS: [&str; 12] = [
        "event_id",
        "type",
        "room_id",
        "sender",
        "state_key",
        "content",
        "hashes",
        "signatures",
        "depth",
        "prev_events",
        "auth_events",
        "origin_server_ts",
    ];
    let kept: &[&str] = match event["type"].as_str() {
        Some("m.room.create") => return event.clone(),
        Some("m.room.member") => &["membership", "join_authorised_via_users_server"],
        Some("m.room.join_rules") => &["join_rule", "allow"],
        Some("m.room.power_levels") => {
            &["ban", "events", "events_default", "invite", "kick", "redact", "state_default", "users", "users_default"]
        }
        Some("m.room.history_visibility") => &["history_visibility"],
        Some("m.room.redaction") => &["redacts"],
        _ => &[],
    };
    let mut event = event.clone();
    if let Some(fields) = event.as_object_mut() {
        fields.retain(|name, _| FIELDS.contains(&name.as_str()));
    }
    if let Some(content) = event["content"].as_object_mut() {
        content.retain(|name, _| kept.contains(&name.as_str()));
    }
    event
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn decode(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        match (first, escaped) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let shared = shared.clone();
                async move { answer(&shared, request).await }
            });
            // Whoever goes away in between does not matter.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    shared: &Shared,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    let bytes = request.into_body().collect().await?.to_bytes();
    let (status, body) = match path.strip_prefix(FEDERATION) {
        Some(path) => {
            let body = serde_json::from_slice(&bytes).unwrap_or_default();
            shared.told(Asked { path: decode(path), query, body })
        }
        None if path == "/_matrix/key/v2/server" => {
            shared.asked.fetch_add(1, Ordering::SeqCst);
            (200, lock(&shared.document).to_string())
        }
        None => unrecognised(),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    // Synapse believes no answer without it.
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    Ok(response)
}

fn unrecognised() -> Told {
    (404, json!({ "errcode": "M_UNRECOGNIZED", "error": "nobody told this server what to say" }).to_string())
}
