//! One transaction for one server (Server-Server API, "Transactions"): what it holds, and which rows are done when the
//! other side has it. Events pass through as the bytes that are stored.

use std::{fmt::Write, sync::Arc};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use stoa_event::hash::sha256;
use stoa_store::{
    Position, RoomNo, Snapshot, Tx, UserNo,
    rows::{
        self,
        events::StoredEvent,
        outbox::{CROSS_SIGNING, ToldDevice, WaitingDevices, WaitingEvent},
    },
    schema,
};

use super::{destinations::Turn, passing::Passing};
use crate::{
    Error, Inner,
    intake::{MAX_EDUS, MAX_PDUS},
};

/// How many bytes of events one transaction has, and of EDUs: after that many it has no further one.
const BYTES: usize = 1 << 20;
/// How many EDUs with messages to devices it has, so that others have their place too.
const DIRECT: usize = 60;
/// How many rows of news of devices are looked at.
const DEVICE_ROWS: usize = 200;
/// With more changes than that of one user the other side is only told that it missed some.
const CHANGES: usize = 20;

/// A transaction.
#[derive(Default)]
pub(crate) struct Transaction {
    /// Its id: the same for the same content.
    pub(crate) id: String,
    pub(crate) body: Bytes,
    /// Whether more waits.
    pub(crate) more: bool,
    /// What it does not hold of what is written down nowhere.
    pub(crate) left: Passing,
    /// The room that had its turn last.
    pub(crate) after: Option<RoomNo>,
    events: Vec<WaitingEvent>,
    direct: Vec<Position>,
    devices: Vec<(UserNo, u64)>,
    pdus: Vec<Arc<StoredEvent>>,
    edus: Vec<Vec<u8>>,
}

impl Transaction {
    /// Whether nothing waits at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.pdus.is_empty() && self.edus.is_empty()
    }

    /// Notes that the other side has it (or never will).
    pub(crate) fn done(&self, tx: &mut Tx, server: &str) {
        for event in &self.events {
            rows::outbox::delete_event(tx, server, event.room, event.at);
        }
        for at in &self.direct {
            rows::outbox::delete_direct(tx, server, *at);
        }
        for (user, upto) in &self.devices {
            rows::outbox::delete_devices(tx, server, *user, *upto);
        }
    }

    /// How many events and EDUs it holds.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.pdus.len(), self.edus.len())
    }

    fn room_for_edus(&self) -> usize {
        MAX_EDUS - self.edus.len()
    }

    /// Writes the body and the id.
    fn finish(&mut self, origin: &str, now: u64, nonce: &str) {
        let mut body = format!("{{\"origin\":{},\"origin_server_ts\":{now},", Value::from(origin)).into_bytes();
        let content = body.len();
        body.extend_from_slice(b"\"pdus\":[");
        join(&mut body, self.pdus.iter().map(|event| &event.json[..]));
        body.extend_from_slice(b"],\"edus\":[");
        join(&mut body, self.edus.iter().map(|edu| &edu[..]));
        body.extend_from_slice(b"]}");
        let mut identity = body[content..].to_vec();
        for (user, upto) in &self.devices {
            identity.extend_from_slice(&user.0.to_be_bytes());
            identity.extend_from_slice(&upto.to_be_bytes());
        }
        identity.extend_from_slice(nonce.as_bytes());
        self.id = String::with_capacity(32);
        for byte in &sha256(&identity)[..16] {
            let _ = write!(self.id, "{byte:02x}");
        }
        self.body = body.into();
    }
}

fn join<'a>(out: &mut Vec<u8>, parts: impl Iterator<Item = &'a [u8]>) {
    for (i, part) in parts.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(part);
    }
}

impl Inner {
    /// The next transaction for a server.
    pub(crate) async fn transaction(&self, turn: &Turn) -> Result<Transaction, Error> {
        let snapshot = self.store.snapshot().await?;
        let mut transaction = Transaction { after: turn.after, ..Transaction::default() };
        let server = turn.server.as_str();
        let (pdus, edus) = if turn.careful { (1, 1) } else { (MAX_PDUS, DIRECT) };
        self.add_events(&snapshot, &mut transaction, server, pdus).await?;
        let alone = |transaction: &Transaction| turn.careful && !transaction.is_empty();
        if alone(&transaction) {
            transaction.more = true;
        } else {
            add_direct(&snapshot, &mut transaction, server, edus).await?;
        }
        if alone(&transaction) {
            transaction.more = true;
        } else {
            self.add_devices(&snapshot, &mut transaction, server).await?;
        }
        let mut nonce = String::new();
        if turn.careful {
            transaction.left = turn.passing.clone();
        } else if !turn.passing.is_empty() {
            let (edus, left) = turn.passing.edus(transaction.room_for_edus());
            transaction.edus.extend(edus.iter().map(|edu| edu.to_string().into_bytes()));
            transaction.left = left;
            // Who types now may say the same as before, and it is news again.
            nonce = self.env.token(16);
        }
        transaction.finish(self.rooms.server().as_str(), self.env.now_ms(), &nonce);
        Ok(transaction)
    }

