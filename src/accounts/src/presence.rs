//! Presence of our own users (Client-Server API, "Presence"). It lives on the bus; nothing is written to disk.

use stoa_event::ids::UserId;
use stoa_store::bus::presence::{GRACE_MS, Presence};

use crate::{Accounts, Error, Result, Who, account_data::only_own};

/// How long a presence counts that was set by a device that does not sync.
const SET_MS: u64 = 60_000;
/// The longest message about it, in bytes.
const MAX_STATUS: usize = 2048;

impl Accounts {
    /// Sets the presence of who asks, and what they say about it.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for somebody else's, [`Error::InvalidParam`]
    pub fn set_presence(&self, who: &Who, user: &UserId, presence: &str, status: Option<&str>) -> Result<()> {
        only_own(who, user)?;
        let presence = parse(presence)?;
        if status.is_some_and(|status| status.len() > MAX_STATUS) {
            return Err(Error::InvalidParam(format!("status_msg has at most {MAX_STATUS} bytes")));
        }
        if self.config().presence {
            let now = self.env().now_ms();
            // An empty message is none.
            let status = status.filter(|status| !status.is_empty());
            self.store().bus().is_there(who.user_no, &who.device, presence, Some(status), (now, now + SET_MS));
        }
        Ok(())
    }

    /// A device waits for news at most so long: its user is there (`set_presence` of `/sync`).
    ///
    /// # Errors
    /// [`Error::InvalidParam`]
    pub fn waits(&self, who: &Who, set_presence: Option<&str>, timeout_ms: u64) -> Result<()> {
        let presence = set_presence.map_or(Ok(Presence::Online), parse)?;
        if presence != Presence::Offline && self.config().presence {
            let now = self.env().now_ms();
            let until = now.saturating_add(timeout_ms.min(GRACE_MS * 10)) + GRACE_MS;
            self.store().bus().is_there(who.user_no, &who.device, presence, None, (now, until));
        }
        Ok(())
    }

    /// Somebody does something: sends, types, joins.
    pub fn is_active(&self, who: &Who) {
        self.store().bus().is_active(who.user_no, self.env().now_ms());
    }
}

fn parse(presence: &str) -> Result<Presence> {
    let unknown = || Error::InvalidParam("presence is `online`, `unavailable` or `offline`".to_owned());
    Presence::parse(presence).ok_or_else(unknown)
}
