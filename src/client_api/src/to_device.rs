//! Messages from device to device (Client-Server API, "Send-to-Device messaging").

use axum::{Router, extract::State, routing::put};
use serde::Deserialize;
use stoa_accounts::{Accounts, Messages};
use stoa_http::{Body, Empty, Result, Segments, Who};

use crate::{Api, paths::Paths};

pub(crate) fn routes() -> Router<Api> {
    Router::new().v3("/sendToDevice/{eventType}/{txnId}", put(send))
}

#[derive(Deserialize)]
struct Request {
    messages: Messages,
}

/// `PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnId}`
async fn send(
    State(accounts): State<Accounts>,
    who: Who,
    Segments((kind, txn)): Segments<(String, String)>,
    Body(body): Body<Request>,
) -> Result<Empty> {
    accounts.send_to_device(&who, &kind, &txn, &body.messages).await?;
    Ok(Empty {})
}
