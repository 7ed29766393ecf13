//! Rooms in memory, people who act in them and look at them, and a clock that stands still until it is told to go on.
#![allow(dead_code)]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use stoa_engine::memory::Memory;
use stoa_event::{
    ids::{OwnedEventId, OwnedRoomId, OwnedUserId},
    sign::SigningKey,
};
use stoa_rooms::{Action, Change, CreateRoom, InitialState, NewEvent, NewReceipt, Preset, Profile, Rooms, TxnKey};
use stoa_store::{Clock, Env, Options, Random, Store, Tx};
use stoa_view::{Filter, MessagesRequest, RoomEventFilter, SyncRequest, View, Viewer};

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

/// Repeatable chance.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn below(&mut self, n: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((x ^ (x >> 31)) % n as u64).unwrap()
    }

    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// A server: store, write side, read side.
pub struct Home {
    pub engine: Memory,
    pub store: Store,
    pub rooms: Rooms,
    pub view: View,
    clock: Arc<TestClock>,
}

impl Home {
    pub async fn open() -> Home {
        Self::over(Memory::with_page(7), 1_700_000_000_000).await
    }

    /// The same data after a restart.
    pub async fn reopened(self) -> Home {
        let (engine, now) = (self.engine.clone(), self.clock.now_ms() + 60_000);
        drop(self);
        Self::over(engine, now).await
    }

    pub async fn over(engine: Memory, now_ms: u64) -> Home {
        let options = Options { now_ms, ..Options::default() };
        let (store, committer) = Store::open(Arc::new(engine.clone()), options).await.unwrap();
        tokio::spawn(committer.run());
        let clock = Arc::new(TestClock(AtomicU64::new(now_ms)));
        let env = Env { clock: clock.clone(), random: Arc::new(TestRandom(AtomicU64::new(now_ms))) };
        let key = SigningKey::from_seed(&[7; 32], "1").unwrap();
        let name = "stoa.test".try_into().unwrap();
        let rooms = Rooms::new(store.clone(), env.clone(), name, key, stoa_rooms::Config::default());
        let view = View::new(store.clone(), env, stoa_view::Config::default());
        tokio::spawn(view.clone().run());
        Home { engine, store, rooms, view, clock }
    }

    pub fn now(&self) -> u64 {
        self.clock.now_ms()
    }

    pub fn wait(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    pub async fn user(&self, name: &str) -> Viewer {
        let user: OwnedUserId = format!("@{name}:stoa.test").try_into().unwrap();
        let snapshot = self.store.snapshot().await.unwrap();
        let mut tx = Tx::new();
        let user_no = self.store.names().name_user(&snapshot, &mut tx, user.as_str()).await.unwrap();
        self.store.commit(tx).await.unwrap();
        Viewer { user, user_no, device: format!("{name}s phone") }
    }

    /// A room that everybody may join, and in which everybody may do most things.
    pub async fn room(&self, creator: &Viewer) -> OwnedRoomId {
        self.room_with(creator, &[]).await
    }

    /// The same, with more state to begin with.
    pub async fn room_with(&self, creator: &Viewer, state: &[(&str, Value)]) -> OwnedRoomId {
        self.wait(1000);
        let powers = json!({ "state_default": 0, "kick": 0, "ban": 0, "invite": 0, "redact": 0, "events": {} });
        let initial_state = state
            .iter()
            .map(|(kind, content)| InitialState {
                kind: (*kind).to_owned(),
                state_key: String::new(),
                content: object(content.clone()),
            })
            .collect();
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
            creation_content: Map::new(),
            initial_state,
            power_levels: object(powers),
        };
        self.rooms.create(request).await.unwrap()
    }

    pub async fn act(&self, action: Action, who: &Viewer, whom: &Viewer, room: &OwnedRoomId) -> bool {
        self.wait(1);
        let change = Change {
            action,
            sender: who.user.clone(),
            target: whom.user.clone(),
            reason: None,
            content: Map::new(),
            profile: Profile::default(),
        };
        self.rooms.change(room, change).await.is_ok()
    }

    pub async fn join(&self, who: &Viewer, room: &OwnedRoomId) {
        assert!(self.act(Action::Join, who, who, room).await);
    }

    pub async fn leave(&self, who: &Viewer, room: &OwnedRoomId) {
        assert!(self.act(Action::Leave, who, who, room).await);
    }

