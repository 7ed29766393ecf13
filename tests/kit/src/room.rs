//! What a user does in rooms.

use serde_json::{Value, json};

use crate::account::User;
use crate::http::{Reply, encode};

impl User {
    /// Creates a room and gives its ID.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn create_room(&self, options: Value) -> String {
        self.post("/createRoom", options).await.room_id()
    }

    /// A private room with these users in it.
    ///
    /// # Panics
    /// If any step is refused.
    pub async fn room_with(&self, others: &[&User]) -> String {
        let invite: Vec<&str> = others.iter().map(|user| user.id.as_str()).collect();
        let room = self.create_room(json!({ "preset": "private_chat", "invite": invite })).await;
        for user in others {
            user.join(&room).await.ok();
        }
        room
    }

    /// A room that everybody may join.
    pub async fn public_room(&self) -> String {
        self.create_room(json!({ "preset": "public_chat" })).await
    }

    /// Joins by room ID or alias.
    pub async fn join(&self, room: &str) -> Reply {
        self.post(&format!("/join/{}", encode(room)), json!({})).await
    }

    /// Leaves.
    pub async fn leave(&self, room: &str) -> Reply {
        self.post(&format!("/rooms/{}/leave", encode(room)), json!({})).await
    }

    /// Forgets a room that was left.
    pub async fn forget(&self, room: &str) -> Reply {
        self.post(&format!("/rooms/{}/forget", encode(room)), json!({})).await
    }

    /// Knocks.
    pub async fn knock(&self, room: &str) -> Reply {
        self.post(&format!("/knock/{}", encode(room)), json!({})).await
    }

    /// Invites.
    pub async fn invite(&self, room: &str, user: &User) -> Reply {
        self.about("invite", room, user).await
    }

    /// Removes a member.
    pub async fn kick(&self, room: &str, user: &User) -> Reply {
        self.about("kick", room, user).await
    }

    /// Bans.
    pub async fn ban(&self, room: &str, user: &User) -> Reply {
        self.about("ban", room, user).await
    }

    /// Lifts a ban.
    pub async fn unban(&self, room: &str, user: &User) -> Reply {
        self.about("unban", room, user).await
    }

    async fn about(&self, what: &str, room: &str, user: &User) -> Reply {
        self.post(&format!("/rooms/{}/{what}", encode(room)), json!({ "user_id": user.id })).await
    }

    /// Sends a message event.
    pub async fn send(&self, room: &str, kind: &str, content: Value) -> Reply {
        self.send_as(room, kind, &self.txn(), content).await
    }

    /// Sends a message event with this transaction ID.
    pub async fn send_as(&self, room: &str, kind: &str, txn: &str, content: Value) -> Reply {
        self.put(&format!("/rooms/{}/send/{}/{}", encode(room), encode(kind), encode(txn)), content).await
    }

    /// Sends a text message and gives its event ID.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn text(&self, room: &str, body: &str) -> String {
        self.send(room, "m.room.message", json!({ "msgtype": "m.text", "body": body })).await.event_id()
    }

    /// Sends these texts one after the other and gives their event IDs.
    ///
    /// # Panics
    /// If one is refused.
    pub async fn texts(&self, room: &str, bodies: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut ids = Vec::new();
        for body in bodies {
            ids.push(self.text(room, &body).await);
        }
        ids
    }

    /// Sets state.
    pub async fn set_state(&self, room: &str, kind: &str, key: &str, content: Value) -> Reply {
        self.put(&state_path(room, kind, key), content).await
    }

    /// The content of a state event.
    pub async fn state(&self, room: &str, kind: &str, key: &str) -> Reply {
        self.get(&state_path(room, kind, key)).await
    }

    /// All state events.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn all_state(&self, room: &str) -> Vec<Value> {
        match self.get(&format!("/rooms/{}/state", encode(room))).await.ok() {
            Value::Array(events) => events,
            other => panic!("/state is an array, got {other}"),
        }
    }

    /// Changes the power levels as this closure says.
    ///
    /// # Panics
    /// If they cannot be read or written.
    pub async fn change_power(&self, room: &str, change: impl FnOnce(&mut Value)) {
        let mut levels = self.state(room, "m.room.power_levels", "").await.ok();
        change(&mut levels);
        self.set_state(room, "m.room.power_levels", "", levels).await.ok();
    }

    /// Redacts an event.
    pub async fn redact(&self, room: &str, event: &str) -> Reply {
        let path = format!("/rooms/{}/redact/{}/{}", encode(room), encode(event), self.txn());
        self.put(&path, json!({ "reason": "because" })).await
    }

    /// One event.
    pub async fn event(&self, room: &str, event: &str) -> Reply {
        self.get(&format!("/rooms/{}/event/{}", encode(room), encode(event))).await
    }

    /// A page of history; `query` is what follows the question mark.
    pub async fn messages(&self, room: &str, query: &str) -> Reply {
        self.get(&format!("/rooms/{}/messages?{query}", encode(room))).await
    }

    /// All history that this user may see, newest first.
    ///
    /// # Panics
    /// If a page is refused or the pages never end.
    pub async fn whole_history(&self, room: &str) -> Vec<Value> {
        let (mut events, mut query) = (Vec::new(), "dir=b&limit=50".to_owned());
        for _ in 0..1000 {
            let page = self.messages(room, &query).await.ok();
            events.extend(page["chunk"].as_array().cloned().unwrap_or_default());
            let Some(end) = page["end"].as_str() else { return events };
            query = format!("dir=b&limit=50&from={}", encode(end));
        }
        panic!("paging back through {room} never ends");
    }

    /// Says that this user types, or no longer does.
    pub async fn typing(&self, room: &str, typing: bool) -> Reply {
        let path = format!("/rooms/{}/typing/{}", encode(room), self.path_id());
        match typing {
            true => self.put(&path, json!({ "typing": true, "timeout": 30_000 })).await,
            false => self.put(&path, json!({ "typing": false })).await,
        }
    }

    /// Sends a receipt.
    pub async fn receipt(&self, room: &str, kind: &str, event: &str, body: Value) -> Reply {
        self.post(&format!("/rooms/{}/receipt/{}/{}", encode(room), encode(kind), encode(event)), body).await
    }
}

fn state_path(room: &str, kind: &str, key: &str) -> String {
    format!("/rooms/{}/state/{}/{}", encode(room), encode(kind), encode(key))
}
