//! Devices (Client-Server API, "Device management").

use std::{collections::HashMap, net::IpAddr};

use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use stoa_store::{
    Direction, Snapshot, Tx, UserNo,
    rows::{
        devices::{self, Device},
        keys, to_device,
        tokens::{self, TokenHash},
    },
    schema,
};

use crate::{
    Accounts, Error, Result, Who,
    uia::{AuthData, Operation},
};

/// The greatest length of a device's id and name, in bytes.
const MAX_BYTES: usize = 255;
/// How many devices that were seen may wait to be written.
const MAX_SEEN: usize = 100_000;

/// A device as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// When it was last seen, in milliseconds since 1970.
    pub last_seen_ts: Option<u64>,
    /// From where.
    pub last_seen_ip: Option<String>,
}

#[derive(Clone)]
struct Sight {
    ts: u64,
    ip: Option<IpAddr>,
}

/// When devices were seen, until it is written.
#[derive(Default)]
pub(crate) struct Seen {
    waiting: Mutex<HashMap<UserNo, HashMap<String, Sight>>>,
}

impl Accounts {
    /// Remembers that a device was seen. It costs a look into memory; [`Accounts::write_seen`] writes it some time.
    pub fn seen(&self, who: &Who, ip: Option<IpAddr>) {
        if !who.has_device() {
            return;
        }
        let ts = self.env().now_ms();
        let mut waiting = self.inner.seen.waiting.lock();
        if let Some(sight) = waiting.get_mut(&who.user_no).and_then(|devices| devices.get_mut(&who.device)) {
            *sight = Sight { ts, ip: ip.or(sight.ip) };
        } else if waiting.len() < MAX_SEEN {
            waiting.entry(who.user_no).or_default().insert(who.device.clone(), Sight { ts, ip });
        }
    }

    /// Writes when devices were last seen. Call it every few minutes.
    ///
    /// # Errors
    /// Where the store fails; what was not written is forgotten.
    pub async fn write_seen(&self) -> Result<()> {
        let waiting = std::mem::take(&mut *self.inner.seen.waiting.lock());
        // Many at once share one write.
        let writes = waiting.into_iter().map(|(user, sights)| self.write_sights(user, sights));
        stream::iter(writes).buffer_unordered(64).try_for_each(|()| async { Ok(()) }).await
    }

    async fn write_sights(&self, user: UserNo, sights: HashMap<String, Sight>) -> Result<()> {
        let _guard = self.lock(user).await;
        let snapshot = self.store().snapshot().await?;
        let mut tx = Tx::new();
        for (id, sight) in sights {
            if let Some(device) = snapshot.get(&schema::DEVICES, &(user, id.clone())).await? {
                devices::put(&mut tx, user, &id, &with_sight(device, Some(&sight)));
            }
        }
        if !tx.is_empty() {
            self.store().commit(tx).await?;
        }
        Ok(())
    }

    fn sight(&self, user: UserNo, device: &str) -> Option<Sight> {
        self.inner.seen.waiting.lock().get(&user)?.get(device).cloned()
    }

