//! Joins and state events while a room grows: each bucket on its own, to show whether the cost stays flat.

use stoa_kit::{User, encode, json};
use tokio::time::Instant;

use crate::bench::Bench;

/// How many to a bucket.
const BUCKET: usize = 200;

/// A room that grows by members, another that grows by state.
pub async fn run(bench: &mut Bench) {
    let (bucket, total) = (bench.size(10, BUCKET), bench.size(30, 2_000));
    joins(bench, bucket, total).await;
    state(bench, bucket, total).await;
}

async fn joins(bench: &mut Bench, bucket: usize, total: usize) {
    bench.need_users(total).await;
    let room = bench.room(&bench.users[0], &[]).await;
    let members: Vec<User> = bench.users[1..].to_vec();
    let (whole, mut done) = (bench.begin(240).await, 1);
    for part in members.chunks(bucket) {
        if whole.over() || done + part.len() > total {
            break;
        }
        let (span, mut times) = (bench.begin(240).await, Vec::new());
        for user in part {
            let start = Instant::now();
            user.join(&room).await.ok();
            times.push(start.elapsed());
        }
        bench.note(&format!("join: members {} to {}", done, done + part.len() - 1), &span, &mut times).await;
        done += part.len();
    }
    let joined = bench.users[0].get(&format!("/rooms/{}/joined_members", encode(&room))).await.ok();
    let found = joined["joined"].as_object().map_or(0, |members| members.len());
    bench.check(found == done, || format!("joins: {found} members instead of {done}"));
}

async fn state(bench: &mut Bench, bucket: usize, total: usize) {
    let alice = bench.users[0].clone();
    let room = bench.room(&alice, &[]).await;
    let (whole, mut done) = (bench.begin(180).await, 0);
    while done < total && !whole.over() {
        let (span, mut times) = (bench.begin(180).await, Vec::new());
        for n in done..done + bucket {
            let start = Instant::now();
            alice.set_state(&room, "org.example.state", &format!("key {n}"), json!({ "n": n })).await.ok();
            times.push(start.elapsed());
        }
        bench.note(&format!("state event: {} to {}", done, done + bucket - 1), &span, &mut times).await;
        done += bucket;
    }
    let (span, mut times, mut found) = (bench.begin(10).await, Vec::new(), 0);
    for _ in 0..bench.size(1, 20) {
        let start = Instant::now();
        let all = alice.all_state(&room).await;
        times.push(start.elapsed());
        found = all.iter().filter(|event| event["type"] == "org.example.state").count();
    }
    bench.note(&format!("/state with {total} events"), &span, &mut times).await;
    bench.check(found == done, || format!("state: {found} events instead of {done}"));
}
