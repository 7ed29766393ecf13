//! What is told to a server and written down nowhere: who types, who is there, and how far people have read. The latest of each only.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};

/// How many of a kind wait for one server at most.
const MOST: usize = 500;

/// Room, user, thread.
type ReceiptOf = (Arc<str>, Arc<str>, String);

/// A receipt as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) event: String,
    pub(crate) ts: u64,
}

/// What is told to a server and written down nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passing {
    typing: BTreeMap<(Arc<str>, Arc<str>), bool>,
    receipts: BTreeMap<ReceiptOf, Read>,
    presence: BTreeMap<Arc<str>, Value>,
}

impl Passing {
    pub(crate) fn is_empty(&self) -> bool {
        self.typing.is_empty() && self.receipts.is_empty() && self.presence.is_empty()
    }

    /// How a user is there: an element of `push` of `m.presence`.
    pub(crate) fn presence(&mut self, user: Arc<str>, told: Value) {
        if self.presence.len() < MOST || self.presence.contains_key(&user) {
            self.presence.insert(user, told);
        }
    }

    /// A user types in a room, or no longer.
    pub(crate) fn typing(&mut self, room: Arc<str>, user: Arc<str>, types: bool) {
        if self.typing.len() < MOST {
            self.typing.insert((room, user), types);
        }
    }

    /// A user has read up to an event.
    pub(crate) fn receipt(&mut self, room: Arc<str>, user: Arc<str>, thread: String, read: Read) {
        if self.receipts.len() < MOST {
            self.receipts.insert((room, user, thread), read);
        }
    }

    /// What could not be told, if nothing newer is there. Who typed then is no news any more.
    pub(crate) fn put_back(&mut self, old: Passing) {
        for (user, told) in old.presence {
            if self.presence.len() < MOST {
                self.presence.entry(user).or_insert(told);
            }
        }
        for (key, read) in old.receipts {
            if self.receipts.len() >= MOST {
                break;
            }
            self.receipts.entry(key).or_insert(read);
        }
    }

    /// What did not fit into a transaction, if nothing newer is there.
    pub(crate) fn put_back_all(&mut self, mut old: Passing) {
        for (key, types) in std::mem::take(&mut old.typing) {
            self.typing.entry(key).or_insert(types);
        }
        self.put_back(old);
    }

    /// The EDUs that tell it, at most `limit`, and what is left.
    pub(crate) fn edus(&self, limit: usize) -> (Vec<Value>, Passing) {
        let mut left = Passing::default();
        let mut edus = Vec::new();
        if !self.presence.is_empty() && limit > 0 {
            let push: Vec<&Value> = self.presence.values().collect();
            edus.push(json!({ "edu_type": "m.presence", "content": { "push": push } }));
        } else {
            left.presence = self.presence.clone();
        }
        for ((room, user), types) in &self.typing {
            if edus.len() < limit {
                let content = json!({ "room_id": &**room, "user_id": &**user, "typing": types });
                edus.push(json!({ "edu_type": "m.typing", "content": content }));
            } else {
                left.typing.insert((room.clone(), user.clone()), *types);
            }
        }
        // One receipt a user and room in each: threads of the same user go in several.
        let mut contents: Vec<Map<String, Value>> = Vec::new();
        for ((room, user, thread), read) in &self.receipts {
            let has = |content: &Map<String, Value>| {
                content.get(&**room).is_some_and(|it| it["m.read"].get(&**user).is_some())
            };
            let place = match contents.iter().position(|content| !has(content)) {
                Some(place) => place,
                None if edus.len() + contents.len() < limit => {
                    contents.push(Map::new());
                    contents.len() - 1
                }
                None => {
                    left.receipts.insert((room.clone(), user.clone(), thread.clone()), read.clone());
                    continue;
                }
            };
            let mut data = json!({ "ts": read.ts });
            if !thread.is_empty() {
                data["thread_id"] = thread.as_str().into();
            }
            let in_room = contents[place].entry(&**room).or_insert_with(|| json!({ "m.read": {} }));
            in_room["m.read"][&**user] = json!({ "event_ids": [read.event], "data": data });
        }
        edus.extend(contents.into_iter().map(|content| json!({ "edu_type": "m.receipt", "content": content })));
        (edus, left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(event: &str) -> Read {
        Read { event: event.into(), ts: 5 }
    }

    #[test]
    fn the_latest_of_each_is_told() {
        let mut passing = Passing::default();
        passing.typing("!r".into(), "@a".into(), true);
        passing.typing("!r".into(), "@a".into(), false);
        passing.receipt("!r".into(), "@a".into(), String::new(), read("$1"));
        passing.receipt("!r".into(), "@a".into(), String::new(), read("$2"));
        passing.receipt("!r".into(), "@a".into(), "$t".into(), read("$3"));
        passing.receipt("!q".into(), "@b".into(), "main".into(), read("$4"));
        let (edus, left) = passing.edus(100);
        assert!(left.is_empty());
        assert_eq!(
            Value::from(edus),
            json!([
                { "edu_type": "m.typing", "content": { "room_id": "!r", "user_id": "@a", "typing": false } },
                { "edu_type": "m.receipt", "content": {
                    "!q": { "m.read": { "@b": { "event_ids": ["$4"], "data": { "ts": 5, "thread_id": "main" } } } },
                    "!r": { "m.read": { "@a": { "event_ids": ["$2"], "data": { "ts": 5 } } } },
                } },
                { "edu_type": "m.receipt", "content": {
                    "!r": { "m.read": { "@a": { "event_ids": ["$3"], "data": { "ts": 5, "thread_id": "$t" } } } },
                } },
            ])
        );
        let (edus, left) = passing.edus(2);
        assert_eq!(edus.len(), 2);
        assert_eq!(left.receipts.len(), 1);
    }

    #[test]
    fn what_could_not_be_told_never_replaces_what_is_newer() {
        let (mut old, mut new) = (Passing::default(), Passing::default());
        old.typing("!r".into(), "@a".into(), true);
        old.receipt("!r".into(), "@a".into(), String::new(), read("$1"));
        old.receipt("!r".into(), "@b".into(), String::new(), read("$1"));
        new.receipt("!r".into(), "@a".into(), String::new(), read("$2"));
        new.put_back(old);
        assert_eq!(new.receipts.values().map(|read| &*read.event).collect::<Vec<_>>(), ["$2", "$1"]);
        assert!(new.typing.is_empty());
    }
}
