//! Rooms that two people are in (Client-Server API, "Mutual rooms").

use stoa_event::ids::{OwnedRoomId, UserId};
use stoa_store::{Membership, RoomNo, schema};

use crate::{Error, View, Viewer};

/// How many rooms one answer names.
const PAGE: usize = 100;
/// How many are looked at together.
const TOGETHER: usize = 1000;

/// Rooms that two people are in.
#[derive(Clone, Debug)]
pub struct MutualRooms {
    /// The rooms of this page.
    pub joined: Vec<OwnedRoomId>,
    /// How many they are in all.
    pub count: usize,
    /// Where the next page begins.
    pub next: Option<String>,
}

impl View {
    /// The rooms that the viewer and somebody else are joined to; none for who is not known.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for oneself, and for a token that is not ours.
    pub async fn mutual_rooms(
        &self,
        viewer: &Viewer,
        other: &UserId,
        from: Option<&str>,
    ) -> Result<MutualRooms, Error> {
        if *other == *viewer.user {
            return Err(Error::InvalidParam("you share all your rooms with yourself".into()));
        }
        let after = from.map(str::parse::<u32>).transpose();
        let after = after.map_err(|_| Error::InvalidParam("from is not a token of this server".into()))?;
        let store = &self.inner.store;
        let snapshot = store.snapshot().await?;
        let Some(other) = store.names().user(&snapshot, other.as_str()).await? else {
            return Ok(MutualRooms { joined: Vec::new(), count: 0, next: None });
        };
        let own: Vec<RoomNo> = store.who().joined(viewer.user_no).iter().map(RoomNo).collect();
        let mut shared = Vec::new();
        for rooms in own.chunks(TOGETHER) {
            let members = snapshot.get_many(&schema::MEMBERS, rooms.iter().map(|room| (*room, other))).await?;
            let joined = |(room, member): (&RoomNo, Option<stoa_store::rows::rooms::Member>)| {
                member.filter(|member| member.membership == Membership::Join).map(|_| *room)
            };
            shared.extend(rooms.iter().zip(members).filter_map(joined));
        }
        let count = shared.len();
        shared.retain(|room| after.is_none_or(|after| room.0 > after));
        let next = shared.get(PAGE - 1).filter(|_| shared.len() > PAGE).map(|last| last.0.to_string());
        let mut joined = Vec::new();
        for room in shared.into_iter().take(PAGE) {
            joined.extend(OwnedRoomId::try_from(&*store.names().room_id(&snapshot, room).await?).ok());
        }
        Ok(MutualRooms { joined, count, next })
    }
}
