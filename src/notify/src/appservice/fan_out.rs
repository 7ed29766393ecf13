//! From the feed to what waits for each application service: a follower with a durable cursor. The rows and how far it came are one
//! commit, so nothing is missed and nothing is noted twice.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use stoa_accounts::{Service, Services};
use stoa_store::{
    Commit, EventNo, Fact, Follower, Membership, Position, RoomNo, Snapshot, Tx, UserNo,
    rows::{
        receipts::PRIVATE,
        services::{self, ServiceItem},
    },
    schema,
};

use super::{
    Error, Inner,
    interest::{Interest, Rooms},
};

/// The name of the follower; it must be among the options of the store.
pub const FOLLOWER: &str = "appservices";

/// How many commits are read at once.
const COMMITS: usize = 200;
/// After how many rows a transaction is committed.
const ROWS: usize = 10_000;
/// Where nothing is to be written, the cursor is written only after so many positions.
const LAZY: u64 = 1_000;
/// How long it waits when the store fails.
const PAUSE: Duration = Duration::from_secs(1);

/// What some commits mean for application services.
struct Fan<'a> {
    inner: &'a Inner,
    services: Arc<Services>,
    snapshot: Snapshot,
    tx: Tx,
    rows: usize,
    /// The commit, and how many items it has for each service.
    at: Position,
    nth: HashMap<String, u32>,
    names: Rooms,
    /// What is said once is enough.
    said: BTreeSet<(usize, ServiceItem)>,
    written: BTreeSet<String>,
}

