//! Rooms that this server is not in, as other servers show them (Server-Server API, "Spaces"). What they say is kept for a
//! while, and nothing of it is passed on that was not asked for.

use std::{sync::Arc, time::Duration};

use quick_cache::sync::Cache;
use serde::Deserialize;
use serde_json::{Map, Value};
use stoa_event::ids::{OwnedServerName, RoomId, ServerName};

use crate::{Error, Federation, Inner, ask::Path};

/// How many servers are asked about a room.
const SERVERS: usize = 3;
/// How long one of them may take: somebody waits.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long an answer, or that there is none, is believed.
const KEPT_MS: u64 = 5 * 60_000;
/// How many rooms are kept.
const ROOMS: usize = 2000;
/// How many children of a space are looked at.
const CHILDREN: usize = 100;
/// What a summary is made of, beside `children_state`: text, numbers, and yes or no.
const TEXTS: [&str; 9] = [
    "room_id",
    "name",
    "topic",
    "canonical_alias",
    "avatar_url",
    "join_rule",
    "room_type",
    "encryption",
    "room_version",
];

/// A room, and those of its children that the server knows, as another server shows them.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The room, with `children_state`.
    pub room: Map<String, Value>,
    /// Its children, without theirs.
    pub children: Vec<Map<String, Value>>,
    /// Children to which no way leads, which need not be asked for.
    pub closed: Vec<String>,
}

#[derive(Deserialize)]
struct Answer {
    room: Map<String, Value>,
    #[serde(default)]
    children: Vec<Map<String, Value>>,
    #[serde(default)]
    inaccessible_children: Vec<String>,
}

/// When it was heard, and what; `None` where nobody showed the room.
type Known = (u64, Option<Arc<Shown>>);

/// What was heard of rooms; with everything, or with what they suggest only.
pub(crate) struct Heard(Cache<(String, bool), Known>);

impl Default for Heard {
    fn default() -> Self {
        Heard(Cache::new(ROOMS))
    }
}

impl Federation {
    /// A room that this server is not in, as one of these servers shows it.
    ///
    /// # Errors
    /// Where the store fails. That no server answers is no error: then there is nothing to see.
    pub async fn shown(
        &self,
        room: &RoomId,
        via: &[OwnedServerName],
        suggested_only: bool,
    ) -> Result<Option<Arc<Shown>>, Error> {
        let inner = &*self.inner;
        let key = (room.to_string(), suggested_only);
        let now = inner.env.now_ms();
        if let Some((at, shown)) = inner.heard.0.get(&key).filter(|(at, _)| at + KEPT_MS > now) {
            tracing::trace!(%room, at, "known");
            return Ok(shown);
        }
        let mut asked = 0;
        for server in via {
            if asked == SERVERS {
                break;
            }
            if !inner.is_other(server) || inner.remote.backing_off(server).await?.is_some() {
                continue;
            }
            asked += 1;
            match inner.ask_for_space(server, room, suggested_only).await {
                Ok(shown) => {
                    let shown = Arc::new(shown);
                    inner.heard.0.insert(key, (now, Some(shown.clone())));
                    return Ok(Some(shown));
                }
                Err(why) => tracing::debug!(%room, %server, %why, "cannot be shown the room"),
            }
        }
        if asked > 0 {
            inner.heard.0.insert(key, (now, None));
        }
        Ok(None)
    }
}

impl Inner {
    async fn ask_for_space(&self, server: &ServerName, room: &RoomId, suggested_only: bool) -> Result<Shown, Error> {
        let suggested = if suggested_only { "true" } else { "false" };
        let path = Path::new("v1/hierarchy").part(room.as_str()).ask("suggested_only", suggested);
        let answer: Answer = self.get(server, path, PATIENCE).await?;
        let shown = summary(&answer.room).filter(|shown| shown["room_id"] == room.as_str());
        let mut shown = shown.ok_or_else(|| Error::Bad("the server answers about another room".into()))?;
        shown.insert("children_state".into(), children_state(&answer.room).into());
        Ok(Shown {
            room: shown,
            children: answer.children.iter().take(CHILDREN).filter_map(summary).collect(),
            closed: answer.inaccessible_children.into_iter().take(CHILDREN).collect(),
        })
    }
}

/// What is passed on of a summary; `None` if it lacks what it must have.
fn summary(told: &Map<String, Value>) -> Option<Map<String, Value>> {
    let mut kept = Map::new();
    for field in TEXTS {
        kept.extend(told.get(field).filter(|value| value.is_string()).map(|value| (field.to_owned(), value.clone())));
    }
    for field in ["world_readable", "guest_can_join"] {
        kept.insert(field.into(), told.get(field).and_then(Value::as_bool).unwrap_or_default().into());
    }
    kept.insert("num_joined_members".into(), told.get("num_joined_members").and_then(Value::as_u64)?.into());
    let allowed = told.get("allowed_room_ids").and_then(Value::as_array);
    let allowed: Vec<Value> =
        allowed.into_iter().flatten().filter(|id| id.is_string()).take(CHILDREN).cloned().collect();
    if !allowed.is_empty() {
        kept.insert("allowed_room_ids".into(), allowed.into());
    }
    kept.contains_key("room_id").then_some(kept)
}

/// The `m.space.child` events of a space, as far as they are what they should be.
fn children_state(told: &Map<String, Value>) -> Vec<Value> {
    let events = told.get("children_state").and_then(Value::as_array);
    let proper = |event: &&Value| {
        event["type"] == "m.space.child"
            && event["state_key"].is_string()
            && event["sender"].is_string()
            && event["origin_server_ts"].is_u64()
            && event["content"]["via"].as_array().is_some_and(|via| !via.is_empty() && via.iter().all(Value::is_string))
    };
    let events = events.into_iter().flatten().filter(proper).take(CHILDREN);
    let kept = events.map(|event| {
        let fields = ["type", "state_key", "sender", "content", "origin_server_ts"];
        let fields = fields.map(|field| (field.to_owned(), event[field].clone()));
        Value::Object(fields.into_iter().collect())
    });
    kept.collect()
}
