//! Servers that share a room without a network: what one makes is handed to another by the test.
#![allow(dead_code)]

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use stoa_engine::memory::Memory;
use stoa_event::{
    ids::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId},
    pdu::Pdu,
    sign::SigningKey,
    version::Rules,
};
use stoa_rooms::{
    Action, Arrival, Change, CreateRoom, Entry, Error, NewEvent, Omitted, Outcome, Preset, Profile, Rooms, StateAfter,
    Wanted,
};
use stoa_store::{
    Clock, Direction, Env, EventNo, Options, Random, RoomNo, Store, rows::events::Standing, rows::rooms::Head, schema,
};

/// One clock for all, a millisecond further at each look.
pub struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

struct TestRandom(String, AtomicU64);

impl Random for TestRandom {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let n = self.1.fetch_add(1, Ordering::SeqCst);
            let hash = Sha256::digest(format!("{}{n}", self.0));
            chunk.copy_from_slice(&hash[..chunk.len()]);
        }
    }
}

/// Repeatable chance (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: usize) -> usize {
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

pub fn clock() -> Arc<TestClock> {
    Arc::new(TestClock(AtomicU64::new(1_700_000_000_000)))
}

/// A server.
pub struct House {
    pub name: String,
    pub engine: Memory,
    pub store: Store,
    pub rooms: Rooms,
    clock: Arc<TestClock>,
}

impl House {
    pub async fn open(name: &str, clock: &Arc<TestClock>) -> House {
        Self::over(name, clock, Memory::with_page(7)).await
    }

    /// The same data after a restart.
    pub async fn reopened(self) -> House {
        let House { name, engine, clock, .. } = self;
        Self::over(&name, &clock, engine).await
    }

    async fn over(name: &str, clock: &Arc<TestClock>, engine: Memory) -> House {
        let (store, committer) = Store::open(Arc::new(engine.clone()), Options::default()).await.unwrap();
        tokio::spawn(committer.run());
        let random = Arc::new(TestRandom(name.to_owned(), AtomicU64::new(clock.now_ms())));
        let env = Env { clock: clock.clone(), random };
        let seed: [u8; 32] = Sha256::digest(name).into();
        let key = SigningKey::from_seed(&seed, "1").unwrap();
        let server = name.try_into().unwrap();
        let rooms = Rooms::new(store.clone(), env, server, key, stoa_rooms::Config::default());
        House { name: name.to_owned(), engine, store, rooms, clock: clock.clone() }
    }

    pub fn user(&self, localpart: &str) -> OwnedUserId {
        format!("@{localpart}:{}", self.name).try_into().unwrap()
    }

    pub async fn create(&self, creator: &OwnedUserId, version: RoomVersionId) -> OwnedRoomId {
        let request = CreateRoom {
            creator: creator.clone(),
            profile: Profile::default(),
            version: Some(version),
            preset: Preset::Public,
            listed: false,
            alias: None,
            name: None,
            topic: None,
            invite: Vec::new(),
            is_direct: false,
            creation_content: Map::new(),
            initial_state: Vec::new(),
            power_levels: Map::new(),
        };
        self.rooms.create(request).await.unwrap()
    }

    pub async fn state(
        &self,
        room: &OwnedRoomId,
        sender: &OwnedUserId,
        kind: &str,
        key: Option<&str>,
        content: Value,
    ) -> Result<OwnedEventId, Error> {
        let event = NewEvent {
            sender: sender.clone(),
            kind: kind.to_owned(),
            state_key: key.map(str::to_owned),
            content: content.to_string().into_bytes(),
            redacts: None,
            txn: None,
            ts: None,
        };
        self.rooms.send(room, event).await
    }

    pub async fn say(&self, room: &OwnedRoomId, sender: &OwnedUserId, text: &str) -> Result<OwnedEventId, Error> {
        self.state(room, sender, "m.room.message", None, json!({ "msgtype": "m.text", "body": text })).await
    }

    pub async fn redact(
        &self,
        room: &OwnedRoomId,
        sender: &OwnedUserId,
        target: &OwnedEventId,
    ) -> Result<OwnedEventId, Error> {
        let event = NewEvent {
            sender: sender.clone(),
            kind: "m.room.redaction".to_owned(),
            state_key: None,
            content: b"{}".to_vec(),
            redacts: Some(target.clone()),
            txn: None,
            ts: None,
        };
        self.rooms.redact(room, event).await
    }

    pub async fn change(
        &self,
        room: &OwnedRoomId,
        action: Action,
        sender: &OwnedUserId,
        target: &OwnedUserId,
    ) -> Result<(), Error> {
        let change = Change {
            action,
            sender: sender.clone(),
            target: target.clone(),
            reason: None,
            content: Map::new(),
            profile: Profile::default(),
        };
        self.rooms.change(room, change).await
    }

    pub async fn no(&self, room: &OwnedRoomId) -> RoomNo {
        let snapshot = self.store.snapshot().await.unwrap();
        self.store.names().room(&snapshot, room.as_str()).await.unwrap().unwrap()
    }

