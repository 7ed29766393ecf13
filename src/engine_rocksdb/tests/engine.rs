//! What RocksDB promises beyond the contract: where reads happen, the lock, the budget of memory, backups, torn logs.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use stoa_engine::{Answer, Batch, Direction, Durability, Engine, Error, Op, Scan, Space};
use stoa_engine_rocksdb::{Options, RocksDb, backups, restore, verify};
use tempfile::TempDir;

const ROWS: Space = Space::Rows;
const MIB: usize = 1 << 20;

fn options() -> Options {
    Options { memory_bytes: 16 * MIB, ..Options::default() }
}

fn open(path: &Path) -> Arc<RocksDb> {
    RocksDb::open(path, options()).expect("open")
}

fn folder() -> TempDir {
    TempDir::new().expect("a folder")
}

fn put(space: Space, number: u32, value: impl Into<Bytes>) -> Op {
    Op::Put { space, key: Bytes::copy_from_slice(&number.to_be_bytes()), value: value.into() }
}

async fn commit(engine: &RocksDb, ops: Vec<Op>, durability: Durability) {
    engine.commit(Batch { asserts: Vec::new(), ops }, durability).await.expect("the commit");
}

fn everything(space: Space, limit: usize) -> Scan {
    Scan { space, from: Bytes::new(), to: vec![0xFF; 5].into(), direction: Direction::Forward, limit }
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn size(folder: &Path) -> u64 {
    let sizes = fs::read_dir(folder).expect("the folder").flatten().map(|entry| {
        let about = entry.metadata().expect("its size");
        if about.is_dir() { size(&entry.path()) } else { about.len() }
    });
    sizes.sum()
}

#[tokio::test]
async fn reads_wait_for_the_disk_only_where_they_must() {
    let folder = folder();
    let engine = open(folder.path());
    commit(&engine, (0..100).map(|key| put(ROWS, key, "value")).collect(), Durability::Synced).await;
    let keys =
        |count: u32| (0..count).map(|key| (ROWS, Bytes::copy_from_slice(&key.to_be_bytes()))).collect::<Vec<_>>();
    // Just written: in memory.
    let reader = engine.snapshot();
    assert!(matches!(reader.get_many(keys(1)), Answer::Now(_)));
    assert!(matches!(reader.get_many(keys(101)), Answer::Now(_)));
    assert!(matches!(reader.scan(everything(ROWS, 1000)), Answer::Now(_)));
    drop(reader);
    engine.flush().await.expect("flush");
    drop(engine);
    // After a restart: on the disk, until it was read once.
    for count in [1, 100] {
        let engine = open(folder.path());
        let reader = engine.snapshot();
        let cold = reader.get_many(keys(count));
        assert!(matches!(cold, Answer::Later(_)), "{count} keys were read on the spot");
        assert_eq!(cold.await.expect("the read").iter().flatten().count(), count as usize);
        assert!(matches!(reader.get_many(keys(count)), Answer::Now(_)));
        // What is known not to be there needs no disk either.
        assert!(matches!(reader.get_many(vec![(Space::Queues, Bytes::new())]), Answer::Now(_)));
        // Too much for the spot, although it is in memory.
        let large = reader.get_many(keys(5000));
        assert!(matches!(large, Answer::Later(_)));
        assert_eq!(large.await.expect("the read").iter().flatten().count(), 100);
    }
    let engine = open(folder.path());
    let reader = engine.snapshot();
    let cold = reader.scan(everything(ROWS, 1000));
    assert!(matches!(cold, Answer::Later(_)));
    assert_eq!(cold.await.expect("the scan").entries.len(), 100);
    assert!(matches!(reader.scan(everything(ROWS, 1000)), Answer::Now(_)));
}

#[tokio::test]
async fn commits_wait_for_the_disk_where_they_say_so() {
    let folder = folder();
    let engine = open(folder.path());
    let batch = || Batch { asserts: Vec::new(), ops: vec![put(ROWS, 1, "x")] };
    assert!(matches!(engine.commit(batch(), Durability::Relaxed), Answer::Now(Some(Ok(())))));
    assert!(matches!(engine.commit(batch(), Durability::Synced), Answer::Later(_)));
    let large = Batch { asserts: Vec::new(), ops: vec![put(ROWS, 1, vec![0; MIB])] };
    assert!(matches!(engine.commit(large, Durability::Relaxed), Answer::Later(_)));
}

#[tokio::test]
async fn a_commit_that_was_begun_is_done() {
    let folder = folder();
    let engine = open(folder.path());
    for number in 0..50 {
        let mut answer =
            engine.commit(Batch { asserts: Vec::new(), ops: vec![put(ROWS, number, "x")] }, Durability::Synced);
        let begun = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(
                Future::poll(std::pin::Pin::new(&mut answer), cx).map(|result| result.expect("commit")),
            )
        });
        let _ = begun.await;
    }
    while engine.snapshot().scan(everything(ROWS, 100)).await.expect("the scan").entries.len() < 50 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn one_process_at_a_time() {
    let folder = folder();
    let engine = open(folder.path());
    let Err(Error::Failed(text)) = RocksDb::open(folder.path(), options()).map(drop) else { panic!("opened twice") };
    assert!(text.starts_with("another process uses the data folder"), "{text}");
    // A reader keeps it open, its last owner closes it.
    let reader = engine.snapshot();
    drop(engine);
    assert!(RocksDb::open(folder.path(), options()).is_err());
    drop(reader);
    open(folder.path());
}

