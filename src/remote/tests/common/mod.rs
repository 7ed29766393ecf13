//! A server in memory, a clock that stands still until it is told to go on, and a network that is a table of functions.
#![allow(dead_code)]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use stoa_engine::memory::Memory;
use stoa_event::{
    ids::{OwnedServerName, ServerName},
    sign::{SigningKey, sign_json},
};
use stoa_remote::{Config, Limits, Remote, Transport, TransportError};
use stoa_store::{Clock, Env, Options, Random, Store};

pub const US: &str = "us.example";
pub const START: u64 = 1_700_000_000_000;
pub const HOUR: u64 = 60 * 60 * 1000;
pub const DAY: u64 = 24 * HOUR;

pub struct TestClock(AtomicU64);

impl TestClock {
    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A generator that is good enough to spread (xorshift).
pub struct TestRandom(AtomicU64);

impl Random for TestRandom {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let mut n = self.0.load(Ordering::SeqCst);
            n ^= n << 13;
            n ^= n >> 7;
            n ^= n << 17;
            self.0.store(n, Ordering::SeqCst);
            *byte = (n >> 32) as u8;
        }
    }
}

pub fn env() -> (Env, Arc<TestClock>) {
    let clock = Arc::new(TestClock(AtomicU64::new(START)));
    let random = Arc::new(TestRandom(AtomicU64::new(88_172_645_463_325_252)));
    (Env { clock: clock.clone(), random }, clock)
}

pub type Answer = Result<http::Response<Bytes>, TransportError>;
type Handler = Box<dyn Fn(&http::Request<Bytes>) -> Answer + Send + Sync>;

/// The network: what each server answers, and what was asked.
#[derive(Default)]
pub struct Net {
    servers: Mutex<HashMap<OwnedServerName, Handler>>,
    pub asked: Mutex<Vec<(OwnedServerName, http::Request<Bytes>)>>,
}

impl Net {
    pub fn serve(&self, server: &str, handler: impl Fn(&http::Request<Bytes>) -> Answer + Send + Sync + 'static) {
        self.servers.lock().unwrap().insert(name(server), Box::new(handler));
    }

    pub fn down(&self, server: &str) {
        self.serve(server, |_| Err(TransportError::Connect("nobody is there".to_owned())));
    }

    pub fn count(&self, server: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|(to, _)| to == server).count()
    }
}

impl Transport for Net {
    fn call(&self, to: &ServerName, request: http::Request<Bytes>, _: Limits) -> BoxFuture<'_, Answer> {
        let to = to.to_owned();
        Box::pin(async move {
            // So that those who come together do come together.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            self.asked.lock().unwrap().push((to.clone(), request.clone()));
            let servers = self.servers.lock().unwrap();
            match servers.get(&to) {
                Some(handler) => handler(&request),
                None => Err(TransportError::Resolve(format!("{to} does not exist"))),
            }
        })
    }
}

pub struct World {
    pub remote: Remote,
    pub store: Store,
    pub net: Arc<Net>,
    pub key: Arc<SigningKey>,
    pub config: Config,
    env: Env,
    clock: Arc<TestClock>,
}

impl World {
    pub async fn new(config: Config) -> World {
        let (env, clock) = env();
        let (store, committer) = Store::open(Arc::new(Memory::with_page(3)), Options::default()).await.unwrap();
        tokio::spawn(committer.run());
        let net = Arc::new(Net::default());
        let key = Arc::new(key(1, "us"));
        let remote = Remote::new(store.clone(), env.clone(), name(US), key.clone(), net.clone(), config.clone());
        World { remote, store, net, key, config, env, clock }
    }

    pub async fn plain() -> World {
        World::new(Config::default()).await
    }

    /// The same store and network, nothing in memory.
    pub fn restart(&mut self) {
        self.remote = Remote::new(
            self.store.clone(),
            self.env.clone(),
            name(US),
            self.key.clone(),
            self.net.clone(),
            self.config.clone(),
        );
    }

    pub fn wait(&self, ms: u64) {
        self.clock.advance(ms);
    }

    pub fn now(&self) -> u64 {
        self.clock.now_ms()
    }
}

pub fn name(server: &str) -> OwnedServerName {
    server.try_into().unwrap()
}

pub fn key(seed: u8, version: &str) -> SigningKey {
    SigningKey::from_seed(&[seed; 32], version).unwrap()
}

pub fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
    Ok(http::Response::builder().status(status).body(body.into()).unwrap())
}

pub fn ok(body: &Value) -> Answer {
    answer(200, body.to_string())
}

/// A key document before it is signed.
pub fn unsigned(server: &str, keys: &[&SigningKey], old: &[(&SigningKey, u64)], valid_until: u64) -> Value {
    let public = |key: &SigningKey| key.verify_key().to_base64();
    let in_use: serde_json::Map<_, _> =
        keys.iter().map(|key| (key.id().to_owned(), json!({ "key": public(key) }))).collect();
    let old: serde_json::Map<_, _> =
        old.iter().map(|(key, at)| (key.id().to_owned(), json!({ "key": public(key), "expired_ts": at }))).collect();
    json!({ "server_name": server, "valid_until_ts": valid_until, "verify_keys": in_use, "old_verify_keys": old })
}

pub fn sign(value: &Value, server: &str, key: &SigningKey) -> Value {
    let signed = sign_json(value.to_string().as_bytes(), &name(server), key).unwrap();
    serde_json::from_slice(&signed).unwrap()
}

/// A key document, signed with its first key.
pub fn document(server: &str, keys: &[&SigningKey], old: &[(&SigningKey, u64)], valid_until: u64) -> Value {
    sign(&unsigned(server, keys, old, valid_until), server, keys[0])
}

pub fn wanted(list: &[(&str, &str)]) -> Vec<(OwnedServerName, String)> {
    list.iter().map(|(server, id)| (name(server), (*id).to_owned())).collect()
}
