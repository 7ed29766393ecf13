//! A person with one device, who asks the own server as the Client-Server API says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, header};
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::node::Node;

/// How long somebody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often somebody tries again what the server did not answer.
const TIMES: u64 = 20;

/// What an answer was: its status and what it says.
pub(crate) type Answer = Option<(u16, Value)>;

/// What was sent from device to device.
#[derive(Default)]
pub(crate) struct Post {
    /// The number of the next message, by addressee.
    next: BTreeMap<String, u64>,
    /// What was acknowledged, by addressee.
    pub(crate) sent: BTreeMap<String, BTreeSet<u64>>,
    /// What came, by sender, in its order.
    pub(crate) received: BTreeMap<String, Vec<u64>>,
    since: Option<String>,
}

/// The keys of a device, and what is known of those of others.
#[derive(Default)]
pub(crate) struct DeviceKeys {
    /// How often they changed.
    changes: u64,
    /// Which they may be, 0 for none: that of the last change that was acknowledged, and those of later ones of which nobody knows.
    pub(crate) may_be: BTreeSet<u64>,
    /// Whose keys changed of whom this device was told nothing since.
    pub(crate) unheard: BTreeSet<String>,
}

/// A person.
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) node: Arc<Node>,
    token: String,
    device: String,
    pub(crate) post: Mutex<Post>,
    pub(crate) keys: Mutex<DeviceKeys>,
    /// One message, and one sync, after the other.
    writes: tokio::sync::Mutex<()>,
    reads: tokio::sync::Mutex<()>,
}

