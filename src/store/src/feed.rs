//! The feed: every commit, in order, for everything that happens afterwards.
//!
//! Who is there hears commits as they happen ([`Feed`]). Who must not miss any is a follower: it reads the rows from its
//! own durable cursor ([`Follower`]), and after a crash goes on where it stood.

use std::{ops::Bound, sync::Arc};

use stoa_engine::Direction;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::{
    Error, Position, Store, cbor_value, schema,
    tx::{Fact, Tx},
};

/// One commit as the feed tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its last position: a sync token from which nothing of it is missing.
    pub last: Position,
    /// What happened.
    pub facts: Vec<Fact>,
}

/// The facts of one commit, as a row.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct FeedRow {
    /// What happened.
    #[n(0)]
    pub facts: Vec<Fact>,
}
cbor_value!(FeedRow);

/// Hears commits while it is there.
pub struct Feed {
    pub(crate) receiver: broadcast::Receiver<Arc<Commit>>,
}

/// What a listener hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A commit.
    Commit(Arc<Commit>),
    /// Too slow: some commits were missed, read again what you care for.
    Missed,
    /// The store was closed.
    End,
}

impl Feed {
    /// The next commit.
    pub async fn next(&mut self) -> Heard {
        match self.receiver.recv().await {
            Ok(commit) => Heard::Commit(commit),
            Err(RecvError::Lagged(_)) => Heard::Missed,
            Err(RecvError::Closed) => Heard::End,
        }
    }
}

/// Reads the feed's rows from a durable cursor.
pub struct Follower {
    store: Store,
    name: &'static str,
    cursor: Position,
    feed: Feed,
}

impl Follower {
    pub(crate) async fn open(store: &Store, name: &'static str) -> Result<Follower, Error> {
        let feed = store.feed();
        let snapshot = store.snapshot().await?;
        let cursor = match snapshot.get(&schema::CURSORS, &name.to_owned()).await? {
            Some(cursor) => cursor,
            // New followers begin now: what was before is for them to find in the rows.
            None => snapshot.position(),
        };
        Ok(Follower { store: store.clone(), name, cursor, feed })
    }

    /// The position up to which everything was handled.
    pub fn cursor(&self) -> Position {
        self.cursor
    }

    /// The next commits after the cursor, at most `limit`; waits until there is one. The same again until
    /// [`Follower::advance`] is told that they were handled.
    ///
    /// # Errors
    /// Where the engine fails, and at the end: [`Error::Closed`].
    pub async fn next(&mut self, limit: usize) -> Result<Vec<Commit>, Error> {
        loop {
            let snapshot = self.store.snapshot().await?;
            let rows = snapshot
                .range(
                    &schema::FEED,
                    Bound::Excluded(self.cursor),
                    Bound::<Position>::Unbounded,
                    Direction::Forward,
                    limit,
                )
                .await?;
            if !rows.is_empty() {
                return Ok(rows.into_iter().map(|(last, row)| Commit { last, facts: row.facts }).collect());
            }
            if self.feed.next().await == Heard::End {
                return Err(Error::Closed);
            }
        }
    }

    /// Notes in `tx` that everything up to `position` is handled, so that what was done and how far it was done are one
    /// commit. Call [`Follower::moved`] when it succeeded.
    pub fn advance(&self, tx: &mut Tx, position: Position) {
        tx.put(&schema::CURSORS, &self.name.to_owned(), &position);
    }

    /// After the commit of [`Follower::advance`]; or where a follower keeps its place itself, together with what it makes of
    /// the feed, to go on from there. The place in the store is then only what the feed is kept for.
    pub fn moved(&mut self, position: Position) {
        self.cursor = self.cursor.max(position);
    }
}

/// Forgets the rows up to a position, and with it.
pub(crate) fn forget(tx: &mut Tx, upto: Position) {
    tx.delete_range(&schema::FEED, &Position::MIN, &upto.next());
}
