//! `m.presence` of other servers.

use serde::Deserialize;
use stoa_event::ids::{OwnedUserId, ServerName};
use stoa_store::bus::presence::Presence;

use super::{Unheard, check_user, read};
use crate::Inner;

/// How many people one EDU tells of.
const PEOPLE: usize = 1000;
/// The longest message about it that is kept, in bytes.
const MAX_STATUS: usize = 2048;

#[derive(Deserialize)]
struct Push {
    push: Vec<Update>,
}

#[derive(Deserialize)]
struct Update {
    user_id: OwnedUserId,
    presence: String,
    #[serde(default)]
    status_msg: Option<String>,
    #[serde(default)]
    last_active_ago: u64,
}

impl Inner {
    pub(super) async fn hear_presence(&self, origin: &ServerName, content: &[u8]) -> Result<(), Unheard> {
        if !self.accounts.config().presence {
            return Ok(());
        }
        let Push { push } = read(content)?;
        let snapshot = self.store.snapshot().await?;
        let now = self.env.now_ms();
        for update in push.into_iter().take(PEOPLE) {
            if check_user(origin, &update.user_id).is_err() {
                continue;
            }
            // Who was never in a room of ours is nobody's business here.
            let Some(user) = self.store.names().user(&snapshot, update.user_id.as_str()).await? else { continue };
            let Some(presence) = Presence::parse(&update.presence) else { continue };
            let status = update.status_msg.as_deref().filter(|status| !status.is_empty() && status.len() <= MAX_STATUS);
            let active = now.saturating_sub(update.last_active_ago);
            self.store.bus().is_told(user, presence, status, active, now);
        }
        Ok(())
    }
}
