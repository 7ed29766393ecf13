//! What this server allows (Client-Server API, "Capabilities negotiation").

use axum::{Router, extract::State, routing::get};
use serde_json::{Map, Value, json};
use stoa_accounts::Accounts;
use stoa_event::version::SUPPORTED;
use stoa_http::{Json, Who};
use stoa_notify::push::Push;
use stoa_rooms::Rooms;

use crate::{Api, paths::Paths};

pub(crate) fn routes() -> Router<Api> {
    Router::new().v3("/capabilities", get(capabilities))
}

/// `GET /_matrix/client/v3/capabilities`
async fn capabilities(
    who: Who,
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    State(push): State<Option<Push>>,
) -> Json<Value> {
    let config = rooms.config();
    let delayed = json!({ "max_delay_ms": config.max_delay_ms, "max_scheduled": config.max_delayed });
    let available: Map<String, Value> = SUPPORTED.iter().map(|id| (id.to_string(), "stable".into())).collect();
    let mut capabilities = json!({
        "m.change_password": { "enabled": true },
        "m.room_versions": { "default": config.default_version, "available": available },
        "m.set_displayname": { "enabled": true },
        "m.set_avatar_url": { "enabled": true },
        "m.3pid_changes": { "enabled": accounts.sends_mail() },
        "m.get_login_token": { "enabled": !who.guest },
        "m.profile_fields": { "enabled": true },
        "m.forget_forced_upon_leave": { "enabled": false },
        "m.delayed_events": delayed,
        "org.matrix.msc4140.delayed_events": delayed,
    });
    // MSC4174: under this name until it is stable.
    capabilities["org.matrix.msc4174.webpush"] = match push {
        Some(push) => json!({ "enabled": true, "vapid": push.vapid_key() }),
        None => json!({ "enabled": false }),
    };
    if who.admin {
        capabilities["m.account_moderation"] = json!({ "suspend": true, "lock": true });
    }
    Json(json!({ "capabilities": capabilities }))
}
