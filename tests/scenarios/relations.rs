//! Client-Server API, "Forming relationships between events": what relates to an event is summed up beside it, and listed on
//! request; threads of a room.

use stoa_kit::{User, Value, encode, json};

use crate::{one, two};

const V1: &str = "/_matrix/client/v1/rooms";

/// Sends a text that relates to an event.
async fn relate(user: &User, room: &str, rel_type: &str, parent: &str, body: &str) -> String {
    let content = json!({
        "msgtype": "m.text",
        "body": body,
        "m.new_content": { "msgtype": "m.text", "body": body },
        "m.relates_to": { "rel_type": rel_type, "event_id": parent },
    });
    user.send(room, "m.room.message", content).await.event_id()
}

/// What is bundled with an event when it is asked for.
async fn bundled(user: &User, room: &str, event: &str) -> Value {
    user.event(room, event).await.ok()["unsigned"]["m.relations"].clone()
}

fn ids(list: &Value) -> Vec<&str> {
    list["chunk"].as_array().expect("a chunk").iter().filter_map(|event| event["event_id"].as_str()).collect()
}

#[tokio::test]
async fn the_latest_valid_edit_is_bundled() {
    let (_home, alice, bob, room) = two().await;
    let id = alice.text(&room, "first").await;
    assert!(bundled(&bob, &room, &id).await.is_null());
    relate(&alice, &room, "m.replace", &id, "second").await;
    let third = relate(&alice, &room, "m.replace", &id, "third").await;
    relate(&bob, &room, "m.replace", &id, "not his to edit").await;
    let relation = json!({ "rel_type": "m.replace", "event_id": id });
    let other_type = json!({ "m.new_content": {}, "m.relates_to": relation });
    alice.send(&room, "m.sticker", other_type).await.ok();
    let without = json!({ "msgtype": "m.text", "body": "no new content", "m.relates_to": relation });
    alice.send(&room, "m.room.message", without).await.ok();
    relate(&alice, &room, "m.replace", &third, "an edit of an edit").await;
    let edit = &bundled(&bob, &room, &id).await["m.replace"];
    assert_eq!(edit["event_id"], third);
    assert_eq!(edit["content"]["m.new_content"]["body"], "third");
    assert_eq!((&edit["sender"], &edit["type"]), (&json!(alice.id), &json!("m.room.message")));
    assert!(bundled(&bob, &room, &third).await["m.replace"].is_null(), "an edit is not edited");

    alice.redact(&room, &third).await.ok();
    assert_eq!(bundled(&bob, &room, &id).await["m.replace"]["content"]["m.new_content"]["body"], "second");
    alice.redact(&room, &id).await.ok();
    assert!(bundled(&bob, &room, &id).await["m.replace"].is_null(), "who redacts the original takes all edits along");
}

#[tokio::test]
async fn edits_of_encrypted_events_need_no_content_in_the_open() {
    let (_home, alice, room) = one().await;
    let secret =
        |relation: Value| json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x", "m.relates_to": relation });
    let id = alice.send(&room, "m.room.encrypted", secret(json!({}))).await.event_id();
    let relation = json!({ "rel_type": "m.replace", "event_id": id });
    let edit = alice.send(&room, "m.room.encrypted", secret(relation)).await.event_id();
    assert_eq!(bundled(&alice, &room, &id).await["m.replace"]["event_id"], edit);
}

#[tokio::test]
async fn references_are_named_and_reactions_are_not_bundled() {
    let (_home, alice, bob, room) = two().await;
    let id = alice.text(&room, "look").await;
    let one = relate(&bob, &room, "m.reference", &id, "one").await;
    let two = relate(&alice, &room, "m.reference", &id, "two").await;
    let reaction = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": id, "key": "+1" } });
    bob.send(&room, "m.reaction", reaction).await.ok();
    let relations = bundled(&alice, &room, &id).await;
    assert_eq!(relations, json!({ "m.reference": { "chunk": [{ "event_id": one }, { "event_id": two }] } }));
    bob.redact(&room, &one).await.ok();
    assert_eq!(ids(&bundled(&alice, &room, &id).await["m.reference"]), [&two]);
}

