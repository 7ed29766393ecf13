//! Guests in rooms (Client-Server API, "Guest Access"): they come only where `m.room.guest_access` says `can_join`, and leave when
//! it no longer does.

use serde::Deserialize;
use serde_json::Map;
use stoa_event::ids::{OwnedRoomId, OwnedUserId, RoomId};
use stoa_rooms::{Action, Change, Profile};
use stoa_store::{Commit, Direction, Fact, Heard, Membership, RoomNo, Snapshot, schema};

use crate::{Error, Federation};

const GUEST_ACCESS: &str = "m.room.guest_access";

#[derive(Deserialize)]
struct Access {
    guest_access: String,
}

impl Federation {
    /// Whether a room takes guests. Of rooms that this server does not hold nobody can say.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn takes_guests(&self, room: &RoomId) -> Result<bool, Error> {
        let rooms = &self.inner.rooms;
        if !rooms.knows(room).await? {
            return Ok(false);
        }
        let access = rooms.state_event(room, GUEST_ACCESS, "").await?;
        let access = access.and_then(|event| event.content_as::<Access>().ok());
        Ok(access.is_some_and(|access| access.guest_access == "can_join"))
    }

    /// Takes guests out of rooms that no longer take them, until the store is closed.
    pub async fn show_guests_out(self) {
        let mut feed = self.inner.store.feed();
        let mut heard = Heard::Missed;
        loop {
            let done = match &heard {
                Heard::Commit(commit) => self.after(commit).await,
                Heard::Missed => self.look_everywhere().await,
                Heard::End => return,
            };
            if let Err(why) = done {
                tracing::warn!(%why, "cannot see to it that guests leave");
            }
            heard = feed.next().await;
        }
    }

    async fn after(&self, commit: &Commit) -> Result<(), Error> {
        let store = &self.inner.store;
        let snapshot = store.snapshot().await?;
        for fact in &commit.facts {
            let Fact::Event { room, event, .. } = *fact else { continue };
            let Some(stored) = store.events().get(&snapshot, room, event).await? else { continue };
            if stored.header.kind == GUEST_ACCESS && stored.header.state_key.is_some() {
                self.look(&snapshot, room).await?;
            }
        }
        Ok(())
    }

    /// After a start, or when too much happened at once: all rooms in which guests are.
    async fn look_everywhere(&self) -> Result<(), Error> {
        for guest in self.inner.accounts.guests().await? {
            for room in self.inner.rooms.rooms_of(&guest, &[Membership::Join]).await? {
                if !self.takes_guests(&room).await? {
                    self.show_out(&room, guest.clone()).await;
                }
            }
        }
        Ok(())
    }

    async fn look(&self, snapshot: &Snapshot, room: RoomNo) -> Result<(), Error> {
        let store = &self.inner.store;
        let id = store.names().room_id(snapshot, room).await?;
        let Ok(id) = OwnedRoomId::try_from(&*id) else { return Ok(()) };
        if self.takes_guests(&id).await? {
            return Ok(());
        }
        let members = snapshot.scan(&schema::MEMBERS, &room, Direction::Forward, usize::MAX).await?;
        for ((_, no), member) in members {
            let account = snapshot.get(&schema::USERS, &no).await?;
            if member.membership != Membership::Join || !account.is_some_and(|account| account.guest) {
                continue;
            }
            let guest = store.names().user_id(snapshot, no).await?;
            if let Ok(guest) = OwnedUserId::try_from(&*guest) {
                self.show_out(&id, guest).await;
            }
        }
        Ok(())
    }

    async fn show_out(&self, room: &RoomId, guest: OwnedUserId) {
        let leave = Change {
            action: Action::Leave,
            sender: guest.clone(),
            target: guest,
            reason: None,
            content: Map::new(),
            profile: Profile::default(),
        };
        if let Err(why) = self.change(room, leave).await {
            tracing::warn!(%room, %why, "a guest could not leave");
        }
    }
}
