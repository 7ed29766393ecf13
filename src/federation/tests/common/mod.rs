//! A server in memory with people and rooms, other servers that are a table of functions, and a clock that stands still
//! until it is told to go on. Sleeping costs no time.
#![allow(dead_code)]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use stoa_accounts::{Accounts, Who};
use stoa_engine::memory::Memory;
use stoa_event::{
    ids::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, ServerName},
    pdu::Pdu,
    sign::{SigningKey, sign_json},
    version::Rules,
};
use stoa_federation::{FOLLOWER, Federation};
use stoa_remote::{Limits, Remote, Transport, TransportError};
use stoa_rooms::{Action, Arrival, Change, CreateRoom, NewEvent, NewReceipt, Outcome, Preset, Profile, Rooms, Wanted};
use stoa_store::{
    Clock, Direction, Env, EventNo, Membership, Options, Random, RoomNo, Store, Tx, UserNo,
    rows::{self, devices::Device, rooms::Member},
    schema,
};

pub const US: &str = "us.example";
/// How long a server may be gone.
pub const GIVE_UP_MS: u64 = 60 * 24 * 60 * 60 * 1000;

struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

struct TestRandom(AtomicU64);

impl Random for TestRandom {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let n = self.0.fetch_add(1, Ordering::SeqCst);
            chunk.copy_from_slice(&Sha256::digest(n.to_be_bytes())[..chunk.len()]);
        }
    }
}

pub type Answer = Result<http::Response<Bytes>, TransportError>;
type Handler = Box<dyn FnMut(&http::Request<Bytes>) -> Answer + Send>;

/// The network: what each server answers, and what was asked.
#[derive(Default)]
pub struct Net {
    servers: Mutex<HashMap<OwnedServerName, Handler>>,
    asked: Mutex<Vec<(OwnedServerName, http::Request<Bytes>)>>,
    delays: Mutex<HashMap<OwnedServerName, Duration>>,
}

/// A transaction as a server got it.
#[derive(Clone, Debug)]
pub struct Got {
    pub id: String,
    pub pdus: Vec<Value>,
    pub edus: Vec<Value>,
}

impl Got {
    fn of(request: &http::Request<Bytes>) -> Option<Got> {
        let id = request.uri().path().strip_prefix("/_matrix/federation/v1/send/")?.to_owned();
        let body: Value = serde_json::from_slice(request.body()).unwrap();
        assert_eq!(body["origin"], US);
        let list = |field: &str| body[field].as_array().unwrap().clone();
        Some(Got { id, pdus: list("pdus"), edus: list("edus") })
    }

    /// The texts of the messages.
    pub fn texts(&self) -> Vec<String> {
        self.pdus.iter().filter_map(|pdu| Some(pdu["content"]["body"].as_str()?.to_owned())).collect()
    }
}

impl Net {
    pub fn serve(&self, server: &str, handler: impl FnMut(&http::Request<Bytes>) -> Answer + Send + 'static) {
        self.servers.lock().unwrap().insert(name(server), Box::new(handler));
    }

    /// A server that takes everything.
    pub fn up(&self, server: &str) {
        self.serve(server, |_| ok(&json!({})));
    }

    /// From now on a server thinks so long before it answers.
    pub fn slow(&self, server: &str, delay: Duration) {
        self.delays.lock().unwrap().insert(name(server), delay);
    }

    /// A server that is not there.
    pub fn down(&self, server: &str) {
        self.serve(server, |_| Err(TransportError::Connect("nobody is there".to_owned())));
    }

    /// Every transaction that a server was sent, whatever it answered.
    pub fn got(&self, server: &str) -> Vec<Got> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(to, _)| to == server).filter_map(|(_, request)| Got::of(request)).collect()
    }

    pub fn texts(&self, server: &str) -> Vec<String> {
        self.got(server).iter().flat_map(Got::texts).collect()
    }

    /// The contents of EDUs of a type that a server was sent.
    pub fn edus(&self, server: &str, kind: &str) -> Vec<Value> {
        let all = self.got(server).into_iter().flat_map(|got| got.edus);
        all.filter(|edu| edu["edu_type"] == kind).map(|edu| edu["content"].clone()).collect()
    }

    /// The paths that a server was asked for, transactions apart.
    pub fn paths(&self, server: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let paths = asked.iter().filter(|(to, _)| to == server).map(|(_, request)| request.uri().path().to_owned());
        paths.filter(|path| !path.contains("/send/")).collect()
    }

    pub fn forget(&self) {
        self.asked.lock().unwrap().clear();
    }
}

