//! Delayed events (MSC4140): noted here until they are due, restarted, cancelled, and what became of them. Who sends them
//! when they are due is told by [`Rooms::due`] and answers with [`Rooms::end_delayed`].
//!
//! One delay ID is changed by one at a time: who sends it holds it meanwhile ([`Held`]), so that what was sent is not called
//! cancelled.

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use stoa_event::{
    format::FormatError,
    ids::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId},
};
use stoa_store::{
    RoomNo, Snapshot, Tx, UserNo,
    rows::{
        self,
        delayed::{Delayed, End},
        events::Txn,
        rooms::SentTxn,
    },
    schema,
};
use tokio::sync::Notify;

use crate::{Error, NewEvent, Rooms, TxnKey};

/// How many that are over are kept for each user, and for how long: what the proposal recommends.
const KEPT: usize = 1000;
const KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// How many are forgotten in one step.
const PAGE: usize = 1000;
/// How long somebody waits for one that is being sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How large the content and the names may be: the limits of events.
const MAX_CONTENT: usize = 65_536;
const MAX_NAME: usize = 255;

/// What delayed events need in memory.
#[derive(Default)]
pub(crate) struct Desk {
    held: Arc<Holds>,
    /// Rung when something may be due earlier than before.
    changed: Notify,
}

#[derive(Default)]
struct Holds {
    names: Mutex<HashSet<String>>,
    freed: Notify,
}

/// The right to change what has that name.
struct Hold {
    name: String,
    holds: Arc<Holds>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.names.lock().remove(&self.name);
        self.holds.freed.notify_waiters();
    }
}

impl Desk {
    async fn hold(&self, name: &str) -> Result<Hold, Error> {
        let wait = async {
            loop {
                let freed = self.held.freed.notified();
                tokio::pin!(freed);
                freed.as_mut().enable();
                if self.held.names.lock().insert(name.to_owned()) {
                    return Hold { name: name.to_owned(), holds: self.held.clone() };
                }
                freed.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.map_err(|_| Error::DelayOver("the event is being sent"))
    }
}

/// An event that is to be sent later.
#[derive(Clone, Debug)]
pub struct NewDelayed {
    /// Who sends it.
    pub sender: OwnedUserId,
    /// The event type.
    pub kind: String,
    /// The state key of a state event.
    pub state_key: Option<String>,
    /// A JSON object.
    pub content: Vec<u8>,
    /// After how many milliseconds.
    pub delay_ms: u64,
    /// By what the request may be repeated.
    pub txn: Option<TxnKey>,
}

/// A delayed event as its owner is shown it.
#[derive(Clone, Debug)]
pub struct DelayedEvent {
    /// The delay ID.
    pub id: String,
    /// Where it is to be sent.
    pub room: OwnedRoomId,
    /// Everything else.
    pub row: Delayed,
}

/// One that is to be sent now.
#[derive(Clone, Debug)]
pub struct Due {
    /// Whose.
    pub user: OwnedUserId,
    /// Which.
    pub id: String,
    /// Where.
    pub room: RoomNo,
}

/// One that is being sent, and changed by nobody else meanwhile.
pub struct Held {
    user: UserNo,
    delayed: DelayedEvent,
    _hold: Hold,
}

impl Held {
    /// Where it is to be sent.
    pub fn room(&self) -> &RoomId {
        &self.delayed.room
    }

    /// When.
    pub fn due(&self) -> u64 {
        self.delayed.row.due()
    }

    /// The event. Sent twice, because the server stopped in between, it is one all the same.
    pub fn event(&self, sender: OwnedUserId) -> NewEvent {
        let Delayed { kind, state_key, content, .. } = self.delayed.row.clone();
        let txn = TxnKey { device: Txn::DELAYED.into(), deed: "delayed".into(), id: self.delayed.id.clone() };
        NewEvent { sender, kind, state_key, content, redacts: None, txn: Some(txn), ts: None }
    }
}

impl Rooms {
    /// Notes an event that is to be sent later, and gives its delay ID; a repeated transaction gets that of the first.
    ///
    /// # Errors
    /// Where the user is not in the room, the delay is too long, or too many events of the user wait.
    pub async fn delay(&self, room: &RoomId, new: NewDelayed) -> Result<String, Error> {
        self.check_delayed(&new)?;
        let store = &self.inner.store;
        // They are counted: one at a time for each user.
        let _hold = self.inner.delayed.hold(new.sender.as_str()).await?;
        let snapshot = store.snapshot().await?;
        let mut tx = Tx::new();
        let user = store.names().name_user(&snapshot, &mut tx, new.sender.as_str()).await?;
        if let Some(id) = noted_before(&snapshot, user, new.txn.as_ref()).await? {
            return Ok(id);
        }
        let no = self.joined_room(&snapshot, room, &new.sender).await?;
        let now = self.inner.env.now_ms();
        let most = self.inner.config.max_delayed;
        let waiting = rows::delayed::of_user(&snapshot, user, false, most).await?;
        if waiting.len() >= most {
            let first = waiting.first().map_or(0, |(at, _)| at.saturating_sub(now));
            return Err(Error::TooManyDelayed { retry_after_ms: first });
        }
        let id = self.inner.env.token(24);
        if let Some(txn) = &new.txn {
            let sent = SentTxn { event_id: id.clone(), ts: now };
            rows::rooms::put_txn(&mut tx, user, &txn.device, &txn.deed, &txn.id, &sent);
        }
        let NewDelayed { kind, state_key, content, delay_ms, .. } = new;
        let row = Delayed { room: no, kind, state_key, content, delay_ms, since_ms: now, end: None };
        rows::delayed::put(&mut tx, user, &id, None, &row);
        store.commit(tx).await?;
        self.inner.delayed.changed.notify_one();
        Ok(id)
    }

    fn check_delayed(&self, new: &NewDelayed) -> Result<(), Error> {
        let config = &self.inner.config;
        if config.max_delayed == 0 || config.max_delay_ms == 0 {
            return Err(Error::forbidden("this server delays no events"));
        }
        if new.delay_ms == 0 {
            return Err(Error::InvalidParam("a delay is at least one millisecond long".into()));
        }
        if new.delay_ms > config.max_delay_ms {
            return Err(Error::DelayTooLong { max_ms: config.max_delay_ms });
        }
        let within = |what, size, limit| match size > limit {
            true => Err(FormatError::TooLarge { what, size, limit }),
            false => Ok(()),
        };
        within("type", new.kind.len(), MAX_NAME)?;
        within("state_key", new.state_key.as_ref().map_or(0, String::len), MAX_NAME)?;
        within("content", new.content.len(), MAX_CONTENT)?;
        Ok(())
    }

    /// A delayed event of a user.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the user has none with that ID.
    pub async fn delayed(&self, user: &UserId, id: &str) -> Result<DelayedEvent, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        Ok(self.find_delayed(&snapshot, user, id).await?.1)
    }

    /// The events of a user that are still to be sent, the next one first.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn delayed_of(&self, user: &UserId) -> Result<Vec<DelayedEvent>, Error> {
        let store = &self.inner.store;
        let snapshot = store.snapshot().await?;
        let Some(user) = store.names().user(&snapshot, user.as_str()).await? else { return Ok(Vec::new()) };
        let found = rows::delayed::of_user(&snapshot, user, false, self.inner.config.max_delayed).await?;
        let rows = snapshot.get_many(&schema::DELAYED, found.iter().map(|(_, id)| (user, id.clone()))).await?;
        let mut delayed = Vec::with_capacity(rows.len());
        for ((_, id), row) in found.into_iter().zip(rows) {
            let row = row.ok_or(stoa_store::Error::Missing("a delayed event"))?;
            delayed.push(self.shown_delayed(&snapshot, id, row).await?);
        }
        Ok(delayed)
    }

