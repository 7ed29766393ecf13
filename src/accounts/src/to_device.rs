//! Messages from device to device (Client-Server API, "Send-to-Device messaging").

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use stoa_event::ids::{OwnedServerName, OwnedUserId, UserId};
use stoa_store::{
    Direction, Position, Snapshot, Tx,
    rows::{
        outbox,
        rooms::{SentTxn, put_txn},
        to_device,
    },
    schema,
};
use tokio::sync::broadcast;

use crate::{Accounts, Error, Result, Who};

/// How many bytes a message may have.
const MAX_BYTES: usize = 256 << 10;
/// After how many bytes messages for one server go on in another EDU.
const EDU_BYTES: usize = 48 << 10;
/// How many messages one EDU of another server may have.
const MAX_MESSAGES: usize = 10_000;

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
        let mut abroad: BTreeMap<OwnedServerName, Messages> = BTreeMap::new();
        for (user, devices) in messages {
            if devices.values().any(is_too_large) {
                return Err(Error::TooLarge("a message to a device has at most 256 KiB"));
            }
            if user.server_name() == self.server_name() {
                self.put_messages(&snapshot, &mut tx, (&who.user, kind), user, devices).await?;
            } else {
                let of_server = abroad.entry(user.server_name().to_owned()).or_default();
                of_server.insert(user.clone(), devices.clone());
            }
        }
        for (server, messages) in &abroad {
            for content in self.direct(&who.user, kind, messages) {
                let slot = tx.slot();
                outbox::put_direct(&mut tx, slot, server.as_str(), content.to_string().into());
            }
        }
        self.store().commit(tx).await?;
        for server in abroad.into_keys() {
            // Nobody listening is fine: what waits is written down.
            let _ = self.inner.waiting.send(server);
        }
        Ok(())
    }

    /// Hears for which servers messages wait, from now on.
    pub fn waiting_servers(&self) -> broadcast::Receiver<OwnedServerName> {
        self.inner.waiting.subscribe()
    }

    /// The contents of `m.direct_to_device` EDUs that carry messages to users of one server, each of a bearable size.
    fn direct(&self, sender: &OwnedUserId, kind: &str, messages: &Messages) -> Vec<Value> {
        let mut contents = Vec::new();
        let mut part = Map::new();
        let mut bytes = 0;
        let mut finish = |part: &mut Map<String, Value>| {
            let messages = std::mem::take(part);
            if !messages.is_empty() {
                let id = self.env().token(24);
                contents.push(json!({ "message_id": id, "messages": messages, "sender": sender, "type": kind }));
            }
        };
        for (user, devices) in messages {
            for (device, content) in devices {
                let content = Value::Object(content.clone());
                bytes += content.to_string().len() + device.len() + user.as_str().len();
                part.entry(user.as_str()).or_insert_with(|| json!({}))[device] = content;
                if bytes >= EDU_BYTES {
                    finish(&mut part);
                    bytes = 0;
                }
            }
        }
        finish(&mut part);
        contents
    }

    /// Takes the messages that a user of another server sends to devices of our users, all in one commit. The same message
    /// id of that server again does nothing.
    ///
    /// # Errors
    /// Where the store fails: then the other server must send them again.
    pub async fn take_to_device(
        &self,
        sender: &OwnedUserId,
        kind: &str,
        message_id: &str,
        messages: &Messages,
    ) -> Result<()> {
        let server = sender.server_name();
        // The same transaction may come twice at once.
        let _guard = self.lock_name(sender).await;
        let snapshot = self.store().snapshot().await?;
        if outbox::is_direct_seen(&snapshot, server.as_str(), message_id).await? {
            return Ok(());
        }
        let mut tx = Tx::new();
        outbox::put_direct_seen(&mut tx, server.as_str(), message_id, self.env().now_ms());
        let mut left = MAX_MESSAGES;
        for (user, devices) in messages.iter().filter(|(user, _)| user.server_name() == self.server_name()) {
            left = left.saturating_sub(devices.len());
            if left == 0 {
                break;
            }
            self.put_messages(&snapshot, &mut tx, (sender, kind), user, devices).await?;
        }
        self.store().commit(tx).await?;
        Ok(())
    }

    /// Leaves messages for devices of one of our users. Those for devices that are not there are nobody's.
    async fn put_messages(
        &self,
        snapshot: &Snapshot,
        tx: &mut Tx,
        (sender, kind): (&OwnedUserId, &str),
        user: &UserId,
        devices: &BTreeMap<String, Map<String, Value>>,
    ) -> Result<()> {
        let Some(no) = self.store().names().user(snapshot, user.as_str()).await? else { return Ok(()) };
        let known = snapshot.scan(&schema::DEVICES, &no, Direction::Forward, usize::MAX).await?;
        let known: Vec<String> = known.into_iter().map(|((_, id), _)| id).collect();
        for (device, content) in devices.iter().filter(|(_, content)| !is_too_large(content)) {
            let event = json!({ "type": kind, "sender": sender, "content": content }).to_string();
            for id in known.iter().filter(|id| device == "*" || device == *id) {
                let slot = tx.slot();
                to_device::put(tx, slot, no, id, event.clone().into());
            }
        }
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

fn is_too_large(content: &Map<String, Value>) -> bool {
    serde_json::to_string(content).is_ok_and(|json| json.len() > MAX_BYTES)
}
