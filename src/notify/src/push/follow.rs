//! From the feed to what waits for each pusher: a follower with a durable cursor. The rows and how far it came are one commit, so
//! nothing is missed. A room costs as much as those of its members who have pushers, however many others it has.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use roaring::RoaringBitmap;
use stoa_store::{
    Direction, EventNo, Fact, Follower, Membership, Position, RoomNo, Snapshot, Tx, UserNo,
    rows::{
        self,
        pushers::{PusherKey, Waiting},
    },
    schema,
};

use super::{Error, Inner};

/// The name of the follower; it must be among the options of the store.
pub const FOLLOWER: &str = "push";

/// How many commits are read at once.
const COMMITS: usize = 200;
/// After how many rows a transaction is committed.
const ROWS: usize = 5_000;
/// Where nothing is to be written, the cursor is written only after so many positions.
const LAZY: u64 = 1_000;
/// How long it waits when the store fails.
const PAUSE: Duration = Duration::from_secs(1);
/// How long it waits at most for what is in memory to be as new as what is on disk.
const SETTLE: Duration = Duration::from_secs(5);
/// How many users are read at once at the start.
const USERS: usize = 10_000;
/// How many pushers of a user are told.
const PUSHERS: usize = 100;

/// What some commits mean for pushers.
struct Batch<'a> {
    inner: &'a Inner,
    snapshot: Snapshot,
    tx: Tx,
    rows: usize,
    /// The active pushers of users, read once.
    pushers: HashMap<UserNo, Arc<[PusherKey]>>,
    /// Whose number of unread messages may have become less, and where.
    read: BTreeMap<UserNo, Position>,
    told: BTreeSet<PusherKey>,
    /// Somebody is told of other things from here on: what was before must not be looked at again after a restart.
    turned: bool,
}

