//! Rate limits (Client-Server API, "Rate limiting"): the generic cell rate algorithm, one number a key, in memory.

use std::{collections::HashMap, fmt, sync::Arc};

use parking_lot::Mutex;
use serde::Deserialize;
use stoa_event::acl::Glob;
use stoa_store::Clock;

use crate::Error;

/// When more keys than this are remembered, those that have recovered are forgotten.
const KEYS: usize = 50_000;

/// So many at once, and then so many a second.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many a second for as long as one likes.
    pub per_second: f64,
    /// How many at once after a pause.
    pub burst: u32,
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Login attempts of an address, and questions about names and tokens.
    Login,
    /// Registrations of an address.
    Registration,
    /// Events sent by a user.
    Message,
    /// Events sent by one device of a user.
    Device,
    /// Live events (typing, ephemeral) sent by a user.
    Live,
    /// Joins of a user.
    Join,
    /// Invites sent by a user.
    Invite,
    /// Reports of a user.
    Report,
    /// Uploads of a user.
    Upload,
    /// Files of other servers that are fetched for a user or an address.
    RemoteMedia,
    /// Links that a user wants previews of, and that are asked for then.
    Preview,
    /// Searches of a user.
    Search,
    /// Signed requests of another server.
    Federation,
    /// Questions of an address about the keys of servers.
    Keys,
}

/// The rates. Generous: they stop floods, not people.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether there are limits at all.
    pub enabled: bool,
    /// Login attempts of an address.
    pub login: Rate,
    /// Registrations of an address.
    pub registration: Rate,
    /// Events sent by a user.
    pub message: Rate,
    /// Events sent by one device: fewer than a user's, so that one that ran wild does not silence the others.
    pub device: Rate,
    /// Typing notifications and ephemeral events sent by a user.
    pub live: Rate,
    /// Joins of a user.
    pub join: Rate,
    /// Invites sent by a user.
    pub invite: Rate,
    /// Reports of a user.
    pub report: Rate,
    /// Uploads of a user.
    pub upload: Rate,
    /// Files of other servers that are fetched for a user or an address.
    pub remote_media: Rate,
    /// Links that a user wants previews of.
    pub preview: Rate,
    /// Searches of a user, in messages and for people.
    pub search: Rate,
    /// Signed requests of another server.
    pub federation: Rate,
    /// Questions of an address about the keys of servers.
    pub keys: Rate,
    /// Whom other rates hold for.
    pub overrides: Vec<Override>,
}

/// Other rates for some. The first that fits counts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// User ids, addresses or names of servers: `*` stands for any characters, `?` for one.
    pub who: String,
    /// How many times as much; `0` for no limit at all.
    pub times: u32,
}

impl Default for Config {
    fn default() -> Self {
        let rate = |per_second, burst| Rate { per_second, burst };
        Config {
            enabled: true,
            login: rate(0.5, 20),
            registration: rate(0.2, 10),
            message: rate(5.0, 60),
            device: rate(4.0, 50),
            live: rate(40.0, 200),
            join: rate(0.5, 30),
            invite: rate(0.5, 50),
            report: rate(0.1, 20),
            upload: rate(2.0, 50),
            remote_media: rate(10.0, 500),
            preview: rate(1.0, 100),
            search: rate(5.0, 50),
            federation: rate(50.0, 1000),
            keys: rate(5.0, 100),
            overrides: Vec::new(),
        }
    }
}

impl Config {
    fn rate(&self, kind: Kind) -> Rate {
        match kind {
            Kind::Login => self.login,
            Kind::Registration => self.registration,
            Kind::Message => self.message,
            Kind::Device => self.device,
            Kind::Live => self.live,
            Kind::Join => self.join,
            Kind::Invite => self.invite,
            Kind::Report => self.report,
            Kind::Upload => self.upload,
            Kind::RemoteMedia => self.remote_media,
            Kind::Preview => self.preview,
            Kind::Search => self.search,
            Kind::Federation => self.federation,
            Kind::Keys => self.keys,
        }
    }
}

/// The moment at which a key will have recovered, in microseconds since 1970.
type Keys = HashMap<(Kind, String), u64>;

struct Inner {
    config: Config,
    /// The overrides, ready to be matched.
    overrides: Vec<(Glob, u32)>,
    clock: Arc<dyn Clock>,
    keys: Mutex<Keys>,
}

/// The limiter; clones are the same.
#[derive(Clone)]
pub struct Limits {
    inner: Arc<Inner>,
}

impl Limits {
    /// A limiter that remembers nothing yet.
    pub fn new(config: Config, clock: Arc<dyn Clock>) -> Limits {
        let overrides =
            config.overrides.iter().filter_map(|other| Some((Glob::new(&other.who)?, other.times))).collect();
        Limits { inner: Arc::new(Inner { config, overrides, clock, keys: Mutex::default() }) }
    }

