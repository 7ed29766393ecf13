//! Delayed events (MSC4140): scheduled by their own endpoint or, as the first clients do, by a parameter of `/send` and
//! `/state`; looked at, restarted, cancelled and sent at once.

mod timer;

use axum::{
    Router,
    extract::{MatchedPath, State},
    routing::{get, post, put},
};
use http::StatusCode;
use ruma_common::{OwnedRoomId, RoomId};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use stoa_federation::Federation;
use stoa_http::{Body, Empty, Error, Json, Limits, Result, Segments, Who};
use stoa_rooms::{DelayedEvent, NewDelayed, Rooms, TxnKey};

pub use self::timer::send_due;
use crate::{
    Api,
    paths::Paths,
    send::{Sent, check},
    standing::suspended,
};

/// Before everything that has no stable name yet.
const UNSTABLE: &str = "/org.matrix.msc4140";

pub(crate) fn routes() -> Router<Api> {
    let schedule = "/rooms/{roomId}/delayed_event/{eventType}/{txnId}";
    let (all, one, act) = ("/delayed_events", "/delayed_events/{delayId}", "/delayed_events/{delayId}/{action}");
    Router::new()
        .v3(schedule, put(delay))
        .unstable(&format!("{UNSTABLE}{schedule}"), put(delay))
        .v1(all, get(list))
        .unstable(&format!("{UNSTABLE}{all}"), get(list))
        .v1(one, get(look))
        .unstable(&format!("{UNSTABLE}{one}"), get(look).post(act_by_body))
        .v1(act, post(act_by_path))
        .unstable(&format!("{UNSTABLE}{act}"), post(act_by_path))
}

/// The parameter of `/send` and `/state`.
#[derive(Deserialize)]
pub(crate) struct Delay {
    #[serde(rename = "org.matrix.msc4140.delay", alias = "delay")]
    pub(crate) ms: Option<u64>,
}

#[derive(Deserialize)]
struct Schedule {
    delay_ms: u64,
    state_key: Option<String>,
    content: Box<RawValue>,
}

#[derive(Deserialize)]
struct Act {
    action: String,
}

/// By what scheduling may be repeated. The same ID for another room or type is another transaction.
pub(crate) fn txn(who: &Who, room: &RoomId, kind: &str, id: String) -> TxnKey {
    TxnKey { device: who.device.clone(), deed: format!("delay {room} {kind}"), id }
}

/// Schedules for the first clients, which know one error only.
pub(crate) async fn by_query(rooms: &Rooms, room: &RoomId, new: NewDelayed) -> Result<Json<Sent>> {
    let scheduled = rooms.delay(room, new).await.map_err(|error| renamed(error.into(), "M_UNKNOWN"));
    Ok(Json(Sent::Later { delay_id: scheduled? }))
}

/// The error for a delay that is too long under another name.
fn renamed(mut error: Error, errcode: &'static str) -> Error {
    if error.errcode == "M_DELAY_TOO_LARGE" {
        error.errcode = errcode;
    }
    error
}

