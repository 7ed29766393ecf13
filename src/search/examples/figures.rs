//! What the search costs: making the index of many messages, looking for words in it, its size. No network, an engine in memory.
//! Run it with `cargo run --release -p stoa-search --example figures [MESSAGES]`.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for whoever measures"
)]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use stoa_engine::memory::Memory;
use stoa_search::{Config, FOLLOWER, Key, LANGUAGES, Order, Search, Within};
use stoa_store::{
    EventNo, Options, RoomNo, Store, Tx,
    rows::events::{Header, Standing, StoredEvent, append},
};

const ROOMS: u32 = 100;
const SYLLABLES: [&str; 16] =
    ["ka", "lo", "mi", "ren", "sta", "tu", "ver", "schen", "bo", "dal", "fin", "gra", "hus", "jor", "pel", "win"];

/// Repeatable chance (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// Small numbers far more often than large ones, as with words.
    fn rank(&mut self, most: f64) -> u64 {
        let chance = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        most.powf(chance) as u64 - 1
    }
}

/// The words of a language of 50,000, the common ones short.
fn word(mut rank: u64) -> String {
    let mut word = String::new();
    loop {
        word.push_str(SYLLABLES[(rank % 16) as usize]);
        rank /= 16;
        if rank == 0 {
            return word;
        }
    }
}

fn message(dice: &mut Dice, n: u64) -> StoredEvent {
    let words: Vec<String> = (0..4 + dice.next() % 16).map(|_| word(dice.rank(50_000.0))).collect();
    let json = serde_json::json!({ "body": words.join(" "), "msgtype": "m.text" }).to_string();
    let header = Header {
        event_id: format!("$event{n}"),
        kind: "m.room.message".into(),
        state_key: None,
        sender: format!("@user{}:example.org", n % 50),
        origin_server_ts: 1_700_000_000_000 + n * 1000,
        depth: n,
        content_from: 0,
        content_to: json.len() as u32,
        standing: Standing::Accepted,
        at: None,
        before: None,
        after: None,
        replaces: None,
        redacted_by: None,
        prev: Vec::new(),
        auth: Vec::new(),
        txn: None,
        redacts: None,
        relates_to: None,
        gap: false,
        partial: false,
    };
    StoredEvent { header, json: json.into() }
}

async fn fill(store: &Store, dice: &mut Dice, from: u64, to: u64) {
    for page in (from..to).collect::<Vec<_>>().chunks(500) {
        let snapshot = store.snapshot().await.unwrap();
        let mut tx = Tx::new();
        for n in page {
            let event = message(dice, *n);
            store.names().name_user(&snapshot, &mut tx, &event.header.sender).await.unwrap();
            let slot = tx.slot();
            append(&mut tx, slot, RoomNo((*n % u64::from(ROOMS)) as u32), EventNo(*n as u32), event, None);
        }
        store.commit(tx).await.unwrap();
    }
}

fn size(folder: &Path) -> u64 {
    std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// Megabytes of memory that are this process's own.
fn own_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or_default() / 1024
}

/// Milliseconds of CPU of this process so far.
fn cpu_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    [11, 12].iter().filter_map(|i| fields.get(*i)?.parse::<u64>().ok()).sum::<u64>() * 10
}

/// Waits until a word is found.
async fn until(search: &Search, within: &Arc<Within>, word: &str) {
    let terms = search.terms(word).unwrap();
    while search.find(&terms, within, Order::Rank, None, 1, false).await.is_ok_and(|found| found.hits.is_empty()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Has a word said in the last room, so that it is known when all before is in the index.
async fn mark(store: &Store, n: u64, word: &str) {
    let mut event = message(&mut Dice(n), n);
    event.json = format!(r#"{{"body":"{word}"}}"#).into();
    event.header.content_to = event.json.len() as u32;
    let mut tx = Tx::new();
    let slot = tx.slot();
    append(&mut tx, slot, RoomNo(ROOMS - 1), EventNo(n as u32), event, None);
    store.commit(tx).await.unwrap();
}

#[tokio::main]
async fn main() {
    let messages: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let folder = tempfile::tempdir().unwrap();
    let options = Options { followers: vec![FOLLOWER], ..Options::default() };
    let (store, committer) = Store::open(Arc::new(Memory::new()), options).await.unwrap();
    tokio::spawn(committer.run());
    let mut dice = Dice(1);
    fill(&store, &mut dice, 0, messages).await;
    mark(&store, messages, "zzfirst").await;
    let within = Arc::new(Within {
        rooms: (0..ROOMS).map(|room| (RoomNo(room), None)).collect(),
        keys: Key::ALL.to_vec(),
        ..Within::default()
    });

    let config = Config {
        server: "example.org".into(),
        folder: folder.path().to_owned(),
        messages: true,
        languages: LANGUAGES.map(str::to_owned).to_vec(),
        memory: 24 << 20,
    };
    let (before, own, begun) = (cpu_ms(), own_memory(), Instant::now());
    let search = Search::new(store.clone(), config).unwrap();
    tokio::spawn(search.clone().run());
    until(&search, &within, "zzfirst").await;
    let took = begun.elapsed();
    println!(
        "{messages} messages: index made in {took:.1?}, {:.0} a second, {} µs of CPU each; {} MB more memory; {} bytes on disk each",
        messages as f64 / took.as_secs_f64(),
        (cpu_ms() - before) * 1000 / messages,
        own_memory().saturating_sub(own),
        size(folder.path()) / messages,
    );

    let mut lags = Vec::new();
    for n in 0..20 {
        let marker = format!("zzlag{n}");
        let begun = Instant::now();
        mark(&store, messages + 1 + n, &marker).await;
        until(&search, &within, &marker).await;
        lags.push(begun.elapsed().as_millis());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    lags.sort_unstable();
    println!("said until found, one every now and then: median {} ms, most {} ms", lags[10], lags[19]);

    let one = Arc::new(Within { rooms: [(RoomNo(7), None)].into(), ..(*within).clone() });
    let (common, rare) = (word(0), word(30_001));
    for (name, typed, within, order) in [
        ("a word of every third message, all rooms, rank", common.clone(), &within, Order::Rank),
        ("the same, recent", common.clone(), &within, Order::Recent),
        ("the same, one room", common.clone(), &one, Order::Rank),
        ("two common words", format!("{common} {}", word(1)), &within, Order::Rank),
        ("a rare word", rare, &within, Order::Rank),
    ] {
        let terms = search.terms(&typed).unwrap();
        let (mut times, mut hits) = (Vec::new(), 0);
        for _ in 0..50 {
            let begun = Instant::now();
            hits = search.find(&terms, within, order, None, 100, false).await.unwrap().hits.len();
            times.push(begun.elapsed().as_micros());
        }
        times.sort_unstable();
        let all = search.find(&terms, within, order, None, 0, true).await.unwrap();
        let fits: u64 = all.by_room.values().sum();
        println!("{name:48} {fits:>7} fit, {hits:>3} taken: median {:>6} µs, most {:>6} µs", times[25], times[49]);
    }
}
