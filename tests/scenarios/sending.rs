//! Client-Server API, "Sending events to a room", "Transaction identifiers", and bundled aggregations.

use stoa_kit::{Value, encode, json};

use crate::{home, one, two};

#[tokio::test]
async fn a_message_arrives_as_it_was_sent() {
    let (_home, alice, bob, room) = two().await;
    let token = bob.sync().await.token().to_owned();
    let content = json!({ "msgtype": "m.text", "body": "Καλημέρα\n\u{1}\t\"\\ 🎨", "nested": { "n": [-1, 0, 9_007_199_254_740_991_i64] } });
    let id = alice.send(&room, "m.room.message", content.clone()).await.event_id();
    let sync = bob.sync_until(Some(&token), |sync| sync.has(&room, &id)).await;
    let event = sync.timeline(&room)[0].clone();
    assert_eq!(event["content"], content);
    assert_eq!(event["sender"], alice.id);
    assert_eq!(event["type"], "m.room.message");
    assert!(event["origin_server_ts"].as_u64().is_some_and(|time| time > 1_600_000_000_000));
    assert_eq!(alice.event(&room, &id).await.ok()["content"], content);
}

#[tokio::test]
async fn a_repeated_transaction_is_one_event() {
    let (_home, alice, room) = one().await;
    let content = json!({ "msgtype": "m.text", "body": "once" });
    let first = alice.send_as(&room, "m.room.message", "same", content.clone()).await.event_id();
    let second = alice.send_as(&room, "m.room.message", "same", content).await.event_id();
    assert_eq!(first, second);
    assert_eq!(alice.sync().await.bodies(&room), ["once"]);
}

#[tokio::test]
async fn a_transaction_repeated_at_the_same_time_is_one_event() {
    let (_home, alice, room) = one().await;
    let send = || alice.send_as(&room, "m.room.message", "same", json!({ "msgtype": "m.text", "body": "once" }));
    let (a, b, c, d) = tokio::join!(send(), send(), send(), send());
    let ids = [a.event_id(), b.event_id(), c.event_id(), d.event_id()];
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(alice.sync().await.bodies(&room), ["once"]);
}

#[tokio::test]
async fn transactions_belong_to_a_device_and_a_request() {
    let home = home().await;
    let alice = home.user("alice").await;
    let phone = home.device_of(&alice).await;
    let (one, two) = (alice.create_room(json!({})).await, alice.create_room(json!({})).await);
    let send = async |device: &stoa_kit::User, room: &str, kind: &str| {
        device.send_as(room, kind, "same", json!({ "msgtype": "m.text", "body": "x" })).await.event_id()
    };
    let mut ids = vec![
        send(&alice, &one, "m.room.message").await,
        send(&alice, &two, "m.room.message").await,
        send(&phone, &one, "m.room.message").await,
    ];
    // The path of the request tells retransmissions apart, and the type is part of it; Synapse passes over that.
    if crate::strict() {
        ids.push(send(&alice, &one, "org.example.other").await);
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[tokio::test]
async fn only_the_sending_device_sees_its_transaction_id() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let phone = home.device_of(&alice).await;
    let room = alice.room_with(&[&bob]).await;
    let content = json!({ "msgtype": "m.text", "body": "mine" });
    let id = alice.send_as(&room, "m.room.message", "my-own-txn", content).await.event_id();
    let txn = |sync: &stoa_kit::Sync| -> Value {
        let event = sync.timeline(&room).into_iter().find(|event| event["event_id"] == id).expect("the event").clone();
        event["unsigned"]["transaction_id"].clone()
    };
    assert_eq!(txn(&alice.sync().await), "my-own-txn");
    assert!(txn(&phone.sync().await).is_null());
    assert!(txn(&bob.sync().await).is_null());
    assert_eq!(alice.event(&room, &id).await.ok()["unsigned"]["transaction_id"], "my-own-txn");
}

#[tokio::test]
async fn who_is_not_in_the_room_cannot_speak() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.public_room().await;
    let content = json!({ "msgtype": "m.text", "body": "x" });
    bob.send(&room, "m.room.message", content.clone()).await.expect(403, "M_FORBIDDEN");
    bob.join(&room).await.ok();
    bob.send(&room, "m.room.message", content.clone()).await.ok();
    bob.leave(&room).await.ok();
    bob.send(&room, "m.room.message", content).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn power_levels_decide_who_may_send_what() {
    let (_home, alice, bob, room) = two().await;
    alice
        .change_power(&room, |levels| {
            levels["events"]["org.example.loud"] = json!(20);
            levels["users"] = json!({ &bob.id: 19 });
        })
        .await;
    bob.send(&room, "org.example.loud", json!({})).await.expect(403, "M_FORBIDDEN");
    bob.text(&room, "quietly").await;
    alice.change_power(&room, |levels| levels["users"][&bob.id] = json!(20)).await;
    bob.send(&room, "org.example.loud", json!({})).await.ok();
}

#[tokio::test]
async fn messages_sent_at_once_all_arrive_once() {
    let (_home, alice, bob, room) = two().await;
    let send = async |user: stoa_kit::User, room: String, name: &'static str| {
        user.texts(&room, (0..20).map(|n| format!("{name} {n}"))).await
    };
    let (one, two) = tokio::join!(send(alice.clone(), room.clone(), "a"), send(bob.clone(), room.clone(), "b"));
    let history = alice.whole_history(&room).await;
    let order: Vec<&str> = history.iter().rev().filter_map(|event| event["content"]["body"].as_str()).collect();
    for (name, ids) in [("a", one), ("b", two)] {
        assert_eq!(ids.len(), 20);
        let own: Vec<&str> = order.iter().filter(|body| body.starts_with(name)).copied().collect();
        assert_eq!(own, (0..20).map(|n| format!("{name} {n}")).collect::<Vec<_>>(), "in the order of their sender");
    }
}

