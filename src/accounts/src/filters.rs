//! Stored filters (Client-Server API, "Filtering"): checked here, understood where events are read.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use stoa_event::ids::{OwnedRoomId, OwnedUserId, UserId};
use stoa_store::{Direction, Tx, rows::filters, schema};

use crate::{Accounts, Error, Result, Who, account_data::only_own};

/// How many filters a user has at most.
const MAX_FILTERS: usize = 1000;
/// The greatest size of a filter.
const MAX_BYTES: usize = 64 * 1024;

impl Accounts {
    /// Stores a filter of the user who asks, or finds it where it is stored already. Answers its id.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for somebody else's, [`Error::BadJson`], [`Error::TooLarge`]
    pub async fn add_filter(&self, who: &Who, user: &UserId, json: &Bytes) -> Result<String> {
        only_own(who, user)?;
        check(json)?;
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        let known = snapshot.scan(&schema::FILTERS, &who.user_no, Direction::Forward, usize::MAX).await?;
        if let Some(((_, id), _)) = known.iter().find(|(_, other)| other == json) {
            return Ok(id.to_string());
        }
        if known.len() >= MAX_FILTERS {
            return Err(Error::TooLarge("too many filters"));
        }
        let id = known.last().map_or(0, |((_, id), _)| id + 1);
        let mut tx = Tx::new();
        filters::create(&mut tx, who.user_no, id, json);
        self.store().commit(tx).await?;
        Ok(id.to_string())
    }

    /// A stored filter of the user who asks.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for somebody else's, [`Error::NotFound`]
    pub async fn filter(&self, who: &Who, user: &UserId, id: &str) -> Result<Bytes> {
        only_own(who, user)?;
        let unknown = Error::NotFound("there is no such filter");
        // Only as it was given out: not `+1`, not `01`.
        let Some(no) = id.parse::<u32>().ok().filter(|no| no.to_string() == id) else { return Err(unknown) };
        let snapshot = self.store().snapshot().await?;
        snapshot.get(&schema::FILTERS, &(who.user_no, no)).await?.ok_or(unknown)
    }
}

/// Whether it has the shape of a filter.
///
/// # Errors
/// [`Error::BadJson`], [`Error::TooLarge`]
pub fn check(json: &[u8]) -> Result<()> {
    if json.len() > MAX_BYTES {
        return Err(Error::TooLarge("a filter has at most 64 KiB"));
    }
    serde_json::from_slice::<Shape>(json).map(drop).map_err(|error| Error::BadJson(error.to_string()))
}

// The shapes are only read, to see whether they can be.
#[derive(Deserialize)]
#[allow(dead_code)]
struct Shape {
    event_fields: Option<Vec<String>>,
    event_format: Option<Format>,
    presence: Option<Events>,
    account_data: Option<Events>,
    room: Option<Rooms>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Client,
    Federation,
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Rooms {
    rooms: Option<Vec<OwnedRoomId>>,
    not_rooms: Option<Vec<OwnedRoomId>>,
    include_leave: Option<bool>,
    ephemeral: Option<Events>,
    state: Option<Events>,
    timeline: Option<Events>,
    account_data: Option<Events>,
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Events {
    #[serde(default, deserialize_with = "limit")]
    limit: Option<u64>,
    senders: Option<Vec<OwnedUserId>>,
    not_senders: Option<Vec<OwnedUserId>>,
    types: Option<Vec<String>>,
    not_types: Option<Vec<String>>,
    rooms: Option<Vec<OwnedRoomId>>,
    not_rooms: Option<Vec<OwnedRoomId>>,
    contains_url: Option<bool>,
    lazy_load_members: Option<bool>,
    include_redundant_members: Option<bool>,
    unread_thread_notifications: Option<bool>,
}

/// An integer of at least 0: the specification says greater than 0, but clients ask for no timeline with 0.
fn limit<'de, D: serde::Deserializer<'de>>(value: D) -> std::result::Result<Option<u64>, D::Error> {
    match Value::deserialize(value)? {
        Value::Null => Ok(None),
        value => value.as_u64().map(Some).ok_or_else(|| serde::de::Error::custom("limit is not a positive integer")),
    }
}
