//! The committer: one writer, one order. It groups what is waiting into one synced write, assigns positions without
//! holes, answers, and publishes to the feed.

use std::{collections::HashSet, sync::Arc};

use stoa_engine::{Batch, Op};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Error, Inner, Position,
    feed::{Commit, FeedRow},
    schema,
    tx::{Fact, Tx},
    value::Value,
};

/// How many transactions share one write at most.
const GROUP: usize = 512;

pub(crate) struct Request {
    pub(crate) tx: Tx,
    pub(crate) done: oneshot::Sender<Result<Position, Error>>,
}

/// The work of committing; someone has to run it. See [`Committer::run`].
pub struct Committer {
    inner: Arc<Inner>,
    waiting: mpsc::Receiver<Request>,
    last: Position,
}

impl Committer {
    pub(crate) fn new(inner: Arc<Inner>, waiting: mpsc::Receiver<Request>, last: Position) -> Self {
        Committer { inner, waiting, last }
    }

    /// Commits until every [`crate::Store`] is gone; the last commits are done when it returns.
    pub async fn run(mut self) {
        let mut group = Vec::new();
        while self.waiting.recv_many(&mut group, GROUP).await > 0 {
            let mut together = Vec::with_capacity(group.len());
            for request in group.drain(..) {
                if !request.tx.has_asserts() {
                    together.push(request);
                    continue;
                }
                // An assert speaks of what is there before its batch: what others of the group write must be there by then.
                self.commit(std::mem::take(&mut together)).await;
                self.commit(vec![request]).await;
            }
            self.commit(together).await;
        }
    }

    async fn commit(&mut self, group: Vec<Request>) {
        if group.is_empty() {
            return;
        }
        match self.write(&group).await {
            Ok(commits) => self.finish(group, commits),
            Err(error) => {
                let conflict = matches!(error, Error::Conflict);
                refuse(group, &error);
                if !conflict {
                    self.reread().await;
                }
            }
        }
    }

    async fn write(&mut self, group: &[Request]) -> Result<Vec<Commit>, Error> {
        let node_writes = self.inner.nodes.writes();
        if group.iter().any(|request| request.tx.node_writes.is_some_and(|known| known != node_writes)) {
            return Err(Error::Conflict);
        }
        let mut batch = Batch::default();
        let mut commits = Vec::with_capacity(group.len());
        let mut last = self.last;
        let mut named = HashSet::new();
        for request in group {
            let tx = &request.tx;
            let first = last.next();
            last = Position(last.0 + tx.slots());
            for name in &tx.named {
                if named.insert(name.clone()) {
                    name.write(&mut batch);
                }
            }
            let facts = tx.write(first, &mut batch);
            commits.push(Commit { last, facts });
        }
        self.write_feed(&commits, &mut batch);
        if last != self.last {
            put(&mut batch, &schema::POSITION, &(), &last);
        }
        if !batch.ops.is_empty() {
            let done = self.inner.engine.commit(batch, self.inner.options.durability).await;
            // Afterwards: who lacks the new nodes in what was read has read the old count. Also if it failed half-way.
            if group.iter().any(|request| request.tx.writes_nodes) {
                self.inner.nodes.count_write();
            }
            done?;
        }
        self.last = last;
        Ok(commits)
    }

    /// The same facts as rows, for followers that may be away. Without followers nobody would read them.
    fn write_feed(&self, commits: &[Commit], batch: &mut Batch) {
        if self.inner.options.followers.is_empty() {
            return;
        }
        for commit in commits.iter().filter(|commit| !commit.facts.is_empty()) {
            put(batch, &schema::FEED, &commit.last, &FeedRow { facts: commit.facts.clone() });
        }
    }

    fn finish(&self, group: Vec<Request>, commits: Vec<Commit>) {
        for (request, commit) in group.into_iter().zip(commits) {
            self.inner.names.durable(&request.tx.named);
            self.inner.events.forget(&request.tx.rewritten);
            let position = commit.last;
            self.inner.publish(commit);
            // Who asked may have gone; what was asked is done.
            let _ = request.done.send(Ok(position));
        }
    }

    /// After a failure nobody knows what is on disk but the disk.
    async fn reread(&mut self) {
        if let Ok(snapshot) = crate::Snapshot::new(self.inner.engine.snapshot()).await {
            self.last = snapshot.position().max(self.last);
        }
    }
}

fn put<K: crate::codec::KeyPart, V: Value>(batch: &mut Batch, table: &crate::Table<K, V>, key: &K, value: &V) {
    batch.ops.push(Op::Put { space: table.space, key: table.key(key), value: value.to_bytes() });
}

fn refuse(group: Vec<Request>, error: &Error) {
    for request in group {
        let _ = request.done.send(Err(error.again()));
    }
}

impl Fact {
    /// Where in the order it stands, if it has a place of its own.
    pub fn at(&self) -> Option<Position> {
        match self {
            Fact::Event { at, .. } | Fact::Room { at, .. } | Fact::User { at, .. } | Fact::Devices { at, .. } => {
                Some(*at)
            }
            Fact::Member { .. } | Fact::Changed { .. } | Fact::Profile { .. } | Fact::Pushers { .. } => None,
        }
    }
}
