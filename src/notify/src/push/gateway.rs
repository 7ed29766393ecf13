//! The Push Gateway API: `POST /_matrix/push/v1/notify`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use super::{message::Message, target::Target};

#[derive(Serialize)]
struct Body<'a> {
    notification: Notification<'a>,
}

#[derive(Default, Serialize)]
struct Notification<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none", rename = "type")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender_display_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_alias: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_is_target: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a RawValue>,
    prio: &'static str,
    counts: Counts,
    devices: [Device<'a>; 1],
}

#[derive(Default, Serialize)]
struct Counts {
    #[serde(skip_serializing_if = "Option::is_none")]
    unread: Option<u64>,
}

#[derive(Default, Serialize)]
struct Device<'a> {
    app_id: &'a str,
    pushkey: &'a str,
    pushkey_ts: u64,
    data: Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    tweaks: Map<String, Value>,
}

/// What the gateway of a pusher is told. Of an event no more than its id where the pusher, or this server, wants it so.
pub(super) fn body(target: &Target, message: &Message, include_content: bool) -> Vec<u8> {
    let mut data = target.data.clone();
    data.remove("url");
    let tell_count = message.about.is_none() || !target.counts_itself();
    // "Counts whose value is zero should be omitted", except where the count is all there is to tell.
    let unread = Some(message.unread).filter(|count| tell_count && (*count > 0 || message.about.is_none()));
    let mut told = Notification {
        prio: if message.is_urgent() { "high" } else { "low" },
        counts: Counts { unread },
        devices: [Device {
            app_id: &target.app,
            pushkey: &target.key,
            pushkey_ts: target.created / 1000,
            data,
            tweaks: message.tweaks.clone(),
        }],
        ..Notification::default()
    };
    if let Some(about) = &message.about {
        told.event_id = about.event_id.as_deref();
        told.room_id = Some(&about.room_id);
        if !target.only_ids() {
            told.kind = Some(&about.kind);
            told.sender = Some(&about.sender);
            told.sender_display_name = about.sender_name.as_deref();
            told.room_name = about.room_name.as_deref();
            told.room_alias = about.room_alias.as_deref();
            told.user_is_target = about.is_target;
            told.content = Some(&*about.content).filter(|_| include_content);
        }
    }
    serde_json::to_vec(&Body { notification: told }).unwrap_or_default()
}

/// Whether a gateway says that a push key is none.
pub(super) fn rejects(answer: &[u8], key: &str) -> bool {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        rejected: Vec<String>,
    }
    serde_json::from_slice::<Answer>(answer).is_ok_and(|answer| answer.rejected.iter().any(|it| it == key))
}
