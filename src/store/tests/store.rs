//! The committer, the feed and its followers, names, migration and the live bus.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use stoa_engine::{Answer, Batch, Durability, Engine, Reader, Stats, memory::Memory};
use stoa_store::{
    Direction, Error, Fact, Heard, Options, Position, RoomNo, Store, Tx, UserNo, bus::LIFE_MS, rows, schema,
};

async fn open(engine: impl Engine) -> Store {
    open_with(engine, Options::default()).await
}

async fn open_with(engine: impl Engine, options: Options) -> Store {
    let (store, committer) = Store::open(Arc::new(engine), options).await.unwrap();
    tokio::spawn(committer.run());
    store
}

fn followed() -> Options {
    Options { followers: vec!["one", "two"], ..Options::default() }
}

/// A transaction that takes so many positions, each with a message for a user, so that it can be found again.
fn messages(user: u32, count: usize) -> Tx {
    let mut tx = Tx::new();
    for _ in 0..count {
        let slot = tx.slot();
        rows::to_device::put(&mut tx, slot, UserNo(user), "device", Bytes::from_static(b"{}"));
    }
    tx
}

async fn places(store: &Store, user: u32) -> Vec<u64> {
    let snapshot = store.snapshot().await.unwrap();
    let rows = rows::to_device::read(&snapshot, UserNo(user), "device", Position::MIN, Position::MAX, 10_000);
    rows.await.unwrap().into_iter().map(|(at, _)| at.0).collect()
}

/// An engine that counts its commits and lets each take a while, so that transactions gather meanwhile.
struct Slow {
    memory: Memory,
    commits: Arc<std::sync::atomic::AtomicUsize>,
}

impl Engine for Slow {
    fn snapshot(&self) -> Arc<dyn Reader> {
        self.memory.snapshot()
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Answer<'_, ()> {
        self.commits.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(2));
        self.memory.commit(batch, durability)
    }

    fn backup<'a>(&'a self, to: &'a std::path::Path) -> Answer<'a, ()> {
        self.memory.backup(to)
    }

    fn stats(&self) -> Stats {
        self.memory.stats()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn positions_have_no_holes_whoever_comes_together() {
    let commits = Arc::<std::sync::atomic::AtomicUsize>::default();
    let store = open(Slow { memory: Memory::with_page(4), commits: commits.clone() }).await;
    let mut tasks = Vec::new();
    for n in 0..100u32 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            let mut tx = messages(n % 5, 1 + n as usize % 3);
            // Every seventh asks for something that does not hold.
            if n % 7 == 0 {
                tx.assert(&schema::PASSWORDS, &UserNo(0), Some(&"not there".to_owned()));
            }
            (n, store.commit(tx).await)
        }));
    }
    let mut expected = 0;
    for task in tasks {
        match task.await.unwrap() {
            (n, Ok(_)) => {
                assert_ne!(n % 7, 0);
                expected += 1 + u64::from(n) % 3;
            }
            (n, Err(Error::Conflict)) => assert_eq!(n % 7, 0),
            (n, Err(other)) => panic!("{n}: {other}"),
        }
    }
    let mut all = Vec::new();
    for user in 0..5 {
        all.extend(places(&store, user).await);
    }
    all.sort_unstable();
    assert_eq!(all, (1..=expected).collect::<Vec<_>>());
    assert_eq!(store.snapshot().await.unwrap().position(), Position(expected));
    assert_eq!(store.who().position(), Position(expected));
    // Those that waited went together.
    assert!(commits.load(std::sync::atomic::Ordering::SeqCst) < 60);
}

#[tokio::test]
async fn an_assert_sees_what_came_before_it_in_the_same_moment() {
    let store = open(Memory::new()).await;
    let claim = |value: &str| {
        let mut tx = Tx::new();
        tx.assert(&schema::PASSWORDS, &UserNo(1), None);
        tx.put(&schema::PASSWORDS, &UserNo(1), &value.to_owned());
        tx
    };
    let mut plain = Tx::new();
    plain.put(&schema::PASSWORDS, &UserNo(2), &"plain".to_owned());
    let mut after = Tx::new();
    after.assert(&schema::PASSWORDS, &UserNo(2), Some(&"plain".to_owned()));
    after.put(&schema::PASSWORDS, &UserNo(2), &"after".to_owned());
    let (first, second, plain, after) =
        tokio::join!(store.commit(claim("a")), store.commit(claim("b")), store.commit(plain), store.commit(after));
    assert!(first.is_ok() && plain.is_ok() && after.is_ok());
    assert!(matches!(second, Err(Error::Conflict)));
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(snapshot.get(&schema::PASSWORDS, &UserNo(1)).await.unwrap().as_deref(), Some("a"));
    assert_eq!(snapshot.get(&schema::PASSWORDS, &UserNo(2)).await.unwrap().as_deref(), Some("after"));
}

