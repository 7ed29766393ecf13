//! Keys of devices (Client-Server API, "Key management API"): identity keys, one-time keys, fallback keys.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use stoa_event::ids::{OwnedUserId, UserId};
use stoa_store::{
    Direction, Snapshot, Tx, UserNo,
    rows::{
        self,
        keys::{FallbackKey, KeyCounts, put_devices_changed},
    },
    schema,
};

use crate::{Accounts, Error, Result, Who};

/// How many one-time keys a device may have waiting.
const MAX_ONE_TIME_KEYS: u32 = 1000;

/// What a device uploads.
#[derive(Clone, Debug, Default)]
pub struct KeyUpload {
    /// `device_keys`
    pub device_keys: Option<Map<String, Value>>,
    /// `one_time_keys`, by `algorithm:id`
    pub one_time_keys: Map<String, Value>,
    /// `fallback_keys`, by `algorithm:id`
    pub fallback_keys: Map<String, Value>,
}

/// Keys of users, as `/keys/query` shows them.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct FoundKeys {
    /// By user and device.
    pub device_keys: BTreeMap<OwnedUserId, BTreeMap<String, Value>>,
    /// By user.
    pub master_keys: BTreeMap<OwnedUserId, Value>,
    /// By user.
    pub self_signing_keys: BTreeMap<OwnedUserId, Value>,
    /// Only the own one of who asks.
    pub user_signing_keys: BTreeMap<OwnedUserId, Value>,
    /// Servers that could not be asked.
    pub failures: BTreeMap<String, Value>,
}

/// Keys that were claimed: by user, device, and `algorithm:id`.
pub type ClaimedKeys = BTreeMap<OwnedUserId, BTreeMap<String, BTreeMap<String, Value>>>;

impl Accounts {
    /// Takes the keys that the device of who asks uploads; answers how many one-time keys it has then.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for keys of another device, [`Error::BadJson`] for what are no keys
    pub async fn upload_keys(&self, who: &Who, upload: KeyUpload) -> Result<KeyCounts> {
        if !who.has_device() {
            return Err(Error::Unknown("keys belong to a device: the application service must name one by device_id"));
        }
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        let mut tx = Tx::new();
        if let Some(keys) = upload.device_keys {
            self.put_device_keys(&snapshot, &mut tx, who, keys).await?;
        }
        self.put_one_time_keys(&snapshot, &mut tx, who, upload.one_time_keys).await?;
        let slot = tx.slot();
        for (name, key) in upload.fallback_keys {
            let (algorithm, _) = split(&name)?;
            check_key(&name, &key)?;
            let row = FallbackKey { id: name.clone(), json: key.to_string().into_bytes(), used: false };
            rows::keys::put_fallback_key(&mut tx, who.user_no, &who.device, algorithm, &row);
            let user = who.user_no;
            tx.tell(move |at| stoa_store::Fact::User { user, at: at.of(slot) });
        }
        if !tx.is_empty() {
            self.store().commit(tx).await?;
        }
        let snapshot = self.store().snapshot().await?;
        Ok(rows::keys::counts(&snapshot, who.user_no, &who.device).await?)
    }

    async fn put_device_keys(
        &self,
        snapshot: &Snapshot,
        tx: &mut Tx,
        who: &Who,
        keys: Map<String, Value>,
    ) -> Result<()> {
        check_device_keys(who, &keys)?;
        let mut keys = Value::Object(keys);
        let old = snapshot.get(&schema::DEVICE_KEYS, &(who.user_no, who.device.clone())).await?;
        if let Some(old) = old.and_then(|old| serde_json::from_slice::<Value>(&old).ok())
            && without_signatures(&old) == without_signatures(&keys)
        {
            // The same keys again: signatures that came since stay.
            merge_signatures(&mut keys, &old);
            if keys == old {
                return Ok(());
            }
        }
        rows::keys::put_device_keys(tx, who.user_no, &who.device, &keys.to_string().into());
        self.note_devices_changed(snapshot, tx, who.user_no).await
    }

