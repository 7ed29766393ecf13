//! Server-Server API, "Transactions" and "PDUs": what is said on one server is heard on the other.

use std::collections::BTreeSet;

use stoa_kit::{User, encode, json};

use crate::{Two, arrives, between, eventually, has_state, shared_room};

/// The bodies of all messages of a room as somebody sees it, oldest first.
async fn bodies(user: &User, room: &str) -> Vec<String> {
    let mut events = user.whole_history(room).await;
    events.reverse();
    events.iter().filter_map(|event| event["content"]["body"].as_str()).map(str::to_owned).collect()
}

between!(both_ways);
async fn both_ways(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    let mut wanted = Vec::new();
    for n in 0..5 {
        // Each answers what the other said, so the order is the same everywhere.
        for (from, to) in [(&alice, &bob), (&bob, &alice)] {
            let text = format!("{n} of {}", from.localpart());
            let event = from.text(&room, &text).await;
            let seen = arrives(to, &room, &event).await;
            assert_eq!((&seen["sender"], &seen["content"]["body"]), (&json!(from.id), &json!(text)));
            wanted.push(text);
        }
    }
    assert_eq!(bodies(&alice, &room).await, wanted);
    assert_eq!(bodies(&bob, &room).await, wanted);
}

between!(they_wake_a_waiting_client);
async fn they_wake_a_waiting_client(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    let token = bob.sync().await.token().to_owned();
    let (event, sync) = tokio::join!(
        async {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            alice.text(&room, "wake up").await
        },
        bob.sync_until(Some(&token), |sync| sync.bodies(&room).contains(&"wake up")),
    );
    assert!(sync.has(&room, &event));
}

between!(many_at_once);
async fn many_at_once(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    let names = |name: &'static str| (0..120).map(move |n| format!("{name} {n:03}"));
    let (hers, his) = tokio::join!(alice.texts(&room, names("a")), bob.texts(&room, names("b")));
    arrives(&bob, &room, hers.last().expect("a message")).await;
    arrives(&alice, &room, his.last().expect("a message")).await;
    let all: BTreeSet<String> = names("a").chain(names("b")).collect();
    for user in [&alice, &bob] {
        let what = format!("all 240 messages at {}", user.id);
        let complete = async || {
            let found = bodies(user, &room).await;
            let set: BTreeSet<String> = found.iter().cloned().collect();
            assert_eq!(found.len(), set.len(), "none of them twice");
            (set == all).then_some(found)
        };
        let found = eventually(&what, complete).await;
        for name in ["a", "b"] {
            let order: Vec<&String> = found.iter().filter(|body| body.starts_with(name)).collect();
            assert!(order.is_sorted(), "what {name} said is in order for {}: {order:?}", user.id);
        }
    }
}

between!(any_text_survives);
async fn any_text_survives(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    let texts = [
        "two\nlines\tand \u{8} \u{c} \u{1f} \u{7f} controls",
        "\u{1F600} beyond the basic plane, \u{fffd} \u{2028} \u{200d}",
        "quotes \" and \\ and / and <html> & more",
        "e\u{301} is not \u{e9}",
    ];
    for text in texts {
        let content = json!({
            "msgtype": "m.text", "body": text, text: text, "a!": 1, "a": 2, "A": [true, null, {}],
            "\u{1F600}": 1, "\u{fb01}": 2, "n": [0, -1, 9_007_199_254_740_991_i64, -9_007_199_254_740_991_i64],
        });
        for (from, to) in [(&alice, &bob), (&bob, &alice)] {
            let event = from.send(&room, "m.room.message", content.clone()).await.event_id();
            assert_eq!(arrives(to, &room, &event).await["content"], content);
        }
    }
    let large = json!({ "msgtype": "m.text", "body": "x".repeat(62_000) });
    let event = alice.send(&room, "m.room.message", large.clone()).await.event_id();
    assert_eq!(arrives(&bob, &room, &event).await["content"], large);
}

/// The ids of the events that relate to an event, as somebody sees it.
async fn relations(user: &User, room: &str, event: &str, kind: &str) -> BTreeSet<String> {
    let path = format!("/_matrix/client/v1/rooms/{}/relations/{}{kind}", encode(room), encode(event));
    let found = user.get(&path).await.ok();
    let chunk = found["chunk"].as_array().expect("chunk");
    chunk.iter().filter_map(|event| event["event_id"].as_str()).map(str::to_owned).collect()
}

