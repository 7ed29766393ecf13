//! An engine in memory that can be switched off: what was committed stays, what comes after is lost, as in a crash.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use stoa_engine::{Answer, Batch, Durability, Engine, Error, Reader, Stats, memory::Memory};

/// The disk of a server while it runs once.
pub(crate) struct Disk {
    memory: Memory,
    on: Arc<AtomicBool>,
}

impl Disk {
    /// The disk, and what switches it off.
    pub(crate) fn of(memory: &Memory) -> (Disk, Arc<AtomicBool>) {
        let on = Arc::new(AtomicBool::new(true));
        (Disk { memory: memory.clone(), on: on.clone() }, on)
    }
}

impl Engine for Disk {
    fn snapshot(&self) -> Arc<dyn Reader> {
        self.memory.snapshot()
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Answer<'_, ()> {
        match self.on.load(Ordering::SeqCst) {
            true => self.memory.commit(batch, durability),
            false => Answer::now(Err(Error::Failed("the server crashed".into()))),
        }
    }

    fn backup<'a>(&'a self, to: &'a Path) -> Answer<'a, ()> {
        self.memory.backup(to)
    }

    fn stats(&self) -> Stats {
        self.memory.stats()
    }
}
