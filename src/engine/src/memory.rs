//! An engine in memory, with real snapshots: every key keeps the versions that some snapshot may still ask for.
//! It serves tests and the simulation; nothing of it is on disk, except what [`Engine::backup`] writes.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};

use crate::{
    Answer, Assert, Batch, Direction, Durability, Engine, Error, Op, Page, Reader, Result, Scan, Space, Stats,
};

mod file;

/// The engine in memory. A clone is the same engine.
#[derive(Clone, Default)]
pub struct Memory {
    data: Arc<RwLock<Data>>,
    page: Option<usize>,
}

/// The versions of one key, oldest first: the commit that wrote it, and what it held from then on.
type Versions = Vec<(u64, Option<Bytes>)>;

#[derive(Default)]
struct Data {
    /// The number of the last commit.
    seq: u64,
    spaces: [BTreeMap<Bytes, Versions>; Space::ALL.len()],
    /// The commit that each live snapshot sees, and how many snapshots see it.
    snapshots: BTreeMap<u64, usize>,
    /// Keys with versions that only snapshots before this commit ask for.
    garbage: VecDeque<(u64, Space, Bytes)>,
}

impl Memory {
    /// An empty one.
    pub fn new() -> Self {
        Memory::default()
    }

    /// One whose scans answer with at most `page` entries (and `more`), as any engine may: it finds callers that do
    /// not ask again.
    pub fn with_page(page: usize) -> Self {
        Memory { page: Some(page.max(1)), ..Memory::default() }
    }

    /// Reads back what [`Engine::backup`] wrote into the folder `from`.
    ///
    /// # Errors
    /// [`Error::Failed`] where there is no backup, or it is damaged.
    pub fn restore(from: &Path) -> Result<Self> {
        let memory = Memory::new();
        let ops = file::read(&backup_file(from))?;
        memory.data.write().apply(&Batch { asserts: Vec::new(), ops })?;
        Ok(memory)
    }

    /// How many versions are kept, over all keys. Without snapshots it is the number of keys.
    pub fn versions(&self) -> usize {
        self.data.read().spaces.iter().flat_map(BTreeMap::values).map(Vec::len).sum()
    }

    fn view(&self) -> View {
        let mut data = self.data.write();
        let seq = data.seq;
        *data.snapshots.entry(seq).or_default() += 1;
        View { data: Arc::clone(&self.data), page: self.page, seq }
    }
}

impl Engine for Memory {
    fn snapshot(&self) -> Arc<dyn Reader> {
        Arc::new(self.view())
    }

    fn commit(&self, batch: Batch, _: Durability) -> Answer<'_, ()> {
        Answer::now(self.data.write().apply(&batch))
    }

    fn backup<'a>(&'a self, to: &'a Path) -> Answer<'a, ()> {
        let view = self.view();
        Answer::now(file::write(&backup_file(to), view.everything()))
    }

    fn stats(&self) -> Stats {
        let data = self.data.read();
        let keys = data.spaces.iter().map(BTreeMap::len).sum::<usize>() as u64;
        let bytes = data.spaces.iter().flatten().map(|(key, versions)| {
            key.len() + versions.iter().flat_map(|(_, value)| value).map(Bytes::len).sum::<usize>()
        });
        let snapshots = data.snapshots.values().sum::<usize>() as u64;
        Stats {
            disk_bytes: 0,
            memory_bytes: bytes.sum::<usize>() as u64,
            more: vec![("keys", keys), ("snapshots", snapshots), ("commits", data.seq)],
        }
    }
}

fn backup_file(folder: &Path) -> PathBuf {
    folder.join("memory.backup")
}

impl Data {
    fn apply(&mut self, batch: &Batch) -> Result<()> {
        if !batch.asserts.iter().all(|assert| self.holds(assert)) {
            return Err(Error::Conflict);
        }
        self.seq += 1;
        for op in &batch.ops {
            match op {
                Op::Put { space, key, value } => self.set(*space, key, Some(value)),
                Op::Delete { space, key } => self.set(*space, key, None),
                Op::DeleteRange { space, from, to } => self.delete_range(*space, from, to),
            }
        }
        self.collect();
        Ok(())
    }

    fn holds(&self, assert: &Assert) -> bool {
        self.get(assert.space, &assert.key, self.seq) == assert.value.as_ref()
    }

    fn get(&self, space: Space, key: &[u8], seq: u64) -> Option<&Bytes> {
        at(self.spaces[space as usize].get(key)?, seq)
    }

    fn set(&mut self, space: Space, key: &Bytes, value: Option<&Bytes>) {
        let Data { seq, spaces, snapshots, garbage } = self;
        let keys = &mut spaces[space as usize];
        let Some(versions) = keys.get_mut(key) else {
            if let Some(value) = value {
                // A copy: the caller's key may be a slice of something large.
                keys.insert(Bytes::copy_from_slice(key), vec![(*seq, Some(value.clone()))]);
            }
            return;
        };
        match versions.last_mut() {
            Some(last) if last.0 == *seq => last.1 = value.cloned(),
            Some(last) if last.1.is_none() && value.is_none() => {}
            _ => versions.push((*seq, value.cloned())),
        }
        prune(versions, snapshots);
        match versions.as_slice() {
            [(_, None)] => drop(keys.remove(key)),
            [_] => {}
            _ => garbage.push_back((*seq, space, key.clone())),
        }
    }

