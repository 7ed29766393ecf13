//! Push (Client-Server API, "Push Notifications"; Push Gateway API): a follower of the feed asks the push rules of those members
//! who have pushers, and writes down what each pusher is to be told; then each is told one thing after the other, until it took
//! it. What is written down outlives a restart.

mod activation;
mod deliver;
mod encrypt;
mod follow;
mod gateway;
mod message;
mod target;
mod turns;
mod vapid;
mod web;

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use stoa_remote::outside::Client;
use stoa_store::{Env, Store, rows};
use stoa_view::View;

use self::{
    activation::Activations,
    encrypt::Subscription,
    turns::{Outcome, Turn, Turns},
    vapid::Vapid,
};
pub use self::{activation::NotActivated, follow::FOLLOWER};

/// How long the timer sleeps at most: the clock is not its own.
const NAP: Duration = Duration::from_secs(1);
/// How long a pusher rests when it is our own trouble.
const HICCUP_MS: u64 = 5_000;
/// How many pushers are looked for at once at the start.
const PAGE: usize = 1_000;

/// What goes wrong while telling others.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] stoa_store::Error),
    /// What is to be told cannot be read.
    #[error(transparent)]
    View(#[from] stoa_view::Error),
    /// A message cannot be made.
    #[error("a message cannot be made: {0}")]
    Message(String),
}

/// How pushers are told.
#[derive(Clone, Debug)]
pub struct Config {
    /// What reaches the URLs that people register: it must refuse addresses that are not public.
    pub web: Client,
    /// Whether the URLs must be HTTPS.
    pub require_https: bool,
    /// Whether gateways are told more of an event than its id, where a pusher does not ask for less.
    pub include_content: bool,
    /// Whom push services of browsers may ask about this server: a `mailto:` or `https:` URL.
    pub contact: String,
    /// How long a message is tried to be told, in milliseconds.
    pub patience_ms: u64,
}

impl Config {
    /// The defaults, with that client, and whom to ask about this server.
    pub fn with(web: Client, contact: String) -> Config {
        Config { web, require_https: true, include_content: true, contact, patience_ms: 24 * 60 * 60 * 1000 }
    }
}

/// What tells pushers; clones are the same.
#[derive(Clone)]
pub struct Push {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    store: Store,
    env: Env,
    view: View,
    config: Config,
    turns: Turns,
    vapid: Vapid,
    activations: Activations,
}

impl Push {
    /// What tells pushers of what is in this store. The key for browsers is made, if there is none.
    ///
    /// # Errors
    /// Where the store fails, or the key cannot be used.
    pub async fn open(store: Store, env: Env, view: View, config: Config) -> Result<Push, Error> {
        let vapid = Vapid::open(&store, &env, config.contact.clone()).await?;
        let (turns, activations) = (Turns::default(), Activations::default());
        Ok(Push { inner: Arc::new(Inner { store, env, view, config, turns, vapid, activations }) })
    }

    /// The public key that browsers are told of (`applicationServerKey`), an uncompressed point in URL-safe base64.
    pub fn vapid_key(&self) -> &str {
        self.inner.vapid.public()
    }

    /// Whether a kind of pusher is Web Push.
    pub fn is_web_push(kind: &str) -> bool {
        target::WEB_PUSH.contains(&kind)
    }

    /// Whether a push key and a secret are those of a browser.
    pub fn is_subscription(key: &str, auth: &str) -> bool {
        Subscription::read(key, auth).is_some()
    }

    /// Whether a pusher's URL may be other than HTTPS.
    pub fn allows_http(&self) -> bool {
        !self.inner.config.require_https
    }

    /// Tells pushers what their users are to know, for as long as it is polled. It must be run once.
    pub async fn run(self) {
        let inner = &*self.inner;
        tokio::join!(inner.follow(), inner.dispatch(), inner.ask_all_back());
    }
}

impl Inner {
    /// Gives pushers their turns.
    async fn dispatch(&self) {
        while let Err(why) = self.find_waiting().await {
            tracing::error!(%why, "cannot look for what waits for pushers");
            tokio::time::sleep(NAP).await;
        }
        let mut under_way = FuturesUnordered::new();
        loop {
            let due = self.turns.tick(self.env.now_ms());
            while let Some(turn) = self.turns.next() {
                under_way.push(self.take_turn(turn));
            }
            let nap = due.map(|due| Duration::from_millis(due.saturating_sub(self.env.now_ms())).min(NAP));
            tokio::select! {
                Some((pusher, outcome)) = under_way.next(), if !under_way.is_empty() => self.turns.over(&pusher, outcome),
                () = self.turns.changed() => {}
                () = tokio::time::sleep(nap.unwrap_or(NAP)), if nap.is_some() => {}
            }
        }
    }

    /// What waited when the server ended.
    async fn find_waiting(&self) -> Result<(), Error> {
        let snapshot = self.store.snapshot().await?;
        let mut after = None;
        loop {
            let found = rows::pushers::pushers_with_waiting(&snapshot, after.take(), PAGE).await?;
            for pusher in &found {
                self.turns.enqueue(pusher.clone());
            }
            after = found.last().cloned();
            if found.len() < PAGE {
                return Ok(());
            }
        }
    }

    async fn take_turn(&self, turn: Turn) -> (rows::pushers::PusherKey, Outcome) {
        let outcome = match self.tell(&turn).await {
            Ok(outcome) => outcome,
            Err(why) => {
                tracing::warn!(%why, app = turn.pusher.1, "cannot tell a pusher");
                Outcome::Later { until: self.env.now_ms() + HICCUP_MS, host: None }
            }
        };
        (turn.pusher, outcome)
    }
}
