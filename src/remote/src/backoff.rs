//! Leaving servers alone that fail, and how many requests one server gets at once.
//!
//! What is known of a server that fails is durable: a restart does not knock at ten thousand dead doors again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use stoa_event::ids::{OwnedServerName, ServerName};
use stoa_store::{Env, Store, Tx, rows, rows::remote::Destination as Row};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

use crate::{config::Tuning, error::Error};

/// How many servers are remembered before those that nothing happens with are forgotten.
const REMEMBERED: usize = 50_000;

/// All servers that we spoke with lately.
pub(crate) struct Destinations {
    store: Store,
    env: Env,
    tuning: Tuning,
    known: Mutex<HashMap<OwnedServerName, Arc<Destination>>>,
    back: broadcast::Sender<OwnedServerName>,
}

struct Destination {
    name: OwnedServerName,
    slots: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// `None` until it was read from the store.
    state: tokio::sync::Mutex<Option<State>>,
}

/// What is known of a server that fails; `None` for one that does not.
type State = Option<Row>;

/// A request that is under way.
pub(crate) struct Attempt<'a> {
    all: &'a Destinations,
    to: Arc<Destination>,
    started: u64,
    _slot: OwnedSemaphorePermit,
}

impl Destinations {
    pub(crate) fn new(store: Store, env: Env, tuning: Tuning) -> Destinations {
        let (back, _) = broadcast::channel(1024);
        Destinations { store, env, tuning, known: Mutex::new(HashMap::new()), back }
    }

    /// Hears which servers that failed are there again.
    pub(crate) fn back_again(&self) -> broadcast::Receiver<OwnedServerName> {
        self.back.subscribe()
    }

    fn get(&self, server: &ServerName) -> Arc<Destination> {
        let mut known = self.known.lock();
        if let Some(there) = known.get(server) {
            return there.clone();
        }
        if known.len() >= REMEMBERED {
            // The rows in the store stay.
            known.retain(|_, destination| Arc::strong_count(destination) > 1);
        }
        let fresh = Arc::new(Destination {
            name: server.to_owned(),
            slots: Arc::new(Semaphore::new(self.tuning.requests_per_server)),
            waiting: Arc::new(Semaphore::new(self.tuning.waiting_per_server)),
            state: tokio::sync::Mutex::new(None),
        });
        known.insert(server.to_owned(), fresh.clone());
        fresh
    }

