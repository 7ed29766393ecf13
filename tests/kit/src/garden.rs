//! A room that another server has and ours does not: made event by event on the stranger's side, and told as that server would
//! tell it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::origin::{Asked, Stranger, Told, now_ms};
use crate::random::unique;

/// A public room of version 11 whose events follow one another. Clones are the same room.
#[derive(Clone)]
pub struct Garden {
    /// Its id.
    pub id: String,
    /// The user who made it.
    pub gardener: String,
    events: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Garden {
    /// A room of a stranger, who tells of it to whoever asks: it may be joined, and all its events be had.
    pub fn of(stranger: &Stranger) -> Garden {
        let (id, gardener) = (format!("!{}:{}", unique(), stranger.name()), stranger.user("gardener"));
        let garden = Garden { id, gardener: gardener.clone(), events: Arc::default() };
        garden.state(stranger, "m.room.create", "", json!({ "room_version": "11" }));
        garden.state(stranger, "m.room.member", &gardener, json!({ "membership": "join" }));
        garden.state(stranger, "m.room.power_levels", "", json!({ "users": { &gardener: 100 } }));
        garden.state(stranger, "m.room.join_rules", "", json!({ "join_rule": "public" }));
        garden.is_told_by(stranger);
        garden
    }

    fn is_told_by(&self, stranger: &Stranger) {
        for what in ["join", "leave", "knock"] {
            let garden = self.clone();
            stranger.answers(&format!("v1/make_{what}/{}", self.id), move |asked| {
                let event = garden.draft(
                    asked.segment(3),
                    "m.room.member",
                    Some(asked.segment(3)),
                    json!({ "membership": what }),
                );
                (200, json!({ "room_version": "11", "event": event }).to_string())
            });
        }
        type Answer = fn(&Garden, &Asked) -> Told;
        let answers: [(&str, Answer); 7] = [
            ("v2/send_join", Garden::tell_join),
            ("v2/send_leave", Garden::tell_leave),
            ("v1/state_ids", Garden::tell_state_ids),
            ("v1/state/", Garden::tell_state),
            ("v1/event_auth", Garden::tell_event_auth),
            ("v1/backfill", Garden::tell_history),
            ("v1/get_missing_events", Garden::tell_missing),
        ];
        for (start, answer) in answers {
            let (garden, start) = (self.clone(), start.trim_end_matches('/'));
            stranger.answers(&format!("{start}/{}", self.id), move |asked| answer(&garden, asked));
        }
        let garden = self.clone();
        stranger.answers("v1/event/", move |asked| match garden.event(asked.segment(2)) {
            Some(event) => (200, json!({ "origin": "", "origin_server_ts": 0, "pdus": [event] }).to_string()),
            None => (404, json!({ "errcode": "M_NOT_FOUND", "error": "not here" }).to_string()),
        });
    }

    fn events(&self) -> Vec<(String, Value)> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds an event that was made elsewhere.
    pub fn take(&self, id: &str, event: &Value) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push((id.to_owned(), event.clone()));
    }

    /// An event by its id.
    pub fn event(&self, id: &str) -> Option<Value> {
        self.events().into_iter().find(|(known, _)| known == id).map(|(_, event)| event)
    }

    /// The id of the last event.
    ///
    /// # Panics
    /// Never: there is always one.
    pub fn last(&self) -> String {
        self.events().last().expect("rooms begin with events").0.clone()
    }

    /// The state after the event, or after the last one: ids by type and key.
    pub fn state_after(&self, id: &str) -> BTreeMap<(String, String), String> {
        let mut state = BTreeMap::new();
        for (known, event) in self.events() {
            if let (Some(kind), Some(key)) = (event["type"].as_str(), event["state_key"].as_str()) {
                state.insert((kind.to_owned(), key.to_owned()), known.clone());
            }
            if known == id {
                break;
            }
        }
        state
    }

    /// The id of the current state of a type and key.
    pub fn current(&self, kind: &str, key: &str) -> Option<String> {
        self.state_after("").remove(&(kind.to_owned(), key.to_owned()))
    }

    /// An event at the end of the room as it would be made, without hashes and signatures.
    pub fn draft(&self, sender: &str, kind: &str, key: Option<&str>, content: Value) -> Value {
        let joins = kind == "m.room.member" && content["membership"] == "join";
        let auth = [
            self.current("m.room.create", ""),
            self.current("m.room.power_levels", ""),
            self.current("m.room.member", sender),
            key.filter(|key| kind == "m.room.member" && *key != sender)
                .and_then(|key| self.current("m.room.member", key)),
            self.current("m.room.join_rules", "").filter(|_| joins),
        ];
        let events = self.events();
        let prev: Vec<&String> = events.last().map(|(id, _)| id).into_iter().collect();
        let mut event = json!({
            "type": kind, "room_id": self.id, "sender": sender, "content": content, "depth": events.len() + 1,
            "origin_server_ts": now_ms(), "prev_events": prev,
            "auth_events": auth.into_iter().flatten().collect::<Vec<_>>(),
        });
        if let Some(key) = key {
            event["state_key"] = json!(key);
        }
        event
    }

