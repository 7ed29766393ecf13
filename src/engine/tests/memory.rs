//! The engine in memory keeps the contract.

use std::{path::Path, sync::Arc};

use stoa_engine::{Engine, Result, contract::Subject, memory::Memory};
use tempfile::TempDir;

struct InMemory<const PAGE: usize> {
    memory: Memory,
    folder: TempDir,
}

impl<const PAGE: usize> Subject for InMemory<PAGE> {
    const PERSISTENT: bool = false;

    fn new() -> Self {
        let memory = if PAGE == 0 { Memory::new() } else { Memory::with_page(PAGE) };
        InMemory { memory, folder: TempDir::new().expect("a folder") }
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn open(&self) -> Arc<dyn Engine> {
        Arc::new(self.memory.clone())
    }

    fn restore(&self, backup: &Path) -> Result<Arc<dyn Engine>> {
        Ok(Arc::new(Memory::restore(backup)?))
    }
}

mod whole_pages {
    use super::*;
    stoa_engine::suite!(InMemory<0>);
}

mod short_pages {
    use super::*;
    stoa_engine::suite!(InMemory<3>);
}

#[test]
fn half_a_backup_is_refused() {
    use futures_util::FutureExt as _;

    let folder = TempDir::new().expect("a folder");
    Memory::new().backup(folder.path()).now_or_never().expect("at once").expect("the backup");
    Memory::restore(folder.path()).expect("a whole one");
    let file = folder.path().join("memory.backup");
    let whole = std::fs::read(&file).expect("the file");
    for length in 0..whole.len() {
        std::fs::write(&file, &whole[..length]).expect("the file");
        assert!(Memory::restore(folder.path()).is_err(), "{length} bytes");
    }
}
