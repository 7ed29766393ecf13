//! What the tests of authorisation and state resolution share: rooms made of plain events, and ruma as the oracle.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod dice;
pub mod oracle;
pub mod plain;
pub mod world;

use std::sync::Arc;

use base64::Engine as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use stoa_event::{ids::RoomVersionId, pdu::Pdu, version::Rules};

/// The versions whose JSON is strict.
pub const VERSIONS: [RoomVersionId; 7] = [
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// Those before.
pub const OLD: [RoomVersionId; 5] =
    [RoomVersionId::V1, RoomVersionId::V2, RoomVersionId::V3, RoomVersionId::V4, RoomVersionId::V5];

pub fn rules(id: &RoomVersionId) -> Rules {
    Rules::of(id).unwrap()
}

/// An id that looks like a hash. What it is the hash of does not matter here, that ids are in no order does.
pub fn hash_id(name: &str) -> String {
    let hash = Sha256::digest(name.as_bytes());
    format!("${}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash))
}

/// How many rounds a random test makes: few in CI, many with `STOA_LONG=1`.
pub fn rounds(few: u64) -> u64 {
    if std::env::var_os("STOA_LONG").is_some() { few * 50 } else { few }
}

/// An event before it has an id.
#[derive(Clone, Debug)]
pub struct Plan {
    pub kind: String,
    pub key: Option<String>,
    pub sender: String,
    pub content: Value,
    pub ts: u64,
    pub depth: u64,
    pub prev: Vec<String>,
    pub auth: Vec<String>,
}

impl Plan {
    pub fn new(kind: &str, key: Option<&str>, sender: &str, content: Value) -> Plan {
        Plan {
            kind: kind.into(),
            key: key.map(Into::into),
            sender: sender.into(),
            content,
            ts: 1,
            depth: 1,
            prev: vec!["$prev".into()],
            auth: Vec::new(),
        }
    }

    pub fn member(user: &str, membership: &str) -> Plan {
        Plan::new("m.room.member", Some(user), user, json!({ "membership": membership }))
    }

    pub fn by(mut self, sender: &str) -> Plan {
        self.sender = sender.into();
        self
    }

    /// `room` is left out of a version 12 create event.
    pub fn pdu(&self, rules: &Rules, room: &str, id: &str) -> Arc<Pdu> {
        let references = |ids: &[String]| match rules.reference_pairs {
            true => ids.iter().map(|id| json!([id, { "sha256": "" }])).collect::<Value>(),
            false => json!(ids),
        };
        let mut event = json!({
            "type": self.kind,
            "sender": self.sender,
            "content": self.content,
            "origin_server_ts": self.ts,
            "depth": self.depth,
            "prev_events": references(&self.prev),
            "auth_events": references(&self.auth),
            "hashes": { "sha256": "" },
            "signatures": {},
        });
        if let Some(key) = &self.key {
            event["state_key"] = json!(key);
        }
        if !(self.kind == "m.room.create" && rules.room_id_is_create_hash) {
            event["room_id"] = json!(room);
        }
        Arc::new(Pdu::stored(event.to_string().into(), id.try_into().unwrap(), rules).unwrap())
    }
}
