//! Rooms meet other servers: what others send is fetched, judged and taken in; what our users do is sent; rooms that others
//! hold are joined (Server-Server API).
//!
//! This is the floor that composes [`Rooms`], [`Accounts`] and [`Remote`], which do not know each other.

mod ask;
mod away;
mod devices;
mod edus;
mod error;
mod fetch;
mod guests;
mod history;
mod identity;
mod intake;
mod join;
mod knots;
mod policy;
mod query;
mod sender;
mod serve;
mod spaces;
mod third_party;
mod transactions;
mod whole;

use std::sync::Arc;

use stoa_accounts::Accounts;
use stoa_event::ids::ServerName;
use stoa_remote::Remote;
use stoa_rooms::Rooms;
use stoa_store::{Env, Store};

pub use crate::{
    away::Nobody,
    devices::{Wanted, WantedKeys},
    edus::Edu,
    error::Error,
    identity::ThirdParty,
    intake::Received,
    join::Via,
    sender::FOLLOWER,
    serve::{Accepted, Invitation},
    spaces::Shown,
    third_party::{Bound, Exchange, Pending},
    transactions::Transaction,
};

struct Inner {
    store: Store,
    env: Env,
    rooms: Rooms,
    accounts: Accounts,
    remote: Remote,
    intake: intake::Intake,
    sender: sender::Sender,
    lists: devices::Lists,
    parked: edus::Parked,
    answered: transactions::Answered,
    heard: spaces::Heard,
    whole: whole::Wake,
}

/// A handle to federation; clones are the same.
#[derive(Clone)]
pub struct Federation {
    inner: Arc<Inner>,
}

impl Federation {
    /// Federation over its parts.
    pub fn new(store: Store, env: Env, rooms: Rooms, accounts: Accounts, remote: Remote) -> Federation {
        let inner = Inner {
            store,
            env,
            rooms,
            accounts,
            remote,
            intake: intake::Intake::default(),
            sender: sender::Sender::default(),
            lists: devices::Lists::default(),
            parked: edus::Parked::default(),
            answered: transactions::Answered::default(),
            heard: spaces::Heard::default(),
            whole: whole::Wake::default(),
        };
        Federation { inner: Arc::new(inner) }
    }

    /// The name of this server.
    pub fn server(&self) -> &ServerName {
        self.inner.rooms.server()
    }

    /// Other servers as we call them.
    pub fn remote(&self) -> &Remote {
        &self.inner.remote
    }
}
