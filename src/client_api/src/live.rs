//! Typing, receipts, read markers and user-defined ephemeral events (Client-Server API, "Typing notifications",
//! "Receipts", "Fully read markers"; MSC2477).

use axum::{
    Router,
    extract::State,
    routing::{post, put},
};
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::Value;
use stoa_accounts::Accounts;
use stoa_http::{Body, Empty, Error, Raw, Result, Segments, Who};
use stoa_rooms::{NewReceipt, Rooms};

use crate::{Api, paths::Paths};

/// The most bytes that the content of an ephemeral event may have.
const EPHEMERAL_BYTES: usize = 65_536;

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/rooms/{roomId}/typing/{userId}", put(typing))
        .v3("/rooms/{roomId}/receipt/{receiptType}/{eventId}", post(receipt))
        .v3("/rooms/{roomId}/read_markers", post(read_markers))
        .unstable("/org.matrix.msc2477/rooms/{roomId}/ephemeral/{eventType}/{txnId}", put(ephemeral))
}

#[derive(Deserialize)]
struct Typing {
    typing: bool,
    timeout: Option<u64>,
}

#[derive(Deserialize)]
struct Thread {
    #[serde(default, deserialize_with = "given")]
    thread_id: Option<Value>,
}

/// Tells `null` from nothing.
fn given<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

#[derive(Deserialize)]
struct Markers {
    #[serde(rename = "m.fully_read")]
    fully_read: Option<OwnedEventId>,
    #[serde(rename = "m.read")]
    read: Option<OwnedEventId>,
    #[serde(rename = "m.read.private")]
    read_private: Option<OwnedEventId>,
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}`
async fn typing(
    who: Who,
    State(rooms): State<Rooms>,
    Segments((room, user)): Segments<(OwnedRoomId, OwnedUserId)>,
    Body(body): Body<Typing>,
) -> Result<Empty> {
    if user != who.user {
        return Err(Error::forbidden("Nobody can type for somebody else"));
    }
    let for_ms = body.typing.then_some(body.timeout.unwrap_or(30_000));
    rooms.typing(&room, &user, for_ms).await?;
    Ok(Empty {})
}

/// `POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}`
async fn receipt(
    who: Who,
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    Segments((room, kind, event)): Segments<(OwnedRoomId, String, OwnedEventId)>,
    Body(body): Body<Thread>,
) -> Result<Empty> {
    let thread = match body.thread_id {
        None => None,
        Some(Value::String(thread)) if thread == "main" || thread.starts_with('$') => Some(thread),
        Some(_) => return Err(Error::invalid_param("thread_id is neither `main` nor an event id")),
    };
    match kind.as_str() {
        "m.read" | "m.read.private" => {
            let new = NewReceipt { user: who.user.clone(), kind, event, thread };
            rooms.receipts(&room, vec![new]).await?;
        }
        "m.fully_read" if thread.is_some() => {
            return Err(Error::invalid_param("m.fully_read has no threads"));
        }
        "m.fully_read" => accounts.set_fully_read(&who, &room, &event).await?,
        _ => return Err(Error::invalid_param(format!("{kind} is no type of receipt"))),
    }
    Ok(Empty {})
}

/// `POST /_matrix/client/v3/rooms/{roomId}/read_markers`
async fn read_markers(
    who: Who,
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    Segments(room): Segments<OwnedRoomId>,
    Body(body): Body<Markers>,
) -> Result<Empty> {
    let receipts = [("m.read", body.read), ("m.read.private", body.read_private)];
    let new = |(kind, event): (&str, Option<OwnedEventId>)| {
        Some(NewReceipt { user: who.user.clone(), kind: kind.into(), event: event?, thread: None })
    };
    rooms.receipts(&room, receipts.into_iter().filter_map(new).collect()).await?;
    if let Some(event) = body.fully_read {
        accounts.set_fully_read(&who, &room, &event).await?;
    }
    Ok(Empty {})
}

/// `PUT /_matrix/client/unstable/org.matrix.msc2477/rooms/{roomId}/ephemeral/{eventType}/{txnId}` (MSC2477)
async fn ephemeral(
    who: Who,
    State(rooms): State<Rooms>,
    Segments((room, kind, txn)): Segments<(OwnedRoomId, String, String)>,
    Raw(content): Raw,
) -> Result<Empty> {
    if content.len() > EPHEMERAL_BYTES {
        return Err(Error::too_large(format!("An ephemeral event has at most {EPHEMERAL_BYTES} bytes")));
    }
    if kind.len() > 255 || kind.is_empty() {
        return Err(Error::invalid_param("An event type has 1 to 255 bytes"));
    }
    if kind.starts_with("m.") {
        return Err(Error::forbidden("Types of the specification cannot be sent as user-defined ephemeral events"));
    }
    // Another device may use the same transaction id for something else.
    let txn = format!("{} {txn}", who.device);
    rooms.ephemeral(&room, &who.user, &kind, &txn, content).await?;
    Ok(Empty {})
}
