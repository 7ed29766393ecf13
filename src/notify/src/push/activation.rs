//! Whether a browser is there (MSC4174): a pusher of Web Push is told nothing but a token until its owner brings that back. The
//! tokens are held in memory: they hold for minutes, and who registers again gets a new one.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use serde_json::json;
use stoa_store::{
    Tx, UserNo,
    rows::{self, pushers::PusherKey},
    schema,
};
use tokio::sync::mpsc;

use super::{
    Error, Inner, Push,
    deliver::Answer,
    target::{Kind, Target},
};

/// How long a token holds.
const LIFE_MS: u64 = 5 * 60 * 1000;
/// How long is remembered that there was one.
const REMEMBERED_MS: u64 = 60 * 60 * 1000;
/// How many tokens of a user are held, and how many of all.
const EACH: usize = 20;
const ALL: usize = 100_000;
/// How many wait to be sent.
const WAITING: usize = 10_000;
/// How many are sent at once.
const AT_ONCE: usize = 32;
/// How often it is tried, with so long between.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);

/// Why a pusher is not activated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotActivated {
    /// The user has no pusher of that app.
    #[error("there is no pusher of that app")]
    NoPusher,
    /// The token does not hold any more.
    #[error("that token has expired; set the pusher again")]
    Expired,
    /// It was never given to that app.
    #[error("that token is not known")]
    Unknown,
}

struct Token {
    pusher: PusherKey,
    token: Arc<str>,
    given: u64,
}

/// Tokens that were given.
pub(super) struct Activations {
    tokens: Mutex<HashMap<UserNo, Vec<Token>>>,
    waiting: mpsc::Sender<(PusherKey, Arc<str>)>,
    to_send: tokio::sync::Mutex<mpsc::Receiver<(PusherKey, Arc<str>)>>,
}

impl Default for Activations {
    fn default() -> Self {
        let (waiting, to_send) = mpsc::channel(WAITING);
        Activations { tokens: Mutex::default(), waiting, to_send: to_send.into() }
    }
}

impl Push {
    /// Sends a pusher a token, which its owner is to bring back.
    pub fn ask_back(&self, user: UserNo, app: &str, key: &str) {
        let inner = &self.inner;
        let (pusher, now) = ((user, app.to_owned(), key.to_owned()), inner.env.now_ms());
        let token: Arc<str> = inner.env.token(36).into();
        let mut tokens = inner.activations.tokens.lock();
        if tokens.len() >= ALL {
            tokens.retain(|_, tokens| tokens.iter().any(|token| token.given + LIFE_MS > now));
        }
        let of_user = tokens.entry(user).or_default();
        of_user.retain(|token| token.given + REMEMBERED_MS > now);
        if of_user.len() >= EACH {
            of_user.remove(0);
        }
        of_user.push(Token { pusher: pusher.clone(), token: token.clone(), given: now });
        drop(tokens);
        if inner.activations.waiting.try_send((pusher, token)).is_err() {
            tracing::warn!("too many pushers are set at once; one has to be set again");
        }
    }

    /// The owner of a pusher brings the token back: from now on it is told what there is.
    ///
    /// # Errors
    /// Where the store fails. Whether the token was right is the answer.
    pub async fn activate(&self, user: UserNo, app: &str, token: &str) -> Result<Result<(), NotActivated>, Error> {
        let inner = &self.inner;
        let snapshot = inner.store.snapshot().await?;
        let pushers = rows::pushers::of_user(&snapshot, user, usize::MAX).await?;
        if !pushers.iter().any(|((_, known, _), _)| known == app) {
            return Ok(Err(NotActivated::NoPusher));
        }
        let pusher = match inner.activations.find(user, app, token, inner.env.now_ms()) {
            Ok(pusher) => pusher,
            Err(why) => return Ok(Err(why)),
        };
        let Some((_, row)) = pushers.into_iter().find(|(key, _)| *key == pusher) else {
            return Ok(Err(NotActivated::Unknown));
        };
        if row.dormant {
            let mut tx = Tx::new();
            tx.assert(&schema::PUSHERS, &pusher, Some(&row));
            let awake = rows::pushers::Pusher { dormant: false, ..row };
            rows::pushers::put(&mut tx, user, &pusher.1, &pusher.2, &awake);
            match inner.store.commit(tx).await {
                Ok(_) => {}
                // It was set again in the meantime, with another token.
                Err(stoa_store::Error::Conflict) => return Ok(Err(NotActivated::Unknown)),
                Err(why) => return Err(why.into()),
            }
        }
        Ok(Ok(()))
    }
}

impl Activations {
    fn find(&self, user: UserNo, app: &str, token: &str, now_ms: u64) -> Result<PusherKey, NotActivated> {
        let tokens = self.tokens.lock();
        let mut of_user = tokens.get(&user).into_iter().flatten();
        let found = of_user.find(|it| *it.token == *token && it.pusher.1 == app).ok_or(NotActivated::Unknown)?;
        // One that was given to the same pusher later is the one that counts.
        let newer = tokens.get(&user).into_iter().flatten();
        let last = newer.filter(|it| it.pusher == found.pusher).map(|it| it.given).max();
        match found.given + LIFE_MS > now_ms && last == Some(found.given) {
            true => Ok(found.pusher.clone()),
            false => Err(NotActivated::Expired),
        }
    }
}

impl Inner {
    /// Sends tokens, for as long as it is polled.
    pub(super) async fn ask_all_back(&self) {
        let mut to_send = self.activations.to_send.lock().await;
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some((pusher, token)) = to_send.recv(), if under_way.len() < AT_ONCE => {
                    under_way.push(self.send_token(pusher, token));
                }
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
            }
        }
    }

    async fn send_token(&self, pusher: PusherKey, token: Arc<str>) {
        for tries in 0..TRIES {
            match self.try_token(&pusher, &token).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(why) => tracing::warn!(%why, "cannot ask a pusher whether it is there"),
            }
            tokio::time::sleep(PAUSE * (1 << tries)).await;
        }
    }

    /// Whether that is done with.
    async fn try_token(&self, pusher: &PusherKey, token: &str) -> Result<bool, Error> {
        let row = self.store.snapshot().await?.get(&schema::PUSHERS, pusher).await?.filter(|row| row.dormant);
        let Some(target) = row.as_ref().and_then(|row| Target::of(pusher, row)) else { return Ok(true) };
        let Kind::Web(subscription) = &target.kind else { return Ok(true) };
        let payload = json!({ "app_id": target.app, "ack_token": token }).to_string();
        let request = self.web_push(&target, subscription, payload.as_bytes(), ("high", None))?;
        match self.ask_browser(&target, request).await {
            Answer::Taken | Answer::TooLarge => Ok(true),
            Answer::Rejected => self.remove(pusher, &target).await.map(|()| true),
            Answer::NotNow(_) => Ok(false),
        }
    }
}
