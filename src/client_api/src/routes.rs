//! All routes of the Client-Server API: one line a chapter.

use axum::{Router, middleware::from_fn_with_state};
use stoa_http::layers;

use crate::{
    Api, account, account_data, admin, aliases, appservices, calls, capabilities, create_room, delayed, devices, email,
    filter, key_backup, keys, live, login, media, membership, mutual, old_sync, openid, presence, profile, push_rules,
    pushers, read, register, relations, reports, search, send, sliding, spaces, standing, state, sync, third_party,
    threads, throttle, to_device, upgrade, user_directory, versions, well_known,
};

/// The whole API, with everything that happens around a request.
pub fn router(api: Api) -> Router {
    let chapters = Router::new()
        // One line a chapter, in the order of the specification.
        .merge(versions::routes())
        .merge(well_known::routes())
        .merge(account::routes())
        .merge(email::routes())
        .merge(account_data::routes())
        .merge(admin::routes())
        .merge(devices::routes())
        .merge(filter::routes())
        .merge(login::routes())
        .merge(profile::routes())
        .merge(presence::routes())
        .merge(push_rules::routes())
        .merge(pushers::routes())
        .merge(register::routes())
        .merge(capabilities::routes())
        .merge(keys::routes())
        .merge(key_backup::routes())
        .merge(to_device::routes())
        .merge(reports::routes())
        .merge(sliding::routes())
        .merge(sync::routes())
        .merge(old_sync::routes())
        .merge(create_room::routes())
        .merge(membership::routes())
        .merge(mutual::routes())
        .merge(upgrade::routes())
        .merge(send::routes())
        .merge(state::routes())
        .merge(delayed::routes())
        .merge(read::routes())
        .merge(relations::routes())
        .merge(threads::routes())
        .merge(spaces::routes())
        .merge(search::routes())
        .merge(user_directory::routes())
        .merge(aliases::routes())
        .merge(appservices::routes())
        .merge(openid::routes())
        .merge(third_party::routes())
        .merge(live::routes())
        .merge(calls::routes())
        .merge(media::routes());
    let limited = chapters.route_layer(from_fn_with_state(api.clone(), throttle::throttle));
    // Before that: who may not do a thing does not use up what may be done.
    let limited = limited.route_layer(from_fn_with_state(api.clone(), standing::standing));
    layers::around(limited).with_state(api)
}
