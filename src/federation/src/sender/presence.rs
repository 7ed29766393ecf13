//! How our users are there, told to the servers that share a room with them (Server-Server API, "Presence").

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::json;
use stoa_store::{
    RoomNo, UserNo,
    bus::presence::{BELIEVED_MS, Presence},
};
use tokio::sync::broadcast::error::RecvError;

use crate::{Error, Inner};

/// How often it is said again that somebody is there, before the others stop to believe it.
const AGAIN_MS: u64 = BELIEVED_MS / 6 * 5;
/// How often it is looked whether that is due.
const LOOK: Duration = Duration::from_secs(60);
/// In how many rooms of a user it is looked who else is there.
const ROOMS: u64 = 1000;

/// Users who are there, and when that was told last.
type Told = BTreeMap<UserNo, u64>;

impl Inner {
    /// Tells other servers who is there, for ever.
    pub(super) async fn tell_presence(&self) {
        let mut presence = self.store.bus().listen_to_presence();
        let mut told = Told::new();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let users: Vec<UserNo> = tokio::select! {
                heard = presence.recv() => match heard {
                    Ok(users) => users.to_vec(),
                    Err(RecvError::Lagged(_)) => told.keys().copied().collect(),
                    Err(RecvError::Closed) => return,
                },
                _ = looks.tick() => {
                    let now = self.env.now_ms();
                    told.iter().filter(|(_, last)| **last + AGAIN_MS <= now).map(|(user, _)| *user).collect()
                }
            };
            for user in users {
                if let Err(why) = self.tell_presence_of(user, &mut told).await {
                    tracing::warn!(%why, "cannot tell other servers who is there");
                }
            }
        }
    }

    async fn tell_presence_of(&self, user: UserNo, told: &mut Told) -> Result<(), Error> {
        let Some(shown) = self.store.bus().presence(user) else { return Ok(()) };
        let snapshot = self.store.snapshot().await?;
        let id = self.store.names().user_id(&snapshot, user).await?;
        if !self.is_ours(&id) {
            return Ok(());
        }
        let now = self.env.now_ms();
        match shown.presence {
            Presence::Offline => told.remove(&user),
            _ => told.insert(user, now),
        };
        let mut update = json!({
            "user_id": &*id,
            "presence": shown.presence.as_str(),
            "last_active_ago": now.saturating_sub(shown.active),
            "currently_active": matches!(shown.presence, Presence::Online | Presence::Busy),
        });
        if let Some(status) = &shown.status {
            update["status_msg"] = (&**status).into();
        }
        let rooms = self.store.who().joined(user);
        let mut servers = BTreeSet::new();
        for room in rooms.iter().map(RoomNo).take(ROOMS as usize) {
            servers.extend(self.servers_of(&snapshot, room).await?);
        }
        for server in servers {
            self.sender.destinations.pass(server, |passing| passing.presence(id.clone(), update.clone()));
        }
        Ok(())
    }
}
