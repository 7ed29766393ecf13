//! Rooms, the write side: everything that changes a room ends in the same few functions, whoever asked for it.
//!
//! One request: take the room's [lock](lock), gather the state that the law asks for, build and sign the events, let the
//! law decide, work out all effects, and commit them at once. This crate never fetches: what it lacks it names.

mod acl;
mod aliases;
mod create;
mod delayed;
mod effects;
mod enter;
mod error;
mod extremities;
mod gather;
mod ingest;
mod invites;
mod live;
mod lock;
mod membership;
mod partial;
mod policy;
mod profile;
mod receipts;
mod resolve;
mod send;
mod templates;
mod threads;
mod upgrade;
mod waiting;
mod writer;

use std::sync::Arc;

use stoa_event::{
    build::{Draft, Given, given_id, seal, seal_given},
    format::FormatError,
    ids::{OwnedEventId, OwnedServerName, RoomId, RoomVersionId, ServerName},
    pdu::Pdu,
    sign::SigningKey,
    version::{self, Rules},
};
use stoa_store::{Env, RoomNo, Snapshot, Store};

pub use crate::{
    create::{CreateRoom, InitialState, Preset},
    delayed::{DelayedEvent, Due, Held, NewDelayed},
    enter::{Entry, Omitted},
    error::Error,
    ingest::{Arrival, Needs, Outcome, StateAfter},
    membership::{Action, Change},
    partial::Partial,
    policy::{Policy, Unsigned},
    profile::Profile,
    receipts::NewReceipt,
    send::{NewEvent, TxnKey},
    templates::{Template, Wanted},
    threads::Follow,
    upgrade::Upgrade,
};

/// How rooms are to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The room version of new rooms.
    pub default_version: RoomVersionId,
    /// How long a client may say that somebody types, in milliseconds.
    pub max_typing_ms: u64,
    /// For how long an event may be delayed, in milliseconds; 0 for no delayed events at all.
    pub max_delay_ms: u64,
    /// How many delayed events of a user may wait at once; 0 for none at all.
    pub max_delayed: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            default_version: version::DEFAULT,
            max_typing_ms: 120_000,
            max_delay_ms: 24 * 60 * 60 * 1000,
            max_delayed: 100,
        }
    }
}

struct Inner {
    store: Store,
    env: Env,
    server: OwnedServerName,
    key: Arc<SigningKey>,
    config: Config,
    locks: lock::Locks,
    acls: acl::Acls,
    forked: extremities::Forked,
    delayed: delayed::Desk,
    /// Rung when a room becomes whole.
    whole: tokio::sync::Notify,
}

impl Inner {
    /// Signs an event; in versions 1 and 2 with what must be given.
    fn seal(&self, draft: Draft, given: Option<Given>, rules: &Rules) -> Result<Pdu, FormatError> {
        match given {
            Some(given) => seal_given(draft, &given, rules, &self.server, &self.key),
            None => seal(draft, rules, &self.server, &self.key),
        }
    }

    /// An event id for versions 1 and 2.
    fn new_event_id(&self) -> Result<OwnedEventId, FormatError> {
        given_id(&self.env.token(18), &self.server)
    }
}

/// A handle to the write side of all rooms; clones are the same.
#[derive(Clone)]
pub struct Rooms {
    inner: Arc<Inner>,
}

impl Rooms {
    /// The write side over a store, for the server of that name and key.
    pub fn new(
        store: Store,
        env: Env,
        server: OwnedServerName,
        key: impl Into<Arc<SigningKey>>,
        config: Config,
    ) -> Rooms {
        let key = key.into();
        let (locks, acls, forked) = (lock::Locks::default(), acl::Acls::new(1024), extremities::Forked::default());
        let (delayed, whole) = (delayed::Desk::default(), tokio::sync::Notify::new());
        Rooms { inner: Arc::new(Inner { store, env, server, key, config, locks, acls, forked, delayed, whole }) }
    }

    /// The name of this server.
    pub fn server(&self) -> &ServerName {
        &self.inner.server
    }

    /// How rooms are to be.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    async fn room_no(&self, snapshot: &Snapshot, room: &RoomId) -> Result<RoomNo, Error> {
        self.inner.store.names().room(snapshot, room.as_str()).await?.ok_or(Error::UnknownRoom)
    }
}
