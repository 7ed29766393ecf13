//! State trees against plain maps: whatever is set and removed, in whatever order, the tree says what the map says, equal
//! states have equal roots, and collecting leaves all that is referenced. `STOA_LONG=1` tries many more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::{prelude::*, test_runner::RngSeed};
use stoa_engine::memory::Memory;
use stoa_store::{
    EventNo, Options, RoomNo, StateKeyNo, Store, Tx, rows, schema,
    state::{Class, Root, collect},
};

type Plain = BTreeMap<u32, u32>;

const ROOM: RoomNo = RoomNo(3);

fn settings() -> ProptestConfig {
    let long = std::env::var_os("STOA_LONG").is_some();
    ProptestConfig {
        cases: if long { 5000 } else { 150 },
        rng_seed: if long { RngSeed::Random } else { RngSeed::Fixed(20_261_121) },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

async fn open(engine: &Memory) -> Store {
    let (store, committer) = Store::open(Arc::new(engine.clone()), Options::default()).await.unwrap();
    tokio::spawn(committer.run());
    store
}

/// Keys near each other, at the borders of levels, and anywhere: both classes.
fn key() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0u32..80,
        2 => prop::sample::select(vec![62u32, 63, 64, 65, 2046, 2047, 2048, 2049, 65_535, 65_536, 1 << 21]),
        1 => any::<u32>(),
    ]
}

fn changes() -> impl Strategy<Value = Vec<(u32, Option<u32>)>> {
    prop::collection::vec((key(), prop::option::weighted(0.7, 0u32..50)), 0..60)
}

/// Where two maps differ, in the order in which the tree tells it: members last.
fn differ(before: &Plain, after: &Plain) -> Vec<(u32, Option<u32>, Option<u32>)> {
    let keys: BTreeSet<u32> = before.keys().chain(after.keys()).copied().collect();
    let mut all: Vec<_> = keys
        .into_iter()
        .map(|key| (key, before.get(&key).copied(), after.get(&key).copied()))
        .filter(|(_, before, after)| before != after)
        .collect();
    all.sort_by_key(|(key, _, _)| (key & 1, *key));
    all
}

async fn told(store: &Store, before: Root, after: Root) -> Vec<(u32, Option<u32>, Option<u32>)> {
    let snapshot = store.snapshot().await.unwrap();
    let changes = store.state(&snapshot, ROOM).changes(before, after).await.unwrap();
    changes.into_iter().map(|it| (it.key.0, it.before.map(|no| no.0), it.after.map(|no| no.0))).collect()
}

/// Applies changes to tree and map; every state on the way is written and kept as the room's state at some position.
async fn apply(store: &Store, changes: &[(u32, Option<u32>)], keep_all: bool) -> Vec<(Root, Plain)> {
    let snapshot = store.snapshot().await.unwrap();
    let mut state = store.state(&snapshot, ROOM);
    let (mut root, mut plain) = (Root::EMPTY, Plain::new());
    let mut all = vec![(root, plain.clone())];
    for (key, event) in changes {
        root = state.set(root, StateKeyNo(*key), event.map(EventNo)).await.unwrap();
        match event {
            Some(event) => plain.insert(*key, *event),
            None => plain.remove(key),
        };
        all.push((root, plain.clone()));
    }
    let mut tx = Tx::new();
    let kept: Vec<Root> = all.iter().map(|(root, _)| *root).collect();
    state.write(&mut tx, if keep_all { &kept } else { &kept[kept.len() - 1..] });
    if !tx.is_empty() {
        store.commit(tx).await.unwrap();
    }
    all
}

