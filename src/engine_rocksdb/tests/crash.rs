//! `kill -9` under load, at random moments: everything that was acknowledged is there, no batch is half there, and the
//! order has no holes. STOA_LONG=1 does it more often.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use stoa_engine::{Batch, Direction, Durability, Engine, Op, Scan, Space};
use stoa_engine_rocksdb::{Options, RocksDb};
use tempfile::TempDir;

const WRITERS: u8 = 6;
const FOLDER: &str = "STOA_CRASH_FOLDER";

fn open(path: &Path) -> Arc<RocksDb> {
    // Little memory, so that flushes and compactions are under way when it is killed.
    RocksDb::open(path, Options { memory_bytes: 16 << 20, ..Options::default() }).expect("open")
}

fn key(writer: u8, number: u32) -> Bytes {
    [&[writer][..], &number.to_be_bytes()].concat().into()
}

/// The numbers that a writer's commits have in a space.
async fn numbers(engine: &RocksDb, space: Space, writer: u8) -> Vec<u32> {
    let mut numbers = Vec::new();
    let reader = engine.snapshot();
    let mut from = key(writer, 0);
    loop {
        let scan =
            Scan { space, from: from.clone(), to: vec![writer + 1].into(), direction: Direction::Forward, limit: 5000 };
        let page = reader.scan(scan).await.expect("the scan");
        numbers.extend(page.entries.iter().map(|(key, _)| u32::from_be_bytes(key[1..].try_into().expect("a number"))));
        match numbers.last() {
            Some(last) if page.more => from = key(writer, last + 1),
            _ => return numbers,
        }
    }
}

/// Not a test: the process that is killed. It goes on where the one before it was killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is started, and killed, by the test below"]
async fn victim() {
    let folder = std::env::var_os(FOLDER).expect("the folder");
    let engine = open(Path::new(&folder));
    let writers = (0..WRITERS).map(|writer| tokio::spawn(write(Arc::clone(&engine), writer)));
    futures_util::future::join_all(writers.collect::<Vec<_>>()).await;
}

async fn write(engine: Arc<RocksDb>, writer: u8) {
    // One writer's commits are relaxed: they survive a kill too.
    let durability = if writer == 0 { Durability::Relaxed } else { Durability::Synced };
    let first = numbers(&engine, Space::Rows, writer).await.last().map_or(0, |last| last + 1);
    for number in first.. {
        let value = Bytes::from(vec![writer; 200 + (number as usize * 37) % 6000]);
        let spaces = [Space::Rows, Space::Events, Space::Queues];
        let ops = spaces.map(|space| Op::Put { space, key: key(writer, number), value: value.clone() }).to_vec();
        engine.commit(Batch { asserts: Vec::new(), ops }, durability).await.expect("the commit");
        let line = format!("done {writer} {number}\n");
        std::io::stdout().write_all(line.as_bytes()).expect("someone listens");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let long = std::env::var_os("STOA_LONG").is_some_and(|value| value != "0");
    let folder = TempDir::new().expect("a folder");
    let acknowledged: Vec<AtomicU32> = (0..WRITERS).map(|_| AtomicU32::new(0)).collect();
    let mut commits = 0;
    for round in 0..if long { 60 } else { 5 } {
        run_and_kill(folder.path(), &acknowledged, Duration::from_millis(150 + round * 7919 % 400));
        let engine = open(folder.path());
        for (writer, acknowledged) in (0..WRITERS).zip(&acknowledged) {
            let there = numbers(&engine, Space::Rows, writer).await;
            for space in [Space::Events, Space::Queues] {
                assert_eq!(numbers(&engine, space, writer).await, there, "half a batch");
            }
            assert!((0..).zip(&there).all(|(expected, number)| expected == *number), "a hole in writer {writer}");
            let known = acknowledged.load(Ordering::Relaxed);
            let count = u32::try_from(there.len()).expect("not so many");
            // At most one more than it could say before it was killed.
            assert!((known..=known + 1).contains(&count), "writer {writer}: {known} acknowledged, {count} there");
            acknowledged.store(count, Ordering::Relaxed);
            commits = commits.max(count);
        }
    }
    assert!(commits > 20, "the victim did next to nothing: {commits}");
}

/// How many commits of each writer were acknowledged goes into `acknowledged`.
fn run_and_kill(folder: &Path, acknowledged: &[AtomicU32], after: Duration) {
    let mut victim = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "victim", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the victim");
    let lines = BufReader::new(victim.stdout.take().expect("its output")).lines();
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut count = 0;
            // A line may be torn by the kill; then it was not acknowledged.
            for line in lines.map_while(Result::ok) {
                let mut words = line.split(' ');
                let (Some("done"), Some(writer), Some(number)) = (words.next(), words.next(), words.next()) else {
                    continue;
                };
                let (Ok(writer), Ok(number)) = (writer.parse::<usize>(), number.parse::<u32>()) else { continue };
                acknowledged[writer].fetch_max(number + 1, Ordering::Relaxed);
                count += 1;
            }
            count
        });
        std::thread::sleep(after);
        victim.kill().expect("killed");
        victim.wait().expect("gone");
        let _: u32 = reader.join().expect("read");
    });
}
