//! Coming to a room to read in it: the checks that every read of a room begins with.

use stoa_event::ids::RoomId;
use stoa_store::{RoomNo, Snapshot, rows::events::StoredEvent, schema, state::Root};

use crate::{
    Error, Inner, View, Viewer,
    eyes::Eyes,
    show::{Audience, Visible, render_bundled},
};

/// A room that somebody may read in.
pub(crate) struct Reach<'a> {
    pub(crate) inner: &'a Inner,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) viewer: &'a Viewer,
    pub(crate) room: RoomNo,
    pub(crate) room_id: &'a str,
    pub(crate) eyes: Eyes<'a>,
    /// The state that the user may see now: the current one, or the one at leaving.
    pub(crate) present: Root,
}

impl View {
    /// Comes to a room; refused to those who may see nothing of it. Whether it exists is not told them.
    pub(crate) async fn reach<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        viewer: &'a Viewer,
        room_id: &'a RoomId,
    ) -> Result<Reach<'a>, Error> {
        let inner = &*self.inner;
        let outside = || Error::Forbidden(format!("{} is not in the room", viewer.user));
        let room = inner.store.names().room(snapshot, room_id.as_str()).await?.ok_or_else(outside)?;
        let head = snapshot.get(&schema::ROOMS, &room).await?.ok_or_else(outside)?;
        let mut eyes = Eyes::open(&inner.store, snapshot, room, viewer.user_no, viewer.user.as_str()).await?;
        if eyes.own.as_ref().is_some_and(|own| own.forgotten) {
            return Err(outside());
        }
        let present = eyes.present(head.root).await?.ok_or_else(outside)?;
        Ok(Reach { inner, snapshot, viewer, room, room_id: room_id.as_str(), eyes, present })
    }

    /// The same for who asks after one event: not being there and not being allowed look the same.
    pub(crate) async fn reach_quietly<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        viewer: &'a Viewer,
        room_id: &'a RoomId,
    ) -> Result<Reach<'a>, Error> {
        match self.reach(snapshot, viewer, room_id).await {
            Err(Error::Forbidden(_)) => Err(Error::NotFound("there is no such event")),
            other => other,
        }
    }
}

impl Reach<'_> {
    /// Writes events for who reads, with the room's id in them and with what relates to them.
    pub(crate) async fn render(&self, events: &[Visible]) -> Result<Vec<Vec<u8>>, Error> {
        render_bundled(&self.eyes, self.audience(), self.viewer.user_no, events).await
    }

    pub(crate) fn audience(&self) -> Audience<'_> {
        Audience {
            device: &self.viewer.device,
            user_id: self.viewer.user.as_str(),
            now_ms: self.inner.env.now_ms(),
            room_id: Some(self.room_id),
        }
    }

    /// A state event in a state.
    pub(crate) async fn state_event(&self, root: Root, kind: &str, key: &str) -> Result<Option<Visible>, Error> {
        let event = self.eyes.event_of(root, kind, key).await?;
        Ok(event.map(|event| Visible { event, membership: None }))
    }

    /// The member events of these users in a state.
    pub(crate) async fn members<'u>(
        &self,
        root: Root,
        users: impl IntoIterator<Item = &'u str>,
    ) -> Result<Vec<Visible>, Error> {
        let mut found = Vec::new();
        for user in users {
            found.extend(self.state_event(root, "m.room.member", user).await?);
        }
        Ok(found)
    }
}

/// The state after an event.
pub(crate) fn state_after(event: &StoredEvent) -> Root {
    event.state_after().unwrap_or_default()
}
