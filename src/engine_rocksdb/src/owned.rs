//! Snapshots that own the database they look at.
//!
//! The rocksdb package's snapshot borrows the database, but ours must live as long as a reader does, and cross threads.
//! This is the one place with unsafe code in this crate.

use std::sync::Arc;

use rocksdb::{DBRawIteratorWithThreadMode, ReadOptions, ReadTier, SnapshotWithThreadMode};

use crate::{Core, Db};

/// A snapshot and the database that it belongs to.
pub(crate) struct OwnedSnapshot {
    // Fields are dropped in the order in which they stand here: the snapshot has to be released while the database is
    // still open. The reference in it is 'static only in name and never leaves this file.
    snapshot: SnapshotWithThreadMode<'static, Db>,
    /// For point reads that may not touch the disk; made once, because it costs an allocation.
    cached: ReadOptions,
    core: Arc<Core>,
}

impl OwnedSnapshot {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        #[expect(
            unsafe_code,
            reason = "the snapshot borrows from the Arc beside it, which the borrow checker cannot see"
        )]
        // SAFETY: `core` is on the heap and `OwnedSnapshot` keeps it alive (and nothing can move it or take it out)
        // until after `snapshot` was dropped. No method gives the 'static reference away: what they return is bound to
        // `&self`.
        let db: &'static Db = unsafe { &*std::ptr::from_ref(&core.db) };
        let snapshot = SnapshotWithThreadMode::new(db);
        let mut cached = ReadOptions::default();
        cached.set_snapshot(&snapshot);
        cached.set_read_tier(ReadTier::BlockCache);
        OwnedSnapshot { snapshot, cached, core }
    }

    /// The database.
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// Options for point reads of this snapshot.
    pub(crate) fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options
    }

    /// The same for reads that may not touch the disk.
    pub(crate) fn cached(&self) -> &ReadOptions {
        &self.cached
    }

    /// An iterator over this snapshot.
    pub(crate) fn iterator<'a>(
        &'a self,
        family: &'a rocksdb::ColumnFamily,
        options: ReadOptions,
    ) -> DBRawIteratorWithThreadMode<'a, Db> {
        self.snapshot.raw_iterator_cf_opt(&family, options)
    }
}
