//! Pruning: what is forgotten with time, a little at once, so that it never gets in the way of requests. The server calls
//! [`Pruner::step`] again and again.

use std::ops::Bound;

use stoa_engine::Direction;

use crate::{Error, Position, RoomNo, Store, Tx, UserNo, rows, schema, state};

/// How long a client may repeat a transaction and get the first answer: a phone may be off for a weekend.
pub const TXN_LIFE_MS: u64 = 72 * 60 * 60 * 1000;
/// How many rows are looked at together, and how many times that in one step.
const PAGE: usize = 1000;
const PAGES: usize = 20;
/// A table is gone through once an hour, all rooms once a day.
const ROUND_MS: u64 = 60 * 60 * 1000;
const ROOMS_ROUND_MS: u64 = 24 * ROUND_MS;
/// Rooms with more events are left alone: to know which states they need takes too long.
const LARGEST_ROOM: u32 = 50_000;

/// A way through a table, again and again.
struct Round<K> {
    after: Option<K>,
    /// When the next one may begin, in milliseconds since 1970.
    next_ms: u64,
}

type TxnKey = (UserNo, String, String, String);

/// What one step forgot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Transaction ids.
    pub txns: u64,
    /// State nodes.
    pub nodes: u64,
}

/// Forgets what nobody needs any more.
pub struct Pruner {
    store: Store,
    txns: Round<TxnKey>,
    rooms: Round<RoomNo>,
}

impl Pruner {
    /// Begins at the beginning.
    pub fn new(store: Store) -> Pruner {
        let (txns, rooms) = (Round { after: None, next_ms: 0 }, Round { after: None, next_ms: 0 });
        Pruner { store, txns, rooms }
    }

    /// Does a bounded piece of the work.
    ///
    /// # Errors
    /// Where the engine fails; what was not done comes up again.
    pub async fn step(&mut self, now_ms: u64) -> Result<Pruned, Error> {
        self.store.prune_feed().await?;
        Ok(Pruned { txns: self.txns(now_ms).await?, nodes: self.room(now_ms).await? })
    }

    async fn txns(&mut self, now_ms: u64) -> Result<u64, Error> {
        let mut forgotten = 0;
        for _ in 0..PAGES {
            if now_ms < self.txns.next_ms {
                break;
            }
            let snapshot = self.store.snapshot().await?;
            let from = self.txns.after.clone().map_or(Bound::Unbounded, Bound::Excluded);
            let to = Bound::<TxnKey>::Unbounded;
            let rows = snapshot.range(&schema::TXNS, from, to, Direction::Forward, PAGE).await?;
            let last = rows.last().filter(|_| rows.len() == PAGE).map(|(key, _)| key.clone());
            let mut tx = Tx::new();
            for (key, _) in rows.iter().filter(|(_, sent)| sent.ts.saturating_add(TXN_LIFE_MS) <= now_ms) {
                rows::rooms::delete_txn(&mut tx, key);
                forgotten += 1;
            }
            if !tx.is_empty() {
                self.store.commit(tx).await?;
            }
            if last.is_none() {
                self.txns.next_ms = now_ms + ROUND_MS;
            }
            self.txns.after = last;
        }
        Ok(forgotten)
    }

    /// Collects the state nodes of the next room that is not too large.
    async fn room(&mut self, now_ms: u64) -> Result<u64, Error> {
        if now_ms < self.rooms.next_ms {
            return Ok(0);
        }
        let snapshot = self.store.snapshot().await?;
        let from = self.rooms.after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = snapshot.range(&schema::ROOMS, from, Bound::<RoomNo>::Unbounded, Direction::Forward, 1).await?;
        let Some((room, head)) = rows.into_iter().next() else {
            self.rooms = Round { after: None, next_ms: now_ms + ROOMS_ROUND_MS };
            return Ok(0);
        };
        self.rooms.after = Some(room);
        // What its state is worked out from is not all named by its events while it is not whole.
        if head.next_event.0 > LARGEST_ROOM || head.partial {
            return Ok(0);
        }
        match state::collect(&self.store, room).await {
            // Somebody wrote state meanwhile. Tomorrow is another day.
            Err(Error::Conflict) => Ok(0),
            other => other,
        }
    }
}

impl Store {
    /// Forgets the rows of the feed that every follower has handled.
    ///
    /// # Errors
    /// Where the engine fails.
    pub async fn prune_feed(&self) -> Result<(), Error> {
        let snapshot = self.snapshot().await?;
        let names = self.inner.options.followers.iter().map(|name| (*name).to_owned());
        let cursors = snapshot.get_many(&schema::CURSORS, names).await?;
        let Some(least) = cursors.into_iter().collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().min()) else {
            return Ok(());
        };
        let (from, to) = (Bound::<Position>::Unbounded, Bound::Included(least));
        if snapshot.range(&schema::FEED, from, to, Direction::Forward, 1).await?.is_empty() {
            return Ok(());
        }
        let mut tx = Tx::new();
        crate::feed::forget(&mut tx, least);
        self.commit(tx).await.map(drop)
    }
}
