//! Pruning: what is forgotten with time, and what is not.

use std::sync::Arc;

use stoa_engine::memory::Memory;
use stoa_store::{
    Direction, Options, Store, Tx, UserNo,
    prune::{Pruner, TXN_LIFE_MS},
    rows::{self, rooms::SentTxn},
    schema,
};

async fn open() -> Store {
    let (store, committer) = Store::open(Arc::new(Memory::with_page(100)), Options::default()).await.unwrap();
    tokio::spawn(committer.run());
    store
}

async fn send(store: &Store, txns: impl IntoIterator<Item = (String, u64)>) {
    let mut tx = Tx::new();
    for (id, ts) in txns {
        let sent = SentTxn { event_id: format!("${id}"), ts };
        rows::rooms::put_txn(&mut tx, UserNo(1), "device", "send", &id, &sent);
    }
    store.commit(tx).await.unwrap();
}

async fn kept(store: &Store) -> Vec<String> {
    let snapshot = store.snapshot().await.unwrap();
    let rows = snapshot.scan(&schema::TXNS, &(), Direction::Forward, usize::MAX).await.unwrap();
    rows.into_iter().map(|((_, _, _, id), _)| id).collect()
}

#[tokio::test]
async fn old_transactions_are_forgotten_and_young_ones_are_not() {
    let store = open().await;
    let now = 10 * TXN_LIFE_MS;
    send(&store, [("old".into(), now - TXN_LIFE_MS), ("young".into(), now - TXN_LIFE_MS + 1)]).await;
    let mut pruner = Pruner::new(store.clone());
    assert_eq!(pruner.step(now).await.unwrap().txns, 1);
    assert_eq!(kept(&store).await, ["young"]);
    // It rests, then begins again.
    assert_eq!(pruner.step(now + 1000).await.unwrap().txns, 0);
    assert_eq!(pruner.step(now + 60 * 60 * 1000).await.unwrap().txns, 1);
    assert!(kept(&store).await.is_empty());
}

#[tokio::test]
async fn a_large_table_is_gone_through_in_pieces() {
    let store = open().await;
    let now = 10 * TXN_LIFE_MS;
    let all = 45_500;
    // Every tenth is young.
    let ts = |n: u64| if n.is_multiple_of(10) { now } else { 0 };
    send(&store, (0..all).map(|n| (format!("{n:06}"), ts(n)))).await;
    let mut pruner = Pruner::new(store.clone());
    let mut steps = Vec::new();
    for minute in 0..4 {
        steps.push(pruner.step(now + minute * 60_000).await.unwrap().txns);
    }
    assert_eq!(steps, [18_000, 18_000, 4950, 0]);
    assert_eq!(kept(&store).await.len(), 4550);
}

#[tokio::test]
async fn who_signs_the_same_user_again_has_one_row() {
    let store = open().await;
    let (alice, bob, carol) = (UserNo(1), UserNo(2), UserNo(3));
    let start = store.snapshot().await.unwrap().position();
    for target in [bob, carol, bob, bob] {
        let snapshot = store.snapshot().await.unwrap();
        let before = rows::keys::signed_at(&snapshot, alice, target).await.unwrap();
        let mut tx = Tx::new();
        let slot = tx.slot();
        rows::keys::put_own_signature(&mut tx, slot, (alice, target), "key", "signature", &before);
        store.commit(tx).await.unwrap();
    }
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(rows::keys::signed(&snapshot, alice, start, snapshot.position()).await.unwrap(), [carol, bob]);
    assert_eq!(rows::keys::signed_at(&snapshot, alice, bob).await.unwrap(), [snapshot.position()]);
}
