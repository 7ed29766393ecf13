//! A turn of a pusher: what waits for it is told one after the other. What it took is forgotten in a commit of its own, so that a
//! crash in between tells it once more, with the same event id, and never loses it.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use stoa_remote::{Limits, TransportError, outside::Rules};
use stoa_store::{
    Position, Tx,
    rows::{
        self,
        pushers::{Pusher, PusherKey, Waiting},
    },
    schema,
};

use super::{
    Error, Inner,
    encrypt::Subscription,
    gateway,
    message::Message,
    target::{Kind, Target},
    turns::{Outcome, Turn, rest_ms},
    web,
};

/// How long the other side may take, and how large its answer may be.
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 64 << 10;
/// How many things are told in one turn.
const TURN: usize = 20;
/// How many things wait for a pusher that does not take them.
const KEPT: usize = 500;
/// How long a pusher may ask to be left alone.
const LONGEST_MS: u64 = 60 * 60 * 1000;

/// What the other side made of a message.
pub(super) enum Answer {
    Taken,
    /// It does not take so much at once.
    TooLarge,
    /// There is no such device any more.
    Rejected,
    /// Not now. When it said for how long, that is it.
    NotNow(Option<u64>),
}

/// What a turn did so far.
struct Progress {
    /// What waits no longer as soon as something is committed.
    done: Vec<Position>,
    /// Whether the number of unread messages is still to be told.
    badge_due: bool,
    /// The number that it knows.
    badge: Option<u64>,
}

impl Inner {
    /// Tells a pusher what waits for it.
    pub(super) async fn tell(&self, turn: &Turn) -> Result<Outcome, Error> {
        let pusher = &turn.pusher;
        let snapshot = self.store.snapshot().await?;
        let row = snapshot.get(&schema::PUSHERS, pusher).await?.filter(Pusher::is_active);
        let Some(target) = row.as_ref().and_then(|row| Target::of(pusher, row)) else {
            let mut tx = Tx::new();
            rows::pushers::forget_waiting(&mut tx, pusher);
            self.store.commit(tx).await?;
            return Ok(Outcome::Gone);
        };
        if turn.failures > 0 {
            let mut tx = Tx::new();
            rows::pushers::trim_waiting(&snapshot, &mut tx, pusher, KEPT).await?;
            if !tx.is_empty() {
                self.store.commit(tx).await?;
            }
        }
        let snapshot = self.store.snapshot().await?;
        let waiting = rows::pushers::waiting(&snapshot, pusher, TURN).await?;
        let more = waiting.len() == TURN;
        let mut progress = Progress { done: Vec::new(), badge_due: false, badge: turn.badge };
        for (at, waiting) in waiting {
            let message = self.message(pusher, at, &waiting).await?;
            progress.done.push(at);
            match message {
                Some(message) if message.about.is_some() => {
                    if let Some(outcome) = self.tell_one(turn, &target, &message, &mut progress).await? {
                        return Ok(outcome);
                    }
                }
                Some(_) => progress.badge_due = true,
                None => {}
            }
        }
        if progress.badge_due && target.wants_badges() {
            let unread = self.unread(pusher).await?;
            if progress.badge != Some(unread) {
                let message = Message::badge(unread);
                if let Some(outcome) = self.tell_one(turn, &target, &message, &mut progress).await? {
                    return Ok(outcome);
                }
            }
        }
        self.forget(pusher, &mut progress).await?;
        Ok(Outcome::Told { more, badge: progress.badge, host: Some(target.host) })
    }

    /// Tells one thing. `Some`, where the turn is over.
    async fn tell_one(
        &self,
        turn: &Turn,
        target: &Target,
        message: &Message,
        progress: &mut Progress,
    ) -> Result<Option<Outcome>, Error> {
        match self.send(target, message).await? {
            // What is too large at its smallest will not become smaller.
            Answer::Taken | Answer::TooLarge => {
                progress.badge = Some(message.unread);
                progress.badge_due = false;
                self.forget(&turn.pusher, progress).await?;
                Ok(None)
            }
            Answer::Rejected => {
                self.remove(&turn.pusher, target).await?;
                Ok(Some(Outcome::Gone))
            }
            Answer::NotNow(asked) => {
                let rest = asked.map_or_else(|| rest_ms(turn.failures), |asked| asked.min(LONGEST_MS));
                let until = self.env.now_ms() + rest;
                Ok(Some(Outcome::Later { until, host: Some(target.host.clone()) }))
            }
        }
    }

    async fn forget(&self, pusher: &PusherKey, progress: &mut Progress) -> Result<(), Error> {
        let mut tx = Tx::new();
        for at in progress.done.drain(..) {
            rows::pushers::delete_waiting(&mut tx, pusher, at);
        }
        if !tx.is_empty() {
            self.store.commit(tx).await?;
        }
        Ok(())
    }

