//! All routes of the Server-Server API: one line a chapter.

use axum::{Router, extract::FromRef, middleware::from_fn_with_state};
use stoa_http::{
    layers,
    origin::{Gate, signed},
};

use crate::{
    Api, devices, directory, events,
    few::{Few, few},
    invites, keys, media, membership, openid, query, spaces, third_party, transactions, version,
};

/// The whole API, with everything that happens around a request, to be put beside others.
pub fn router(api: Api) -> Router {
    let large = Router::new()
        .merge(events::large())
        .merge(membership::large())
        .merge(spaces::routes())
        .route_layer(from_fn_with_state(Few::default(), few));
    // What only servers that signed may ask. One line a chapter, in the order of the specification.
    let signed_only = Router::new()
        .merge(transactions::routes())
        .merge(events::routes())
        .merge(membership::routes())
        .merge(invites::routes())
        .merge(third_party::routes())
        .merge(directory::routes())
        .merge(query::routes())
        .merge(devices::routes())
        .merge(media::routes())
        .merge(large)
        .route_layer(from_fn_with_state(Gate::from_ref(&api), signed));
    let open =
        Router::new().merge(version::routes()).merge(keys::routes()).merge(openid::routes()).merge(third_party::open());
    layers::beside(open.merge(signed_only)).with_state(api)
}