impl Transport for Net {
    fn ask_url(&self, request: http::Request<Bytes>, limits: Limits) -> BoxFuture<'_, Answer> {
        assert_eq!(request.uri().scheme_str(), Some("https"));
        let host = name(request.uri().host().unwrap());
        self.call(&host, request, limits)
    }

    fn call(&self, to: &ServerName, request: http::Request<Bytes>, _: Limits) -> BoxFuture<'_, Answer> {
        let to = to.to_owned();
        Box::pin(async move {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            self.asked.lock().unwrap().push((to.clone(), request.clone()));
            let delay = self.delays.lock().unwrap().get(&to).copied();
            if let Some(delay) = delay {
                tokio::time::sleep(delay).await;
            }
            match self.servers.lock().unwrap().get_mut(&to) {
                Some(handler) => handler(&request),
                None => Err(TransportError::Resolve(format!("{to} does not exist"))),
            }
        })
    }
}

/// The server.
pub struct World {
    pub federation: Federation,
    pub rooms: Rooms,
    pub accounts: Accounts,
    pub store: Store,
    pub net: Arc<Net>,
    engine: Memory,
    clock: Arc<TestClock>,
    sending: Option<tokio::task::JoinHandle<()>>,
}

impl World {
    /// A server that sends.
    pub async fn open() -> World {
        let mut world = World::over(Memory::with_page(7), Arc::new(Net::default()), 1_700_000_000_000).await;
        world.start();
        world
    }

    async fn over(engine: Memory, net: Arc<Net>, now_ms: u64) -> World {
        let options = Options { followers: vec![FOLLOWER], now_ms, ..Options::default() };
        let (store, committer) = Store::open(Arc::new(engine.clone()), options).await.unwrap();
        tokio::spawn(committer.run());
        let clock = Arc::new(TestClock(AtomicU64::new(now_ms)));
        let env = Env { clock: clock.clone(), random: Arc::new(TestRandom(AtomicU64::new(now_ms))) };
        let key = Arc::new(SigningKey::from_seed(&[7; 32], "1").unwrap());
        let us = name(US);
        let config = stoa_remote::Config { give_up_ms: Some(GIVE_UP_MS), ..stoa_remote::Config::default() };
        let accounts = Accounts::new(store.clone(), env.clone(), us.clone(), stoa_accounts::Config::default());
        let rooms = Rooms::new(store.clone(), env.clone(), us.clone(), key.clone(), stoa_rooms::Config::default());
        let remote = Remote::new(store.clone(), env.clone(), us, key, net.clone(), config);
        let federation = Federation::new(store.clone(), env, rooms.clone(), accounts.clone(), remote);
        World { federation, rooms, accounts, store, net, engine, clock, sending: None }
    }

    pub fn start(&mut self) {
        self.sending = Some(tokio::spawn(self.federation.clone().run()));
    }

    /// Ends sending; everything else goes on.
    pub async fn stop(&mut self) {
        if let Some(sending) = self.sending.take() {
            sending.abort();
            let _ = sending.await;
        }
    }

    /// The same data after a restart that nobody was warned of.
    pub async fn restarted(mut self) -> World {
        self.stop().await;
        let mut world = World::over(self.engine.clone(), self.net.clone(), self.clock.now_ms() + 1000).await;
        world.start();
        world
    }

    pub fn now(&self) -> u64 {
        self.clock.now_ms()
    }

