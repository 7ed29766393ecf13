//! One request's work on one room: events are added one after the other, each judged by the state that those before it
//! left, and all of it is committed at once.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use stoa_event::{
    auth,
    build::{Draft, Given},
    format::MAX_PREV_EVENTS,
    ids::{OwnedEventId, OwnedUserId, RoomId},
    pdu::Pdu,
};
use stoa_store::{
    EventNo, RoomNo, Slot, Snapshot, StateKeyNo, Tx,
    rows::{self, events::Header, rooms::Head},
    schema,
    state::{Class, Root, State},
};

use crate::{Error, Inner, Rooms, gather::Gathered, live::Live, lock::RoomLock, send::TxnKey};

/// An event that is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) sender: OwnedUserId,
    pub(crate) kind: String,
    pub(crate) state_key: Option<String>,
    /// A JSON object.
    pub(crate) content: Vec<u8>,
    pub(crate) redacts: Option<OwnedEventId>,
    pub(crate) txn: Option<TxnKey>,
    /// When it is said to have been sent; now if `None`.
    pub(crate) ts: Option<u64>,
}

impl Wish {
    pub(crate) fn state(sender: &OwnedUserId, kind: &str, key: &str, content: Vec<u8>) -> Wish {
        Wish {
            sender: sender.clone(),
            kind: kind.to_owned(),
            state_key: Some(key.to_owned()),
            content,
            redacts: None,
            txn: None,
            ts: None,
        }
    }
}

/// Work on a room whose lock is held (or that nobody else can know yet).
pub(crate) struct Writer<'a> {
    pub(crate) inner: &'a Inner,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) state: State<'a>,
    pub(crate) live: Live,
    pub(crate) tx: Tx,
    /// The position of the last event that was added.
    pub(crate) last: Option<Slot>,
    /// The states that stored events refer to.
    pub(crate) roots: Vec<Root>,
    /// Events that this transaction stores.
    pub(crate) added: HashMap<EventNo, Header>,
    /// Their numbers.
    pub(crate) fresh: HashMap<String, EventNo>,
    /// What events of this transaction name that is not held.
    pub(crate) named: HashSet<String>,
    /// Whether this server comes in anew: events from before, whose states are not whole, say nothing then.
    pub(crate) anew: bool,
    /// Whether the states that are told lack members.
    pub(crate) told_partial: bool,
    /// Whether the room's state becomes whole.
    pub(crate) whole: bool,
    /// How many members more or fewer servers have.
    pub(crate) servers: HashMap<String, i64>,
    /// The head as it is on disk.
    head: Head,
    lock: Option<RoomLock>,
}

impl Rooms {
    pub(crate) async fn lock(&self, room: RoomNo) -> RoomLock {
        self.inner.locks.room(room).await
    }

    /// Takes the lock of a room that is known here, and looks at the store after that.
    pub(crate) async fn locked(&self, room: &RoomId) -> Result<(RoomLock, Snapshot), Error> {
        let before = self.inner.store.snapshot().await?;
        let lock = self.lock(self.room_no(&before, room).await?).await;
        Ok((lock, self.inner.store.snapshot().await?))
    }
}