    /// How many times as much somebody may; nothing where there is no limit.
    fn times(&self, key: &str) -> Option<u32> {
        if self.inner.overrides.is_empty() {
            return Some(1);
        }
        // A device is its user's: what follows the space is its id.
        let key = key.split(' ').next().unwrap_or_default().to_ascii_lowercase();
        let found = self.inner.overrides.iter().find(|(glob, _)| glob.matches(key.as_bytes()));
        Some(found.map_or(1, |(_, times)| *times)).filter(|times| *times > 0)
    }

    /// Counts one more for a user or an address.
    ///
    /// # Errors
    /// `M_LIMIT_EXCEEDED`; then it was not counted.
    pub fn take(&self, kind: Kind, key: impl fmt::Display) -> Result<(), Error> {
        let config = &self.inner.config;
        if !config.enabled {
            return Ok(());
        }
        let rate = config.rate(kind);
        let key = key.to_string();
        let Some(times) = self.times(&key) else { return Ok(()) };
        // A rate of zero means: only the burst, and then one in a day.
        let step = (1e6 / (rate.per_second * f64::from(times)).max(1.0 / 86_400.0)) as u64;
        let slack = step.saturating_mul(u64::from(rate.burst.max(1)).saturating_mul(u64::from(times)));
        let now = self.inner.clock.now_ms().saturating_mul(1000);
        let mut keys = self.inner.keys.lock();
        if keys.len() > KEYS {
            keys.retain(|_, recovered| *recovered > now);
        }
        let key = (kind, key);
        let recovered = keys.get(&key).map_or(now, |recovered| (*recovered).max(now)).saturating_add(step);
        if recovered > now.saturating_add(slack) {
            return Err(Error::limit_exceeded((recovered - now - slack).div_ceil(1000)));
        }
        keys.insert(key, recovered);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Default)]
    struct Hands(AtomicU64);

    impl Clock for Hands {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn limits(config: Config) -> (Limits, Arc<Hands>) {
        let clock = Arc::new(Hands::default());
        (Limits::new(config, clock.clone()), clock)
    }

    #[test]
    fn a_burst_then_a_rate() {
        let config = Config { message: Rate { per_second: 2.0, burst: 3 }, ..Config::default() };
        let (limits, clock) = limits(config);
        for _ in 0..3 {
            limits.take(Kind::Message, "@a:x").unwrap();
        }
        let error = limits.take(Kind::Message, "@a:x").unwrap_err();
        assert_eq!(error.retry_after_ms, Some(500));
        assert!(limits.take(Kind::Message, "@b:x").is_ok(), "each has its own");
        assert!(limits.take(Kind::Join, "@a:x").is_ok(), "and each kind");
        clock.0.store(499, Ordering::Relaxed);
        assert!(limits.take(Kind::Message, "@a:x").is_err());
        clock.0.store(500, Ordering::Relaxed);
        assert!(limits.take(Kind::Message, "@a:x").is_ok());
        assert!(limits.take(Kind::Message, "@a:x").is_err());
    }

    #[test]
    fn some_may_more() {
        let other = |who: &str, times| Override { who: who.to_owned(), times };
        let overrides = vec![other("@Bot-*:x", 3), other("10.0.*", 0), other("@bot-a:x", 0)];
        let message = Rate { per_second: 1.0, burst: 2 };
        let (limits, _) = limits(Config { message, device: message, login: message, overrides, ..Config::default() });
        let many = |kind, key: &str| (0..100).take_while(|_| limits.take(kind, key).is_ok()).count();
        assert_eq!(many(Kind::Message, "@bot-a:x"), 6, "the first that fits counts");
        assert_eq!(many(Kind::Device, "@bot-a:x PHONE"), 6);
        assert_eq!(many(Kind::Message, "@a:x"), 2);
        assert_eq!(many(Kind::Login, "10.0.0.1"), 100);
        assert_eq!(many(Kind::Login, "10.1.0.1"), 2);
    }

    #[test]
    fn off_is_off() {
        let config = Config { enabled: false, ..Config::default() };
        let (limits, _) = limits(config);
        assert!((0..1000).all(|_| limits.take(Kind::Login, "1.2.3.4").is_ok()));
    }

    #[test]
    fn the_recovered_are_forgotten() {
        let (limits, clock) = limits(Config::default());
        for i in 0..=KEYS {
            limits.take(Kind::Login, i).unwrap();
        }
        clock.0.store(3_600_000, Ordering::Relaxed);
        limits.take(Kind::Login, "one more").unwrap();
        assert_eq!(limits.inner.keys.lock().len(), 1);
    }
}