#[tokio::test]
async fn a_thread_is_bundled_with_its_latest_event_and_what_relates_to_that() {
    let (home, alice, bob, room) = two().await;
    let carol = home.user("carol").await;
    alice.invite(&room, &carol).await.ok();
    carol.join(&room).await.ok();
    let root = alice.text(&room, "root").await;
    relate(&bob, &room, "m.thread", &root, "one").await;
    let two = relate(&bob, &room, "m.thread", &root, "two").await;
    let edit = relate(&bob, &room, "m.replace", &two, "two!").await;
    let thread = |relations: Value| relations["m.thread"].clone();
    let seen = thread(bundled(&carol, &room, &root).await);
    assert_eq!((&seen["count"], &seen["current_user_participated"]), (&json!(2), &json!(false)));
    assert_eq!(seen["latest_event"]["event_id"], two);
    assert_eq!(seen["latest_event"]["unsigned"]["m.relations"]["m.replace"]["event_id"], edit);
    let participated = thread(bundled(&alice, &room, &root).await)["current_user_participated"].clone();
    assert_eq!(participated, true, "who sent the root participates");

    let three = relate(&carol, &room, "m.thread", &root, "three").await;
    assert_eq!(thread(bundled(&carol, &room, &root).await)["current_user_participated"], true);
    let ignore = json!({ "ignored_users": { &carol.id: {} } });
    alice.set_account_data(None, "m.ignored_user_list", ignore).await.ok();
    let seen = thread(bundled(&alice, &room, &root).await);
    assert_eq!(
        (&seen["count"], &seen["latest_event"]["event_id"]),
        (&json!(2), &json!(two)),
        "without whom one ignores"
    );
    let seen = thread(bundled(&bob, &room, &root).await);
    assert_eq!((&seen["count"], &seen["latest_event"]["event_id"]), (&json!(3), &json!(three)));
    carol.redact(&room, &three).await.ok();
    assert_eq!(thread(bundled(&bob, &room, &root).await)["count"], 2, "what is redacted is in no thread");
}

#[tokio::test]
async fn no_thread_begins_at_an_event_that_relates_to_another() {
    let (_home, alice, room) = one().await;
    let root = alice.text(&room, "root").await;
    let reply = relate(&alice, &room, "m.thread", &root, "reply").await;
    let content = json!({ "body": "x", "m.relates_to": { "rel_type": "m.thread", "event_id": reply } });
    alice.send(&room, "m.room.message", content).await.expect(400, "M_UNKNOWN");
}

#[tokio::test]
async fn what_relates_to_an_event_stands_wherever_the_event_does() {
    let (_home, alice, bob, room) = two().await;
    let token = bob.sync().await.token().to_owned();
    let id = alice.text(&room, "first").await;
    let edit = relate(&alice, &room, "m.replace", &id, "second").await;
    let has_edit = |event: &Value| {
        assert_eq!(event["event_id"], id);
        assert_eq!(event["unsigned"]["m.relations"]["m.replace"]["event_id"], edit);
    };
    has_edit(&alice.event(&room, &id).await.ok());
    has_edit(&alice.messages(&room, "dir=b&limit=2").await.ok()["chunk"][1]);
    has_edit(&alice.get(&format!("/rooms/{room}/context/{}", encode(&id))).await.ok()["event"]);
    has_edit(&alice.get(&format!("/rooms/{room}/context/{}", encode(&edit))).await.ok()["events_before"][0]);
    let first = bob.sync().await;
    has_edit(first.timeline(&room).iter().rev().nth(1).expect("the message in a first sync"));
    let sync = bob.sync_since(&token).await;
    let event = sync.timeline(&room)[0];
    assert!(event["unsigned"]["m.relations"].is_null(), "who got everything sums up alone: {event}");

    let root = alice.text(&room, "root").await;
    let reply = relate(&alice, &room, "m.thread", &root, "reply").await;
    let edit = relate(&alice, &room, "m.replace", &reply, "reply!").await;
    let children = alice.get(&format!("{V1}/{room}/relations/{}/m.thread", encode(&root))).await.ok();
    assert_eq!(children["chunk"][0]["unsigned"]["m.relations"]["m.replace"]["event_id"], edit);
}

