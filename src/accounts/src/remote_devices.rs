//! Devices and cross-signing keys of other servers' users, as far as those servers told (Server-Server API, "Device
//! Management"). Their keys stand in the tables of our own users' keys, so that reading them is the same.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use stoa_event::ids::UserId;
use stoa_store::{
    Direction, Snapshot, Tx, UserNo,
    rows::{self, keys::RemoteDevices},
    schema,
};

use crate::{Accounts, Result, keys::are_signatures};

/// How many devices of one user are kept.
const MAX_DEVICES: usize = 1_000;
/// How many bytes the keys of a device, or a cross-signing key, may have.
const MAX_KEYS: usize = 64 << 10;
/// The greatest length of a device's id and name, in bytes.
const MAX_BYTES: usize = 255;

/// A device as its server tells it.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
pub struct ToldDevice {
    /// Its id.
    pub device_id: String,
    /// Its identity keys, if it has any.
    #[serde(default)]
    pub keys: Option<Value>,
    /// Its name, if its server tells it.
    #[serde(default)]
    pub device_display_name: Option<String>,
}

/// All devices of a user as the user's server tells them: the answer of `/user/devices`.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
pub struct ToldDevices {
    /// Where in the sequence of changes that is.
    pub stream_id: u64,
    /// The devices.
    #[serde(default)]
    pub devices: Vec<ToldDevice>,
    /// The cross-signing keys.
    #[serde(default)]
    pub master_key: Option<Value>,
    /// The cross-signing keys.
    #[serde(default)]
    pub self_signing_key: Option<Value>,
}

/// One change of a user's devices: the content of `m.device_list_update`.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
pub struct DeviceUpdate {
    /// The device.
    #[serde(flatten)]
    pub device: ToldDevice,
    /// Where in the sequence of changes that is.
    pub stream_id: u64,
    /// Those before it.
    #[serde(default)]
    pub prev_id: Vec<u64>,
    /// Whether the device is gone.
    #[serde(default)]
    pub deleted: bool,
}

/// Whether all that changed before is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is.
    All,
    /// The list was not known before, and need not be until somebody asks for it.
    Unknown,
    /// Something was missed: the user's server is to be asked.
    Gap,
}

impl Accounts {
    /// How well the devices of another server's user are known here.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn remote_devices(&self, user: &UserId) -> Result<Option<RemoteDevices>> {
        let snapshot = self.store().snapshot().await?;
        let Some(no) = self.store().names().user(&snapshot, user.as_str()).await? else { return Ok(None) };
        Ok(rows::keys::remote_devices(&snapshot, no).await?)
    }

    /// The user's server may have said something that we did not hear: it is to be asked before what is known is believed.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn doubt_remote_devices(&self, user: UserNo) -> Result<()> {
        let _guard = self.lock(user).await;
        let snapshot = self.store().snapshot().await?;
        let Some(known) = rows::keys::remote_devices(&snapshot, user).await? else { return Ok(()) };
        if known.stale {
            return Ok(());
        }
        let mut tx = Tx::new();
        rows::keys::put_remote_devices(&mut tx, user, &RemoteDevices { stale: true, ..known });
        self.store().commit(tx).await?;
        Ok(())
    }

    /// Takes all devices of another server's user, in place of what was known. Of users that nobody here has met nothing is
    /// kept.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn set_remote_devices(&self, user: &UserId, told: ToldDevices) -> Result<()> {
        let before = self.store().snapshot().await?;
        let Some(no) = self.store().names().user(&before, user.as_str()).await? else { return Ok(()) };
        let _guard = self.lock(no).await;
        let snapshot = self.store().snapshot().await?;
        let mut tx = Tx::new();
        let devices = told.devices.into_iter().take(MAX_DEVICES);
        let new: BTreeMap<_, _> =
            devices.filter_map(|device| Some((device.device_id.clone(), keys_of(user, device)?))).collect();
        let old = snapshot.scan(&schema::DEVICE_KEYS, &no, Direction::Forward, usize::MAX).await?;
        let old: BTreeMap<_, _> = old.into_iter().map(|((_, device), keys)| (device, keys)).collect();
        for device in old.keys().filter(|device| !new.contains_key(*device)) {
            rows::keys::delete_device_keys(&mut tx, no, device);
        }
        for (device, keys) in &new {
            let keys = keys.to_string();
            if old.get(device).is_none_or(|old| old[..] != *keys.as_bytes()) {
                rows::keys::put_device_keys(&mut tx, no, device, &keys.into());
            }
        }
        self.put_signing_keys(&snapshot, &mut tx, (user, no), told.master_key, told.self_signing_key).await?;
        if !tx.is_empty() {
            self.note_devices_changed(&snapshot, &mut tx, no).await?;
        }
        let known = RemoteDevices { stream: told.stream_id, stale: false };
        rows::keys::put_remote_devices(&mut tx, no, &known);
        self.store().commit(tx).await?;
        Ok(())
    }

    /// Takes a change of a device of another server's user.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn update_remote_device(&self, user: &UserId, update: DeviceUpdate) -> Result<Heard> {
        let before = self.store().snapshot().await?;
        let Some(no) = self.store().names().user(&before, user.as_str()).await? else { return Ok(Heard::Unknown) };
        let _guard = self.lock(no).await;
        let snapshot = self.store().snapshot().await?;
        let mut tx = Tx::new();
        let known = rows::keys::remote_devices(&snapshot, no).await?;
        let heard = match known {
            None => Heard::Unknown,
            // The same again.
            Some(known) if !known.stale && known.stream == update.stream_id => return Ok(Heard::All),
            Some(known) if known.stale || update.prev_id.is_empty() => Heard::Gap,
            Some(known) if update.prev_id.iter().any(|prev| *prev != known.stream) => Heard::Gap,
            Some(_) => Heard::All,
        };
        match (heard, known) {
            (Heard::All, _) => self.put_update(&snapshot, &mut tx, (user, no), update).await?,
            (Heard::Gap, Some(known)) => {
                rows::keys::put_remote_devices(&mut tx, no, &RemoteDevices { stale: true, ..known });
            }
            _ => {}
        }
        self.note_devices_changed(&snapshot, &mut tx, no).await?;
        self.store().commit(tx).await?;
        Ok(heard)
    }

    async fn put_update(
        &self,
        snapshot: &Snapshot,
        tx: &mut Tx,
        (user, no): (&UserId, UserNo),
        update: DeviceUpdate,
    ) -> Result<()> {
        let known = RemoteDevices { stream: update.stream_id, stale: false };
        rows::keys::put_remote_devices(tx, no, &known);
        let device = update.device.device_id.clone();
        match keys_of(user, update.device).filter(|_| !update.deleted) {
            Some(keys) => {
                let all = snapshot.scan(&schema::DEVICE_KEYS, &no, Direction::Forward, MAX_DEVICES).await?;
                if all.len() < MAX_DEVICES || all.iter().any(|((_, id), _)| *id == device) {
                    rows::keys::put_device_keys(tx, no, &device, &keys.to_string().into());
                }
            }
            None => rows::keys::delete_device_keys(tx, no, &device),
        }
        Ok(())
    }

    /// Takes new cross-signing keys of another server's user.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn set_remote_signing_keys(
        &self,
        user: &UserId,
        master: Option<Value>,
        self_signing: Option<Value>,
    ) -> Result<()> {
        let before = self.store().snapshot().await?;
        let Some(no) = self.store().names().user(&before, user.as_str()).await? else { return Ok(()) };
        let _guard = self.lock(no).await;
        let snapshot = self.store().snapshot().await?;
        let mut tx = Tx::new();
        // Of users whose devices nobody asked for nothing is kept; who asks later asks for all.
        if rows::keys::remote_devices(&snapshot, no).await?.is_some() {
            self.put_signing_keys(&snapshot, &mut tx, (user, no), master, self_signing).await?;
            if tx.is_empty() {
                return Ok(());
            }
        }
        self.note_devices_changed(&snapshot, &mut tx, no).await?;
        self.store().commit(tx).await?;
        Ok(())
    }

    /// Keys that are not told stay.
    async fn put_signing_keys(
        &self,
        snapshot: &Snapshot,
        tx: &mut Tx,
        (user, no): (&UserId, UserNo),
        master: Option<Value>,
        self_signing: Option<Value>,
    ) -> Result<()> {
        for (usage, key) in [("master", master), ("self_signing", self_signing)] {
            let Some(key) = key.filter(|key| is_signing_key(user, usage, key)) else { continue };
            let key = key.to_string();
            let old = snapshot.get(&schema::CROSS_SIGNING_KEYS, &(no, usage.to_owned())).await?;
            if old.is_none_or(|old| old[..] != *key.as_bytes()) {
                rows::keys::put_cross_signing_key(tx, no, usage, &key.into());
            }
        }
        Ok(())
    }
}

