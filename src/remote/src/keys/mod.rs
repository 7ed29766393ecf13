//! The keys of other servers: in memory, in the store, from the servers themselves, from notaries (Server-Server API,
//! "Retrieving server keys"), in that order.

pub mod document;
mod fetch;
mod own;
mod verify;

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwapOption;
use quick_cache::sync::Cache;
use stoa_event::{
    ids::{OwnedServerName, ServerName},
    sign::{Keys, KnownKey, VerifyKey},
};
use stoa_store::{
    Store,
    rows::remote::{ServerKey, ServerKeys},
};
use tokio::sync::Semaphore;

pub use self::own::{Wanted, read_wanted};
use crate::{caller::Caller, config::Config, flight::Gates};

/// The keys of other servers, and our own; clones are the same.
#[derive(Clone)]
pub struct KeyRing {
    ring: Arc<Ring>,
}

struct Ring {
    store: Store,
    caller: Arc<Caller>,
    notaries: Vec<OwnedServerName>,
    /// Keys whose private halves are known.
    refused: Vec<VerifyKey>,
    cache: Cache<OwnedServerName, Arc<Held>>,
    /// Our own keys from before; `None` until they were read.
    own_old: ArcSwapOption<HashMap<String, KnownKey>>,
    /// Only one asks a server at a time.
    gates: Gates<OwnedServerName>,
    /// Servers that were asked in vain, and when they may be asked again.
    vain: Cache<OwnedServerName, Vain>,
    /// How many servers may be asked at once because a request came that we cannot believe yet.
    strangers: Semaphore,
    /// The same for questions to us as notary.
    for_others: Semaphore,
}

/// The keys of a server, ready for use.
#[derive(Default)]
struct Held {
    keys: HashMap<String, HeldKey>,
    fetched_at: u64,
}

#[derive(Clone, Copy)]
struct HeldKey {
    known: KnownKey,
    /// Whether the server stopped using it.
    old: bool,
}

#[derive(Clone, Copy)]
struct Vain {
    asked_at: u64,
    wait: u64,
    /// How many times it did not answer.
    times: u32,
}

/// What is in memory of the keys of all servers. It never waits.
#[derive(Clone)]
pub struct Known {
    ring: Arc<Ring>,
}

impl KeyRing {
    pub(crate) fn new(store: Store, caller: Arc<Caller>, config: &Config) -> KeyRing {
        let refused = config.refused_keys.iter().filter_map(|key| VerifyKey::parse(key).ok()).collect();
        let tuning = &config.tuning;
        KeyRing {
            ring: Arc::new(Ring {
                store,
                caller,
                notaries: config.trusted_key_servers.clone(),
                refused,
                cache: Cache::new(tuning.cached_servers),
                own_old: ArcSwapOption::empty(),
                gates: Gates::new(),
                vain: Cache::new(tuning.cached_servers),
                strangers: Semaphore::new(tuning.key_requests_of_strangers),
                for_others: Semaphore::new(tuning.notary_fetches),
            }),
        }
    }

    /// The keys that are in memory: what [`KeyRing::fetch`] made known.
    pub fn known(&self) -> Known {
        Known { ring: self.ring.clone() }
    }
}

impl Keys for Known {
    fn key(&self, server: &ServerName, key_id: &str) -> Option<KnownKey> {
        self.ring.held(server, key_id).map(|key| key.known)
    }
}

impl Ring {
    fn held(&self, server: &ServerName, key_id: &str) -> Option<HeldKey> {
        if server == self.caller.server {
            return self.own(key_id);
        }
        self.cache.get(server).and_then(|held| held.keys.get(key_id).copied())
    }

    /// Keeps what is known of a server in memory.
    fn hold(&self, server: &ServerName, row: &ServerKeys) {
        let usable = row.keys.iter().filter_map(|key| Some((key.id.clone(), self.usable(key)?)));
        self.cache.insert(server.to_owned(), Arc::new(Held { keys: usable.collect(), fetched_at: row.fetched_at }));
    }

    fn usable(&self, row: &ServerKey) -> Option<HeldKey> {
        let key = VerifyKey::from_bytes(&row.key).ok()?;
        if self.refused.contains(&key) {
            return None;
        }
        let known = KnownKey { key, valid_until_ts: row.expired.unwrap_or(row.valid_until) };
        Some(HeldKey { known, old: row.expired.is_some() })
    }
}
