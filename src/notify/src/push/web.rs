//! Web Push (RFC 8030; MSC4174): a message straight to the push service of a browser, which cannot read it.

use bytes::Bytes;
use http::{Method, Request, header};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use stoa_remote::outside::Url;

use super::{
    Error, Inner,
    encrypt::{MAX_PLAINTEXT, Subscription},
    message::Message,
    target::Target,
};

/// How long a push service keeps what it cannot bring, in seconds.
const TTL: u64 = 24 * 60 * 60;
/// The topic of numbers of unread messages: of those that wait only the last is brought.
const BADGE_TOPIC: &str = "unread";

/// How much is said of an event, where not all fits.
const LEVELS: [Level; 3] = [Level::All, Level::WithoutContent, Level::Ids];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    All,
    WithoutContent,
    Ids,
}

/// What a browser is told: as much as fits.
pub(super) fn payload(target: &Target, message: &Message) -> Vec<u8> {
    let least = if target.only_ids() { Level::Ids } else { Level::All };
    let payloads = LEVELS.into_iter().filter(|level| *level >= least).map(|level| written(target, message, level));
    payloads.into_iter().find(|payload| payload.len() <= MAX_PLAINTEXT).unwrap_or_else(|| smallest(message))
}

/// No more than which event it is: for push services that take less than others.
pub(super) fn smallest(message: &Message) -> Vec<u8> {
    let mut told = Map::new();
    ids(&mut told, message);
    Value::Object(told).to_string().into_bytes()
}

fn ids(told: &mut Map<String, Value>, message: &Message) {
    if let Some(about) = &message.about {
        told.insert("room_id".to_owned(), about.room_id.as_str().into());
        if let Some(id) = &about.event_id {
            told.insert("event_id".to_owned(), id.as_str().into());
        }
    }
}

fn written(target: &Target, message: &Message, level: Level) -> Vec<u8> {
    // What the app wants to be told with everything, to know for which of its accounts it is.
    let default = target.data.get("default_payload").and_then(Value::as_object);
    let mut told = default.cloned().unwrap_or_default();
    ids(&mut told, message);
    if message.about.is_none() || !target.counts_itself() {
        told.insert("unread".to_owned(), message.unread.into());
    }
    if let Some(about) = message.about.as_ref() {
        let prio = if message.is_urgent() { "high" } else { "low" };
        told.insert("prio".to_owned(), prio.into());
        if level < Level::Ids {
            let texts = [
                ("type", Some(&about.kind)),
                ("sender", Some(&about.sender)),
                ("sender_display_name", about.sender_name.as_ref()),
                ("room_name", about.room_name.as_ref()),
                ("room_alias", about.room_alias.as_ref()),
            ];
            for (name, text) in texts {
                told.extend(text.map(|text| (name.to_owned(), text.as_str().into())));
            }
            told.extend(about.is_target.map(|is| ("user_is_target".to_owned(), is.into())));
            told.insert("tweaks".to_owned(), message.tweaks.clone().into());
        }
        if level == Level::All {
            let content = serde_json::from_str(about.content.get()).unwrap_or_default();
            told.insert("content".to_owned(), content);
        }
    }
    Value::Object(told).to_string().into_bytes()
}

/// Of several messages with the same topic a push service brings only the last.
pub(super) fn topic(target: &Target, message: &Message) -> Option<String> {
    let Some(about) = &message.about else { return Some(BADGE_TOPIC.to_owned()) };
    let only_last = target.data.get("only_last_per_room") == Some(&Value::Bool(true));
    let digest =
        || Sha256::digest(about.room_id.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    only_last.then(digest)
}

/// How soon a phone is to hear of it.
pub(super) fn urgency(message: &Message) -> &'static str {
    match (message.is_urgent(), &message.about) {
        (true, _) => "high",
        (false, Some(_)) => "normal",
        (false, None) => "low",
    }
}

impl Inner {
    /// The request that brings a payload to a browser, with `Urgency` and `Topic`.
    pub(super) fn web_push(
        &self,
        target: &Target,
        subscription: &Subscription,
        payload: &[u8],
        (urgency, topic): (&str, Option<&str>),
    ) -> Result<Request<Bytes>, Error> {
        let bad = |why: &dyn std::fmt::Display| Error::Message(why.to_string());
        let url = Url::parse(&target.url).map_err(|why| bad(&why))?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&target.url)
            .header(header::AUTHORIZATION, self.vapid.authorization(&url, self.env.now_ms())?)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_ENCODING, "aes128gcm")
            .header("TTL", TTL)
            .header("Urgency", urgency);
        if let Some(topic) = topic {
            request = request.header("Topic", topic);
        }
        request.body(subscription.encrypt(&self.env, payload)?.into()).map_err(|why| bad(&why))
    }
}
