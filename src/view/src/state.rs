//! State and members of rooms (Client-Server API, "Getting events for a room").

use stoa_event::ids::RoomId;
use stoa_store::{
    EventNo, Membership, schema,
    state::{Class, Root},
};

use crate::{
    Error, View, Viewer,
    eyes::{membership_of, root_at},
    json::{Object, array},
    reach::Reach,
    show::Visible,
    token::{AnyToken, SyncToken},
};

/// Which members are wanted.
#[derive(Clone, Debug, Default)]
pub struct MembersRequest {
    /// As they were at this token.
    pub at: Option<String>,
    /// Only with this membership.
    pub membership: Option<Membership>,
    /// Not with this membership.
    pub not_membership: Option<Membership>,
}

impl View {
    /// The state of a room: the current one, or the one at leaving.
    ///
    /// # Errors
    /// [`Error::Forbidden`]
    pub async fn state(&self, viewer: &Viewer, room: &RoomId) -> Result<Vec<u8>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let reach = self.reach(&snapshot, viewer, room).await?;
        let state = reach.all_state(reach.present, true).await?;
        let mut out = Vec::with_capacity(state.len() * 512);
        array(&mut out, reach.render(&state).await?);
        Ok(out)
    }

    /// One state event: its content, or (`whole`) all of it.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the state has none, [`Error::Forbidden`]
    pub async fn state_event(
        &self,
        viewer: &Viewer,
        room: &RoomId,
        kind: &str,
        key: &str,
        whole: bool,
    ) -> Result<Vec<u8>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let reach = self.reach(&snapshot, viewer, room).await?;
        let missing = Error::NotFound("the room has no such state");
        let it = reach.state_event(reach.present, kind, key).await?.ok_or(missing)?;
        if whole {
            return Ok(reach.render(&[it]).await?.pop().unwrap_or_default());
        }
        Ok(it.event.content().to_vec())
    }

    /// The member events of a room.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::InvalidParam`] for a token that is not ours
    pub async fn members(&self, viewer: &Viewer, room: &RoomId, request: &MembersRequest) -> Result<Vec<u8>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let mut reach = self.reach(&snapshot, viewer, room).await?;
        let mut root = reach.present;
        if let Some(at) = &request.at {
            let position = match AnyToken::parse(at)? {
                AnyToken::Sync(SyncToken { position, .. }) => position,
                AnyToken::History(place) => place.position,
            };
            // Where all members are known.
            let head = snapshot.get(&schema::ROOMS, &reach.room).await?;
            let position = position.max(head.and_then(|head| head.whole_since).unwrap_or_default());
            // Not further than the user may see.
            let left = reach.eyes.own.as_ref().and_then(|own| own.left_at).filter(|_| !reach.eyes.is_joined());
            root = match left {
                Some(left) => reach.eyes.root_after_leaving(left, position).await?,
                None => root_at(&snapshot, reach.room, position).await?,
            };
        }
        let wanted = |membership: Membership| {
            request.membership.is_none_or(|only| only == membership)
                && request.not_membership.is_none_or(|not| not != membership)
        };
        let mut members = reach.class(root, Class::Members).await?;
        members.retain(|it| wanted(membership_of(&it.event)));
        let mut out = Vec::with_capacity(members.len() * 400);
        let mut body = Object::new(&mut out);
        body.array("chunk", reach.render(&members).await?);
        body.end();
        Ok(out)
    }

    /// Who is joined, with names and pictures.
    ///
    /// # Errors
    /// [`Error::Forbidden`] to those who are not joined themselves
    pub async fn joined_members(&self, viewer: &Viewer, room: &RoomId) -> Result<Vec<u8>, Error> {
        #[derive(serde::Deserialize)]
        struct Shown {
            displayname: Option<serde_json::Value>,
            avatar_url: Option<serde_json::Value>,
        }
        let snapshot = self.inner.store.snapshot().await?;
        let reach = self.reach(&snapshot, viewer, room).await?;
        if !reach.eyes.is_joined() {
            return Err(Error::Forbidden(format!("{} is not in the room", viewer.user)));
        }
        let members = reach.class(reach.present, Class::Members).await?;
        let mut out = Vec::with_capacity(members.len() * 128);
        let mut body = Object::new(&mut out);
        let mut joined = Object::new(body.key("joined"));
        for it in members.iter().filter(|it| membership_of(&it.event) == Membership::Join) {
            let Some(user) = &it.event.header.state_key else { continue };
            let mut member = Object::new(joined.key(user));
            if let Ok(shown) = serde_json::from_slice::<Shown>(it.event.content()) {
                for (name, value) in [("display_name", shown.displayname), ("avatar_url", shown.avatar_url)] {
                    if let Some(text) = value.as_ref().and_then(|value| value.as_str()) {
                        member.str(name, text);
                    }
                }
            }
            member.end();
        }
        joined.end();
        body.end();
        Ok(out)
    }
}

impl Reach<'_> {
    /// All events of a state, members on request.
    pub(crate) async fn all_state(&self, root: Root, members: bool) -> Result<Vec<Visible>, Error> {
        let mut all = self.class(root, Class::Others).await?;
        if members {
            all.extend(self.class(root, Class::Members).await?);
        }
        Ok(all)
    }

    /// All events of one class of a state.
    pub(crate) async fn class(&self, root: Root, class: Class) -> Result<Vec<Visible>, Error> {
        let changes = self.eyes.state.changes_of(class, Root::EMPTY, root).await?;
        let nos: Vec<EventNo> = changes.iter().filter_map(|change| change.after).collect();
        let events = self.inner.store.events().get_many(self.snapshot, self.room, &nos).await?;
        let visible = |event: Option<_>| Some(Visible { event: event?, membership: None });
        Ok(events.into_iter().filter_map(visible).collect())
    }
}
