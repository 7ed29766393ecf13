//! The read side: what somebody may see now. Nothing here changes anything.

pub mod filter;

mod bundle;
mod counts;
mod directory;
mod error;
mod eyes;
mod json;
mod messages;
mod mutual;
mod notices;
mod notifications;
mod people;
mod presence;
mod push;
mod reach;
mod relations;
mod search;
mod servers;
mod services;
mod show;
mod sliding;
mod spaces;
mod state;
mod sync;
mod threads;
mod time;
mod token;
mod wait;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use stoa_event::ids::{EventId, OwnedRoomId, OwnedUserId};
use stoa_store::{Env, Position, Store, UserNo, schema};

use crate::wait::Waiters;
pub use crate::{
    directory::{DirectoryRequest, Network},
    error::Error,
    filter::{Filter, RoomEventFilter},
    messages::{ContextRequest, MessagesRequest, Page},
    mutual::MutualRooms,
    notices::{About, Invited, News, Notices},
    notifications::NotificationsRequest,
    relations::{RelationsRequest, ThreadsRequest},
    search::{Around, FoundEvent, Searchable, ShownEvent},
    servers::{JoinState, MissingRequest, Pdus, StateIds, WholeState},
    sliding::{Body as SlidingBody, SlidingRequest},
    spaces::{Doors, Glance, SpaceChild, SpaceRoom},
    state::MembersRequest,
    sync::SyncRequest,
    time::AtTime,
    token::{AnyToken, HistoryToken, SlidingToken, SyncToken},
};

/// How reading is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many events a timeline has where the client does not say.
    pub timeline_limit: usize,
    /// How many events one answer has at most.
    pub max_limit: usize,
    /// How long a `/sync` may wait at most, in milliseconds.
    pub max_wait_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config { timeline_limit: 10, max_limit: 1000, max_wait_ms: 300_000 }
    }
}

/// Who looks.
#[derive(Clone, Debug)]
pub struct Viewer {
    /// The user.
    pub user: OwnedUserId,
    /// The user's number.
    pub user_no: UserNo,
    /// The device.
    pub device: String,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) env: Env,
    pub(crate) config: Config,
    waiters: Arc<Waiters>,
    counts: counts::Counts,
    badges: notices::Badges,
    lazy: sync::lazy::Known,
    connections: sliding::Connections,
    activity: sliding::Activity,
    stopping: AtomicBool,
}

/// A handle to the read side; clones are the same.
#[derive(Clone)]
pub struct View {
    pub(crate) inner: Arc<Inner>,
}

impl View {
    /// The read side over a store. [`View::run`] must be run for waiting clients to be woken.
    pub fn new(store: Store, env: Env, config: Config) -> View {
        let connections = sliding::Connections::new(env.now_ms());
        let inner = Inner {
            store,
            env,
            config,
            waiters: Arc::default(),
            counts: counts::Counts::default(),
            badges: notices::Badges::default(),
            lazy: sync::lazy::Known::default(),
            connections,
            activity: sliding::Activity::default(),
            stopping: AtomicBool::new(false),
        };
        View { inner: Arc::new(inner) }
    }

    /// Wakes waiting clients as the feed brings something for them. Ends when the store does.
    pub async fn run(self) {
        let waiters = self.inner.waiters.clone();
        let store = self.inner.store.clone();
        // The view must not keep the store alive while it waits for it to end.
        drop(self);
        waiters.run(store).await;
    }

    /// Lets all waiting clients have their answers now, and nobody wait any more: the server is stopping.
    pub fn stop_waiting(&self) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        self.inner.waiters.wake_all();
    }

    /// How many devices wait for something new.
    pub fn waiting(&self) -> usize {
        self.inner.waiters.count()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.inner.stopping.load(Ordering::SeqCst)
    }

    /// A token for what happens from now on.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn now(&self) -> Result<String, Error> {
        let place = self.inner.store.bus().place();
        Ok(SyncToken { place, position: self.inner.store.snapshot().await?.position() }.to_string())
    }

    /// The room of an event, for requests that name only the event. Whether the room may be seen is asked afterwards.
    ///
    /// # Errors
    /// [`Error::NotFound`]
    pub async fn room_of(&self, event: &EventId) -> Result<OwnedRoomId, Error> {
        let store = &self.inner.store;
        let snapshot = store.snapshot().await?;
        let place = snapshot.get(&schema::EVENT_IDS, &event.to_string()).await?;
        let place = place.ok_or(Error::NotFound("there is no such event"))?;
        let id = store.names().room_id(&snapshot, place.room).await?;
        OwnedRoomId::try_from(&*id).map_err(|_| stoa_store::Error::Corrupt("a room's id is none").into())
    }

    /// The position that a sync token stands for: everything up to it was seen by the client that brings it.
    ///
    /// # Errors
    /// [`Error::InvalidParam`], if this server never made it.
    pub fn seen_until(since: &str) -> Result<Position, Error> {
        SyncToken::parse(since).map(|token| token.position)
    }
}
