//! Server-side key backup (Client-Server API, "Server-side key backups").

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use stoa_store::{
    Direction, Snapshot, Tx, UserNo,
    rows::key_backup::{self, BackupVersion},
    schema,
};

use crate::{Accounts, Error, Result, Who};

/// Keys by room and session.
pub type BackupKeys = BTreeMap<String, BTreeMap<String, Value>>;

/// Which keys of a backup: all, those of a room, or that of a session.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// The room.
    pub room: Option<String>,
    /// The session.
    pub session: Option<String>,
}

/// A version of a backup, with its number.
pub type NumberedVersion = (u64, BackupVersion);

const MISSING: Error = Error::NotFound("there is no such key backup");

impl Accounts {
    /// Begins a new version, which is the current one from now on.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn create_backup(&self, who: &Who, algorithm: String, auth_data: &Map<String, Value>) -> Result<u64> {
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        let last = snapshot.scan(&schema::BACKUP_VERSIONS, &who.user_no, Direction::Backward, 1).await?;
        let version = last.first().map_or(1, |((_, version), _)| version + 1);
        let auth_data = Value::Object(auth_data.clone()).to_string().into_bytes();
        let mut tx = Tx::new();
        let row = BackupVersion { algorithm, auth_data, etag: 0, count: 0, deleted: false };
        key_backup::put_version(&mut tx, who.user_no, version, &row);
        self.store().commit(tx).await?;
        Ok(version)
    }

    /// A version; the current one if none is named.
    ///
    /// # Errors
    /// [`Error::NotFound`]
    pub async fn backup(&self, who: &Who, version: Option<&str>) -> Result<NumberedVersion> {
        let snapshot = self.store().snapshot().await?;
        match version {
            Some(version) => self.backup_version(&snapshot, who.user_no, version).await,
            None => self.current_backup(&snapshot, who.user_no).await?.ok_or(MISSING),
        }
    }

    async fn backup_version(&self, snapshot: &Snapshot, user: UserNo, version: &str) -> Result<NumberedVersion> {
        let version: u64 = version.parse().map_err(|_| MISSING)?;
        let row = snapshot.get(&schema::BACKUP_VERSIONS, &(user, version)).await?;
        row.filter(|row| !row.deleted).map(|row| (version, row)).ok_or(MISSING)
    }

    async fn current_backup(&self, snapshot: &Snapshot, user: UserNo) -> Result<Option<NumberedVersion>> {
        let rows = snapshot.scan(&schema::BACKUP_VERSIONS, &user, Direction::Backward, usize::MAX).await?;
        Ok(rows.into_iter().find(|(_, row)| !row.deleted).map(|((_, version), row)| (version, row)))
    }

    /// Sets the `auth_data` of a version; its algorithm cannot change.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidParam`]
    pub async fn update_backup(
        &self,
        who: &Who,
        version: &str,
        algorithm: &str,
        auth_data: &Map<String, Value>,
    ) -> Result<()> {
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        let (number, mut row) = self.backup_version(&snapshot, who.user_no, version).await?;
        if row.algorithm != algorithm {
            return Err(Error::InvalidParam("the algorithm of a key backup cannot be changed".into()));
        }
        row.auth_data = Value::Object(auth_data.clone()).to_string().into_bytes();
        let mut tx = Tx::new();
        key_backup::put_version(&mut tx, who.user_no, number, &row);
        self.store().commit(tx).await?;
        Ok(())
    }

    /// Deletes a version with all its keys.
    ///
    /// # Errors
    /// [`Error::NotFound`]
    pub async fn delete_backup(&self, who: &Who, version: &str) -> Result<()> {
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        let number: u64 = version.parse().map_err(|_| MISSING)?;
        let mut row = snapshot.get(&schema::BACKUP_VERSIONS, &(who.user_no, number)).await?.ok_or(MISSING)?;
        if row.deleted {
            return Ok(());
        }
        row.deleted = true;
        row.count = 0;
        let mut tx = Tx::new();
        key_backup::put_version(&mut tx, who.user_no, number, &row);
        key_backup::delete_keys(&mut tx, who.user_no, number);
        self.store().commit(tx).await?;
        Ok(())
    }

    /// Adds keys to the current version. A key replaces another of its session only if it is better.
    ///
    /// # Errors
    /// [`Error::WrongBackupVersion`] where the version named is not the current one, [`Error::NotFound`]
    pub async fn put_backup_keys(&self, who: &Who, version: &str, keys: &BackupKeys) -> Result<BackupVersion> {
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        let (number, mut row) = self.current_backup(&snapshot, who.user_no).await?.ok_or(MISSING)?;
        if version != number.to_string() {
            // A version that never was is not found; one that was is the wrong one.
            return Err(Error::WrongBackupVersion { current: number.to_string() });
        }
        let mut tx = Tx::new();
        let mut changed = false;
        for (room, sessions) in keys {
            for (session, key) in sessions {
                check(key)?;
                let id = (who.user_no, number, room.clone(), session.clone());
                let old = snapshot.get(&schema::BACKUP_KEYS, &id).await?;
                let old = old.and_then(|old| serde_json::from_slice::<Value>(&old).ok());
                if old.as_ref().is_some_and(|old| !is_better(key, old)) {
                    continue;
                }
                row.count += u64::from(old.is_none());
                changed = true;
                key_backup::put_key(&mut tx, who.user_no, number, room, session, &key.to_string().into());
            }
        }
        if changed {
            row.etag += 1;
            key_backup::put_version(&mut tx, who.user_no, number, &row);
            self.store().commit(tx).await?;
        }
        Ok(row)
    }

    /// Keys of a version.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such version, or not the one key that is asked for
    pub async fn backup_keys(&self, who: &Who, version: &str, which: &Which) -> Result<BackupKeys> {
        let snapshot = self.store().snapshot().await?;
        let (number, _) = self.backup_version(&snapshot, who.user_no, version).await?;
        let mut keys = BackupKeys::new();
        for ((_, _, room, session), json) in self.rows_of(&snapshot, who.user_no, number, which).await? {
            if let Ok(key) = serde_json::from_slice(&json) {
                keys.entry(room).or_default().insert(session, key);
            }
        }
        if which.session.is_some() && keys.is_empty() {
            return Err(Error::NotFound("there is no such key in the backup"));
        }
        Ok(keys)
    }

    /// Deletes keys of a version.
    ///
    /// # Errors
    /// [`Error::NotFound`]
    pub async fn delete_backup_keys(&self, who: &Who, version: &str, which: &Which) -> Result<BackupVersion> {
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        let (number, mut row) = self.backup_version(&snapshot, who.user_no, version).await?;
        let mut tx = Tx::new();
        for ((_, _, room, session), _) in self.rows_of(&snapshot, who.user_no, number, which).await? {
            key_backup::delete_key(&mut tx, who.user_no, number, &room, &session);
            row.count = row.count.saturating_sub(1);
        }
        if !tx.is_empty() {
            row.etag += 1;
            key_backup::put_version(&mut tx, who.user_no, number, &row);
            self.store().commit(tx).await?;
        }
        Ok(row)
    }

    async fn rows_of(
        &self,
        snapshot: &Snapshot,
        user: UserNo,
        version: u64,
        which: &Which,
    ) -> Result<Vec<((UserNo, u64, String, String), bytes::Bytes)>> {
        let table = &schema::BACKUP_KEYS;
        let all = usize::MAX;
        let forward = Direction::Forward;
        Ok(match (&which.room, &which.session) {
            (Some(room), Some(session)) => {
                let key = (user, version, room.clone(), session.clone());
                snapshot.get(table, &key).await?.map(|json| (key, json)).into_iter().collect()
            }
            (Some(room), None) => snapshot.scan(table, &(user, version, room.clone()), forward, all).await?,
            _ => snapshot.scan(table, &(user, version), forward, all).await?,
        })
    }
}

fn check(key: &Value) -> Result<()> {
    let number = |field: &str| key.get(field).is_some_and(Value::is_u64);
    let good = number("first_message_index")
        && number("forwarded_count")
        && key.get("is_verified").is_some_and(Value::is_boolean)
        && key.get("session_data").is_some_and(Value::is_object);
    if good { Ok(()) } else { Err(Error::BadJson("a key of a backup lacks a field or has a wrong one".into())) }
}

/// Verified before unverified, then the one that reaches further back, then the one that was forwarded less often.
fn is_better(new: &Value, old: &Value) -> bool {
    let rank = |key: &Value| {
        let number = |field: &str| std::cmp::Reverse(key[field].as_u64().unwrap_or(u64::MAX));
        (key["is_verified"].as_bool().unwrap_or(false), number("first_message_index"), number("forwarded_count"))
    };
    rank(new) > rank(old)
}
