//! What RocksDB says, in words that tell an operator what to do.

use std::path::Path;

use rocksdb::ErrorKind;
use stoa_engine::Error;

/// An error of an open database.
pub(crate) fn failed(error: &rocksdb::Error) -> Error {
    let said: &str = error.as_ref();
    Error::Failed(match advice(said) {
        Some(advice) => format!("{advice} ({said})"),
        None => said.to_owned(),
    })
}

/// An error while opening the database in `path`.
pub(crate) fn opening(path: &Path, error: &rocksdb::Error) -> Error {
    let said: &str = error.as_ref();
    let path = path.display();
    let text = if said.contains("LOCK") && (said.contains("lock hold by") || said.contains("While lock file")) {
        format!("another process uses the data folder {path}; only one can ({said})")
    } else if let Some(advice) = advice(said) {
        format!("cannot open the data folder {path}: {advice} ({said})")
    } else if error.kind() == ErrorKind::Corruption {
        format!("the database in {path} is damaged: restore a backup ({said})")
    } else {
        format!("cannot open the data folder {path}: {said}")
    };
    Error::Failed(text)
}

fn advice(said: &str) -> Option<&'static str> {
    const KNOWN: [(&str, &str); 6] = [
        ("No space left on device", "the disk is full: make room, and it goes on by itself"),
        ("Disk quota exceeded", "the disk quota is used up: make room, then restart"),
        (
            "Read-only file system",
            "the file system became read-only, often after a disk error: look at the kernel's log",
        ),
        ("Too many open files", "too many open files: raise the limit of open files of the process"),
        ("Permission denied", "no permission: the folder and its files must belong to the user of the process"),
        ("Input/output error", "the disk fails: look at the kernel's log"),
    ];
    KNOWN.iter().find(|(sign, _)| said.contains(sign)).map(|(_, advice)| *advice)
}

/// Whether RocksDB stopped because it may not touch the disk here, or would have to wait.
pub(crate) fn incomplete(error: &rocksdb::Error) -> bool {
    error.kind() == ErrorKind::Incomplete
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_can_mend_is_said() {
        assert!(advice("IO error: No space left on device: While appending to file: x.log").is_some());
        assert_eq!(advice("Corruption: block checksum mismatch"), None);
    }
}
