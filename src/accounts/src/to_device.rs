//! Messages from device to device (Client-Server API, "Send-to-Device messaging").

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use stoa_event::ids::OwnedUserId;
use stoa_store::{
    Direction, Position, Tx,
    rows::{
        rooms::{SentTxn, put_txn},
        to_device,
    },
    schema,
};

use crate::{Accounts, Error, Result, Who};

/// How many bytes a message may have.
const MAX_BYTES: usize = 256 << 10;

/// Contents by user and device; `*` stands for all devices.
pub type Messages = BTreeMap<OwnedUserId, BTreeMap<String, Map<String, Value>>>;

impl Accounts {
    /// Sends messages to devices, all in one commit. The same transaction id again does nothing.
    ///
    /// # Errors
    /// [`Error::TooLarge`]
    pub async fn send_to_device(&self, who: &Who, kind: &str, txn: &str, messages: &Messages) -> Result<()> {
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        let deed = format!("sendToDevice {kind}");
        let key = (who.user_no, who.device.clone(), deed.clone(), txn.to_owned());
        if snapshot.has(&schema::TXNS, &key).await? {
            return Ok(());
        }
        let mut tx = Tx::new();
        let sent = SentTxn { event_id: String::new(), ts: self.env().now_ms() };
        put_txn(&mut tx, who.user_no, &who.device, &deed, txn, &sent);
        for (user, devices) in messages {
            // Other servers' users come with federation.
            let Some(no) = self.store().names().user(&snapshot, user.as_str()).await? else { continue };
            let known = snapshot.scan(&schema::DEVICES, &no, Direction::Forward, usize::MAX).await?;
            let known: Vec<String> = known.into_iter().map(|((_, id), _)| id).collect();
            for (device, content) in devices {
                let event = json!({ "type": kind, "sender": who.user, "content": content }).to_string();
                if event.len() > MAX_BYTES {
                    return Err(Error::TooLarge("a message to a device has at most 256 KiB"));
                }
                for id in known.iter().filter(|id| device == "*" || device == *id) {
                    let slot = tx.slot();
                    to_device::put(&mut tx, slot, no, id, event.clone().into());
                }
            }
        }
        self.store().commit(tx).await?;
        Ok(())
    }

    /// Forgets the messages that the device of who asks has seen: those up to and with a position.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn seen_to_device(&self, who: &Who, until: Position) -> Result<()> {
        let snapshot = self.store().snapshot().await?;
        let waiting = to_device::read(&snapshot, who.user_no, &who.device, Position::MIN, until, 1).await?;
        if waiting.is_empty() {
            return Ok(());
        }
        let mut tx = Tx::new();
        to_device::delete_until(&mut tx, who.user_no, &who.device, until);
        self.store().commit(tx).await?;
        Ok(())
    }
}
