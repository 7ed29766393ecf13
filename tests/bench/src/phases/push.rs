//! What a message costs that is pushed to phones: in a room of nobody else, and in a room of many who have none.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use stoa_kit::{Gateway, User, json, unique};
use tokio::time::{Instant, sleep};

use crate::bench::{Bench, new_user};

/// Longer than any push may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A message to 50 phones in a room of 51, and in a room of 10,000 of this server. Where other things are measured too, it is one
/// of 1,000: to make so many accounts takes longer than all the rest.
pub async fn run(bench: &mut Bench) {
    let alone = bench.run.only.len() == 1;
    let (phones, crowd) = (bench.size(3, 50), bench.size(20, if alone { 10_000 } else { 1_000 }));
    bench.need_users(phones + 1).await;
    let (alice, others) = (bench.users[0].clone(), bench.users[1..=phones].to_vec());
    let gateway = Gateway::start().await;
    for user in &others {
        user.post("/pushers/set", pusher(&gateway)).await.ok();
    }
    let small = bench.room(&alice, &others).await;
    measure(bench, &alice, &gateway, &small, &format!("one message pushed to {phones}, room of {}", phones + 1)).await;
    let large = bench.room(&alice, &others).await;
    let missing = crowd.saturating_sub(phones + 1);
    let (client, room) = (bench.client.clone(), large.as_str());
    stream::iter(0..missing)
        .map(|_| async { new_user(client.clone()).await.join(room).await.ok() })
        .buffer_unordered(6)
        .for_each(|_| async {})
        .await;
    measure(bench, &alice, &gateway, &large, &format!("one message pushed to {phones}, room of {crowd}")).await;
    for user in &others {
        let listed = user.get("/pushers").await.ok();
        for pusher in listed["pushers"].as_array().into_iter().flatten() {
            let gone = json!({ "kind": null, "app_id": pusher["app_id"], "pushkey": pusher["pushkey"] });
            user.post("/pushers/set", gone).await.ok();
        }
    }
}

fn pusher(gateway: &Gateway) -> serde_json::Value {
    json!({
        "pushkey": unique(), "kind": "http", "app_id": "org.example.bench", "app_display_name": "Bench",
        "device_display_name": "Phone", "lang": "en",
        "data": { "url": gateway.url(), "format": "event_id_only" },
    })
}

async fn measure(bench: &mut Bench, alice: &User, gateway: &Gateway, room: &str, operation: &str) {
    let phones = bench.size(3, 50);
    let (span, mut times) = (bench.begin(60).await, Vec::new());
    for _ in 0..bench.size(3, 40) {
        if span.over() {
            break;
        }
        let start = Instant::now();
        let id = alice.text(room, "to all phones").await;
        while gateway.phones_told(&id) < phones && start.elapsed() < PATIENCE {
            sleep(Duration::from_millis(2)).await;
        }
        times.push(start.elapsed());
        let told = gateway.phones_told(&id);
        bench.check(told == phones, || format!("push: {told} of {phones} phones were told of {id}"));
    }
    bench.note(operation, &span, &mut times).await;
}
