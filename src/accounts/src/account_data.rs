//! Account data and room tags (Client-Server API, "Client Config", "Room Tagging").

use bytes::Bytes;
use serde_json::{Map, Value, json};
use stoa_event::ids::{EventId, MAX_ID_BYTES, RoomId, UserId};
use stoa_store::{
    RoomNo, Snapshot, Tx, UserNo,
    rows::{account_data, push_rules},
    schema,
};

use crate::{Accounts, Error, Result, Who};

/// The event type of room tags.
pub const TAGS: &str = "m.tag";
/// The event type of the fully read marker, which `/read_markers` sets.
const FULLY_READ: &str = "m.fully_read";

impl Accounts {
    /// One piece of account data of the user who asks: a JSON object.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for somebody else's, [`Error::NotFound`]
    pub async fn account_data(&self, who: &Who, user: &UserId, room: Option<&RoomId>, kind: &str) -> Result<Vec<u8>> {
        only_own(who, user)?;
        let snapshot = self.store().snapshot().await?;
        let missing = Error::NotFound("there is no such account data");
        if room.is_none() && kind == push_rules::TYPE {
            return Ok(push_rules::json(&push_rules::get(&snapshot, who.user_no, &who.user).await?.0));
        }
        let room = match room {
            Some(room) => match self.store().names().room(&snapshot, room.as_str()).await? {
                Some(no) => Some(no),
                None => return Err(missing),
            },
            None => None,
        };
        let row = account_data::get(&snapshot, who.user_no, room, kind).await?;
        row.map(|row| row.json).ok_or(missing)
    }

    /// Sets a piece of account data of the user who asks. `json` is an object.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for somebody else's, [`Error::ManagedElsewhere`], [`Error::InvalidParam`],
    /// [`Error::NotFound`] where the user has nothing to do with the room
    pub async fn set_account_data(
        &self,
        who: &Who,
        user: &UserId,
        room: Option<&RoomId>,
        kind: &str,
        json: &Bytes,
    ) -> Result<()> {
        only_own(who, user)?;
        if kind.len() > MAX_ID_BYTES {
            return Err(Error::InvalidParam("an event type has at most 255 bytes".to_owned()));
        }
        match (kind, room) {
            (FULLY_READ, _) => return Err(Error::ManagedElsewhere("m.fully_read is set through /read_markers")),
            (push_rules::TYPE, _) => return Err(Error::ManagedElsewhere("push rules are set through /pushrules")),
            _ => {}
        }
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        let room = match room {
            Some(room) => Some(self.room_of(&snapshot, who.user_no, room).await?),
            None => None,
        };
        self.write_account_data(&snapshot, who.user_no, room, kind, json).await
    }

    /// Sets the fully read marker of a room (Client-Server API, "Fully read markers").
    ///
    /// # Errors
    /// [`Error::NotFound`] where the user has nothing to do with the room
    pub async fn set_fully_read(&self, who: &Who, room: &RoomId, event: &EventId) -> Result<()> {
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        let room = self.room_of(&snapshot, who.user_no, room).await?;
        let json = serde_json::json!({ "event_id": event }).to_string();
        self.write_account_data(&snapshot, who.user_no, Some(room), FULLY_READ, &json.into()).await
    }

    /// Writes a piece of account data; the user must be locked.
    pub(crate) async fn write_account_data(
        &self,
        snapshot: &Snapshot,
        user: UserNo,
        room: Option<RoomNo>,
        kind: &str,
        json: &Bytes,
    ) -> Result<()> {
        let before = account_data::get(snapshot, user, room, kind).await?;
        if before.as_ref().is_some_and(|row| row.json == json[..]) {
            return Ok(());
        }
        let mut tx = Tx::new();
        let slot = tx.slot();
        account_data::put(&mut tx, slot, user, room, kind, json, before.map(|row| row.at));
        self.store().commit(tx).await?;
        Ok(())
    }

    /// The tags of a room: name and content.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for somebody else's, [`Error::NotFound`]
    pub async fn tags(&self, who: &Who, user: &UserId, room: &RoomId) -> Result<Map<String, Value>> {
        only_own(who, user)?;
        let snapshot = self.store().snapshot().await?;
        let room = self.room_of(&snapshot, who.user_no, room).await?;
        read_tags(&snapshot, who.user_no, room).await
    }

    /// Sets a tag of a room; `None` removes it.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for somebody else's, [`Error::NotFound`], [`Error::InvalidParam`], [`Error::BadJson`]
    pub async fn set_tag(
        &self,
        who: &Who,
        user: &UserId,
        room: &RoomId,
        tag: &str,
        content: Option<Map<String, Value>>,
    ) -> Result<()> {
        only_own(who, user)?;
        if tag.is_empty() || tag.len() > MAX_ID_BYTES {
            return Err(Error::InvalidParam("a tag has 1 to 255 bytes".to_owned()));
        }
        if content.as_ref().and_then(|content| content.get("order")).is_some_and(|order| !order.is_number()) {
            return Err(Error::BadJson("order is not a number".to_owned()));
        }
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        let room = self.room_of(&snapshot, who.user_no, room).await?;
        let mut tags = read_tags(&snapshot, who.user_no, room).await?;
        let changed = match content {
            Some(content) => {
                let content = Value::Object(content);
                tags.insert(tag.to_owned(), content.clone()) != Some(content)
            }
            None => tags.remove(tag).is_some(),
        };
        if !changed {
            return Ok(());
        }
        let json = json!({ "tags": tags }).to_string();
        self.write_account_data(&snapshot, who.user_no, Some(room), TAGS, &json.into()).await
    }

    /// A room that the user has something to do with: is or was in, was invited to, or forgot.
    async fn room_of(&self, snapshot: &Snapshot, user: UserNo, room: &RoomId) -> Result<RoomNo> {
        let unknown = Error::NotFound("you are not in this room");
        let Some(room) = self.store().names().room(snapshot, room.as_str()).await? else { return Err(unknown) };
        if !snapshot.has(&schema::MEMBERSHIPS, &(user, room)).await? {
            return Err(unknown);
        }
        Ok(room)
    }
}

async fn read_tags(snapshot: &Snapshot, user: UserNo, room: RoomNo) -> Result<Map<String, Value>> {
    let Some(row) = account_data::get(snapshot, user, Some(room), TAGS).await? else { return Ok(Map::new()) };
    // A client may have written anything as m.tag through /account_data.
    let content: Value = serde_json::from_slice(&row.json).unwrap_or_default();
    Ok(content.get("tags").and_then(Value::as_object).cloned().unwrap_or_default())
}

/// Refuses what belongs to somebody else.
pub(crate) fn only_own(who: &Who, user: &UserId) -> Result<()> {
    if user == who.user { Ok(()) } else { Err(Error::Forbidden("this belongs to somebody else")) }
}
