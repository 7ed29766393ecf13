//! What application services are asked: whether a user or an alias of theirs is to be made ("Querying"), whether they are there
//! ("Pinging"), and what they know of their networks ("Third-party networks").

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use serde_json::{Map, Value, json};
use stoa_accounts::Service;
use stoa_event::ids::UserId;

use super::{Appservices, Error, Inner};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a service is asked that does not answer, and how long is waited in between.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// How long it is believed what a service said of a network.
const BELIEVED_MS: u64 = 60_000;
/// How many services are asked at once for one answer, and how much they may say.
const MANY: usize = 50;
const MAX_FOUND: usize = 1_000;

/// What services said of their networks, until when it is believed: by service and network.
pub(super) type Cache = HashMap<(String, String), (u64, Option<Value>)>;

/// What is asked about networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thirds {
    /// Places: rooms.
    Locations,
    /// People.
    Users,
}

impl Thirds {
    fn word(self) -> &'static str {
        match self {
            Thirds::Locations => "location",
            Thirds::Users => "user",
        }
    }
}

/// Percent-encodes one segment of a path or one value of a query.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

impl Appservices {
    /// Has a user of this server made by the service that such names belong to, where there is none.
    ///
    /// # Errors
    /// Where the service does not answer.
    pub async fn meet(&self, user: &UserId) -> Result<(), Error> {
        let accounts = &self.inner.accounts;
        if user.server_name() == accounts.server_name()
            && accounts.services().keeps_user(user.as_str(), None)
            && accounts.account(user).await?.is_none()
        {
            self.make_user(user.as_str()).await?;
        }
        Ok(())
    }

    /// Asks the service that a user's name belongs to whether there is such a user; it makes one if so. Nobody is locked meanwhile.
    ///
    /// # Errors
    /// Where the service does not answer.
    async fn make_user(&self, user: &str) -> Result<bool, Error> {
        let services = self.inner.accounts.services();
        let Some(service) = services.all().iter().find(|service| service.is_mine_alone(user)) else { return Ok(false) };
        self.inner.make(service, "users", user).await
    }

    /// Asks the service that an alias belongs to whether there is such a room; it makes one if so.
    ///
    /// # Errors
    /// Where the service does not answer.
    pub async fn make_alias(&self, alias: &str) -> Result<bool, Error> {
        let services = self.inner.accounts.services();
        let Some(service) = services.all().iter().find(|service| service.has_alias_alone(alias)) else {
            return Ok(false);
        };
        self.inner.make(service, "rooms", alias).await
    }

    /// Asks a service whether it is there; how long that took is the answer, in milliseconds. What waits for it is sent then.
    ///
    /// # Errors
    /// Where it is not, or says something else.
    pub async fn ping(&self, service: &Service, transaction: Option<&str>) -> Result<u64, Error> {
        let body = match transaction {
            Some(transaction) => json!({ "transaction_id": transaction }),
            None => json!({}),
        };
        let begun = self.inner.env.now_ms();
        let body = Bytes::from(body.to_string());
        self.inner.call_once(service, Method::POST, "/_matrix/app/v1/ping", body, PING_TIMEOUT).await?;
        self.is_there(&service.id);
        Ok(self.inner.env.now_ms().saturating_sub(begun))
    }

    /// The networks that services know, each with what they say of it.
    pub async fn networks(&self) -> Map<String, Value> {
        let services = self.inner.accounts.services();
        let all = services.all().iter().flat_map(|service| service.protocols.iter().map(move |name| (service, name)));
        let asked: Vec<_> =
            all.take(MANY).map(|(service, name)| self.inner.network(service.clone(), name.clone())).collect();
        let mut networks = Map::new();
        for (name, told) in join_all(asked).await {
            if let Some(told) = told {
                merge(&mut networks, name, told);
            }
        }
        networks
    }

    /// What services say of one network; `None` where none knows it.
    pub async fn network(&self, name: &str) -> Option<Value> {
        let services = self.inner.accounts.services();
        let mut networks = Map::new();
        for service in services.all().iter().filter(|service| service.protocols.iter().any(|known| known == name)) {
            if let (name, Some(told)) = self.inner.network(service.clone(), name.to_owned()).await {
                merge(&mut networks, name, told);
            }
        }
        networks.remove(name)
    }