#[tokio::test]
async fn children_of_children_are_listed_on_request() {
    let (_home, alice, room) = one().await;
    let root = alice.text(&room, "root").await;
    let reply = relate(&alice, &room, "m.thread", &root, "reply").await;
    let edit = relate(&alice, &room, "m.replace", &reply, "reply!").await;
    let path = format!("{V1}/{room}/relations/{}", encode(&root));
    assert_eq!(ids(&alice.get(&path).await.ok()), [&reply]);
    let all = alice.get(&format!("{path}?recurse=true")).await.ok();
    assert_eq!(ids(&all), [&edit, &reply]);
    assert!(all["recursion_depth"].as_u64().is_some_and(|depth| depth >= 3), "{all}");
    assert_eq!(ids(&alice.get(&format!("{path}?recurse=true&dir=f")).await.ok()), [&reply, &edit]);
    let first = alice.get(&format!("{path}?recurse=true&limit=1")).await.ok();
    assert_eq!(ids(&first), [&edit]);
    let from = encode(first["next_batch"].as_str().expect("a next page"));
    let second = alice.get(&format!("{path}?recurse=true&limit=1&from={from}")).await.ok();
    assert_eq!((ids(&second), &second["next_batch"]), (vec![reply.as_str()], &Value::Null));
}

#[tokio::test]
async fn threads_of_a_room_are_listed_by_their_latest_replies() {
    let (_home, alice, bob, room) = two().await;
    let roots = alice.texts(&room, (0..3).map(|n| format!("root {n}"))).await;
    for root in [&roots[0], &roots[1], &roots[0]] {
        relate(&bob, &room, "m.thread", root, "reply").await;
    }
    let list = async |user: &User, query: &str| user.get(&format!("{V1}/{room}/threads{query}")).await.ok();
    let all = list(&bob, "").await;
    assert_eq!(ids(&all), [&roots[0], &roots[1]]);
    assert_eq!(all["chunk"][0]["unsigned"]["m.relations"]["m.thread"]["count"], 2);
    assert!(all["next_batch"].is_null(), "{all}");
    let last = relate(&alice, &room, "m.thread", &roots[1], "reply").await;
    assert_eq!(ids(&list(&bob, "").await), [&roots[1], &roots[0]]);

    let first = list(&bob, "?limit=1").await;
    assert_eq!(ids(&first), [&roots[1]]);
    let from = encode(first["next_batch"].as_str().expect("a next page"));
    let second = list(&bob, &format!("?limit=1&from={from}")).await;
    assert_eq!((ids(&second), &second["next_batch"]), (vec![roots[0].as_str()], &Value::Null));
    alice.redact(&room, &last).await.ok();
    assert_eq!(ids(&list(&bob, "").await), [&roots[0], &roots[1]]);
}

#[tokio::test]
async fn threads_may_be_only_ones_own_and_only_those_one_may_see() {
    let (home, alice, bob, room) = two().await;
    let carol = home.user("carol").await;
    let (hers, his) = (alice.text(&room, "hers").await, bob.text(&room, "his").await);
    relate(&alice, &room, "m.thread", &hers, "reply").await;
    relate(&bob, &room, "m.thread", &his, "reply").await;
    let path = format!("{V1}/{room}/threads");
    assert_eq!(ids(&bob.get(&format!("{path}?include=participated")).await.ok()), [&his]);
    assert_eq!(ids(&bob.get(&format!("{path}?include=all")).await.ok()), [&his, &hers]);
    bob.get(&format!("{path}?include=some")).await.expect(400, "M_INVALID_PARAM");
    bob.get(&format!("{path}?from=nowhere")).await.expect(400, "M_INVALID_PARAM");
    carol.get(&path).await.expect(403, "M_FORBIDDEN");
    let ignore = json!({ "ignored_users": { &alice.id: {} } });
    bob.set_account_data(None, "m.ignored_user_list", ignore).await.ok();
    assert_eq!(ids(&bob.get(&path).await.ok()), [&his], "nobody but whom he ignores wrote in hers");
    relate(&bob, &room, "m.thread", &hers, "reply").await;
    let list = bob.get(&path).await.ok();
    assert_eq!(ids(&list), [&hers, &his]);
    assert_eq!(list["chunk"][0]["content"], json!({}), "the root of whom he ignores is shown redacted");
}

#[tokio::test]
async fn relations_of_one_kind_and_type() {
    let (_home, alice, room) = one().await;
    let parent = alice.text(&room, "like it?").await;
    let relates = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": parent, "key": "+" } });
    let path = format!("/rooms/{}/send/m.reaction/{}", encode(&room), alice.txn());
    let reaction = alice.put(&path, relates).await.event_id();
    let of = |kind: &str| {
        format!("/_matrix/client/v1/rooms/{}/relations/{}/m.annotation/{kind}", encode(&room), encode(&parent))
    };
    assert_eq!(alice.get(&of("m.reaction")).await.ok()["chunk"][0]["event_id"], reaction.as_str());
    assert_eq!(alice.get(&of("m.room.message")).await.ok()["chunk"], json!([]));
}
