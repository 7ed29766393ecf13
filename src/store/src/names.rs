//! Long names of rooms and users, and the dense numbers that stand for them.
//!
//! A number is given out before the transaction that needs it is committed, and another transaction may use it
//! meanwhile. So every transaction that uses a number whose row is not on disk yet writes that row too. Names that are on
//! disk are kept in memory within a budget; the others stay until they are.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
use quick_cache::{Weighter, sync::Cache};
use stoa_engine::{Batch, Direction, Engine, Op};

use crate::{Error, RoomNo, Snapshot, UserNo, codec::KeyPart, schema, table::Table, tx::Tx, value::Value};

/// What a name and its number need beside the bytes of the name: reference counts and a place in two maps.
const BESIDE: u64 = 100;
/// How many pending names are nothing to worry about.
const SWEEP_FROM: usize = 1024;

/// A name that a transaction gives to a number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Named {
    User(Arc<str>, UserNo),
    Room(Arc<str>, RoomNo),
}

impl Named {
    pub(crate) fn write(&self, batch: &mut Batch) {
        match self {
            Named::User(name, no) => both(batch, &schema::USER_NOS, &schema::USER_IDS, name, *no),
            Named::Room(name, no) => both(batch, &schema::ROOM_NOS, &schema::ROOM_IDS, name, *no),
        }
    }
}

fn both<N: KeyPart + Value + Copy>(
    batch: &mut Batch,
    by_name: &Table<String, N>,
    by_number: &Table<N, String>,
    name: &str,
    no: N,
) {
    let name = name.to_owned();
    batch.ops.push(Op::Put { space: by_name.space, key: by_name.key(&name), value: no.to_bytes() });
    batch.ops.push(Op::Put { space: by_number.space, key: by_number.key(&no), value: name.to_bytes() });
}

trait Number: KeyPart + Value + Copy + Eq + Hash + 'static {}
impl<N: KeyPart + Value + Copy + Eq + Hash + 'static> Number for N {}

#[derive(Clone)]
struct Weight;

impl<N> Weighter<Arc<str>, N> for Weight {
    fn weight(&self, name: &Arc<str>, _: &N) -> u64 {
        BESIDE + name.len() as u64
    }
}

/// The other way round.
#[derive(Clone)]
struct WeightOfName;

impl<N> Weighter<N, Arc<str>> for WeightOfName {
    fn weight(&self, _: &N, name: &Arc<str>) -> u64 {
        BESIDE + name.len() as u64
    }
}

/// Names whose rows may not be on disk yet: they can be read nowhere else.
struct Pending<N> {
    by_name: HashMap<Arc<str>, N>,
    by_number: HashMap<N, Arc<str>>,
    /// From this many on it is looked whether there are some that no transaction holds any more.
    sweep_at: usize,
}

impl<N: Number> Pending<N> {
    /// Lets go of names whose transactions were given up. Answers whether there were any.
    fn sweep(&mut self) -> bool {
        let before = self.by_name.len();
        if before < self.sweep_at.max(SWEEP_FROM) {
            return false;
        }
        let Pending { by_name, by_number, .. } = self;
        by_name.retain(|name, no| {
            // One reference is here and one below; the others are in transactions, which get theirs under the same lock.
            let held = Arc::strong_count(name) > 2;
            if !held {
                by_number.remove(no);
            }
            held
        });
        self.sweep_at = self.by_name.len() * 2;
        self.by_name.len() < before
    }
}

/// The names of one kind.
struct Book<N: 'static> {
    numbers: &'static Table<String, N>,
    names: &'static Table<N, String>,
    by_name: Cache<Arc<str>, N, Weight>,
    by_number: Cache<N, Arc<str>, WeightOfName>,
    pending: RwLock<Pending<N>>,
    next: AtomicU32,
    make: fn(u32) -> N,
}

impl<N: Number> Book<N> {
    fn new(
        numbers: &'static Table<String, N>,
        names: &'static Table<N, String>,
        make: fn(u32) -> N,
        next: u32,
        bytes: u64,
    ) -> Self {
        let items = usize::try_from(bytes / 2 / (BESIDE + 30)).unwrap_or(usize::MAX).max(16);
        let pending = Pending { by_name: HashMap::new(), by_number: HashMap::new(), sweep_at: 0 };
        Book {
            numbers,
            names,
            by_name: Cache::with_weighter(items, bytes / 2, Weight),
            by_number: Cache::with_weighter(items, bytes / 2, WeightOfName),
            pending: RwLock::new(pending),
            next: AtomicU32::new(next),
            make,
        }
    }

    fn remember(&self, name: &Arc<str>, no: N) {
        self.by_name.insert(name.clone(), no);
        self.by_number.insert(no, name.clone());
    }

