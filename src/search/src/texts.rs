//! What of an event is searched (Client-Server API, "Search Categories"): the text of messages, names and topics of rooms.

use serde::Deserialize;
use serde_json::Value;
use stoa_store::rows::events::{Header, Standing, StoredEvent};

/// A key that can be searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `content.body` of messages.
    Body,
    /// `content.name` of names of rooms.
    Name,
    /// `content.topic` of topics of rooms.
    Topic,
}

impl Key {
    /// All of them.
    pub const ALL: [Key; 3] = [Key::Body, Key::Name, Key::Topic];

    /// As requests name it.
    pub fn parse(word: &str) -> Option<Key> {
        match word {
            "content.body" => Some(Key::Body),
            "content.name" => Some(Key::Name),
            "content.topic" => Some(Key::Topic),
            _ => None,
        }
    }

    /// The type of the events that have it.
    pub fn event_type(self) -> &'static str {
        match self {
            Key::Body => "m.room.message",
            Key::Name => "m.room.name",
            Key::Topic => "m.room.topic",
        }
    }
}

/// What is searched of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// As what.
    pub key: Key,
    /// The text.
    pub text: String,
    /// Whether its content has a `url`.
    pub url: bool,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    body: Value,
    #[serde(default)]
    name: Value,
    #[serde(default)]
    topic: Value,
    #[serde(default, rename = "m.topic")]
    rich_topic: Value,
    #[serde(default)]
    url: Value,
    #[serde(default, rename = "m.new_content")]
    new_content: Value,
    #[serde(default, rename = "m.relates_to")]
    relates_to: Value,
}

/// As what an event is searched, if at all: clients must be shown it, and it must be of one of the types.
pub fn key(header: &Header) -> Option<Key> {
    if header.standing != Standing::Accepted || header.at.is_none() || header.redacted_by.is_some() {
        return None;
    }
    Key::ALL.into_iter().find(|key| header.kind == key.event_type()).filter(|key| match key {
        Key::Body => header.state_key.is_none(),
        Key::Name | Key::Topic => header.state_key.as_deref() == Some(""),
    })
}

/// What is searched of an event; of an edit, what it makes of the message.
pub fn text(event: &StoredEvent) -> Option<Text> {
    let key = key(&event.header)?;
    let content: Content = serde_json::from_slice(event.content()).ok()?;
    let is_edit = event.header.relates_to.as_ref().is_some_and(|it| it.rel_type == "m.replace");
    let text = match key {
        Key::Body if is_edit => content.new_content.get("body")?.as_str()?.to_owned(),
        Key::Body => unquoted(content.body.as_str()?, &content.relates_to).to_owned(),
        Key::Name => content.name.as_str()?.to_owned(),
        Key::Topic => topic(&content),
    };
    let url = match is_edit {
        true => content.new_content.get("url").is_some(),
        false => !content.url.is_null(),
    };
    (!text.trim().is_empty()).then_some(Text { key, text, url })
}

/// Without the quotation that older clients put before a reply.
fn unquoted<'a>(body: &'a str, relates_to: &Value) -> &'a str {
    if relates_to.get("m.in_reply_to").is_none() || !body.starts_with("> ") {
        return body;
    }
    let mut rest = body;
    while rest.starts_with('>') {
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
    }
    rest
}

/// The topic, and what `m.topic` says as plain text if that is something else.
fn topic(content: &Content) -> String {
    let mut all = content.topic.as_str().unwrap_or_default().to_owned();
    let parts = content.rich_topic.get("m.text").and_then(Value::as_array);
    for part in parts.into_iter().flatten() {
        let plain = part.get("mimetype").is_none_or(|kind| kind == "text/plain");
        let body = part.get("body").and_then(Value::as_str).unwrap_or_default();
        if plain && !all.contains(body) {
            all.push('\n');
            all.push_str(body);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotations_are_not_what_somebody_says() {
        let reply = serde_json::json!({ "m.in_reply_to": { "event_id": "$x" } });
        assert_eq!(unquoted("> <@a:x> one\n> two\n\nthree", &reply), "\nthree");
        assert_eq!(unquoted("> one\n\nthree", &Value::Null), "> one\n\nthree");
        assert_eq!(unquoted("> only", &reply), "");
    }

    #[test]
    fn topics_have_two_forms() {
        let content = |json| serde_json::from_value::<Content>(json).unwrap();
        let rich = serde_json::json!({ "topic": "a", "m.topic": { "m.text": [
            { "body": "plain" }, { "body": "<b>no</b>", "mimetype": "text/html" }, { "body": "a" },
        ] } });
        assert_eq!(topic(&content(rich)), "a\nplain");
        assert_eq!(topic(&content(serde_json::json!({ "topic": 5, "m.topic": 3 }))), "");
    }
}