    /// Begins to wait again for the whole delay.
    ///
    /// # Errors
    /// [`Error::NotFound`], and [`Error::DelayOver`] for one that was sent or cancelled.
    pub async fn restart_delayed(&self, user: &UserId, id: &str) -> Result<(), Error> {
        let held = self.hold_delayed(user, id).await?;
        let old = &held.delayed.row;
        if old.end.is_some() {
            return Err(Error::DelayOver("the event was sent or cancelled"));
        }
        let new = Delayed { since_ms: self.inner.env.now_ms(), ..old.clone() };
        self.write_delayed(&held, &new).await
    }

    /// Cancels one: it is never sent. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`], and [`Error::DelayOver`] for one that was sent.
    pub async fn cancel_delayed(&self, user: &UserId, id: &str) -> Result<(), Error> {
        let held = self.hold_delayed(user, id).await?;
        match &held.delayed.row.end {
            Some(End { event_id: Some(_), .. }) => Err(Error::DelayOver("the event was sent")),
            Some(_) => Ok(()),
            None => self.end(held, None, None).await,
        }
    }

    /// Cancels all that a user has waiting, as when the account ends.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn cancel_all_delayed(&self, user: &UserId) -> Result<(), Error> {
        for delayed in self.delayed_of(user).await? {
            match self.cancel_delayed(user, &delayed.id).await {
                Ok(()) | Err(Error::DelayOver(_) | Error::NotFound(_)) => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Takes one in hand, to send it; `None` if it was sent already.
    ///
    /// # Errors
    /// [`Error::NotFound`], and [`Error::DelayOver`] for one that was cancelled.
    pub async fn begin_delayed(&self, user: &UserId, id: &str) -> Result<Option<Held>, Error> {
        let held = self.hold_delayed(user, id).await?;
        match &held.delayed.row.end {
            None => Ok(Some(held)),
            Some(End { event_id: Some(_), .. }) => Ok(None),
            Some(_) => Err(Error::DelayOver("the event was cancelled")),
        }
    }

    /// Notes what became of one: the event that it is now, or a standard error response.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn end_delayed(&self, held: Held, outcome: Result<OwnedEventId, String>) -> Result<(), Error> {
        match outcome {
            Ok(event) => self.end(held, Some(event.to_string()), None).await,
            Err(error) => self.end(held, None, Some(error)).await,
        }
    }

    /// Up to `limit` of those that are to be sent now, the longest due first, and when to ask again.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn due(&self, limit: usize) -> Result<(Vec<Due>, Option<u64>), Error> {
        let store = &self.inner.store;
        let snapshot = store.snapshot().await?;
        let now = self.inner.env.now_ms();
        let mut due = Vec::new();
        for (at, user, id, room) in rows::delayed::first(&snapshot, false, limit).await? {
            if at > now {
                return Ok((due, Some(at)));
            }
            let user = store.names().user_id(&snapshot, user).await?;
            let user = OwnedUserId::try_from(&*user).map_err(|_| stoa_store::Error::Corrupt("a user id"))?;
            due.push(Due { user, id, room });
        }
        Ok((due, None))
    }

