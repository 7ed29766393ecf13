//! What a client asks of sliding sync (MSC4186), in both spellings: the one of clients today
//! (`org.matrix.simplified_msc3575`: `ranges`, `required_state` as pairs) and the one of the accepted proposal.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::wanted::{RoomConfig, Wanted};
use crate::Error;

/// How many lists, and how many subscriptions, one request has at most.
const MOST_RULES: usize = 100;
/// How many elements the state that is wanted for a room is described by, at most.
const MOST_ELEMENTS: usize = 200;
/// How many events of a room one answer has at most.
const MOST_EVENTS: u64 = 100;
/// How long the name of a connection or a list may be, in bytes.
const LONGEST_NAME: usize = 255;

/// The body of a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Body {
    /// Which of the device's connections this is.
    pub conn_id: Option<String>,
    /// Told back to the client.
    pub txn_id: Option<String>,
    /// The `pos` of the last answer; clients of today give it in the query.
    pub pos: Option<String>,
    /// How long to wait for something new, in milliseconds; clients of today give it in the query.
    pub timeout: Option<u64>,
    /// `online`, `unavailable` or `offline`; clients of today give it in the query.
    pub set_presence: Option<String>,
    /// Windows on the list of the user's rooms.
    pub lists: BTreeMap<String, List>,
    /// Rooms that are wanted wherever they stand.
    pub room_subscriptions: BTreeMap<String, Config>,
    /// What is wanted beside rooms.
    pub extensions: Extensions,
}

/// A window on the list of the user's rooms.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct List {
    /// First and last place, from 0: what clients of today say.
    pub ranges: Option<Vec<(u64, u64)>>,
    /// First and last place, from 0.
    pub range: Option<(u64, u64)>,
    /// How many events of each room.
    pub timeline_limit: u64,
    /// Which state of each room.
    pub required_state: RequiredState,
    /// Which rooms are in the list.
    pub filters: Option<Filters>,
}

/// What is wanted of a room.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    /// How many events.
    pub timeline_limit: u64,
    /// Which state.
    pub required_state: RequiredState,
}

/// Which state is wanted.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum RequiredState {
    /// Types and state keys, with `*`, `$ME` and `$LAZY`.
    Pairs(Vec<(String, String)>),
    /// As the accepted proposal says it.
    Rules {
        /// What is wanted.
        #[serde(default)]
        include: Vec<Element>,
        /// What of it is not.
        #[serde(default)]
        exclude: Vec<Element>,
        /// Whether members are wanted as the timeline needs them.
        #[serde(default)]
        lazy_members: bool,
    },
}

impl Default for RequiredState {
    fn default() -> Self {
        RequiredState::Pairs(Vec::new())
    }
}

/// State events of a type and a state key; what is not said matches all.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Element {
    /// The event type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The state key.
    pub state_key: Option<String>,
}

/// Which rooms are in a list: all of what is said must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Filters {
    /// Whether the room is in `m.direct`.
    pub is_dm: Option<bool>,
    /// Rooms that one of these spaces names as its children.
    pub spaces: Option<Vec<String>>,
    /// Whether the room is encrypted.
    pub is_encrypted: Option<bool>,
    /// Whether the user is invited.
    #[serde(alias = "is_invite")]
    pub is_invited: Option<bool>,
    /// Rooms of one of these types; `null` is a room without a type.
    pub room_types: Option<Vec<Option<String>>>,
    /// Not rooms of these types.
    pub not_room_types: Option<Vec<Option<String>>>,
    /// Rooms with one of these tags.
    pub tags: Option<Vec<String>>,
    /// Not rooms with one of these tags.
    pub not_tags: Option<Vec<String>>,
}

/// What is wanted beside rooms.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Extensions {
    /// Messages to the device (MSC3885).
    pub to_device: ToDevice,
    /// Keys and device lists (MSC3884).
    pub e2ee: Scope,
    /// Account data (MSC3959).
    pub account_data: Scope,
    /// Receipts (MSC3960).
    pub receipts: Scope,
    /// Who types (MSC3961).
    pub typing: Scope,
    /// Subscriptions to threads (MSC4308).
    #[serde(rename = "io.element.msc4308.thread_subscriptions", alias = "thread_subscriptions")]
    pub threads: Threads,
}

