//! OpenID tokens (Client-Server API, "OpenID"): by one of them, which a client hands on, somebody else can ask this server who
//! the user is.

use stoa_event::ids::OwnedUserId;

use crate::{Accounts, Who};

/// How long a token can be used.
pub const LIFE_MS: u64 = 60 * 60 * 1000;

impl Accounts {
    /// A new token for who asks.
    pub fn new_openid_token(&self, who: &Who) -> String {
        self.inner.openid.give(self.env(), who.user.clone())
    }

    /// Whose token that is, if it is one that can still be used.
    pub fn user_of_openid_token(&self, token: &str) -> Option<OwnedUserId> {
        self.inner.openid.look_at(self.env(), token)
    }
}
