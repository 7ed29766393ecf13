//! Sending to other servers (Server-Server API, "Transactions"): a follower of the feed writes down what waits for whom, and
//! each server gets one transaction after the other until it has everything. What is written down outlives a restart.

mod destinations;
mod fan_out;
mod live;
mod passing;
mod presence;
mod transaction;

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{Method, Request, header};
use serde::Deserialize;
use serde_json::{Map, Value};
use stoa_event::ids::{OwnedServerName, ServerName};
use stoa_remote::Options;
use stoa_store::{Tx, rows};
use tokio::sync::broadcast::error::RecvError;

pub use self::fan_out::FOLLOWER;
use self::{
    destinations::{Destinations, Outcome, Turn},
    transaction::Transaction,
};
use crate::{Error, Federation, Inner};

/// How long the other side may take for a transaction.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How large its answer may be.
const MAX_ANSWER: usize = 1 << 20;
/// How many events of a room wait for a server that was away for long.
const KEPT_PER_ROOM: usize = 50;
/// How often it is looked for servers for which something waits and of which nobody said so.
const LOOK_AGAIN: Duration = Duration::from_secs(300);
/// How many servers are found by that.
const FOUND: usize = 100_000;
/// How long ids of messages to devices are remembered: as long as another server may try to send them again.
const SEEN_MS: u64 = 30 * 24 * 60 * 60 * 1000;
/// How many of them are looked at in one step.
const SEEN_PAGE: usize = 1_000;
/// How long a server is left alone that answered with an error, at least and at most.
const PATIENCE_MS: u64 = 30_000;
const LONGEST_MS: u64 = 60 * 60 * 1000;
/// The same where it is our own trouble.
const HICCUP_MS: u64 = 5_000;
/// How long the timer sleeps at most: the clock is not its own.
const NAP: Duration = Duration::from_secs(1);

/// What the sender keeps in memory.
#[derive(Default)]
pub(crate) struct Sender {
    pub(crate) destinations: Destinations,
}

impl Federation {
    /// Sends to other servers what our users do, keeps what is known of theirs, and rooms together, for as long as it is
    /// polled. It must be run once.
    pub async fn run(self) {
        let inner = &*self.inner;
        tokio::join!(
            inner.follow(),
            inner.tell_typing(),
            inner.tell_presence(),
            inner.dispatch(),
            inner.look_again(),
            inner.resync(),
            inner.knit(),
            inner.make_whole()
        );
    }
}

impl Inner {
    /// Gives servers their turns.
    async fn dispatch(&self) {
        let destinations = &self.sender.destinations;
        let mut back = self.remote.back_again();
        let mut direct = self.accounts.waiting_servers();
        let mut turns = FuturesUnordered::new();
        loop {
            let due = destinations.tick(self.env.now_ms());
            while let Some(turn) = destinations.next() {
                turns.push(self.take_turn(turn));
            }
            let nap = due.map(|due| Duration::from_millis(due.saturating_sub(self.env.now_ms())).min(NAP));
            tokio::select! {
                Some((server, outcome)) = turns.next(), if !turns.is_empty() => destinations.over(server, outcome),
                () = destinations.changed() => {}
                server = back.recv() => match server {
                    Ok(server) => destinations.back(&server),
                    // Those that were missed have their turn when it is time.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                server = direct.recv() => match server {
                    Ok(server) => destinations.enqueue(server, 0),
                    Err(RecvError::Lagged(_)) => self.find_waiting().await,
                    Err(RecvError::Closed) => return,
                },
                () = tokio::time::sleep(nap.unwrap_or(NAP)), if nap.is_some() => {}
            }
        }
    }

    /// At the start, and now and then, looks for servers for which something waits.
    async fn look_again(&self) {
        let mut looks = tokio::time::interval(LOOK_AGAIN);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seen = None;
        loop {
            looks.tick().await;
            self.find_waiting().await;
            match self.forget_seen(seen.take()).await {
                Ok(next) => seen = next,
                Err(why) => tracing::warn!(%why, "cannot forget old messages to devices"),
            }
        }
    }

    async fn find_waiting(&self) {
        let found = async { rows::outbox::servers(&self.store.snapshot().await?, FOUND).await };
        match found.await {
            Ok(servers) => {
                for server in servers.into_iter().filter_map(|server| OwnedServerName::try_from(server).ok()) {
                    if let Err(why) = self.give_up(&server).await {
                        tracing::warn!(%server, %why, "cannot forget what waits for a server that is gone");
                    }
                    self.sender.destinations.enqueue(server, 0);
                }
            }
            Err(why) => tracing::warn!(%why, "cannot look for what waits for other servers"),
        }
    }

    /// Forgets what waits for the devices of a server that has been gone for as long as the settings say. The latest events
    /// of each room still wait; of devices it hears that it missed something.
    async fn give_up(&self, server: &ServerName) -> Result<(), Error> {
        let snapshot = self.store.snapshot().await?;
        let waits = !rows::outbox::direct(&snapshot, server.as_str(), 1).await?.is_empty()
            || !rows::outbox::devices(&snapshot, server.as_str(), 1).await?.is_empty();
        if !waits || !self.remote.is_given_up(server).await? {
            return Ok(());
        }
        tracing::warn!(%server, "a server is gone for good: messages to devices of its users are dropped");
        let mut tx = Tx::new();
        rows::outbox::delete_for_devices(&mut tx, server.as_str());
        self.store.commit(tx).await?;
        Ok(())
    }

