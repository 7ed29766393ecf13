//! `/sync` (Client-Server API, "Syncing").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use serde::Deserialize;
use stoa_accounts::Accounts;
use stoa_http::{Error, JsonBytes, Params, Result, Who, body};
use stoa_view::{Filter, SyncRequest, View, Viewer};

use crate::{Api, paths::Paths};

pub(crate) fn routes() -> Router<Api> {
    Router::new().v3("/sync", get(sync))
}

#[derive(Deserialize)]
struct Query {
    filter: Option<String>,
    since: Option<String>,
    #[serde(default)]
    full_state: bool,
    #[serde(default)]
    use_state_after: bool,
    /// The same as it was called before it was stable.
    #[serde(default, rename = "org.matrix.msc4222.use_state_after")]
    msc4222: bool,
    set_presence: Option<String>,
    timeout: Option<u64>,
}

/// The filter that a query names: JSON, or the id of one that was stored.
pub(crate) async fn filter(accounts: &Accounts, who: &Who, given: Option<&str>) -> Result<Arc<Filter>> {
    let json = match given {
        None | Some("") => return Ok(Arc::default()),
        Some(json) if json.starts_with('{') => {
            stoa_accounts::filters::check(json.as_bytes()).map_err(|error| Error::invalid_param(error.to_string()))?;
            json.as_bytes().to_vec()
        }
        Some(id) => match accounts.filter(who, &who.user, id).await {
            Ok(json) => json.to_vec(),
            Err(stoa_accounts::Error::NotFound(_)) => return Err(Error::invalid_param("There is no such filter")),
            Err(error) => return Err(error.into()),
        },
    };
    body::parse(&json).map(Arc::new).map_err(|error| Error::invalid_param(error.message))
}

/// `GET /_matrix/client/v3/sync`
async fn sync(
    who: Who,
    State(accounts): State<Accounts>,
    State(view): State<View>,
    Params(query): Params<Query>,
) -> Result<JsonBytes> {
    let filter = filter(&accounts, &who, query.filter.as_deref()).await?;
    accounts.waits(&who, query.set_presence.as_deref(), query.timeout.unwrap_or(0))?;
    if let Some(since) = &query.since {
        accounts.seen_to_device(&who, View::seen_until(since)?).await?;
    }
    let request = SyncRequest {
        viewer: viewer(&who),
        since: query.since,
        filter,
        full_state: query.full_state,
        state_after: match (query.use_state_after, query.msc4222) {
            (true, _) => Some("state_after"),
            (false, true) => Some("org.matrix.msc4222.state_after"),
            (false, false) => None,
        },
        timeout_ms: query.timeout.unwrap_or(0),
    };
    Ok(JsonBytes(view.sync(request).await?.into()))
}

/// Who looks.
pub(crate) fn viewer(who: &Who) -> Viewer {
    Viewer { user: who.user.clone(), user_no: who.user_no, device: who.device.clone() }
}