    pub fn wait(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// A user of ours with a device.
    pub async fn user(&self, localpart: &str) -> Who {
        let user: OwnedUserId = format!("@{localpart}:{US}").try_into().unwrap();
        let snapshot = self.store.snapshot().await.unwrap();
        let mut tx = Tx::new();
        let user_no = self.store.names().name_user(&snapshot, &mut tx, user.as_str()).await.unwrap();
        let device = "PHONE".to_owned();
        rows::devices::put(&mut tx, user_no, &device, &Device::default());
        self.store.commit(tx).await.unwrap();
        Who { user, user_no, device, admin: false, guest: false, locked: false, suspended: false, service: None }
    }

    /// An account of ours.
    pub async fn account(&self, localpart: &str) {
        let snapshot = self.store.snapshot().await.unwrap();
        let mut tx = Tx::new();
        let no = self.store.names().name_user(&snapshot, &mut tx, &format!("@{localpart}:{US}")).await.unwrap();
        rows::users::create(&mut tx, no, &rows::users::User::default());
        self.store.commit(tx).await.unwrap();
    }

    pub async fn room(&self, creator: &Who) -> OwnedRoomId {
        self.room_with(creator, json!({})).await
    }

    pub async fn room_with(&self, creator: &Who, creation: Value) -> OwnedRoomId {
        let request = CreateRoom {
            creator: creator.user.clone(),
            profile: Profile::default(),
            version: None,
            preset: Preset::Public,
            listed: false,
            alias: None,
            name: None,
            topic: None,
            invite: Vec::new(),
            is_direct: false,
            creation_content: creation.as_object().unwrap().clone(),
            initial_state: Vec::new(),
            power_levels: Map::new(),
        };
        self.rooms.create(request).await.unwrap()
    }

    pub async fn no(&self, room: &OwnedRoomId) -> RoomNo {
        let snapshot = self.store.snapshot().await.unwrap();
        self.store.names().room(&snapshot, room.as_str()).await.unwrap().unwrap()
    }

    pub async fn user_no(&self, user: &str) -> UserNo {
        let snapshot = self.store.snapshot().await.unwrap();
        self.store.names().user(&snapshot, user).await.unwrap().unwrap()
    }

    /// A user of another server is in a room, as far as the tables say.
    pub async fn enter(&self, room: &OwnedRoomId, user: &str) -> OwnedUserId {
        let user: OwnedUserId = user.try_into().unwrap();
        let room = self.no(room).await;
        let snapshot = self.store.snapshot().await.unwrap();
        let mut tx = Tx::new();
        let no = self.store.names().name_user(&snapshot, &mut tx, user.as_str()).await.unwrap();
        let member = Member { membership: Membership::Join, event: EventNo(0) };
        rows::rooms::put_member(&mut tx, room, no, &member, false);
        rows::rooms::put_server(&mut tx, room, user.server_name().as_str(), 1);
        self.store.commit(tx).await.unwrap();
        user
    }

    /// A user of another server changes their membership by an event that this server takes in.
    pub async fn join(&self, room: &OwnedRoomId, user: &str, membership: &str) {
        let pdu = self.member_event(room, user, membership).await;
        let outcomes = self.rooms.ingest(room, vec![Arrival::Live(pdu, Vec::new())]).await.unwrap();
        assert_eq!(outcomes, [Outcome::Accepted]);
    }

    /// The event by which a user of another server changes their membership.
    pub async fn member_event(&self, room: &OwnedRoomId, user: &str, membership: &str) -> Arc<Pdu> {
        let user: OwnedUserId = user.try_into().unwrap();
        let key = their_key(user.server_name().as_str());
        let template = self.rooms.template(room, &user, membership).await.unwrap();
        let rules = Arc::new(Rules::of(&template.version).unwrap());
        let theirs = Rooms::new(
            self.store.clone(),
            Env { clock: self.clock.clone(), random: Arc::new(TestRandom(AtomicU64::new(1))) },
            user.server_name().to_owned(),
            Arc::new(key),
            stoa_rooms::Config::default(),
        );
        let membership = if membership == "join" { "join" } else { "leave" };
        let wanted = Wanted { room: room.clone(), user, membership, content: Map::new() };
        theirs.fill(&template.event, &rules, &wanted).unwrap()
    }

    /// Takes in an event that a server sends in a transaction.
    pub async fn take(&self, room: &OwnedRoomId, origin: &str, pdu: &Pdu) {
        assert_eq!(pdu.room_id(), room);
        let now = self.now();
        let (from, key) = (origin.to_owned(), key_document(origin, now));
        let known = self.net.servers.lock().unwrap().remove(&name(origin));
        if let Some(mut known) = known {
            self.net.serve(&from, move |request| match request.uri().path() {
                "/_matrix/key/v2/server" => ok(&key),
                _ => known(request),
            });
        }
        let received = self.federation.receive(&name(origin), vec![pdu.json().clone()]).await.unwrap();
        assert_eq!(received[pdu.event_id()], Ok(()));
    }

    /// A user of another server leaves a room, as far as the tables say.
    pub async fn leave(&self, room: &OwnedRoomId, user: &OwnedUserId) {
        let room = self.no(room).await;
        let no = self.user_no(user.as_str()).await;
        let mut tx = Tx::new();
        rows::rooms::delete_member(&mut tx, room, no, false);
        rows::rooms::put_server(&mut tx, room, user.server_name().as_str(), 0);
        self.store.commit(tx).await.unwrap();
    }

    pub async fn say(&self, room: &OwnedRoomId, sender: &Who, text: &str) -> OwnedEventId {
        let content = json!({ "msgtype": "m.text", "body": text });
        let event = NewEvent {
            sender: sender.user.clone(),
            kind: "m.room.message".to_owned(),
            state_key: None,
            content: content.to_string().into_bytes(),
            redacts: None,
            txn: None,
            ts: None,
        };
        self.rooms.send(room, event).await.unwrap()
    }

    pub async fn change(&self, room: &OwnedRoomId, action: Action, sender: &Who, target: &OwnedUserId) {
        let change = Change {
            action,
            sender: sender.user.clone(),
            target: target.clone(),
            reason: None,
            content: Map::new(),
            profile: Profile::default(),
        };
        self.rooms.change(room, change).await.unwrap();
    }

    pub async fn read(&self, room: &OwnedRoomId, user: &Who, kind: &str, event: &OwnedEventId, thread: Option<&str>) {
        let receipt = NewReceipt {
            user: user.user.clone(),
            kind: kind.to_owned(),
            event: event.clone(),
            thread: thread.map(str::to_owned),
        };
        self.rooms.receipts(room, vec![receipt]).await.unwrap();
    }

    /// Another server says something.
    pub async fn hear(&self, origin: &str, kind: &str, content: Value) {
        let content = content.to_string();
        self.federation.apply_edu(&name(origin), kind, content.as_bytes()).await.unwrap();
    }

    /// The to-device messages that wait for a device of ours.
    pub async fn mail(&self, who: &Who) -> Vec<Value> {
        let snapshot = self.store.snapshot().await.unwrap();
        let prefix = (who.user_no, who.device.clone());
        let rows = snapshot.scan(&schema::TO_DEVICE, &prefix, Direction::Forward, 1000).await.unwrap();
        rows.into_iter().map(|(_, json)| serde_json::from_slice(&json).unwrap()).collect()
    }

    /// How many rows wait for other servers.
    pub async fn waiting(&self) -> usize {
        let snapshot = self.store.snapshot().await.unwrap();
        let all = usize::MAX;
        snapshot.scan(&schema::OUTBOX, &(), Direction::Forward, all).await.unwrap().len()
            + snapshot.scan(&schema::DIRECT, &(), Direction::Forward, all).await.unwrap().len()
            + snapshot.scan(&schema::OUTBOX_DEVICES, &(), Direction::Forward, all).await.unwrap().len()
    }

    /// Waits until nothing waits for other servers.
    pub async fn all_sent(&self) {
        for _ in 0..2_000 {
            settle().await;
            if self.waiting().await == 0 {
                return settle().await;
            }
        }
        panic!("{} rows still wait for other servers", self.waiting().await);
    }
}

/// Lets everything happen that can happen now.
pub async fn settle() {
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until something is so.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        settle().await;
    }
    panic!("it never came to be that {what}");
}

/// The key of another server.
pub fn their_key(server: &str) -> SigningKey {
    SigningKey::from_seed(&Sha256::digest(server).into(), "1").unwrap()
}

/// What another server says of its key.
pub fn key_document(server: &str, now_ms: u64) -> Value {
    let key = their_key(server);
    let document = json!({
        "server_name": server, "valid_until_ts": now_ms + 24 * 60 * 60 * 1000, "old_verify_keys": {},
        "verify_keys": { key.id(): { "key": key.verify_key().to_base64() } },
    });
    let signed = sign_json(document.to_string().as_bytes(), &name(server), &key).unwrap();
    serde_json::from_slice(&signed).unwrap()
}

pub fn name(server: &str) -> OwnedServerName {
    server.try_into().unwrap()
}

pub fn answer(status: u16, body: &Value) -> Answer {
    Ok(http::Response::builder().status(status).body(body.to_string().into()).unwrap())
}

pub fn ok(body: &Value) -> Answer {
    answer(200, body)
}