    /// The state, read from the store the first time.
    async fn state<'a>(
        &self,
        of: &'a Destination,
    ) -> Result<tokio::sync::MappedMutexGuard<'a, State>, stoa_store::Error> {
        let mut state = of.state.lock().await;
        if state.is_none() {
            let snapshot = self.store.snapshot().await?;
            *state = Some(rows::remote::destination(&snapshot, of.name.as_str()).await?);
        }
        Ok(tokio::sync::MutexGuard::map(state, |state| state.get_or_insert_default()))
    }

    /// Until when a server is left alone, if it is.
    pub(crate) async fn until(&self, server: &ServerName) -> Result<Option<u64>, Error> {
        let destination = self.get(server);
        let state = self.state(&destination).await?;
        Ok(state.as_ref().map(|row| row.retry_at).filter(|until| *until > self.env.now_ms()))
    }

    /// Since when a server fails that is left alone now. (One whose turn it is again may be there.)
    pub(crate) async fn failing_since(&self, server: &ServerName) -> Result<Option<u64>, Error> {
        let destination = self.get(server);
        let state = self.state(&destination).await?;
        let row = state.as_ref().filter(|row| row.retry_at > self.env.now_ms());
        Ok(row.map(|row| row.failing_since))
    }

    /// Begins a request, when it is its turn. `patience` is how long it waits for that.
    pub(crate) async fn begin(
        &self,
        server: &ServerName,
        ignore_backoff: bool,
        patience: Duration,
    ) -> Result<Attempt<'_>, Error> {
        let to = self.get(server);
        let check = async || -> Result<(), Error> {
            match self.until(server).await? {
                Some(until) if !ignore_backoff => Err(Error::BackingOff { until }),
                _ => Ok(()),
            }
        };
        check().await?;
        let slot = match to.slots.clone().try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => {
                let _waits = to.waiting.clone().try_acquire_owned().map_err(|_| Error::Busy)?;
                let turn = tokio::time::timeout(patience, to.slots.clone().acquire_owned()).await;
                let slot = turn.map_err(|_| Error::Busy)?.map_err(|_| Error::Busy)?;
                // Those before it may have found out that nobody is there.
                check().await?;
                slot
            }
        };
        Ok(Attempt { all: self, to, started: self.env.now_ms(), _slot: slot })
    }

    /// The server is alive: it answered, or spoke to us.
    pub(crate) async fn alive(&self, server: &ServerName) {
        let destination = self.get(server);
        self.reset(&destination).await;
    }

    async fn reset(&self, destination: &Destination) {
        let mut state = match self.state(destination).await {
            Ok(state) => state,
            Err(why) => return tracing::warn!(%why, "cannot read what is known of a server"),
        };
        if state.take().is_none() {
            return;
        }
        let mut tx = Tx::new();
        rows::remote::delete_destination(&mut tx, destination.name.as_str());
        if let Err(why) = self.store.commit(tx).await {
            tracing::warn!(%why, server = %destination.name, "cannot write that a server is back");
        }
        drop(state);
        tracing::info!(server = %destination.name, "a server is back");
        // Nobody listening is fine.
        let _ = self.back.send(destination.name.clone());
    }

    async fn set(&self, destination: &Destination, change: impl FnOnce(&State) -> Option<Row>) {
        let mut state = match self.state(destination).await {
            Ok(state) => state,
            Err(why) => return tracing::warn!(%why, "cannot read what is known of a server"),
        };
        let Some(row) = change(&state) else {
            return;
        };
        let mut tx = Tx::new();
        rows::remote::put_destination(&mut tx, destination.name.as_str(), &row);
        *state = Some(row);
        if let Err(why) = self.store.commit(tx).await {
            tracing::warn!(%why, server = %destination.name, "cannot write that a server fails");
        }
    }

    /// How long a server is left alone that failed so many times: between three quarters and the whole of a span that
    /// doubles, so that many who failed together do not come back together.
    fn delay(&self, failures: u32) -> u64 {
        let doubled = self.tuning.backoff_min_ms.saturating_mul(1 << failures.saturating_sub(1).min(40));
        let span = doubled.min(self.tuning.backoff_max_ms);
        let mut raw = [0; 8];
        self.env.random.fill(&mut raw);
        span - u64::from_be_bytes(raw) % (span / 4 + 1)
    }
}

impl Attempt<'_> {
    /// There was an answer: the server is alive.
    pub(crate) async fn succeeded(&self) {
        self.all.reset(&self.to).await;
    }

    /// There was no answer, or none that a server gives that works.
    pub(crate) async fn failed(&self) {
        let now = self.all.env.now_ms();
        self.all
            .set(&self.to, |state| {
                let before = state.as_ref();
                // Several that were under way when it broke are one failure.
                if before.is_some_and(|row| self.started < row.retry_at) {
                    return None;
                }
                let failures = before.map_or(0, |row| row.failures).saturating_add(1);
                Some(Row {
                    failing_since: before.map_or(now, |row| row.failing_since),
                    retry_at: now + self.all.delay(failures),
                    failures,
                })
            })
            .await;
    }

    /// The server asked to be left alone for a while.
    pub(crate) async fn asked_to_wait(&self, for_ms: u64) {
        const LONGEST: u64 = 60 * 60 * 1000;
        let now = self.all.env.now_ms();
        self.all
            .set(&self.to, |state| {
                let before = state.as_ref();
                let retry_at = now + for_ms.min(LONGEST);
                Some(Row {
                    failing_since: before.map_or(now, |row| row.failing_since),
                    retry_at: retry_at.max(before.map_or(0, |row| row.retry_at)),
                    failures: before.map_or(0, |row| row.failures),
                })
            })
            .await;
    }
}
