//! EDUs of other servers (Server-Server API, "EDUs"): what is typed, read, and sent from device to device there. A server
//! speaks for its own users only, and one bad EDU never fails the others.

mod direct;
mod lists;
mod presence;
mod receipts;
mod typing;

use serde::Deserialize;
use serde_json::value::RawValue;
use stoa_event::ids::{OwnedUserId, RoomId, ServerName, UserId};
use stoa_store::{Membership, RoomNo, Snapshot, UserNo, schema};

pub(crate) use self::receipts::Parked;
use crate::{Error, Federation, Inner, intake::MAX_EDUS};

/// How many bytes the content of an EDU may have.
const MAX_BYTES: usize = 4 << 20;

/// An EDU as it came.
#[derive(Clone, Debug, Deserialize)]
pub struct Edu {
    /// Its type.
    pub edu_type: String,
    /// Its content.
    pub content: Box<RawValue>,
}

/// Why an EDU has no effect.
enum Unheard {
    /// It is not what it should be, or not the other server's to say.
    Bad(String),
    /// The store failed.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Unheard {
    fn from(why: E) -> Unheard {
        Unheard::Failed(why.into())
    }
}

/// What is wrong with an EDU.
fn bad(why: impl Into<String>) -> Unheard {
    Unheard::Bad(why.into())
}

impl Federation {
    /// Applies the EDUs of a transaction. Those that are bad have no effect.
    ///
    /// # Errors
    /// Where the store fails: then the other server must send the transaction again.
    pub async fn apply_edus(&self, origin: &ServerName, edus: &[Edu]) -> Result<(), Error> {
        for edu in edus.iter().take(MAX_EDUS) {
            self.apply_edu(origin, &edu.edu_type, edu.content.get().as_bytes()).await?;
        }
        Ok(())
    }

    /// Applies one EDU; one that is bad has no effect.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn apply_edu(&self, origin: &ServerName, kind: &str, content: &[u8]) -> Result<(), Error> {
        if content.len() > MAX_BYTES {
            return Ok(());
        }
        let inner = &*self.inner;
        let applied = match kind {
            "m.typing" => inner.hear_typing(origin, content).await,
            "m.presence" => inner.hear_presence(origin, content).await,
            "m.receipt" => inner.hear_receipts(origin, content).await,
            "m.direct_to_device" => inner.hear_direct(origin, content).await,
            "m.device_list_update" => inner.hear_device(origin, content).await,
            // Older servers say it so.
            "m.signing_key_update" | "org.matrix.signing_key_update" => inner.hear_signing_keys(origin, content).await,
            _ => Ok(()),
        };
        match applied {
            Ok(()) => Ok(()),
            Err(Unheard::Bad(why)) => {
                tracing::debug!(%origin, kind, why, "an EDU has no effect");
                Ok(())
            }
            Err(Unheard::Failed(why)) => Err(why),
        }
    }
}

fn read<'a, T: Deserialize<'a>>(content: &'a [u8]) -> Result<T, Unheard> {
    serde_json::from_slice(content).map_err(|why| bad(format!("its content cannot be read: {why}")))
}

/// A server speaks for its own users only.
fn check_user(origin: &ServerName, user: &UserId) -> Result<(), Unheard> {
    match user.server_name() == origin {
        true => Ok(()),
        false => Err(bad("it speaks for a user of another server")),
    }
}

impl Inner {
    /// The room, if users of ours are in it and the server may take part.
    async fn room_of(&self, snapshot: &Snapshot, origin: &ServerName, room: &RoomId) -> Result<RoomNo, Unheard> {
        let no = self.store.names().room(snapshot, room.as_str()).await?;
        let no = no.filter(|no| !self.store.who().local(*no).is_empty());
        let no = no.ok_or_else(|| bad("nobody here is in that room"))?;
        match self.rooms.admits(room, origin).await? {
            true => Ok(no),
            false => Err(bad("the server is banned from the room")),
        }
    }

    /// The user, if joined to the room.
    async fn member_of(&self, snapshot: &Snapshot, room: RoomNo, user: &OwnedUserId) -> Result<UserNo, Unheard> {
        let outside = || bad("the user is not in the room");
        let no = self.store.names().user(snapshot, user.as_str()).await?.ok_or_else(outside)?;
        let member = snapshot.get(&schema::MEMBERS, &(room, no)).await?;
        member.filter(|member| member.membership == Membership::Join).map(|_| no).ok_or_else(outside)
    }
}
