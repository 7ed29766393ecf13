//! Reading history: pages of 20 and of 100, and the surroundings of one event.

use stoa_kit::{Dice, encode};
use tokio::time::Instant;

use crate::bench::Bench;

/// Pages through a room of messages.
pub async fn run(bench: &mut Bench) {
    bench.need_users(2).await;
    let (alice, bob) = (bench.users[0].clone(), bench.users[1].clone());
    let room = bench.room(&alice, std::slice::from_ref(&bob)).await;
    let mut sent = Vec::new();
    let span = bench.begin(60).await;
    for n in 0..bench.size(60, 1_500) {
        if span.over() {
            break;
        }
        let user = if n % 2 == 0 { &alice } else { &bob };
        sent.push(user.text(&room, &format!("message number {n} of a conversation")).await);
    }
    for limit in [20, 100] {
        let (span, mut times, rounds) =
            (bench.begin(20).await, Vec::new(), bench.size(1, if limit == 20 { 4 } else { 20 }));
        for _ in 0..rounds {
            let (mut query, mut found) = (format!("dir=b&limit={limit}"), Vec::new());
            loop {
                let start = Instant::now();
                let page = alice.messages(&room, &query).await.ok();
                times.push(start.elapsed());
                let messages =
                    page["chunk"].as_array().into_iter().flatten().filter(|event| event["type"] == "m.room.message");
                found.extend(messages.filter_map(|event| event["event_id"].as_str().map(str::to_owned)));
                let Some(end) = page["end"].as_str() else { break };
                query = format!("dir=b&limit={limit}&from={}", encode(end));
            }
            found.reverse();
            bench.check(found == sent, || format!("pages of {limit}: not what was sent, once and in order"));
            if span.over() {
                break;
            }
        }
        bench.note(&format!("/messages, {limit} a page"), &span, &mut times).await;
    }
    let mut dice = Dice::new(1);
    let (span, mut times) = (bench.begin(15).await, Vec::new());
    for _ in 0..bench.size(10, 1_000) {
        if span.over() {
            break;
        }
        let id = dice.pick(&sent);
        let start = Instant::now();
        let context = alice.get(&format!("/rooms/{}/context/{}", encode(&room), encode(id))).await.ok();
        times.push(start.elapsed());
        bench.check(context["event"]["event_id"] == *id, || format!("/context of {id}"));
    }
    bench.note("/context of a random event", &span, &mut times).await;
}
