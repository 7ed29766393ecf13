//! Subscriptions to threads (MSC4306), and what changed of them (MSC4308).

use axum::{Router, extract::State, routing::get};
use ruma_common::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::{Value, json};
use stoa_http::{Body, Empty, Error, Json, Params, Result, Segments, Who};
use stoa_rooms::{Follow, Rooms};
use stoa_view::View;

use crate::{Api, paths::Paths, sync::viewer};

pub(crate) fn routes() -> Router<Api> {
    let one = "/io.element.msc4306/rooms/{roomId}/thread/{eventId}/subscription";
    Router::new()
        .unstable(one, get(look).put(subscribe).delete(unsubscribe))
        .unstable("/io.element.msc4308/thread_subscriptions", get(changes))
}

#[derive(Deserialize)]
struct Subscribe {
    automatic: Option<OwnedEventId>,
}

#[derive(Deserialize)]
struct Query {
    dir: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<u64>,
}

/// `GET .../rooms/{roomId}/thread/{eventId}/subscription`
async fn look(
    who: Who,
    State(view): State<View>,
    Segments((room, root)): Segments<(OwnedRoomId, OwnedEventId)>,
) -> Result<Json<Value>> {
    Ok(Json(json!({ "automatic": view.thread_subscription(&viewer(&who), &room, &root).await? })))
}

/// `PUT .../rooms/{roomId}/thread/{eventId}/subscription`
async fn subscribe(
    who: Who,
    State(view): State<View>,
    State(rooms): State<Rooms>,
    Segments((room, root)): Segments<(OwnedRoomId, OwnedEventId)>,
    Body(body): Body<Subscribe>,
) -> Result<Empty> {
    let cause = view.thread(&viewer(&who), &room, &root, body.automatic.as_deref()).await?;
    let follow = match (body.automatic, cause) {
        (None, _) => Follow::Manual,
        (Some(_), Some(at)) => Follow::Automatic(at),
        (Some(_), None) => return Err(stoa_view::Error::NotInThread.into()),
    };
    rooms.follow_thread(&who.user, &room, &root, follow).await?;
    Ok(Empty {})
}

/// `DELETE .../rooms/{roomId}/thread/{eventId}/subscription`
async fn unsubscribe(
    who: Who,
    State(view): State<View>,
    State(rooms): State<Rooms>,
    Segments((room, root)): Segments<(OwnedRoomId, OwnedEventId)>,
) -> Result<Empty> {
    view.thread(&viewer(&who), &room, &root, None).await?;
    rooms.follow_thread(&who.user, &room, &root, Follow::No).await?;
    Ok(Empty {})
}

/// `GET .../thread_subscriptions`
async fn changes(who: Who, State(view): State<View>, Params(query): Params<Query>) -> Result<Json<Value>> {
    match query.dir.as_deref() {
        Some("b") => {}
        Some(_) => return Err(Error::invalid_param("dir is `b`")),
        None => return Err(Error::missing_param("dir is missing")),
    }
    if query.limit == Some(0) {
        return Err(Error::invalid_param("limit is greater than zero"));
    }
    let tokens = (query.from.as_deref(), query.to.as_deref());
    Ok(Json(view.thread_subscriptions(&viewer(&who), tokens, query.limit).await?))
}
