//! What a pusher is told, before it is put into the words of a gateway or of Web Push.

use serde_json::{Map, Value};
use stoa_view::About;

/// One thing that a pusher is told.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// The event; nothing where only the number of unread messages is told.
    pub(super) about: Option<About>,
    /// What the push rule says of how it is shown.
    pub(super) tweaks: Map<String, Value>,
    /// How much is unread.
    pub(super) unread: u64,
}

impl Message {
    /// The number of unread messages and nothing else.
    pub(super) fn badge(unread: u64) -> Message {
        Message { about: None, tweaks: Map::new(), unread }
    }

    /// An event with the actions, a JSON array, of the rule that applied.
    pub(super) fn event(about: About, actions: &[u8], unread: u64) -> Message {
        Message { about: Some(about), tweaks: tweaks(actions), unread }
    }

    /// Whether it is worth waking a phone: it makes a noise, or it may be a mention, which of an encrypted event nobody here
    /// knows.
    pub(super) fn is_urgent(&self) -> bool {
        let says =
            |tweak: &str| self.tweaks.get(tweak).is_some_and(|value| !value.is_null() && *value != Value::Bool(false));
        let encrypted = self.about.as_ref().is_some_and(|about| about.kind == "m.room.encrypted");
        self.about.is_some() && (encrypted || says("sound") || says("highlight"))
    }
}

/// `tweaks` of the actions of a rule (Client-Server API, "Actions").
fn tweaks(actions: &[u8]) -> Map<String, Value> {
    let actions: Vec<Value> = serde_json::from_slice(actions).unwrap_or_default();
    let tweak = |action: &Value| {
        let name = action.get("set_tweak")?.as_str()?.to_owned();
        // "If a `highlight` tweak is given with no value, its value is defined to be `true`."
        let value = action.get("value").cloned().unwrap_or_else(|| name.eq("highlight").into());
        Some((name, value))
    };
    actions.iter().filter_map(tweak).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::RawValue};

    use super::*;

    fn about(kind: &str) -> About {
        About {
            room_id: "!r".to_owned(),
            event_id: Some("$e".to_owned()),
            kind: kind.to_owned(),
            sender: "@a:b".to_owned(),
            sender_name: None,
            room_name: None,
            room_alias: None,
            is_target: None,
            content: RawValue::NULL.to_owned(),
        }
    }

    #[test]
    fn actions_become_tweaks() {
        let actions = json!(["notify", { "set_tweak": "sound", "value": "ring" }, { "set_tweak": "highlight" }]);
        let tweaks = tweaks(actions.to_string().as_bytes());
        assert_eq!(Value::Object(tweaks), json!({ "sound": "ring", "highlight": true }));
    }

    #[test]
    fn a_phone_is_woken_for_what_makes_a_noise() {
        let urgent =
            |kind: &str, actions: Value| Message::event(about(kind), actions.to_string().as_bytes(), 1).is_urgent();
        assert!(!urgent("m.room.message", json!(["notify"])));
        assert!(!urgent("m.room.message", json!(["notify", { "set_tweak": "highlight", "value": false }])));
        assert!(urgent("m.room.message", json!(["notify", { "set_tweak": "highlight" }])));
        assert!(urgent("m.room.message", json!(["notify", { "set_tweak": "sound", "value": "default" }])));
        assert!(urgent("m.room.encrypted", json!(["notify"])));
        assert!(!Message::badge(3).is_urgent());
    }
}