/// A part of a path.
pub(crate) fn part(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

async fn ask(node: &Node, method: Method, path: &str, token: Option<&str>, body: Option<&Value>) -> Answer {
    let mut request = Request::builder().method(method).uri(format!("/_matrix/client/v3{path}"));
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let request = request.body(body).ok()?;
    let answer = timeout(PATIENCE, node.ask(request)).await.ok()??;
    Some((answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or_default()))
}

impl User {
    /// Makes an account.
    pub(crate) async fn register(node: &Arc<Node>, name: &str) -> Result<Arc<User>, String> {
        let mut body = json!({ "username": name, "password": "correct horse", "device_id": format!("DEVICE{name}") });
        let mut answer = ask(node, Method::POST, "/register", None, Some(&body)).await;
        if let Some((401, said)) = &answer {
            body["auth"] = json!({ "type": "m.login.dummy", "session": said["session"] });
            answer = ask(node, Method::POST, "/register", None, Some(&body)).await;
        }
        let Some((200, said)) = answer else { return Err(format!("{name} gets no account: {answer:?}")) };
        let text = |field: &str| said[field].as_str().unwrap_or_default().to_owned();
        Ok(Arc::new(User {
            id: text("user_id"),
            node: node.clone(),
            token: text("access_token"),
            device: text("device_id"),
            post: Mutex::default(),
            keys: Mutex::new(DeviceKeys { may_be: BTreeSet::from([0]), ..DeviceKeys::default() }),
            writes: tokio::sync::Mutex::new(()),
            reads: tokio::sync::Mutex::new(()),
        }))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let answer = ask(&self.node, method.clone(), path, Some(&self.token), body).await;
        self.node.network.note(|| match &answer {
            Some((status, said)) => {
                let errcode = said.get("errcode").and_then(Value::as_str).unwrap_or_default();
                let why = said.get("error").and_then(Value::as_str).unwrap_or_default();
                format!("{} {method} {path} = {status} {errcode} {why}", self.id)
            }
            None => format!("{} {method} {path} = nothing", self.id),
        });
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::PUT, path, Some(body)).await
    }

    /// Asks again and again until there is an answer, as clients do with what has a transaction id.
    pub(crate) async fn insist(&self, path: &str, body: &Value) -> Answer {
        for time in 0..TIMES {
            match self.put(path, body).await {
                None | Some((500.., _)) => sleep(Duration::from_secs(1 << time.min(6))).await,
                answer => return answer,
            }
        }
        None
    }

    /// The device gets other keys, which all others are to hear of.
    pub(crate) async fn change_keys(&self, others: &[Arc<User>]) {
        let _turn = self.writes.lock().await;
        let number = {
            let mut keys = self.keys.lock();
            keys.changes += 1;
            keys.changes
        };
        let device = &self.device;
        let body = json!({ "device_keys": {
            "user_id": self.id, "device_id": device, "algorithms": ["m.megolm.v1.aes-sha2"],
            "keys": { format!("curve25519:{device}"): format!("key{number}") }, "signatures": {},
        } });
        let mut answer = None;
        self.keys.lock().may_be.insert(number);
        // Those who never synced have nothing that could be old.
        for other in others.iter().filter(|other| other.post.lock().since.is_some()) {
            other.keys.lock().unheard.insert(self.id.clone());
        }
        for time in 0..TIMES {
            answer = self.post("/keys/upload", &body).await;
            match &answer {
                None | Some((500.., _)) => sleep(Duration::from_secs(1 << time.min(6))).await,
                Some(_) => break,
            }
        }
        if matches!(answer, Some((200, _))) {
            self.keys.lock().may_be.retain(|known| *known >= number);
        } else {
            for other in others {
                other.keys.lock().unheard.remove(&self.id);
            }
        }
    }

    /// Which keys of somebody's device this one finds; 0 if none.
    pub(crate) async fn finds_keys(&self, of: &User) -> Result<u64, String> {
        let answer = self.post("/keys/query", &json!({ "device_keys": { &of.id: [] } })).await;
        let Some((200, said)) = answer else { return Err(format!("{} finds no keys: {answer:?}", self.id)) };
        let key = &said["device_keys"][&of.id][&of.device]["keys"][format!("curve25519:{}", of.device)];
        let number = key.as_str().and_then(|key| key.strip_prefix("key")?.parse().ok());
        Ok(number.unwrap_or(0))
    }

    /// Sends the next message to the device of somebody.
    pub(crate) async fn write_to(&self, to: &User, all_devices: bool) {
        let _turn = self.writes.lock().await;
        let number = {
            let mut post = self.post.lock();
            let next = post.next.entry(to.id.clone()).or_default();
            *next += 1;
            *next
        };
        let device = if all_devices { "*" } else { &to.device };
        let body = json!({ "messages": { &to.id: { device: { "number": number } } } });
        let path = format!("/sendToDevice/m.sim/{}", part(&format!("{}-{number}", to.id)));
        if let Some((200, _)) = self.insist(&path, &body).await {
            self.post.lock().sent.entry(to.id.clone()).or_default().insert(number);
        }
    }

    /// One sync. What came from device to device is kept.
    pub(crate) async fn sync(&self, wait_ms: u64) -> Answer {
        let _turn = self.reads.lock().await;
        let since = self.post.lock().since.clone();
        let since = since.map(|since| format!("&since={}", part(&since))).unwrap_or_default();
        let answer = self.get(&format!("/sync?timeout={wait_ms}{since}")).await;
        if let Some((200, said)) = &answer {
            for changed in said["device_lists"]["changed"].as_array().into_iter().flatten() {
                self.keys.lock().unheard.remove(changed.as_str().unwrap_or_default());
            }
            let mut post = self.post.lock();
            post.since = said["next_batch"].as_str().map(str::to_owned);
            for event in said["to_device"]["events"].as_array().into_iter().flatten() {
                let sender = event["sender"].as_str().unwrap_or_default().to_owned();
                let number = event["content"]["number"].as_u64().unwrap_or_default();
                post.received.entry(sender).or_default().push(number);
            }
        }
        answer
    }

    /// Syncs until nothing comes any more.
    pub(crate) async fn catch_up(&self) -> Result<(), String> {
        for _ in 0..1000 {
            match self.sync(0).await {
                Some((200, said)) => {
                    let quiet = said["to_device"]["events"].as_array().is_none_or(Vec::is_empty);
                    if quiet && said["rooms"]["join"].as_object().is_none_or(serde_json::Map::is_empty) {
                        return Ok(());
                    }
                }
                other => return Err(format!("{} cannot sync: {other:?}", self.id)),
            }
        }
        Err(format!("{} has news for ever", self.id))
    }
}