    /// All devices of a user, by id.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn devices(&self, user: UserNo) -> Result<Vec<DeviceInfo>> {
        let snapshot = self.store().snapshot().await?;
        let rows = snapshot.scan(&schema::DEVICES, &user, Direction::Forward, usize::MAX).await?;
        Ok(rows.into_iter().map(|((_, id), device)| self.info(user, id, device)).collect())
    }

    /// One device.
    ///
    /// # Errors
    /// [`Error::NotFound`]
    pub async fn device(&self, user: UserNo, id: &str) -> Result<DeviceInfo> {
        let snapshot = self.store().snapshot().await?;
        let device = snapshot.get(&schema::DEVICES, &(user, id.to_owned())).await?;
        let device = device.ok_or(Error::NotFound("there is no such device"))?;
        Ok(self.info(user, id.to_owned(), device))
    }

    fn info(&self, user: UserNo, id: String, device: Device) -> DeviceInfo {
        let sight = self.sight(user, &id);
        let Device { name, seen_ts, seen_ip, .. } = with_sight(device, sight.as_ref());
        DeviceInfo { id, name, last_seen_ts: seen_ts, last_seen_ip: seen_ip }
    }

    /// Gives a device another name; `None` changes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidParam`]
    pub async fn rename_device(&self, user: UserNo, id: &str, name: Option<&str>) -> Result<()> {
        let _guard = self.lock(user).await;
        let snapshot = self.store().snapshot().await?;
        let device = snapshot.get(&schema::DEVICES, &(user, id.to_owned())).await?;
        let device = device.ok_or(Error::NotFound("there is no such device"))?;
        let Some(name) = name else { return Ok(()) };
        check_name(name)?;
        if device.name.as_deref() == Some(name) {
            return Ok(());
        }
        let mut tx = Tx::new();
        devices::put(&mut tx, user, id, &Device { name: Some(name.to_owned()), ..device });
        self.note_devices_changed(&snapshot, &mut tx, user).await?;
        self.store().commit(tx).await?;
        Ok(())
    }

    /// Removes devices of the user who asks, after user-interactive authentication. Those that are not there count as
    /// removed.
    ///
    /// # Errors
    /// [`Error::Challenge`]
    pub async fn delete_devices(&self, who: &Who, ids: &[String], auth: Option<&AuthData>) -> Result<()> {
        let proof = self.confirm(who, Operation::delete_devices(ids), auth).await?;
        let removed = self.remove_devices(who.user_no, ids).await;
        self.settle(proof, removed)
    }

    async fn remove_devices(&self, user: UserNo, ids: &[String]) -> Result<()> {
        let _guard = self.lock(user).await;
        let snapshot = self.store().snapshot().await?;
        let mut tx = Tx::new();
        let mut gone = Vec::new();
        for id in ids {
            gone.extend(self.remove_device(&snapshot, &mut tx, user, id).await?);
        }
        if tx.is_empty() {
            return Ok(());
        }
        self.note_devices_changed(&snapshot, &mut tx, user).await?;
        self.store().commit(tx).await?;
        self.inner.sessions.forget(&gone);
        Ok(())
    }

    /// Ends the session that asks: its device goes with it.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn logout(&self, who: &Who) -> Result<()> {
        self.remove_devices(who.user_no, std::slice::from_ref(&who.device)).await
    }

    /// Ends all sessions of a user.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn logout_all(&self, user: UserNo) -> Result<()> {
        let _guard = self.lock(user).await;
        let snapshot = self.store().snapshot().await?;
        let mut tx = Tx::new();
        let gone = self.remove_all_devices(&snapshot, &mut tx, user, None).await?;
        self.store().commit(tx).await?;
        self.inner.sessions.forget(&gone);
        Ok(())
    }

    /// Removes all devices but `keep`. The answer is for [`crate::who::Sessions::forget`].
    pub(crate) async fn remove_all_devices(
        &self,
        snapshot: &Snapshot,
        tx: &mut Tx,
        user: UserNo,
        keep: Option<&str>,
    ) -> Result<Vec<TokenHash>> {
        let mut gone = Vec::new();
        for ((_, id), _) in snapshot.scan(&schema::DEVICES, &user, Direction::Forward, usize::MAX).await? {
            if keep != Some(&id) {
                gone.extend(self.remove_device(snapshot, tx, user, &id).await?);
            }
        }
        self.note_devices_changed(snapshot, tx, user).await?;
        Ok(gone)
    }

    /// Everything that goes with a device, in one place. The answer is for [`crate::who::Sessions::forget`], after the
    /// commit.
    async fn remove_device(&self, snapshot: &Snapshot, tx: &mut Tx, user: UserNo, id: &str) -> Result<Vec<TokenHash>> {
        if !snapshot.has(&schema::DEVICES, &(user, id.to_owned())).await? {
            return Ok(Vec::new());
        }
        devices::delete(tx, user, id);
        self.remove_pushers_of(snapshot, tx, user, id).await?;
        keys::delete_device(tx, user, id);
        to_device::delete_all(tx, user, id);
        if let Some(sights) = self.inner.seen.waiting.lock().get_mut(&user) {
            sights.remove(id);
        }
        self.remove_tokens(snapshot, tx, user, id, &[]).await
    }

    /// Removes the tokens of a device, but `keep`.
    pub(crate) async fn remove_tokens(
        &self,
        snapshot: &Snapshot,
        tx: &mut Tx,
        user: UserNo,
        device: &str,
        keep: &[TokenHash],
    ) -> Result<Vec<TokenHash>> {
        let prefix = (user, device.to_owned());
        let mut gone = Vec::new();
        for ((_, _, hash), kind) in
            snapshot.scan(&schema::DEVICE_TOKENS, &prefix, Direction::Forward, usize::MAX).await?
        {
            if !keep.contains(&hash) {
                tokens::delete(tx, user, device, &hash, kind);
                gone.push(hash);
            }
        }
        Ok(gone)
    }
}

fn with_sight(device: Device, sight: Option<&Sight>) -> Device {
    match sight {
        Some(Sight { ts, ip }) => {
            let seen_ip = ip.map(|ip| ip.to_string()).or(device.seen_ip);
            Device { seen_ts: Some(*ts), seen_ip, ..device }
        }
        None => device,
    }
}

/// Whether a client may choose that id for its device.
pub(crate) fn check_id(id: &str) -> Result<()> {
    if id.is_empty() || id.len() > MAX_BYTES || id.chars().any(char::is_control) {
        return Err(Error::InvalidParam("a device id has 1 to 255 bytes and no control characters".to_owned()));
    }
    Ok(())
}

/// Whether a device may be called that.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.len() > MAX_BYTES {
        return Err(Error::InvalidParam("the name of a device has at most 255 bytes".to_owned()));
    }
    Ok(())
}
