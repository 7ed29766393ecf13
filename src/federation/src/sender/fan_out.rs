//! From the feed to what waits for each server: a follower with a durable cursor. The rows and how far it came are one
//! commit, so nothing is missed and little is done twice.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use stoa_event::{
    auth::{Membership as Word, kind},
    hash::sha256,
    ids::{OwnedServerName, ServerName, UserId},
    pdu::Pdu,
};
use stoa_store::{
    Direction, EventNo, Fact, Follower, Membership, Position, RoomNo, Snapshot, Tx, UserNo,
    rows::{
        self,
        events::StoredEvent,
        outbox::{CROSS_SIGNING, ToldDevice, WaitingDevices, WaitingEvent},
    },
    schema,
    state::Class,
};

use super::passing::{Passing, Read};
use crate::{Error, Inner};

/// The name of the follower; it must be among the options of the store.
pub const FOLLOWER: &str = "federation";

/// How many commits are read at once.
const COMMITS: usize = 200;
/// After how many rows a transaction is committed.
const ROWS: usize = 10_000;
/// Where nothing is to be written, the cursor is written only after so many positions.
const LAZY: u64 = 1_000;
/// How long it waits when the store fails.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a receipt may wait for others, for each server of the room; from when on it does, and at most.
const RECEIPT_MS: u64 = 20;
const RECEIPT_MIN_MS: u64 = 200;
const RECEIPT_MAX_MS: u64 = 30_000;
/// With more changes of members than that since an event, the servers of now stand for those of then.
const CHANGES: usize = 1_000;
/// How many devices that are gone are remembered of a user.
const GONE: usize = 100;

/// What some commits mean for other servers.
struct Fan<'a> {
    inner: &'a Inner,
    snapshot: Snapshot,
    tx: Tx,
    rows: usize,
    /// The servers of rooms that were asked for before.
    servers: HashMap<RoomNo, Arc<[OwnedServerName]>>,
    /// Whose devices were looked at.
    devices: HashSet<UserNo>,
    /// For whom how much was written.
    written: BTreeMap<OwnedServerName, u32>,
    receipts: Vec<(Arc<[OwnedServerName]>, Receipt)>,
    /// Events for which receipts came before them.
    awaited: Vec<String>,
}

struct Receipt {
    room: Arc<str>,
    user: Arc<str>,
    thread: String,
    read: Read,
}