    /// Sets state, as the gardener; gives the event's id.
    pub fn state(&self, stranger: &Stranger, kind: &str, key: &str, content: Value) -> String {
        let sender = if kind == "m.room.member" { key } else { &self.gardener };
        let (id, event) = stranger.event(self.draft(sender, kind, Some(key), content));
        self.take(&id, &event);
        id
    }

    /// Says something, as the gardener; gives the event and its id.
    pub fn say(&self, stranger: &Stranger, body: &str) -> (String, Value) {
        let content = json!({ "msgtype": "m.text", "body": body });
        let (id, event) = stranger.event(self.draft(&self.gardener, "m.room.message", None, content));
        self.take(&id, &event);
        (id, event)
    }

    /// Whole events.
    pub fn whole(&self, ids: impl IntoIterator<Item = String>) -> Vec<Value> {
        ids.into_iter().filter_map(|id| self.event(&id)).collect()
    }

    /// The ids of everything that these events lead back to by their auth events.
    pub fn auth_chain(&self, of: impl IntoIterator<Item = String>) -> Vec<String> {
        let (mut todo, mut chain): (Vec<String>, Vec<String>) = (of.into_iter().collect(), Vec::new());
        while let Some(event) = todo.pop().and_then(|id| self.event(&id)) {
            for id in event["auth_events"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !chain.iter().any(|known| known == id) {
                    chain.push(id.to_owned());
                    todo.push(id.to_owned());
                }
            }
        }
        chain
    }

    /// What is answered to a join: the state before it, which is the last.
    pub fn tell_join(&self, asked: &Asked) -> Told {
        let state: Vec<String> = self.state_after("").into_values().collect();
        let chain = self.auth_chain(state.clone());
        let told = json!({
            "origin": "", "members_omitted": false, "event": asked.body,
            "state": self.whole(state), "auth_chain": self.whole(chain),
        });
        self.take(asked.segment(3), &asked.body);
        (200, told.to_string())
    }

    fn tell_leave(&self, asked: &Asked) -> Told {
        self.take(asked.segment(3), &asked.body);
        (200, "{}".to_owned())
    }

    /// The state before an event and its auth chain.
    fn before(&self, asked: &Asked) -> Option<(Vec<String>, Vec<String>)> {
        let id = asked.query.split('&').find_map(|part| part.strip_prefix("event_id="))?.replace("%24", "$");
        let event = self.event(&id)?;
        let state: Vec<String> = match event["prev_events"][0].as_str() {
            Some(prev) => self.state_after(prev).into_values().collect(),
            None => Vec::new(),
        };
        let chain = self.auth_chain(state.clone());
        Some((state, chain))
    }

    /// What is answered to a question for the ids of a state.
    pub fn tell_state_ids(&self, asked: &Asked) -> Told {
        let (state, chain) = self.before(asked).unwrap_or_default();
        (200, json!({ "pdu_ids": state, "auth_chain_ids": chain }).to_string())
    }

    /// What is answered to a question for a state.
    pub fn tell_state(&self, asked: &Asked) -> Told {
        let (state, chain) = self.before(asked).unwrap_or_default();
        (200, json!({ "pdus": self.whole(state), "auth_chain": self.whole(chain) }).to_string())
    }

    fn tell_event_auth(&self, asked: &Asked) -> Told {
        let chain = self.auth_chain([asked.segment(3).to_owned()]);
        (200, json!({ "auth_chain": self.whole(chain) }).to_string())
    }

    fn tell_history(&self, _: &Asked) -> Told {
        let mut all: Vec<Value> = self.events().into_iter().map(|(_, event)| event).collect();
        all.reverse();
        (200, json!({ "origin": "", "origin_server_ts": 0, "pdus": all }).to_string())
    }

    fn tell_missing(&self, asked: &Asked) -> Told {
        let ids = |name: &str| asked.body[name].as_array().cloned().unwrap_or_default();
        let (earliest, latest) = (ids("earliest_events"), ids("latest_events"));
        let all = self.events();
        let at = |list: &[Value]| all.iter().position(|(id, _)| list.contains(&json!(id)));
        let from = at(&earliest).map_or(0, |at| at + 1);
        let to = at(&latest).unwrap_or(0).max(from);
        let events: Vec<&Value> = all[from..to].iter().rev().take(20).map(|(_, event)| event).collect();
        (200, json!({ "events": events }).to_string())
    }
}