/// Messages to the device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ToDevice {
    /// Whether they are wanted.
    pub enabled: bool,
    /// How many.
    pub limit: Option<u64>,
    /// The `next_batch` of the last answer: what came up to then is done with.
    pub since: Option<String>,
}

/// Subscriptions to threads.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Threads {
    /// Whether they are wanted.
    pub enabled: bool,
    /// How many changes.
    pub limit: Option<u64>,
}

/// Whether an extension is wanted, and of which rooms.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Scope {
    /// Whether it is wanted.
    pub enabled: bool,
    /// Of the rooms of these lists; all, where nothing is said or `*`.
    pub lists: Option<Vec<String>>,
    /// Of these subscribed rooms; all, where nothing is said or `*`.
    pub rooms: Option<Vec<String>>,
}

impl Scope {
    /// Whether the rooms of a list are meant.
    pub(super) fn has_list(&self, name: &str) -> bool {
        self.lists.as_ref().is_none_or(|lists| lists.iter().any(|it| it == "*" || it == name))
    }

    /// Whether a subscribed room is meant.
    pub(super) fn has_room(&self, id: &str) -> bool {
        self.rooms.as_ref().is_none_or(|rooms| rooms.iter().any(|it| it == "*" || it == id))
    }
}

impl Body {
    /// # Errors
    /// [`Error::InvalidParam`] for more than the proposal lets a client ask for.
    pub(super) fn check(&self) -> Result<(), Error> {
        let bad = |what: String| Err(Error::InvalidParam(what));
        if self.lists.len() > MOST_RULES || self.room_subscriptions.len() > MOST_RULES {
            return bad(format!("at most {MOST_RULES} lists and {MOST_RULES} room_subscriptions"));
        }
        let names = self.lists.keys().chain(&self.conn_id);
        if names.into_iter().any(|name| name.len() > LONGEST_NAME) {
            return bad(format!("names of lists and connections have at most {LONGEST_NAME} bytes"));
        }
        let configs = self.room_subscriptions.values().map(|config| &config.required_state);
        let states = configs.chain(self.lists.values().map(|list| &list.required_state));
        if states.into_iter().any(|state| state.len() > MOST_ELEMENTS) {
            return bad(format!("required_state has at most {MOST_ELEMENTS} elements"));
        }
        let ranges = self.lists.values().flat_map(List::ranges);
        if ranges.into_iter().any(|(first, last)| first > last) {
            return bad("a range begins with its smaller end".into());
        }
        Ok(())
    }
}

impl List {
    fn ranges(&self) -> Vec<(u64, u64)> {
        let ranges = self.ranges.iter().flatten().chain(&self.range).take(MOST_RULES);
        ranges.copied().collect()
    }

    /// Whether a place is in the window.
    pub(super) fn shows(&self, place: usize) -> bool {
        let place = place as u64;
        let ranges = self.ranges();
        ranges.is_empty() || ranges.iter().any(|(first, last)| (*first..=*last).contains(&place))
    }

    pub(super) fn config(&self, me: &str) -> RoomConfig {
        config(self.timeline_limit, &self.required_state, me)
    }
}

impl Config {
    pub(super) fn config(&self, me: &str) -> RoomConfig {
        config(self.timeline_limit, &self.required_state, me)
    }
}

fn config(limit: u64, state: &RequiredState, me: &str) -> RoomConfig {
    // Not more than a `usize` on any machine.
    let timeline_limit = limit.min(MOST_EVENTS) as usize;
    RoomConfig { timeline_limit, wanted: vec![Wanted::of(state, me)] }
}

impl RequiredState {
    fn len(&self) -> usize {
        match self {
            RequiredState::Pairs(pairs) => pairs.len(),
            RequiredState::Rules { include, exclude, .. } => include.len() + exclude.len(),
        }
    }
}
