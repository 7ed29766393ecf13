//! What `/sync` replaced long ago (Client-Server API, "Room Previews", and the deprecated endpoints of r0). It is the same told in
//! the old form: nothing is read here in another way than by `/sync` and `/messages`.

use std::time::Duration;

use axum::{Router, extract::State, routing::get};
use ruma_common::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stoa_accounts::Accounts;
use stoa_http::{Error, Json, JsonBytes, Params, Result, Segments, Who};
use stoa_rooms::Rooms;
use stoa_store::Membership;
use stoa_view::{MessagesRequest, RoomEventFilter, SyncRequest, View};

use crate::{
    Api,
    paths::Paths,
    sync::{filter, viewer},
};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/events", get(events))
        .v3("/events/{eventId}", get(event))
        .v3("/initialSync", get(initial_sync))
        .v3("/rooms/{roomId}/initialSync", get(room_initial_sync))
}

/// How long somebody waits at most who does not say.
const PATIENCE_MS: u64 = 30_000;
/// Between two looks into a room that somebody only previews.
const PAUSE: Duration = Duration::from_millis(500);
/// How many events a room shows if nothing is said, and at most.
const EVENTS: u64 = 16;
const MOST_EVENTS: u64 = 100;

#[derive(Deserialize)]
struct EventsQuery {
    from: Option<String>,
    timeout: Option<u64>,
    room_id: Option<OwnedRoomId>,
}

#[derive(Deserialize)]
struct InitialQuery {
    limit: Option<u64>,
    #[serde(default)]
    archived: bool,
}

#[derive(Deserialize)]
struct Limit {
    limit: Option<u64>,
}

fn value(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(Error::internal)
}

/// The list that is found by these keys, each event with the id of its room if one is given.
fn list(of: &mut Value, path: &str, room: Option<&str>) -> Vec<Value> {
    let found = of.pointer_mut(path).map(Value::take);
    let Some(Value::Array(mut events)) = found else { return Vec::new() };
    if let Some(room) = room {
        events.iter_mut().for_each(|event| event["room_id"] = room.into());
    }
    events
}

/// `GET /_matrix/client/v3/events`
async fn events(who: Who, State(view): State<View>, Params(query): Params<EventsQuery>) -> Result<Json<Value>> {
    let timeout = query.timeout.unwrap_or(0).min(PATIENCE_MS);
    if let Some(room) = query.room_id {
        return preview(&who, &view, room, query.from, timeout).await;
    }
    let start = query.from.clone();
    let (viewer, since) = (viewer(&who), query.from);
    let request = SyncRequest {
        viewer,
        since,
        filter: Default::default(),
        full_state: false,
        state_after: None,
        timeout_ms: timeout,
    };
    let mut sync = value(&view.sync(request).await?)?;
    let mut chunk = list(&mut sync, "/presence/events", None);
    if let Some(rooms) = sync.pointer_mut("/rooms/join").and_then(Value::as_object_mut) {
        for (id, room) in rooms {
            // Without a token only what comes from now on is asked for.
            if start.is_some() {
                chunk.extend(list(room, "/timeline/events", Some(id)));
            }
            chunk.extend(list(room, "/ephemeral/events", Some(id)));
        }
    }
    let end = sync["next_batch"].take();
    Ok(Json(json!({ "start": start.map_or_else(|| end.clone(), Value::from), "chunk": chunk, "end": end })))
}

/// What happens in a room that the user may see and need not be in.
async fn preview(
    who: &Who,
    view: &View,
    room: OwnedRoomId,
    from: Option<String>,
    timeout_ms: u64,
) -> Result<Json<Value>> {
    let start = match from {
        Some(from) => from,
        None => view.now().await?,
    };
    let mut request = history(who, room.clone(), MOST_EVENTS);
    (request.from, request.backward) = (Some(start.clone()), false);
    let mut waited = Duration::ZERO;
    loop {
        // What comes in between is told twice rather than never.
        let now = view.now().await?;
        let mut page = value(&view.messages(&request).await?.body)?;
        let chunk = list(&mut page, "/chunk", Some(room.as_str()));
        if !chunk.is_empty() || waited.as_millis() >= u128::from(timeout_ms) {
            let end = page["end"].as_str().unwrap_or(&now);
            return Ok(Json(json!({ "start": start, "chunk": chunk, "end": end })));
        }
        tokio::time::sleep(PAUSE).await;
        waited += PAUSE;
    }
}

fn history(who: &Who, room: OwnedRoomId, limit: u64) -> MessagesRequest {
    MessagesRequest {
        viewer: viewer(who),
        room,
        from: None,
        to: None,
        backward: true,
        limit: Some(limit),
        filter: RoomEventFilter::default(),
        over_gaps: true,
    }
}

/// The newest events of a room, the oldest of them first, between the tokens for what is before and after them.
async fn newest(who: &Who, view: &View, room: &OwnedRoomId, limit: u64) -> Result<Value> {
    let after = view.now().await?;
    let request = MessagesRequest { from: Some(after.clone()), ..history(who, room.clone(), limit) };
    let mut page = value(&view.messages(&request).await?.body)?;
    let mut chunk = list(&mut page, "/chunk", Some(room.as_str()));
    chunk.reverse();
    let before = page["end"].take();
    let mut messages = json!({ "chunk": chunk, "end": after });
    if before.is_string() {
        messages["start"] = before;
    }
    Ok(messages)
}