    async fn put_one_time_keys(
        &self,
        snapshot: &Snapshot,
        tx: &mut Tx,
        who: &Who,
        keys: Map<String, Value>,
    ) -> Result<()> {
        let mut counts = rows::keys::counts(snapshot, who.user_no, &who.device).await?.one_time;
        let mut touched = false;
        for (name, key) in keys {
            let (algorithm, id) = split(&name)?;
            check_key(&name, &key)?;
            let json = key.to_string();
            let row = (who.user_no, who.device.clone(), algorithm.to_owned(), id.to_owned());
            if let Some(at) = snapshot.get(&schema::ONE_TIME_KEY_IDS, &row).await? {
                let old = snapshot.get(&schema::ONE_TIME_KEYS, &(row.0, row.1, row.2, at, row.3)).await?;
                if old.is_some_and(|old| serde_json::from_slice::<Value>(&old).ok().as_ref() != Some(&key)) {
                    return Err(Error::InvalidParam(format!("there is another one-time key {name}")));
                }
                continue;
            }
            let count = counts.entry(algorithm.to_owned()).or_default();
            if *count >= MAX_ONE_TIME_KEYS {
                return Err(Error::TooLarge("the device has too many one-time keys"));
            }
            *count += 1;
            touched = true;
            let slot = tx.slot();
            rows::keys::put_one_time_key(tx, slot, who.user_no, &who.device, algorithm, id, &json.into());
        }
        if touched {
            let slot = tx.slot();
            for (algorithm, count) in counts {
                rows::keys::put_count(tx, slot, who.user_no, &who.device, &algorithm, count);
            }
        }
        Ok(())
    }