#[tokio::test]
async fn a_snapshot_stands_still() {
    let store = open(Memory::with_page(2)).await;
    store.commit(messages(1, 5)).await.unwrap();
    let old = store.snapshot().await.unwrap();
    store.commit(messages(1, 5)).await.unwrap();
    let read = async |snapshot: &stoa_store::Snapshot| {
        rows::to_device::read(snapshot, UserNo(1), "device", Position::MIN, Position::MAX, 100).await.unwrap().len()
    };
    assert_eq!((read(&old).await, old.position()), (5, Position(5)));
    let new = store.snapshot().await.unwrap();
    assert_eq!((read(&new).await, new.position()), (10, Position(10)));
}

#[tokio::test]
async fn positions_go_on_after_a_restart() {
    let engine = Memory::new();
    let store = open(engine.clone()).await;
    store.commit(messages(1, 3)).await.unwrap();
    drop(store);
    let store = open(engine).await;
    assert_eq!(store.who().position(), Position(3));
    assert_eq!(store.commit(messages(1, 1)).await.unwrap(), Position(4));
}

#[tokio::test]
async fn the_feed_tells_every_commit_in_order() {
    let store = open(Memory::new()).await;
    let mut feed = store.feed();
    for n in 0..20 {
        store.commit(messages(n, 2)).await.unwrap();
    }
    for n in 0..20u64 {
        let Heard::Commit(commit) = feed.next().await else { panic!("something else") };
        assert_eq!(commit.last, Position(n * 2 + 2));
        let facts = [1, 2].map(|i| Fact::User { user: UserNo(n as u32), at: Position(n * 2 + i) });
        assert_eq!(commit.facts, facts);
    }
    drop(store);
    assert_eq!(feed.next().await, Heard::End);
}

#[tokio::test]
async fn who_is_too_slow_is_told_so() {
    let store = open(Memory::new()).await;
    let mut feed = store.feed();
    for _ in 0..5000 {
        store.commit(messages(1, 1)).await.unwrap();
    }
    assert_eq!(feed.next().await, Heard::Missed);
    assert!(matches!(feed.next().await, Heard::Commit(_)));
}

#[tokio::test]
async fn a_follower_loses_nothing_over_restarts_and_prunings() {
    let engine = Memory::with_page(3);
    let mut handled = Vec::new();
    let mut sent = 0;
    for round in 0..6 {
        let store = open_with(engine.clone(), followed()).await;
        let mut one = store.follow("one").await.unwrap();
        let two = store.follow("two").await.unwrap();
        for _ in 0..5 {
            store.commit(messages(1, 1)).await.unwrap();
            sent += 1;
        }
        // Sometimes it reads and dies before it has noted how far it was.
        let commits = one.next(4).await.unwrap();
        assert!(commits.len() <= 4);
        if round % 2 == 0 {
            let last = commits.last().unwrap().last;
            let mut tx = Tx::new();
            one.advance(&mut tx, last);
            two.advance(&mut tx, last);
            store.commit(tx).await.unwrap();
            one.moved(last);
            assert_eq!(one.cursor(), last);
            handled.extend(commits.iter().map(|commit| commit.last.0));
        }
        store.prune_feed().await.unwrap();
    }
    let store = open_with(engine, followed()).await;
    let mut one = store.follow("one").await.unwrap();
    while handled.len() < sent {
        let commits = one.next(100).await.unwrap();
        one.moved(commits.last().unwrap().last);
        handled.extend(commits.iter().map(|commit| commit.last.0));
    }
    assert_eq!(handled, (1..=sent as u64).collect::<Vec<_>>());
    // Nothing more: it waits until there is.
    let waits = tokio::time::timeout(Duration::from_millis(20), one.next(1)).await;
    assert!(waits.is_err());
    let (next, _) = tokio::join!(one.next(1), store.commit(messages(1, 1)));
    assert_eq!(next.unwrap()[0].last.0, sent as u64 + 1);
}