    /// Waits until something may be due earlier than before.
    pub async fn delayed_changed(&self) {
        self.inner.delayed.changed.notified().await;
    }

    /// Forgets some of those that have been over for long. Answers whether there may be more.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn forget_delayed(&self) -> Result<bool, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let old = self.inner.env.now_ms().saturating_sub(KEPT_MS);
        let first = rows::delayed::first(&snapshot, true, PAGE).await?;
        let first: Vec<_> = first.into_iter().filter(|(at, ..)| *at < old).map(|(_, user, id, _)| (user, id)).collect();
        let mut tx = Tx::new();
        forget(&snapshot, &mut tx, &first).await?;
        if !tx.is_empty() {
            self.inner.store.commit(tx).await?;
        }
        Ok(first.len() == PAGE)
    }

    async fn find_delayed(
        &self,
        snapshot: &Snapshot,
        user: &UserId,
        id: &str,
    ) -> Result<(UserNo, DelayedEvent), Error> {
        let missing = || Error::NotFound("there is no such delayed event");
        let no = self.inner.store.names().user(snapshot, user.as_str()).await?.ok_or_else(missing)?;
        let row = snapshot.get(&schema::DELAYED, &(no, id.to_owned())).await?.ok_or_else(missing)?;
        Ok((no, self.shown_delayed(snapshot, id.to_owned(), row).await?))
    }

    async fn shown_delayed(&self, snapshot: &Snapshot, id: String, row: Delayed) -> Result<DelayedEvent, Error> {
        let room = self.inner.store.names().room_id(snapshot, row.room).await?;
        let room = OwnedRoomId::try_from(&*room).map_err(|_| stoa_store::Error::Corrupt("a room id"))?;
        Ok(DelayedEvent { id, room, row })
    }

    async fn hold_delayed(&self, user: &UserId, id: &str) -> Result<Held, Error> {
        // Who asks for what is not there, or not theirs, holds up nobody.
        self.find_delayed(&self.inner.store.snapshot().await?, user, id).await?;
        let hold = self.inner.delayed.hold(id).await?;
        let snapshot = self.inner.store.snapshot().await?;
        let (user, delayed) = self.find_delayed(&snapshot, user, id).await?;
        Ok(Held { user, delayed, _hold: hold })
    }

    async fn end(&self, held: Held, event_id: Option<String>, error: Option<String>) -> Result<(), Error> {
        let end = End { ts: self.inner.env.now_ms(), event_id, error };
        self.write_delayed(&held, &Delayed { end: Some(end), ..held.delayed.row.clone() }).await
    }

    async fn write_delayed(&self, held: &Held, new: &Delayed) -> Result<(), Error> {
        let mut tx = Tx::new();
        let (user, old) = (held.user, &held.delayed);
        rows::delayed::put(&mut tx, user, &old.id, Some(&old.row), new);
        if new.end.is_some() {
            let snapshot = self.inner.store.snapshot().await?;
            let over = rows::delayed::of_user(&snapshot, user, true, KEPT).await?;
            let spare = (over.len() + 1).saturating_sub(KEPT);
            let spare: Vec<_> = over.into_iter().take(spare).map(|(_, id)| (user, id)).collect();
            forget(&snapshot, &mut tx, &spare).await?;
        }
        self.inner.store.commit(tx).await?;
        self.inner.delayed.changed.notify_one();
        Ok(())
    }
}

/// What a transaction that was repeated led to.
async fn noted_before(snapshot: &Snapshot, user: UserNo, txn: Option<&TxnKey>) -> Result<Option<String>, Error> {
    let Some(TxnKey { device, deed, id }) = txn.cloned() else { return Ok(None) };
    Ok(snapshot.get(&schema::TXNS, &(user, device, deed, id)).await?.map(|sent| sent.event_id))
}

async fn forget(snapshot: &Snapshot, tx: &mut Tx, which: &[(UserNo, String)]) -> Result<(), Error> {
    let rows = snapshot.get_many(&schema::DELAYED, which.iter().cloned()).await?;
    for ((user, id), row) in which.iter().zip(rows) {
        if let Some(row) = row {
            rows::delayed::delete(tx, *user, id, &row);
        }
    }
    Ok(())
}