#[tokio::test]
async fn a_folder_that_cannot_be_one_is_refused() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").expect("a file");
    let Err(Error::Failed(text)) = RocksDb::open(&file, options()).map(drop) else { panic!("opened a file") };
    assert!(text.contains("cannot open the data folder"), "{text}");
}

#[tokio::test]
async fn memory_stays_within_its_budget() {
    let folder = folder();
    let engine = open(folder.path());
    let budget = options().memory_bytes as u64;
    let mut most = 0;
    // Six times the budget, in all spaces, and read back.
    for round in 0..24u32 {
        for space in Space::ALL {
            let ops = (0..256).map(|key| put(space, round * 256 + key, noise(u64::from(round * 256 + key), 4096)));
            commit(&engine, ops.collect(), Durability::Relaxed).await;
            most = most.max(engine.stats().memory_bytes);
        }
    }
    for space in Space::ALL {
        let reader = engine.snapshot();
        for key in 0..24 * 256u32 {
            let found =
                reader.get_many(vec![(space, Bytes::copy_from_slice(&key.to_be_bytes()))]).await.expect("the read");
            assert_eq!(found[0].as_deref(), Some(&noise(u64::from(key), 4096)[..]));
            if key % 64 == 0 {
                most = most.max(engine.stats().memory_bytes);
            }
        }
    }
    assert!(most <= budget, "{most} bytes of {budget}");
    assert!(most >= budget / 2, "the budget is not used: {most} bytes of {budget}");
    let stats = engine.stats();
    assert!(stats.disk_bytes > 90 * MIB as u64, "{stats:?}");
    assert!(stats.more.iter().any(|(name, value)| *name == "keys_estimated" && *value > 20_000), "{stats:?}");
}

#[tokio::test]
async fn backups_share_what_did_not_change() {
    let folder = folder();
    let engine = open(&folder.path().join("db"));
    let to = folder.path().join("backups");
    let ops = (0..1000).map(|key| put(Space::Events, key, noise(u64::from(key), 4000))).collect();
    commit(&engine, ops, Durability::Synced).await;
    engine.backup(&to).await.expect("the backup");
    let first = size(&to);
    commit(&engine, vec![put(ROWS, 1, "a little")], Durability::Synced).await;
    engine.backup(&to).await.expect("the backup");
    assert!(first > 4_000_000, "{first} bytes");
    assert!(size(&to) < first + 200_000, "the second backup took {} bytes", size(&to) - first);

    // Any of them can be restored; the older has not what came later.
    let all = backups(&to).expect("the backups");
    assert_eq!(all.len(), 2);
    let scratch = folder.path().join("scratch");
    assert_eq!(verify(&to, &scratch).expect("it is whole"), (all[1].clone(), 1001));
    assert!(!scratch.exists());
    restore(&to, &folder.path().join("old"), Some(all[0].id)).expect("restore");
    let old = open(&folder.path().join("old"));
    assert_eq!(old.snapshot().scan(everything(ROWS, 10)).await.expect("the scan").entries.len(), 0);
    assert_eq!(old.snapshot().scan(everything(Space::Events, 5000)).await.expect("the scan").entries.len(), 1000);

    // Not into a place where something is.
    let Err(Error::Failed(text)) = restore(&to, &folder.path().join("old"), None) else { panic!("overwritten") };
    assert!(text.contains("is not empty"), "{text}");
    assert!(restore(&to, &folder.path().join("other"), Some(77)).is_err());
}