    /// The number of a name that may not be on disk yet.
    fn pending(&self, name: &str) -> Option<(Arc<str>, N)> {
        self.pending.read().by_name.get_key_value(name).map(|(name, no)| (name.clone(), *no))
    }

    async fn number(&self, snapshot: &Snapshot, name: &str) -> Result<Option<N>, Error> {
        if let Some(no) = self.by_name.get(name) {
            return Ok(Some(no));
        }
        if let Some((_, no)) = self.pending(name) {
            return Ok(Some(no));
        }
        self.stored(snapshot, name).await
    }

    async fn stored(&self, snapshot: &Snapshot, name: &str) -> Result<Option<N>, Error> {
        let found = snapshot.get(self.numbers, &name.to_owned()).await?;
        if let Some(no) = found {
            self.remember(&name.into(), no);
        }
        Ok(found)
    }

    async fn name(&self, snapshot: &Snapshot, no: N) -> Result<Option<Arc<str>>, Error> {
        if let Some(name) = self.by_number.get(&no) {
            return Ok(Some(name));
        }
        if let Some(name) = self.pending.read().by_number.get(&no) {
            return Ok(Some(name.clone()));
        }
        let name: Option<Arc<str>> = snapshot.get(self.names, &no).await?.map(Into::into);
        if let Some(name) = &name {
            self.remember(name, no);
        }
        Ok(name)
    }

    /// The number of a name that is not on disk as far as who asks can see; given out now if nobody did before. `None` if
    /// other names came to disk since (`seen` is an older epoch): it may be among them.
    fn give(&self, name: &str, seen: u64, epoch: &AtomicU64) -> Option<(Arc<str>, N)> {
        let mut pending = self.pending.write();
        if let Some((name, no)) = pending.by_name.get_key_value(name) {
            return Some((name.clone(), *no));
        }
        if epoch.load(Ordering::SeqCst) != seen {
            return None;
        }
        if pending.sweep() {
            // What was given up may be on disk nevertheless, if its commit failed half-way.
            epoch.fetch_add(1, Ordering::SeqCst);
        }
        let name: Arc<str> = name.into();
        let no = (self.make)(self.next.fetch_add(1, Ordering::Relaxed));
        pending.by_number.insert(no, name.clone());
        pending.by_name.insert(name.clone(), no);
        Some((name, no))
    }

