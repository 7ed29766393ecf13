//! Forward extremities stay few. Each event of ours brings some together; where nobody of us speaks, an event that says
//! nothing does (decision record 0007). Which rooms need one is noted here by whoever writes them.

use std::collections::HashSet;

use parking_lot::Mutex;
use stoa_event::{
    auth::{Membership, kind},
    ids::{OwnedRoomId, OwnedUserId},
};
use stoa_store::{RoomNo, UserNo};
use tokio::sync::Notify;

use crate::{Error, NewEvent, Rooms, writer::Writer};

/// With more than so many the next event names them all together, also one that says nothing.
const MANY: usize = 10;
/// How many of our users are looked at to find one who may speak.
const SPEAKERS: usize = 100;

/// Rooms with many forward extremities.
#[derive(Default)]
pub(crate) struct Forked {
    rooms: Mutex<HashSet<RoomNo>>,
    more: Notify,
}

impl Forked {
    /// A room was written.
    pub(crate) fn note(&self, room: RoomNo, extremities: usize) {
        let mut rooms = self.rooms.lock();
        if extremities <= MANY {
            rooms.remove(&room);
        } else if rooms.insert(room) {
            self.more.notify_one();
        }
    }
}

impl Rooms {
    /// The rooms that have many forward extremities, of those that were written since the start.
    pub fn forked(&self) -> Vec<RoomNo> {
        self.inner.forked.rooms.lock().iter().copied().collect()
    }

    /// Returns when there is one more of them.
    pub async fn one_more_forked(&self) {
        self.inner.forked.more.notified().await;
    }

    /// An event that says nothing but brings forward extremities together, and the room to send it to; `None` where that is
    /// not needed any more, or nobody of us may speak.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn knot(&self, room: RoomNo) -> Result<Option<(OwnedRoomId, NewEvent)>, Error> {
        let lock = self.lock(room).await;
        let snapshot = self.inner.store.snapshot().await?;
        let mut writer = Writer::begin(&self.inner, &snapshot, lock).await?;
        let needed = writer.live.head.extremities.len() > MANY;
        let speaker = if needed { writer.speaker().await? } else { None };
        let id = writer.live.id.clone();
        writer.leave();
        Ok(speaker.map(|sender| {
            let event = NewEvent {
                sender,
                kind: kind::DUMMY.to_owned(),
                state_key: None,
                content: b"{}".to_vec(),
                redacts: None,
                txn: None,
                ts: None,
            };
            (id, event)
        }))
    }
}

impl Writer<'_> {
    /// One of our users who may send such an event.
    async fn speaker(&mut self) -> Result<Option<OwnedUserId>, Error> {
        let powers = self.powers().await?;
        for user in self.inner.store.who().local(self.live.no).into_iter().take(SPEAKERS) {
            let id = self.inner.store.names().user_id(self.snapshot, UserNo(user)).await?;
            if let Ok(id) = OwnedUserId::try_from(&*id)
                && powers.can_send(&id, kind::DUMMY, false)
                && self.membership(&id).await? == Membership::Join
            {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}
