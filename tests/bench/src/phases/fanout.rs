//! One message, and one sign of typing, to many who wait.

use std::sync::Arc;
use std::time::Duration;

use stoa_kit::{SyncOptions, User, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::bench::{Bench, token};

/// Longer than any delivery may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Messages to 100 who wait, typing to 30.
pub async fn run(bench: &mut Bench) {
    let watchers = bench.size(8, 100);
    bench.need_users(watchers + 1).await;
    let (alice, others) = (bench.users[0].clone(), bench.users[1..=watchers].to_vec());
    let room: Arc<str> = bench.room(&alice, &others).await.into();
    messages(bench, &alice, &others, &room).await;
    typing(bench, &alice, &others[..watchers.min(30)]).await;
}

/// What a watcher saw: who, what, when.
type Seen = (usize, String, Instant);

fn watch(
    users: &[User],
    tokens: Vec<String>,
    room: &Arc<str>,
    out: &mpsc::UnboundedSender<Seen>,
) -> Vec<JoinHandle<()>> {
    let pairs = users.iter().cloned().zip(tokens).enumerate();
    let tasks = pairs.map(|(number, (user, mut since))| {
        let (room, out) = (Arc::clone(room), out.clone());
        tokio::spawn(async move {
            loop {
                let sync = user.sync_with(&SyncOptions::since(&since).wait(30_000)).await;
                let now = Instant::now();
                for body in sync.bodies(&room) {
                    let _ = out.send((number, body.to_owned(), now));
                }
                for event in sync.ephemeral(&room).iter().filter(|event| event["type"] == "m.typing") {
                    let count = event["content"]["user_ids"].as_array().map_or(0, Vec::len);
                    let _ = out.send((number, format!("typing {count}"), now));
                }
                since = sync.token().to_owned();
            }
        })
    });
    tasks.collect()
}

async fn tokens(users: &[User]) -> Vec<String> {
    let mut tokens = Vec::new();
    for user in users {
        tokens.push(token(user).await);
    }
    tokens
}

async fn messages(bench: &mut Bench, alice: &User, others: &[User], room: &Arc<str>) {
    let (out, mut seen) = mpsc::unbounded_channel();
    let tasks = watch(others, tokens(others).await, room, &out);
    sleep(Duration::from_millis(500)).await;
    let mut received: Vec<Vec<String>> = vec![Vec::new(); others.len()];
    let (span, mut times, mut sent) = (bench.begin(60).await, Vec::new(), Vec::new());
    for n in 0..bench.size(5, 50) {
        if span.over() {
            break;
        }
        let body = format!("to all {n}");
        let start = Instant::now();
        alice.text(room, &body).await;
        sent.push(body);
        let mut missing = others.len();
        while missing > 0 {
            let Ok(Some((number, body, at))) = timeout(PATIENCE, seen.recv()).await else { break };
            if body.starts_with("to all") {
                received[number].push(body);
                times.push(at.saturating_duration_since(start));
                missing -= 1;
            }
        }
        bench.check(missing == 0, || format!("fan-out: message {n} did not reach {missing} of {}", others.len()));
    }
    let cpu = bench.end(&span).await;
    let count = others.len();
    bench.report.cpu(&format!("one message to {count} waiting clients"), sent.len(), cpu, &mut times);
    bench.report.cpu("... per delivery", sent.len() * count, cpu, &mut []);
    for (number, bodies) in received.iter().enumerate() {
        bench.check(*bodies == sent, || format!("fan-out: client {number} got {bodies:?}"));
    }
    tasks.iter().for_each(JoinHandle::abort);
}

/// Somebody begins and stops typing; whoever waits must hear of the last change, and may miss one in between.
async fn typing(bench: &mut Bench, alice: &User, others: &[User]) {
    let room: Arc<str> = bench.room(alice, others).await.into();
    let (out, mut seen) = mpsc::unbounded_channel();
    let tasks = watch(others, tokens(others).await, &room, &out);
    sleep(Duration::from_millis(500)).await;
    let (span, mut times) = (bench.begin(30).await, Vec::new());
    let path = format!("/rooms/{room}/typing/{}", alice.path_id());
    let count = bench.size(6, 120);
    let mut last = String::new();
    for n in 0..count {
        let start = Instant::now();
        let on = n % 2 == 0;
        let body = if on { json!({ "typing": true, "timeout": 30_000 }) } else { json!({ "typing": false }) };
        alice.put(&path, body).await.ok();
        times.push(start.elapsed());
        last = format!("typing {}", u8::from(on));
        sleep(Duration::from_millis(33).saturating_sub(start.elapsed())).await;
    }
    let mut state = vec![String::new(); others.len()];
    while state.iter().any(|known| *known != last) {
        let Ok(Some((number, body, _))) = timeout(Duration::from_secs(10), seen.recv()).await else { break };
        state[number] = body;
    }
    bench.note(&format!("typing at 30/s, {} watchers", others.len()), &span, &mut times).await;
    let wrong = state.iter().filter(|known| **known != last).count();
    bench.check(wrong == 0, || format!("typing: {wrong} of {} do not know the last state", others.len()));
    tasks.iter().for_each(JoinHandle::abort);
}