#[tokio::test]
async fn the_feed_is_kept_for_the_slowest() {
    let store = open_with(Memory::new(), followed()).await;
    let (one, two) = (store.follow("one").await.unwrap(), store.follow("two").await.unwrap());
    for _ in 0..10 {
        store.commit(messages(1, 1)).await.unwrap();
    }
    let kept = async || {
        let snapshot = store.snapshot().await.unwrap();
        let rows = snapshot.scan(&schema::FEED, &(), Direction::Forward, 100).await.unwrap();
        rows.into_iter().map(|(at, _)| at.0).collect::<Vec<_>>()
    };
    let mut tx = Tx::new();
    one.advance(&mut tx, Position(8));
    store.commit(tx).await.unwrap();
    store.prune_feed().await.unwrap();
    assert_eq!(kept().await.len(), 10, "the other has not said how far it is");
    let mut tx = Tx::new();
    two.advance(&mut tx, Position(3));
    store.commit(tx).await.unwrap();
    store.prune_feed().await.unwrap();
    assert_eq!(kept().await, (4..=10).collect::<Vec<_>>());
}

/// Room for about twenty names.
fn forgetful() -> Options {
    Options { cache_bytes: 32 << 10, ..Options::default() }
}

#[tokio::test]
async fn a_name_that_was_forgotten_keeps_its_number() {
    let store = open_with(Memory::new(), forgetful()).await;
    let old = store.snapshot().await.unwrap();
    let name = async |id: &str, old: &stoa_store::Snapshot| {
        let mut tx = Tx::new();
        let no = store.names().name_user(old, &mut tx, id).await.unwrap();
        store.commit(tx).await.unwrap();
        no
    };
    let mut all = Vec::new();
    for n in 0..500 {
        let id = format!("@user{n}:stoa.test");
        // Nobody told this snapshot of any of them.
        all.push((name(&id, &old).await, id));
    }
    for (no, id) in &all {
        assert_eq!(name(id, &old).await, *no, "{id} got another number");
        assert_eq!(&*store.names().user_id(&old, *no).await.unwrap(), id);
    }
    let snapshot = store.snapshot().await.unwrap();
    let rows = snapshot.scan(&schema::USER_IDS, &(), Direction::Forward, 1000).await.unwrap();
    assert_eq!(rows, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn names_are_given_once_also_where_most_are_forgotten() {
    let store = open_with(Memory::new(), forgetful()).await;
    let mut tasks = Vec::new();
    for task in 0..8 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            let mut snapshot = store.snapshot().await.unwrap();
            for n in 0..400 {
                let mut tx = Tx::new();
                let id = format!("@user{}:stoa.test", (n * 7 + task) % 150);
                store.names().name_user(&snapshot, &mut tx, &id).await.unwrap();
                // Some are given up.
                if (n + task) % 5 > 0 {
                    store.commit(tx).await.unwrap();
                }
                if n % 50 == 0 {
                    snapshot = store.snapshot().await.unwrap();
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let snapshot = store.snapshot().await.unwrap();
    let by_name = snapshot.scan(&schema::USER_NOS, &(), Direction::Forward, 1000).await.unwrap();
    let by_number = snapshot.scan(&schema::USER_IDS, &(), Direction::Forward, 1000).await.unwrap();
    assert_eq!(by_name.len(), 150);
    assert_eq!(
        by_name.into_iter().collect::<BTreeSet<_>>(),
        by_number.into_iter().map(|(no, id)| (id, no)).collect::<BTreeSet<_>>()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_name_has_one_number_whoever_asks_at_once() {
    let engine = Memory::new();
    let store = open(engine.clone()).await;
    let mut tasks = Vec::new();
    for n in 0..60 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            let id = format!("@user{}:stoa.test", n % 6);
            let snapshot = store.snapshot().await.unwrap();
            let mut tx = Tx::new();
            let no = store.names().name_user(&snapshot, &mut tx, &id).await.unwrap();
            // Some never commit: the number must not be lost for the others, nor given twice.
            if n % 4 == 0 {
                tx.assert(&schema::PASSWORDS, &UserNo(0), Some(&"not there".to_owned()));
            }
            let slot = tx.slot();
            rows::to_device::put(&mut tx, slot, no, "device", Bytes::new());
            let done = store.commit(tx).await.is_ok();
            (id, no, done)
        }));
    }
    let mut given = BTreeSet::new();
    for task in tasks {
        let (id, no, done) = task.await.unwrap();
        given.insert((id.clone(), no));
        let snapshot = store.snapshot().await.unwrap();
        if done {
            assert_eq!(snapshot.get(&schema::USER_NOS, &id).await.unwrap(), Some(no));
            assert_eq!(snapshot.get(&schema::USER_IDS, &no).await.unwrap(), Some(id));
        }
    }
    assert_eq!(given.len(), 6);
    assert_eq!(given.iter().map(|(_, no)| no).collect::<BTreeSet<_>>().len(), 6);
    drop(store);
    let store = open(engine).await;
    let snapshot = store.snapshot().await.unwrap();
    for (id, no) in &given {
        assert_eq!(store.names().user(&snapshot, id).await.unwrap(), Some(*no));
        assert_eq!(&*store.names().user_id(&snapshot, *no).await.unwrap(), id);
    }
    let mut tx = Tx::new();
    let fresh = store.names().name_user(&snapshot, &mut tx, "@new:stoa.test").await.unwrap();
    assert!(given.iter().all(|(_, no)| *no != fresh));
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_refused() {
    let engine = Memory::new();
    let store = open(engine.clone()).await;
    let mut tx = Tx::new();
    tx.put(&schema::SCHEMA_VERSION, &(), &(schema::VERSION + 1));
    store.commit(tx).await.unwrap();
    let refused = Store::open(Arc::new(engine), Options::default()).await.err();
    assert!(matches!(refused, Some(Error::Version { found, known }) if found == known + 1 && known == schema::VERSION));
}

#[tokio::test]
async fn nobody_commits_to_a_store_that_ended() {
    let (store, committer) = Store::open(Arc::new(Memory::new()), Options::default()).await.unwrap();
    drop(committer);
    assert!(matches!(store.commit(messages(1, 1)).await, Err(Error::Closed)));
}

#[tokio::test]
async fn typing_ends_by_itself() {
    let store = open_with(Memory::new(), Options { now_ms: 1000, ..Options::default() }).await;
    let bus = store.bus();
    let mut heard = bus.listen();
    let before = bus.place();
    assert!(bus.typing(RoomNo(1), "@a:x", Some(6000), 1000));
    assert!(bus.typing(RoomNo(1), "@b:x", Some(3000), 1000));
    // Going on typing is no news.
    assert!(!bus.typing(RoomNo(1), "@a:x", Some(7000), 2000));
    assert_eq!(bus.who_types(RoomNo(1), 2000).users.len(), 2);
    assert_eq!(bus.rooms_after(before), [RoomNo(1)]);
    assert_eq!(bus.rooms_after(bus.place()), []);
    let place = bus.place();
    bus.expire(3500);
    assert_eq!(bus.who_types(RoomNo(1), 3500).users.iter().map(|user| &**user).collect::<Vec<_>>(), ["@a:x"]);
    assert_eq!(bus.rooms_after(place), [RoomNo(1)]);
    assert!(bus.typing(RoomNo(1), "@a:x", None, 3600));
    assert!(!bus.typing(RoomNo(1), "@a:x", None, 3600));
    assert!(bus.who_types(RoomNo(1), 3600).users.is_empty());
    assert_eq!(heard.len(), 4);
    assert_eq!(heard.recv().await.unwrap(), RoomNo(1));
}

#[tokio::test]
async fn ephemeral_events_live_a_while_and_not_without_number() {
    let store = open_with(Memory::new(), Options { now_ms: 1000, ..Options::default() }).await;
    let bus = store.bus();
    let start = bus.place();
    let send = |room, now| bus.send(RoomNo(room), "org.example.pen", "@a:x", None, Bytes::from_static(b"{}"), now);
    let first = send(1, 1000);
    let second = send(1, 2000);
    assert!(start < first && first < second);
    assert_eq!(bus.events_after(RoomNo(1), start, 2000).len(), 2);
    assert_eq!(bus.events_after(RoomNo(1), first, 2000).iter().map(|it| it.place).collect::<Vec<_>>(), [second]);
    assert_eq!(bus.events_after(RoomNo(2), start, 2000), []);
    // The first has had its time, the second has not.
    assert_eq!(bus.events_after(RoomNo(1), start, 1000 + LIFE_MS).len(), 1);
    bus.expire(1000 + LIFE_MS);
    assert_eq!(bus.events_after(RoomNo(1), start, 2000).len(), 1);
    for _ in 0..3000 {
        send(2, 5000);
    }
    assert_eq!(bus.events_after(RoomNo(2), start, 5000).len(), 1000);
}

#[tokio::test]
async fn a_bus_of_later_is_ahead_of_one_of_before() {
    let engine = Memory::new();
    let old = open_with(engine.clone(), Options { now_ms: 1_000_000, ..Options::default() }).await;
    for _ in 0..100 {
        old.bus().send(RoomNo(1), "x", "@a:x", None, Bytes::new(), 1_000_000);
    }
    let place = old.bus().place();
    let new = open_with(engine, Options { now_ms: 1_000_001, ..Options::default() }).await;
    assert!(new.bus().place() > place);
    assert_eq!(new.bus().rooms_after(place), []);
}
