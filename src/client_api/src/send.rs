//! Sending events, state and redactions (Client-Server API, "Sending events to a room", "Redactions").

use axum::{Router, extract::State, routing::put};
use ruma_common::{OwnedEventId, OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stoa_federation::Federation;
use stoa_http::{Body, Error, Json, Params, Raw, Result, Segments, Who};
use stoa_rooms::{NewDelayed, NewEvent, Rooms, TxnKey};
use stoa_view::View;

use crate::{
    Api,
    delayed::{self, Delay},
    paths::Paths,
    standing::suspended,
    sync::viewer,
};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/rooms/{roomId}/send/{eventType}/{txnId}", put(send))
        .v3("/rooms/{roomId}/redact/{eventId}/{txnId}", put(redact))
}

#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Sent {
    Now { event_id: OwnedEventId },
    Later { delay_id: String },
}

/// When an application service says that its event was sent (Application Service API, "Timestamp massaging").
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Stamp {
    ts: Option<String>,
}

impl Stamp {
    /// The moment, if one is named by who may do so.
    pub(crate) fn of(&self, who: &Who) -> Result<Option<u64>> {
        let Some(ts) = self.ts.as_ref().filter(|_| who.service.is_some()) else { return Ok(None) };
        let ts = ts.parse().ok().filter(|ts| *ts <= MAX_TS);
        ts.map(Some).ok_or_else(|| Error::invalid_param("ts is no moment in milliseconds since 1970"))
    }
}

/// The greatest integer of canonical JSON.
const MAX_TS: u64 = (1 << 53) - 1;

const REDACTION: &str = "m.room.redaction";

#[derive(Deserialize)]
struct Reason {
    reason: Option<String>,
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}`
async fn send(
    who: Who,
    State(federation): State<Federation>,
    Segments((room, kind, txn)): Segments<(OwnedRoomId, String, String)>,
    Params(delay): Params<Delay>,
    Params(stamp): Params<Stamp>,
    State(rooms): State<Rooms>,
    Raw(content): Raw,
) -> Result<Json<Sent>> {
    if let Some(delay_ms) = delay.ms {
        check(&kind, None, &content)?;
        let new = NewDelayed {
            txn: Some(delayed::txn(&who, &room, &kind, txn)),
            sender: who.user.clone(),
            kind,
            state_key: None,
            content: content.to_vec(),
            delay_ms,
        };
        return delayed::by_query(&rooms, &room, new).await;
    }
    // The same id for another room or type is another transaction.
    let txn = TxnKey { device: who.device.clone(), deed: format!("send {room} {kind}"), id: txn };
    let (sender, content, ts) = (who.user.clone(), content.to_vec(), stamp.of(&who)?);
    let event = NewEvent { sender, kind, state_key: None, content, redacts: None, txn: Some(txn), ts };
    Ok(Json(Sent::Now { event_id: as_written(&federation, &room, event).await? }))
}

/// Sends an event as a client wrote it. What a redaction redacts is in its content then; where it stands in the event is for the
/// room's version to say.
pub(crate) async fn as_written(federation: &Federation, room: &RoomId, event: NewEvent) -> Result<OwnedEventId> {
    if event.kind != REDACTION || event.state_key.is_some() {
        return Ok(federation.send(room, event).await?);
    }
    let (target, content) = redaction(&event.content)?;
    Ok(federation.redact(room, NewEvent { content, redacts: Some(target), ..event }).await?)
}

/// Whether an event can be sent so later, as far as that can be known now.
pub(crate) fn check(kind: &str, state_key: Option<&str>, content: &[u8]) -> Result<()> {
    if kind == REDACTION && state_key.is_none() { redaction(content).map(drop) } else { Ok(()) }
}

/// What a redaction that is sent as an event redacts, and the rest of its content.
fn redaction(content: &[u8]) -> Result<(OwnedEventId, Vec<u8>)> {
    let mut content: Map<String, Value> = stoa_http::body::parse(content)?;
    let Some(Value::String(target)) = content.remove("redacts") else {
        return Err(Error::bad_json("redacts is missing, or no event id"));
    };
    let target = OwnedEventId::try_from(target).map_err(|_| Error::bad_json("redacts is no event id"))?;
    Ok((target, Value::from(content).to_string().into_bytes()))
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}`
async fn redact(
    who: Who,
    State(federation): State<Federation>,
    State(view): State<View>,
    Segments((room, event, txn)): Segments<(OwnedRoomId, OwnedEventId, String)>,
    Body(body): Body<Reason>,
) -> Result<Json<Sent>> {
    if who.suspended && view.sender(&viewer(&who), &room, &event).await? != who.user.as_str() {
        return Err(suspended());
    }
    let txn = TxnKey { device: who.device.clone(), deed: format!("redact {room} {event}"), id: txn };
    let content = match body.reason {
        Some(reason) => json!({ "reason": reason }),
        None => json!({}),
    };
    let event = NewEvent {
        sender: who.user.clone(),
        kind: REDACTION.into(),
        state_key: None,
        content: content.to_string().into_bytes(),
        redacts: Some(event),
        txn: Some(txn),
        ts: None,
    };
    Ok(Json(Sent::Now { event_id: federation.redact(&room, event).await? }))
}
