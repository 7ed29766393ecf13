//! Sending events (Client-Server API, "Sending events to a room").

use stoa_event::ids::{OwnedEventId, OwnedUserId, RoomId, UserId};
use stoa_store::{UserNo, schema};

use crate::{
    Error, Rooms,
    writer::{Wish, Writer},
};

/// By what a client may repeat a request without its being done twice (Client-Server API, "Transaction identifiers").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnKey {
    /// The device.
    pub device: String,
    /// What was asked for: the method's name, the room and what else is in the path.
    pub deed: String,
    /// The transaction id.
    pub id: String,
}

/// An event that a user of this server sends.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Who.
    pub sender: OwnedUserId,
    /// The event type.
    pub kind: String,
    /// The state key of a state event.
    pub state_key: Option<String>,
    /// A JSON object.
    pub content: Vec<u8>,
    /// What a redaction redacts.
    pub redacts: Option<OwnedEventId>,
    /// By what it may be repeated.
    pub txn: Option<TxnKey>,
    /// When it is said to have been sent; now if `None`.
    pub ts: Option<u64>,
}

impl Rooms {
    /// Sends an event; a repeated transaction gets the event id of the first. A state event that would change nothing is
    /// not sent again: the answer is the id of the one that is there.
    ///
    /// # Errors
    /// Where the user is not in the room, the law refuses, or the content is not allowed.
    pub async fn send(&self, room: &RoomId, new: NewEvent) -> Result<OwnedEventId, Error> {
        let inner = &*self.inner;
        let before = inner.store.snapshot().await?;
        let no = self.room_no(&before, room).await.map_err(|error| match error {
            // Whether a room exists is nobody's business who is not in it.
            Error::UnknownRoom => Error::forbidden(format!("{} is not in the room", new.sender)),
            other => other,
        })?;
        let lock = self.lock(no).await;
        let snapshot = inner.store.snapshot().await?;
        if let Some(id) = self.sent_before(&snapshot, &new.sender, new.txn.as_ref()).await? {
            return Ok(id);
        }
        let mut writer = Writer::begin(inner, &snapshot, lock).await?;
        writer.require_joined(&new.sender).await?;
        if let Some(id) = self.unchanged(&mut writer, &new).await? {
            writer.leave();
            return Ok(id);
        }
        self.check_content(&mut writer, &new).await?;
        let NewEvent { sender, kind, state_key, content, redacts, txn, ts } = new;
        writer.send(Wish { sender, kind, state_key, content, redacts, txn, ts }).await
    }

    /// Redacts an event (Client-Server API, "Redactions").
    ///
    /// # Errors
    /// Where there is no such event in the room, or the user may not.
    pub async fn redact(&self, room: &RoomId, mut new: NewEvent) -> Result<OwnedEventId, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        if let Some(id) = self.sent_before(&snapshot, &new.sender, new.txn.as_ref()).await? {
            return Ok(id);
        }
        let target = new.redacts.clone().ok_or(Error::NotFound("nothing to redact"))?;
        let missing = || Error::NotFound("there is no such event in the room");
        let sender = &new.sender;
        let no = self
            .room_no(&snapshot, room)
            .await
            .map_err(|_| Error::forbidden(format!("{sender} is not in the room")))?;
        let (place, event) = self.inner.store.events().by_id(&snapshot, target.as_str()).await?.ok_or_else(missing)?;
        if place.room != no {
            return Err(missing());
        }
        if event.header.sender != new.sender.as_str() {
            self.require_redact_power(room, &new.sender).await?;
        }
        new.kind = "m.room.redaction".into();
        self.send(room, new).await
    }

    /// Redacting what others sent needs the power to (Client-Server API, "Redactions", "Server behaviour").
    async fn require_redact_power(&self, room: &RoomId, user: &OwnedUserId) -> Result<(), Error> {
        self.with_powers(room, user, |powers| {
            powers
                .can_redact_others(user)
                .then_some(())
                .ok_or_else(|| Error::forbidden("redacting what others sent needs more power"))
        })
        .await?
    }

    /// Asks something of the powers in a room, for a user who must be joined.
    pub async fn with_powers<T>(
        &self,
        room: &RoomId,
        user: &OwnedUserId,
        ask: impl FnOnce(&stoa_event::auth::Powers) -> T,
    ) -> Result<T, Error> {
        let inner = &*self.inner;
        let (lock, snapshot) = self.locked(room).await?;
        let mut writer = Writer::begin(inner, &snapshot, lock).await?;
        let joined = writer.require_joined(user).await;
        let powers = writer.powers().await?;
        writer.leave();
        joined?;
        Ok(ask(&powers))
    }

    pub(crate) async fn sent_before(
        &self,
        snapshot: &stoa_store::Snapshot,
        sender: &UserId,
        txn: Option<&TxnKey>,
    ) -> Result<Option<OwnedEventId>, Error> {
        let Some(txn) = txn else { return Ok(None) };
        let Some(user) = self.inner.store.names().user(snapshot, sender.as_str()).await? else { return Ok(None) };
        let key: (UserNo, String, String, String) = (user, txn.device.clone(), txn.deed.clone(), txn.id.clone());
        let sent = snapshot.get(&schema::TXNS, &key).await?;
        Ok(sent.and_then(|sent| OwnedEventId::try_from(sent.event_id).ok()))
    }

    /// The event that says the same already, for state that would not change.
    async fn unchanged(&self, writer: &mut Writer<'_>, new: &NewEvent) -> Result<Option<OwnedEventId>, Error> {
        let Some(key) = &new.state_key else { return Ok(None) };
        let Some((_, current)) = writer.current(&new.kind, key).await? else { return Ok(None) };
        let same = current.sender() == &new.sender
            && stoa_event::json::canonical(&new.content).is_ok_and(|content| {
                stoa_event::json::canonical(current.content()).is_ok_and(|current| current == content)
            });
        Ok(same.then(|| current.event_id().clone()))
    }
}