    /// The keys of users and their devices; all devices of a user where none are named. Of users of other servers: what was
    /// heard of them.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn query_keys(&self, who: &Who, wanted: &BTreeMap<OwnedUserId, Vec<String>>) -> Result<FoundKeys> {
        let snapshot = self.store().snapshot().await?;
        let mut found = FoundKeys::default();
        for (user, devices) in wanted {
            let Some(no) = self.store().names().user(&snapshot, user.as_str()).await? else { continue };
            let all = self.device_keys(&snapshot, no, devices).await?;
            found.device_keys.insert(user.clone(), all);
            self.find_cross_signing(&snapshot, who, user, no, &mut found).await?;
        }
        Ok(found)
    }

    async fn device_keys(
        &self,
        snapshot: &Snapshot,
        user: UserNo,
        devices: &[String],
    ) -> Result<BTreeMap<String, Value>> {
        let mut all = BTreeMap::new();
        for ((_, device), json) in snapshot.scan(&schema::DEVICE_KEYS, &user, Direction::Forward, usize::MAX).await? {
            if !devices.is_empty() && !devices.contains(&device) {
                continue;
            }
            let Ok(mut keys) = serde_json::from_slice::<Value>(&json) else { continue };
            let row = snapshot.get(&schema::DEVICES, &(user, device.clone())).await?;
            if let Some(name) = row.and_then(|row| row.name) {
                keys["unsigned"] = json!({ "device_display_name": name });
            }
            all.insert(device, keys);
        }
        Ok(all)
    }

    async fn find_cross_signing(
        &self,
        snapshot: &Snapshot,
        who: &Who,
        user: &OwnedUserId,
        no: UserNo,
        found: &mut FoundKeys,
    ) -> Result<()> {
        for ((_, usage), json) in
            snapshot.scan(&schema::CROSS_SIGNING_KEYS, &no, Direction::Forward, usize::MAX).await?
        {
            let Ok(mut key) = serde_json::from_slice::<Value>(&json) else { continue };
            match usage.as_str() {
                "master" => {
                    let own = snapshot
                        .scan(&schema::OWN_SIGNATURES, &(who.user_no, no), Direction::Forward, usize::MAX)
                        .await?;
                    for ((_, _, key_id), signature) in own {
                        key["signatures"][who.user.as_str()][key_id] = signature.into();
                    }
                    found.master_keys.insert(user.clone(), key);
                }
                "self_signing" => {
                    found.self_signing_keys.insert(user.clone(), key);
                }
                "user_signing" if no == who.user_no => {
                    found.user_signing_keys.insert(user.clone(), key);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives out a key for each device of our users that is asked for: a one-time key, which nobody gets again, else the
    /// fallback key.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn claim_keys(&self, wanted: &BTreeMap<OwnedUserId, BTreeMap<String, String>>) -> Result<ClaimedKeys> {
        let mut claimed = ClaimedKeys::new();
        for (user, devices) in wanted.iter().filter(|(user, _)| user.server_name() == self.server_name()) {
            for (device, algorithm) in devices {
                if let Some((name, key)) = self.claim_key(user, device, algorithm).await? {
                    let keys = claimed.entry(user.clone()).or_default().entry(device.clone()).or_default();
                    keys.insert(name, key);
                }
            }
        }
        Ok(claimed)
    }

    async fn claim_key(&self, user: &UserId, device: &str, algorithm: &str) -> Result<Option<(String, Value)>> {
        let before = self.store().snapshot().await?;
        let Some(no) = self.store().names().user(&before, user.as_str()).await? else { return Ok(None) };
        let _guard = self.lock(no).await;
        let snapshot = self.store().snapshot().await?;
        let prefix = (no, device.to_owned(), algorithm.to_owned());
        let first = snapshot.scan(&schema::ONE_TIME_KEYS, &prefix, Direction::Forward, 1).await?;
        let mut tx = Tx::new();
        let slot = tx.slot();
        let (name, json) = if let Some(((_, _, _, at, id), json)) = first.into_iter().next() {
            let count = snapshot.get(&schema::ONE_TIME_KEY_COUNTS, &prefix).await?.unwrap_or(1);
            rows::keys::delete_one_time_key(&mut tx, no, device, algorithm, at, &id);
            rows::keys::put_count(&mut tx, slot, no, device, algorithm, count.saturating_sub(1));
            (format!("{algorithm}:{id}"), json.to_vec())
        } else if let Some(mut key) = snapshot.get(&schema::FALLBACK_KEYS, &prefix).await? {
            let known = key.used;
            key.used = true;
            let given = (key.id.clone(), key.json.clone());
            if !known {
                rows::keys::put_fallback_key(&mut tx, no, device, algorithm, &key);
                tx.tell(move |at| stoa_store::Fact::User { user: no, at: at.of(slot) });
            }
            given
        } else {
            return Ok(None);
        };
        if !tx.is_empty() {
            // Only what is on disk as given out may be given out.
            self.store().commit(tx).await?;
        }
        Ok(serde_json::from_slice(&json).ok().map(|key| (name, key)))
    }

    /// Notes that the devices or keys of a user changed.
    pub(crate) async fn note_devices_changed(&self, snapshot: &Snapshot, tx: &mut Tx, user: UserNo) -> Result<()> {
        let before = rows::keys::devices_changed_at(snapshot, user).await?;
        let slot = tx.slot();
        put_devices_changed(tx, slot, user, before);
        Ok(())
    }
}

/// Algorithm and id of a key's name.
fn split(name: &str) -> Result<(&str, &str)> {
    match name.split_once(':') {
        Some((algorithm, id)) if !algorithm.is_empty() && !id.is_empty() && name.len() <= 255 => Ok((algorithm, id)),
        _ => Err(Error::BadJson(format!("{name} is not algorithm:id"))),
    }
}

/// A one-time or fallback key is a string, or an object with a string `key`.
fn check_key(name: &str, key: &Value) -> Result<()> {
    let good = key.is_string() || key.get("key").is_some_and(Value::is_string);
    let signed = key.get("signatures").is_none_or(are_signatures);
    if good && signed { Ok(()) } else { Err(Error::BadJson(format!("{name} is no key"))) }
}

/// `user -> key id -> signature`
pub(crate) fn are_signatures(signatures: &Value) -> bool {
    let all_strings = |by_key: &Value| by_key.as_object().is_some_and(|keys| keys.values().all(Value::is_string));
    signatures.as_object().is_some_and(|users| users.values().all(all_strings))
}

fn check_device_keys(who: &Who, keys: &Map<String, Value>) -> Result<()> {
    let text = |field: &str| keys.get(field).and_then(Value::as_str);
    if text("user_id") != Some(who.user.as_str()) || text("device_id") != Some(&who.device) {
        return Err(Error::InvalidParam("device_keys are for another user or device".into()));
    }
    let strings =
        |value: Option<&Value>| value.and_then(Value::as_array).is_some_and(|items| items.iter().all(Value::is_string));
    if !strings(keys.get("algorithms")) {
        return Err(Error::BadJson("device_keys.algorithms must be an array of strings".into()));
    }
    let named = |keys: &Map<String, Value>| keys.iter().all(|(name, key)| name.contains(':') && key.is_string());
    if !keys.get("keys").and_then(Value::as_object).is_some_and(named) {
        return Err(Error::BadJson("device_keys.keys must map algorithm:device to strings".into()));
    }
    if !keys.get("signatures").is_some_and(are_signatures) {
        return Err(Error::BadJson("device_keys.signatures must map users to keys to signatures".into()));
    }
    Ok(())
}

/// An object of keys as it is signed.
pub(crate) fn without_signatures(keys: &Value) -> Value {
    let mut keys = keys.clone();
    if let Some(fields) = keys.as_object_mut() {
        fields.remove("signatures");
        fields.remove("unsigned");
    }
    keys
}

/// Adds the signatures of one object to those of another.
pub(crate) fn merge_signatures(into: &mut Value, from: &Value) {
    let Some(users) = from.get("signatures").and_then(Value::as_object) else { return };
    for (user, keys) in users {
        for (key, signature) in keys.as_object().into_iter().flatten() {
            let place = &mut into["signatures"][user.as_str()][key.as_str()];
            if place.is_null() {
                *place = signature.clone();
            }
        }
    }
}
