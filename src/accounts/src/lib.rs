//! People: accounts, devices, tokens, passwords, user-interactive authentication, profiles, account data, filters and
//! push rules. It knows neither rooms nor HTTP.
//!
//! [`Accounts`] is a cheap handle; each chapter is a file that adds methods to it.

mod config;
mod error;
mod token;
mod who;

use std::sync::Arc;

pub use config::{Config, Registration};
pub use error::{Challenge, Error};
use stoa_event::ids::OwnedServerName;
use stoa_store::{Env, Store};
pub use who::Who;

use crate::who::Sessions;

/// The result of an operation on accounts.
pub type Result<T> = std::result::Result<T, Error>;

struct Inner {
    store: Store,
    env: Env,
    server_name: OwnedServerName,
    config: Config,
    sessions: Sessions,
}

/// A handle to the accounts of a server; clones are the same.
#[derive(Clone)]
pub struct Accounts {
    inner: Arc<Inner>,
}

impl Accounts {
    /// The accounts that a store holds.
    pub fn new(store: Store, env: Env, server_name: OwnedServerName, config: Config) -> Accounts {
        let sessions = Sessions::new(config.cached_tokens);
        Accounts { inner: Arc::new(Inner { store, env, server_name, config, sessions }) }
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
}