    /// Removes a pusher that the other side says is none, unless its owner has set it anew since.
    pub(super) async fn remove(&self, pusher: &PusherKey, target: &Target) -> Result<(), Error> {
        let snapshot = self.store.snapshot().await?;
        let row = snapshot.get(&schema::PUSHERS, pusher).await?;
        if let Some(row) = row.filter(|row| row.created == target.created) {
            tracing::info!(app = target.app, host = &*target.host, "a pusher was rejected and is removed");
            let mut tx = Tx::new();
            tx.assert(&schema::PUSHERS, pusher, Some(&row));
            rows::pushers::delete(&mut tx, pusher.0, &pusher.1, &pusher.2);
            match self.store.commit(tx).await {
                Ok(_) | Err(stoa_store::Error::Conflict) => {}
                Err(why) => return Err(why.into()),
            }
        }
        Ok(())
    }

    /// What is told of something that waits, as things are now; `None` where there is nothing to tell any more.
    async fn message(&self, pusher: &PusherKey, at: Position, waiting: &Waiting) -> Result<Option<Message>, Error> {
        if waiting.since().saturating_add(self.config.patience_ms) < self.env.now_ms() {
            tracing::debug!(app = pusher.1, "a pusher did not take something for too long; it is dropped");
            return Ok(None);
        }
        let snapshot = self.store.snapshot().await?;
        let notices = self.view.notices(&snapshot, pusher.0).await?;
        let (about, actions) = match waiting {
            Waiting::Badge { .. } => return Ok(Some(Message::badge(0))),
            Waiting::Event { room, event: no, actions, .. } => {
                let Some(event) = self.store.events().get(&snapshot, *room, *no).await? else { return Ok(None) };
                if !notices.still_news(*room, *no, &event).await? {
                    return Ok(None);
                }
                (notices.about(*room, &event).await?, actions)
            }
            Waiting::Invite { room, actions, .. } => match notices.about_invite(*room, at).await? {
                Some(about) => (about, actions),
                None => return Ok(None),
            },
        };
        Ok(Some(Message::event(about, actions, notices.unread().await?)))
    }

    async fn unread(&self, pusher: &PusherKey) -> Result<u64, Error> {
        let snapshot = self.store.snapshot().await?;
        Ok(self.view.notices(&snapshot, pusher.0).await?.unread().await?)
    }

    async fn send(&self, target: &Target, message: &Message) -> Result<Answer, Error> {
        match &target.kind {
            Kind::Gateway => Ok(self.send_to_gateway(target, message).await),
            Kind::Web(subscription) => self.send_to_browser(target, subscription, message).await,
        }
    }

    async fn send_to_browser(
        &self,
        target: &Target,
        subscription: &Subscription,
        message: &Message,
    ) -> Result<Answer, Error> {
        let topic = web::topic(target, message);
        let how = (web::urgency(message), topic.as_deref());
        let payload = web::payload(target, message);
        match self.ask_browser(target, self.web_push(target, subscription, &payload, how)?).await {
            Answer::TooLarge => {
                let request = self.web_push(target, subscription, &web::smallest(message), how)?;
                Ok(self.ask_browser(target, request).await)
            }
            other => Ok(other),
        }
    }

    pub(super) async fn ask_browser(&self, target: &Target, request: Request<Bytes>) -> Answer {
        match self.ask(request).await {
            Ok(response) if response.status().is_success() => Answer::Taken,
            Ok(response) if response.status() == StatusCode::PAYLOAD_TOO_LARGE => Answer::TooLarge,
            // MSC4174: "the homeserver deletes the registration if it receives a 404, 410 or 403".
            Ok(response) if matches!(response.status().as_u16(), 403 | 404 | 410) => Answer::Rejected,
            other => not_now(target, other),
        }
    }

    async fn send_to_gateway(&self, target: &Target, message: &Message) -> Answer {
        let body = gateway::body(target, message, self.config.include_content);
        let request = Request::builder()
            .method(Method::POST)
            .uri(&target.url)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.into());
        let response = match request {
            Ok(request) => self.ask(request).await,
            Err(_) => return Answer::Rejected,
        };
        match response {
            Ok(response) if response.status().is_success() => match gateway::rejects(response.body(), &target.key) {
                true => Answer::Rejected,
                false => Answer::Taken,
            },
            other => not_now(target, other),
        }
    }

    async fn ask(&self, request: Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let limits = Limits { timeout: TIMEOUT, max_bytes: MAX_ANSWER };
        let rules = Rules { limits, redirects: 0, https_only: self.config.require_https };
        Ok(self.config.web.fetch(request, rules).await?.response)
    }
}

/// Something went wrong at the other side, or on the way.
fn not_now(target: &Target, answer: Result<http::Response<Bytes>, TransportError>) -> Answer {
    let host = &*target.host;
    match answer {
        Ok(response) => {
            let status = response.status();
            tracing::info!(host, %status, "a pusher was not told");
            let patient = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
            let asked = response.headers().get(header::RETRY_AFTER).filter(|_| patient);
            let seconds = asked.and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
            Answer::NotNow(seconds.map(|seconds| seconds.max(1).saturating_mul(1000)))
        }
        Err(why) => {
            tracing::info!(host, %why, "a pusher was not told");
            Answer::NotNow(None)
        }
    }
}