#[tokio::test]
async fn an_event_is_seen_only_by_those_who_may_and_only_through_its_room() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({})).await;
    let id = alice.text(&room, "private").await;
    bob.event(&room, &id).await.expect_any(&[403, 404], &["M_FORBIDDEN", "M_NOT_FOUND"]);
    let own = bob.create_room(json!({})).await;
    bob.event(&own, &id).await.expect(404, "M_NOT_FOUND");
    alice.event(&room, "$nothing").await.expect(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn an_edit_is_bundled_with_what_it_replaces() {
    let (_home, alice, room) = one().await;
    let id = alice.text(&room, "first").await;
    let edit = json!({
        "msgtype": "m.text",
        "body": "* second",
        "m.new_content": { "msgtype": "m.text", "body": "second" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": id },
    });
    let edit = alice.send(&room, "m.room.message", edit).await.event_id();
    let event = alice.event(&room, &id).await.ok();
    assert_eq!(event["content"]["body"], "first", "the original content stays");
    assert_eq!(event["unsigned"]["m.relations"]["m.replace"]["event_id"], edit);
    assert_eq!(event["unsigned"]["m.relations"]["m.replace"]["content"]["m.new_content"]["body"], "second");
}

#[tokio::test]
async fn nobody_gives_the_same_reaction_twice() {
    let (_home, alice, bob, room) = two().await;
    let id = alice.text(&room, "like this").await;
    let reaction = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": id, "key": "👍" } });
    bob.send(&room, "m.reaction", reaction.clone()).await.ok();
    bob.send(&room, "m.reaction", reaction.clone()).await.expect(400, "M_DUPLICATE_ANNOTATION");
    alice.send(&room, "m.reaction", reaction).await.ok();
}

#[tokio::test]
async fn replies_in_a_thread_are_summed_up_at_its_root() {
    let (_home, alice, bob, room) = two().await;
    let root = alice.text(&room, "root").await;
    let reply = |n: usize| {
        json!({
            "msgtype": "m.text",
            "body": format!("reply {n}"),
            "m.relates_to": { "rel_type": "m.thread", "event_id": root },
        })
    };
    alice.send(&room, "m.room.message", reply(1)).await.ok();
    let last = alice.send(&room, "m.room.message", reply(2)).await.event_id();
    let summary = |event: Value| event["unsigned"]["m.relations"]["m.thread"].clone();
    let seen = summary(bob.event(&room, &root).await.ok());
    assert_eq!((&seen["count"], &seen["current_user_participated"]), (&json!(2), &json!(false)));
    assert_eq!(seen["latest_event"]["event_id"], last);
    assert_eq!(summary(alice.event(&room, &root).await.ok())["current_user_participated"], true);
    let path = format!("/_matrix/client/v1/rooms/{room}/relations/{}/m.thread", encode(&root));
    let replies = bob.get(&path).await.ok();
    assert_eq!(replies["chunk"].as_array().map(Vec::len), Some(2));
    assert_eq!(replies["chunk"][0]["event_id"], last);
}
