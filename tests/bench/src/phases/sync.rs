//! `/sync` of somebody in 100 rooms: from nothing, with nothing new, with one thing new.

use futures_util::{StreamExt as _, stream};
use stoa_kit::{SyncOptions, User, Value, json};
use tokio::time::Instant;

use crate::bench::Bench;

/// Makes the rooms, then asks.
pub async fn run(bench: &mut Bench) {
    bench.need_users(7).await;
    let (alice, others) = (bench.users[0].clone(), bench.users[1..7].to_vec());
    let reader = crate::bench::new_user(bench.client.clone()).await;
    let count = bench.size(10, 100);
    let members: Vec<User> = std::iter::once(reader.clone()).chain(others[..4].iter().cloned()).collect();
    let make = async |n: usize| {
        let room = bench.room(&alice, &members).await;
        for k in 0..6 {
            members[(n + k) % members.len()].text(&room, &format!("message {k}")).await;
        }
        room
    };
    let rooms: Vec<String> = stream::iter(0..count).map(make).buffered(4).collect().await;
    initial(bench, &reader, &rooms, false).await;
    initial(bench, &reader, &rooms, true).await;
    nothing(bench, &reader).await;
    one(bench, &reader, &alice, &rooms).await;
}

/// Each request has a filter of its own, because some homeservers give the same answer again to the same request.
fn filter(lazy: bool, number: usize) -> Value {
    json!({
        "room": {
            "timeline": { "limit": 10, "not_types": [format!("org.example.unused{number}")] },
            "state": { "lazy_load_members": lazy },
        },
        "presence": { "types": [] },
    })
}

async fn initial(bench: &mut Bench, reader: &User, rooms: &[String], lazy: bool) {
    let (span, mut times) = (bench.begin(40).await, Vec::new());
    for n in 0..bench.size(2, 30) {
        if span.over() {
            break;
        }
        let start = Instant::now();
        let sync = reader.sync_with(&SyncOptions::default().filter(filter(lazy, n))).await;
        times.push(start.elapsed());
        let complete = rooms.iter().filter(|room| {
            let members = sync.state(room).into_iter().chain(sync.timeline(room));
            let members = members.filter(|event| event["type"] == "m.room.member").count();
            sync.bodies(room).len() == 6 && (lazy || members >= 6)
        });
        let complete = complete.count();
        bench.check(complete == rooms.len(), || {
            format!("initial sync: {complete} of {} rooms are complete", rooms.len())
        });
    }
    let kind = if lazy { "lazy members" } else { "all members" };
    bench.note(&format!("initial /sync, {} rooms of 6, {kind}", rooms.len()), &span, &mut times).await;
}

async fn nothing(bench: &mut Bench, reader: &User) {
    let mut token = reader.sync().await.token().to_owned();
    let (span, mut times, mut quiet) = (bench.begin(10).await, Vec::new(), 0);
    for _ in 0..bench.size(50, 5_000) {
        if span.over() {
            break;
        }
        let start = Instant::now();
        let sync = reader.sync_since(&token).await;
        times.push(start.elapsed());
        quiet += usize::from(sync.quiet());
        token = sync.token().to_owned();
    }
    let count = times.len();
    bench.note("/sync with nothing new, 100 rooms", &span, &mut times).await;
    bench.check(quiet == count, || format!("/sync with nothing new: {} had something", count - quiet));
}

async fn one(bench: &mut Bench, reader: &User, alice: &User, rooms: &[String]) {
    let mut token = reader.sync().await.token().to_owned();
    let (span, mut times) = (bench.begin(20).await, Vec::new());
    for n in 0..bench.size(20, 1_000) {
        if span.over() {
            break;
        }
        let room = &rooms[n % rooms.len()];
        let id = alice.text(room, &format!("new {n}")).await;
        let start = Instant::now();
        let sync = reader.sync_since(&token).await;
        times.push(start.elapsed());
        let alone = sync.0["rooms"]["join"].as_object().is_some_and(|joined| joined.len() == 1);
        let right = alone && sync.timeline(room).len() == 1 && sync.has(room, &id);
        bench.check(right, || format!("/sync with one thing new: {sync:?}"));
        token = sync.token().to_owned();
    }
    bench.note("one message and the /sync that has it, 100 rooms", &span, &mut times).await;
}
