//! What all phases share: the homeserver, its users, measuring, checking.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use stoa_kit::{Client, SyncOptions, User, json, unique};
use tokio::time::{Instant, sleep};

use crate::args::{Run, Size};
use crate::meter;
use crate::report::Report;
use crate::server::Server;

/// One run.
pub struct Bench {
    /// What was asked for.
    pub run: Run,
    /// The way to the homeserver.
    pub client: Client,
    /// The homeserver, unless it is stopped.
    pub server: Option<Server>,
    /// The results so far.
    pub report: Report,
    /// Accounts that phases share.
    pub users: Vec<User>,
}

/// A measurement that has begun.
pub struct Span {
    cpu: f64,
    begin: Instant,
    limit: Duration,
}

impl Span {
    /// Whether the phase has had its time.
    pub fn over(&self) -> bool {
        self.begin.elapsed() > self.limit
    }

    /// How long it has been going on.
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }
}

impl Bench {
    /// One of two numbers, by the size of the run.
    pub fn size(&self, short: usize, full: usize) -> usize {
        if self.run.size == Size::Short { short } else { full }
    }

    /// The processes that are measured.
    pub fn pids(&self) -> Vec<u32> {
        self.server.iter().map(Server::pid).chain(self.run.pids.iter().copied()).collect()
    }

    /// Begins a measurement of at most so many seconds, once the server is at rest.
    pub async fn begin(&self, seconds: u64) -> Span {
        self.rest().await;
        Span { cpu: meter::cpu(&self.pids()), begin: Instant::now(), limit: Duration::from_secs(seconds) }
    }

    /// Ends a measurement; what the server does afterwards on account of it is counted. Gives the CPU time in milliseconds.
    pub async fn end(&self, span: &Span) -> f64 {
        self.rest().await;
        meter::cpu(&self.pids()) - span.cpu
    }

    /// Ends a measurement and notes it under this name.
    pub async fn note(&mut self, operation: &str, span: &Span, times: &mut [Duration]) {
        let cpu = self.end(span).await;
        self.report.cpu(operation, times.len(), cpu, times);
    }

    /// Waits until the server does nothing any more, at most a few seconds.
    pub async fn rest(&self) {
        if self.run.size == Size::Short {
            return;
        }
        let mut last = meter::cpu(&self.pids());
        for _ in 0..20 {
            sleep(Duration::from_millis(250)).await;
            let now = meter::cpu(&self.pids());
            if now - last <= 10.0 {
                return;
            }
            last = now;
        }
    }

    /// Notes whether something is as it should be.
    pub fn check(&mut self, right: bool, what: impl FnOnce() -> String) {
        match right {
            true => self.report.passed += 1,
            false => self.report.failed.push(what()),
        }
    }

    /// At least so many accounts.
    pub async fn need_users(&mut self, count: usize) {
        let missing = count.saturating_sub(self.users.len());
        let new: Vec<User> =
            stream::iter(0..missing).map(|_| new_user(self.client.clone())).buffered(6).collect().await;
        self.users.extend(new);
    }

    /// A room of the first user with these others in it.
    pub async fn room(&self, owner: &User, members: &[User]) -> String {
        let room = owner.create_room(json!({ "preset": "public_chat", "name": unique() })).await;
        for user in members {
            user.join(&room).await.ok();
        }
        room
    }

    /// Starts the homeserver.
    pub async fn start(&mut self, bulk: bool) -> Result<Duration, String> {
        let command = match (&self.run.bulk_command, bulk) {
            (Some(command), true) => command.clone(),
            _ => self.run.command.clone(),
        };
        let (server, time) = Server::start(&command, &self.client).await?;
        self.server = Some(server);
        Ok(time)
    }

    /// Stops it.
    pub async fn stop(&mut self) -> Result<(), String> {
        match self.server.take() {
            Some(server) => server.stop().await.map(|_| ()),
            None => Ok(()),
        }
    }
}

/// A new account.
pub async fn new_user(client: Client) -> User {
    User::register(&client, &format!("bench-{}", unique())).await
}

/// A token of now, got without reading any room.
pub async fn token(user: &User) -> String {
    let filter = json!({ "room": { "rooms": [] }, "presence": { "types": [] }, "account_data": { "types": [] } });
    user.sync_with(&SyncOptions::default().filter(filter)).await.token().to_owned()
}