    fn delete_range(&mut self, space: Space, from: &Bytes, to: &Bytes) {
        if from >= to {
            return;
        }
        let keys = self.spaces[space as usize].range::<Bytes, _>(from..to);
        let live: Vec<Bytes> = keys
            .filter(|(_, versions)| versions.last().is_some_and(|(_, value)| value.is_some()))
            .map(|(key, _)| key.clone())
            .collect();
        for key in live {
            self.set(space, &key, None);
        }
    }

    /// Forgets versions that no snapshot can ask for any more.
    fn collect(&mut self) {
        let oldest = self.snapshots.keys().next().copied().unwrap_or(u64::MAX);
        while self.garbage.front().is_some_and(|(until, ..)| *until <= oldest) {
            let Some((_, space, key)) = self.garbage.pop_front() else { return };
            let keys = &mut self.spaces[space as usize];
            let Some(versions) = keys.get_mut(&key) else { continue };
            prune(versions, &self.snapshots);
            if matches!(versions.as_slice(), [(_, None)]) {
                keys.remove(&key);
            }
        }
    }
}

/// What a key held after commit `seq`.
fn at(versions: &Versions, seq: u64) -> Option<&Bytes> {
    let (_, value) = versions.iter().rev().find(|(written, _)| *written <= seq)?;
    value.as_ref()
}

/// Keeps the last version and those that a live snapshot sees. A removal before all others says nothing.
fn prune(versions: &mut Versions, snapshots: &BTreeMap<u64, usize>) {
    let ends: Vec<u64> = versions.iter().skip(1).map(|(written, _)| *written).collect();
    let mut ends = ends.into_iter();
    versions.retain(|(written, _)| match ends.next() {
        Some(end) => snapshots.range(*written..end).next().is_some(),
        None => true,
    });
    if versions.len() > 1 && versions.first().is_some_and(|(_, value)| value.is_none()) {
        versions.remove(0);
    }
}

/// Everything after one commit.
struct View {
    data: Arc<RwLock<Data>>,
    page: Option<usize>,
    seq: u64,
}

impl View {
    fn read(&self) -> RwLockReadGuard<'_, Data> {
        self.data.read()
    }

    fn page(&self, scan: &Scan) -> Page {
        if scan.from >= scan.to {
            return Page::default();
        }
        let data = self.read();
        let live = data.spaces[scan.space as usize]
            .range::<Bytes, _>(&scan.from..&scan.to)
            .filter_map(|(key, versions)| Some((key.clone(), at(versions, self.seq)?.clone())));
        let limit = self.page.map_or(scan.limit, |page| page.min(scan.limit));
        match scan.direction {
            Direction::Forward => take(live, limit),
            Direction::Backward => take(live.rev(), limit),
        }
    }

    fn everything(&self) -> Vec<(Space, Bytes, Bytes)> {
        let data = self.read();
        let mut all = Vec::new();
        for space in Space::ALL {
            for (key, versions) in &data.spaces[space as usize] {
                all.extend(at(versions, self.seq).map(|value| (space, key.clone(), value.clone())));
            }
        }
        all
    }
}

fn take(mut live: impl Iterator<Item = (Bytes, Bytes)>, limit: usize) -> Page {
    let entries = live.by_ref().take(limit).collect();
    Page { entries, more: limit > 0 && live.next().is_some() }
}

impl Drop for View {
    fn drop(&mut self) {
        let mut data = self.data.write();
        if let Some(count) = data.snapshots.get_mut(&self.seq) {
            *count -= 1;
            if *count == 0 {
                data.snapshots.remove(&self.seq);
                data.collect();
            }
        }
    }
}

impl Reader for View {
    fn get_many(&self, keys: Vec<(Space, Bytes)>) -> Answer<'_, Vec<Option<Bytes>>> {
        let data = self.read();
        Answer::now(Ok(keys.iter().map(|(space, key)| data.get(*space, key, self.seq).cloned()).collect()))
    }

    fn scan(&self, scan: Scan) -> Answer<'_, Page> {
        Answer::now(Ok(self.page(&scan)))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn put(memory: &Memory, key: &'static str, value: &'static str) {
        let op = Op::Put { space: Space::Rows, key: key.into(), value: value.into() };
        let batch = Batch { asserts: Vec::new(), ops: vec![op] };
        memory.commit(batch, Durability::Synced).now_or_never().expect("at once").expect("commit");
    }

    #[test]
    fn old_versions_go_with_the_last_snapshot_that_sees_them() {
        let memory = Memory::new();
        put(&memory, "a", "1");
        let first = memory.snapshot();
        for _ in 0..100 {
            put(&memory, "a", "2");
        }
        // What lies between is seen by nobody.
        assert_eq!(memory.versions(), 2);
        let second = memory.snapshot();
        put(&memory, "a", "3");
        assert_eq!(memory.versions(), 3);
        drop(first);
        assert_eq!(memory.versions(), 2);
        drop(second);
        assert_eq!(memory.versions(), 1);
    }

    #[test]
    fn removed_keys_leave_nothing_behind() {
        let memory = Memory::new();
        put(&memory, "a", "1");
        put(&memory, "b", "1");
        let snapshot = memory.snapshot();
        let op = Op::DeleteRange { space: Space::Rows, from: "a".into(), to: "z".into() };
        let batch = Batch { asserts: Vec::new(), ops: vec![op] };
        memory.commit(batch, Durability::Relaxed).now_or_never().expect("at once").expect("commit");
        assert_eq!(memory.versions(), 4);
        drop(snapshot);
        assert_eq!(memory.versions(), 0);
    }
}
