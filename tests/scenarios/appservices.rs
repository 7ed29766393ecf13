//! Application Service API: bridges beside the homeserver.

mod asking;
mod identity;
mod other_servers;
mod transactions;

use stoa_kit::{Bridge, Home};

use crate::own;

/// A homeserver that knows an application service; nothing when the tests run against another one.
async fn bridged(bridge: &Bridge) -> Option<Home> {
    Some(Home::launch(bridge.known_to(own()?)).await)
}
