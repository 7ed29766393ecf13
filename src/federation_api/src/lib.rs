//! The handlers of the Server-Server API, one file a chapter of the specification. A handler only translates: it reads the
//! request, calls one function of a lower floor, and words the answer.

mod answer;
mod devices;
mod directory;
mod events;
mod few;
mod invites;
mod keys;
mod media;
mod membership;
mod openid;
mod query;
mod routes;
mod spaces;
mod third_party;
mod transactions;
mod version;

use axum::extract::FromRef;
use stoa_accounts::Accounts;
use stoa_federation::Federation;
use stoa_http::{Limits, origin::Gate};
use stoa_media::Media;
use stoa_notify::appservice::Appservices;
use stoa_rooms::Rooms;
use stoa_store::Env;
use stoa_view::View;

pub use crate::{routes::router, transactions::read_transaction};

/// The state of the router. A handler names the part that it needs: `State(view): State<View>`.
#[derive(Clone)]
pub struct Api {
    /// People.
    pub accounts: Accounts,
    /// Rooms, the write side.
    pub rooms: Rooms,
    /// Rooms, the read side.
    pub view: View,
    /// Application services.
    pub services: Appservices,
    /// Files.
    pub media: Media,
    /// Rooms and other servers.
    pub federation: Federation,
    /// Rate limits.
    pub limits: Limits,
    /// The clock and randomness.
    pub env: Env,
}

impl FromRef<Api> for Gate {
    fn from_ref(api: &Api) -> Self {
        Gate { remote: api.federation.remote().clone(), limits: api.limits.clone() }
    }
}

macro_rules! parts {
    ($($field:ident: $part:ty),* $(,)?) => {$(
        impl FromRef<Api> for $part {
            fn from_ref(api: &Api) -> Self {
                api.$field.clone()
            }
        }
    )*};
}
parts!(accounts: Accounts, rooms: Rooms, view: View, services: Appservices, media: Media, federation: Federation, limits: Limits, env: Env);
