//! What other servers are told about our users' devices (Server-Server API, "Device Management", "End-to-End Encryption"): the
//! keys, without the names that people give to their devices.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use stoa_event::ids::{OwnedUserId, UserId};
use stoa_store::{Direction, Snapshot, UserNo, rows::outbox::device_stream, schema};

use crate::{Accounts, Error, Result};

/// The most devices of one user that are told.
const DEVICES: usize = 10_000;

impl Accounts {
    /// A local user's devices with their keys, the cross-signing keys, and the number that updates of them go on from.
    ///
    /// # Errors
    /// [`Error::NotFound`] for who is no user of this server.
    pub async fn devices_for_servers(&self, user: &UserId) -> Result<Value> {
        let none = || Error::NotFound("there is no such user");
        if user.server_name() != self.server_name() {
            return Err(none());
        }
        let account = self.account(user).await?.ok_or_else(none)?;
        let snapshot = self.store().snapshot().await?;
        let devices = device_keys(&snapshot, account.no, &[]).await?;
        let devices: Vec<Value> =
            devices.into_iter().map(|(id, keys)| json!({ "device_id": id, "keys": keys })).collect();
        // The updates that are sent count from here.
        let stream_id = device_stream(&snapshot, account.no).await?;
        let mut answer = json!({ "user_id": user, "stream_id": stream_id, "devices": devices });
        let (master, self_signing) = cross_signing(&snapshot, account.no).await?;
        for (field, key) in [("master_key", master), ("self_signing_key", self_signing)] {
            if let Some(key) = key {
                answer[field] = key;
            }
        }
        Ok(answer)
    }

    /// The keys of local users and their devices; all devices of a user where none are named. Others are passed over.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn keys_for_servers(&self, wanted: &BTreeMap<OwnedUserId, Vec<String>>) -> Result<Value> {
        let snapshot = self.store().snapshot().await?;
        let (mut devices, mut masters, mut self_signing) = (Map::new(), Map::new(), Map::new());
        for (user, named) in wanted {
            if user.server_name() != self.server_name() {
                continue;
            }
            let Some(no) = self.store().names().user(&snapshot, user.as_str()).await? else { continue };
            devices.insert(user.to_string(), Value::Object(device_keys(&snapshot, no, named).await?));
            let (master, signing) = cross_signing(&snapshot, no).await?;
            masters.extend(master.map(|key| (user.to_string(), key)));
            self_signing.extend(signing.map(|key| (user.to_string(), key)));
        }
        Ok(json!({ "device_keys": devices, "master_keys": masters, "self_signing_keys": self_signing }))
    }
}

async fn device_keys(snapshot: &Snapshot, user: UserNo, named: &[String]) -> Result<Map<String, Value>> {
    let rows = snapshot.scan(&schema::DEVICE_KEYS, &user, Direction::Forward, DEVICES).await?;
    let wanted = rows.into_iter().filter(|((_, device), _)| named.is_empty() || named.contains(device));
    Ok(wanted.filter_map(|((_, device), json)| Some((device, serde_json::from_slice(&json).ok()?))).collect())
}

/// The master key and the self-signing key.
async fn cross_signing(snapshot: &Snapshot, user: UserNo) -> Result<(Option<Value>, Option<Value>)> {
    let keys = ["master", "self_signing"].map(|usage| (user, usage.to_owned()));
    let mut rows = snapshot.get_many(&schema::CROSS_SIGNING_KEYS, keys).await?.into_iter();
    let mut next = || rows.next().flatten().and_then(|json| serde_json::from_slice(&json).ok());
    Ok((next(), next()))
}
