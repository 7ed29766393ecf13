//! Joining, inviting, leaving, kicking, banning, forgetting (Client-Server API, "Room membership").

use serde_json::{Map, Value, json};
use stoa_event::{
    auth::{JoinRule, Membership, kind},
    ids::{OwnedRoomId, OwnedUserId, RoomId, UserId},
};
use stoa_store::{Membership as Stored, Tx, rows, schema};

use crate::{
    Error, Rooms,
    profile::Profile,
    writer::{Wish, Writer},
};

/// How many rooms whose members may join are looked at.
const MANY_ROOMS: usize = 100;

/// What is to happen to somebody's membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The user joins.
    Join,
    /// The sender invites.
    Invite,
    /// The user leaves, refuses an invite or withdraws a knock.
    Leave,
    /// The sender removes, or takes back an invite.
    Kick,
    /// The sender bans.
    Ban,
    /// The sender lifts a ban.
    Unban,
    /// The user asks to be let in.
    Knock,
}

/// A change of membership that a user of this server asks for.
#[derive(Clone, Debug)]
pub struct Change {
    /// What.
    pub action: Action,
    /// Who asks.
    pub sender: OwnedUserId,
    /// Whose membership; the sender's own for joining, leaving and knocking.
    pub target: OwnedUserId,
    /// Why.
    pub reason: Option<String>,
    /// More fields for the content of the member event.
    pub content: Map<String, Value>,
    /// Name and picture of the target, if it is a user of this server.
    pub profile: Profile,
}

impl Rooms {
    /// Changes a membership.
    ///
    /// # Errors
    /// Where the room is not known, the change makes no sense, or the law refuses.
    pub async fn change(&self, room: &RoomId, change: Change) -> Result<(), Error> {
        let inner = &*self.inner;
        let (lock, snapshot) = self.locked(room).await?;
        let mut writer = Writer::begin(inner, &snapshot, lock).await?;
        if writer.lacks_member(&change.target).await? {
            writer.leave();
            return Err(Error::Partial);
        }
        let current = writer.membership(&change.target).await?;
        match sense(&change, current) {
            Sense::Do => {}
            Sense::Done => {
                writer.leave();
                return Ok(());
            }
            Sense::Refuse(why) => {
                writer.leave();
                return Err(Error::forbidden(why));
            }
        }
        let mut content = content_of(&change);
        if change.action == Action::Join && !matches!(current, Membership::Join | Membership::Invite) {
            writer.authorise_join(&change.target, &mut content).await?;
        }
        writer.send(member(&change.sender, &change.target, content)).await.map(drop)
    }

    /// Forgets a room that was left: it is not shown any more (Client-Server API, "Leaving rooms").
    ///
    /// # Errors
    /// [`Error::InvalidParam`] while the user is in the room, invited or knocking.
    pub async fn forget(&self, room: &RoomId, user: &UserId) -> Result<(), Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let names = self.inner.store.names();
        let no = self.room_no(&snapshot, room).await?;
        let user_no = names.user(&snapshot, user.as_str()).await?.ok_or(Error::UnknownRoom)?;
        let mut own = snapshot.get(&schema::MEMBERSHIPS, &(user_no, no)).await?.ok_or(Error::UnknownRoom)?;
        if !matches!(own.membership, Stored::Leave | Stored::Ban) {
            return Err(Error::InvalidParam("leave the room before forgetting it".into()));
        }
        own.forgotten = true;
        let mut tx = Tx::new();
        rows::rooms::put_own_as_is(&mut tx, user_no, no, &own);
        let slot = tx.slot();
        tx.tell(move |at| stoa_store::Fact::User { user: user_no, at: at.of(slot) });
        self.inner.store.commit(tx).await?;
        Ok(())
    }

    /// All rooms in which a user of this server has one of these memberships.
    ///
    /// # Errors
    /// Where the engine fails.
    pub async fn rooms_of(&self, user: &UserId, memberships: &[Stored]) -> Result<Vec<OwnedRoomId>, Error> {
        let store = &self.inner.store;
        let snapshot = store.snapshot().await?;
        let Some(no) = store.names().user(&snapshot, user.as_str()).await? else { return Ok(Vec::new()) };
        let rows = snapshot.scan(&schema::MEMBERSHIPS, &no, stoa_store::Direction::Forward, usize::MAX).await?;
        let mut rooms = Vec::new();
        for ((_, room), own) in rows {
            if memberships.contains(&own.membership) {
                let id = store.names().room_id(&snapshot, room).await?;
                rooms.extend(OwnedRoomId::try_from(&*id).ok());
            }
        }
        Ok(rooms)
    }
}

pub(crate) enum Sense {
    Do,
    /// It is so already.
    Done,
    Refuse(String),
}

