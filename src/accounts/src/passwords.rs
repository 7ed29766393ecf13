//! Passwords: argon2id, on a bounded number of blocking threads so that logins cannot starve everything else.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use parking_lot::Mutex;
use stoa_event::ids::{OwnedUserId, UserId};
use stoa_store::Env;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::{Config, Error, Result};

/// A password's greatest length in bytes.
const MAX_BYTES: usize = 1024;
/// After so many wrong passwords in a row an account has to wait between attempts.
const FREE_FAILURES: u32 = 10;
/// How long the wait is after the last free failure; it doubles up to [`LONGEST_WAIT_MS`].
const FIRST_WAIT_MS: u64 = 1000;
const LONGEST_WAIT_MS: u64 = 60_000;
/// How many accounts with wrong passwords are remembered.
const MAX_FAILURES: usize = 100_000;

/// A password as a client sent it. It is wiped after use and never printed.
pub type Password = Zeroizing<String>;

struct Failures {
    count: u32,
    last: u64,
}

/// Hashes and checks passwords.
pub(crate) struct Passwords {
    argon2: Argon2<'static>,
    threads: Arc<Semaphore>,
    /// The hash that is checked when there is no account, so that an attempt takes the same time.
    nobody: Arc<OnceLock<String>>,
    /// By name, also by names that nobody has: waiting tells nothing about who is here.
    failures: Mutex<HashMap<OwnedUserId, Failures>>,
}

impl Passwords {
    pub(crate) fn new(config: &Config) -> Self {
        let params = Params::new(config.argon2_memory_kib, config.argon2_passes, 1, None).unwrap_or_default();
        Passwords {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            threads: Arc::new(Semaphore::new(config.hash_threads.max(1))),
            nobody: Arc::default(),
            failures: Mutex::default(),
        }
    }

    /// The hash of a new password, in PHC form.
    pub(crate) async fn hash(&self, env: &Env, password: Password) -> Result<String> {
        let argon2 = self.argon2.clone();
        let salt = salt(env);
        self.run(move || hash(&argon2, password.as_bytes(), &salt)).await?
    }

    /// Whether a password is that of a hash. Without a hash it takes as long and says no.
    pub(crate) async fn verify(&self, env: &Env, password: Password, phc: Option<String>) -> Result<bool> {
        let argon2 = self.argon2.clone();
        let nobody = self.nobody.clone();
        let salt = salt(env);
        self.run(move || {
            let known = phc.is_some();
            let phc = match phc {
                Some(phc) => phc,
                None => match nobody.get() {
                    Some(phc) => phc.clone(),
                    None => nobody.get_or_init(|| hash(&argon2, b"nobody", &salt).unwrap_or_default()).clone(),
                },
            };
            let Ok(parsed) = PasswordHash::new(&phc) else {
                return Err(stoa_store::Error::Corrupt("a password hash cannot be read").into());
            };
            Ok(argon2.verify_password(password.as_bytes(), &parsed).is_ok() && known)
        })
        .await?
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let stopping = Error::Store(stoa_store::Error::Closed);
        let Ok(permit) = self.threads.clone().acquire_owned().await else { return Err(stopping) };
        let done = tokio::task::spawn_blocking(move || {
            // Held by the thread: a client that goes away must not let more work in.
            let _permit = permit;
            work()
        });
        done.await.map_err(|_| stopping)
    }

    /// Whether somebody may try a password now.
    pub(crate) fn may_try(&self, user: &UserId, now_ms: u64) -> Result<()> {
        let failures = self.failures.lock();
        let Some(known) = failures.get(user) else { return Ok(()) };
        let until = known.last.saturating_add(wait_ms(known.count));
        if until > now_ms {
            return Err(Error::LimitExceeded { retry_after_ms: until - now_ms });
        }
        Ok(())
    }

    /// Remembers how an attempt went.
    pub(crate) fn tried(&self, user: &UserId, right: bool, now_ms: u64) {
        let mut failures = self.failures.lock();
        if right {
            failures.remove(user);
            return;
        }
        if failures.len() >= MAX_FAILURES && !failures.contains_key(user) {
            failures.retain(|_, known| known.last.saturating_add(LONGEST_WAIT_MS) > now_ms);
            if failures.len() >= MAX_FAILURES {
                // So many at once is an attack that hashing slows down anyway.
                failures.clear();
            }
        }
        let known = failures.entry(user.to_owned()).or_insert(Failures { count: 0, last: now_ms });
        // Who waits long enough begins anew.
        if known.last.saturating_add(LONGEST_WAIT_MS * 10) < now_ms {
            known.count = 0;
        }
        known.count = known.count.saturating_add(1);
        known.last = now_ms;
    }
}

fn wait_ms(failures: u32) -> u64 {
    match failures.checked_sub(FREE_FAILURES) {
        Some(more) => (FIRST_WAIT_MS << more.min(16)).min(LONGEST_WAIT_MS),
        None => 0,
    }
}

fn salt(env: &Env) -> [u8; 16] {
    let mut salt = [0; 16];
    env.random.fill(&mut salt);
    salt
}

fn hash(argon2: &Argon2<'_>, password: &[u8], salt: &[u8]) -> Result<String> {
    let hash: std::result::Result<PasswordHash, _> = argon2.hash_password_with_salt(password, salt);
    // Lengths are checked before, so what is left is a lack of memory.
    hash.map(|hash| hash.to_string()).map_err(|_| stoa_store::Error::Engine("cannot hash a password".to_owned()).into())
}

/// Whether a password is good enough to be a new one.
pub(crate) fn check_new(config: &Config, password: &str) -> Result<()> {
    if password.len() > MAX_BYTES {
        return Err(Error::InvalidParam(format!("a password has at most {MAX_BYTES} bytes")));
    }
    if password.chars().count() < config.password_min {
        return Err(Error::WeakPassword(format!("a password has at least {} characters", config.password_min)));
    }
    Ok(())
}

/// Whether it is worth trying as a password at all.
pub(crate) fn possible(password: &str) -> bool {
    password.len() <= MAX_BYTES
}
