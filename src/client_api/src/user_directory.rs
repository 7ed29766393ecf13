//! Search for people (Client-Server API, "User Directory").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stoa_http::{Body, Error, Json, Result, Who};
use stoa_search::{Search, Sight};
use stoa_view::View;

use crate::{Api, Config, paths::Paths, sync::viewer};

pub(crate) fn routes() -> Router<Api> {
    Router::new().v3("/user_directory/search", post(search))
}

/// How many people are named, where the client does not say and at most.
const LIMIT: usize = 10;
const MOST: usize = 100;

#[derive(Deserialize)]
struct Wanted {
    search_term: String,
    limit: Option<u64>,
}

#[derive(Serialize)]
struct Found {
    results: Vec<Box<RawValue>>,
    limited: bool,
}

/// `POST /_matrix/client/v3/user_directory/search`
async fn search(
    who: Who,
    State(view): State<View>,
    State(search): State<Search>,
    State(config): State<Arc<Config>>,
    Body(wanted): Body<Wanted>,
) -> Result<Json<Found>> {
    let limit = wanted.limit.map_or(LIMIT, |limit| usize::try_from(limit).unwrap_or(MOST)).min(MOST);
    let viewer = viewer(&who);
    let (rooms, users) = view.neighbourhood(&viewer);
    let sight = Sight { me: viewer.user_no, rooms, users, everybody: config.find_everybody };
    // Some may have gone since the index was written.
    let people = search.people(&wanted.search_term, sight, limit * 2 + 1).await?;
    let mut results = Vec::new();
    for person in people {
        let Some(json) = view.person(&viewer, person.user, person.room).await? else { continue };
        if results.len() == limit {
            return Ok(Json(Found { results, limited: true }));
        }
        let text = String::from_utf8(json).map_err(Error::internal)?;
        results.push(RawValue::from_string(text).map_err(Error::internal)?);
    }
    Ok(Json(Found { results, limited: false }))
}
