//! Tables: a typed prefix of an engine's keys. The only place that reads raw from the engine.

use std::{marker::PhantomData, ops::Bound, sync::Arc};

use bytes::Bytes;
use stoa_engine::{Direction, Reader, Scan, Space};

use crate::{
    Error, Position,
    codec::{KeyPart, after_prefix},
    schema,
    value::Value,
};

/// A table: its number is the first byte of its keys.
pub struct Table<K, V> {
    pub(crate) id: u8,
    pub(crate) space: Space,
    pub(crate) name: &'static str,
    kinds: PhantomData<fn(K) -> V>,
}

impl<K: KeyPart, V: Value> Table<K, V> {
    pub(crate) const fn new(id: u8, space: Space, name: &'static str) -> Self {
        Table { id, space, name, kinds: PhantomData }
    }

    /// What the schema calls it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn key(&self, key: &impl KeyPart) -> Bytes {
        let mut out = Vec::with_capacity(24);
        out.push(self.id);
        key.write(&mut out);
        out.into()
    }

    fn decode(&self, key: &Bytes) -> Result<K, Error> {
        let mut rest = key.get(1..).unwrap_or_default();
        K::read(&mut rest)
    }

    /// The raw bounds of all keys that begin with `prefix`.
    pub(crate) fn prefix_bounds(&self, prefix: &impl KeyPart) -> (Bytes, Bytes) {
        let from = self.key(prefix);
        let to = after_prefix(&from).unwrap_or_else(|| vec![0xFF; 64]);
        (from, to.into())
    }
}

/// Everything as it was at one position.
#[derive(Clone)]
pub struct Snapshot {
    reader: Arc<dyn Reader>,
    position: Position,
    /// How many rewrites of events had happened before it was taken.
    rewrites: u64,
    /// See [`crate::Names`]; 0 is older than all.
    epoch: u64,
}

impl Snapshot {
    pub(crate) async fn new(reader: Arc<dyn Reader>) -> Result<Snapshot, Error> {
        let mut snapshot = Snapshot { reader, position: Position::MIN, rewrites: 0, epoch: 0 };
        snapshot.position = snapshot.get(&schema::POSITION, &()).await?.unwrap_or_default();
        Ok(snapshot)
    }

    pub(crate) fn after_rewrites(mut self, rewrites: u64) -> Self {
        self.rewrites = rewrites;
        self
    }

    pub(crate) fn in_epoch(mut self, epoch: u64) -> Self {
        self.epoch = epoch;
        self
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn rewrites(&self) -> u64 {
        self.rewrites
    }

    /// The position of the last commit that is seen here.
    pub fn position(&self) -> Position {
        self.position
    }

    /// One row.
    ///
    /// # Errors
    /// Where the engine fails or the row cannot be read.
    pub async fn get<K: KeyPart, V: Value>(&self, table: &Table<K, V>, key: &K) -> Result<Option<V>, Error> {
        let mut found = self.reader.get_many(vec![(table.space, table.key(key))]).await?;
        found.pop().flatten().map(V::from_bytes).transpose()
    }

    /// Whether a row is there.
    ///
    /// # Errors
    /// Where the engine fails.
    pub async fn has<K: KeyPart, V: Value>(&self, table: &Table<K, V>, key: &K) -> Result<bool, Error> {
        let found = self.reader.get_many(vec![(table.space, table.key(key))]).await?;
        Ok(found.into_iter().any(|value| value.is_some()))
    }

    /// Many rows of one table, in the order of the keys.
    ///
    /// # Errors
    /// Where the engine fails or a row cannot be read.
    pub async fn get_many<K: KeyPart, V: Value>(
        &self,
        table: &Table<K, V>,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<V>>, Error> {
        let keys: Vec<_> = keys.into_iter().map(|key| (table.space, table.key(&key))).collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.reader.get_many(keys).await?;
        found.into_iter().map(|value| value.map(V::from_bytes).transpose()).collect()
    }

    /// All rows whose keys begin with `prefix` (the first fields of the key), at most `limit`.
    ///
    /// # Errors
    /// Where the engine fails or a row cannot be read.
    pub async fn scan<K: KeyPart, V: Value>(
        &self,
        table: &Table<K, V>,
        prefix: &impl KeyPart,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        let (from, to) = table.prefix_bounds(prefix);
        self.read(table, from, to, direction, limit).await
    }

    /// All rows between two keys, at most `limit`. The bounds may be shorter tuples than the key, where that is what
    /// is meant: `Included((room,))` begins at the first row of the room.
    ///
    /// # Errors
    /// Where the engine fails or a row cannot be read.
    pub async fn range<K: KeyPart, V: Value, A: KeyPart, B: KeyPart>(
        &self,
        table: &Table<K, V>,
        from: Bound<A>,
        to: Bound<B>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        let (all_from, all_to) = table.prefix_bounds(&());
        let from = match from {
            Bound::Included(key) => table.key(&key),
            Bound::Excluded(key) => table.prefix_bounds(&key).1,
            Bound::Unbounded => all_from,
        };
        let to = match to {
            Bound::Included(key) => table.prefix_bounds(&key).1,
            Bound::Excluded(key) => table.key(&key),
            Bound::Unbounded => all_to,
        };
        self.read(table, from, to, direction, limit).await
    }

    async fn read<K: KeyPart, V: Value>(
        &self,
        table: &Table<K, V>,
        mut from: Bytes,
        mut to: Bytes,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        let mut rows = Vec::new();
        while rows.len() < limit && from < to {
            let left = limit - rows.len();
            let scan = Scan { space: table.space, from: from.clone(), to: to.clone(), direction, limit: left };
            let page = self.reader.scan(scan).await?;
            let last = page.entries.last().map(|(key, _)| key.clone());
            for (key, value) in page.entries {
                rows.push((table.decode(&key)?, V::from_bytes(value)?));
            }
            match (page.more, last, direction) {
                (false, _, _) | (_, None, _) => break,
                (true, Some(last), Direction::Forward) => from = [&last[..], &[0]].concat().into(),
                (true, Some(last), Direction::Backward) => to = last,
            }
        }
        Ok(rows)
    }
}