/// Edits what one said.
async fn edit(author: &User, room: &str, event: &str) -> String {
    let content = json!({
        "msgtype": "m.text", "body": "* second",
        "m.new_content": { "msgtype": "m.text", "body": "second" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": event },
    });
    author.send(room, "m.room.message", content).await.event_id()
}

/// Answers in a thread.
async fn answer(author: &User, room: &str, root: &str) -> String {
    let content = json!({
        "msgtype": "m.text", "body": "in the thread",
        "m.relates_to": { "rel_type": "m.thread", "event_id": root },
    });
    author.send(room, "m.room.message", content).await.event_id()
}

between!(edits);
async fn edits(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    for (author, reader) in [(&alice, &bob), (&bob, &alice)] {
        let event = author.text(&room, "first").await;
        arrives(reader, &room, &event).await;
        let edit = edit(author, &room, &event).await;
        assert_eq!(arrives(reader, &room, &edit).await["content"]["m.new_content"]["body"], "second");
        assert_eq!(relations(reader, &room, &event, "/m.replace").await, BTreeSet::from([edit]));
    }
}

between!(reactions_and_threads);
async fn reactions_and_threads(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    let root = alice.text(&room, "root").await;
    arrives(&bob, &room, &root).await;
    let reaction = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": root, "key": "+1" } });
    let reaction = bob.send(&room, "m.reaction", reaction).await.event_id();
    let reply = answer(&bob, &room, &root).await;
    arrives(&alice, &room, &reply).await;
    assert_eq!(relations(&alice, &room, &root, "").await, BTreeSet::from([reaction, reply.clone()]));
    assert_eq!(relations(&alice, &room, &root, "/m.thread").await, BTreeSet::from([reply]));
}

between!(bundled_relations);
async fn bundled_relations(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    for (author, reader) in [(&alice, &bob), (&bob, &alice)] {
        let event = author.text(&room, "first").await;
        arrives(reader, &room, &event).await;
        let edit = edit(author, &room, &event).await;
        let reply = answer(author, &room, &event).await;
        let bundled = async || {
            let relations = reader.event(&room, &event).await.ok()["unsigned"]["m.relations"].clone();
            let thread = &relations["m.thread"];
            (relations["m.replace"]["event_id"] == edit
                && thread["count"] == 1
                && thread["latest_event"]["event_id"] == reply)
                .then_some(())
        };
        eventually("edit and thread are bundled with the message", bundled).await;
    }
}

between!(redactions);
async fn redactions(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    let (hers, his, other) =
        (alice.text(&room, "hers").await, bob.text(&room, "his").await, bob.text(&room, "his other").await);
    for event in [&his, &other] {
        arrives(&alice, &room, event).await;
    }
    arrives(&bob, &room, &hers).await;
    bob.redact(&room, &hers).await.expect(403, "M_FORBIDDEN");
    // Everybody redacts their own, Alice also what others said.
    alice.redact(&room, &hers).await.ok();
    bob.redact(&room, &his).await.ok();
    alice.redact(&room, &other).await.ok();
    for user in [&alice, &bob] {
        for event in [&hers, &his, &other] {
            let redacted = async || {
                let seen = user.event(&room, event).await.ok();
                let because = &seen["unsigned"]["redacted_because"];
                (seen["content"] == json!({}) && because["content"]["reason"] == "because").then_some(())
            };
            eventually(&format!("{event} is redacted for {}", user.id), redacted).await;
        }
    }
}

between!(state);
async fn state(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    alice.set_state(&room, "m.room.topic", "", json!({ "topic": "one" })).await.ok();
    has_state(&bob, &room, "m.room.topic", "", json!({ "topic": "one" })).await;
    bob.set_state(&room, "m.room.topic", "", json!({ "topic": "two" })).await.expect(403, "M_FORBIDDEN");
    alice.change_power(&room, |levels| levels["users"][&bob.id] = json!(50)).await;
    let may = async || (bob.state(&room, "m.room.power_levels", "").await.ok()["users"][&bob.id] == 50).then_some(());
    eventually("Bob is a moderator on his server", may).await;
    bob.set_state(&room, "m.room.topic", "", json!({ "topic": "three" })).await.ok();
    has_state(&alice, &room, "m.room.topic", "", json!({ "topic": "three" })).await;
    bob.set_state(&room, "org.example.thing", "key", json!({ "n": 1 })).await.ok();
    has_state(&alice, &room, "org.example.thing", "key", json!({ "n": 1 })).await;
}