#[tokio::test]
async fn a_damaged_table_is_noticed() {
    let folder = folder();
    let engine = open(folder.path());
    commit(&engine, (0..1000).map(|key| put(ROWS, key, noise(u64::from(key), 500))).collect(), Durability::Synced)
        .await;
    engine.flush().await.expect("flush");
    assert_eq!(engine.check().await.expect("it is whole"), 1000);
    drop(engine);

    let table = tables(folder.path()).pop().expect("a table");
    let mut bytes = fs::read(&table).expect("the table");
    bytes[100_000] ^= 1;
    fs::write(&table, bytes).expect("the table");
    let engine = open(folder.path());
    let Err(Error::Failed(text)) = engine.check().await else { panic!("a wrong bit was not noticed") };
    assert!(text.contains("Corruption"), "{text}");
    // Reads of it fail; they do not answer wrongly, nor that nothing is there.
    let asked = (0..1000u32).map(|key| (ROWS, Bytes::copy_from_slice(&key.to_be_bytes()))).collect();
    assert!(engine.snapshot().get_many(asked).await.is_err());
    assert!(engine.snapshot().scan(everything(ROWS, 10_000)).await.is_err());
}

#[tokio::test]
async fn old_backups_go() {
    let folder = folder();
    let to = folder.path().join("backups");
    let options = Options { backups_kept: 3, ..options() };
    let engine = RocksDb::open(&folder.path().join("db"), options).expect("open");
    for round in 0..5 {
        commit(&engine, vec![put(ROWS, round, "x")], Durability::Synced).await;
        engine.backup(&to).await.expect("the backup");
    }
    let ids: Vec<_> = backups(&to).expect("the backups").iter().map(|backup| backup.id).collect();
    assert_eq!(ids, [3, 4, 5]);
}