/// `GET /_matrix/client/v3/events/{eventId}`
async fn event(who: Who, State(view): State<View>, Segments(event): Segments<OwnedEventId>) -> Result<JsonBytes> {
    let room = view.room_of(&event).await?;
    let found = view.event(&viewer(&who), &room, &event).await.map_err(|error| match error {
        // Whether there is such an event is nobody's business who may not see it.
        stoa_view::Error::Forbidden(_) => stoa_view::Error::NotFound("there is no such event"),
        other => other,
    });
    Ok(JsonBytes(found?.into()))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/initialSync`
async fn room_initial_sync(
    who: Who,
    State(view): State<View>,
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    Segments(room): Segments<OwnedRoomId>,
    Params(Limit { limit }): Params<Limit>,
) -> Result<Json<Value>> {
    let state = value(&view.state(&viewer(&who), &room).await?)?;
    let messages = newest(&who, &view, &room, limit.unwrap_or(EVENTS).min(MOST_EVENTS)).await?;
    let visibility = if rooms.is_listed(&room).await? { "public" } else { "private" };
    let mut info = json!({ "room_id": room, "messages": messages, "state": state, "visibility": visibility });
    let own = rooms.membership_outside(&room, &who.user).await?;
    if let Some(word) = own.and_then(|own| word(own.membership)) {
        info["membership"] = word.into();
        info["account_data"] = room_account_data(&accounts, &view, &who, &room).await?;
    }
    Ok(Json(info))
}

/// The account data of a room, by the same way as in `/sync`.
async fn room_account_data(accounts: &Accounts, view: &View, who: &Who, room: &OwnedRoomId) -> Result<Value> {
    let only = json!({
        "presence": { "types": [] },
        "account_data": { "types": [] },
        "room": { "rooms": [room], "timeline": { "limit": 1 }, "state": { "types": [] }, "ephemeral": { "types": [] } },
    });
    let mut sync = whole_sync(accounts, view, who, &only).await?;
    Ok(list(&mut sync["rooms"]["join"][room.as_str()], "/account_data/events", None).into())
}

async fn whole_sync(accounts: &Accounts, view: &View, who: &Who, wanted: &Value) -> Result<Value> {
    let filter = filter(accounts, who, Some(&wanted.to_string())).await?;
    let viewer = viewer(who);
    let request = SyncRequest { viewer, since: None, filter, full_state: true, state_after: None, timeout_ms: 0 };
    value(&view.sync(request).await?)
}

fn word(membership: Membership) -> Option<&'static str> {
    match membership {
        Membership::Join => Some("join"),
        Membership::Invite => Some("invite"),
        Membership::Leave => Some("leave"),
        Membership::Ban => Some("ban"),
        Membership::Knock => None,
    }
}

/// `GET /_matrix/client/v3/initialSync`
async fn initial_sync(
    who: Who,
    State(view): State<View>,
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    Params(query): Params<InitialQuery>,
) -> Result<Json<Value>> {
    let limit = query.limit.unwrap_or(EVENTS).min(MOST_EVENTS);
    let wanted = json!({ "room": { "include_leave": query.archived, "timeline": { "limit": limit } } });
    let mut sync = whole_sync(&accounts, &view, &who, &wanted).await?;
    let mut all = Vec::new();
    for (membership, part) in [("join", "/rooms/join"), ("leave", "/rooms/leave")] {
        for (id, mut room) in take_rooms(&mut sync, part) {
            let mut messages =
                json!({ "end": sync["next_batch"], "chunk": list(&mut room, "/timeline/events", Some(&id)) });
            if room["timeline"]["prev_batch"].is_string() {
                messages["start"] = room["timeline"]["prev_batch"].take();
            }
            let room_id = OwnedRoomId::try_from(id.as_str()).map_err(Error::internal)?;
            // What is said in the timeline counts too in the state as it was told then.
            let state = value(&view.state(&viewer(&who), &room_id).await?)?;
            all.push(json!({
                "room_id": id,
                "membership": membership,
                "messages": messages,
                "state": state,
                "visibility": if rooms.is_listed(&room_id).await? { "public" } else { "private" },
                "account_data": list(&mut room, "/account_data/events", None),
            }));
        }
    }
    for (id, mut room) in take_rooms(&mut sync, "/rooms/invite") {
        let stripped = list(&mut room, "/invite_state/events", Some(&id));
        let own = |event: &&Value| event["type"] == "m.room.member" && event["state_key"] == who.user.as_str();
        let invite = stripped.iter().find(own).cloned();
        all.push(json!({ "room_id": id, "membership": "invite", "invite": invite, "state": stripped }));
    }
    Ok(Json(json!({
        "end": sync["next_batch"],
        "rooms": all,
        "presence": list(&mut sync, "/presence/events", None),
        "account_data": list(&mut sync, "/account_data/events", None),
    })))
}

fn take_rooms(sync: &mut Value, part: &str) -> Map<String, Value> {
    match sync.pointer_mut(part).map(Value::take) {
        Some(Value::Object(rooms)) => rooms,
        _ => Map::new(),
    }
}
