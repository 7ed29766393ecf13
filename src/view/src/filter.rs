//! Filters (Client-Server API, "Filtering").

use serde::Deserialize;
use stoa_store::rows::events::StoredEvent;

/// How events are to be shown, by the client's wish.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Fields that events are reduced to, `content.body` for instance.
    pub event_fields: Option<Vec<String>>,
    /// `client` or `federation`.
    pub event_format: Option<String>,
    /// Which presence events.
    pub presence: EventFilter,
    /// Which global account data.
    pub account_data: EventFilter,
    /// Which rooms, and what of them.
    pub room: RoomFilter,
}

/// Which events.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EventFilter {
    /// At most so many.
    pub limit: Option<u64>,
    /// Only from these.
    pub senders: Option<Vec<String>>,
    /// Not from these.
    pub not_senders: Vec<String>,
    /// Only these types; `*` stands for any characters.
    pub types: Option<Vec<String>>,
    /// Not these types.
    pub not_types: Vec<String>,
}

/// Which rooms, and what of them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RoomFilter {
    /// Only these.
    pub rooms: Option<Vec<String>>,
    /// Not these.
    pub not_rooms: Vec<String>,
    /// Rooms that were left, too.
    pub include_leave: bool,
    /// Which ephemeral events.
    pub ephemeral: RoomEventFilter,
    /// Which state.
    pub state: RoomEventFilter,
    /// Which timeline.
    pub timeline: RoomEventFilter,
    /// Which room account data.
    pub account_data: RoomEventFilter,
}

/// Which events of rooms.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RoomEventFilter {
    /// At most so many.
    pub limit: Option<u64>,
    /// Only from these.
    pub senders: Option<Vec<String>>,
    /// Not from these.
    pub not_senders: Vec<String>,
    /// Only these types.
    pub types: Option<Vec<String>>,
    /// Not these types.
    pub not_types: Vec<String>,
    /// Only of these rooms.
    pub rooms: Option<Vec<String>>,
    /// Not of these rooms.
    pub not_rooms: Vec<String>,
    /// Only events with (or without) `url` in their content.
    pub contains_url: Option<bool>,
    /// Only members who matter for the timeline.
    pub lazy_load_members: bool,
    /// Members also where the client should know them already.
    pub include_redundant_members: bool,
    /// Counts of threads apart from those of the room.
    pub unread_thread_notifications: bool,
}

impl Filter {
    /// Whether a room is wanted at all.
    pub(crate) fn wants_room(&self, room: &str) -> bool {
        wants(self.room.rooms.as_deref(), &self.room.not_rooms, room)
    }
}

impl EventFilter {
    /// Whether an event of this type and sender is wanted.
    pub(crate) fn wants(&self, kind: &str, sender: Option<&str>) -> bool {
        wants_kind(self.types.as_deref(), &self.not_types, kind)
            && sender.is_none_or(|sender| wants(self.senders.as_deref(), &self.not_senders, sender))
    }
}

impl RoomEventFilter {
    /// Whether events of a room are wanted.
    pub(crate) fn wants_room(&self, room: &str) -> bool {
        wants(self.rooms.as_deref(), &self.not_rooms, room)
    }

    /// Whether an event of this type and sender is wanted.
    pub fn wants_kind(&self, kind: &str, sender: Option<&str>) -> bool {
        wants_kind(self.types.as_deref(), &self.not_types, kind)
            && sender.is_none_or(|sender| wants(self.senders.as_deref(), &self.not_senders, sender))
    }

    /// Whether an event is wanted.
    pub(crate) fn wants(&self, event: &StoredEvent) -> bool {
        self.wants_kind(&event.header.kind, Some(&event.header.sender))
            && self.contains_url.is_none_or(|wanted| has_url(event) == wanted)
    }

    /// How many events, with a default and a bound. None at all is a wish too.
    pub fn limit(&self, default: usize, most: usize) -> usize {
        self.limit.map_or(default, |limit| usize::try_from(limit).unwrap_or(most)).min(most)
    }
}

fn has_url(event: &StoredEvent) -> bool {
    #[derive(Deserialize)]
    struct Content {
        url: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Content>(event.content()).is_ok_and(|content| content.url.is_some())
}

fn wants(only: Option<&[String]>, not: &[String], it: &str) -> bool {
    !not.iter().any(|no| no == it) && only.is_none_or(|only| only.iter().any(|yes| yes == it))
}

fn wants_kind(only: Option<&[String]>, not: &[String], kind: &str) -> bool {
    !not.iter().any(|no| glob(no, kind)) && only.is_none_or(|only| only.iter().any(|yes| glob(yes, kind)))
}

/// Whether `*` in a pattern, standing for any characters, can be filled so that it is the text. In time proportional to
/// both lengths: each piece is looked for once, behind the one before.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Reduces an event to fields (`event_fields`). Dots separate levels; a backslash makes a dot part of a name.
pub(crate) fn reduce(event: &[u8], fields: &[String]) -> Vec<u8> {
    let Ok(whole) = serde_json::from_slice::<serde_json::Value>(event) else { return event.to_vec() };
    let mut kept = serde_json::Value::Object(serde_json::Map::new());
    for field in fields {
        copy(&whole, &mut kept, &path(field));
    }
    serde_json::to_vec(&kept).unwrap_or_default()
}

fn path(field: &str) -> Vec<String> {
    let mut path = vec![String::new()];
    let mut letters = field.chars();
    while let Some(letter) = letters.next() {
        match (letter, path.last_mut()) {
            ('.', _) => path.push(String::new()),
            ('\\', Some(name)) => name.extend(letters.next()),
            (other, Some(name)) => name.push(other),
            (_, None) => {}
        }
    }
    path
}

fn copy(from: &serde_json::Value, to: &mut serde_json::Value, path: &[String]) {
    let Some((name, rest)) = path.split_first() else { return };
    let (Some(value), Some(to)) = (from.get(name), to.as_object_mut()) else { return };
    if rest.is_empty() {
        to.insert(name.clone(), value.clone());
    } else if value.is_object() {
        let below = to.entry(name.clone()).or_insert_with(|| serde_json::json!({}));
        copy(value, below, rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, yes) in [
            ("*", "", true),
            ("m.room.*", "m.room.name", true),
            ("m.room.*", "m.roo", false),
            ("*.name", "m.room.name", true),
            ("m.*.name", "m.room.name", true),
            ("m.*.name", "m.name", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*a", "a", false),
            ("m.room.name", "m.room.name2", false),
        ] {
            assert_eq!(glob(pattern, text), yes, "{pattern} {text}");
        }
        let long = "a".repeat(100_000);
        assert!(!glob(&("a*".repeat(1000) + "b"), &long));
    }

    #[test]
    fn fields() {
        let event = br#"{"type":"m","content":{"body":"x","a.b":1,"deep":{"x":1,"y":2}},"sender":"@a:b"}"#;
        let fields = ["type", r"content.a\.b", "content.deep.y", "content.nothing"].map(str::to_owned);
        let kept: serde_json::Value = serde_json::from_slice(&reduce(event, &fields)).unwrap();
        assert_eq!(kept, serde_json::json!({"type": "m", "content": {"a.b": 1, "deep": {"y": 2}}}));
    }
}
