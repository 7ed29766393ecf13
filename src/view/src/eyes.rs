//! What somebody may see of a room: the only place that decides it (Client-Server API, "Room History Visibility").

use std::{collections::HashMap, sync::Arc};

use stoa_event::{
    auth::kind,
    visible::{Around, HistoryVisibility, Membership as Strength, Viewpoint, user_may_see},
};
use stoa_store::{
    EventNo, Membership, Position, RoomNo, Snapshot, StateKeyNo, Store, UserNo,
    rows::{
        events::{Standing, StoredEvent},
        rooms::OwnMembership,
    },
    schema,
    state::{Root, State},
};

use crate::Error;

/// What the state at a moment says about a user.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) visibility: HistoryVisibility,
    pub(crate) membership: Membership,
}

/// A user's eyes on one room.
#[derive(Clone)]
pub(crate) struct Eyes<'a> {
    pub(crate) store: &'a Store,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) room: RoomNo,
    /// The user's own row for the room, if there is one.
    pub(crate) own: Option<OwnMembership>,
    pub(crate) state: State<'a>,
    member_key: Option<StateKeyNo>,
    visibility_key: Option<StateKeyNo>,
    memo: HashMap<Root, Seen>,
    members: HashMap<EventNo, Membership>,
}

impl<'a> Eyes<'a> {
    pub(crate) async fn open(
        store: &'a Store,
        snapshot: &'a Snapshot,
        room: RoomNo,
        user: UserNo,
        user_id: &str,
    ) -> Result<Eyes<'a>, Error> {
        let own = snapshot.get(&schema::MEMBERSHIPS, &(user, room)).await?;
        Self::with(store, snapshot, room, user_id, own).await
    }

    /// The same where the user's row was read before.
    pub(crate) async fn with(
        store: &'a Store,
        snapshot: &'a Snapshot,
        room: RoomNo,
        user_id: &str,
        own: Option<OwnMembership>,
    ) -> Result<Eyes<'a>, Error> {
        let names = [("m.room.member", user_id), ("m.room.history_visibility", "")];
        let keys = names.map(|(kind, key)| (room, kind.to_owned(), key.to_owned()));
        let found = snapshot.get_many(&schema::STATE_KEYS, keys).await?;
        Ok(Eyes {
            store,
            snapshot,
            room,
            own,
            state: store.state(snapshot, room),
            member_key: found.first().copied().flatten(),
            visibility_key: found.get(1).copied().flatten(),
            memo: HashMap::new(),
            members: HashMap::new(),
        })
    }

    /// Whether the user is joined now.
    pub(crate) fn is_joined(&self) -> bool {
        self.own.as_ref().is_some_and(|own| own.membership == Membership::Join)
    }

    /// What a state says about the user.
    pub(crate) async fn at(&mut self, root: Root) -> Result<Seen, Error> {
        if let Some(seen) = self.memo.get(&root) {
            return Ok(*seen);
        }
        let visibility = match self.state_event(root, self.visibility_key).await? {
            Some(no) => {
                let event = self.store.events().get(self.snapshot, self.room, no).await?;
                event.map_or_else(HistoryVisibility::default, |event| HistoryVisibility::of_content(event.content()))
            }
            None => HistoryVisibility::default(),
        };
        let membership = match self.state_event(root, self.member_key).await? {
            Some(no) => self.membership_by(no).await?,
            None => Membership::Leave,
        };
        let seen = Seen { visibility, membership };
        self.memo.insert(root, seen);
        Ok(seen)
    }

    /// The event of a type and state key in a state.
    pub(crate) async fn event_of(&self, root: Root, kind: &str, key: &str) -> Result<Option<Arc<StoredEvent>>, Error> {
        let row = (self.room, kind.to_owned(), key.to_owned());
        let key = self.snapshot.get(&schema::STATE_KEYS, &row).await?;
        let Some(no) = self.state_event(root, key).await? else { return Ok(None) };
        Ok(self.store.events().get(self.snapshot, self.room, no).await?)
    }

    async fn state_event(&self, root: Root, key: Option<StateKeyNo>) -> Result<Option<EventNo>, Error> {
        match key {
            Some(key) => Ok(self.state.get(root, key).await?),
            None => Ok(None),
        }
    }

    async fn membership_by(&mut self, no: EventNo) -> Result<Membership, Error> {
        if let Some(membership) = self.members.get(&no) {
            return Ok(*membership);
        }
        let event = self.store.events().get(self.snapshot, self.room, no).await?;
        let membership = event.map_or(Membership::Leave, |event| membership_of(&event));
        self.members.insert(no, membership);
        Ok(membership)
    }

    /// Whether the user may see an event, and the user's membership when it happened.
    pub(crate) async fn look(&mut self, event: &StoredEvent) -> Result<Option<Membership>, Error> {
        let header = &event.header;
        let (Standing::Accepted, Some(before), Some(at)) = (header.standing, header.before, header.at) else {
            return Ok(None);
        };
        // It says nothing.
        if header.kind == kind::DUMMY && header.state_key.is_none() {
            return Ok(None);
        }
        if let Some(own) = self.own_end().filter(|own| own.at == at) {
            return Ok(Some(own.membership));
        }
        let before_seen = self.at(before).await?;
        let after_seen = match header.after {
            Some(after) if after != before => self.at(after).await?,
            _ => before_seen,
        };
        let joined_later = match &self.own {
            Some(own) if own.membership == Membership::Join => true,
            Some(own) => own.left_at.is_some_and(|left| at < left),
            None => false,
        };
        let view = Viewpoint {
            visibility: Around { before: before_seen.visibility, after: after_seen.visibility },
            membership: Around { before: strength(before_seen.membership), after: strength(after_seen.membership) },
            joined_later,
        };
        Ok(user_may_see(&view).then_some(after_seen.membership))
    }

    /// The state that the user may see now: the current one while joined, the one at leaving afterwards; `None` if the
    /// user may see none. World-readable rooms show theirs to everybody.
    pub(crate) async fn present(&mut self, root: Root) -> Result<Option<Root>, Error> {
        if self.is_joined() {
            return Ok(Some(root));
        }
        if self.at(root).await?.visibility == HistoryVisibility::WorldReadable {
            return Ok(Some(root));
        }
        match self.own.as_ref().and_then(|own| own.left_at) {
            Some(left) => self.root_after_leaving(left, Position::MAX).await.map(Some),
            None => Ok(None),
        }
    }

    /// The state at leaving, with what became of the user since then as far as a position: somebody who left may have been
    /// banned later, which is told, though nothing else of that time is.
    pub(crate) async fn root_after_leaving(&mut self, left: Position, upto: Position) -> Result<Root, Error> {
        let root = root_at(self.snapshot, self.room, left.min(upto)).await?;
        let later = self.own_end().filter(|own| own.at > left && own.at <= upto).and_then(|own| own.event);
        match (self.member_key, later) {
            (Some(key), Some(event)) => Ok(self.state.set(root, key, Some(event)).await?),
            _ => Ok(root),
        }
    }

    /// The user's leaving or ban, if that is how it stands. The user may always see it.
    fn own_end(&self) -> Option<&OwnMembership> {
        self.own.as_ref().filter(|own| matches!(own.membership, Membership::Leave | Membership::Ban))
    }
}

/// The current state of a room just after a position.
pub(crate) async fn root_at(snapshot: &Snapshot, room: RoomNo, at: Position) -> Result<Root, Error> {
    use std::ops::Bound;
    let from = Bound::Included((room, Position::MIN));
    let rows =
        snapshot.range(&schema::ROOTS, from, Bound::Included((room, at)), stoa_store::Direction::Backward, 1).await?;
    Ok(rows.first().map_or(Root::EMPTY, |(_, root)| *root))
}

/// The membership that a member event gives.
pub(crate) fn membership_of(event: &StoredEvent) -> Membership {
    #[derive(serde::Deserialize)]
    struct Content<'a> {
        #[serde(borrow, default)]
        membership: Option<std::borrow::Cow<'a, str>>,
    }
    serde_json::from_slice::<Content<'_>>(event.content())
        .ok()
        .and_then(|content| Membership::parse(content.membership.as_deref()?))
        .unwrap_or(Membership::Leave)
}

fn strength(membership: Membership) -> Strength {
    match membership {
        Membership::Join => Strength::Joined,
        Membership::Invite => Strength::Invited,
        _ => Strength::Outside,
    }
}
