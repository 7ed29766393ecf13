//! A user's name and picture in rooms.

use serde_json::{Map, Value};
use stoa_event::{
    auth::{Membership, kind},
    ids::OwnedUserId,
};
use stoa_store::Membership as Stored;

use crate::{Error, Rooms, Unsigned, membership::member, writer::Writer};

/// Name and picture as member events show them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// `displayname`
    pub displayname: Option<String>,
    /// `avatar_url`
    pub avatar_url: Option<String>,
}

impl Profile {
    /// Writes them into the content of a member event.
    pub fn write(&self, content: &mut Map<String, Value>) {
        for (key, value) in [("displayname", &self.displayname), ("avatar_url", &self.avatar_url)] {
            if let Some(value) = value {
                content.entry(key).or_insert_with(|| value.as_str().into());
            }
        }
    }
}

impl Rooms {
    /// Shows a user's new name and picture in every room that the user is in (Client-Server API, "Profiles", "Events on
    /// change of profile information"). A room that refuses keeps the old ones. What comes back must be signed first.
    ///
    /// # Errors
    /// Where the engine fails.
    pub async fn show_profile(&self, user: &OwnedUserId, profile: &Profile) -> Result<Vec<Box<Unsigned>>, Error> {
        let mut unsigned = Vec::new();
        for room in self.rooms_of(user, &[Stored::Join]).await? {
            match self.show_profile_in(&room, user, profile).await {
                Err(Error::Store(error)) => return Err(error.into()),
                Err(Error::Unsigned(event)) => unsigned.push(event),
                Err(error) => tracing::debug!(%room, %error, "a room keeps the old profile"),
                Ok(()) => {}
            }
        }
        Ok(unsigned)
    }

    async fn show_profile_in(
        &self,
        room: &stoa_event::ids::RoomId,
        user: &OwnedUserId,
        profile: &Profile,
    ) -> Result<(), Error> {
        let inner = &*self.inner;
        let (lock, snapshot) = self.locked(room).await?;
        let mut writer = Writer::begin(inner, &snapshot, lock).await?;
        let Some((_, current)) = writer.current(kind::MEMBER, user.as_str()).await? else { return Ok(()) };
        let mut content: Map<String, Value> = current.content_as().unwrap_or_default();
        if Membership::of(Some(&current)) != Membership::Join {
            return Ok(());
        }
        let old = content.clone();
        content.remove("displayname");
        content.remove("avatar_url");
        // What belonged to the joining does not belong to the renaming.
        content.remove("reason");
        content.remove("join_authorised_via_users_server");
        profile.write(&mut content);
        if content == old {
            writer.leave();
            return Ok(());
        }
        writer.send(member(user, user, content)).await.map(drop)
    }
}
