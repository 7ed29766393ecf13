//! Where the bytes are: `ab/cd/<id>` below the folder, with thumbnails beside in `thumbnails/`, unfinished uploads in
//! `unfinished/`, and the same for other servers' files in `remote/`.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::fs;

use crate::Error;

/// The folder.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
}

impl Files {
    pub(crate) fn new(folder: PathBuf) -> Files {
        Files { folder }
    }

    pub(crate) async fn prepare(&self) -> Result<(), Error> {
        let unfinished = self.folder.join("unfinished");
        match fs::remove_dir_all(&unfinished).await {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why.into()),
            _ => {}
        }
        fs::create_dir_all(&unfinished).await?;
        Ok(())
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where an upload grows.
    pub(crate) fn unfinished(&self, name: &str) -> PathBuf {
        self.folder.join("unfinished").join(name)
    }

    /// Where a file is. The id must have been checked.
    pub(crate) fn of(&self, id: &str) -> PathBuf {
        self.folder.join(shard(id)).join(id)
    }

    /// Where all thumbnails of a file are.
    pub(crate) fn thumbnails(&self, id: &str) -> PathBuf {
        self.folder.join("thumbnails").join(shard(id)).join(id)
    }
}

/// Two levels of folders by the first letters of the id, which are random; ids of one or two letters share one.
pub(crate) fn shard(id: &str) -> PathBuf {
    let part = |from: usize| id.get(from..from + 2).unwrap_or("_").to_owned();
    PathBuf::from(part(0)).join(part(2))
}

/// Puts a file in its place, in a folder that may be new.
pub(crate) async fn move_to(from: &Path, to: &Path) -> Result<(), Error> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).await?;
    }
    Ok(fs::rename(from, to).await?)
}

/// Puts a file that is complete and synced in its place, so that after a crash it is there whole or not at all.
pub(crate) async fn settle(from: &Path, to: &Path) -> Result<(), Error> {
    move_to(from, to).await?;
    // The name is on disk when its folder is; a new folder when the one above it is.
    for folder in to.ancestors().skip(1).take(3) {
        fs::File::open(folder).await?.sync_all().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_spread() {
        let files = Files::new("m".into());
        assert_eq!(files.of("AbCdEf"), PathBuf::from("m/Ab/Cd/AbCdEf"));
        assert_eq!(files.of("x"), PathBuf::from("m/_/_/x"));
        assert_eq!(files.thumbnails("AbCdEf"), PathBuf::from("m/thumbnails/Ab/Cd/AbCdEf"));
    }
}