    fn durable(&self, name: &Arc<str>, epoch: &AtomicU64) {
        let mut pending = self.pending.write();
        if let Some(no) = pending.by_name.remove(name) {
            pending.by_number.remove(&no);
            self.remember(name, no);
            epoch.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// The names of users and rooms: those that were met last, within a budget of memory.
pub struct Names {
    engine: Arc<dyn Engine>,
    users: Book<UserNo>,
    rooms: Book<RoomNo>,
    /// Grows with every name that comes to disk: a snapshot that was taken in an earlier epoch may lack one.
    epoch: AtomicU64,
}

impl Names {
    pub(crate) async fn open(engine: Arc<dyn Engine>, snapshot: &Snapshot, bytes: u64) -> Result<Names, Error> {
        let user = snapshot.scan(&schema::USER_IDS, &(), Direction::Backward, 1).await?;
        let room = snapshot.scan(&schema::ROOM_IDS, &(), Direction::Backward, 1).await?;
        let next_user = user.first().map_or(0, |(no, _)| no.0 + 1);
        let next_room = room.first().map_or(0, |(no, _)| no.0 + 1);
        Ok(Names {
            engine,
            users: Book::new(&schema::USER_NOS, &schema::USER_IDS, UserNo, next_user, bytes / 4 * 3),
            rooms: Book::new(&schema::ROOM_NOS, &schema::ROOM_IDS, RoomNo, next_room, bytes / 4),
            epoch: AtomicU64::new(1),
        })
    }

    pub(crate) fn durable(&self, named: &[Named]) {
        for name in named {
            match name {
                Named::User(name, _) => self.users.durable(name, &self.epoch),
                Named::Room(name, _) => self.rooms.durable(name, &self.epoch),
            }
        }
    }

    /// Everything as it is now, with the epoch that had begun by then.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, Error> {
        let epoch = self.epoch.load(Ordering::SeqCst);
        Ok(Snapshot::new(self.engine.snapshot()).await?.in_epoch(epoch))
    }

    /// A user's number, if this server has met the user.
    ///
    /// # Errors
    /// Where the engine fails.
    pub async fn user(&self, snapshot: &Snapshot, id: &str) -> Result<Option<UserNo>, Error> {
        self.users.number(snapshot, id).await
    }

    /// A room's number, if this server has met the room.
    ///
    /// # Errors
    /// Where the engine fails.
    pub async fn room(&self, snapshot: &Snapshot, id: &str) -> Result<Option<RoomNo>, Error> {
        self.rooms.number(snapshot, id).await
    }

    /// The number of a user, given out in `tx` if there is none yet.
    ///
    /// # Errors
    /// Where the engine fails.
    pub async fn name_user(&self, snapshot: &Snapshot, tx: &mut Tx, id: &str) -> Result<UserNo, Error> {
        self.number(&self.users, Named::User, snapshot, tx, id).await
    }

    /// The number of a room, given out in `tx` if there is none yet.
    ///
    /// # Errors
    /// Where the engine fails.
    pub async fn name_room(&self, snapshot: &Snapshot, tx: &mut Tx, id: &str) -> Result<RoomNo, Error> {
        self.number(&self.rooms, Named::Room, snapshot, tx, id).await
    }

    async fn number<N: Number>(
        &self,
        book: &Book<N>,
        named: fn(Arc<str>, N) -> Named,
        snapshot: &Snapshot,
        tx: &mut Tx,
        id: &str,
    ) -> Result<N, Error> {
        let mut newer: Option<Snapshot> = None;
        loop {
            let snapshot = newer.as_ref().unwrap_or(snapshot);
            if let Some(no) = book.by_name.get(id) {
                return Ok(no);
            }
            // Before the disk: what is pending must be written by this transaction too.
            if let Some((name, no)) = book.pending(id) {
                tx.named.push(named(name, no));
                return Ok(no);
            }
            if let Some(no) = book.stored(snapshot, id).await? {
                return Ok(no);
            }
            if let Some((name, no)) = book.give(id, snapshot.epoch(), &self.epoch) {
                tx.named.push(named(name, no));
                return Ok(no);
            }
            newer = Some(self.snapshot().await?);
        }
    }

    /// The id of a user.
    ///
    /// # Errors
    /// Where the engine fails or there is no such number.
    pub async fn user_id(&self, snapshot: &Snapshot, no: UserNo) -> Result<Arc<str>, Error> {
        self.name(&self.users, snapshot, no).await?.ok_or(Error::Missing("a user"))
    }

    /// The id of a room.
    ///
    /// # Errors
    /// Where the engine fails or there is no such number.
    pub async fn room_id(&self, snapshot: &Snapshot, no: RoomNo) -> Result<Arc<str>, Error> {
        self.name(&self.rooms, snapshot, no).await?.ok_or(Error::Missing("a room"))
    }

    async fn name<N: Number>(&self, book: &Book<N>, snapshot: &Snapshot, no: N) -> Result<Option<Arc<str>>, Error> {
        match book.name(snapshot, no).await? {
            Some(name) => Ok(Some(name)),
            // The number may be younger than the snapshot: what is kept in memory is always as new as can be.
            None => book.name(&self.snapshot().await?, no).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use stoa_engine::memory::Memory;

    use super::*;

    async fn names(bytes: u64) -> Names {
        let engine: Arc<dyn Engine> = Arc::new(Memory::new());
        let snapshot = Snapshot::new(engine.snapshot()).await.unwrap();
        Names::open(engine, &snapshot, bytes).await.unwrap()
    }

    #[tokio::test]
    async fn memory_is_bounded_by_bytes() {
        let names = names(256 << 10).await;
        for n in 0..20_000 {
            let snapshot = names.snapshot().await.unwrap();
            let mut tx = Tx::new();
            names.name_user(&snapshot, &mut tx, &format!("@user{n}:{}", "x".repeat(100))).await.unwrap();
            names.durable(&tx.named);
        }
        let book = &names.users;
        assert!(book.by_name.weight() <= 96 << 10, "{}", book.by_name.weight());
        assert!(book.by_number.weight() <= 96 << 10, "{}", book.by_number.weight());
        assert!(book.by_name.len() > 300, "{}", book.by_name.len());
        assert_eq!(book.pending.read().by_name.len(), 0);
    }

    #[tokio::test]
    async fn what_transactions_gave_up_does_not_stay() {
        let names = names(1 << 20).await;
        let mut kept = Tx::new();
        let snapshot = names.snapshot().await.unwrap();
        let first = names.name_room(&snapshot, &mut kept, "!kept:x").await.unwrap();
        for n in 0..10 * SWEEP_FROM {
            let snapshot = names.snapshot().await.unwrap();
            names.name_room(&snapshot, &mut Tx::new(), &format!("!room{n}:x")).await.unwrap();
        }
        assert!(names.rooms.pending.read().by_name.len() <= SWEEP_FROM + 1);
        assert_eq!(names.rooms.pending.read().by_name.len(), names.rooms.pending.read().by_number.len());
        // What a transaction still holds keeps its number.
        let mut other = Tx::new();
        assert_eq!(names.name_room(&snapshot, &mut other, "!kept:x").await.unwrap(), first);
        assert_eq!(other.named, kept.named);
    }
}
