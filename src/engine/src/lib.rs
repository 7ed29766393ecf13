//! Ordered bytes: what the store stands on.
//!
//! An engine keeps byte strings in order, in a few [`Space`]s, changes them by atomic batches, and reads them from
//! snapshots. Nothing above may assume that it is alone or that a read is free: reads answer at once when they can
//! ([`Answer::Now`]) and later when they cannot.

mod answer;
pub mod contract;
pub mod memory;

use std::{path::Path, sync::Arc};

pub use answer::Answer;
use bytes::Bytes;

/// Families of keys by way of access. A table is a prefix within one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Events and state nodes: written once, read often, large.
    Events,
    /// Small rows that change.
    Rows,
    /// Indexes that are appended to and scanned in order.
    Indexes,
    /// What is written, read once and deleted: feed, queues, to-device messages.
    Queues,
}

impl Space {
    /// All of them, in the order of their numbers.
    pub const ALL: [Space; 4] = [Space::Events, Space::Rows, Space::Indexes, Space::Queues];

    /// The name under which an engine keeps it.
    pub fn name(self) -> &'static str {
        match self {
            Space::Events => "events",
            Space::Rows => "rows",
            Space::Indexes => "indexes",
            Space::Queues => "queues",
        }
    }
}

/// One change. Within a batch later changes win over earlier ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put {
        /// Where.
        space: Space,
        /// The key.
        key: Bytes,
        /// What it holds from now on.
        value: Bytes,
    },
    /// Removes a key; nothing happens if it is not there.
    Delete {
        /// Where.
        space: Space,
        /// The key.
        key: Bytes,
    },
    /// Removes all keys from `from` (included) to `to` (excluded).
    DeleteRange {
        /// Where.
        space: Space,
        /// The first key that goes.
        from: Bytes,
        /// The first key that stays.
        to: Bytes,
    },
}

/// What must be true for a batch to be applied; otherwise nothing of it is, and the answer is [`Error::Conflict`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assert {
    /// Where.
    pub space: Space,
    /// The key.
    pub key: Bytes,
    /// What it must hold just before the batch; `None`: it must not be there.
    pub value: Option<Bytes>,
}

/// Changes that happen together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Conditions, checked first.
    pub asserts: Vec<Assert>,
    /// The changes, in order.
    pub ops: Vec<Op>,
}

/// When a commit counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When it is on disk. It survives a power cut.
    #[default]
    Synced,
    /// When the operating system has it. It survives `kill -9`, not a power cut.
    Relaxed,
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the least key on.
    Forward,
    /// From the greatest key back.
    Backward,
}

/// A range of keys to read.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Where.
    pub space: Space,
    /// The least key, included.
    pub from: Bytes,
    /// The greatest key, excluded.
    pub to: Bytes,
    /// Which end comes first.
    pub direction: Direction,
    /// At most so many entries. An engine may answer with fewer and `more`, never with none and `more`.
    pub limit: usize,
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values, in the direction of the scan.
    pub entries: Vec<(Bytes, Bytes)>,
    /// Whether the range has entries beyond these.
    pub more: bool,
}

/// What goes wrong in an engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An [`Assert`] did not hold; nothing was changed.
    #[error("the data changed under this batch")]
    Conflict,
    /// The engine failed; whether a commit happened is not known.
    #[error("the storage engine failed: {0}")]
    Failed(String),
}

/// The result of an engine's operation.
pub type Result<T> = std::result::Result<T, Error>;

/// What an engine says about itself: name and value, for metrics and `stoa doctor`.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Bytes on disk, as far as the engine knows.
    pub disk_bytes: u64,
    /// Bytes of memory that it uses for caches and buffers.
    pub memory_bytes: u64,
    /// Whatever else it counts.
    pub more: Vec<(&'static str, u64)>,
}

/// Ordered bytes with atomic batches and snapshots.
pub trait Engine: Send + Sync + 'static {
    /// Everything as it is now; later commits are not seen in it.
    fn snapshot(&self) -> Arc<dyn Reader>;

    /// Applies a batch. Done when the answer comes: see [`Durability`].
    ///
    /// # Errors
    /// [`Error::Conflict`] where an assert does not hold.
    fn commit(&self, batch: Batch, durability: Durability) -> Answer<'_, ()>;

    /// Writes a copy of everything, consistent at one moment, into the folder `to`, while work goes on.
    ///
    /// # Errors
    /// [`Error::Failed`], where the engine cannot or the folder refuses.
    fn backup<'a>(&'a self, to: &'a Path) -> Answer<'a, ()>;

    /// Figures for metrics.
    fn stats(&self) -> Stats;
}

/// A consistent view of an engine.
pub trait Reader: Send + Sync {
    /// The values of keys, in their order.
    ///
    /// # Errors
    /// [`Error::Failed`]
    fn get_many(&self, keys: Vec<(Space, Bytes)>) -> Answer<'_, Vec<Option<Bytes>>>;

    /// The entries of a range.
    ///
    /// # Errors
    /// [`Error::Failed`]
    fn scan(&self, scan: Scan) -> Answer<'_, Page>;
}