impl Inner {
    /// Follows the feed until the store is closed.
    pub(super) async fn follow(&self) {
        let mut follower = loop {
            match self.begin_to_follow().await {
                Ok(follower) => break follower,
                Err(stoa_store::Error::Closed) => return,
                Err(why) => tracing::error!(%why, "cannot follow the feed"),
            }
            tokio::time::sleep(PAUSE).await;
        };
        // How far the cursor on disk is.
        let mut durable = follower.cursor();
        loop {
            match self.follow_once(&mut follower, &mut durable).await {
                Ok(()) => {}
                Err(Error::Store(stoa_store::Error::Closed)) => return,
                Err(why) => {
                    tracing::error!(%why, "cannot work out what other servers are to be sent");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// The place is written down at once: who began without one would begin at the end again.
    async fn begin_to_follow(&self) -> Result<Follower, stoa_store::Error> {
        let follower = self.store.follow(FOLLOWER).await?;
        let mut tx = Tx::new();
        follower.advance(&mut tx, follower.cursor());
        self.store.commit(tx).await?;
        Ok(follower)
    }

    async fn follow_once(&self, follower: &mut Follower, durable: &mut Position) -> Result<(), Error> {
        let commits = follower.next(COMMITS).await?;
        let mut commits = commits.into_iter().peekable();
        while commits.peek().is_some() {
            let mut fan = Fan::new(self).await?;
            let mut upto = follower.cursor();
            for commit in commits.by_ref() {
                for fact in commit.facts {
                    fan.fact(fact).await?;
                }
                upto = commit.last;
                if fan.rows >= ROWS {
                    break;
                }
            }
            if !fan.tx.is_empty() || upto.0 >= durable.0 + LAZY {
                follower.advance(&mut fan.tx, upto);
                self.store.commit(fan.tx).await?;
                *durable = upto;
            }
            follower.moved(upto);
            for (server, rows) in fan.written {
                self.sender.destinations.enqueue(server, rows);
            }
            for (servers, receipt) in fan.receipts {
                self.pass_receipt(&servers, &receipt);
            }
            for id in fan.awaited {
                self.hear_parked(&id).await?;
            }
        }
        Ok(())
    }

    /// In rooms of many servers receipts wait for each other: what one person reads must not become a flood.
    fn pass_receipt(&self, servers: &[OwnedServerName], receipt: &Receipt) {
        let Receipt { room, user, thread, read } = receipt;
        let rest = (servers.len() as u64 * RECEIPT_MS).min(RECEIPT_MAX_MS);
        for server in servers {
            let add = |passing: &mut Passing| passing.receipt(room.clone(), user.clone(), thread.clone(), read.clone());
            if rest < RECEIPT_MIN_MS {
                self.sender.destinations.pass(server.clone(), add);
            } else {
                self.sender.destinations.pass_later(server.clone(), self.env.now_ms() + rest, add);
            }
        }
    }

    /// Passes an event of another server's user, which that server gave to us alone, on to all others in the room.
    pub(crate) async fn pass_on(&self, origin: &ServerName, pdu: &Pdu) -> Result<(), Error> {
        let mut fan = Fan::new(self).await?;
        let place = fan.snapshot.get(&schema::EVENT_IDS, &pdu.event_id().to_string()).await?;
        let Some(place) = place else { return Ok(()) };
        let event = self.store.events().get(&fan.snapshot, place.room, place.event).await?;
        let Some(at) = event.and_then(|event| event.header.at) else { return Ok(()) };
        for server in fan.servers(place.room).await?.iter().filter(|server| *server != origin) {
            fan.put_event(server, WaitingEvent { room: place.room, at, event: place.event });
        }
        if !fan.tx.is_empty() {
            self.store.commit(fan.tx).await?;
        }
        for (server, rows) in fan.written {
            self.sender.destinations.enqueue(server, rows);
        }
        Ok(())
    }

    /// The other servers that are in a room, as far as the settings let us speak with them.
    pub(crate) async fn servers_of(&self, snapshot: &Snapshot, room: RoomNo) -> Result<Vec<OwnedServerName>, Error> {
        let rows = snapshot.scan(&schema::ROOM_SERVERS, &room, Direction::Forward, usize::MAX).await?;
        let mut names: BTreeSet<String> = rows.into_iter().map(|((_, server), _)| server).collect();
        // Who is in the room is what we were told until all members are known.
        if let Some(partial) = snapshot.get(&schema::PARTIAL_ROOMS, &room).await? {
            names.extend(partial.servers);
        }
        let names = names.into_iter().filter_map(|server| OwnedServerName::try_from(server).ok());
        Ok(names.filter(|server| self.is_other(server)).collect())
    }

    /// Whether it is another server, and one that the settings let us speak with.
    pub(crate) fn is_other(&self, server: &ServerName) -> bool {
        server != self.rooms.server() && self.remote.is_allowed(server)
    }

    /// Whether a user id is of this server.
    pub(crate) fn is_ours(&self, user: &str) -> bool {
        user.split_once(':').is_some_and(|(_, server)| server == self.rooms.server().as_str())
    }
}

impl<'a> Fan<'a> {
    async fn new(inner: &'a Inner) -> Result<Fan<'a>, Error> {
        Ok(Fan {
            inner,
            snapshot: inner.store.snapshot().await?,
            tx: Tx::new(),
            rows: 0,
            servers: HashMap::new(),
            devices: HashSet::new(),
            written: BTreeMap::new(),
            receipts: Vec::new(),
            awaited: Vec::new(),
        })
    }

    async fn fact(&mut self, fact: Fact) -> Result<(), Error> {
        match fact {
            Fact::Event { room, event, at } => self.event(room, event, at).await,
            Fact::Room { room, at } => self.receipt(room, at).await,
            Fact::Devices { user, .. } => self.devices(user).await,
            Fact::Member { room, user, membership, local } if membership != Membership::Join => {
                self.inner.out_of_sight(&self.snapshot, room, user, local).await
            }
            _ => Ok(()),
        }
    }

    async fn servers(&mut self, room: RoomNo) -> Result<Arc<[OwnedServerName]>, Error> {
        if let Some(known) = self.servers.get(&room) {
            return Ok(known.clone());
        }
        let servers: Arc<[_]> = self.inner.servers_of(&self.snapshot, room).await?.into();
        self.servers.insert(room, servers.clone());
        Ok(servers)
    }

    /// The servers that were in a room before an event: those that are now, but for what changed since. Who came later must
    /// not be sent what was said before.
    async fn servers_before(&mut self, room: RoomNo, event: &StoredEvent) -> Result<Arc<[OwnedServerName]>, Error> {
        let now = self.servers(room).await?;
        let head = self.snapshot.get(&schema::ROOMS, &room).await?;
        let (Some(before), Some(head)) = (event.header.before, head) else { return Ok(now) };
        if before == head.root || head.partial {
            return Ok(now);
        }
        let mut changes = self.inner.store.state(&self.snapshot, room).changes(before, head.root).await?;
        changes.retain(|change| change.key.class() == Class::Members);
        if changes.is_empty() || changes.len() > CHANGES {
            return Ok(now);
        }
        let mut more: BTreeMap<OwnedServerName, i64> = BTreeMap::new();
        for change in changes {
            for (member, by) in [(change.before, -1), (change.after, 1)] {
                let Some(member) = member else { continue };
                let member = self.inner.store.events().get(&self.snapshot, room, member).await?;
                if let Some(server) = member.and_then(|member| joined_of(&member)) {
                    *more.entry(server).or_default() += by;
                }
            }
        }
        more.retain(|server, by| *by != 0 && self.inner.is_other(server));
        let keys: Vec<_> = more.keys().map(|server| (room, server.to_string())).collect();
        let counts = self.snapshot.get_many(&schema::ROOM_SERVERS, keys).await?;
        let mut servers: BTreeSet<OwnedServerName> = now.iter().cloned().collect();
        for ((server, by), count) in more.into_iter().zip(counts) {
            if i64::from(count.unwrap_or_default()) > by {
                servers.insert(server);
            } else {
                servers.remove(&server);
            }
        }
        Ok(servers.into_iter().collect())
    }

    fn put_event(&mut self, server: &OwnedServerName, waiting: WaitingEvent) {
        rows::outbox::put_event(&mut self.tx, server.as_str(), waiting);
        self.rows += 1;
        *self.written.entry(server.clone()).or_default() += 1;
    }

    /// An event of ours goes to every server in the room, and to that of a user whom it puts out.
    async fn event(&mut self, room: RoomNo, event: EventNo, at: Position) -> Result<(), Error> {
        let Some(stored) = self.inner.store.events().get(&self.snapshot, room, event).await? else { return Ok(()) };
        if !self.inner.is_ours(&stored.header.sender) {
            if self.inner.parked.has(&stored.header.event_id) {
                self.awaited.push(stored.header.event_id.clone());
            }
            return Ok(());
        }
        let servers = self.servers_before(room, &stored).await?;
        let out = match stored.header.kind == kind::MEMBER {
            true => put_out(stored.header.state_key.as_deref(), stored.content()),
            false => None,
        };
        let out = out.filter(|server| self.inner.is_other(server) && !servers.contains(server));
        if (servers.is_empty() && out.is_none()) || !self.federates(room).await? {
            return Ok(());
        }
        for server in servers.iter().chain(&out) {
            self.put_event(server, WaitingEvent { room, at, event });
        }
        Ok(())
    }

    /// Whether a room is for other servers too (`m.federate` of its create event).
    async fn federates(&self, room: RoomNo) -> Result<bool, Error> {
        let Some(head) = self.snapshot.get(&schema::ROOMS, &room).await? else { return Ok(false) };
        let create = self.inner.store.events().get(&self.snapshot, room, head.create).await?;
        let Some(create) = create else { return Ok(false) };
        let content: serde_json::Value = serde_json::from_slice(create.content()).unwrap_or_default();
        Ok(content.get("m.federate") != Some(&false.into()))
    }

    /// A public receipt of a user of ours goes to every server in the room. One that is not told is superseded some time.
    async fn receipt(&mut self, room: RoomNo, at: Position) -> Result<(), Error> {
        let servers = self.servers(room).await?;
        if servers.is_empty() {
            return Ok(());
        }
        let Some(key) = self.snapshot.get(&schema::RECEIPTS_BY_ROOM, &(room, at)).await? else { return Ok(()) };
        let names = self.inner.store.names();
        let user = names.user_id(&self.snapshot, key.user).await?;
        if key.kind != "m.read" || !self.inner.is_ours(&user) {
            return Ok(());
        }
        let row = (room, key.user, key.kind, key.thread.clone());
        let Some(receipt) = self.snapshot.get(&schema::RECEIPTS, &row).await? else { return Ok(()) };
        let room = names.room_id(&self.snapshot, room).await?;
        let read = Read { event: receipt.event_id, ts: receipt.ts };
        self.receipts.push((servers, Receipt { room, user, thread: key.thread, read }));
        Ok(())
    }

    /// News of the devices of a user of ours go to all servers that share a room with the user.
    async fn devices(&mut self, user: UserNo) -> Result<(), Error> {
        let id = self.inner.store.names().user_id(&self.snapshot, user).await?;
        if !self.devices.insert(user) || !self.inner.is_ours(&id) {
            return Ok(());
        }
        let mut servers = BTreeSet::new();
        for room in &self.inner.store.who().joined(user) {
            servers.extend(self.servers(RoomNo(room)).await?.iter().cloned());
        }
        if servers.is_empty() {
            // Who comes later asks for the whole list.
            return Ok(());
        }
        let changes = self.changes(user).await?;
        // The first and the last stand for those between.
        for waiting in changes.first().into_iter().chain(changes.last().filter(|_| changes.len() > 1)) {
            for server in &servers {
                rows::outbox::put_devices(&mut self.tx, server.as_str(), *waiting);
                self.rows += 1;
                *self.written.entry(server.clone()).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Notes which devices of a user are not as other servers were told, and numbers the changes.
    async fn changes(&mut self, user: UserNo) -> Result<Vec<WaitingDevices>, Error> {
        let told = rows::outbox::told_devices(&self.snapshot, user).await?;
        let mut next = told.iter().map(|(_, told)| told.stream).max().unwrap_or(0);
        let mut before = rows::outbox::stream_of(&told);
        let mut old: BTreeMap<_, _> = told.iter().map(|(device, told)| (device.as_str(), told)).collect();
        let mut changes = Vec::new();
        for (device, digest) in self.digests(user).await? {
            let same = old.remove(&*device).is_some_and(|told| told.digest.as_ref() == Some(&digest));
            if !same {
                changes.push((device, Some(digest)));
            }
        }
        let gone = old.iter().filter(|(_, told)| told.digest.is_some());
        changes.extend(gone.map(|(device, _)| ((*device).to_owned(), None)));
        let mut waiting = Vec::with_capacity(changes.len());
        for (device, digest) in changes {
            next += 1;
            waiting.push(WaitingDevices { user, stream: next, before });
            rows::outbox::put_told(&mut self.tx, user, &device, &ToldDevice { stream: next, digest });
            if device != CROSS_SIGNING {
                before = next;
            }
        }
        let mut gone: Vec<_> = told.iter().filter(|(_, told)| told.digest.is_none()).collect();
        gone.sort_by_key(|(_, told)| std::cmp::Reverse(told.stream));
        for (device, _) in gone.iter().skip(GONE) {
            rows::outbox::delete_told(&mut self.tx, user, device);
        }
        Ok(waiting)
    }

    /// The devices of a user and the cross-signing keys, each with a hash of what other servers are told of it.
    async fn digests(&self, user: UserNo) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let mut found = Vec::new();
        let devices = self.snapshot.scan(&schema::DEVICES, &user, Direction::Forward, usize::MAX).await?;
        for ((_, device), _) in devices {
            let keys = self.snapshot.get(&schema::DEVICE_KEYS, &(user, device.clone())).await?;
            found.push((device, sha256(&keys.unwrap_or_default()).to_vec()));
        }
        let mut signing = Vec::new();
        for usage in ["master", "self_signing"] {
            let key = self.snapshot.get(&schema::CROSS_SIGNING_KEYS, &(user, usage.to_owned())).await?;
            signing.extend_from_slice(&key.unwrap_or_default());
        }
        if !signing.is_empty() {
            found.push((CROSS_SIGNING.to_owned(), sha256(&signing).to_vec()));
        }
        Ok(found)
    }
}

/// The server of the user whom a member event lets in.
fn joined_of(member: &StoredEvent) -> Option<OwnedServerName> {
    let user = <&UserId>::try_from(member.header.state_key.as_deref()?).ok()?;
    (Word::of_content(member.content()) == Word::Join).then(|| user.server_name().to_owned())
}

/// The server of a user who is put out of a room: it hears of that even if nobody of it is in the room any more. An invite
/// goes by its own request.
fn put_out(target: Option<&str>, content: &[u8]) -> Option<OwnedServerName> {
    let target = <&UserId>::try_from(target?).ok()?;
    matches!(Word::of_content(content), Word::Leave | Word::Ban).then(|| target.server_name().to_owned())
}
