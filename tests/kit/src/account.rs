//! One device of an account, and its requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::http::{Client, Reply, encode};

/// The password of every account that is made here.
const PASSWORD: &str = "correct horse battery staple 42";

/// One device of an account.
#[derive(Clone)]
pub struct User {
    /// `@localpart:server`.
    pub id: String,
    /// The access token.
    pub token: String,
    /// The device ID.
    pub device: String,
    /// The password.
    pub password: String,
    client: Client,
    count: Arc<AtomicU64>,
}

impl User {
    /// A new account, by `m.login.dummy`.
    ///
    /// # Panics
    /// If registration is refused.
    pub async fn register(client: &Client, localpart: &str) -> Self {
        let mut body = json!({ "username": localpart, "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
        let mut reply = client.json(Method::POST, "/register", None, Some(&body)).await;
        if reply.status == 401 {
            body["auth"]["session"] = reply["session"].clone();
            reply = client.json(Method::POST, "/register", None, Some(&body)).await;
        }
        Self::from_reply(client, &reply.ok(), PASSWORD)
    }

    /// One more device of an account, by password.
    ///
    /// # Panics
    /// If the login is refused.
    pub async fn login(client: &Client, user: &str, password: &str) -> Self {
        let body = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": user },
            "password": password,
        });
        let reply = client.json(Method::POST, "/login", None, Some(&body)).await;
        Self::from_reply(client, &reply.ok(), password)
    }

    /// The device that an answer of `/login` or `/register` tells of.
    ///
    /// # Panics
    /// If `user_id`, `access_token` or `device_id` is missing.
    pub fn from_reply(client: &Client, reply: &Value, password: &str) -> Self {
        let text = |key: &str| reply[key].as_str().unwrap_or_else(|| panic!("no {key} in {reply}")).to_owned();
        Self {
            id: text("user_id"),
            token: text("access_token"),
            device: text("device_id"),
            password: password.to_owned(),
            client: client.clone(),
            count: Arc::default(),
        }
    }

    /// The same device, for a server that may take longer than a test would wait.
    pub fn with_patience(mut self, patience: std::time::Duration) -> Self {
        self.client = self.client.with_patience(patience);
        self
    }

    /// The part between `@` and `:`.
    pub fn localpart(&self) -> &str {
        self.id[1..].split(':').next().unwrap_or_default()
    }

    /// The part after the first `:`.
    pub fn server(&self) -> &str {
        self.id.split_once(':').map(|(_, server)| server).unwrap_or_default()
    }

    /// The user ID as it stands in a path.
    pub fn path_id(&self) -> String {
        encode(&self.id)
    }

    /// A transaction ID that this device has not used.
    pub fn txn(&self) -> String {
        format!("t{}", self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// `GET` as this device.
    pub async fn get(&self, path: &str) -> Reply {
        self.client.json(Method::GET, path, Some(&self.token), None).await
    }

    /// `PUT` as this device.
    pub async fn put(&self, path: &str, body: Value) -> Reply {
        self.client.json(Method::PUT, path, Some(&self.token), Some(&body)).await
    }

    /// `POST` as this device.
    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.client.json(Method::POST, path, Some(&self.token), Some(&body)).await
    }

    /// `DELETE` as this device.
    pub async fn delete(&self, path: &str) -> Reply {
        self.client.json(Method::DELETE, path, Some(&self.token), None).await
    }

    /// Any method and any bytes as this device.
    pub async fn raw(&self, method: Method, path: &str, kind: &str, body: impl Into<Bytes>) -> Reply {
        self.client.raw(method, path, Some(&self.token), kind, body.into()).await
    }

    /// Like [`User::raw`] with JSON, for callers that expect the server to die.
    pub async fn attempt(&self, method: Method, path: &str, body: Value) -> Result<Reply, String> {
        let body = Bytes::from(body.to_string());
        self.client.attempt(method, path, Some(&self.token), "application/json", body).await
    }

    /// The client beneath.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// `POST` to an endpoint that asks for user-interactive authentication, answered with the password.
    pub async fn post_with_password(&self, path: &str, mut body: Value) -> Reply {
        let first = self.post(path, body.clone()).await;
        if first.status != 401 || first["session"].is_null() {
            return first;
        }
        body["auth"] = self.password_stage(first["session"].as_str().unwrap_or_default());
        self.post(path, body).await
    }

    /// The stage `m.login.password` of a session.
    pub fn password_stage(&self, session: &str) -> Value {
        json!({
            "type": "m.login.password",
            "session": session,
            "identifier": { "type": "m.id.user", "user": self.id },
            "password": self.password,
        })
    }

    /// Account data, for all rooms or for one.
    pub async fn account_data(&self, room: Option<&str>, kind: &str) -> Reply {
        self.get(&self.account_data_path(room, kind)).await
    }

    /// Sets account data, for all rooms or for one.
    pub async fn set_account_data(&self, room: Option<&str>, kind: &str, content: Value) -> Reply {
        self.put(&self.account_data_path(room, kind), content).await
    }

    fn account_data_path(&self, room: Option<&str>, kind: &str) -> String {
        let room = room.map(|room| format!("/rooms/{}", encode(room))).unwrap_or_default();
        format!("/user/{}{room}/account_data/{}", self.path_id(), encode(kind))
    }

    /// Stores a filter and gives its ID.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn filter(&self, filter: Value) -> String {
        let reply = self.post(&format!("/user/{}/filter", self.path_id()), filter).await.ok();
        reply["filter_id"].as_str().expect("a filter_id").to_owned()
    }
}
