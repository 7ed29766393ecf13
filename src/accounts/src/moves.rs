//! A room was replaced by another one: what its members had set for it goes along (Client-Server API, "Room Upgrades": "the
//! server should automatically transfer/replicate some of the user's personalized settings").

use ruma_common::push::{ConditionalPushRule, PushCondition, Ruleset, SimplePushRule};
use serde_json::Value;
use stoa_event::ids::{OwnedRoomId, RoomId};
use stoa_store::{
    Position, RoomNo, Snapshot, Tx, UserNo,
    rows::{account_data, push_rules},
};

use crate::{Accounts, Result, Who, account_data::TAGS};

/// The event type by which clients know direct chats.
const DIRECT: &str = "m.direct";

impl Accounts {
    /// Gives a room the tags, the push rules and the place among direct chats that its predecessor has for a user. What the
    /// user has set for the new room already stays.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn move_along(&self, who: &Who, from: &RoomId, to: &RoomId) -> Result<()> {
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        let names = self.store().names();
        let (Some(old), Some(new)) =
            (names.room(&snapshot, from.as_str()).await?, names.room(&snapshot, to.as_str()).await?)
        else {
            return Ok(());
        };
        let user = who.user_no;
        let mut tx = Tx::new();
        if let Some(tags) = account_data::get(&snapshot, user, Some(old), TAGS).await?
            && account_data::get(&snapshot, user, Some(new), TAGS).await?.is_none()
        {
            put(&mut tx, user, Some(new), TAGS, tags.json, None);
        }
        if let Some(direct) = account_data::get(&snapshot, user, None, DIRECT).await?
            && let Some(json) = with_direct(&direct.json, from, to)
        {
            put(&mut tx, user, None, DIRECT, json, Some(direct.at));
        }
        self.move_push_rules(&snapshot, &mut tx, who, (from, to)).await?;
        if !tx.is_empty() {
            self.store().commit(tx).await?;
        }
        Ok(())
    }

    async fn move_push_rules(
        &self,
        snapshot: &Snapshot,
        tx: &mut Tx,
        who: &Who,
        (from, to): (&RoomId, &RoomId),
    ) -> Result<()> {
        let (mut rules, at) = push_rules::get(snapshot, who.user_no, &who.user).await?;
        if copy_rules(&mut rules, from, to) {
            put(tx, who.user_no, None, push_rules::TYPE, push_rules::json(&rules), at);
        }
        Ok(())
    }
}

fn put(tx: &mut Tx, user: UserNo, room: Option<RoomNo>, kind: &str, json: Vec<u8>, before: Option<Position>) {
    let slot = tx.slot();
    account_data::put(tx, slot, user, room, kind, &json.into(), before);
}

/// `m.direct` with the new room beside the old one; `None` if nothing changes.
fn with_direct(json: &[u8], from: &RoomId, to: &RoomId) -> Option<Vec<u8>> {
    // A client may have written anything.
    let mut content: Value = serde_json::from_slice(json).ok()?;
    let mut changed = false;
    for rooms in content.as_object_mut()?.values_mut().filter_map(Value::as_array_mut) {
        let has = |room: &RoomId| rooms.iter().any(|other| other == room.as_str());
        if has(from) && !has(to) {
            rooms.push(to.as_str().into());
            changed = true;
        }
    }
    changed.then(|| content.to_string().into_bytes())
}

/// Copies the rules that are about one room for another one. Says whether there were any.
fn copy_rules(rules: &mut Ruleset, from: &RoomId, to: &RoomId) -> bool {
    let mut copied = false;
    let simple: Option<SimplePushRule<OwnedRoomId>> = rules.room.iter().find(|rule| rule.rule_id == from).cloned();
    if let Some(mut rule) = simple.filter(|_| !rules.room.iter().any(|rule| rule.rule_id == to)) {
        rule.rule_id = to.to_owned();
        copied |= rules.room.insert(rule);
    }
    for kind in [&mut rules.override_, &mut rules.underride] {
        let about: Vec<ConditionalPushRule> = kind.iter().filter(|rule| is_about(rule, from)).cloned().collect();
        for mut rule in about {
            let id = match rule.rule_id.contains(from.as_str()) {
                true => rule.rule_id.replace(from.as_str(), to.as_str()),
                false => format!("{} {to}", rule.rule_id),
            };
            if kind.iter().any(|other| other.rule_id == id) {
                continue;
            }
            rule.rule_id = id;
            for condition in &mut rule.conditions {
                if let PushCondition::EventMatch(data) = condition
                    && data.key == "room_id"
                    && data.pattern == from.as_str()
                {
                    data.pattern = to.to_string();
                }
            }
            copied |= kind.insert(rule);
        }
    }
    copied
}

fn is_about(rule: &ConditionalPushRule, room: &RoomId) -> bool {
    let names = |condition: &PushCondition| matches!(condition, PushCondition::EventMatch(data) if data.key == "room_id" && data.pattern == room.as_str());
    !rule.default && rule.conditions.iter().any(names)
}
