//! Sending: one after the other, and ten at once in five rooms.

use std::time::Duration;

use futures_util::future::join_all;
use stoa_kit::{User, Value};
use tokio::time::Instant;

use crate::bench::Bench;

/// Both ways of sending.
pub async fn run(bench: &mut Bench) {
    bench.need_users(10).await;
    sequential(bench).await;
    at_once(bench).await;
}

async fn sequential(bench: &mut Bench) {
    let alice = bench.users[0].clone();
    let room = bench.room(&alice, &[]).await;
    let count = bench.size(50, 2_000);
    let (span, mut times, mut sent) = (bench.begin(40).await, Vec::new(), Vec::new());
    for n in 0..count {
        if span.over() {
            break;
        }
        let start = Instant::now();
        sent.push(alice.text(&room, &format!("message number {n} of a conversation")).await);
        times.push(start.elapsed());
    }
    bench.note("send, one after the other", &span, &mut times).await;
    let history = alice.whole_history(&room).await;
    let found = ids(&history);
    bench.check(found == sent, || "send: the history is not what was sent, once and in order".to_owned());
}

async fn at_once(bench: &mut Bench) {
    let users = bench.users[..10].to_vec();
    let mut rooms = Vec::new();
    for _ in 0..5 {
        rooms.push(bench.room(&users[0], &users[1..]).await);
    }
    let each = bench.size(10, 200);
    let span = bench.begin(60).await;
    let senders = users.iter().enumerate().map(|(n, user)| sender(user, &rooms, n, each, &span));
    let results = join_all(senders).await;
    let mut times: Vec<Duration> = results.iter().flat_map(|(times, _)| times.clone()).collect();
    let elapsed = span.elapsed().as_secs_f64();
    let rate = times.len() as f64 / elapsed;
    bench.note("send, 10 at once in 5 rooms", &span, &mut times).await;
    bench.report.add("sends a second, 10 at once", "1/s", times.len(), rate);
    for (place, room) in rooms.iter().enumerate() {
        let history = users[0].whole_history(room).await;
        for (sender, (_, sent)) in results.iter().enumerate() {
            let expected: Vec<String> = sent.iter().filter(|(at, _)| *at == place).map(|(_, id)| id.clone()).collect();
            let own: Vec<Value> = history.iter().filter(|event| event["sender"] == users[sender].id).cloned().collect();
            bench.check(ids(&own) == expected, || {
                format!("send at once: sender {sender} in room {place}: order or number")
            });
        }
    }
}

type Sent = (Vec<Duration>, Vec<(usize, String)>);

async fn sender(user: &User, rooms: &[String], number: usize, count: usize, span: &crate::bench::Span) -> Sent {
    let (mut times, mut sent) = (Vec::new(), Vec::new());
    for n in 0..count {
        if span.over() {
            break;
        }
        let place = (number + n) % rooms.len();
        let start = Instant::now();
        sent.push((place, user.text(&rooms[place], &format!("message {n} of sender {number}")).await));
        times.push(start.elapsed());
    }
    (times, sent)
}

/// The IDs of the messages of a history that was read backwards, forwards.
fn ids(history: &[Value]) -> Vec<String> {
    let messages = history.iter().rev().filter(|event| event["type"] == "m.room.message");
    messages.filter_map(|event| event["event_id"].as_str().map(str::to_owned)).collect()
}
