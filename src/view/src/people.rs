//! The people that somebody finds (Client-Server API, "User Directory"): an index says who fits, here it is decided who may be
//! found and how they are called.

use roaring::RoaringBitmap;
use stoa_store::{Membership, RoomNo, Snapshot, UserNo, schema};

use crate::{Error, View, Viewer, json::Object};

impl View {
    /// In whose rooms a user is, and which of our own users are in them too.
    pub fn neighbourhood(&self, viewer: &Viewer) -> (RoaringBitmap, RoaringBitmap) {
        let who = self.inner.store.who();
        (who.joined(viewer.user_no), who.neighbours(viewer.user_no))
    }

    /// Writes somebody who was found: an account of ours by its profile, somebody in a room by what is told there. `None` where
    /// that is not so any more.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn person(&self, viewer: &Viewer, user: UserNo, room: Option<RoomNo>) -> Result<Option<Vec<u8>>, Error> {
        let store = &self.inner.store;
        let snapshot = store.snapshot().await?;
        let mut out = Vec::new();
        let mut person = Object::new(&mut out);
        person.str("user_id", &store.names().user_id(&snapshot, user).await?);
        match room {
            None => {
                let account = snapshot.get(&schema::USERS, &user).await?;
                if account.is_none_or(|account| account.deactivated.is_some() || account.locked) {
                    return Ok(None);
                }
                for (field, key) in [("displayname", "display_name"), ("avatar_url", "avatar_url")] {
                    let json = snapshot.get(&schema::PROFILES, &(user, field.to_owned())).await?;
                    if let Some(text) = json.and_then(|json| serde_json::from_slice::<String>(&json).ok()) {
                        person.str(key, &text);
                    }
                }
            }
            Some(room) => {
                let member = snapshot.get(&schema::MEMBERS, &(room, user)).await?;
                let member = member.filter(|member| member.membership == Membership::Join);
                let Some(member) = member else { return Ok(None) };
                if !store.who().is_joined(room, viewer.user_no) && !self.is_open(&snapshot, room).await? {
                    return Ok(None);
                }
                let Some(event) = store.events().get(&snapshot, room, member.event).await? else { return Ok(None) };
                name_and_picture(&mut person, "display_name", event.content());
            }
        }
        person.end();
        Ok(Some(out))
    }

    /// Whether anybody may find the members of a room.
    async fn is_open(&self, snapshot: &Snapshot, room: RoomNo) -> Result<bool, Error> {
        let Some(head) = snapshot.get(&schema::ROOMS, &room).await? else { return Ok(false) };
        Ok(self.entry(snapshot, room, &head).await?.is_open())
    }
}

/// The name and the picture that a member event gives.
pub(crate) fn name_and_picture(out: &mut Object<'_>, name: &str, content: &[u8]) {
    #[derive(serde::Deserialize)]
    struct Content {
        displayname: Option<serde_json::Value>,
        avatar_url: Option<serde_json::Value>,
    }
    let Ok(Content { displayname, avatar_url }) = serde_json::from_slice(content) else { return };
    for (key, value) in [(name, displayname), ("avatar_url", avatar_url)] {
        if let Some(text) = value.as_ref().and_then(|value| value.as_str()) {
            out.str(key, text);
        }
    }
}
