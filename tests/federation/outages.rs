//! Links that break and servers that die: what was acknowledged arrives all the same, once, in order.

use std::time::Duration;

use stoa_kit::{User, json};
use tokio::time::{Instant, sleep};

use crate::{PATIENCE, Two, aliased_room, arrives, becomes, between, eventually, has_state, shared_room};

/// Waits until these events are, in this order and once each, what somebody sees of somebody's messages.
async fn sees_all(reader: &User, room: &str, sender: &User, wanted: &[String]) {
    let start = Instant::now();
    loop {
        let mut history = reader.whole_history(room).await;
        history.reverse();
        let said = |event: &&stoa_kit::Value| event["sender"] == sender.id && event["type"] == "m.room.message";
        let found: Vec<&str> = history.iter().filter(said).filter_map(|event| event["event_id"].as_str()).collect();
        if found == wanted {
            return;
        }
        if start.elapsed() > PATIENCE {
            // Numbers are easier to read: 1 is the first that was sent.
            let places: Vec<_> =
                found.iter().map(|id| wanted.iter().position(|sent| sent == id).map(|n| n + 1)).collect();
            panic!("{} sees this of what {} said ({} messages): {places:?}", reader.id, sender.id, wanted.len());
        }
        sleep(Duration::from_millis(200)).await;
    }
}

between!(a_cut_link);
async fn a_cut_link(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    two.b.link.cut();
    let hers = alice.texts(&room, (0..80).map(|n| format!("while away {n}"))).await;
    sleep(Duration::from_secs(2)).await;
    assert!(bob.event(&room, &hers[0]).await.status >= 400, "the link is cut");
    two.b.link.mend();
    // The one who comes back says something, and the other tries again.
    bob.text(&room, "I am back").await;
    sees_all(&bob, &room, &alice, &hers).await;
}

between!(both_talk_while_cut_off);
async fn both_talk_while_cut_off(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    alice.change_power(&room, |levels| levels["users"][&bob.id] = json!(50)).await;
    let may = async || (bob.state(&room, "m.room.power_levels", "").await.ok()["users"][&bob.id] == 50).then_some(());
    eventually("Bob is a moderator on his server", may).await;
    two.a.link.cut();
    two.b.link.cut();
    let (mut hers, mut his) = tokio::join!(
        alice.texts(&room, (0..10).map(|n| format!("a {n}"))),
        bob.texts(&room, (0..10).map(|n| format!("b {n}"))),
    );
    alice.set_state(&room, "org.example.a", "", json!({ "n": 1 })).await.ok();
    bob.set_state(&room, "org.example.b", "", json!({ "n": 2 })).await.ok();
    alice.set_state(&room, "m.room.topic", "", json!({ "topic": "of Alice" })).await.ok();
    bob.set_state(&room, "m.room.topic", "", json!({ "topic": "of Bob" })).await.ok();
    two.a.link.mend();
    two.b.link.mend();
    hers.push(alice.text(&room, "together again").await);
    his.push(bob.text(&room, "together again").await);
    sees_all(&bob, &room, &alice, &hers).await;
    sees_all(&alice, &room, &bob, &his).await;
    for user in [&alice, &bob] {
        has_state(user, &room, "org.example.a", "", json!({ "n": 1 })).await;
        has_state(user, &room, "org.example.b", "", json!({ "n": 2 })).await;
    }
    let agree = async || {
        let (one, two) = tokio::join!(state_ids(&alice, &room), state_ids(&bob, &room));
        (one == two).then_some(())
    };
    eventually("both agree on the state of the room", agree).await;
}

async fn state_ids(user: &User, room: &str) -> Vec<String> {
    let state = user.all_state(room).await;
    let mut ids: Vec<String> = state.iter().filter_map(|event| event["event_id"].as_str()).map(str::to_owned).collect();
    ids.sort();
    ids
}

between!(the_receiver_dies);
async fn the_receiver_dies(mut two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    let mut hers = alice.texts(&room, (0..20).map(|n| format!("before {n}"))).await;
    two.b.home.kill();
    hers.extend(alice.texts(&room, (0..30).map(|n| format!("meanwhile {n}"))).await);
    let direct = json!({ "messages": { &bob.id: { &bob.device: { "word": "kept" } } } });
    alice.put("/sendToDevice/org.example.hello/1", direct).await.ok();
    two.b.home.restart().await;
    bob.text(&room, "I am back").await;
    sees_all(&bob, &room, &alice, &hers).await;
    bob.sync_until(None, |sync| sync.to_device().iter().any(|event| event["content"]["word"] == "kept")).await;
}

between!(the_sender_dies);
async fn the_sender_dies(mut two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    two.b.link.cut();
    let mut hers = alice.texts(&room, (0..30).map(|n| format!("unheard {n}"))).await;
    let direct = json!({ "messages": { &bob.id: { &bob.device: { "word": "kept" } } } });
    alice.put("/sendToDevice/org.example.hello/1", direct).await.ok();
    two.a.home.kill();
    two.a.home.restart().await;
    two.b.link.mend();
    hers.push(alice.text(&room, "I am back").await);
    sees_all(&bob, &room, &alice, &hers).await;
    bob.sync_until(None, |sync| sync.to_device().iter().any(|event| event["content"]["word"] == "kept")).await;
}

between!(a_slow_line);
async fn a_slow_line(two: Two) {
    let (alice, bob) = two.users().await;
    for link in [&two.a.link, &two.b.link] {
        link.delay(Duration::from_millis(150));
    }
    let (room, alias) = aliased_room(&alice, json!({})).await;
    bob.join(&alias).await.ok();
    becomes(&alice, &room, &bob, "join").await;
    let (hers, his) = tokio::join!(
        alice.texts(&room, (0..20).map(|n| format!("a {n}"))),
        bob.texts(&room, (0..20).map(|n| format!("b {n}"))),
    );
    sees_all(&bob, &room, &alice, &hers).await;
    sees_all(&alice, &room, &bob, &his).await;
    let event = alice.text(&room, "done").await;
    arrives(&bob, &room, &event).await;
}

between!(a_server_that_is_away_holds_up_nobody);
async fn a_server_that_is_away_holds_up_nobody(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    two.b.link.cut();
    let start = tokio::time::Instant::now();
    alice.texts(&room, (0..20).map(|n| format!("{n}"))).await;
    assert!(start.elapsed() < Duration::from_secs(5), "sending waits for nobody: {:?}", start.elapsed());
    let refused = alice.get(&format!("/profile/{}", bob.path_id())).await;
    assert!(refused.status >= 400, "{refused:?}");
    assert!(start.elapsed() < Duration::from_secs(30), "asking a server that is away: {:?}", start.elapsed());
}
