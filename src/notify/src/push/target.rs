//! Where a pusher is reached, read from the row that its owner set.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use stoa_remote::outside::Url;
use stoa_store::rows::pushers::{Pusher, PusherKey};

use super::encrypt::Subscription;

/// How Web Push is called as a kind of pusher (MSC4174).
pub(super) const WEB_PUSH: [&str; 2] = ["webpush", "org.matrix.msc4174.webpush"];

/// A pusher that can be told something.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) url: String,
    /// The server of the URL.
    pub(super) host: Arc<str>,
    pub(super) app: String,
    pub(super) key: String,
    /// When it was set, in milliseconds since 1970.
    pub(super) created: u64,
    /// `data` as its owner set it.
    pub(super) data: Map<String, Value>,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// A push gateway.
    Gateway,
    /// The push service of a browser.
    Web(Subscription),
}

#[derive(Deserialize)]
struct Row {
    kind: String,
    #[serde(default)]
    data: Map<String, Value>,
}

impl Target {
    /// `None` for a kind that this server does not know, or without a URL.
    pub(super) fn of(key: &PusherKey, pusher: &Pusher) -> Option<Target> {
        let row: Row = serde_json::from_slice(&pusher.json).ok()?;
        let kind = match row.kind.as_str() {
            "http" => Kind::Gateway,
            kind if WEB_PUSH.contains(&kind) => Kind::Web(Subscription::read(&key.2, row.data.get("auth")?.as_str()?)?),
            _ => return None,
        };
        let url = row.data.get("url")?.as_str()?.to_owned();
        let parsed = Url::parse(&url).ok()?;
        let host = match parsed.port() {
            Some(port) => format!("{}:{port}", parsed.host_str()?),
            None => parsed.host_str()?.to_owned(),
        };
        let (_, app, key) = key.clone();
        Some(Target { kind, url, host: host.into(), app, key, created: pusher.created, data: row.data })
    }

    /// Whether it wants to know no more of an event than its id.
    pub(super) fn only_ids(&self) -> bool {
        self.data.get("format").and_then(Value::as_str) == Some("event_id_only")
    }

    /// Whether it wants to be told of numbers of unread messages by themselves: browsers show something for all that they are
    /// brought, so that they can say no.
    pub(super) fn wants_badges(&self) -> bool {
        !self.counts_itself() && self.data.get("events_only") != Some(&Value::Bool(true))
    }

    /// Whether it counts for itself what is unread (MSC4076).
    pub(super) fn counts_itself(&self) -> bool {
        let names = ["disable_badge_count", "org.matrix.msc4076.disable_badge_count"];
        names.iter().any(|name| self.data.get(*name) == Some(&Value::Bool(true)))
    }
}
