//! Reading: at once from memtables and block cache, on a blocking thread where the disk is needed.

use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{ReadOptions, ReadTier};
use stoa_engine::{Answer, Direction, Page, Reader, Result, Scan, Space};

use crate::{
    Core, blocking,
    error::{failed, incomplete},
    owned::OwnedSnapshot,
};

/// So many keys are looked up at once at most; more would keep a network thread for milliseconds.
const INLINE_KEYS: usize = 256;
/// A scan goes to a blocking thread after so many entries,
const INLINE_ENTRIES: usize = 512;
/// after so many bytes,
const INLINE_BYTES: usize = 512 << 10;
/// or after so many removed keys in a row.
const INLINE_SKIPS: u64 = 2_000;
/// One page never has more bytes than this, but always one entry.
const PAGE_BYTES: usize = 8 << 20;

/// A snapshot, as a reader.
pub(crate) struct View {
    snapshot: Arc<OwnedSnapshot>,
}

impl View {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        View { snapshot: Arc::new(OwnedSnapshot::new(core)) }
    }
}

impl Reader for View {
    fn get_many(&self, keys: Vec<(Space, Bytes)>) -> Answer<'_, Vec<Option<Bytes>>> {
        let mut lookup = Lookup::new(keys);
        if lookup.keys.len() <= INLINE_KEYS {
            match lookup.read_cached(self.snapshot.core(), self.snapshot.cached()) {
                Ok(()) if lookup.missing.is_empty() => return Answer::now(Ok(lookup.values)),
                Ok(()) => {}
                Err(error) => return Answer::now(Err(error)),
            }
        }
        let snapshot = Arc::clone(&self.snapshot);
        Answer::later(blocking(move || {
            lookup.read(snapshot.core(), &snapshot.options())?;
            Ok(lookup.values)
        }))
    }

    fn scan(&self, scan: Scan) -> Answer<'_, Page> {
        let mut walk = Walk::new(scan);
        match walk.go(&self.snapshot, Tier::Memory) {
            Ok(true) => return Answer::now(Ok(walk.page)),
            Ok(false) => {}
            Err(error) => return Answer::now(Err(error)),
        }
        let snapshot = Arc::clone(&self.snapshot);
        Answer::later(blocking(move || {
            walk.go(&snapshot, Tier::Disk)?;
            Ok(walk.page)
        }))
    }
}

/// Point reads under way.
pub(crate) struct Lookup {
    keys: Vec<(Space, Bytes)>,
    /// What was found so far.
    pub(crate) values: Vec<Option<Bytes>>,
    /// Which keys were not looked up yet.
    pub(crate) missing: Vec<usize>,
}

impl Lookup {
    pub(crate) fn new(keys: Vec<(Space, Bytes)>) -> Self {
        let (values, missing) = (vec![None; keys.len()], (0..keys.len()).collect());
        Lookup { keys, values, missing }
    }

    /// Reads what is missing, as far as it can be had without the disk; the options have to say that it may not be
    /// touched. One by one, because RocksDB's reading of many keys goes to the disk whatever the options say.
    pub(crate) fn read_cached(&mut self, core: &Core, options: &ReadOptions) -> Result<()> {
        for index in std::mem::take(&mut self.missing) {
            let (space, key) = &self.keys[index];
            let found = core.db.get_pinned_cf_opt(core.family(*space)?, key, options);
            self.found(index, found)?;
        }
        Ok(())
    }

    /// Reads what is missing.
    pub(crate) fn read(&mut self, core: &Core, options: &ReadOptions) -> Result<()> {
        if self.missing.len() == 1 {
            return self.read_cached(core, options);
        }
        let wanted = std::mem::take(&mut self.missing);
        for space in Space::ALL {
            let here: Vec<usize> = wanted.iter().copied().filter(|index| self.keys[*index].0 == space).collect();
            if here.is_empty() {
                continue;
            }
            let keys = here.iter().map(|index| &self.keys[*index].1[..]);
            let found = core.db.batched_multi_get_cf_opt(core.family(space)?, keys, false, options);
            for (index, found) in here.into_iter().zip(found) {
                self.found(index, found)?;
            }
        }
        Ok(())
    }

    fn found(
        &mut self,
        index: usize,
        found: std::result::Result<Option<impl AsRef<[u8]>>, rocksdb::Error>,
    ) -> Result<()> {
        match found {
            // A copy: a pinned slice would keep a whole block in memory for as long as the value lives.
            Ok(value) => self.values[index] = value.map(|value| Bytes::copy_from_slice(value.as_ref())),
            Err(error) if incomplete(&error) => self.missing.push(index),
            Err(error) => return Err(failed(&error)),
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tier {
    Memory,
    Disk,
}

/// A scan under way.
struct Walk {
    scan: Scan,
    page: Page,
    bytes: usize,
}

impl Walk {
    fn new(scan: Scan) -> Self {
        Walk { scan, page: Page::default(), bytes: 0 }
    }

    /// Goes on; `false` where it cannot be finished here.
    fn go(&mut self, snapshot: &OwnedSnapshot, tier: Tier) -> Result<bool> {
        if self.scan.from >= self.scan.to || self.scan.limit == 0 {
            return Ok(true);
        }
        let forward = self.scan.direction == Direction::Forward;
        let family = snapshot.core().family(self.scan.space)?;
        let mut rows = snapshot.iterator(family, self.options(snapshot, tier));
        if forward {
            rows.seek_to_first();
        } else {
            rows.seek_to_last();
        }
        while let Some((key, value)) = rows.item() {
            if self.page.entries.len() >= self.scan.limit || self.bytes >= PAGE_BYTES {
                self.page.more = true;
                return Ok(true);
            }
            if tier == Tier::Memory && (self.page.entries.len() >= INLINE_ENTRIES || self.bytes >= INLINE_BYTES) {
                return Ok(false);
            }
            self.bytes += key.len() + value.len();
            self.page.entries.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            if forward {
                rows.next();
            } else {
                rows.prev();
            }
        }
        match rows.status() {
            Ok(()) => Ok(true),
            Err(error) if tier == Tier::Memory && incomplete(&error) => Ok(false),
            Err(error) => Err(failed(&error)),
        }
    }

    /// The range that is still to be read.
    fn options(&self, snapshot: &OwnedSnapshot, tier: Tier) -> ReadOptions {
        let mut options = snapshot.options();
        let (mut from, mut to) = (self.scan.from.to_vec(), self.scan.to.to_vec());
        match (self.page.entries.last(), self.scan.direction) {
            (Some((last, _)), Direction::Forward) => from = [&last[..], &[0]].concat(),
            (Some((last, _)), Direction::Backward) => to = last.to_vec(),
            (None, _) => {}
        }
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        if tier == Tier::Memory {
            options.set_read_tier(ReadTier::BlockCache);
            options.set_max_skippable_internal_keys(INLINE_SKIPS);
        }
        options
    }
}