    /// All events of a room that are held, with their standing.
    pub async fn events(&self, room: &OwnedRoomId) -> Vec<(Arc<Pdu>, Standing)> {
        let (snapshot, no) = (self.store.snapshot().await.unwrap(), self.no(room).await);
        let rules = self.rooms.rules_of(room).await.unwrap();
        let rows = snapshot.scan(&schema::EVENTS, &no, Direction::Forward, usize::MAX).await.unwrap();
        rows.into_iter().map(|(_, event)| (Arc::new(event.pdu(&rules).unwrap()), event.header.standing)).collect()
    }

    pub async fn event(&self, room: &OwnedRoomId, id: &OwnedEventId) -> Arc<Pdu> {
        let all = self.events(room).await;
        all.into_iter().find(|(pdu, _)| pdu.event_id() == id).map(|(pdu, _)| pdu).unwrap()
    }

    pub async fn standing(&self, room: &OwnedRoomId, id: &OwnedEventId) -> Option<Standing> {
        self.events(room).await.into_iter().find(|(pdu, _)| pdu.event_id() == id).map(|(_, standing)| standing)
    }

    /// For every event that has its place: whether it is rejected, and the state before it.
    pub async fn graph(&self, room: &OwnedRoomId) -> Vec<(String, (bool, BTreeSet<String>))> {
        let (snapshot, no) = (self.store.snapshot().await.unwrap(), self.no(room).await);
        let state = self.store.state(&snapshot, no);
        let rows = snapshot.scan(&schema::EVENTS, &no, Direction::Forward, usize::MAX).await.unwrap();
        let ids: BTreeMap<EventNo, String> =
            rows.iter().map(|((_, no), event)| (*no, event.header.event_id.clone())).collect();
        let mut graph = Vec::new();
        for (_, event) in rows {
            let Some(before) = event.header.before else { continue };
            let entries = state.entries(before).await.unwrap();
            let before = entries.into_iter().map(|(_, no)| ids[&no].clone()).collect();
            graph.push((event.header.event_id.clone(), (event.header.standing == Standing::Rejected, before)));
        }
        graph
    }

    /// Whether a server has a user in the room, as this one sees it.
    pub async fn has_members_of(&self, room: &OwnedRoomId, server: &str) -> bool {
        let (snapshot, no) = (self.store.snapshot().await.unwrap(), self.no(room).await);
        snapshot.has(&schema::ROOM_SERVERS, &(no, server.to_owned())).await.unwrap()
    }

    /// The current state: type and key to event id.
    pub async fn current(&self, room: &OwnedRoomId) -> BTreeMap<(String, String), String> {
        let (snapshot, no) = (self.store.snapshot().await.unwrap(), self.no(room).await);
        let head = snapshot.get(&schema::ROOMS, &no).await.unwrap().unwrap();
        self.told(
            room,
            self.store.state(&snapshot, no).entries(head.root).await.unwrap().into_iter().map(|(_, no)| no).collect(),
        )
        .await
        .into_iter()
        .map(|pdu| {
            let key = (pdu.kind().to_owned(), pdu.state_key().unwrap().to_owned());
            (key, pdu.event_id().to_string())
        })
        .collect()
    }

    async fn told(&self, room: &OwnedRoomId, nos: Vec<EventNo>) -> Vec<Arc<Pdu>> {
        let (snapshot, no) = (self.store.snapshot().await.unwrap(), self.no(room).await);
        let rules = self.rooms.rules_of(room).await.unwrap();
        let events = self.store.events().get_many(&snapshot, no, &nos).await.unwrap();
        events.into_iter().flatten().map(|event| Arc::new(event.pdu(&rules).unwrap())).collect()
    }

    /// The state before an event, and after it.
    pub async fn around(&self, room: &OwnedRoomId, id: &OwnedEventId) -> (Vec<Arc<Pdu>>, Vec<Arc<Pdu>>) {
        let (snapshot, no) = (self.store.snapshot().await.unwrap(), self.no(room).await);
        let (_, event) = self.store.events().by_id(&snapshot, id.as_str()).await.unwrap().unwrap();
        let state = self.store.state(&snapshot, no);
        let nos = |entries: Vec<(_, EventNo)>| entries.into_iter().map(|(_, no)| no).collect();
        let before = nos(state.entries(event.header.before.unwrap()).await.unwrap());
        let after = nos(state.entries(event.state_after().unwrap()).await.unwrap());
        (self.told(room, before).await, self.told(room, after).await)
    }

    /// Everything that an event leads back to by auth events.
    pub async fn auth_chain(&self, room: &OwnedRoomId, from: &[Arc<Pdu>]) -> Vec<Arc<Pdu>> {
        let all: BTreeMap<OwnedEventId, Arc<Pdu>> =
            self.events(room).await.into_iter().map(|(pdu, _)| (pdu.event_id().clone(), pdu)).collect();
        let mut todo: Vec<OwnedEventId> = from.iter().flat_map(|pdu| pdu.auth_events().to_vec()).collect();
        let (mut seen, mut chain) = (HashSet::new(), Vec::new());
        while let Some(id) = todo.pop() {
            if seen.insert(id.clone()) {
                todo.extend(all[&id].auth_events().iter().cloned());
                chain.push(all[&id].clone());
            }
        }
        chain
    }

