//! What a server holds, read from its store beside all that it would tell.

use std::collections::{BTreeMap, BTreeSet};

use stoa_event::ids::OwnedRoomId;
use stoa_store::{Direction, EventNo, RoomNo, Snapshot, Store, rows::events::Standing, schema};

use crate::node::Node;

/// An event as a server holds it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) standing: Standing,
    /// The ids of the state before it, if it has its place.
    pub(crate) before: Option<BTreeSet<String>>,
    pub(crate) kind: String,
    pub(crate) content: String,
}

/// A room as a server holds it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    /// Whether users of the server are joined, as it sees it.
    pub(crate) is_in: bool,
    /// By type and state key.
    pub(crate) current: BTreeMap<(String, String), String>,
    pub(crate) events: BTreeMap<String, Held>,
    pub(crate) tips: BTreeSet<String>,
    /// The servers that it would send to.
    pub(crate) servers: BTreeSet<String>,
}

impl Room {
    /// The users who are in the room, as the server sees it.
    pub(crate) fn joined(&self) -> BTreeSet<&str> {
        let members = self.current.iter().filter(|((kind, _), _)| kind == "m.room.member");
        let is_join = |id: &String| {
            let content = self.events.get(id).map(|held| held.content.as_str()).unwrap_or_default();
            serde_json::from_str::<serde_json::Value>(content).is_ok_and(|content| content["membership"] == "join")
        };
        members.filter(|(_, id)| is_join(id)).map(|((_, user), _)| user.as_str()).collect()
    }
}

fn failed(why: impl std::fmt::Display) -> String {
    format!("cannot look into a store: {why}")
}

impl Node {
    fn held(&self) -> Result<(Store, stoa_rooms::Rooms), String> {
        self.inside().ok_or_else(|| format!("{} is down", self.name))
    }

    /// How much waits for other servers.
    pub(crate) async fn waiting(&self) -> Result<usize, String> {
        let (store, _) = self.held()?;
        let snapshot = store.snapshot().await.map_err(failed)?;
        let servers = stoa_store::rows::outbox::servers(&snapshot, 100).await.map_err(failed)?;
        Ok(servers.len())
    }

    /// The position of the last commit.
    pub(crate) async fn position(&self) -> Result<u64, String> {
        let (store, _) = self.held()?;
        Ok(store.snapshot().await.map_err(failed)?.position().0)
    }

    /// A room, or nothing where the server does not know it.
    pub(crate) async fn room(&self, id: &OwnedRoomId) -> Result<Option<Room>, String> {
        let (store, rooms) = self.held()?;
        let snapshot = store.snapshot().await.map_err(failed)?;
        let Some(no) = store.names().room(&snapshot, id.as_str()).await.map_err(failed)? else { return Ok(None) };
        let Some(head) = snapshot.get(&schema::ROOMS, &no).await.map_err(failed)? else { return Ok(None) };
        let rows = snapshot.scan(&schema::EVENTS, &no, Direction::Forward, usize::MAX).await.map_err(failed)?;
        let ids: BTreeMap<EventNo, (String, String, Option<String>)> = rows
            .iter()
            .map(|((_, no), event)| {
                let header = &event.header;
                (*no, (header.event_id.clone(), header.kind.clone(), header.state_key.clone()))
            })
            .collect();
        let mut room = Room { is_in: rooms.is_in(id).await.map_err(failed)?, ..Room::default() };
        for (_, event) in rows {
            let header = &event.header;
            let before = match header.before {
                Some(root) => Some(state(&store, &snapshot, no, root, &ids).await?.into_values().collect()),
                None => None,
            };
            let held = Held {
                standing: header.standing,
                before,
                kind: header.kind.clone(),
                content: String::from_utf8_lossy(event.content()).into_owned(),
            };
            room.events.insert(header.event_id.clone(), held);
        }
        room.current = state(&store, &snapshot, no, head.root, &ids).await?;
        room.tips = rooms.tips(id).await.map_err(failed)?.iter().map(ToString::to_string).collect();
        let servers =
            snapshot.scan(&schema::ROOM_SERVERS, &no, Direction::Forward, usize::MAX).await.map_err(failed)?;
        room.servers = servers.into_iter().map(|((_, server), _)| server).collect();
        Ok(Some(room))
    }
}

async fn state(
    store: &Store,
    snapshot: &Snapshot,
    room: RoomNo,
    root: stoa_store::state::Root,
    ids: &BTreeMap<EventNo, (String, String, Option<String>)>,
) -> Result<BTreeMap<(String, String), String>, String> {
    let entries = store.state(snapshot, room).entries(root).await.map_err(failed)?;
    let mut state = BTreeMap::new();
    for (_, no) in entries {
        let (id, kind, key) = ids.get(&no).ok_or_else(|| format!("an event {no:?} of a state is not held"))?;
        state.insert((kind.clone(), key.clone().unwrap_or_default()), id.clone());
    }
    Ok(state)
}
