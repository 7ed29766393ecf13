//! Sliding sync (MSC4186).

use axum::{Router, extract::State, routing::post};
use serde::Deserialize;
use stoa_accounts::Accounts;
use stoa_http::{Body, JsonBytes, Params, Result, Who};
use stoa_view::{SlidingBody, SlidingRequest, View};

use crate::{Api, paths::Paths, sync::viewer};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .unstable("/org.matrix.simplified_msc3575/sync", post(unstable))
        .route("/_matrix/client/v4/sync", post(stable))
}

/// What clients of today say in the query, and the accepted proposal in the body.
#[derive(Deserialize)]
struct Query {
    pos: Option<String>,
    timeout: Option<u64>,
    set_presence: Option<String>,
}

/// `POST /_matrix/client/unstable/org.matrix.simplified_msc3575/sync`
async fn unstable(
    who: Who,
    State(accounts): State<Accounts>,
    State(view): State<View>,
    Params(query): Params<Query>,
    Body(body): Body<SlidingBody>,
) -> Result<JsonBytes> {
    let body = SlidingBody {
        pos: query.pos.or(body.pos),
        timeout: query.timeout.or(body.timeout),
        set_presence: query.set_presence.or(body.set_presence),
        ..body
    };
    answer(&who, &accounts, &view, body, false).await
}

/// `POST /_matrix/client/v4/sync`
async fn stable(
    who: Who,
    State(accounts): State<Accounts>,
    State(view): State<View>,
    Body(body): Body<SlidingBody>,
) -> Result<JsonBytes> {
    answer(&who, &accounts, &view, body, true).await
}

async fn answer(who: &Who, accounts: &Accounts, view: &View, body: SlidingBody, stable: bool) -> Result<JsonBytes> {
    accounts.waits(who, body.set_presence.as_deref(), body.timeout.unwrap_or(0))?;
    if let Some(since) = body.extensions.to_device.since.as_deref().filter(|_| body.extensions.to_device.enabled) {
        accounts.seen_to_device(who, View::seen_until(since)?).await?;
    }
    let request = SlidingRequest { viewer: viewer(who), body, stable };
    Ok(JsonBytes(view.sliding(request).await?.into()))
}