    /// A user of this server joins a room through another server, which takes the join in.
    pub async fn join_by(&self, other: &House, room: &OwnedRoomId, user: &OwnedUserId) -> OwnedEventId {
        let template = other.rooms.template(room, user, "join").await.unwrap();
        let rules = Arc::new(Rules::of(&template.version).unwrap());
        let wanted = Wanted { room: room.clone(), user: user.clone(), membership: "join", content: Map::new() };
        let join = self.rooms.fill(&template.event, &rules, &wanted).unwrap();
        assert_eq!(other.live(room, std::slice::from_ref(&join)).await, [Outcome::Accepted]);
        let (state, _) = other.around(room, join.event_id()).await;
        let auth = other.auth_chain(room, &state).await;
        let id = join.event_id().clone();
        self.rooms.enter(Entry { room: room.clone(), rules, join, state, auth, omitted: None }).await.unwrap();
        id
    }

    /// The same, but no member of the room is told but those by whom the join is allowed.
    pub async fn join_without_members(&self, other: &House, room: &OwnedRoomId, user: &OwnedUserId) -> OwnedEventId {
        let template = other.rooms.template(room, user, "join").await.unwrap();
        let rules = Arc::new(Rules::of(&template.version).unwrap());
        let wanted = Wanted { room: room.clone(), user: user.clone(), membership: "join", content: Map::new() };
        let join = self.rooms.fill(&template.event, &rules, &wanted).unwrap();
        assert_eq!(other.live(room, std::slice::from_ref(&join)).await, [Outcome::Accepted]);
        let (mut state, _) = other.around(room, join.event_id()).await;
        state.retain(|pdu| pdu.kind() != "m.room.member");
        let mut named = state.clone();
        named.push(join.clone());
        let auth = other.auth_chain(room, &named).await;
        let id = join.event_id().clone();
        let omitted = Some(Omitted { via: other.name.clone(), servers: vec![other.name.clone()] });
        self.rooms.enter(Entry { room: room.clone(), rules, join, state, auth, omitted }).await.unwrap();
        id
    }

    /// Hears the whole state before an event from another server.
    pub async fn hear_whole_state(&self, other: &House, room: &OwnedRoomId, at: &OwnedEventId) -> Result<(), Error> {
        let (state, _) = other.around(room, at).await;
        self.keep(room, &other.auth_chain(room, &state).await).await;
        self.keep(room, &state).await;
        let ids: Vec<OwnedEventId> = state.iter().map(|pdu| pdu.event_id().clone()).collect();
        self.rooms.set_whole_state(room, &ids, true).await
    }

    /// Works out again all that was judged without the whole state.
    pub async fn finish(&self, room: &OwnedRoomId) {
        while !self.rooms.make_whole(room).await.unwrap() {}
    }

    /// Keeps events apart from the graph.
    pub async fn keep(&self, room: &OwnedRoomId, events: &[Arc<Pdu>]) {
        let mut events = events.to_vec();
        events.sort_by_key(|pdu| pdu.depth());
        self.rooms.ingest(room, events.into_iter().map(Arrival::Outlier).collect()).await.unwrap();
    }

    pub async fn head(&self, room: &OwnedRoomId) -> Head {
        let (snapshot, no) = (self.store.snapshot().await.unwrap(), self.no(room).await);
        snapshot.get(&schema::ROOMS, &no).await.unwrap().unwrap()
    }

    /// Hands events to this server, as a transaction would.
    pub async fn live(&self, room: &OwnedRoomId, events: &[Arc<Pdu>]) -> Vec<Outcome> {
        let arrivals = events.iter().map(|pdu| Arrival::Live(pdu.clone(), Vec::new())).collect();
        self.rooms.ingest(room, arrivals).await.unwrap()
    }

    /// Hands one event with the states after what it follows, all of whose events the other server has.
    pub async fn live_with_states(&self, other: &House, room: &OwnedRoomId, pdu: &Arc<Pdu>) -> Outcome {
        let mut states = Vec::new();
        for prev in pdu.prev_events() {
            let (_, after) = other.around(room, prev).await;
            let mut known = other.auth_chain(room, &after).await;
            known.extend(after.iter().cloned());
            known.sort_by_key(|pdu| pdu.depth());
            let outliers = known.into_iter().map(Arrival::Outlier).collect();
            self.rooms.ingest(room, outliers).await.unwrap();
            states.push(StateAfter {
                event: prev.clone(),
                state: after.iter().map(|pdu| pdu.event_id().clone()).collect(),
            });
        }
        self.rooms.ingest(room, vec![Arrival::Live(pdu.clone(), states)]).await.unwrap().pop().unwrap()
    }
}
