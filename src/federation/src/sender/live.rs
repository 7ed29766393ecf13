//! Who of our users types, told to the other servers of the room (Server-Server API, "Typing Notifications").

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use stoa_store::RoomNo;
use tokio::sync::broadcast::error::RecvError;

use crate::{Error, Inner};

/// How often it is said again that somebody still types: others believe it for a minute.
const AGAIN_MS: u64 = 30_000;
/// How often it is looked whether that is due.
const LOOK: Duration = Duration::from_secs(5);
/// In how many rooms somebody of us types at most, as far as others are told.
const ROOMS: usize = 10_000;

/// Users who type in a room, and when that was told last.
type Typing = HashMap<RoomNo, BTreeMap<Arc<str>, u64>>;

impl Inner {
    /// Tells other servers who types, for ever.
    pub(super) async fn tell_typing(&self) {
        let mut bus = self.store.bus().listen();
        let mut told = Typing::new();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let rooms = tokio::select! {
                heard = bus.recv() => match heard {
                    Ok(room) => vec![room],
                    // Who lagged looks at all rooms again.
                    Err(RecvError::Lagged(_)) => told.keys().copied().collect(),
                    Err(RecvError::Closed) => return,
                },
                _ = looks.tick() => told.keys().copied().collect(),
            };
            for room in rooms {
                if let Err(why) = self.tell_typing_in(room, &mut told).await {
                    tracing::warn!(%why, "cannot tell other servers who types");
                }
            }
        }
    }

    async fn tell_typing_in(&self, room: RoomNo, told: &mut Typing) -> Result<(), Error> {
        let now = self.env.now_ms();
        let types = self.store.bus().who_types(room, now).users;
        let types: Vec<Arc<str>> = types.into_iter().filter(|user| self.is_ours(user)).collect();
        let before = told.remove(&room).unwrap_or_default();
        let mut news = Vec::new();
        let mut after = BTreeMap::new();
        for user in types {
            let last = before.get(&user).copied();
            let due = last.is_none_or(|last| last + AGAIN_MS <= now);
            if due {
                news.push((user.clone(), true));
            }
            after.insert(user, last.filter(|_| !due).unwrap_or(now));
        }
        news.extend(before.into_keys().filter(|user| !after.contains_key(user)).map(|user| (user, false)));
        if !after.is_empty() && told.len() < ROOMS {
            told.insert(room, after);
        }
        if news.is_empty() {
            return Ok(());
        }
        let snapshot = self.store.snapshot().await?;
        let servers = self.servers_of(&snapshot, room).await?;
        if servers.is_empty() {
            return Ok(());
        }
        let room = self.store.names().room_id(&snapshot, room).await?;
        for server in servers {
            self.sender.destinations.pass(server, |passing| {
                for (user, types) in &news {
                    passing.typing(room.clone(), user.clone(), *types);
                }
            });
        }
        Ok(())
    }
}
