//! Backups while work goes on. A folder of backups holds several; table files that they have in common are there once.

use std::path::Path;

use rocksdb::{
    Env,
    backup::{BackupEngine, BackupEngineOptions, RestoreOptions},
};
use stoa_engine::{Error, Result};

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
        let mut engine = engine(to)?;
        // Flushed before, or the whole log would have to be copied each time.
        engine.create_new_backup_flush(&self.db, true).map_err(|error| failed(&error))?;
        engine.purge_old_backups(self.options.backups_kept.max(1)).map_err(|error| failed(&error))
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

/// Whether the files of every backup in the folder are there and have the right size. Checksums are compared only by
/// [`restore`], so whoever wants to be sure restores to another place.
///
/// # Errors
/// [`Error::Failed`] naming the backup that is not whole.
pub fn verify(folder: &Path) -> Result<Vec<Backup>> {
    let backups = backups(folder)?;
    if backups.is_empty() {
        return Err(Error::Failed(format!("there is no backup in {}", folder.display())));
    }
    let engine = engine(folder)?;
    for Backup { id, .. } in &backups {
        engine.verify_backup(*id).map_err(|error| Error::Failed(format!("backup {id} is not whole: {error}")))?;
    }
    Ok(backups)
}

/// Copies a backup (`None`: the latest) out of the folder `from` to a new database in `to`, comparing checksums, and
/// opens it once to see that it works.
///
/// # Errors
/// [`Error::Failed`]; also where `to` has something in it, because that would be lost.
pub fn restore(from: &Path, to: &Path, id: Option<u32>) -> Result<()> {
    let backups = backups(from)?;
    let Some(latest) = backups.last() else {
        return Err(Error::Failed(format!("there is no backup in {}", from.display())));
    };
    let id = id.unwrap_or(latest.id);
    if std::fs::read_dir(to).is_ok_and(|mut files| files.next().is_some()) {
        return Err(Error::Failed(format!("{} is not empty; restoring would overwrite it", to.display())));
    }
    std::fs::create_dir_all(to).map_err(|error| Error::Failed(format!("{}: {error}", to.display())))?;
    let restoring = engine(from)?.restore_from_backup(to, to, &RestoreOptions::default(), id);
    restoring.map_err(|error| failed(&error))?;
    RocksDb::open(to, Options::default()).map(drop)
}
