//! An application service on loopback: it writes down what it is asked, answers what it is told to, and can be away.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::http::{Client, Reply, encode};
use crate::process::Launch;

/// How long a test waits for something to be told.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request that came.
#[derive(Clone, Debug)]
pub struct Heard {
    /// `PUT`, ...
    pub method: String,
    /// The path with the query, as it was sent.
    pub path: String,
    /// The header `Authorization`.
    pub authorization: String,
    /// The body.
    pub body: Value,
}

/// What it does with a request.
#[derive(Clone, Debug)]
enum Deed {
    Answer(u16, Value),
    /// It hears, and goes away without a word.
    Vanish,
    /// It answers when it is told what.
    Hold,
}

#[derive(Default)]
struct Inner {
    heard: Mutex<Vec<Heard>>,
    answers: Mutex<HashMap<String, Deed>>,
    /// What it does with transactions, if not take them.
    transactions: Mutex<Option<Deed>>,
    away: Mutex<bool>,
    /// Whether it knows only the paths from before the specification had versions.
    old: Mutex<bool>,
}

/// An application service; it ends with the test.
#[derive(Clone)]
pub struct Bridge {
    inner: Arc<Inner>,
    port: u16,
    name: String,
    settings: Value,
}

impl Bridge {
    /// One that is there, and has the users `@_NAME_...` and aliases `#_NAME_...` for itself.
    ///
    /// # Panics
    /// If no port of loopback can be had.
    pub async fn start(name: &str) -> Bridge {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback");
        let port = listener.local_addr().expect("an address").port();
        let inner = Arc::<Inner>::default();
        let shared = inner.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let inner = shared.clone();
                tokio::spawn(async move { drop(inner.serve(stream).await) });
            }
        });
        let settings = json!({
            "id": name,
            "url": format!("http://127.0.0.1:{port}"),
            "as_token": format!("as_token_of_{name}"),
            "hs_token": format!("hs_token_of_{name}"),
            "sender_localpart": format!("_{name}_bot"),
            "rate_limited": false,
            "namespaces": {
                "users": [{ "regex": format!("@_{name}_.*"), "exclusive": true }],
                "aliases": [{ "regex": format!("#_{name}_.*"), "exclusive": true }],
                "rooms": [],
            },
        });
        Bridge { inner, port, name: name.to_owned(), settings }
    }

    /// With another setting in its registration.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Bridge {
        self.settings[key] = value;
        self
    }

    /// Writes the registration among the files of a server; its path is the answer.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn register_at(&self, launch: &Launch) -> PathBuf {
        let file = launch.folder().join(format!("{}.yaml", self.name));
        // JSON is YAML.
        std::fs::write(&file, self.settings.to_string()).expect("a registration");
        file
    }

    /// A server that knows this application service.
    #[must_use]
    pub fn known_to(&self, launch: Launch) -> Launch {
        let file = self.register_at(&launch);
        launch.env("STOA_APPSERVICE", &file.display().to_string())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its token for the homeserver.
    pub fn token(&self) -> String {
        format!("as_token_of_{}", self.name)
    }

    /// Asks the homeserver, as itself or, with `user_id` in the path, as one of its users.
    pub async fn ask(&self, home: &Client, method: Method, path: &str, body: Value) -> Reply {
        let body = (method != Method::GET).then_some(body);
        home.json(method, path, Some(&self.token()), body.as_ref()).await
    }

    /// Asks as one of its users.
    pub async fn ask_as(&self, home: &Client, user: &str, method: Method, path: &str, body: Value) -> Reply {
        let sign = if path.contains('?') { '&' } else { '?' };
        self.ask(home, method, &format!("{path}{sign}user_id={}", encode(user)), body).await
    }

    /// Makes a user; the id is the answer.
    ///
    /// # Panics
    /// If that is refused.
    pub async fn ghost(&self, home: &Client, name: &str) -> String {
        let body = json!({
            "type": "m.login.application_service",
            "username": format!("_{}_{name}", self.name),
            "inhibit_login": true,
        });
        let made = self.ask(home, Method::POST, "/register", body).await.ok();
        made["user_id"].as_str().expect("a user_id").to_owned()
    }

    /// Answers requests for a path (without its query).
    ///
    /// # Panics
    /// If a test failed while it did the same.
    pub fn answer(&self, path: &str, status: u16, body: Value) {
        self.inner.answers.lock().expect("no panic").insert(path.to_owned(), Deed::Answer(status, body));
    }

    /// Lets requests for a path wait until it is said what the answer is.
    ///
    /// # Panics
    /// If a test failed while it did the same.
    pub fn hold(&self, path: &str) {
        self.inner.answers.lock().expect("no panic").insert(path.to_owned(), Deed::Hold);
    }

    /// Whether it can be reached: connections end at once if not.
    ///
    /// # Panics
    /// If a test failed while it did the same.
    pub fn away(&self, away: bool) {
        *self.inner.away.lock().expect("no panic") = away;
    }

    /// Knows only the older paths from now on.
    ///
    /// # Panics
    /// If a test failed while it did the same.
    pub fn grow_old(&self) {
        *self.inner.old.lock().expect("no panic") = true;
    }

    /// Answers transactions with this status; `None`: takes them again.
    ///
    /// # Panics
    /// If a test failed while it did the same.
    pub fn refuse(&self, status: Option<u16>) {
        let deed = status.map(|status| Deed::Answer(status, json!({ "errcode": "M_UNKNOWN", "error": "no" })));
        *self.inner.transactions.lock().expect("no panic") = deed;
    }

    /// Takes transactions without ever saying so, or answers again.
    ///
    /// # Panics
    /// If a test failed while it did the same.
    pub fn mute(&self, mute: bool) {
        *self.inner.transactions.lock().expect("no panic") = mute.then_some(Deed::Vanish);
    }

    /// Everything that it was asked.
    ///
    /// # Panics
    /// If a test failed while it did the same.
    pub fn heard(&self) -> Vec<Heard> {
        self.inner.heard.lock().expect("no panic").clone()
    }

    /// All transactions that came, in order: id and body. The same may have come again.
    pub fn transactions(&self) -> Vec<(String, Value)> {
        let of = |heard: Heard| {
            let path = heard.path.split('?').next().unwrap_or_default().to_owned();
            let old = *self.inner.old.lock().expect("no panic");
            let start = if old { "/transactions/" } else { "/_matrix/app/v1/transactions/" };
            let id = path.strip_prefix(start)?.to_owned();
            Some((id, heard.body))
        };
        self.heard().into_iter().filter_map(of).collect()
    }

    /// What stands in a list of the transactions, those that came again left out as the specification wants it.
    pub fn told(&self, list: &str) -> Vec<Value> {
        let mut seen = HashSet::new();
        let new = self.transactions().into_iter().filter(|(id, _)| seen.insert(id.clone()));
        new.flat_map(|(_, body)| body[list].as_array().cloned().unwrap_or_default()).collect()
    }

    /// The events of the transactions.
    pub fn events(&self) -> Vec<Value> {
        self.told("events")
    }

    /// Waits until what was heard is as it should be.
    ///
    /// # Panics
    /// If that does not come.
    pub async fn until<T>(&self, what: &str, mut check: impl FnMut(&Bridge) -> Option<T>) -> T {
        let start = tokio::time::Instant::now();
        loop {
            if let Some(found) = check(self) {
                return found;
            }
            assert!(start.elapsed() < PATIENCE, "{}: {what} did not come; heard: {:#?}", self.name, self.heard());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it is told an event of this id.
    ///
    /// # Panics
    /// If that does not come.
    pub async fn event(&self, id: &str) -> Value {
        self.until(id, |bridge| bridge.events().into_iter().find(|event| event["event_id"] == id)).await
    }

    /// Waits until it is asked for a path (without its query).
    ///
    /// # Panics
    /// If that does not come.
    pub async fn asked(&self, path: &str) -> Heard {
        let of_path = |heard: &Heard| heard.path.split('?').next() == Some(path);
        self.until(path, |bridge| bridge.heard().into_iter().find(of_path)).await
    }
}

impl Inner {
    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        if *self.away.lock().expect("no panic") {
            return Ok(());
        }
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while stream.read_line(&mut head).await? > 2 {}
        let mut words = head.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let authorization = header("authorization").unwrap_or_default();
        let mut deed = self.deed(&path);
        self.heard.lock().expect("no panic").push(Heard { method, path: path.clone(), authorization, body });
        while matches!(deed, Deed::Hold) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            deed = self.deed(&path);
        }
        let Deed::Answer(status, body) = deed else { return Ok(()) };
        let body = body.to_string();
        let head = format!("HTTP/1.1 {status} Said\r\nConnection: close\r\nContent-Type: application/json\r\n");
        let mut stream = stream.into_inner();
        stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
        stream.shutdown().await
    }

    fn deed(&self, path: &str) -> Deed {
        let path = path.split('?').next().unwrap_or_default();
        if path.starts_with("/_matrix/app/") && *self.old.lock().expect("no panic") {
            return Deed::Answer(404, json!({}));
        }
        if path.contains("/transactions/") {
            let deed = self.transactions.lock().expect("no panic").clone();
            return deed.unwrap_or(Deed::Answer(200, json!({})));
        }
        let answer = self.answers.lock().expect("no panic").get(path).cloned();
        answer.unwrap_or(Deed::Answer(404, json!({ "errcode": "M_NOT_FOUND", "error": "nothing here" })))
    }
}
