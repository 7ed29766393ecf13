//! Backups while work goes on. A folder of backups holds several; table files that they have in common are there once.

use std::path::Path;

use rocksdb::{
    Env, ReadOptions,
    backup::{BackupEngine, BackupEngineOptions, RestoreOptions},
};
use stoa_engine::{Error, Result, Space};

use crate::{Core, Options, RocksDb, error::failed};

/// One backup in a folder of backups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Its number; later ones are greater.
    pub id: u32,
    /// When it was made, in seconds since 1970.
    pub made: i64,
    /// How large it is when restored.
    pub bytes: u64,
}

impl Core {
    /// A new backup in the folder `to`. Old ones go, see [`Options::backups_kept`].
    pub(crate) fn backup(&self, to: &Path) -> Result<()> {
        // Two at once in the same folder would be in each other's way.
        let _alone = self.backups.lock();
        let mut engine = engine(to)?;
        // Flushed before, or the whole log would have to be copied each time.
        engine.create_new_backup_flush(&self.db, true).map_err(|error| failed(&error))?;
        engine.purge_old_backups(self.options.backups_kept.max(1)).map_err(|error| failed(&error))
    }

    /// Reads everything, comparing checksums: how many entries there are.
    pub(crate) fn count(&self) -> Result<u64> {
        let mut count = 0;
        for space in Space::ALL {
            let mut options = ReadOptions::default();
            options.fill_cache(false);
            options.set_verify_checksums(true);
            let mut rows = self.db.raw_iterator_cf_opt(self.family(space)?, options);
            rows.seek_to_first();
            while rows.valid() {
                count += 1;
                rows.next();
            }
            rows.status().map_err(|error| failed(&error))?;
        }
        Ok(count)
    }
}

fn engine(folder: &Path) -> Result<BackupEngine> {
    let mut options = BackupEngineOptions::new(folder).map_err(|error| failed(&error))?;
    options.set_max_background_operations(2);
    let env = Env::new().map_err(|error| failed(&error))?;
    BackupEngine::open(&options, &env).map_err(|error| failed(&error))
}

/// The backups in a folder, oldest first.
///
/// # Errors
/// [`Error::Failed`] where there is no such folder or it cannot be read.
pub fn backups(folder: &Path) -> Result<Vec<Backup>> {
    // Without this the engine would make the folder.
    if !folder.is_dir() {
        return Err(Error::Failed(format!("{} is not a folder of backups", folder.display())));
    }
    let found = engine(folder)?.get_backup_info();
    let mut backups: Vec<_> =
        found.into_iter().map(|info| Backup { id: info.backup_id, made: info.timestamp, bytes: info.size }).collect();
    backups.sort_by_key(|backup| backup.id);
    Ok(backups)
}

/// Tries the newest backup of a folder: restores it into the empty folder `scratch`, which compares checksums, opens
/// it, reads every entry, and removes it again. It answers which backup that was, and how many entries it has.
///
/// RocksDB's own check only compares the sizes of files with what they were a moment before, so it notices nothing.
///
/// # Errors
/// [`Error::Failed`] where something of it is damaged or missing, and where `scratch` is not empty.
pub fn verify(folder: &Path, scratch: &Path) -> Result<(Backup, u64)> {
    let newest = newest(folder)?;
    restore(folder, scratch, Some(newest.id))?;
    let entries = RocksDb::open(scratch, Options::default()).and_then(|copy| copy.core.count());
    let _ = std::fs::remove_dir_all(scratch);
    Ok((newest, entries?))
}

fn newest(folder: &Path) -> Result<Backup> {
    let newest = backups(folder)?.pop();
    newest.ok_or_else(|| Error::Failed(format!("there is no backup in {}", folder.display())))
}

/// Copies a backup (`None`: the latest) out of the folder `from` to a new database in `to`, comparing checksums, and
/// opens it once to see that it works. Where that fails, nothing is left in `to`.
///
/// # Errors
/// [`Error::Failed`]; also where `to` has something in it, because that would be lost.
pub fn restore(from: &Path, to: &Path, id: Option<u32>) -> Result<()> {
    let id = id.unwrap_or(newest(from)?.id);
    if std::fs::read_dir(to).is_ok_and(|mut files| files.next().is_some()) {
        return Err(Error::Failed(format!("{} is not empty; restoring would overwrite it", to.display())));
    }
    std::fs::create_dir_all(to).map_err(|error| Error::Failed(format!("{}: {error}", to.display())))?;
    let restored = engine(from)?.restore_from_backup(to, to, &RestoreOptions::default(), id);
    let opened =
        restored.map_err(|error| failed(&error)).and_then(|()| RocksDb::open(to, Options::default()).map(drop));
    if opened.is_err() {
        // Nothing was here before; what is here now is of no use, and would stand in the way of another attempt.
        let _ = std::fs::remove_dir_all(to);
    }
    opened
}
