//! What the engine costs on this machine's disk: `cargo run --release -p stoa-engine-rocksdb --example commit [folder]`.
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use stoa_engine::{Answer, Batch, Direction, Durability, Engine, Op, Reader, Scan, Space};
use stoa_engine_rocksdb::{Options, RocksDb};
use tokio::time::Instant;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// What a message costs in rows, about: an event, its id, two places in lists, the feed.
fn message(number: u64) -> Vec<Op> {
    let key = Bytes::copy_from_slice(&number.to_be_bytes());
    let id = Bytes::from(format!("${:0>43}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let put = |space, key: &Bytes, bytes| Op::Put { space, key: key.clone(), value: event(number, bytes) };
    vec![
        put(Space::Events, &key, 900),
        put(Space::Rows, &id, 16),
        put(Space::Indexes, &key, 8),
        put(Space::Indexes, &[b"h", &key[..]].concat().into(), 8),
        put(Space::Queues, &key, 60),
    ]
}

fn event(number: u64, bytes: usize) -> Bytes {
    let text =
        format!(r#"{{"type":"m.room.message","n":{number},"content":{{"body":"{}"}}}}"#, "word ".repeat(bytes / 5));
    Bytes::copy_from_slice(&text.as_bytes()[..bytes.min(text.len())])
}

async fn commits(engine: &RocksDb, group: u64, durability: Durability, for_: Duration, next: &mut u64) -> Outcome {
    let begun = Instant::now();
    let mut count = 0u64;
    while begun.elapsed() < for_ {
        let ops = (*next..*next + group).flat_map(message).collect();
        *next += group;
        engine.commit(Batch { asserts: Vec::new(), ops }, durability).await?;
        count += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{durability:?}, {group:>3} messages a commit: {:>8.0} commits/s {:>8.0} messages/s {:>8.1} us a commit",
        count as f64 / seconds,
        (count * group) as f64 / seconds,
        seconds * 1e6 / count as f64
    );
    Ok(())
}

async fn together(engine: &Arc<RocksDb>, writers: u64, for_: Duration, next: &mut u64) -> Outcome {
    let begun = Instant::now();
    let tasks = (0..writers).map(|writer| {
        let (engine, first) = (Arc::clone(engine), *next + writer * 10_000_000);
        tokio::spawn(async move {
            let mut count = 0;
            while begun.elapsed() < for_ {
                let batch = Batch { asserts: Vec::new(), ops: message(first + count) };
                engine.commit(batch, Durability::Synced).await.map_err(|error| error.to_string())?;
                count += 1;
            }
            Ok::<_, String>(count)
        })
    });
    let mut count = 0;
    for task in tasks.collect::<Vec<_>>() {
        count += task.await??;
    }
    *next += writers * 10_000_000;
    println!(
        "Synced, {writers:>3} writers, one message each: {:>8.0} commits/s",
        count as f64 / begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The time for which this thread had a processor, where the system tells: it does not grow when others are busy.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

async fn reads(what: &str, reader: &dyn Reader, keys: u64, first: u64, rounds: u64) -> Outcome {
    let mut later = 0;
    let begun = cpu();
    for round in 0..rounds {
        let start = first + (round * 7919) % 5000;
        let asked =
            (start..start + keys).map(|key| (Space::Events, Bytes::copy_from_slice(&key.to_be_bytes()))).collect();
        let answer = reader.get_many(asked);
        later += u64::from(matches!(answer, Answer::Later(_)));
        let found = answer.await?;
        assert!(found.iter().all(Option::is_some), "a key is not there");
    }
    report(what, "get_many of", keys, rounds, later, cpu().saturating_sub(begun));
    let mut later = 0;
    let begun = cpu();
    for round in 0..rounds {
        let from = Bytes::copy_from_slice(&(first + (round * 7919) % 5000).to_be_bytes());
        let limit = usize::try_from(keys)?;
        let scan = Scan { space: Space::Events, from, to: vec![0xFF; 9].into(), direction: Direction::Forward, limit };
        let answer = reader.scan(scan);
        later += u64::from(matches!(answer, Answer::Later(_)));
        assert_eq!(answer.await?.entries.len(), limit, "a short page");
    }
    report(what, "scan of", keys, rounds, later, cpu().saturating_sub(begun));
    Ok(())
}

fn report(what: &str, how: &str, keys: u64, rounds: u64, later: u64, took: Duration) {
    let each = took.as_secs_f64() * 1e6 / rounds as f64;
    println!(
        "{what:<12} {how:<11} {keys:>4}: {each:>8.2} us of CPU ({:.2} a key), {later} of {rounds} not on the spot",
        each / keys as f64
    );
}

#[tokio::main]
async fn main() -> Outcome {
    let folder = match std::env::args_os().nth(1) {
        Some(folder) => PathBuf::from(folder),
        None => std::env::temp_dir().join(format!("stoa-commit-{}", std::process::id())),
    };
    let path = folder.join("db");
    let engine = RocksDb::open(&path, Options::default())?;
    let mut next = 0;
    for group in [1, 10, 100] {
        commits(&engine, group, Durability::Synced, Duration::from_secs(3), &mut next).await?;
    }
    for writers in [8, 64] {
        together(&engine, writers, Duration::from_secs(3), &mut next).await?;
    }
    commits(&engine, 1, Durability::Relaxed, Duration::from_secs(2), &mut next).await?;

    next += 10_000;
    for start in (next..next + 10_000).step_by(100) {
        let ops = (start..start + 100).flat_map(message).collect();
        engine.commit(Batch { asserts: Vec::new(), ops }, Durability::Relaxed).await?;
    }
    for keys in [1, 10, 100] {
        reads("buffers", &*engine.snapshot(), keys, next, 20_000 / keys).await?;
    }
    engine.flush().await?;
    engine.compact().await?;
    for keys in [1, 10, 100] {
        reads("first", &*engine.snapshot(), keys, next, 20_000 / keys).await?;
        reads("block cache", &*engine.snapshot(), keys, next, 20_000 / keys).await?;
    }
    let stats = engine.stats();
    println!("{} MB on disk, {} MB of memory; {:?}", stats.disk_bytes >> 20, stats.memory_bytes >> 20, stats.more);
    drop(engine);
    let begun = Instant::now();
    drop(RocksDb::open(&path, Options::default())?);
    println!("opened again in {} ms", begun.elapsed().as_millis());
    std::fs::remove_dir_all(&path)?;
    Ok(())
}
