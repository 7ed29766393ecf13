//! RocksDB keeps the contract.

use std::{
    path::Path,
    sync::{Arc, Mutex, Weak},
};

use futures_util::future::BoxFuture;
use stoa_engine::{Engine, Result, contract::Subject};
use stoa_engine_rocksdb::{Options, RocksDb, restore};
use tempfile::TempDir;

struct OnDisk {
    folder: TempDir,
    /// The one that is open, if it is: nothing here may keep it open.
    engine: Mutex<Weak<RocksDb>>,
}

fn options() -> Options {
    // Little, so that the tests reach its end.
    Options { memory_bytes: 16 << 20, ..Options::default() }
}

impl Subject for OnDisk {
    const PERSISTENT: bool = true;

    fn new() -> Self {
        OnDisk { folder: TempDir::new().expect("a folder"), engine: Mutex::default() }
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn open(&self) -> Arc<dyn Engine> {
        let engine = RocksDb::open(&self.folder().join("db"), options()).expect("open");
        *self.engine.lock().expect("the lock") = Arc::downgrade(&engine);
        engine
    }

    fn restore(&self, backup: &Path) -> Result<Arc<dyn Engine>> {
        let to = self.folder().join("restored");
        restore(backup, &to, None)?;
        Ok(RocksDb::open(&to, options())?)
    }

    fn settle(&self) -> BoxFuture<'_, ()> {
        let engine = self.engine.lock().expect("the lock").upgrade();
        Box::pin(async move {
            if let Some(engine) = engine {
                engine.flush().await.expect("flush");
                engine.compact().await.expect("compact");
            }
        })
    }
}

stoa_engine::suite!(OnDisk);
