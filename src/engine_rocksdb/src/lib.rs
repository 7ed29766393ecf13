//! The embedded engine: RocksDB behind [`stoa_engine::Engine`].
//!
//! Reads that are in memory are answered on the spot; the others, and everything that waits for the disk, happen on
//! the blocking threads of the async runtime, so that a cold disk never stalls a network thread.

mod backup;
mod error;
mod owned;
mod read;
mod stats;
mod tuning;
mod write;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use rocksdb::{Cache, ColumnFamily, DBWithThreadMode, SingleThreaded, WriteBufferManager};
use stoa_engine::{Answer, Batch, Durability, Engine, Error, Reader, Result, Space, Stats};

pub use backup::{Backup, backups, restore, verify};
pub use tuning::Options;

/// Column families are only made while opening, so reading needs no lock on them.
type Db = DBWithThreadMode<SingleThreaded>;

/// A database in a folder, open in this process alone.
///
/// The folder is free again when it, every snapshot of it and every read of theirs is gone. A commit that was begun is
/// done also when its answer is dropped.
pub struct RocksDb {
    core: Arc<Core>,
}

/// What readers and writers share.
struct Core {
    db: Db,
    /// Held alone by who checks asserts and then writes; shared by who only writes.
    gate: RwLock<()>,
    /// Held while a backup is made.
    backups: Mutex<()>,
    cache: Cache,
    buffers: WriteBufferManager,
    path: PathBuf,
    options: Options,
}

impl RocksDb {
    /// Opens the database in a folder, or makes a new one there. This reads the disk: seconds, after a crash.
    ///
    /// # Errors
    /// [`Error::Failed`], with what to do about it where we know.
    pub fn open(path: &Path, options: Options) -> Result<Arc<Self>> {
        let tuning = tuning::Tuning::new(&options);
        let db = tuning.families().and_then(|families| Db::open_cf_descriptors(&tuning.database(), path, families));
        let db = db.map_err(|error| error::opening(path, &error))?;
        let core = Core {
            db,
            gate: RwLock::new(()),
            backups: Mutex::new(()),
            cache: tuning.cache,
            buffers: tuning.buffers,
            path: path.to_owned(),
            options,
        };
        Ok(Arc::new(RocksDb { core: Arc::new(core) }))
    }

    /// Writes everything that is in memory into table files, and waits for it. Not needed for durability.
    ///
    /// # Errors
    /// [`Error::Failed`]
    pub async fn flush(&self) -> Result<()> {
        let core = Arc::clone(&self.core);
        blocking(move || core.flush()).await
    }

    /// Reads everything, comparing checksums, and answers how many entries there are. Slow; work goes on meanwhile.
    ///
    /// # Errors
    /// [`Error::Failed`], where something is damaged.
    pub async fn check(&self) -> Result<u64> {
        let core = Arc::clone(&self.core);
        blocking(move || core.count()).await
    }

    /// Rewrites all tables, which frees the space of what was deleted. Slow, and meant for an operator's command.
    ///
    /// # Errors
    /// [`Error::Failed`]
    pub async fn compact(&self) -> Result<()> {
        let core = Arc::clone(&self.core);
        blocking(move || {
            for space in Space::ALL {
                core.db.compact_range_cf(core.family(space)?, None::<&[u8]>, None::<&[u8]>);
            }
            Ok(())
        })
        .await
    }
}

impl Engine for RocksDb {
    fn snapshot(&self) -> Arc<dyn Reader> {
        Arc::new(read::View::new(Arc::clone(&self.core)))
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Answer<'_, ()> {
        write::commit(&self.core, batch, durability)
    }

    /// The folder may hold earlier backups: files that did not change since are shared with them.
    fn backup<'a>(&'a self, to: &'a Path) -> Answer<'a, ()> {
        let (core, to) = (Arc::clone(&self.core), to.to_owned());
        Answer::later(blocking(move || core.backup(&to)))
    }

    fn stats(&self) -> Stats {
        self.core.stats()
    }
}

impl Core {
    fn family(&self, space: Space) -> Result<&ColumnFamily> {
        self.db.cf_handle(space.name()).ok_or_else(|| Error::Failed(format!("no column family {}", space.name())))
    }

    fn flush(&self) -> Result<()> {
        for space in Space::ALL {
            self.db.flush_cf(self.family(space)?).map_err(|error| error::failed(&error))?;
        }
        Ok(())
    }
}

/// Does work that may wait for the disk on a thread that may wait. Once it is begun it goes on to its end, also when
/// nobody waits for it any more.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Failed(format!("the work was not done: {error}"))),
    }
}
