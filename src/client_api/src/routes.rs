//! All routes of the Client-Server API: one line a chapter.

use axum::{Router, middleware::from_fn_with_state};
use stoa_http::layers;

use crate::{Api, capabilities, throttle, versions, well_known};

/// The whole API, with everything that happens around a request.
pub fn router(api: Api) -> Router {
    let chapters = Router::new()
        // One line a chapter, in the order of the specification.
        .merge(versions::routes())
        .merge(well_known::routes())
        .merge(capabilities::routes());
    let limited = chapters.route_layer(from_fn_with_state(api.clone(), throttle::throttle));
    layers::around(limited).with_state(api)
}