proptest! {
    #![proptest_config(settings())]

    #[test]
    fn a_tree_is_a_map(changes in changes()) {
        run(async {
            let engine = Memory::with_page(5);
            let store = open(&engine).await;
            let all = apply(&store, &changes, true).await;
            // What was written can be read by who has nothing in memory.
            let store = open(&engine).await;
            let snapshot = store.snapshot().await.unwrap();
            let state = store.state(&snapshot, ROOM);
            for (root, plain) in &all {
                let entries = state.entries(*root).await.unwrap();
                let entries: Plain = entries.into_iter().map(|(key, event)| (key.0, event.0)).collect();
                assert_eq!(&entries, plain);
                for (key, _) in &changes {
                    let found = state.get(*root, StateKeyNo(*key)).await.unwrap();
                    assert_eq!(found.map(|no| no.0), plain.get(key).copied());
                }
            }
            for (root, plain) in &all {
                let (last, end) = all.last().unwrap();
                assert_eq!(told(&store, *root, *last).await, differ(plain, end));
                assert_eq!(told(&store, *last, *root).await, differ(end, plain));
            }
        });
    }

    #[test]
    fn equal_states_have_equal_roots(changes in changes(), order in any::<u64>()) {
        run(async {
            let store = open(&Memory::new()).await;
            let all = apply(&store, &changes, true).await;
            for (one, a) in &all {
                for (other, b) in &all {
                    assert_eq!(one == other, a == b);
                }
            }
            // The same entries, set in another order and without detours.
            let (root, plain) = all.last().unwrap();
            let mut entries: Vec<_> = plain.iter().map(|(key, event)| (*key, Some(*event))).collect();
            entries.sort_by_key(|(key, _)| (u64::from(*key)).wrapping_mul(order | 1));
            let direct = apply(&store, &entries, true).await;
            assert_eq!(direct.last().unwrap().0, *root);
        });
    }

    #[test]
    fn collecting_leaves_what_is_referenced(changes in changes(), kept in any::<u64>()) {
        run(async {
            let engine = Memory::with_page(3);
            let store = open(&engine).await;
            let all = apply(&store, &changes, true).await;
            let mut tx = Tx::new();
            for (i, (root, _)) in all.iter().enumerate().filter(|(i, _)| kept >> (i % 64) & 1 == 1) {
                let (slot, root) = (tx.slot(), *root);
                let _ = i;
                rows::rooms::put_root(&mut tx, slot, ROOM, root);
            }
            // A node of another room with the same content is not touched.
            tx.put(&schema::STATE_NODES, &(RoomNo(4), [9; 16]), &bytes(&[0, 0, 0, 0, 0]));
            store.commit(tx).await.unwrap();
            let collected = collect(&store, ROOM).await.unwrap();

            // As few nodes are left as writing only those states would have made.
            let few = open(&Memory::new()).await;
            for (i, _) in all.iter().enumerate().filter(|(i, _)| kept >> (i % 64) & 1 == 1) {
                apply(&few, &changes[..i], false).await;
            }
            assert_eq!(nodes(&store, ROOM).await, nodes(&few, ROOM).await);
            assert_eq!(nodes(&store, RoomNo(4)).await.len(), 1);
            assert_eq!(collect(&store, ROOM).await.unwrap(), 0);
            assert!(collected > 0 || kept == u64::MAX || changes.len() < 64);

            let store = open(&engine).await;
            let snapshot = store.snapshot().await.unwrap();
            for (_, (root, plain)) in all.iter().enumerate().filter(|(i, _)| kept >> (i % 64) & 1 == 1) {
                let entries = store.state(&snapshot, ROOM).entries(*root).await.unwrap();
                let entries: Plain = entries.into_iter().map(|(key, event)| (key.0, event.0)).collect();
                assert_eq!(&entries, plain);
            }
        });
    }
}

fn bytes(raw: &'static [u8]) -> bytes::Bytes {
    bytes::Bytes::from_static(raw)
}

async fn nodes(store: &Store, room: RoomNo) -> BTreeSet<[u8; 16]> {
    let snapshot = store.snapshot().await.unwrap();
    let rows = snapshot.scan(&schema::STATE_NODES, &room, stoa_store::Direction::Forward, usize::MAX).await.unwrap();
    rows.into_iter().map(|((_, hash), _)| hash).collect()
}

#[test]
fn a_change_in_a_large_state_costs_few_nodes() {
    run(async {
        let store = open(&Memory::new()).await;
        let members: Vec<_> = (0..2_000).map(|n| (StateKeyNo::of(Class::Members, n).0, Some(n))).collect();
        let root = apply(&store, &members, false).await.last().unwrap().0;
        let before = nodes(&store, ROOM).await.len();
        let snapshot = store.snapshot().await.unwrap();
        let mut state = store.state(&snapshot, ROOM);
        let changed = state.set(root, StateKeyNo::of(Class::Members, 777), Some(EventNo(5))).await.unwrap();
        let mut tx = Tx::new();
        state.write(&mut tx, &[changed]);
        store.commit(tx).await.unwrap();
        assert_eq!(nodes(&store, ROOM).await.len() - before, 3);
        assert_eq!(told(&store, root, changed).await, [(777 * 2 + 1, Some(777), Some(5))]);
    });
}
