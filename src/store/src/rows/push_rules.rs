//! Push rules as account data `m.push_rules` (Client-Server API, "Push Rules"). They are written by
//! `rows/account_data.rs`; a user who never changed any has no row.

use ruma_common::push::Ruleset;
use serde::Deserialize;
use serde_json::{Value, json};
use stoa_event::ids::UserId;

use super::account_data;
use crate::{Error, Position, Snapshot, UserNo};

/// The event type of push rules in account data.
pub const TYPE: &str = "m.push_rules";

/// The kind of rules between `content` and `room` to which users cannot add any (MSC4306).
pub const POSTCONTENT: &str = "postcontent";

#[derive(Deserialize)]
struct Content {
    global: Ruleset,
}

/// The rules of a user, and where they were changed last.
///
/// # Errors
/// Where the engine fails.
pub async fn get(snapshot: &Snapshot, user: UserNo, user_id: &UserId) -> Result<(Ruleset, Option<Position>), Error> {
    let row = account_data::get(snapshot, user, None, TYPE).await?;
    Ok(match row {
        Some(row) => (read(&row.json, user_id), Some(row.at)),
        None => (defaults(user_id), None),
    })
}

/// The rules that everybody has.
pub fn defaults(user_id: &UserId) -> Ruleset {
    Ruleset::server_default(user_id)
}

/// Rules as the content of the account data event.
pub fn json(rules: &Ruleset) -> Vec<u8> {
    json!({ "global": global(rules) }).to_string().into_bytes()
}

/// Rules as clients see them: with every kind, also those without a rule.
pub fn global(rules: &Ruleset) -> Value {
    // A rule set has string keys only, so it cannot fail.
    let mut all = serde_json::to_value(rules).unwrap_or_default();
    for kind in ["override", "content", POSTCONTENT, "room", "sender", "underride"] {
        if all.get(kind).is_none() {
            all[kind] = json!([]);
        }
    }
    all
}

/// The stored rules with the default rules of this release.
fn read(json: &[u8], user_id: &UserId) -> Ruleset {
    match serde_json::from_slice::<Content>(json) {
        Ok(Content { mut global }) => {
            global.update_with_server_default(defaults(user_id));
            global
        }
        // Rules that cannot be read must not lock anybody out of `/sync`.
        Err(error) => {
            tracing::error!(%error, "stored push rules cannot be read");
            defaults(user_id)
        }
    }
}

/// The same as JSON.
pub(super) fn refreshed(stored: &[u8], user_id: &UserId) -> Vec<u8> {
    json(&read(stored, user_id))
}
