//! Invites to and knocks on rooms that this server is not in (Server-Server API, "Inviting to a room", "Knocking upon a room"): nothing
//! of the room is known but what the other server chose to show.

use std::sync::Arc;

use serde_json::value::RawValue;
use stoa_event::{
    auth::{Membership as Word, kind},
    ids::{RoomId, UserId},
    pdu::Pdu,
};
use stoa_store::{
    Direction, Membership, Position, RoomNo, Snapshot, Tx, UserNo, rows,
    rows::invite_permission::{self, Verdict},
    rows::rooms::{Outside, OwnMembership},
    schema,
};

use crate::{
    Error, Inner, Rooms,
    effects::strip,
    writer::{Wish, Writer},
};

impl Inner {
    async fn require_invitable(&self, snapshot: &Snapshot, user: &UserId, by: &UserId) -> Result<(), Error> {
        let Some(no) = self.store.names().user(snapshot, user.as_str()).await? else { return Ok(()) };
        match invite_permission::get(snapshot, no).await?.judge(by) {
            Verdict::Block => Err(Error::InviteBlocked(user.to_owned())),
            Verdict::Allow | Verdict::Ignore => Ok(()),
        }
    }
}

impl Writer<'_> {
    /// Fails for an event that invites a user of ours who does not want that.
    pub(crate) async fn require_welcome(&self, wish: &Wish) -> Result<(), Error> {
        if wish.kind != kind::MEMBER || Word::of_content(&wish.content) != Word::Invite {
            return Ok(());
        }
        let target = wish.state_key.as_deref().and_then(|key| <&UserId>::try_from(key).ok());
        match target.filter(|target| target.server_name() == self.inner.server) {
            Some(target) => self.inner.require_invitable(self.snapshot, target, &wish.sender).await,
            None => Ok(()),
        }
    }
}

impl Rooms {
    /// A user of ours was invited to a room, or knocked on one, that this server is not in. What is shown of the room is
    /// what the other server says; the event itself comes last.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn shown(
        &self,
        room: &RoomId,
        user: &UserId,
        event: &Arc<Pdu>,
        membership: Membership,
        stripped: &[Box<RawValue>],
        outside: Outside,
    ) -> Result<(), Error> {
        let mut events: Vec<Box<RawValue>> = stripped.to_vec();
        events.push(strip(event)?);
        let stripped = serde_json::to_vec(&events);
        let stripped = stripped.map_err(|_| stoa_store::Error::Corrupt("stripped state cannot be written"))?;
        let by = (membership == Membership::Invite).then(|| event.sender().to_string());
        let (event_id, ts) = (Some(event.event_id().to_string()), event.origin_server_ts());
        let outside = Outside { event_id, ts, ..outside };
        self.set_outside(room, user, membership, Some((stripped, outside)), by).await
    }

    /// An invite was refused or taken back, or a knock was withdrawn or refused, in a room that this server is not in.
    ///
    /// # Errors
    /// [`Error::UnknownRoom`] where the user has nothing to do with the room.
    pub async fn hide(&self, room: &RoomId, user: &UserId) -> Result<(), Error> {
        self.set_outside(room, user, Membership::Leave, None, None).await
    }

    /// Whether a user of ours has a membership in a room that this server is not in, and which.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn membership_outside(&self, room: &RoomId, user: &UserId) -> Result<Option<OwnMembership>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let names = self.inner.store.names();
        let room = names.room(&snapshot, room.as_str()).await?;
        let user = names.user(&snapshot, user.as_str()).await?;
        let (Some(room), Some(user)) = (room, user) else { return Ok(None) };
        Ok(snapshot.get(&schema::MEMBERSHIPS, &(user, room)).await?)
    }

    /// Whether any user of ours is joined to a room: then this server takes part in it.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn is_in(&self, room: &RoomId) -> Result<bool, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let no = self.inner.store.names().room(&snapshot, room.as_str()).await?;
        Ok(no.is_some_and(|no| !self.inner.store.who().local(no).is_empty()))
    }

    /// Whether what happens in a room can be decided here: a user of ours is in it, or nobody of any other server is.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn knows(&self, room: &RoomId) -> Result<bool, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let Some(no) = self.inner.store.names().room(&snapshot, room.as_str()).await? else { return Ok(false) };
        // One of which nothing but events apart from the graph is held was never come into.
        if snapshot.get(&schema::ROOMS, &no).await?.is_none_or(|head| head.extremities.is_empty()) {
            return Ok(false);
        }
        if !self.inner.store.who().local(no).is_empty() {
            return Ok(true);
        }
        // Where we never knew all members, others are there whom we do not know.
        let others = snapshot.scan(&schema::ROOM_SERVERS, &no, Direction::Forward, 1).await?;
        Ok(others.is_empty() && !snapshot.has(&schema::PARTIAL_ROOMS, &no).await?)
    }

    /// Fails where a user of ours does not want an invite (Client-Server API, "Invite permission").
    ///
    /// # Errors
    /// [`Error::InviteBlocked`]
    pub async fn require_invitable(&self, user: &UserId, by: &UserId) -> Result<(), Error> {
        let snapshot = self.inner.store.snapshot().await?;
        self.inner.require_invitable(&snapshot, user, by).await
    }

    async fn set_outside(
        &self,
        room: &RoomId,
        user: &UserId,
        membership: Membership,
        shown: Option<(Vec<u8>, Outside)>,
        by: Option<String>,
    ) -> Result<(), Error> {
        let store = &self.inner.store;
        let snapshot = store.snapshot().await?;
        let mut tx = Tx::new();
        let no: RoomNo = store.names().name_room(&snapshot, &mut tx, room.as_str()).await?;
        let user: UserNo = store.names().name_user(&snapshot, &mut tx, user.as_str()).await?;
        let lock = self.lock(no).await;
        let snapshot = store.snapshot().await?;
        let old = snapshot.get(&schema::MEMBERSHIPS, &(user, no)).await?;
        if old.as_ref().is_some_and(|old| old.membership == Membership::Join) {
            return Ok(());
        }
        let (stripped, outside) = shown.unzip();
        let own = OwnMembership {
            membership,
            event: None,
            at: Position::MIN,
            joined_at: old.as_ref().and_then(|old| old.joined_at),
            left_at: old.and_then(|old| old.left_at),
            stripped,
            by,
            forgotten: false,
            outside,
        };
        let slot = tx.slot();
        rows::rooms::put_own(&mut tx, slot, user, no, own, false);
        tx.tell(move |_| stoa_store::Fact::Member { room: no, user, membership, local: true });
        store.commit(tx).await?;
        drop(lock);
        Ok(())
    }
}
