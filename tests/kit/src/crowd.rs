//! Many users of a [`Stranger`] in a room of a homeserver, sent in transactions: a large room is made in seconds.

use serde_json::{Value, json};

use crate::home::Home;
use crate::origin::{Stranger, now_ms};

/// How many events one transaction has.
const TOGETHER: usize = 50;

/// The crowd.
pub struct Crowd<'a> {
    stranger: &'a Stranger,
    home: &'a Home,
    room: String,
    /// Their member events.
    members: Vec<(String, String)>,
    /// Power levels, and what else a message names besides its sender's member event.
    for_messages: Vec<Value>,
    for_joins: Vec<Value>,
    tip: String,
    depth: u64,
}

impl<'a> Crowd<'a> {
    /// The first of them joins a public room (of version 12).
    ///
    /// # Panics
    /// If it is refused.
    pub async fn enter(stranger: &'a Stranger, home: &'a Home, room: &str) -> Crowd<'a> {
        let user = stranger.user("person0");
        let (id, event) = stranger.make(home, "join", room, &user).await;
        let answer = stranger.join_with(home, room, &id, &event).await;
        let state = answer["state"].as_array().cloned().unwrap_or_default();
        let is = |event: &Value, kind: &str| event["type"] == kind;
        let for_joins = event["auth_events"].as_array().cloned().unwrap_or_default();
        let levels = state.iter().find(|event| is(event, "m.room.power_levels")).expect("power levels");
        let for_messages = vec![json!(stranger.event_id(levels))];
        let depth = event["depth"].as_u64().unwrap_or_default();
        let (members, tip) = (vec![(user, id.clone())], id);
        Crowd { stranger, home, room: room.to_owned(), members, for_messages, for_joins, tip, depth }
    }

    /// More of them join, until there are so many.
    ///
    /// # Panics
    /// If one of them is refused.
    pub async fn join(&mut self, members: usize) {
        while self.members.len() < members {
            let mut events = Vec::with_capacity(TOGETHER);
            while events.len() < TOGETHER && self.members.len() < members {
                let n = self.members.len();
                let user = self.stranger.user(&format!("person{n}"));
                let content = json!({ "membership": "join", "displayname": format!("Person number {n}") });
                let auth = self.for_joins.clone();
                let (id, event) = self.next("m.room.member", Some(&user), &user, content, auth);
                self.members.push((user, id));
                events.push(event);
            }
            self.send(&events).await;
        }
    }

    /// They say so many things, one after the other.
    ///
    /// # Panics
    /// If something is refused.
    pub async fn talk(&mut self, messages: usize) {
        for first in (0..messages).step_by(TOGETHER) {
            let mut events = Vec::with_capacity(TOGETHER);
            for n in first..messages.min(first + TOGETHER) {
                let (user, member) = self.members[n * 7919 % self.members.len()].clone();
                let mut auth = self.for_messages.clone();
                auth.push(json!(member));
                let content = json!({ "msgtype": "m.text", "body": format!("message number {n} of many") });
                events.push(self.next("m.room.message", None, &user, content, auth).1);
            }
            self.send(&events).await;
        }
    }

    fn next(&mut self, kind: &str, key: Option<&str>, user: &str, content: Value, auth: Vec<Value>) -> (String, Value) {
        let mut event = json!({
            "type": kind, "room_id": self.room, "sender": user, "content": content, "auth_events": auth,
            "prev_events": [self.tip], "depth": self.depth + 1, "origin_server_ts": now_ms(),
        });
        if let Some(key) = key {
            event["state_key"] = json!(key);
        }
        let made = self.stranger.event(event);
        (self.tip, self.depth) = (made.0.clone(), self.depth + 1);
        made
    }

    async fn send(&self, events: &[Value]) {
        let events: Vec<&Value> = events.iter().collect();
        let answer = self.stranger.send(self.home, &events).await.ok();
        let refused = answer["pdus"].as_object().into_iter().flatten().find(|(_, it)| it.get("error").is_some());
        assert!(refused.is_none(), "an event of the crowd was refused: {refused:?}");
    }
}