    async fn add_events(
        &self,
        snapshot: &Snapshot,
        transaction: &mut Transaction,
        server: &str,
        limit: usize,
    ) -> Result<(), Error> {
        let waiting = rows::outbox::events(snapshot, server, transaction.after, limit).await?;
        transaction.more |= waiting.len() == limit;
        let mut bytes = 0;
        for of_room in waiting.chunk_by(|a, b| a.room == b.room) {
            let Some(first) = of_room.first() else { continue };
            let nos: Vec<_> = of_room.iter().map(|waiting| waiting.event).collect();
            let events = self.store.events().get_many(snapshot, first.room, &nos).await?;
            for (waiting, event) in of_room.iter().zip(events) {
                if bytes >= BYTES {
                    transaction.more = true;
                    return Ok(());
                }
                if let Some(event) = event {
                    bytes += event.json.len();
                    transaction.pdus.push(event);
                }
                transaction.events.push(*waiting);
                transaction.after = Some(waiting.room);
            }
        }
        Ok(())
    }

    async fn add_devices(&self, snapshot: &Snapshot, transaction: &mut Transaction, server: &str) -> Result<(), Error> {
        let waiting = rows::outbox::devices(snapshot, server, DEVICE_ROWS).await?;
        transaction.more |= waiting.len() == DEVICE_ROWS;
        for of_user in waiting.chunk_by(|a, b| a.user == b.user) {
            if let (Some(first), Some(last)) = (of_user.first(), of_user.last()) {
                self.add_devices_of(snapshot, transaction, (first, last)).await?;
            }
        }
        Ok(())
    }

    /// The changes of a user's devices from one to another, each saying which one was before it.
    async fn add_devices_of(
        &self,
        snapshot: &Snapshot,
        transaction: &mut Transaction,
        (first, last): (&WaitingDevices, &WaitingDevices),
    ) -> Result<(), Error> {
        let user = first.user;
        let mut changes = rows::outbox::told_devices(snapshot, user).await?;
        changes.retain(|(_, told)| (first.stream..=last.stream).contains(&told.stream));
        changes.sort_by_key(|(_, told)| told.stream);
        let mut before = first.before;
        if changes.len() > CHANGES {
            changes.drain(..changes.len() - 1);
            before = last.stream.saturating_sub(1);
        }
        if changes.len() > transaction.room_for_edus() {
            transaction.more = true;
            return Ok(());
        }
        let id = self.store.names().user_id(snapshot, user).await?;
        for (device, told) in changes {
            let edu = if device == CROSS_SIGNING {
                json!({ "edu_type": "m.signing_key_update", "content": signing_keys(snapshot, user, &id).await? })
            } else {
                let content = device_update(snapshot, (user, &id), &device, &told, before).await?;
                before = told.stream;
                json!({ "edu_type": "m.device_list_update", "content": content })
            };
            transaction.edus.push(edu.to_string().into_bytes());
        }
        transaction.devices.push((user, last.stream));
        Ok(())
    }
}

async fn add_direct(
    snapshot: &Snapshot,
    transaction: &mut Transaction,
    server: &str,
    limit: usize,
) -> Result<(), Error> {
    let waiting = rows::outbox::direct(snapshot, server, limit).await?;
    transaction.more |= waiting.len() == limit;
    let mut bytes = 0;
    for (at, content) in waiting {
        if bytes >= BYTES {
            transaction.more = true;
            break;
        }
        bytes += content.len();
        let edu = [b"{\"edu_type\":\"m.direct_to_device\",\"content\":", &content[..], b"}"].concat();
        transaction.edus.push(edu);
        transaction.direct.push(at);
    }
    Ok(())
}

/// The content of `m.device_list_update`. Names of devices are for their owners.
async fn device_update(
    snapshot: &Snapshot,
    (user, id): (UserNo, &str),
    device: &str,
    told: &ToldDevice,
    before: u64,
) -> Result<Value, Error> {
    let mut content = json!({
        "user_id": id,
        "device_id": device,
        "stream_id": told.stream,
        "prev_id": [before],
    });
    if told.digest.is_none() {
        content["deleted"] = true.into();
    } else if let Some(keys) = snapshot.get(&schema::DEVICE_KEYS, &(user, device.to_owned())).await?
        && let Ok(keys) = serde_json::from_slice::<Value>(&keys)
    {
        content["keys"] = keys;
    }
    Ok(content)
}

/// The content of `m.signing_key_update`.
async fn signing_keys(snapshot: &Snapshot, user: UserNo, id: &str) -> Result<Value, Error> {
    let mut content = Map::from_iter([("user_id".to_owned(), Value::from(id))]);
    for (usage, field) in [("master", "master_key"), ("self_signing", "self_signing_key")] {
        if let Some(key) = snapshot.get(&schema::CROSS_SIGNING_KEYS, &(user, usage.to_owned())).await?
            && let Ok(key) = serde_json::from_slice(&key)
        {
            content.insert(field.to_owned(), key);
        }
    }
    Ok(content.into())
}
