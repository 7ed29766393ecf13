//! Keeping the index: what the feed tells is written into it, and what was there before it is read from the store, page by
//! page. How far it is, is part of every commit of the index; after a crash it goes on there.

use std::{ops::Bound, sync::Arc, time::Duration};

use serde::Deserialize;
use stoa_store::{
    Commit, Direction, EventNo, Fact, Follower, Membership, Position, RoomNo, Snapshot, Store, Tx, UserNo,
    rows::{events::StoredEvent, rooms::Head},
    schema,
};
use tokio::time::{Instant, timeout};

use crate::{
    Error, Search,
    index::{self, Change, NOWHERE, Progress, Said, Scan, Writer},
    people, texts,
};

/// The name of the follower; it must be among the options of the store.
pub const FOLLOWER: &str = "search";

/// How many commits of the feed are read at once, and how many rows of the store.
const COMMITS: usize = 200;
const ROWS: usize = 500;
/// The time between two commits of the index: so many times as long as the last one took, but at least and at most; and how
/// many changes are enough for one at once.
const TIMES: u32 = 20;
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
const MANY: usize = 20_000;
/// After how many positions without anything for the index its place is written down all the same.
const LAZY: u64 = 1_000;
/// How long the feed is listened to between two pages of what was there before.
const LISTEN: Duration = Duration::from_millis(2);
/// How long it waits when something fails.
const FAILED: Duration = Duration::from_secs(5);

/// Somebody who keeps the index.
struct Keeper {
    search: Search,
    writer: Arc<Writer>,
    follower: Follower,
    progress: Progress,
    /// What is to be changed next.
    pending: Vec<Change>,
    /// Changes since the last commit of the index, and when that was.
    changes: usize,
    committed: Instant,
    pause: Duration,
    /// Up to where the index is committed, and up to where the store was told so.
    durable: Position,
    told: Position,
}

impl Search {
    /// Keeps the index for as long as the store is there. It must be run once.
    pub async fn run(self) {
        loop {
            match self.keep().await {
                Err(Error::Store(stoa_store::Error::Closed)) => return,
                Err(why) => tracing::error!(%why, "cannot keep the index of the search"),
                Ok(()) => continue,
            }
            tokio::time::sleep(FAILED).await;
        }
    }

    /// Returns when the index is to be opened anew.
    async fn keep(&self) -> Result<(), Error> {
        self.inner.open.send_replace(None);
        let mut keeper = Keeper::begin(self).await?;
        self.inner.open.send_replace(Some(keeper.writer.index.clone()));
        loop {
            tokio::select! {
                () = self.inner.again.notified() => break,
                step = keeper.step() => step?,
            }
        }
        self.inner.open.send_replace(None);
        drop(keeper);
        let folder = self.inner.config.folder.clone();
        blocking(move || index::wipe(&folder)).await
    }

    async fn writer(&self) -> Result<Arc<Writer>, Error> {
        let (folder, memory) = (self.inner.config.folder.clone(), self.inner.config.memory);
        Ok(Arc::new(blocking(move || Writer::open(&folder, memory)).await?))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|why| Error::Task(why.to_string()))?
}

impl Keeper {
    async fn begin(search: &Search) -> Result<Keeper, Error> {
        let (store, config) = (&search.inner.store, &search.inner.config);
        let mut writer = search.writer().await?;
        let mut follower = store.follow(FOLLOWER).await?;
        let (kept, now) = (follower.cursor(), store.snapshot().await?.position());
        let known = writer.progress()?.filter(|progress| progress.fits(config));
        // An index from before what the feed still tells lacks something; one from after it belongs to another past.
        let known = known.filter(|progress| kept.0 <= progress.position && progress.position <= now.0);
        let progress = match known {
            Some(progress) => progress,
            None => {
                tracing::info!("the index of the search is made from the store");
                drop(writer);
                let folder = config.folder.clone();
                blocking(move || index::wipe(&folder)).await?;
                writer = search.writer().await?;
                Progress::begin(config, kept)
            }
        };
        // From here on the feed is kept.
        let mut tx = Tx::new();
        follower.advance(&mut tx, kept);
        store.commit(tx).await?;
        follower.moved(Position(progress.position));
        Ok(Keeper {
            search: search.clone(),
            writer,
            durable: follower.cursor(),
            follower,
            progress,
            pending: Vec::new(),
            changes: 0,
            committed: Instant::now(),
            pause: PAUSE,
            told: kept,
        })
    }