impl Inner {
    /// Follows the feed until the store is closed.
    pub(super) async fn follow(&self) {
        loop {
            match self.follow_services().await {
                Ok(()) => {}
                Err(Error::Store(stoa_store::Error::Closed)) => return,
                Err(why) => {
                    tracing::error!(%why, "cannot work out what application services are to be told");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Follows for as long as there are the same services.
    async fn follow_services(&self) -> Result<(), Error> {
        let mut changed = self.accounts.services_changed();
        let services = changed.borrow_and_update().clone();
        let mut follower = self.store.follow(FOLLOWER).await?;
        // The place is written down at once: who began without one would begin at the end again.
        let mut durable = follower.cursor();
        let mut tx = Tx::new();
        follower.advance(&mut tx, durable);
        self.store.commit(tx).await?;
        *self.interest.write() = Interest::read(&self.store, services.clone(), durable).await?;
        loop {
            let commits = tokio::select! {
                commits = follower.next(COMMITS) => commits?,
                _ = changed.changed() => break,
            };
            self.follow_once(&services, &mut follower, &mut durable, commits).await?;
        }
        let mut tx = Tx::new();
        follower.advance(&mut tx, follower.cursor());
        self.store.commit(tx).await?;
        Ok(())
    }

    async fn follow_once(
        &self,
        services: &Arc<Services>,
        follower: &mut Follower,
        durable: &mut Position,
        commits: Vec<Commit>,
    ) -> Result<(), Error> {
        let mut commits = commits.into_iter().peekable();
        while commits.peek().is_some() {
            let mut fan = Fan::new(self, services.clone()).await?;
            let mut upto = follower.cursor();
            for commit in commits.by_ref() {
                upto = commit.last;
                fan.commit(commit).await?;
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
            for service in fan.written {
                self.line(&service).wake.notify_one();
            }
        }
        Ok(())
    }
}

impl<'a> Fan<'a> {
    async fn new(inner: &'a Inner, services: Arc<Services>) -> Result<Fan<'a>, Error> {
        Ok(Fan {
            inner,
            services,
            snapshot: inner.store.snapshot().await?,
            tx: Tx::new(),
            rows: 0,
            at: Position::MIN,
            nth: HashMap::new(),
            names: Rooms::default(),
            said: BTreeSet::new(),
            written: BTreeSet::new(),
        })
    }

    /// Who came is there for everything in a commit, and so is who went.
    async fn commit(&mut self, commit: Commit) -> Result<(), Error> {
        self.at = commit.last;
        self.nth.clear();
        for fact in &commit.facts {
            self.arrive(*fact).await?;
        }
        for fact in &commit.facts {
            self.fact(*fact).await?;
        }
        for fact in commit.facts {
            if let Fact::Member { room, user, membership, local: true } = fact
                && membership != Membership::Join
            {
                self.inner.interest.write().moved(room, user, false);
            }
        }
        Ok(())
    }

    async fn arrive(&mut self, fact: Fact) -> Result<(), Error> {
        match fact {
            Fact::Profile { user } if !self.inner.interest.read().knows(user) => {
                let id = self.inner.store.names().user_id(&self.snapshot, user).await?;
                self.inner.interest.write().meet(user, &id);
            }
            Fact::Member { room, user, membership: Membership::Join, local: true } => {
                self.inner.interest.write().moved(room, user, true);
            }
            _ => {}
        }
        Ok(())
    }

    async fn fact(&mut self, fact: Fact) -> Result<(), Error> {
        let services = self.services.clone();
        let told = services.all().iter().enumerate().filter(|(_, service)| service.url.is_some());
        match fact {
            Fact::Event { room, event, .. } => self.event(told, room, event).await,
            Fact::Member { room, user, membership, local } => {
                for (nth, service) in told {
                    self.member((nth, service), room, user, membership, local).await?;
                }
                Ok(())
            }
            Fact::Room { room, at } => {
                for (nth, service) in told.filter(|(_, service)| service.ephemeral) {
                    let wants = self.inner.wants_room(&self.snapshot, (nth, service), room, &mut self.names).await?;
                    if wants && self.snapshot.has(&schema::RECEIPTS_BY_ROOM, &(room, at)).await? {
                        self.put(nth, service, ServiceItem::Receipt { room, at });
                    }
                }
                Ok(())
            }
            Fact::User { user, at } => {
                for (nth, service) in told {
                    if self.inner.interest.read().is_mine(nth, user) {
                        self.own((nth, service), user, at).await?;
                    }
                }
                Ok(())
            }
            Fact::Devices { user, .. } => {
                for (nth, service) in told.filter(|(_, service)| service.encryption) {
                    if self.inner.wants_person(&self.snapshot, nth, user).await? {
                        self.put(nth, service, ServiceItem::Devices { user });
                    }
                }
                Ok(())
            }
            Fact::Changed { .. } | Fact::Profile { .. } | Fact::Pushers { .. } => Ok(()),
        }
    }

    async fn event<'s>(
        &mut self,
        told: impl Iterator<Item = (usize, &'s Arc<Service>)>,
        room: RoomNo,
        event: EventNo,
    ) -> Result<(), Error> {
        let Some(stored) = self.inner.store.events().get(&self.snapshot, room, event).await? else { return Ok(()) };
        for service in told {
            let found = self.inner.wants_event(&self.snapshot, service, (room, &stored), &mut self.names).await?;
            if found {
                self.put(service.0, service.1, ServiceItem::Event { room, event });
            }
        }
        Ok(())
    }

    async fn member(
        &mut self,
        (nth, service): (usize, &Arc<Service>),
        room: RoomNo,
        user: UserNo,
        membership: Membership,
        local: bool,
    ) -> Result<(), Error> {
        let mine = local && self.inner.interest.read().is_mine(nth, user);
        if mine && membership == Membership::Invite {
            let own = self.snapshot.get(&schema::MEMBERSHIPS, &(user, room)).await?;
            // Where the room is known, its event says so.
            if own.is_some_and(|own| own.event.is_none() && own.outside.is_some()) {
                self.put(nth, service, ServiceItem::Outside { user, room });
            }
        }
        if mine || !service.encryption || !self.inner.interest.read().has_room(nth, room) {
            return Ok(());
        }
        if !self.snapshot.get(&schema::ROOMS, &room).await?.is_some_and(|head| head.encrypted) {
            return Ok(());
        }
        if membership == Membership::Join {
            self.put(nth, service, ServiceItem::Devices { user });
        } else if !self.inner.wants_person(&self.snapshot, nth, user).await? {
            self.put(nth, service, ServiceItem::Left { user });
        }
        Ok(())
    }

    /// Something that only one of a service's users is shown.
    async fn own(&mut self, (nth, service): (usize, &Arc<Service>), user: UserNo, at: Position) -> Result<(), Error> {
        if service.ephemeral {
            let receipt = self.snapshot.get(&schema::RECEIPTS_BY_USER, &(user, at)).await?;
            if receipt.is_some_and(|receipt| receipt.kind == PRIVATE) {
                self.put(nth, service, ServiceItem::PrivateReceipt { user, at });
            }
        }
        if service.encryption {
            self.put(nth, service, ServiceItem::Keys { user });
        }
        Ok(())
    }

    fn put(&mut self, place: usize, service: &Service, item: ServiceItem) {
        if !matches!(item, ServiceItem::Event { .. }) && !self.said.insert((place, item)) {
            return;
        }
        let nth = self.nth.entry(service.id.clone()).or_default();
        services::put_item(&mut self.tx, &service.id, self.at, *nth, &item);
        *nth += 1;
        self.rows += 1;
        self.written.insert(service.id.clone());
    }
}
