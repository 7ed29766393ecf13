//! An engine in memory that takes its time to commit and can be switched off: what was committed stays, also if nobody heard
//! of it, and what comes after is lost, as in a crash.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use stoa_engine::{Answer, Batch, Durability, Engine, Error, Reader, Stats, memory::Memory};
use tokio::time::sleep;

use crate::chance::Dice;

/// The disk of a server while it runs once.
pub(crate) struct Disk {
    memory: Memory,
    on: Arc<AtomicBool>,
    dice: Arc<Mutex<Dice>>,
}

impl Disk {
    /// The disk, and what switches it off.
    pub(crate) fn of(memory: &Memory, dice: &Arc<Mutex<Dice>>) -> (Disk, Arc<AtomicBool>) {
        let on = Arc::new(AtomicBool::new(true));
        (Disk { memory: memory.clone(), on: on.clone(), dice: dice.clone() }, on)
    }
}

impl Engine for Disk {
    fn snapshot(&self) -> Arc<dyn Reader> {
        self.memory.snapshot()
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Answer<'_, ()> {
        let (before, after) = {
            let mut dice = self.dice.lock();
            (*dice.pick(&[0, 0, 1, 3, 10]), *dice.pick(&[0, 0, 1, 3]))
        };
        let (memory, on) = (self.memory.clone(), self.on.clone());
        Answer::later(async move {
            pause(before).await;
            if !on.load(Ordering::SeqCst) {
                return Err(Error::Failed("the server crashed".into()));
            }
            memory.commit(batch, durability).await?;
            pause(after).await;
            Ok(())
        })
    }

    fn backup<'a>(&'a self, to: &'a Path) -> Answer<'a, ()> {
        self.memory.backup(to)
    }

    fn stats(&self) -> Stats {
        self.memory.stats()
    }
}

async fn pause(ms: u64) {
    if ms > 0 {
        sleep(Duration::from_millis(ms)).await;
    }
}
