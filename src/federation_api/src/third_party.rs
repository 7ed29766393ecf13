//! Invites by third-party identifiers (Server-Server API, "Third-party invites").

use axum::{Router, extract::State, routing::put};
use ruma_common::OwnedRoomId;
use stoa_federation::{Bound, Exchange, Federation};
use stoa_http::{Body, Empty, Ip, Limits, Result, Segments, limit::Kind, origin::Origin};

use crate::Api;

/// What servers ask that signed.
pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/_matrix/federation/v1/exchange_third_party_invite/{roomId}", put(exchange))
}

/// What identity servers tell, which sign nothing but the proofs that they send.
pub(crate) fn open() -> Router<Api> {
    Router::new().route("/_matrix/federation/v1/3pid/onbind", put(bound))
}

/// `PUT /_matrix/federation/v1/exchange_third_party_invite/{roomId}`
async fn exchange(
    Origin(origin): Origin,
    State(federation): State<Federation>,
    Segments(room): Segments<OwnedRoomId>,
    Body(event): Body<Exchange>,
) -> Result<Empty> {
    federation.exchange(&origin, &room, event).await?;
    Ok(Empty {})
}

/// `PUT /_matrix/federation/v1/3pid/onbind`
async fn bound(
    Ip(ip): Ip,
    State(federation): State<Federation>,
    State(limits): State<Limits>,
    Body(bound): Body<Bound>,
) -> Result<Empty> {
    limits.take(Kind::Keys, ip)?;
    federation.bound(bound).await?;
    Ok(Empty {})
}
