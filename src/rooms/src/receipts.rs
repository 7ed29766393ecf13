//! What people do in rooms beside sending events: receipts, typing, ephemeral events.

use bytes::Bytes;
use stoa_event::ids::{OwnedEventId, OwnedUserId, RoomId};
use stoa_store::{
    Position, Tx,
    rows::{
        self,
        events::EventPlace,
        receipts::{Receipt, ReceiptKey},
    },
    schema,
};

use crate::{Error, Rooms};

/// A receipt that a user of this server gives.
#[derive(Clone, Debug)]
pub struct NewReceipt {
    /// Who read.
    pub user: OwnedUserId,
    /// `m.read` or `m.read.private`.
    pub kind: String,
    /// Up to where.
    pub event: OwnedEventId,
    /// The thread's root or `main`; `None`: the receipt is for the whole room.
    pub thread: Option<String>,
}

impl Rooms {
    /// Notes receipts, all in one commit (Client-Server API, "Receipts"). One that is behind what was read already
    /// changes nothing.
    ///
    /// # Errors
    /// Where the user is not in the room or the room has no such event.
    pub async fn receipts(&self, room: &RoomId, receipts: Vec<NewReceipt>) -> Result<(), Error> {
        let store = &self.inner.store;
        let snapshot = store.snapshot().await?;
        let mut tx = Tx::new();
        for new in receipts {
            let no = self.joined_room(&snapshot, room, &new.user).await?;
            let user = store.names().name_user(&snapshot, &mut tx, new.user.as_str()).await?;
            let missing = || Error::NotFound("there is no such event in the room");
            let place = snapshot.get(&schema::EVENT_IDS, &new.event.to_string()).await?.ok_or_else(missing)?;
            if place.room != no {
                return Err(missing());
            }
            let thread = new.thread.unwrap_or_default();
            self.check_thread(&snapshot, place, &thread).await?;
            let row = (no, user, new.kind.clone(), thread.clone());
            let old = snapshot.get(&schema::RECEIPTS, &row).await?;
            if let Some(old) = &old
                && !self.is_after(&snapshot, no, place.event, old.event).await?
            {
                continue;
            }
            let slot = tx.slot();
            let ts = self.inner.env.now_ms();
            let key = ReceiptKey { room: no, user, kind: new.kind, thread };
            let receipt = Receipt { event_id: new.event.to_string(), event: place.event, ts, at: Position::MIN };
            rows::receipts::put(&mut tx, slot, key, receipt, old.as_ref());
        }
        if !tx.is_empty() {
            store.commit(tx).await?;
        }
        Ok(())
    }

    /// A threaded receipt must be for an event of its thread; the root of a thread is outside of it, and counts as in it.
    async fn check_thread(
        &self,
        snapshot: &stoa_store::Snapshot,
        place: EventPlace,
        thread: &str,
    ) -> Result<(), Error> {
        if thread.is_empty() {
            return Ok(());
        }
        let Some(event) = self.inner.store.events().get(snapshot, place.room, place.event).await? else {
            return Ok(());
        };
        let right = match self.inner.store.events().thread_of(snapshot, place.room, &event).await? {
            Some(root) => root == thread,
            None => thread == "main" || thread == event.header.event_id,
        };
        right.then_some(()).ok_or_else(|| Error::InvalidParam("the event is not in that thread".into()))
    }

    /// Whether an event comes after another in the timeline.
    async fn is_after(
        &self,
        snapshot: &stoa_store::Snapshot,
        room: stoa_store::RoomNo,
        event: stoa_store::EventNo,
        other: stoa_store::EventNo,
    ) -> Result<bool, Error> {
        let events = self.inner.store.events().get_many(snapshot, room, &[event, other]).await?;
        let at = |i: usize| events.get(i).and_then(Option::as_ref).and_then(|event| event.header.at);
        Ok(at(0) > at(1))
    }

    /// Says that a user types for so long, or (`None`) no longer (Client-Server API, "Typing notifications").
    ///
    /// # Errors
    /// Where the user is not in the room.
    pub async fn typing(&self, room: &RoomId, user: &OwnedUserId, for_ms: Option<u64>) -> Result<(), Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let no = self.joined_room(&snapshot, room, user).await?;
        let now = self.inner.env.now_ms();
        let until = for_ms.map(|ms| now + ms.min(self.inner.config.max_typing_ms));
        self.inner.store.bus().typing(no, user.as_str(), until, now);
        Ok(())
    }

    /// Sends a user-defined ephemeral event (MSC2477): to those who are joined now, never stored.
    ///
    /// # Errors
    /// Where the user is not in the room or has not the power that `ephemeral` asks for.
    pub async fn ephemeral(
        &self,
        room: &RoomId,
        user: &OwnedUserId,
        kind: &str,
        txn: &str,
        content: Bytes,
    ) -> Result<(), Error> {
        let allowed = self
            .with_powers(room, user, |powers| powers.of(user).reaches(powers.needed_for_ephemeral(kind)))
            .await
            .map_err(|error| match error {
                Error::UnknownRoom => Error::forbidden(format!("{user} is not in the room")),
                other => other,
            })?;
        if !allowed {
            return Err(Error::forbidden(format!("sending {kind} needs more power")));
        }
        let snapshot = self.inner.store.snapshot().await?;
        let no = self.room_no(&snapshot, room).await?;
        self.inner.store.bus().send(no, kind, user.as_str(), Some(txn), content, self.inner.env.now_ms());
        Ok(())
    }

    /// The room, if the user is joined to it.
    pub(crate) async fn joined_room(
        &self,
        snapshot: &stoa_store::Snapshot,
        room: &RoomId,
        user: &OwnedUserId,
    ) -> Result<stoa_store::RoomNo, Error> {
        let outside = || Error::forbidden(format!("{user} is not in the room"));
        let names = self.inner.store.names();
        let no = names.room(snapshot, room.as_str()).await?.ok_or_else(outside)?;
        let user_no = names.user(snapshot, user.as_str()).await?.ok_or_else(outside)?;
        self.inner.store.who().is_joined(no, user_no).then_some(no).ok_or_else(outside)
    }
}
