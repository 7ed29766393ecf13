//! The store: facts in typed tables, changed in one way only, by an atomic commit that gets the next position in one
//! total order. Every commit appears on the feed.

pub mod bus;
pub mod codec;
mod commit;
pub mod env;
mod events;
pub mod feed;
mod migrate;
mod names;
pub mod prune;
pub mod rows;
pub mod schema;
pub mod state;
mod table;
mod tx;
pub mod value;
mod who;

use std::{path::Path, sync::Arc};

pub use stoa_engine::{Direction, Durability};
use stoa_engine::{Engine, Stats};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::{bus::Bus, commit::Request, state::Nodes};
pub use crate::{
    commit::Committer,
    env::{Clock, Env, Random},
    events::Events,
    feed::{Commit, Feed, Follower, Heard},
    names::Names,
    numbers::{EventNo, Position, RoomNo, StateKeyNo, UserNo},
    table::{Snapshot, Table},
    tx::{Fact, Membership, Positions, Slot, Tx, stored_bytes},
    value::Value,
    who::Who,
};

mod numbers;

/// Bytes in the database are not what this release writes there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt(pub &'static str);

/// What goes wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another transaction came first; nothing was changed. Read again and try again.
    #[error("the data changed meanwhile")]
    Conflict,
    /// The engine failed.
    #[error("{0}")]
    Engine(String),
    /// A row is not what it should be.
    #[error("the database is damaged: {0}")]
    Corrupt(&'static str),
    /// A row that another one names is not there.
    #[error("the database lacks {0}")]
    Missing(&'static str),
    /// The database was written by a release that this one cannot read.
    #[error("the database has schema version {found}, and this release knows {known}")]
    Version {
        /// What was found.
        found: u32,
        /// What this release knows.
        known: u32,
    },
    /// The store is being shut down.
    #[error("the server is stopping")]
    Closed,
}

impl Error {
    /// The same error for another one who waited for the same write.
    fn again(&self) -> Error {
        match self {
            Error::Conflict => Error::Conflict,
            Error::Engine(why) => Error::Engine(why.clone()),
            Error::Corrupt(what) => Error::Corrupt(what),
            Error::Missing(what) => Error::Missing(what),
            Error::Version { found, known } => Error::Version { found: *found, known: *known },
            Error::Closed => Error::Closed,
        }
    }
}

impl From<Corrupt> for Error {
    fn from(corrupt: Corrupt) -> Self {
        Error::Corrupt(corrupt.0)
    }
}

impl From<stoa_engine::Error> for Error {
    fn from(error: stoa_engine::Error) -> Self {
        match error {
            stoa_engine::Error::Conflict => Error::Conflict,
            stoa_engine::Error::Failed(why) => Error::Engine(why),
        }
    }
}

/// How a store is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// When a commit counts as done.
    pub durability: Durability,
    /// Bytes of memory for caches of events, state nodes and names (the engine has its own share).
    pub cache_bytes: u64,
    /// The names of all followers that keep a cursor; the feed is kept for them.
    pub followers: Vec<&'static str>,
    /// The time now, in milliseconds since 1970: where places on the live bus begin.
    pub now_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { durability: Durability::Synced, cache_bytes: 32 << 20, followers: Vec::new(), now_ms: 0 }
    }
}

pub(crate) struct Inner {
    engine: Arc<dyn Engine>,
    options: Options,
    names: Names,
    events: Events,
    nodes: Nodes,
    who: Who,
    bus: Bus,
    feed: broadcast::Sender<Arc<Commit>>,
}

impl Inner {
    fn publish(&self, commit: Commit) {
        self.who.apply(&commit);
        if !commit.facts.is_empty() {
            // Nobody listening is fine.
            let _ = self.feed.send(Arc::new(commit));
        }
    }
}

/// A handle to the store; clones are the same store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    requests: mpsc::Sender<Request>,
}

impl Store {
    /// Opens the database behind an engine, migrating it if an older release wrote it. The [`Committer`] must be run by
    /// the caller for commits to happen.
    ///
    /// # Errors
    /// Where the engine fails or the database cannot be read by this release.
    pub async fn open(engine: Arc<dyn Engine>, options: Options) -> Result<(Store, Committer), Error> {
        migrate::run(&*engine).await?;
        let snapshot = Snapshot::new(engine.snapshot()).await?;
        let (feed, _) = broadcast::channel(4096);
        let inner = Arc::new(Inner {
            names: Names::open(engine.clone(), &snapshot, options.cache_bytes / 8).await?,
            events: Events::new(options.cache_bytes / 8 * 5),
            nodes: Nodes::new(options.cache_bytes / 4),
            who: Who::open(&snapshot).await?,
            bus: Bus::new(options.now_ms),
            feed,
            engine,
            options,
        });
        let (requests, waiting) = mpsc::channel(1024);
        let committer = Committer::new(inner.clone(), waiting, snapshot.position());
        Ok((Store { inner, requests }, committer))
    }

    /// Everything as it is after the last commit.
    ///
    /// # Errors
    /// Where the engine fails.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        let rewrites = self.inner.events.rewrites();
        Ok(self.inner.names.snapshot().await?.after_rewrites(rewrites))
    }

    /// Makes the changes of a transaction, all or none. When it returns they are on disk. Answers the last position that
    /// they took.
    ///
    /// # Errors
    /// [`Error::Conflict`] where an assert did not hold; others where the engine fails.
    pub async fn commit(&self, tx: Tx) -> Result<Position, Error> {
        let (done, answer) = oneshot::channel();
        self.requests.send(Request { tx, done }).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Hears commits from now on.
    pub fn feed(&self) -> Feed {
        Feed { receiver: self.inner.feed.subscribe() }
    }

    /// Opens a follower with a durable cursor. Its name must be among [`Options::followers`].
    ///
    /// # Errors
    /// Where the engine fails.
    pub async fn follow(&self, name: &'static str) -> Result<Follower, Error> {
        Follower::open(self, name).await
    }

    /// Numbers of users and rooms.
    pub fn names(&self) -> &Names {
        &self.inner.names
    }

    /// Events, cached.
    pub fn events(&self) -> &Events {
        &self.inner.events
    }

    /// The states of a room.
    pub fn state<'a>(&'a self, snapshot: &'a Snapshot, room: RoomNo) -> state::State<'a> {
        state::State::new(&self.inner.nodes, snapshot, room)
    }

    /// Who is where, in memory.
    pub fn who(&self) -> &Who {
        &self.inner.who
    }

    /// Typing and ephemeral events.
    pub fn bus(&self) -> &Bus {
        &self.inner.bus
    }

    /// Writes a consistent copy of the database into a folder, while work goes on.
    ///
    /// # Errors
    /// Where the engine cannot or the folder refuses.
    pub async fn backup(&self, to: &Path) -> Result<(), Error> {
        Ok(self.inner.engine.backup(to).await?)
    }

    /// Figures of the engine.
    pub fn stats(&self) -> Stats {
        self.inner.engine.stats()
    }
}
