//! What application services are told, with a clock that is set by hand: outages of an hour, a follower that was away, and ends
//! at any moment.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use stoa_accounts::{Accounts, ServiceFile, Services};
use stoa_engine::memory::Memory;
use stoa_event::{
    ids::{OwnedRoomId, OwnedServerName, OwnedUserId},
    sign::SigningKey,
};
use stoa_notify::appservice::{Appservices, FOLLOWER};
use stoa_remote::ServiceClient;
use stoa_rooms::{Action, Change, CreateRoom, NewEvent, Preset, Profile, Rooms};
use stoa_store::{Clock, Env, Options, Random, Store, Tx};
use stoa_view::View;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const US: &str = "us.example";
const HOUR_MS: u64 = 60 * 60 * 1000;

struct Hands(AtomicU64);

impl Clock for Hands {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Random for Hands {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let n = self.0.fetch_add(1, Ordering::SeqCst);
            chunk.copy_from_slice(&Sha256::digest(n.to_be_bytes())[..chunk.len()]);
        }
    }
}

/// A service on loopback that takes transactions, or does not.
#[derive(Default)]
struct Bridge {
    away: AtomicBool,
    tries: AtomicU64,
    taken: Mutex<Vec<(String, Value)>>,
}

impl Bridge {
    async fn start() -> (Arc<Bridge>, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let bridge = Arc::new(Bridge::default());
        let shared = bridge.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let bridge = shared.clone();
                tokio::spawn(async move { drop(bridge.serve(stream).await) });
            }
        });
        (bridge, port)
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while stream.read_line(&mut head).await? > 2 {}
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).await?;
        let id = head.split(' ').nth(1).and_then(|path| path.rsplit('/').next()).unwrap_or_default().to_owned();
        // The other side may be gone in the middle of its head.
        let Ok(body) = serde_json::from_slice(&body) else { return Ok(()) };
        self.taken.lock().unwrap().push((id, body));
        let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
        stream.into_inner().write_all(answer.as_bytes()).await
    }

    fn tries(&self) -> u64 {
        self.tries.load(Ordering::SeqCst)
    }

    /// The texts of all messages, those of transactions that came again left out.
    fn texts(&self) -> Vec<String> {
        let taken = self.taken.lock().unwrap();
        let mut seen = Vec::new();
        let mut texts = Vec::new();
        for (id, body) in taken.iter() {
            if !seen.contains(id) {
                seen.push(id.clone());
                let events = body["events"].as_array().unwrap().iter();
                texts.extend(events.filter_map(|event| Some(event["content"]["body"].as_str()?.to_owned())));
            }
        }
        texts
    }
}

struct World {
    store: Store,
    rooms: Rooms,
    services: Appservices,
    engine: Memory,
    clock: Arc<Hands>,
    port: u16,
    committer: JoinHandle<()>,
    running: Option<JoinHandle<()>>,
}

impl World {
    async fn over(engine: Memory, port: u16, now_ms: u64) -> World {
        let options = Options { followers: vec![FOLLOWER], now_ms, ..Options::default() };
        let (store, committer) = Store::open(Arc::new(engine.clone()), options).await.unwrap();
        let committer = tokio::spawn(committer.run());
        let clock = Arc::new(Hands(AtomicU64::new(now_ms)));
        let env = Env { clock: clock.clone(), random: Arc::new(Hands(AtomicU64::new(now_ms))) };
        let us = OwnedServerName::try_from(US).unwrap();
        let accounts = Accounts::new(store.clone(), env.clone(), us.clone(), stoa_accounts::Config::default());
        let file: ServiceFile = serde_json::from_value(json!({
            "id": "irc", "url": format!("http://127.0.0.1:{port}"), "as_token": "as", "hs_token": "hs",
            "sender_localpart": "irc", "namespaces": { "users": [{ "regex": "@irc_.*", "exclusive": true }] },
        }))
        .unwrap();
        let mut services = Services::new();
        services.add(file, &us).unwrap();
        accounts.set_services(services).await.unwrap();
        let service = accounts.services().get("irc").unwrap().clone();
        match accounts.register_for(&service, "irc_ghost", None).await {
            Ok(_) | Err(stoa_accounts::Error::UserInUse) => {}
            Err(why) => panic!("{why}"),
        }
        let key = Arc::new(SigningKey::from_seed(&[7; 32], "1").unwrap());
        let rooms = Rooms::new(store.clone(), env.clone(), us, key, stoa_rooms::Config::default());
        let view = View::new(store.clone(), env.clone(), stoa_view::Config::default());
        let client = ServiceClient::new(&stoa_remote::Config::default()).unwrap();
        let services = Appservices::new(store.clone(), env, view, accounts, Some(client), false);
        World { store, rooms, services, engine, clock, port, committer, running: None }
    }

    async fn open(port: u16) -> World {
        let world = World::over(Memory::with_page(7), port, 1_700_000_000_000).await;
        // The follower has its place, as if it had run before.
        let follower = world.store.follow(FOLLOWER).await.unwrap();
        let mut tx = Tx::new();
        follower.advance(&mut tx, follower.cursor());
        world.store.commit(tx).await.unwrap();
        world
    }