fn tables(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(tables(&path));
        } else if path.extension().is_some_and(|extension| extension == "sst") {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn damaged_backups_are_noticed() {
    let folder = folder();
    let to = folder.path().join("backups");
    let engine = open(&folder.path().join("db"));
    commit(&engine, (0..1000).map(|key| put(ROWS, key, noise(u64::from(key), 100))).collect(), Durability::Synced)
        .await;
    engine.backup(&to).await.expect("the backup");
    let check = |name: &str| verify(&to, &folder.path().join(name));
    assert_eq!(check("whole").expect("it is whole").1, 1000);

    let table = tables(&to).pop().expect("a table");
    let whole = fs::read(&table).expect("the table");
    for position in [0, whole.len() / 2, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[position] ^= 1;
        fs::write(&table, flipped).expect("the table");
        assert!(check(&format!("flipped {position}")).is_err(), "a wrong bit was not noticed");
    }
    fs::write(&table, &whole[..whole.len() - 1]).expect("the table");
    assert!(check("short").is_err(), "a short table was not noticed");
    fs::remove_file(&table).expect("the table");
    assert!(check("missing").is_err(), "a missing table was not noticed");
    let left: Vec<_> =
        fs::read_dir(folder.path()).expect("the folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 2, "something is left of what failed: {left:?}");
    fs::write(&table, whole).expect("the table");
    check("whole again").expect("it is whole");
    assert!(verify(&folder.path().join("nothing"), &folder.path().join("x")).is_err());
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the folder").flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

fn newest_log(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).expect("the folder").flatten().map(|entry| entry.path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max().expect("a log")
}

/// What a power cut leaves: a log that ends anywhere, or with pages that never arrived. What comes before is there, in
/// order and without holes, and the database opens.
#[tokio::test]
async fn a_torn_log_loses_only_its_end() {
    let folder = folder();
    let (live, torn) = (folder.path().join("live"), folder.path().join("torn"));
    let engine = open(&live);
    for number in 0..40 {
        commit(&engine, vec![put(ROWS, number, noise(1, 300)), put(Space::Queues, number, "x")], Durability::Relaxed)
            .await;
    }
    let whole = fs::read(newest_log(&live)).expect("the log");
    let mut seen = Vec::new();
    for part in 0..30 {
        copy(&live, &torn);
        let mut bytes = whole.clone();
        let cut = whole.len() * part / 30 + part % 7;
        if part % 2 == 0 {
            bytes.truncate(cut);
        } else {
            let end = bytes.len().min(cut + 600);
            bytes[cut..end].fill(0);
        }
        fs::write(newest_log(&torn), bytes).expect("the log");
        let engine = open(&torn);
        let rows = engine.snapshot().scan(everything(ROWS, 100)).await.expect("the scan").entries;
        let queue = engine.snapshot().scan(everything(Space::Queues, 100)).await.expect("the scan").entries;
        assert!((0u32..).zip(&rows).all(|(number, (key, _))| key[..] == number.to_be_bytes()), "a hole at cut {cut}");
        assert_eq!(rows.len(), queue.len(), "half a batch at cut {cut}");
        let expected = whole.len().min(cut) / (whole.len() / 40 + 1);
        assert!(rows.len() >= expected.saturating_sub(1), "{} of {expected} rows before cut {cut}", rows.len());
        seen.push(rows.len());
        // And it goes on from there.
        commit(&engine, vec![put(ROWS, 1000, "after")], Durability::Synced).await;
    }
    assert!(seen.contains(&0) && seen.iter().any(|count| *count > 30), "{seen:?}");
}

/// On a disk of about 64 MB: it says that it is full, loses nothing, reads on, and works again when there is room.
#[tokio::test]
#[ignore = "needs a small file system of its own: STOA_SMALL_DISK is its path"]
async fn a_full_disk_is_said_and_survived() {
    let disk = PathBuf::from(std::env::var_os("STOA_SMALL_DISK").expect("a path"));
    // Other sizes, so that sometimes a table and sometimes the log finds no room.
    for ballast in [16_000_000, 16_555_555, 17_000_000] {
        fill_and_make_room(&disk, ballast).await;
    }
}

async fn fill_and_make_room(disk: &Path, ballast: usize) {
    let path = disk.join("db");
    let _ = fs::remove_dir_all(&path);
    fs::write(disk.join("ballast"), noise(1, ballast)).expect("room");
    let engine = open(&path);
    let mut written = 0;
    let text = loop {
        let ops = vec![put(ROWS, written, noise(u64::from(written), 50_000)), put(Space::Queues, written, "x")];
        match engine.commit(Batch { asserts: Vec::new(), ops }, Durability::Synced).await {
            Ok(()) => written += 1,
            Err(Error::Failed(text)) => break text,
            Err(Error::Conflict) => panic!("nothing was asserted"),
        }
        assert!(written < 5000, "the disk is too large for this test");
    };
    assert!(text.starts_with("the disk is full"), "{text}");
    let count = async |engine: &RocksDb| {
        let queue = engine.snapshot().scan(everything(Space::Queues, 10_000)).await.expect("the scan").entries.len();
        u32::try_from(queue).expect("not so many")
    };
    assert!((written..=written + 1).contains(&count(&engine).await));

    fs::remove_file(disk.join("ballast")).expect("room");
    let mut tries = 0;
    let again = || Batch { asserts: Vec::new(), ops: vec![put(ROWS, 9999, "x")] };
    while let Err(error) = engine.commit(again(), Durability::Synced).await {
        tries += 1;
        assert!(tries < 20, "it does not go on by itself: {error}");
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    drop(engine);
    let engine = open(&path);
    assert!((written..=written + 1).contains(&count(&engine).await), "{written}");
}
