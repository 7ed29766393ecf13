//! One request's work on one room: events are added one after the other, each judged by the state that those before it
//! left, and all of it is committed at once.

use std::sync::Arc;

use stoa_event::{
    auth,
    build::{Draft, seal},
    ids::{OwnedEventId, OwnedUserId},
    pdu::Pdu,
};
use stoa_store::{
    RoomNo, Slot, Snapshot, StateKeyNo, Tx, rows,
    state::{Class, Root, State},
};

use crate::{Error, Inner, Rooms, live::Live, lock::RoomLock, send::TxnKey};

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
    lock: Option<RoomLock>,
}

impl Rooms {
    pub(crate) async fn lock(&self, room: RoomNo) -> RoomLock {
        self.inner.locks.room(room).await
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
        Writer { inner, snapshot, state, live, tx: Tx::new(), last: None, roots: Vec::new(), lock }
    }

    pub(crate) fn room(&self) -> RoomNo {
        self.live.no
    }

    /// Builds and signs an event, asks the law, and works out its effects.
    pub(crate) async fn add(&mut self, wish: Wish) -> Result<Arc<Pdu>, Error> {
        let gathered = self.gather(&wish.sender, &wish.kind, wish.state_key.as_deref(), &wish.content).await?;
        let depth = self.live.head.extremities.iter().map(|(_, depth)| *depth).max().unwrap_or(0);
        let draft = Draft {
            room_id: Some(self.live.id.clone()),
            sender: wish.sender,
            kind: wish.kind,
            state_key: wish.state_key,
            content: wish.content,
            prev_events: self.live.tips.clone(),
            auth_events: gathered.ids,
            depth: (depth + 1).min(stoa_event::json::MAX_INT as u64),
            origin_server_ts: wish.ts.unwrap_or_else(|| self.inner.env.now_ms()),
            redacts: wish.redacts,
        };
        let pdu = seal(draft, &self.live.rules, &self.inner.server, &self.inner.key)?;
        stoa_event::auth::check_with(&self.live.rules, &pdu, &gathered.powers, &gathered.state)?;
        self.apply(Arc::new(pdu), gathered.nos, &gathered.powers, wish.txn).await
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
        if let Some(slot) = self.last {
            rows::rooms::put_head(&mut self.tx, slot, self.live.no, self.live.head.clone());
            self.state.write(&mut self.tx, &self.roots);
        }
        if !self.tx.is_empty() {
            self.inner.store.commit(self.tx).await?;
        }
        self.live.trim();
        if let Some(lock) = &mut self.lock {
            lock.put_back(self.live);
        }
        Ok(())
    }

    /// Ends without a change; the next writer need not read the room again. Only if nothing was added.
    pub(crate) fn leave(mut self) {
        if let (Some(lock), None) = (&mut self.lock, self.last) {
            lock.put_back(self.live);
        }
    }
}
