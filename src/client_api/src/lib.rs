//! The handlers of the Client-Server API, one file a chapter of the specification. A handler only translates: it reads
//! the request, calls one function of a lower floor, and words the answer.

mod account;
mod account_data;
mod admin;
mod aliases;
mod appservices;
mod calls;
mod capabilities;
mod create_room;
mod delayed;
mod devices;
mod email;
mod filter;
mod key_backup;
mod keys;
mod live;
mod login;
mod media;
mod membership;
mod mutual;
mod old_sync;
mod openid;
mod paths;
mod presence;
mod profile;
mod push_rules;
mod pushers;
mod read;
mod register;
mod relations;
mod reports;
mod routes;
mod search;
mod send;
mod sliding;
mod spaces;
mod standing;
mod state;
mod sync;
mod third_party;
mod threads;
mod throttle;
mod to_device;
mod upgrade;
mod user_directory;
mod versions;
mod well_known;

use std::sync::Arc;

use axum::extract::FromRef;
use ruma_common::OwnedServerName;
use stoa_accounts::Accounts;
use stoa_federation::Federation;
use stoa_http::Limits;
use stoa_media::Media;
use stoa_notify::appservice::Appservices;
use stoa_notify::push::Push;
use stoa_rooms::Rooms;
use stoa_search::Search;
use stoa_store::Env;
use stoa_view::View;

pub use crate::{
    account::end_account,
    calls::{Rtc, Turn},
    delayed::send_due,
    routes::router,
    well_known::{Contact, Support},
};

/// What the handlers themselves are told about the server.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of this server.
    pub server_name: OwnedServerName,
    /// Where clients find it, as `.well-known/matrix/client` says. Without it: where the request came to.
    pub base_url: Option<String>,
    /// Where other servers find it, as `.well-known/matrix/server` says, if not under its name.
    pub delegate: Option<OwnedServerName>,
    /// Whether everybody can find all accounts of this server.
    pub find_everybody: bool,
    /// Whom to ask about it, as `.well-known/matrix/support` says.
    pub support: Support,
    /// The relays for calls.
    pub turn: Turn,
    /// The infrastructure of group calls.
    pub rtc: Rtc,
}

/// The state of the router. A handler names the part that it needs: `State(accounts): State<Accounts>`.
#[derive(Clone)]
pub struct Api {
    /// People.
    pub accounts: Accounts,
    /// Rooms, the write side.
    pub rooms: Rooms,
    /// Rooms that other servers are in too.
    pub federation: Federation,
    /// Rooms, the read side.
    pub view: View,
    /// What can be searched.
    pub search: Search,
    /// Application services.
    pub services: Appservices,
    /// Files.
    pub media: Media,
    /// What tells phones and browsers, if something does.
    pub push: Option<Push>,
    /// Rate limits.
    pub limits: Limits,
    /// The clock and randomness.
    pub env: Env,
    /// Settings.
    pub config: Arc<Config>,
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
parts!(accounts: Accounts, rooms: Rooms, federation: Federation, view: View, search: Search, services: Appservices, media: Media, push: Option<Push>, limits: Limits, env: Env, config: Arc<Config>);
