//! Everything that goes on beside requests. The only place that starts tasks.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use stoa_accounts::Accounts;
use stoa_store::{Committer, Env, Store, prune::Pruner};
use tokio::{
    sync::{Notify, watch},
    task::{JoinError, JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};

/// The tasks of a server.
pub struct Workers {
    stop: watch::Sender<bool>,
    /// What ends when it is told to.
    tasks: JoinSet<()>,
    /// What ends when the store does.
    committer: Option<JoinHandle<()>>,
}

/// Lets a worker hear that it should end.
#[derive(Clone)]
pub struct Ending(watch::Receiver<bool>);

impl Ending {
    /// Returns when the server ends.
    pub async fn wait(&mut self) {
        // If nobody is left to say so, it has ended too.
        let _ = self.0.wait_for(|ending| *ending).await;
    }
}

impl Default for Workers {
    fn default() -> Self {
        Workers { stop: watch::channel(false).0, tasks: JoinSet::new(), committer: None }
    }
}

impl Workers {
    /// Starts the committer, without which no commit happens.
    pub fn commit(&mut self, committer: Committer) {
        self.committer = Some(tokio::spawn(committer.run()));
    }

    /// What a worker listens to.
    pub fn ending(&self) -> Ending {
        Ending(self.stop.subscribe())
    }

    /// Starts a task, which should end when [`Ending`] says so.
    pub fn start(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Starts a task that goes on for ever, and is dropped when the server ends.
    pub fn beside(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let mut ending = self.ending();
        self.start(async move {
            tokio::select! {
                () = task => {}
                () = ending.wait() => {}
            }
        });
    }

    /// Starts something that is done again and again.
    pub fn every<F>(&mut self, pause: Duration, mut work: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        let mut ending = self.ending();
        self.start(async move {
            let mut ticks = interval(pause);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => work().await,
                    () = ending.wait() => break,
                }
            }
        });
    }

    /// The housekeeping of the store and the accounts.
    pub fn keep_house(&mut self, store: &Store, accounts: &Accounts, env: &Env) {
        self.beside(prune(Pruner::new(store.clone()), env.clone()));
        let (store, clock) = (store.clone(), env.clone());
        self.every(Duration::from_secs(1), move || {
            store.bus().expire(clock.now_ms());
            std::future::ready(())
        });
        let accounts = accounts.clone();
        self.every(Duration::from_secs(60), move || {
            let accounts = accounts.clone();
            async move {
                if let Err(why) = accounts.write_seen().await {
                    tracing::warn!(%why, "cannot write when devices were last seen");
                }
            }
        });
    }

    /// Tells everything to end, and waits. The committer ends when nobody holds the store any more.
    pub async fn end(mut self, patience: Duration) {
        self.stop.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!("some tasks did not end in time");
            self.tasks.shutdown().await;
        }
        if let Some(committer) = self.committer.take()
            && tokio::time::timeout(patience, committer).await.is_err()
        {
            tracing::warn!("something still holds the store");
        }
    }
}

/// Forgets what nobody needs any more, a little every minute.
async fn prune(mut pruner: Pruner, clock: Env) {
    let mut ticks = interval(Duration::from_secs(60));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match pruner.step(clock.now_ms()).await {
            Ok(pruned) => tracing::debug!(?pruned, "pruned"),
            Err(why) => tracing::warn!(%why, "cannot prune"),
        }
    }
}

/// Tasks that somebody can wait for all together: connections, and requests that must not be given up half-way.
#[derive(Clone, Default)]
pub struct Group {
    inner: Arc<GroupInner>,
}

#[derive(Default)]
struct GroupInner {
    running: AtomicUsize,
    less: Notify,
}

struct Member(Arc<GroupInner>);

impl Drop for Member {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
        self.0.less.notify_waiters();
    }
}

impl Group {
    /// Starts a task of the group.
    pub fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        let member = self.member();
        tokio::spawn(async move {
            let _member = member;
            task.await;
        });
    }

    /// Does something to its end, also when nobody waits for it any more.
    ///
    /// # Errors
    /// Where it panics.
    pub async fn whole<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, JoinError> {
        let member = self.member();
        let handle = tokio::spawn(async move {
            let _member = member;
            task.await
        });
        handle.await
    }

    fn member(&self) -> Member {
        self.inner.running.fetch_add(1, Ordering::AcqRel);
        Member(self.inner.clone())
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.inner.running.load(Ordering::Acquire)
    }

    /// Returns when none runs.
    pub async fn done(&self) {
        loop {
            let less = self.inner.less.notified();
            tokio::pin!(less);
            less.as_mut().enable();
            if self.running() == 0 {
                return;
            }
            less.await;
        }
    }
}