impl<'a> Writer<'a> {
    /// Begins work on a room. `snapshot` must have been taken after the lock was.
    pub(crate) async fn begin(
        inner: &'a Inner,
        snapshot: &'a Snapshot,
        mut lock: RoomLock,
    ) -> Result<Writer<'a>, Error> {
        let live = match lock.take() {
            Some(live) => live,
            None => Live::load(&inner.store, snapshot, lock.room()).await?,
        };
        Ok(Writer::over(inner, snapshot, live, Some(lock)))
    }

    /// Begins work on a room that is being made.
    pub(crate) fn over(inner: &'a Inner, snapshot: &'a Snapshot, live: Live, lock: Option<RoomLock>) -> Writer<'a> {
        let state = inner.store.state(snapshot, live.no);
        Writer {
            inner,
            snapshot,
            state,
            head: live.head.clone(),
            live,
            tx: Tx::new(),
            last: None,
            roots: Vec::new(),
            added: HashMap::new(),
            fresh: HashMap::new(),
            named: HashSet::new(),
            anew: false,
            told_partial: false,
            whole: false,
            servers: HashMap::new(),
            lock,
        }
    }

    pub(crate) fn room(&self) -> RoomNo {
        self.live.no
    }

    /// Builds and signs an event, asks the law, and works out its effects.
    pub(crate) async fn add(&mut self, wish: Wish) -> Result<Arc<Pdu>, Error> {
        self.require_welcome(&wish).await?;
        let txn = wish.txn.clone();
        let (pdu, gathered) = self.make(wish).await?;
        let pdu = Arc::new(pdu);
        self.require_signature(&pdu, txn.as_ref()).await?;
        self.apply(pdu, gathered, txn).await
    }

    /// Adds one event and commits.
    pub(crate) async fn send(mut self, wish: Wish) -> Result<OwnedEventId, Error> {
        match self.add(wish).await {
            Ok(pdu) => self.commit().await.map(|()| pdu.event_id().clone()),
            Err(unsigned @ Error::Unsigned(_)) => {
                self.leave();
                Err(unsigned)
            }
            Err(error) => Err(error),
        }
    }

    /// Builds and signs an event and asks the law. The room stays as it is.
    pub(crate) async fn make(&mut self, wish: Wish) -> Result<(Pdu, Gathered), Error> {
        let before = self.before().await?;
        let event = (&*wish.sender, &*wish.kind, wish.state_key.as_deref(), &*wish.content);
        let gathered = self.gather_at(before, event).await?;
        // With too many extremities for one event the room is more than what it follows.
        let now = match before == self.live.head.root {
            true => None,
            false => Some(self.gather_at(self.live.head.root, event).await?),
        };
        let tips = self.tips();
        let depth = tips.iter().map(|(_, depth, _)| *depth).max().unwrap_or(0);
        let given = match self.live.rules.reference_pairs {
            true => Some(self.given(tips.iter().map(|(no, ..)| *no).collect(), &gathered.nos).await?),
            false => None,
        };
        let draft = Draft {
            room_id: Some(self.live.id.clone()),
            sender: wish.sender,
            kind: wish.kind,
            state_key: wish.state_key,
            content: wish.content,
            prev_events: tips.into_iter().map(|(.., id)| id).collect(),
            auth_events: gathered.ids.clone(),
            depth: (depth + 1).min(stoa_event::json::MAX_INT as u64),
            origin_server_ts: wish.ts.unwrap_or_else(|| self.inner.env.now_ms()),
            redacts: wish.redacts,
        };
        let pdu = self.inner.seal(draft, given, &self.live.rules)?;
        for gathered in [&gathered].into_iter().chain(&now) {
            stoa_event::auth::check_with(&self.live.rules, &pdu, &gathered.powers, &gathered.state)?;
        }
        Ok((pdu, gathered))
    }

    /// The state before an event of ours: that of all forward extremities, or of those that it names.
    async fn before(&mut self) -> Result<Root, Error> {
        if self.live.head.extremities.len() <= MAX_PREV_EVENTS {
            return Ok(self.live.head.root);
        }
        let mut roots = Vec::with_capacity(MAX_PREV_EVENTS);
        for (no, ..) in self.tips() {
            roots.push(self.state_after(no).await?);
        }
        self.resolve(roots).await
    }

    /// What an event of versions 1 and 2 carries besides: an id, and the hashes of what it names.
    async fn given(&mut self, prev: Vec<EventNo>, auth: &[EventNo]) -> Result<Given, Error> {
        let mut hashes = [Vec::new(), Vec::new()];
        for (of, nos) in hashes.iter_mut().zip([&prev[..], auth]) {
            for no in nos {
                let hash = self.pdu(*no).await?.reference_hash(&self.live.rules);
                of.push(Some(hash.map_err(|_| stoa_store::Error::Corrupt("a stored event cannot be hashed"))?));
            }
        }
        let [prev_hashes, auth_hashes] = hashes;
        Ok(Given { event_id: self.inner.new_event_id()?, prev_hashes, auth_hashes })
    }

    /// What an event of ours follows: the forward extremities, the latest ones if there are more than an event may name.
    pub(crate) fn tips(&self) -> Vec<(EventNo, u64, OwnedEventId)> {
        let tips = self.live.head.extremities.iter().zip(&self.live.tips);
        let mut tips: Vec<_> = tips.map(|((no, depth), id)| (*no, *depth, id.clone())).collect();
        if tips.len() > MAX_PREV_EVENTS {
            tips.sort_by_key(|(_, depth, _)| std::cmp::Reverse(*depth));
            tips.truncate(MAX_PREV_EVENTS);
        }
        tips
    }

    /// The number of a state key, given out now if it is new.
    pub(crate) async fn state_key(&mut self, kind: &str, key: &str) -> Result<StateKeyNo, Error> {
        if let Some(no) = self.known_state_key(kind, key).await? {
            return Ok(no);
        }
        let class = if kind == auth::kind::MEMBER { Class::Members } else { Class::Others };
        let used = match class {
            Class::Members => &mut self.live.head.member_keys,
            Class::Others => &mut self.live.head.state_keys,
        };
        let no = StateKeyNo::of(class, *used);
        *used += 1;
        rows::rooms::put_state_key(&mut self.tx, self.live.no, no, kind, key);
        self.live.keys.insert((kind.to_owned(), key.to_owned()), no);
        Ok(no)
    }

    /// Writes everything that was added, at once. With nothing added, what `tx` holds besides.
    pub(crate) async fn commit(mut self) -> Result<(), Error> {
        self.finish().await?;
        if !self.tx.is_empty() {
            self.inner.store.commit(self.tx).await?;
            self.inner.forked.note(self.live.no, self.live.head.extremities.len());
        }
        self.live.trim();
        // Where the room became whole is known on disk only: the next writer reads it.
        if let Some(lock) = self.lock.as_mut().filter(|_| !self.whole) {
            lock.put_back(self.live);
        }
        Ok(())
    }

    /// Everything that was added, to be committed with what happens in another room.
    pub(crate) async fn into_tx(mut self) -> Result<Tx, Error> {
        self.finish().await?;
        Ok(self.tx)
    }

    async fn finish(&mut self) -> Result<(), Error> {
        self.count_servers().await?;
        match self.last {
            Some(slot) if self.whole => {
                self.live.head.partial = false;
                rows::rooms::put_whole_head(&mut self.tx, slot, self.live.no, self.live.head.clone());
            }
            Some(slot) => rows::rooms::put_head(&mut self.tx, slot, self.live.no, self.live.head.clone()),
            None if self.live.head != self.head => {
                rows::rooms::put_head_as_is(&mut self.tx, self.live.no, &self.live.head);
            }
            None => {}
        }
        self.state.write(&mut self.tx, &self.roots);
        Ok(())
    }

    /// Ends without a change; the next writer need not read the room again. Only if nothing was added.
    pub(crate) fn leave(mut self) {
        if let (Some(lock), true) = (&mut self.lock, self.tx.is_empty()) {
            lock.put_back(self.live);
        }
    }

    async fn count_servers(&mut self) -> Result<(), Error> {
        for (server, by) in std::mem::take(&mut self.servers) {
            if by != 0 {
                let key = (self.live.no, server);
                let joined = self.snapshot.get(&schema::ROOM_SERVERS, &key).await?.unwrap_or_default();
                let joined = (i64::from(joined) + by).clamp(0, i64::from(u32::MAX)) as u32;
                rows::rooms::put_server(&mut self.tx, key.0, &key.1, joined);
            }
        }
        Ok(())
    }
}
