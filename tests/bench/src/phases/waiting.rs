//! A thousand clients that wait: what they hold, and what it costs to wake them all.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use stoa_kit::{SyncOptions, User, json};
use tokio::time::{Instant, sleep};

use crate::bench::{Bench, token};
use crate::meter;

const MB: f64 = 1_048_576.0;

/// What wakes them.
const MESSAGE: &str = "good morning";

/// How long one long poll of two minutes may take until it is answered: a thousand at once are much for some servers.
const PATIENCE: Duration = Duration::from_secs(360);

/// They wait in one room; then somebody speaks there.
pub async fn run(bench: &mut Bench) {
    let count = bench.size(20, 1_000);
    bench.need_users(count + 1).await;
    let alice = bench.users[0].clone();
    let others = bench.users[1..=count].to_vec();
    let room = bench.room(&alice, &[]).await;
    let join = |user: User| {
        let room = room.clone();
        async move { user.join(&room).await.ok() }
    };
    stream::iter(others.clone()).map(join).buffered(4).collect::<Vec<_>>().await;
    let tokens: Vec<String> =
        stream::iter(others.clone()).map(|user| async move { token(&user).await }).buffered(4).collect().await;
    bench.rest().await;
    let before = meter::memory(&bench.pids());
    bench.report.add("memory (PSS) before they wait", "MB", 1, before.pss as f64 / MB);
    let waiting = others.iter().zip(&tokens).map(|(user, token)| {
        let user = user.clone().with_patience(PATIENCE);
        let (user, filter) = (user, json!({ "room": { "state": { "lazy_load_members": true } } }));
        let mut since = token.clone();
        let room = room.clone();
        tokio::spawn(async move {
            // Something else may wake a client first: presence, device lists.
            loop {
                let options = SyncOptions::since(&since).wait(120_000).filter(filter.clone());
                let sync = user.sync_with(&options).await;
                if sync.bodies(&room).contains(&MESSAGE) {
                    return (sync, Instant::now());
                }
                since = sync.token().to_owned();
            }
        })
    });
    let waiting: Vec<_> = waiting.collect();
    sleep(Duration::from_secs(bench.size(1, 6) as u64)).await;
    bench.rest().await;
    let during = meter::memory(&bench.pids());
    bench.report.add(&format!("memory (PSS) with {count} waiting clients"), "MB", 1, during.pss as f64 / MB);
    let each = during.pss.saturating_sub(before.pss) as f64 / 1024.0 / count as f64;
    bench.report.add("... each waiting client", "kB", count, each);
    let idle = bench.begin(30).await;
    sleep(Duration::from_secs(bench.size(1, 10) as u64)).await;
    let cpu = bench.end(&idle).await;
    bench.report.add(&format!("CPU a second while {count} wait"), "ms CPU", 1, cpu / idle.elapsed().as_secs_f64());
    let span = bench.begin(120).await;
    let start = Instant::now();
    let id = alice.text(&room, MESSAGE).await;
    let results = join_all(waiting).await;
    let (mut times, mut woken) = (Vec::new(), 0);
    for (sync, at) in results.into_iter().flatten() {
        woken += usize::from(sync.has(&room, &id));
        times.push(at.saturating_duration_since(start));
    }
    bench.note(&format!("one message wakes {count} long polls, per poll"), &span, &mut times).await;
    bench.check(woken == count, || format!("waking: {woken} of {count} got the message"));
}