    async fn forget_seen(&self, after: Option<(String, String)>) -> Result<Option<(String, String)>, Error> {
        let snapshot = self.store.snapshot().await?;
        let before = self.env.now_ms().saturating_sub(SEEN_MS);
        let mut tx = Tx::new();
        let next = rows::outbox::forget_direct_seen(&snapshot, &mut tx, after, before, SEEN_PAGE).await?;
        if !tx.is_empty() {
            self.store.commit(tx).await?;
        }
        Ok(next)
    }

    async fn take_turn(&self, turn: Turn) -> (OwnedServerName, Outcome) {
        let outcome = match self.try_turn(&turn).await {
            Ok(outcome) => outcome,
            Err(why) => {
                tracing::warn!(%why, server = %turn.server, "cannot send to another server");
                Outcome::Later { until: self.env.now_ms() + HICCUP_MS, passing: turn.passing }
            }
        };
        (turn.server, outcome)
    }

    async fn try_turn(&self, turn: &Turn) -> Result<Outcome, Error> {
        let server = &turn.server;
        if turn.trim {
            let mut tx = Tx::new();
            rows::outbox::trim_events(&self.store.snapshot().await?, &mut tx, server.as_str(), KEPT_PER_ROOM).await?;
            if !tx.is_empty() {
                self.store.commit(tx).await?;
            }
        }
        if let Some(until) = self.remote.backing_off(server).await? {
            return Ok(Outcome::Later { until, passing: turn.passing.clone() });
        }
        let transaction = self.transaction(turn).await?;
        if !transaction.is_empty() {
            match self.put_transaction(server, &transaction).await {
                Ok(()) => {}
                Err(why) => return self.not_taken(turn, &transaction, why).await,
            }
        }
        self.taken(server, &transaction).await?;
        for_later(&self.sender.destinations, server, &transaction);
        Ok(Outcome::Sent { more: transaction.more, after: transaction.after })
    }

    async fn taken(&self, server: &ServerName, transaction: &Transaction) -> Result<(), Error> {
        let mut tx = Tx::new();
        transaction.done(&mut tx, server.as_str());
        if !tx.is_empty() {
            self.store.commit(tx).await?;
        }
        Ok(())
    }

    async fn put_transaction(&self, server: &ServerName, transaction: &Transaction) -> Result<(), stoa_remote::Error> {
        let request = Request::builder()
            .method(Method::PUT)
            .uri(format!("/_matrix/federation/v1/send/{}", transaction.id))
            .header(header::CONTENT_TYPE, "application/json")
            .body(transaction.body.clone())
            .map_err(|why| stoa_remote::Error::Request(why.to_string()))?;
        let options = Options { timeout: Some(TIMEOUT), max_response: Some(MAX_ANSWER), ..Options::default() };
        let answer = self.remote.call_raw(server, request, options).await?;
        let (pdus, edus) = transaction.size();
        tracing::debug!(%server, pdus, edus, "sent a transaction");
        log_refused(server, answer.body());
        Ok(())
    }

    /// What happens to a transaction that the other side did not take.
    async fn not_taken(
        &self,
        turn: &Turn,
        transaction: &Transaction,
        why: stoa_remote::Error,
    ) -> Result<Outcome, Error> {
        use stoa_remote::Error as E;
        let (server, now) = (&turn.server, self.env.now_ms());
        let refused = match &why {
            E::NotAllowed(_) | E::Ourselves => {
                let mut tx = Tx::new();
                rows::outbox::delete_all(&mut tx, server.as_str());
                self.store.commit(tx).await?;
                return Ok(Outcome::Sent { more: false, after: None });
            }
            E::Store(_) => return Err(why.into()),
            E::BackingOff { until } => return Ok(Outcome::Later { until: *until, passing: turn.passing.clone() }),
            // It is there and works, and will say so again: something in the transaction is not to its liking.
            E::Answer(answer) => matches!(answer.status, 400 | 413 | 422),
            E::Request(_) => true,
            _ => false,
        };
        if refused && turn.careful {
            let (pdus, edus) = transaction.size();
            tracing::warn!(%server, %why, pdus, edus, "another server refuses what we send; it is dropped");
            self.taken(server, transaction).await?;
            return Ok(Outcome::Sent { more: true, after: transaction.after });
        }
        tracing::info!(%server, %why, "another server did not take a transaction");
        if refused {
            return Ok(Outcome::Refused { until: now });
        }
        let patience = PATIENCE_MS.saturating_mul(1 << turn.failures.min(20)).min(LONGEST_MS);
        let until = match self.remote.backing_off(server).await? {
            Some(until) => until,
            None => now + if matches!(why, E::Busy) { HICCUP_MS } else { patience },
        };
        Ok(Outcome::Later { until, passing: turn.passing.clone() })
    }
}

/// What did not fit goes with the next transaction.
fn for_later(destinations: &Destinations, server: &OwnedServerName, transaction: &Transaction) {
    if !transaction.left.is_empty() {
        let left = transaction.left.clone();
        destinations.pass(server.clone(), |passing| passing.put_back_all(left));
    }
}

/// Says which events the other side refused. It has them nevertheless: sending them again would change nothing.
fn log_refused(server: &ServerName, answer: &Bytes) {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        pdus: Map<String, Value>,
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(answer) else { return };
    for (event, result) in answer.pdus {
        if let Some(why) = result.get("error").and_then(Value::as_str) {
            let why: String = why.chars().take(200).collect();
            tracing::debug!(%server, event, why, "another server refuses an event");
        }
    }
}