    /// What services know of places or people in a network, by fields of theirs; `None` where none knows the network.
    pub async fn find(&self, what: Thirds, network: &str, fields: &[(String, String)]) -> Option<Vec<Value>> {
        let services = self.inner.accounts.services();
        let knows = |service: &&Arc<Service>| service.protocols.iter().any(|known| known == network);
        let asked: Vec<Arc<Service>> = services.all().iter().filter(knows).take(MANY).cloned().collect();
        if asked.is_empty() {
            return None;
        }
        Some(self.inner.found(asked, &format!("{}/{}", what.word(), encode(network)), fields).await)
    }

    /// What services know of an alias or a user of theirs.
    pub async fn find_by_name(&self, what: Thirds, name: &str) -> Vec<Value> {
        let services = self.inner.accounts.services();
        let (field, knows): (_, fn(&Service, &str) -> bool) = match what {
            Thirds::Locations => ("alias", Service::has_alias),
            Thirds::Users => ("userid", Service::is_mine),
        };
        let asked = services.all().iter().filter(|service| knows(service, name)).take(MANY).cloned().collect();
        self.inner.found(asked, what.word(), &[(field.to_owned(), name.to_owned())]).await
    }
}

/// Puts what another service says of a network beside what is known of it: the instances of all.
fn merge(networks: &mut Map<String, Value>, name: String, told: Value) {
    match networks.get_mut(&name) {
        None => {
            networks.insert(name, told);
        }
        Some(known) => {
            if let (Some(known), Some(more)) = (known["instances"].as_array_mut(), told["instances"].as_array()) {
                known.extend(more.iter().cloned());
            }
        }
    }
}

impl Inner {
    async fn make(&self, service: &Service, kind: &str, name: &str) -> Result<bool, Error> {
        let Ok(_permit) = self.questions.acquire().await else { return Ok(false) };
        let name = encode(name);
        let (path, old) = (format!("/_matrix/app/v1/{kind}/{name}"), format!("/{kind}/{name}"));
        let mut tries = 1;
        loop {
            match self.call(service, Method::GET, (&path, Some(&old)), Bytes::new(), TIMEOUT).await {
                Ok(_) => return Ok(true),
                Err(Error::Unreached(why)) if tries < TRIES => {
                    tracing::debug!(service = service.id, %why, "an application service is asked again");
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(Error::NoUrl) => return Ok(false),
                // It says no, in whichever words.
                Err(Error::Status { .. }) => return Ok(false),
                Err(why) => return Err(why),
            }
        }
    }

    /// What a service says of one of its networks.
    async fn network(&self, service: Arc<Service>, name: String) -> (String, Option<Value>) {
        let key = (service.id.clone(), name.clone());
        let known = self.networks.lock().get(&key).cloned();
        if let Some((_, told)) = known.filter(|(until, _)| *until > self.env.now_ms()) {
            return (name, told);
        }
        let path = format!("/thirdparty/protocol/{}", encode(&name));
        let told = self.third(&service, &path).await.filter(Value::is_object).map(|mut told| {
            if !told["instances"].is_array() {
                told["instances"] = json!([]);
            }
            for instance in told["instances"].as_array_mut().into_iter().flatten() {
                if let Some(network) = instance["network_id"].as_str() {
                    instance["instance_id"] = instance_id(&service.id, network).into();
                }
            }
            told
        });
        self.networks.lock().insert(key, (self.env.now_ms() + BELIEVED_MS, told.clone()));
        (name, told)
    }

    async fn found(&self, services: Vec<Arc<Service>>, path: &str, fields: &[(String, String)]) -> Vec<Value> {
        let query: Vec<String> =
            fields.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
        let path = format!("/thirdparty/{path}?{}", query.join("&"));
        let mut found = Vec::new();
        for service in services {
            let told = self.third(&service, &path).await;
            found.extend(told.as_ref().and_then(Value::as_array).into_iter().flatten().cloned());
        }
        found.truncate(MAX_FOUND);
        found
    }

    /// Asks a service about its networks; who does not answer knows nothing.
    async fn third(&self, service: &Service, path: &str) -> Option<Value> {
        let _permit = self.questions.acquire().await.ok()?;
        let (path, old) = (format!("/_matrix/app/v1{path}"), format!("/_matrix/app/unstable{path}"));
        match self.call(service, Method::GET, (&path, Some(&old)), Bytes::new(), TIMEOUT).await {
            Ok(body) => serde_json::from_slice(&body).ok(),
            Err(why) => {
                tracing::debug!(service = service.id, %why, "an application service says nothing of its network");
                None
            }
        }
    }
}

/// By what a network of a service is named (Client-Server API, `instance_id`).
pub fn instance_id(service: &str, network: &str) -> String {
    format!("{service}|{network}")
}