/// What the law would allow but nobody can mean, and what is done already.
pub(crate) fn sense(change: &Change, current: Membership) -> Sense {
    let Change { action, sender, target, .. } = change;
    match (action, current) {
        (Action::Join, Membership::Join) if change.reason.is_none() && change.content.is_empty() => Sense::Done,
        (Action::Leave, Membership::Leave | Membership::Unknown) => {
            Sense::Refuse(format!("{target} is not in the room"))
        }
        (Action::Leave, Membership::Ban) => Sense::Refuse(format!("{target} is banned from the room")),
        (Action::Kick, Membership::Leave | Membership::Ban | Membership::Unknown) => {
            Sense::Refuse(format!("{target} is not in the room"))
        }
        (Action::Unban, Membership::Ban) => Sense::Do,
        (Action::Unban, _) => Sense::Refuse(format!("{target} is not banned")),
        (Action::Invite, Membership::Join) => Sense::Refuse(format!("{target} is already in the room")),
        (Action::Invite, Membership::Ban) => Sense::Refuse(format!("{target} is banned from the room")),
        (Action::Knock, Membership::Join) => Sense::Refuse(format!("{sender} is already in the room")),
        _ => Sense::Do,
    }
}

pub(crate) fn content_of(change: &Change) -> Map<String, Value> {
    let mut content = change.content.clone();
    let membership = match change.action {
        Action::Join => "join",
        Action::Invite => "invite",
        Action::Leave | Action::Kick | Action::Unban => "leave",
        Action::Ban => "ban",
        Action::Knock => "knock",
    };
    content.insert("membership".into(), membership.into());
    if let Some(reason) = &change.reason {
        content.insert("reason".into(), reason.as_str().into());
    }
    if matches!(change.action, Action::Join | Action::Invite | Action::Knock) {
        change.profile.write(&mut content);
    }
    content
}

/// A member event.
pub(crate) fn member(sender: &OwnedUserId, target: &UserId, content: Map<String, Value>) -> Wish {
    Wish::state(sender, kind::MEMBER, target.as_str(), Value::Object(content).to_string().into_bytes())
}

impl Writer<'_> {
    /// In a restricted room: whether the user is in one of the rooms that let in, and who of us vouches for it
    /// (Client-Server API, "Restricted rooms"). In other rooms the law alone decides.
    pub(crate) async fn authorise_join(
        &mut self,
        user: &UserId,
        content: &mut Map<String, Value>,
    ) -> Result<(), Error> {
        let Some((_, rules)) = self.current(kind::JOIN_RULES, "").await? else { return Ok(()) };
        if !JoinRule::of(Some(&rules)).allows_restricted(&self.live.rules) {
            return Ok(());
        }
        let content_of_rules: Value = rules.content_as().unwrap_or_default();
        let (mut in_one, mut unknown) = (false, false);
        for allow in content_of_rules["allow"].as_array().into_iter().flatten().take(MANY_ROOMS) {
            if let (Some("m.room_membership"), Some(room)) = (allow["type"].as_str(), allow["room_id"].as_str()) {
                match self.is_joined_elsewhere(user, room).await? {
                    Some(joined) => in_one |= joined,
                    None => unknown = true,
                }
            }
        }
        match (in_one, unknown) {
            (true, _) => {}
            (false, true) => return Err(Error::CannotTell("this server does not know all of the rooms that let in")),
            (false, false) => return Err(Error::forbidden("you are in none of the rooms whose members may join")),
        }
        let powers = self.powers().await?;
        for member in self.inner.store.who().local(self.live.no) {
            let id = self.inner.store.names().user_id(self.snapshot, stoa_store::UserNo(member)).await?;
            if let Ok(id) = UserId::parse(&*id)
                && powers.can_invite(&id)
                && self.membership(&id).await? == Membership::Join
            {
                content.insert("join_authorised_via_users_server".into(), json!(id));
                return Ok(());
            }
        }
        Err(Error::CannotVouch("nobody of this server may invite into the room"))
    }

    /// Whether a user is in another room; `None` where this server is not in it and cannot tell.
    async fn is_joined_elsewhere(&self, user: &UserId, room: &str) -> Result<Option<bool>, Error> {
        let store = &self.inner.store;
        let Some(room) = store.names().room(self.snapshot, room).await? else { return Ok(None) };
        if store.who().local(room).is_empty() {
            return Ok(None);
        }
        let member = match store.names().user(self.snapshot, user.as_str()).await? {
            Some(user) => self.snapshot.get(&schema::MEMBERS, &(room, user)).await?,
            None => None,
        };
        if member.is_none() && self.snapshot.has(&schema::PARTIAL_ROOMS, &room).await? {
            return Ok(None);
        }
        Ok(Some(member.is_some_and(|member| member.membership == Stored::Join)))
    }
}
