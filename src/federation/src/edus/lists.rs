//! `m.device_list_update` and `m.signing_key_update` of other servers.

use serde::Deserialize;
use serde_json::Value;
use stoa_accounts::remote_devices::{DeviceUpdate, Heard};
use stoa_event::ids::{OwnedUserId, ServerName};

use super::{Unheard, check_user, read};
use crate::Inner;

#[derive(Deserialize)]
struct OfUser {
    user_id: OwnedUserId,
}

#[derive(Deserialize)]
struct SigningKeys {
    user_id: OwnedUserId,
    #[serde(default)]
    master_key: Option<Value>,
    #[serde(default)]
    self_signing_key: Option<Value>,
}

impl Inner {
    pub(super) async fn hear_device(&self, origin: &ServerName, content: &[u8]) -> Result<(), Unheard> {
        let OfUser { user_id } = read(content)?;
        check_user(origin, &user_id)?;
        let update: DeviceUpdate = read(content)?;
        if self.accounts.update_remote_device(&user_id, update).await? == Heard::Gap {
            self.lists.resync(&user_id);
        }
        Ok(())
    }

    pub(super) async fn hear_signing_keys(&self, origin: &ServerName, content: &[u8]) -> Result<(), Unheard> {
        let SigningKeys { user_id, master_key, self_signing_key } = read(content)?;
        check_user(origin, &user_id)?;
        self.accounts.set_remote_signing_keys(&user_id, master_key, self_signing_key).await?;
        Ok(())
    }
}