/// The keys of a told device as clients are shown them; `None` where they are not that device's keys.
pub(crate) fn keys_of(user: &UserId, device: ToldDevice) -> Option<Value> {
    let mut keys = device.keys?;
    check_keys(user, &device.device_id, &mut keys)?;
    if let Some(name) = device.device_display_name.filter(|name| name.len() <= MAX_BYTES) {
        keys["unsigned"] = json!({ "device_display_name": name });
    }
    Some(keys)
}

/// Keys of another server's device as clients may be shown them, with the name that the server tells in `unsigned` and
/// nothing else there; `None` where they are not that device's keys.
pub fn shown_keys(user: &UserId, device: &str, keys: &Value) -> Option<Value> {
    let name = keys["unsigned"]["device_display_name"].as_str().map(str::to_owned);
    keys_of(user, ToldDevice { device_id: device.to_owned(), keys: Some(keys.clone()), device_display_name: name })
}

fn check_keys(user: &UserId, device: &str, keys: &mut Value) -> Option<()> {
    let text = |keys: &Value, field: &str| keys.get(field).and_then(Value::as_str).map(str::to_owned);
    let theirs = text(keys, "user_id").as_deref() == Some(user.as_str())
        && text(keys, "device_id").as_deref() == Some(device)
        && !device.is_empty()
        && device.len() <= MAX_BYTES;
    let all_strings = |value: &Value| value.as_object().is_some_and(|keys| keys.values().all(Value::is_string));
    let named = keys.get("keys").is_some_and(all_strings) && keys.get("algorithms").is_some_and(Value::is_array);
    let signed = keys.get("signatures").is_none_or(are_signatures);
    keys.as_object_mut()?.remove("unsigned");
    (theirs && named && signed && keys.to_string().len() <= MAX_KEYS).then_some(())
}

/// Whether it is a cross-signing key of that user for that usage.
pub fn is_signing_key(user: &UserId, usage: &str, key: &Value) -> bool {
    let usages = key.get("usage").and_then(Value::as_array);
    let keys = key.get("keys").and_then(Value::as_object);
    key.get("user_id").and_then(Value::as_str) == Some(user.as_str())
        && usages.is_some_and(|usages| usages.iter().any(|it| it.as_str() == Some(usage)))
        && keys.is_some_and(|keys| keys.len() == 1 && keys.values().all(Value::is_string))
        && key.get("signatures").is_none_or(are_signatures)
        && key.to_string().len() <= MAX_KEYS
}
