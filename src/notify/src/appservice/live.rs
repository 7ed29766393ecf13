//! What lives on the bus and nowhere else, typing and presence, for application services that want it. Only that there is news is
//! remembered: what is told is how it is then, so that a service that was away is told once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use serde_json::{Value, json};
use stoa_accounts::Service;
use stoa_store::{RoomNo, Snapshot, UserNo, bus::presence::Presence};
use tokio::sync::broadcast::error::RecvError;

use super::{Error, Inner, interest::Rooms};

/// Of how many rooms and people it is remembered that there is news.
const MANY: usize = 1_000;
/// Of how many rooms it is remembered what was said of them last.
const ROOMS: usize = 10_000;

/// What there is news of for a service.
#[derive(Default)]
pub(super) struct Live {
    /// Rooms in which somebody began or ceased to type.
    pub(super) typing: BTreeSet<RoomNo>,
    /// People whose presence changed.
    pub(super) presence: BTreeSet<UserNo>,
}

impl Inner {
    /// Services that want to know what lives on the bus, with their places in the interest.
    fn listeners(&self) -> Vec<(usize, Arc<Service>)> {
        let services = self.interest.read().services.clone();
        let all = services.all().iter().cloned().enumerate();
        all.filter(|(_, service)| service.ephemeral && service.url.is_some()).collect()
    }

    /// Hears who types, for ever.
    pub(super) async fn hear_live(&self) {
        let mut bus = self.store.bus().listen();
        let mut places = HashMap::new();
        loop {
            let room = match bus.recv().await {
                Ok(room) => room,
                // Typing ends soon and is then heard of.
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            if places.len() > ROOMS {
                places.clear();
            }
            let place = self.store.bus().who_types(room, self.env.now_ms()).place;
            // Other live events wake too.
            if places.insert(room, place) == Some(place) {
                continue;
            }
            if let Err(why) = self.note_typing(room).await {
                tracing::warn!(%why, "cannot tell application services who types");
            }
        }
    }

    async fn note_typing(&self, room: RoomNo) -> Result<(), Error> {
        let listeners = self.listeners();
        if listeners.is_empty() {
            return Ok(());
        }
        let snapshot = self.store.snapshot().await?;
        for (nth, service) in listeners {
            if self.wants_room(&snapshot, (nth, &service), room, &mut Rooms::default()).await? {
                let line = self.line(&service.id);
                let mut live = line.live.lock();
                if live.typing.len() < MANY {
                    live.typing.insert(room);
                    line.wake.notify_one();
                }
            }
        }
        Ok(())
    }

    /// Hears who comes and goes, for ever.
    pub(super) async fn hear_presence(&self) {
        let mut presence = self.store.bus().listen_to_presence();
        loop {
            let users = match presence.recv().await {
                Ok(users) => users,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            if let Err(why) = self.note_presence(&users).await {
                tracing::warn!(%why, "cannot tell application services who is there");
            }
        }
    }

    async fn note_presence(&self, users: &[UserNo]) -> Result<(), Error> {
        let listeners = self.listeners();
        if listeners.is_empty() {
            return Ok(());
        }
        let snapshot = self.store.snapshot().await?;
        for (nth, service) in listeners {
            let line = self.line(&service.id);
            for user in users {
                if self.wants_person(&snapshot, nth, *user).await? {
                    let mut live = line.live.lock();
                    if live.presence.len() < MANY {
                        live.presence.insert(*user);
                    }
                }
            }
            if !line.live.lock().presence.is_empty() {
                line.wake.notify_one();
            }
        }
        Ok(())
    }

    /// The events of what there was news of, as it is now.
    pub(super) async fn live_events(&self, snapshot: &Snapshot, live: &Live) -> Result<Vec<Value>, Error> {
        let (now, names) = (self.env.now_ms(), self.store.names());
        let mut events = Vec::new();
        for room in &live.typing {
            let types = self.store.bus().who_types(*room, now);
            let room = names.room_id(snapshot, *room).await?;
            let users: Vec<&str> = types.users.iter().map(|user| &**user).collect();
            events.push(json!({ "type": "m.typing", "room_id": &*room, "content": { "user_ids": users } }));
        }
        for user in &live.presence {
            let Some(shown) = self.store.bus().presence(*user) else { continue };
            let mut content = json!({
                "presence": shown.presence.as_str(),
                "currently_active": matches!(shown.presence, Presence::Online | Presence::Busy),
            });
            if shown.active > 0 {
                content["last_active_ago"] = now.saturating_sub(shown.active).into();
            }
            if let Some(status) = &shown.status {
                content["status_msg"] = (&**status).into();
            }
            let sender = names.user_id(snapshot, *user).await?;
            events.push(json!({ "type": "m.presence", "sender": &*sender, "content": content }));
        }
        Ok(events)
    }
}
