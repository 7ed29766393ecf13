//! `m.direct_to_device` of other servers.

use serde::Deserialize;
use stoa_accounts::Messages;
use stoa_event::ids::{OwnedUserId, ServerName};

use super::{Unheard, bad, check_user, read};
use crate::Inner;

/// The greatest length of a message id, in characters, as the specification says; and of an event type.
const MAX_ID: usize = 255;

#[derive(Deserialize)]
struct Direct {
    message_id: String,
    messages: Messages,
    sender: OwnedUserId,
    #[serde(rename = "type")]
    kind: String,
}

impl Inner {
    pub(super) async fn hear_direct(&self, origin: &ServerName, content: &[u8]) -> Result<(), Unheard> {
        let Direct { message_id, messages, sender, kind } = read(content)?;
        check_user(origin, &sender)?;
        if message_id.is_empty() || message_id.len() > MAX_ID || kind.len() > MAX_ID {
            return Err(bad("its id or its type is too long"));
        }
        self.accounts.take_to_device(&sender, &kind, &message_id, &messages).await?;
        Ok(())
    }
}
