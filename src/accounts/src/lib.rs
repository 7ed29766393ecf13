//! People: accounts, devices, tokens, passwords, user-interactive authentication, profiles, account data, filters and
//! push rules. It knows neither rooms nor HTTP.
//!
//! [`Accounts`] is a cheap handle; each chapter is a file that adds methods to it.

mod account_data;
mod config;
mod cross_signing;
mod devices;
mod emails;
mod error;
pub mod filters;
mod for_servers;
mod for_services;
mod guests;
mod jwt;
mod key_backup;
mod keys;
mod login;
mod moderation;
mod moves;
pub mod openid;
mod passwords;
mod presence;
mod profile;
pub mod push_rules;
mod pushers;
mod register;
pub mod remote_devices;
pub mod reports;
mod services;
mod tickets;
mod to_device;
mod token;
pub mod uia;
mod users;
mod who;

use std::sync::Arc;

pub use config::{Config, Jwt, Mail, Policy, Registration};
pub use cross_signing::{CrossSigningUpload, SignatureFailures};
pub use devices::DeviceInfo;
pub use emails::{Credentials, EmailRequest, PAGE, Purpose};
pub use error::{Challenge, Error, Flow, Refused};
pub use key_backup::{BackupKeys, NumberedVersion, Which};
pub use keys::{ClaimedKeys, FoundKeys, KeyUpload};
pub use login::{LoggedIn, NewDevice, TOKEN_LIFE_MS, Tokens};
pub use moderation::Measure;
pub use passwords::Password;
pub use profile::{AVATAR_URL, DISPLAYNAME, ShortProfile};
pub use pushers::NewPusher;
pub use register::{NewAccount, Registered};
pub use services::{BadService, Service, ServiceFile, Services};
use stoa_event::ids::{OwnedServerName, OwnedUserId, UserId};
use stoa_store::{Env, Store, UserNo};
pub use to_device::Messages;
use tokio::sync::{Mutex, MutexGuard, broadcast, watch};
pub use users::{Account, User};
pub use who::Who;

use crate::{devices::Seen, passwords::Passwords, tickets::Tickets, uia::Uia, who::Sessions};

/// How many locks stand for all users.
const LOCKS: usize = 256;

/// The result of an operation on accounts.
pub type Result<T> = std::result::Result<T, Error>;

struct Inner {
    store: Store,
    env: Env,
    server_name: OwnedServerName,
    config: Config,
    sessions: Sessions,
    passwords: Passwords,
    uia: Uia,
    /// Held while sessions of addresses are read and written.
    emails: Mutex<()>,
    openid: Tickets<OwnedUserId>,
    /// Tokens to log in with, and whose they are.
    login_tokens: Tickets<OwnedUserId>,
    seen: Seen,
    services: watch::Sender<Arc<Services>>,
    /// Who reads rows of a user and writes what follows from them holds one of these: one writer a user.
    users: Vec<Mutex<()>>,
    names: Vec<Mutex<()>>,
    /// For which other servers messages to devices wait.
    waiting: broadcast::Sender<OwnedServerName>,
}

/// A handle to the accounts of a server; clones are the same.
#[derive(Clone)]
pub struct Accounts {
    inner: Arc<Inner>,
}

impl Accounts {
    /// The accounts that a store holds.
    pub fn new(store: Store, env: Env, server_name: OwnedServerName, config: Config) -> Accounts {
        let locks = || (0..LOCKS).map(|_| Mutex::new(())).collect();
        let inner = Inner {
            sessions: Sessions::new(config.cached_tokens),
            passwords: Passwords::new(&config),
            uia: Uia::default(),
            emails: Mutex::default(),
            openid: Tickets::new("soi", openid::LIFE_MS),
            login_tokens: Tickets::new("stl", login::TOKEN_LIFE_MS),
            seen: Seen::default(),
            services: watch::Sender::default(),
            users: locks(),
            names: locks(),
            waiting: broadcast::channel(1024).0,
            store,
            env,
            server_name,
            config,
        };
        Accounts { inner: Arc::new(inner) }
    }

    /// The name of this server: the part after the colon in the ids of its users.
    pub fn server_name(&self) -> &OwnedServerName {
        &self.inner.server_name
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    fn store(&self) -> &Store {
        &self.inner.store
    }

    fn env(&self) -> &Env {
        &self.inner.env
    }

    /// Waits until nobody else changes what belongs to a user. Never hold two of these.
    async fn lock(&self, user: UserNo) -> MutexGuard<'_, ()> {
        self.inner.users[user.0 as usize % LOCKS].lock().await
    }

    /// Waits until nobody else makes an account of that name.
    async fn lock_name(&self, id: &UserId) -> MutexGuard<'_, ()> {
        let sum = id.as_bytes().iter().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
        self.inner.names[sum % LOCKS].lock().await
    }
}