    pub async fn send(&self, who: &Viewer, room: &OwnedRoomId, content: Value) -> OwnedEventId {
        self.try_send(who, room, "m.room.message", None, content).await.unwrap()
    }

    pub async fn say(&self, who: &Viewer, room: &OwnedRoomId, text: &str) -> OwnedEventId {
        self.send(who, room, json!({ "msgtype": "m.text", "body": text })).await
    }

    pub async fn set(&self, who: &Viewer, room: &OwnedRoomId, kind: &str, key: &str, content: Value) -> OwnedEventId {
        self.try_send(who, room, kind, Some(key), content).await.unwrap()
    }

    pub async fn try_send(
        &self,
        who: &Viewer,
        room: &OwnedRoomId,
        kind: &str,
        key: Option<&str>,
        content: Value,
    ) -> Result<OwnedEventId, stoa_rooms::Error> {
        self.wait(1);
        let new = NewEvent {
            sender: who.user.clone(),
            kind: kind.to_owned(),
            state_key: key.map(str::to_owned),
            content: content.to_string().into_bytes(),
            redacts: None,
            txn: Some(TxnKey { device: who.device.clone(), deed: "send".into(), id: self.now().to_string() }),
            ts: None,
        };
        self.rooms.send(room, new).await
    }

    pub async fn redact(&self, who: &Viewer, room: &OwnedRoomId, event: &OwnedEventId) {
        self.wait(1);
        let new = NewEvent {
            sender: who.user.clone(),
            kind: "m.room.redaction".into(),
            state_key: None,
            content: json!({ "redacts": event }).to_string().into_bytes(),
            redacts: Some(event.clone()),
            txn: None,
            ts: None,
        };
        self.rooms.redact(room, new).await.unwrap();
    }

    pub async fn read(&self, who: &Viewer, room: &OwnedRoomId, event: &OwnedEventId, thread: Option<&str>) {
        let new = NewReceipt {
            user: who.user.clone(),
            kind: "m.read".into(),
            event: event.clone(),
            thread: thread.map(str::to_owned),
        };
        self.rooms.receipts(room, vec![new]).await.unwrap();
    }

    pub async fn sync(&self, who: &Viewer, since: Option<&str>) -> Value {
        self.sync_with(who, since, json!({})).await
    }

    pub async fn sync_with(&self, who: &Viewer, since: Option<&str>, filter: Value) -> Value {
        self.answer(self.request(who, since, filter)).await
    }

    pub fn request(&self, who: &Viewer, since: Option<&str>, filter: Value) -> SyncRequest {
        let filter: Filter = serde_json::from_value(filter).unwrap();
        SyncRequest {
            viewer: who.clone(),
            since: since.map(str::to_owned),
            filter: Arc::new(filter),
            full_state: false,
            state_after: None,
            timeout_ms: 0,
        }
    }

    pub async fn answer(&self, request: SyncRequest) -> Value {
        serde_json::from_slice(&self.view.sync(request).await.unwrap()).unwrap()
    }

    /// A page of history, oldest first if `backward` is not said.
    pub async fn page(
        &self,
        who: &Viewer,
        room: &OwnedRoomId,
        from: Option<&str>,
        backward: bool,
        limit: u64,
    ) -> Value {
        let request = MessagesRequest {
            over_gaps: false,
            viewer: who.clone(),
            room: room.clone(),
            from: from.map(str::to_owned),
            to: None,
            backward,
            limit: Some(limit),
            filter: RoomEventFilter::default(),
        };
        serde_json::from_slice(&self.view.messages(&request).await.unwrap().body).unwrap()
    }
}

pub fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}

/// The token of an answer.
pub fn token(sync: &Value) -> String {
    sync["next_batch"].as_str().unwrap().to_owned()
}

/// The events of a list, by id.
pub fn ids(events: &Value) -> Vec<String> {
    list(events).iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

/// What was said in a list of events.
pub fn bodies(events: &Value) -> Vec<String> {
    list(events).iter().filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
}

/// The types and state keys of a list of state events, in order.
pub fn keys(events: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut keys: Vec<_> = list(events)
        .iter()
        .filter(|event| event["state_key"].is_string())
        .map(|event| (text(&event["type"]), text(&event["state_key"])))
        .collect();
    keys.sort();
    keys
}

pub fn list(events: &Value) -> &[Value] {
    events.as_array().map(Vec::as_slice).unwrap_or_default()
}
