//! How long `/sync` takes where nothing is on the way: no network, no HTTP, an engine in memory. Run it with
//! `cargo run --release -p stoa-view --example speed`.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for whoever measures"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::Home;
use serde_json::json;
use stoa_view::SyncRequest;

const ROOMS: usize = 100;
const MEMBERS: usize = 6;
const MESSAGES: usize = 25;

/// The median and the longest of some runs.
async fn time(name: &str, target_us: u128, runs: usize, mut work: impl AsyncFnMut() -> Duration) {
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        times.push(work().await.as_micros());
    }
    times.sort_unstable();
    let (median, most) = (times[runs / 2], times[runs - 1]);
    println!("{name:44} median {median:>8} µs   most {most:>8} µs   target {target_us:>6} µs");
}

async fn answer(home: &Home, request: &SyncRequest) -> (Duration, usize) {
    let start = Instant::now();
    let answer = home.view.sync(request.clone()).await.unwrap();
    (start.elapsed(), answer.len())
}

#[tokio::main]
async fn main() {
    let home = Home::over(stoa_engine::memory::Memory::new(), 1_700_000_000_000).await;
    let mut people = Vec::new();
    for n in 0..MEMBERS {
        people.push(home.user(&format!("user{n}")).await);
    }
    let mut rooms = Vec::new();
    for _ in 0..ROOMS {
        let room = home.room_with(&people[0], &[("m.room.name", json!({ "name": "a room" }))]).await;
        for user in &people[1..] {
            home.join(user, &room).await;
        }
        for n in 0..MESSAGES {
            home.say(&people[n % MEMBERS], &room, "some words of a common length, as people write them").await;
        }
        rooms.push(room);
    }
    let me = &people[0];
    for (name, filter) in [
        ("initial", json!({})),
        ("initial, lazy members", json!({ "room": { "state": { "lazy_load_members": true } } })),
    ] {
        let request = home.request(me, None, filter);
        let (first, size) = answer(&home, &request).await;
        println!("{name}: {ROOMS} rooms of {MEMBERS}, {size} bytes; the very first took {} µs", first.as_micros());
        time(name, 15_000, 50, async || answer(&home, &request).await.0).await;
    }
    let since = common::token(&home.sync(me, None).await);
    let request = home.request(me, Some(&since), json!({}));
    time("nothing new", 100, 2000, async || answer(&home, &request).await.0).await;
    time("one new message", 150, 500, async || {
        let since = common::token(&home.sync(me, None).await);
        home.say(&people[1], &rooms[7], "news").await;
        let request = home.request(me, Some(&since), json!({}));
        answer(&home, &request).await.0
    })
    .await;
}