    fn store(&self) -> &Store {
        &self.search.inner.store
    }

    /// Follows the feed for a while, reads a page of what was there before, commits: each if it is time. Dropping it half-way
    /// loses nothing: what was not counted as done is done again.
    async fn step(&mut self) -> Result<(), Error> {
        let wait = match (self.progress.scan.is_some(), self.changes > 0) {
            (true, _) => LISTEN,
            (false, true) => (self.committed + self.pause).saturating_duration_since(Instant::now()),
            (false, false) => FAILED,
        };
        if let Ok(commits) = timeout(wait, self.follower.next(COMMITS)).await {
            self.follow(commits?).await?;
        }
        if let Some(scan) = self.progress.scan {
            let next = self.read_on(scan).await?;
            self.apply().await?;
            self.progress.scan = next;
            if self.progress.scan.is_none() {
                tracing::info!("the index of the search is whole");
                self.commit().await?;
            }
        }
        let due = self.changes > 0 && self.committed.elapsed() >= self.pause;
        let far = self.progress.position >= self.durable.0 + LAZY;
        if due || far || self.changes >= MANY {
            self.commit().await?;
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Error> {
        let (writer, progress, begun) = (self.writer.clone(), self.progress.clone(), Instant::now());
        blocking(move || writer.commit(&progress)).await?;
        self.changes = 0;
        self.committed = Instant::now();
        self.pause = (begun.elapsed() * TIMES).clamp(PAUSE, LONGEST_PAUSE);
        self.durable = Position(self.progress.position);
        // The feed is kept from here on. It may be kept a little longer.
        if self.durable.0 >= self.told.0 + LAZY {
            let mut tx = Tx::new();
            self.follower.advance(&mut tx, self.durable);
            self.store().commit(tx).await?;
            self.told = self.durable;
        }
        Ok(())
    }

    async fn follow(&mut self, commits: Vec<Commit>) -> Result<(), Error> {
        let snapshot = self.store().snapshot().await?;
        let last = commits.last().map(|commit| commit.last);
        for fact in commits.into_iter().flat_map(|commit| commit.facts) {
            self.fact(&snapshot, fact).await?;
        }
        self.apply().await?;
        if let Some(last) = last {
            self.follower.moved(last);
            self.progress.position = last.0;
        }
        Ok(())
    }

    /// Makes the changes that were gathered: splitting texts into words is work, which is done beside the tasks of the network.
    async fn apply(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let (writer, words, changes) =
            (self.writer.clone(), self.search.inner.words.clone(), std::mem::take(&mut self.pending));
        self.changes += changes.len();
        blocking(move || writer.apply(&words, changes)).await
    }

    async fn fact(&mut self, snapshot: &Snapshot, fact: Fact) -> Result<(), Error> {
        match fact {
            Fact::Event { room, event: no, .. } => {
                let event = self.store().events().get(snapshot, room, no).await?;
                let Some(event) = event else { return Ok(()) };
                match event.header.kind.as_str() {
                    "m.room.join_rules" | "m.room.history_visibility" => self.room(snapshot, room).await,
                    _ if texts::key(&event.header).is_some() => self.event(snapshot, room, no, &event).await,
                    _ => Ok(()),
                }
            }
            Fact::Changed { room, event: no } => {
                // Not from the cache, which may not have heard of it yet.
                let Some(event) = snapshot.get(&schema::EVENTS, &(room, no)).await? else { return Ok(()) };
                self.event(snapshot, room, no, &event).await
            }
            // With us comes all that the room was before.
            Fact::Member { room, local: true, .. } => self.room(snapshot, room).await,
            Fact::Member { room, user, local: false, .. } => self.member(snapshot, room, user).await,
            Fact::Profile { user } => self.user(snapshot, user).await,
            Fact::Room { .. } | Fact::User { .. } | Fact::Devices { .. } | Fact::Pushers { .. } => Ok(()),
        }
    }

    /// An event as it is now.
    async fn event(
        &mut self,
        snapshot: &Snapshot,
        room: RoomNo,
        no: EventNo,
        event: &StoredEvent,
    ) -> Result<(), Error> {
        if !self.search.inner.config.messages {
            return Ok(());
        }
        let sender = self.store().names().user(snapshot, &event.header.sender).await?;
        let said = match (texts::text(event), sender, event.header.at) {
            (Some(text), Some(sender), Some(at)) => {
                Some(Said { sender, ts: self.when(snapshot, room, event).await?, at, text })
            }
            _ => None,
        };
        self.pending.push(Change::Event { room, event: no, said });
        Ok(())
    }

    /// When something was said: of an edit, the message.
    async fn when(&self, snapshot: &Snapshot, room: RoomNo, event: &StoredEvent) -> Result<u64, Error> {
        if let Some(relation) = event.header.relates_to.as_ref().filter(|it| it.rel_type == "m.replace")
            && let Some((place, parent)) = self.store().events().by_id(snapshot, &relation.event_id).await?
            && place.room == room
        {
            return Ok(parent.header.origin_server_ts);
        }
        Ok(event.header.origin_server_ts)
    }

    /// Whether anybody may find the members of a room: "rooms that have a `public` join rule", "a `world_readable` history
    /// visibility". Not where none of us is: what we know of it is old.
    async fn room(&mut self, snapshot: &Snapshot, room: RoomNo) -> Result<(), Error> {
        let head = snapshot.get(&schema::ROOMS, &room).await?;
        let ours = snapshot.has(&schema::ROOM_SERVERS, &(room, self.search.inner.config.server.clone())).await?;
        let open = match head.filter(|_| ours) {
            Some(head) => self.is_open(snapshot, room, &head).await?,
            None => false,
        };
        self.pending.push(Change::Open { room, open });
        Ok(())
    }

    async fn is_open(&self, snapshot: &Snapshot, room: RoomNo, head: &Head) -> Result<bool, Error> {
        #[derive(Default, Deserialize)]
        struct Content {
            join_rule: Option<String>,
            history_visibility: Option<String>,
        }
        for kind in ["m.room.join_rules", "m.room.history_visibility"] {
            let key = snapshot.get(&schema::STATE_KEYS, &(room, kind.to_owned(), String::new())).await?;
            let Some(key) = key else { continue };
            let Some(no) = self.store().state(snapshot, room).get(head.root, key).await? else { continue };
            let Some(event) = self.store().events().get(snapshot, room, no).await? else { continue };
            let content: Content = serde_json::from_slice(event.content()).unwrap_or_default();
            if content.join_rule.as_deref() == Some("public")
                || content.history_visibility.as_deref() == Some("world_readable")
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Somebody of another server in a room, as it is now.
    async fn member(&mut self, snapshot: &Snapshot, room: RoomNo, user: UserNo) -> Result<(), Error> {
        let member = snapshot.get(&schema::MEMBERS, &(room, user)).await?;
        let terms = match member.filter(|member| member.membership == Membership::Join) {
            Some(member) => {
                let event = self.store().events().get(snapshot, room, member.event).await?;
                let name = event.and_then(|event| displayname(event.content()));
                Some(self.terms(snapshot, user, name.as_deref()).await?)
            }
            None => None,
        };
        self.pending.push(Change::Person { user, room, terms });
        Ok(())
    }

    /// An account of ours, as it is now.
    async fn user(&mut self, snapshot: &Snapshot, user: UserNo) -> Result<(), Error> {
        let account = snapshot.get(&schema::USERS, &user).await?;
        let terms = match account.filter(|account| account.deactivated.is_none() && !account.locked) {
            Some(_) => {
                let name = snapshot.get(&schema::PROFILES, &(user, "displayname".to_owned())).await?;
                let name = name.and_then(|json| serde_json::from_slice::<String>(&json).ok());
                Some(self.terms(snapshot, user, name.as_deref()).await?)
            }
            None => None,
        };
        self.pending.push(Change::Person { user, room: NOWHERE, terms });
        Ok(())
    }

    /// By what somebody is found.
    async fn terms(&self, snapshot: &Snapshot, user: UserNo, name: Option<&str>) -> Result<Vec<String>, Error> {
        let id = self.store().names().user_id(snapshot, user).await?;
        Ok(people::terms(&self.search.inner.words, &id, name))
    }

    /// Reads a page of what is in the store, and answers where the next one begins. The snapshot is never older than what was
    /// followed, so that nothing is put back that was taken away since.
    async fn read_on(&mut self, scan: Scan) -> Result<Option<Scan>, Error> {
        let snapshot = self.store().snapshot().await?;
        let snapshot = &snapshot;
        Ok(match scan {
            Scan::Users(after) => {
                let rows = page(snapshot, &schema::USERS, after.map(UserNo)).await?;
                for (user, _) in &rows {
                    self.user(snapshot, *user).await?;
                }
                Some(rows.last().map_or(Scan::Rooms(None), |(user, _)| Scan::Users(Some(user.0))))
            }
            Scan::Rooms(after) => {
                let rows = page(snapshot, &schema::ROOMS, after.map(RoomNo)).await?;
                for (room, _) in &rows {
                    self.room(snapshot, *room).await?;
                }
                Some(rows.last().map_or(Scan::Members(None), |(room, _)| Scan::Rooms(Some(room.0))))
            }
            Scan::Members(after) => {
                let rows =
                    page(snapshot, &schema::MEMBERS, after.map(|(room, user)| (RoomNo(room), UserNo(user)))).await?;
                for ((room, user), _) in &rows {
                    if !self.is_ours(snapshot, *user).await? {
                        self.member(snapshot, *room, *user).await?;
                    }
                }
                Some(rows.last().map_or(Scan::Events(None), |((room, user), _)| Scan::Members(Some((room.0, user.0)))))
            }
            Scan::Events(_) if !self.search.inner.config.messages => None,
            Scan::Events(after) => {
                let rows = page(snapshot, &schema::EVENTS, after.map(|(room, no)| (RoomNo(room), EventNo(no)))).await?;
                for ((room, no), event) in &rows {
                    if texts::key(&event.header).is_some() {
                        self.event(snapshot, *room, *no, event).await?;
                    }
                }
                rows.last().map(|((room, no), _)| Scan::Events(Some((room.0, no.0))))
            }
        })
    }

    async fn is_ours(&self, snapshot: &Snapshot, user: UserNo) -> Result<bool, Error> {
        let id = self.store().names().user_id(snapshot, user).await?;
        let server = id.split_once(':').map(|(_, server)| server);
        Ok(server == Some(&*self.search.inner.config.server))
    }
}

fn displayname(content: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Content {
        displayname: Option<serde_json::Value>,
    }
    serde_json::from_slice::<Content>(content).ok()?.displayname?.as_str().map(str::to_owned)
}

async fn page<K: stoa_store::codec::KeyPart + 'static, V: stoa_store::Value + 'static>(
    snapshot: &Snapshot,
    table: &stoa_store::Table<K, V>,
    after: Option<K>,
) -> Result<Vec<(K, V)>, Error> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    Ok(snapshot.range(table, from, Bound::<K>::Unbounded, Direction::Forward, ROWS).await?)
}
