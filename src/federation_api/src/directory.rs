//! The published rooms of this server (Server-Server API, "Public Room Directory").

use axum::{Router, extract::State, routing::get};
use serde::Deserialize;
use stoa_http::{Body, JsonBytes, Params, Result, origin::Origin};
use stoa_view::{DirectoryRequest, Network, View};

use crate::Api;

/// How many rooms an answer has where the other server does not say.
const USUAL: u64 = 500;

pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/_matrix/federation/v1/publicRooms", get(list).post(search))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Page {
    limit: Option<u64>,
    since: Option<String>,
    third_party_instance_id: Option<String>,
    include_all_networks: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Search {
    #[serde(flatten)]
    page: Page,
    filter: Filter,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Filter {
    generic_search_term: Option<String>,
    room_types: Option<Vec<Option<String>>>,
}

/// `GET /_matrix/federation/v1/publicRooms`
async fn list(_: Origin, State(view): State<View>, Params(page): Params<Page>) -> Result<JsonBytes> {
    rooms(&view, page, Filter::default()).await
}

/// `POST /_matrix/federation/v1/publicRooms`
async fn search(_: Origin, State(view): State<View>, Body(search): Body<Search>) -> Result<JsonBytes> {
    rooms(&view, search.page, search.filter).await
}

async fn rooms(view: &View, page: Page, filter: Filter) -> Result<JsonBytes> {
    let request = DirectoryRequest {
        // 0 is no limit of theirs; ours stands.
        limit: Some(page.limit.filter(|limit| *limit > 0).unwrap_or(USUAL)),
        since: page.since,
        term: filter.generic_search_term,
        room_types: filter.room_types,
        network: Network::named(page.third_party_instance_id, page.include_all_networks),
    };
    Ok(JsonBytes(view.directory(&request).await?.into()))
}