fn is_stable(route: &MatchedPath) -> bool {
    !route.as_str().contains("/unstable/")
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/delayed_event/{eventType}/{txnId}`
async fn delay(
    who: Who,
    State(rooms): State<Rooms>,
    route: MatchedPath,
    Segments((room, kind, id)): Segments<(OwnedRoomId, String, String)>,
    Body(body): Body<Schedule>,
) -> Result<Json<Sent>> {
    if !body.content.get().starts_with('{') {
        return Err(Error::bad_json("content: a JSON object is needed"));
    }
    check(&kind, body.state_key.as_deref(), body.content.get().as_bytes())?;
    if who.guest && kind == "m.room.member" {
        return Err(stoa_accounts::Error::GuestAccess.into());
    }
    let new = NewDelayed {
        txn: Some(txn(&who, &room, &kind, id)),
        sender: who.user.clone(),
        kind,
        state_key: body.state_key,
        content: body.content.get().as_bytes().to_vec(),
        delay_ms: body.delay_ms,
    };
    match rooms.delay(&room, new).await.map_err(Error::from) {
        Err(error) if !is_stable(&route) => Err(renamed(error, "ORG.MATRIX.MSC4140_DELAY_TOO_LARGE")),
        delay_id => Ok(Json(Sent::Later { delay_id: delay_id? })),
    }
}

/// `GET /_matrix/client/v1/delayed_events`: those that are still to be sent.
async fn list(who: Who, State(rooms): State<Rooms>, route: MatchedPath) -> Result<Json<Value>> {
    let delayed = rooms.delayed_of(&who.user).await?;
    let delayed: Vec<Value> = delayed.iter().map(|delayed| shown(delayed, &route)).collect::<Result<_>>()?;
    Ok(Json(json!({ "delayed_events": delayed })))
}

/// `GET /_matrix/client/v1/delayed_events/{delayId}`
async fn look(
    who: Who,
    State(rooms): State<Rooms>,
    route: MatchedPath,
    Segments(id): Segments<String>,
) -> Result<Json<Value>> {
    Ok(Json(shown(&rooms.delayed(&who.user, &id).await?, &route)?))
}

fn shown(delayed: &DelayedEvent, route: &MatchedPath) -> Result<Value> {
    let row = &delayed.row;
    let content: Value = serde_json::from_slice(&row.content).map_err(Error::internal)?;
    let mut shown = json!({
        "delay_id": delayed.id,
        "room_id": delayed.room,
        "type": row.kind,
        "delay_ms": row.delay_ms,
        "delayed_since_ts": row.since_ms,
        "content": content,
    });
    if let Some(key) = &row.state_key {
        shown["state_key"] = json!(key);
    }
    if !is_stable(route) {
        // What these were called before.
        shown["delay"] = json!(row.delay_ms);
        shown["running_since"] = json!(row.since_ms);
    }
    if let Some(end) = &row.end {
        let mut finalised = json!({ "finalised_ts": end.ts });
        if let Some(event) = &end.event_id {
            finalised["event_id"] = json!(event);
        }
        if let Some(error) = &end.error {
            finalised["error"] = serde_json::from_str(error).map_err(Error::internal)?;
        }
        shown["finalised"] = finalised;
    }
    Ok(shown)
}

/// `POST /_matrix/client/v1/delayed_events/{delayId}/{action}`
async fn act_by_path(
    who: Who,
    State(rooms): State<Rooms>,
    State(federation): State<Federation>,
    State(limits): State<Limits>,
    route: MatchedPath,
    Segments((id, action)): Segments<(String, String)>,
) -> Result<Empty> {
    let done = match action.as_str() {
        "cancel" => rooms.cancel_delayed(&who.user, &id).await.map_err(Error::from),
        "restart" => rooms.restart_delayed(&who.user, &id).await.map_err(Error::from),
        "send" => send_now(&rooms, &federation, &limits, &who, &id).await,
        _ => Err(Error::unrecognized(format!("{action} is nothing that can be done with a delayed event"))),
    };
    match done {
        // Clients of the unstable name schedule anew when one is not found any more.
        Err(error) if error.status == StatusCode::CONFLICT && !is_stable(&route) => {
            Err(Error::not_found(error.message))
        }
        done => done.map(|()| Empty {}),
    }
}

/// `POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayId}`, as it was before the actions had paths.
async fn act_by_body(
    who: Who,
    rooms: State<Rooms>,
    federation: State<Federation>,
    limits: State<Limits>,
    route: MatchedPath,
    Segments(id): Segments<String>,
    Body(Act { action }): Body<Act>,
) -> Result<Empty> {
    match action.as_str() {
        "cancel" | "restart" | "send" => {
            act_by_path(who, rooms, federation, limits, route, Segments((id, action))).await
        }
        _ => Err(Error::invalid_param("action is `cancel`, `restart` or `send`")),
    }
}

/// Sends one before its time. Where that fails it still waits for its time.
async fn send_now(rooms: &Rooms, federation: &Federation, limits: &Limits, who: &Who, id: &str) -> Result<()> {
    if who.suspended {
        return Err(suspended());
    }
    let Some(held) = rooms.begin_delayed(&who.user, id).await? else { return Ok(()) };
    let event = timer::send(federation, limits, &who.user, &held).await?;
    Ok(rooms.end_delayed(held, Ok(event)).await?)
}