    fn start(&mut self) {
        self.running = Some(tokio::spawn(self.services.clone().run()));
    }

    /// Ends it at any moment, and goes on with what is stored.
    async fn crash(mut self) -> World {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
        let World { store, rooms, services, engine, clock, port, committer, .. } = self;
        drop((store, rooms, services));
        // One process after the other.
        committer.await.unwrap();
        World::over(engine, port, clock.now_ms() + 1).await
    }

    fn wait(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    async fn room(&self) -> OwnedRoomId {
        let request = CreateRoom {
            creator: user("alice"),
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
            initial_state: Vec::new(),
            power_levels: Map::new(),
        };
        self.rooms.create(request).await.unwrap()
    }

    async fn ghost(&self, room: &OwnedRoomId, action: Action) {
        let (sender, target) = (user("irc_ghost"), user("irc_ghost"));
        let profile = Profile::default();
        let change = Change { action, sender, target, reason: None, content: Map::new(), profile };
        self.rooms.change(room, change).await.unwrap();
    }

    async fn say(&self, room: &OwnedRoomId, text: &str) {
        let content = json!({ "msgtype": "m.text", "body": text }).to_string().into_bytes();
        let (sender, kind) = (user("alice"), "m.room.message".to_owned());
        let new = NewEvent { sender, kind, state_key: None, content, redacts: None, txn: None, ts: None };
        self.rooms.send(room, new).await.unwrap();
    }
}

fn user(name: &str) -> OwnedUserId {
    format!("@{name}:{US}").try_into().unwrap()
}

async fn until(what: &str, mut check: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come");
}

#[tokio::test]
async fn an_outage_of_an_hour_costs_few_tries_and_loses_nothing() {
    let (bridge, port) = Bridge::start().await;
    let mut world = World::open(port).await;
    let room = world.room().await;
    world.ghost(&room, Action::Join).await;
    world.start();
    world.say(&room, "before").await;
    until("the first", || bridge.texts() == ["before"]).await;
    bridge.away.store(true, Ordering::SeqCst);
    let known = bridge.tries();
    let mut wanted = vec!["before".to_owned()];
    for n in 0..250 {
        wanted.push(n.to_string());
        world.say(&room, &n.to_string()).await;
    }
    until("a try", || bridge.tries() > known).await;
    // While the clock stands still it is left alone, whatever happens.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(bridge.tries(), known + 1);
    // Each pause is twice as long: after 1, 2 and 4 seconds.
    for (nth, seconds) in [1, 2, 4].into_iter().enumerate() {
        world.wait(seconds * 1000);
        until("the next try", || bridge.tries() == known + 2 + nth as u64).await;
    }
    world.wait(HOUR_MS);
    until("one more", || bridge.tries() == known + 5).await;
    bridge.away.store(false, Ordering::SeqCst);
    world.wait(5 * 60 * 1000);
    until("the last", || bridge.texts().len() == wanted.len()).await;
    assert_eq!(bridge.texts(), wanted, "each once, in order");
}

#[tokio::test]
async fn a_follower_that_was_away_tells_what_was_said_while_the_ghost_was_there() {
    let (bridge, port) = Bridge::start().await;
    let mut world = World::open(port).await;
    let room = world.room().await;
    world.say(&room, "nobody of theirs is here yet").await;
    world.ghost(&room, Action::Join).await;
    world.say(&room, "one").await;
    world.say(&room, "two").await;
    world.ghost(&room, Action::Leave).await;
    world.say(&room, "nobody of theirs is here any more").await;
    let other = world.room().await;
    world.ghost(&other, Action::Join).await;
    world.say(&other, "three").await;
    // Only now does it look: by what is so now, the ghost is not in the first room.
    world.start();
    until("the last", || bridge.texts().contains(&"three".to_owned())).await;
    assert_eq!(bridge.texts(), ["one", "two", "three"]);
}

#[tokio::test]
async fn ends_at_any_moment_double_nothing() {
    let (bridge, port) = Bridge::start().await;
    let mut world = World::open(port).await;
    let room = world.room().await;
    world.ghost(&room, Action::Join).await;
    let mut wanted = Vec::new();
    for round in 0..30u64 {
        for n in 0..5 {
            let text = format!("{round} {n}");
            world.say(&room, &text).await;
            wanted.push(text);
        }
        world.start();
        // Before it followed, while it writes the transaction, while it sends it, after.
        tokio::time::sleep(Duration::from_micros(round * 400)).await;
        world = world.crash().await;
    }
    world.start();
    until("the last", || bridge.texts().len() >= wanted.len()).await;
    assert_eq!(bridge.texts(), wanted, "each once by the ids, in order");
    // And what came twice was the same.
    let taken = bridge.taken.lock().unwrap().clone();
    for (id, body) in &taken {
        assert!(taken.iter().filter(|(other, _)| other == id).all(|(_, other)| other == body));
    }
}
