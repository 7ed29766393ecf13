//! The rooms of the simulation and how they begin.

use std::sync::Arc;

use serde_json::{Value, json};
use stoa_event::ids::OwnedRoomId;

use crate::{
    chance::Dice,
    user::{User, part},
};

/// What may happen in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first user of each server stays, and only they have power: no server is ever out of the room.
    Steady,
    /// All have power, and only the creator stays.
    Quarrel,
}

/// A room.
#[derive(Clone)]
pub(crate) struct SimRoom {
    pub(crate) id: OwnedRoomId,
    pub(crate) kind: Kind,
    pub(crate) version: &'static str,
}

impl SimRoom {
    /// The version as a number.
    pub(crate) fn version(&self) -> u32 {
        self.version.parse().unwrap_or(0)
    }
}

/// The versions, those of today more often than the others.
const VERSIONS: [(u64, &str); 12] = [
    (1, "1"),
    (1, "2"),
    (1, "3"),
    (1, "4"),
    (1, "5"),
    (1, "6"),
    (1, "7"),
    (1, "8"),
    (1, "9"),
    (4, "10"),
    (6, "11"),
    (8, "12"),
];

/// Makes a room by the first of some users, whom the others join.
pub(crate) async fn make(kind: Kind, users: &[Arc<User>], dice: &mut Dice) -> Result<SimRoom, String> {
    let version = dice.weighted(&VERSIONS);
    let creator = &users[0];
    let anchors = anchors(users);
    let mut powers = serde_json::Map::new();
    for user in users {
        let power = match kind {
            Kind::Steady if anchors.iter().any(|anchor| anchor.id == user.id) => 100,
            Kind::Steady => continue,
            Kind::Quarrel => *dice.pick(&[50, 60, 75, 100]),
        };
        // The creators of rooms of version 12 have more than all power, and must not be named.
        if user.id != creator.id || version != "12" {
            powers.insert(user.id.clone(), if user.id == creator.id { 100 } else { power }.into());
        }
    }
    let mut levels = json!({ "users": powers, "invite": 0, "events": { "m.room.power_levels": 50 } });
    if kind == Kind::Steady {
        levels["events"] = json!({});
        levels["state_default"] = 100.into();
        levels["events"] = json!({ "m.room.topic": 0, "m.room.power_levels": 100, "m.room.join_rules": 100 });
        for action in ["ban", "kick", "redact"] {
            levels[action] = 100.into();
        }
    }
    let body = json!({
        "preset": "public_chat",
        "room_version": version,
        "power_level_content_override": levels,
        "creation_content": {},
    });
    let answer = creator.post("/createRoom", &body).await;
    let Some((200, said)) = &answer else { return Err(format!("no room of version {version}: {answer:?}")) };
    let id = said["room_id"].as_str().unwrap_or_default().to_owned();
    for user in &users[1..] {
        join(user, &id, &creator.node.name).await?;
    }
    let id = OwnedRoomId::try_from(id).map_err(|why| why.to_string())?;
    Ok(SimRoom { id, kind, version })
}

async fn join(user: &User, room: &str, via: &str) -> Result<(), String> {
    let answer = user.post(&format!("/join/{}?via={via}", part(room)), &json!({})).await;
    match answer {
        Some((200, _)) => Ok(()),
        other => Err(format!("{} cannot join {room}: {other:?}", user.id)),
    }
}

/// The first user of each server.
pub(crate) fn anchors(users: &[Arc<User>]) -> Vec<&Arc<User>> {
    let mut anchors: Vec<&Arc<User>> = Vec::new();
    for user in users {
        if !anchors.iter().any(|anchor| anchor.node.name == user.node.name) {
            anchors.push(user);
        }
    }
    anchors
}

/// The id of what an answer made.
pub(crate) fn event_id(said: &Value) -> String {
    said["event_id"].as_str().unwrap_or_default().to_owned()
}
