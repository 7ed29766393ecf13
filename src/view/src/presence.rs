//! How others are there (Client-Server API, "Presence"): shown to those who share a room with them, and to themselves.

use stoa_event::ids::UserId;
use stoa_store::{
    Membership, RoomNo, Snapshot, UserNo,
    bus::presence::{Presence, Shown},
    schema,
};

use crate::{
    Error, Inner, View, Viewer,
    json::{Object, typed},
    sync::Span,
};

/// How many people one answer tells of.
const PEOPLE: usize = 200;

impl View {
    /// How somebody is there.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for who shares no room with them
    pub async fn presence(&self, viewer: &Viewer, user: &UserId) -> Result<Vec<u8>, Error> {
        let inner = &*self.inner;
        let snapshot = inner.store.snapshot().await?;
        let no = inner.store.names().user(&snapshot, user.as_str()).await?;
        let known = match no {
            Some(no) if no == viewer.user_no || inner.share_room(&snapshot, viewer.user_no, no, false).await? => no,
            _ => return Err(Error::Forbidden("you share no room with this user".into())),
        };
        let shown = inner.store.bus().presence(known);
        Ok(content(shown.as_ref(), inner.env.now_ms()))
    }
}

impl Inner {
    /// Whether two users are in a room (or in an encrypted one) together, the first of them one of ours.
    pub(crate) async fn share_room(
        &self,
        snapshot: &Snapshot,
        ours: UserNo,
        other: UserNo,
        encrypted: bool,
    ) -> Result<bool, Error> {
        let who = self.store.who();
        let mine = who.joined(ours);
        let theirs = who.joined(other);
        if !encrypted && !theirs.is_disjoint(&mine) {
            return Ok(true);
        }
        let mine: Vec<RoomNo> = mine.iter().map(RoomNo).collect();
        let rows = snapshot.get_many(&schema::MEMBERS, mine.iter().map(|room| (*room, other))).await?;
        let shared = mine
            .into_iter()
            .zip(rows)
            .filter(|(_, member)| member.as_ref().is_some_and(|member| member.membership == Membership::Join));
        for (room, _) in shared {
            if !encrypted || snapshot.get(&schema::ROOMS, &room).await?.is_some_and(|head| head.encrypted) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Span<'_> {
    /// `m.presence` events of those whose presence changed.
    pub(crate) async fn presence(&self) -> Result<Vec<Vec<u8>>, Error> {
        let filter = &self.filter.presence;
        if !filter.wants("m.presence", None) || filter.limit == Some(0) {
            return Ok(Vec::new());
        }
        let (store, me) = (&self.inner.store, self.viewer.user_no);
        let after = self.from.filter(|_| !self.full_state).map(|from| from.place);
        let mut events = Vec::new();
        for (user, shown) in store.bus().presences(after, self.to.place, PEOPLE) {
            if user != me && !self.inner.share_room(self.snapshot, me, user, false).await? {
                continue;
            }
            let id = store.names().user_id(self.snapshot, user).await?;
            if self.ignored.contains(&*id) || !filter.wants("m.presence", Some(&id)) {
                continue;
            }
            let mut event = typed("m.presence", &content(Some(&shown), self.now_ms));
            // Opened again for the sender.
            event.pop();
            event.extend_from_slice(b",\"sender\":");
            crate::json::string(&mut event, &id);
            event.push(b'}');
            events.push(event);
        }
        Ok(events)
    }
}

fn content(shown: Option<&Shown>, now_ms: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::new(&mut out);
    let presence = shown.map_or(Presence::Offline, |shown| shown.presence);
    object.str("presence", presence.as_str());
    if let Some(shown) = shown {
        if shown.active > 0 {
            object.plain("last_active_ago", now_ms.saturating_sub(shown.active));
        }
        object.plain("currently_active", matches!(presence, Presence::Online | Presence::Busy));
        if let Some(status) = &shown.status {
            object.str("status_msg", status);
        }
    }
    object.end();
    out
}
