//! Committing: asserts and changes under one gate; the wait for the disk on a blocking thread.

use std::sync::Arc;

use rocksdb::{ReadOptions, ReadTier, WriteBatch, WriteOptions};
use stoa_engine::{Answer, Assert, Batch, Durability, Error, Op, Result};

use crate::{
    Core, blocking,
    error::{failed, incomplete},
    read::Lookup,
};

/// So many changes and conditions are done at once at most.
const INLINE_OPS: usize = 256;
/// So many bytes, also.
const INLINE_BYTES: usize = 256 << 10;

/// [`stoa_engine::Engine::commit`].
pub(crate) fn commit(core: &Arc<Core>, batch: Batch, durability: Durability) -> Answer<'_, ()> {
    if durability == Durability::Relaxed
        && small(&batch)
        && let Some(result) = core.write_now(&batch)
    {
        return Answer::now(result);
    }
    let core = Arc::clone(core);
    Answer::later(blocking(move || core.write(&batch, durability)))
}

fn small(batch: &Batch) -> bool {
    let bytes: usize = batch
        .ops
        .iter()
        .map(|op| match op {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { .. } | Op::DeleteRange { .. } => 0,
        })
        .sum();
    batch.ops.len() + batch.asserts.len() <= INLINE_OPS && bytes <= INLINE_BYTES
}

impl Core {
    /// Writes, and waits for what has to be waited for.
    fn write(&self, batch: &Batch, durability: Durability) -> Result<()> {
        let changes = self.changes(batch)?;
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        if batch.asserts.is_empty() {
            // Several may be in here: RocksDB writes them as one group, with one sync.
            let _gate = self.gate.read();
            return self.db.write_opt(changes, &options).map_err(|error| failed(&error));
        }
        let _gate = self.gate.write();
        if !self.holds(&batch.asserts)? {
            return Err(Error::Conflict);
        }
        self.db.write_opt(changes, &options).map_err(|error| failed(&error))
    }

    /// Writes to memory and the operating system, if that can be done without waiting for anything; `None` if not.
    fn write_now(&self, batch: &Batch) -> Option<Result<()>> {
        // Alone, because else RocksDB may put us into a group that waits for its sync.
        let _gate = self.gate.try_write()?;
        match self.holds_now(&batch.asserts) {
            Ok(Some(true)) => {}
            Ok(Some(false)) => return Some(Err(Error::Conflict)),
            Ok(None) => return None,
            Err(error) => return Some(Err(error)),
        }
        let mut options = WriteOptions::default();
        options.set_no_slowdown(true);
        match self.changes(batch).map(|changes| self.db.write_opt(changes, &options)) {
            Ok(Ok(())) => Some(Ok(())),
            Ok(Err(error)) if incomplete(&error) => None,
            Ok(Err(error)) => Some(Err(failed(&error))),
            Err(error) => Some(Err(error)),
        }
    }

    /// Whether all conditions hold.
    fn holds(&self, asserts: &[Assert]) -> Result<bool> {
        let mut lookup = lookup(asserts);
        lookup.read(self, &ReadOptions::default())?;
        Ok(hold(asserts, &lookup))
    }

    /// The same without the disk; `None` where it is needed.
    fn holds_now(&self, asserts: &[Assert]) -> Result<Option<bool>> {
        let mut memory = ReadOptions::default();
        memory.set_read_tier(ReadTier::BlockCache);
        let mut lookup = lookup(asserts);
        lookup.read_cached(self, &memory)?;
        Ok(lookup.missing.is_empty().then(|| hold(asserts, &lookup)))
    }

    fn changes(&self, batch: &Batch) -> Result<WriteBatch> {
        let mut changes = WriteBatch::default();
        for op in &batch.ops {
            match op {
                Op::Put { space, key, value } => changes.put_cf(&self.family(*space)?, key, value),
                Op::Delete { space, key } => changes.delete_cf(&self.family(*space)?, key),
                // RocksDB refuses a range that ends before it begins; it is as empty as one that ends where it begins.
                Op::DeleteRange { from, to, .. } if from >= to => {}
                Op::DeleteRange { space, from, to } => changes.delete_range_cf(&self.family(*space)?, from, to),
            }
        }
        Ok(changes)
    }
}

fn lookup(asserts: &[Assert]) -> Lookup {
    Lookup::new(asserts.iter().map(|assert| (assert.space, assert.key.clone())).collect())
}

fn hold(asserts: &[Assert], lookup: &Lookup) -> bool {
    asserts.iter().zip(&lookup.values).all(|(assert, value)| assert.value == *value)
}
