//! `m.typing` of other servers.

use serde::Deserialize;
use stoa_event::ids::{OwnedRoomId, OwnedUserId, ServerName};

use super::{Unheard, check_user, read};
use crate::Inner;

/// How long it is believed that somebody types: the other server says it again before.
const FOR_MS: u64 = 60_000;

#[derive(Deserialize)]
struct Typing {
    room_id: OwnedRoomId,
    user_id: OwnedUserId,
    typing: bool,
}

impl Inner {
    pub(super) async fn hear_typing(&self, origin: &ServerName, content: &[u8]) -> Result<(), Unheard> {
        let Typing { room_id, user_id, typing } = read(content)?;
        check_user(origin, &user_id)?;
        let snapshot = self.store.snapshot().await?;
        let room = self.room_of(&snapshot, origin, &room_id).await?;
        self.member_of(&snapshot, room, &user_id).await?;
        let now = self.env.now_ms();
        self.store.bus().typing(room, user_id.as_str(), typing.then_some(now + FOR_MS), now);
        Ok(())
    }
}
