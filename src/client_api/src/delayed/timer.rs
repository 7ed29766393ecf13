//! Sends delayed events when they are due: as if their users sent them now, with all that may be said against it. What fails
//! is noted and not tried again (MSC4140, "Rate-limiting at the point of sending").

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use axum::response::IntoResponse;
use futures_util::{StreamExt, stream::FuturesUnordered};
use http_body_util::BodyExt;
use ruma_common::{OwnedEventId, OwnedUserId};
use stoa_federation::Federation;
use stoa_http::{Error, Limits, Result, limit::Kind};
use stoa_rooms::{Due, Held};
use stoa_store::RoomNo;

use crate::{Api, send::as_written, standing::suspended};

/// How many are looked at in one go.
const PAGE: usize = 1000;
/// How long the timer sleeps at most: the clock is not its own.
const NAP: Duration = Duration::from_secs(1);
/// How long a room is left alone where the store fails.
const HICCUP: Duration = Duration::from_secs(5);
/// How often what has been over for long is forgotten.
const FORGET_MS: u64 = 60 * 60 * 1000;

/// Sends delayed events, for as long as it is polled. In one room it sends one after the other, in the order of their times; a
/// room whose policy server thinks for long holds up no other room.
pub async fn send_due(api: Api) {
    let mut busy: HashSet<RoomNo> = HashSet::new();
    let mut turns = FuturesUnordered::new();
    let mut forget_at = 0;
    loop {
        let next = match api.rooms.due(PAGE).await {
            Ok((due, next)) => {
                for (room, due) in by_room(due) {
                    if busy.insert(room) {
                        turns.push(send_all(&api, room, due));
                    }
                }
                next
            }
            Err(why) => {
                tracing::warn!(%why, "cannot look for delayed events");
                tokio::time::sleep(HICCUP).await;
                continue;
            }
        };
        if api.env.now_ms() >= forget_at {
            forget(&api).await;
            forget_at = api.env.now_ms() + FORGET_MS;
        }
        let nap = next.map(|at| Duration::from_millis(at.saturating_sub(api.env.now_ms())).min(NAP));
        tokio::select! {
            Some(room) = turns.next(), if !turns.is_empty() => { busy.remove(&room); }
            () = api.rooms.delayed_changed() => {}
            () = tokio::time::sleep(nap.unwrap_or(NAP)), if nap.is_some() => {}
        }
    }
}

fn by_room(due: Vec<Due>) -> BTreeMap<RoomNo, Vec<Due>> {
    let mut rooms: BTreeMap<RoomNo, Vec<Due>> = BTreeMap::new();
    for due in due {
        rooms.entry(due.room).or_default().push(due);
    }
    rooms
}

async fn send_all(api: &Api, room: RoomNo, due: Vec<Due>) -> RoomNo {
    for due in due {
        if let Err(why) = send_one(api, &due).await {
            tracing::warn!(%why, "cannot note what became of a delayed event");
            tokio::time::sleep(HICCUP).await;
        }
    }
    room
}

/// Sends one, and notes what became of it. One that was cancelled, restarted or sent in the meantime is left as it is.
async fn send_one(api: &Api, due: &Due) -> Result<()> {
    let held = match api.rooms.begin_delayed(&due.user, &due.id).await {
        Ok(Some(held)) if held.due() <= api.env.now_ms() => held,
        Ok(_) | Err(stoa_rooms::Error::DelayOver(_) | stoa_rooms::Error::NotFound(_)) => return Ok(()),
        Err(why) => return Err(why.into()),
    };
    let sent = match in_good_standing(api, &due.user).await {
        Ok(()) => send(&api.federation, &api.limits, &due.user, &held).await,
        Err(error) => Err(error),
    };
    let outcome = match sent {
        Ok(event) => Ok(event),
        Err(error) => {
            tracing::debug!(%error, user = %due.user, "a delayed event could not be sent");
            Err(as_json(error).await)
        }
    };
    Ok(api.rooms.end_delayed(held, outcome).await?)
}

/// Who could not send now sends nothing later either.
async fn in_good_standing(api: &Api, user: &OwnedUserId) -> Result<()> {
    match api.accounts.account(user).await?.map(|account| account.row) {
        Some(row) if row.locked => Err(stoa_accounts::Error::UserLocked.into()),
        Some(row) if row.suspended => Err(suspended()),
        Some(row) if row.deactivated.is_none() => Ok(()),
        _ => Err(stoa_accounts::Error::UserDeactivated.into()),
    }
}

/// Sends the event, counted as a message that is sent now.
pub(super) async fn send(
    federation: &Federation,
    limits: &Limits,
    user: &OwnedUserId,
    held: &Held,
) -> Result<OwnedEventId> {
    limits.take(Kind::Message, user)?;
    as_written(federation, held.room(), held.event(user.clone())).await
}

/// The body of a standard error response.
async fn as_json(error: Error) -> String {
    let body = error.into_response().into_body().collect().await;
    body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default()
}

async fn forget(api: &Api) {
    loop {
        match api.rooms.forget_delayed().await {
            Ok(true) => {}
            Ok(false) => return,
            Err(why) => return tracing::warn!(%why, "cannot forget old delayed events"),
        }
    }
}