impl Inner {
    /// Follows the feed until the store is closed.
    pub(super) async fn follow(&self) {
        let (mut follower, mut users) = loop {
            match self.begin_to_follow().await {
                Ok(begun) => break begun,
                Err(Error::Store(stoa_store::Error::Closed)) => return,
                Err(why) => tracing::error!(%why, "cannot follow the feed"),
            }
            tokio::time::sleep(PAUSE).await;
        };
        // How far the cursor on disk is.
        let mut durable = follower.cursor();
        loop {
            match self.follow_once(&mut follower, &mut users, &mut durable).await {
                Ok(()) => {}
                Err(Error::Store(stoa_store::Error::Closed)) => return,
                Err(why) => {
                    tracing::error!(%why, "cannot work out what pushers are to be told");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// The place is written down at once: who began without one would begin at the end again. With it, who has pushers.
    async fn begin_to_follow(&self) -> Result<(Follower, RoaringBitmap), Error> {
        let follower = self.store.follow(FOLLOWER).await?;
        let mut tx = Tx::new();
        follower.advance(&mut tx, follower.cursor());
        self.store.commit(tx).await?;
        let snapshot = self.store.snapshot().await?;
        let (mut users, mut after) = (RoaringBitmap::new(), None);
        loop {
            let found = rows::pushers::users(&snapshot, after, USERS).await?;
            users.extend(found.iter().map(|user| user.0));
            after = found.last().copied();
            if found.len() < USERS {
                return Ok((follower, users));
            }
        }
    }

    async fn follow_once(
        &self,
        follower: &mut Follower,
        users: &mut RoaringBitmap,
        durable: &mut Position,
    ) -> Result<(), Error> {
        let commits = follower.next(COMMITS).await?;
        if let Some(last) = commits.last() {
            self.settle(last.last).await;
        }
        let mut commits = commits.into_iter().peekable();
        while commits.peek().is_some() {
            let mut batch = Batch::new(self).await?;
            let mut upto = follower.cursor();
            for commit in commits.by_ref() {
                for fact in commit.facts {
                    batch.fact(users, fact).await?;
                }
                upto = commit.last;
                if batch.rows >= ROWS {
                    break;
                }
            }
            batch.count().await?;
            if !batch.tx.is_empty() || batch.turned || upto.0 >= durable.0 + LAZY {
                follower.advance(&mut batch.tx, upto);
                self.store.commit(batch.tx).await?;
                *durable = upto;
            }
            follower.moved(upto);
            for pusher in batch.told {
                self.turns.enqueue(pusher);
            }
        }
        Ok(())
    }

    /// A commit is on disk a moment before who is where is known in memory.
    async fn settle(&self, upto: Position) {
        let who = self.store.who();
        let settled = async {
            while who.position() < upto {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(SETTLE, settled).await.is_err() {
            tracing::warn!("what is known of members is behind the feed");
        }
    }
}

impl<'a> Batch<'a> {
    async fn new(inner: &'a Inner) -> Result<Batch<'a>, Error> {
        Ok(Batch {
            inner,
            snapshot: inner.store.snapshot().await?,
            tx: Tx::new(),
            rows: 0,
            pushers: HashMap::new(),
            read: BTreeMap::new(),
            told: BTreeSet::new(),
            turned: false,
        })
    }

    async fn fact(&mut self, users: &mut RoaringBitmap, fact: Fact) -> Result<(), Error> {
        match fact {
            Fact::Event { room, event, at } => {
                let concerned = self.inner.store.who().local_among(room, users);
                if !concerned.is_empty() {
                    self.event(room, event, at, &concerned).await?;
                }
            }
            Fact::Member { room, user, membership, local: true } if users.contains(user.0) => match membership {
                Membership::Invite => self.invite(room, user).await?,
                _ => self.settled_invite(room, user).await?,
            },
            Fact::User { user, at } if users.contains(user.0) => self.own_news(user, at).await?,
            Fact::Pushers { user } => {
                self.pushers.remove(&user);
                self.turned = true;
                match self.pushers(user).await?.is_empty() {
                    true => users.remove(user.0),
                    false => users.insert(user.0),
                };
            }
            _ => {}
        }
        Ok(())
    }

    /// The active pushers of a user.
    async fn pushers(&mut self, user: UserNo) -> Result<Arc<[PusherKey]>, Error> {
        if let Some(known) = self.pushers.get(&user) {
            return Ok(known.clone());
        }
        let rows = rows::pushers::of_user(&self.snapshot, user, PUSHERS).await?;
        let active: Arc<[PusherKey]> =
            rows.into_iter().filter(|(_, row)| row.is_active()).map(|(key, _)| key).collect();
        self.pushers.insert(user, active.clone());
        Ok(active)
    }

    async fn put(&mut self, user: UserNo, at: Position, waiting: &Waiting) -> Result<(), Error> {
        for pusher in self.pushers(user).await?.iter() {
            self.put_for(pusher, at, waiting);
        }
        Ok(())
    }

    fn put_for(&mut self, pusher: &PusherKey, at: Position, waiting: &Waiting) {
        rows::pushers::put_waiting(&mut self.tx, pusher, at, waiting);
        self.rows += 1;
        self.told.insert(pusher.clone());
    }

    /// A new event of a room, for those of its members who have pushers.
    async fn event(&mut self, room: RoomNo, no: EventNo, at: Position, users: &RoaringBitmap) -> Result<(), Error> {
        let Some(news) = self.inner.view.news(&self.snapshot, room, no).await? else { return Ok(()) };
        let since = self.inner.env.now_ms();
        for user in users.iter().map(UserNo) {
            let actions = self.inner.view.notices(&self.snapshot, user).await?.actions(&news).await?;
            if let Some(actions) = actions {
                self.put(user, at, &Waiting::Event { room, event: no, actions, since }).await?;
            }
        }
        Ok(())
    }

    async fn invite(&mut self, room: RoomNo, user: UserNo) -> Result<(), Error> {
        let invited = self.inner.view.notices(&self.snapshot, user).await?.invited(room).await?;
        let Some(invited) = invited else { return Ok(()) };
        let (actions, since) = (invited.actions, self.inner.env.now_ms());
        let waiting = match invited.event {
            Some(event) => Waiting::Event { room, event, actions, since },
            None => Waiting::Invite { room, actions, since },
        };
        self.put(user, invited.at, &waiting).await
    }

    /// Something changed for a user alone: a receipt, also a private one, or the push rules and other account data.
    async fn own_news(&mut self, user: UserNo, at: Position) -> Result<(), Error> {
        if self.snapshot.has(&schema::RECEIPTS_BY_USER, &(user, at)).await? {
            self.read.insert(user, at);
        } else if !self
            .snapshot
            .scan(&schema::ACCOUNT_DATA_CHANGES, &(user, at), Direction::Forward, 1)
            .await?
            .is_empty()
        {
            self.turned = true;
        }
        Ok(())
    }

    /// The user came in or went away: an invite may wait no longer, and what is unread there counts no more.
    async fn settled_invite(&mut self, room: RoomNo, user: UserNo) -> Result<(), Error> {
        let own = self.snapshot.get(&schema::MEMBERSHIPS, &(user, room)).await?;
        if let Some(own) = own.filter(|own| own.membership != Membership::Invite) {
            self.read.insert(user, own.at);
        }
        Ok(())
    }

    /// Who has read something has less to read: pushers that know another number are told.
    async fn count(&mut self) -> Result<(), Error> {
        for (user, at) in std::mem::take(&mut self.read) {
            let pushers = self.pushers(user).await?;
            if pushers.is_empty() {
                continue;
            }
            let unread = self.inner.view.notices(&self.snapshot, user).await?.unread().await?;
            let waiting = Waiting::Badge { since: self.inner.env.now_ms() };
            for pusher in pushers.iter().filter(|pusher| self.inner.turns.badge(pusher) != Some(unread)) {
                self.put_for(pusher, at, &waiting);
            }
        }
        Ok(())
    }
}
