//! Each application service gets one transaction after the other. What it does not take is sent again, for as long as it takes, with
//! ever longer pauses.

use std::{collections::HashSet, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::Method;
use stoa_accounts::Service;
use stoa_store::{
    Tx,
    rows::{services, to_device},
};

use super::{Appservices, Error, Inner, Line, ask::encode};

/// How long a service may take for a transaction.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a service is left alone that did not take one, at first and at most.
const PATIENCE_MS: u64 = 1_000;
const LONGEST_MS: u64 = 5 * 60 * 1000;
/// How long the timer sleeps at most: the clock is not its own.
const NAP: Duration = Duration::from_secs(1);

impl Appservices {
    /// A service is there: what waits is sent now.
    pub(super) fn is_there(&self, service: &str) {
        self.inner.line(service).retry.notify_one();
    }
}

impl Inner {
    /// Serves all services side by side, for as long as the store is there.
    pub(super) async fn deliver(&self) {
        let mut changed = self.accounts.services_changed();
        let mut served = HashSet::new();
        let mut turns = FuturesUnordered::new();
        loop {
            let services = changed.borrow_and_update().clone();
            for service in services.all().iter().filter(|service| service.url.is_some()) {
                if served.insert(service.id.clone()) {
                    turns.push(self.serve(service.id.clone()));
                }
            }
            tokio::select! {
                Some(ended) = turns.next(), if !turns.is_empty() => match ended {
                    Some(id) => { served.remove(&id); }
                    None => return,
                },
                change = changed.changed() => {
                    if change.is_err() {
                        return;
                    }
                    // Who is not there any more ends; and an address may be another.
                    for line in self.lines.lock().values() {
                        line.wake.notify_one();
                        line.retry.notify_one();
                    }
                }
            }
        }
    }

    /// Serves one service until there is none of that id any more; `None` at the end of the store.
    async fn serve(&self, id: String) -> Option<String> {
        let line = self.line(&id);
        let mut failures = 0u32;
        loop {
            let services = self.accounts.services();
            let Some(service) = services.get(&id).filter(|service| service.url.is_some()) else { return Some(id) };
            match self.turn(service, &line).await {
                Ok(true) if failures > 0 => {
                    tracing::info!(service = id, "an application service takes transactions again");
                    failures = 0;
                }
                Ok(true) => {}
                Ok(false) => line.wake.notified().await,
                Err(Error::Store(stoa_store::Error::Closed)) => return None,
                Err(why) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(service = id, %why, failures, "an application service did not take a transaction");
                    self.pause(&line, failures).await;
                }
            }
        }
    }

    /// Sends one transaction, if anything waits.
    async fn turn(&self, service: &Service, line: &Line) -> Result<bool, Error> {
        let Some(txn) = self.next_txn(service, line).await? else { return Ok(false) };
        let id = encode(&txn.id);
        let (path, old) = (format!("/_matrix/app/v1/transactions/{id}"), format!("/transactions/{id}"));
        self.call(service, Method::PUT, (&path, Some(&old)), txn.body.into(), TIMEOUT).await?;
        let mut tx = Tx::new();
        services::delete_txn(&mut tx, &service.id);
        for messages in &txn.messages {
            to_device::delete_until(&mut tx, messages.user, &messages.device, messages.until);
        }
        self.store.commit(tx).await?;
        Ok(true)
    }

    async fn pause(&self, line: &Line, failures: u32) {
        let patience = PATIENCE_MS.saturating_mul(1 << (failures - 1).min(20)).min(LONGEST_MS);
        let until = self.env.now_ms().saturating_add(patience);
        loop {
            let left = until.saturating_sub(self.env.now_ms());
            if left == 0 {
                return;
            }
            tokio::select! {
                () = line.retry.notified() => return,
                () = tokio::time::sleep(Duration::from_millis(left).min(NAP)) => {}
            }
        }
    }
}
