//! MSC4306, subscriptions to threads: made by hand and by clients, what push rules say of them; and MSC4308, how clients hear
//! of them.

use stoa_kit::{Reply, User, Value, encode, json};

use crate::two;

const CONFLICT: &str = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION";
const ELSEWHERE: &str = "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD";
const EXTENSION: &str = "io.element.msc4308.thread_subscriptions";

fn path(room: &str, root: &str) -> String {
    let (room, root) = (encode(room), encode(root));
    format!("/_matrix/client/unstable/io.element.msc4306/rooms/{room}/thread/{root}/subscription")
}

async fn subscribe(user: &User, room: &str, root: &str, cause: Option<&str>) -> Reply {
    let body = cause.map_or(json!({}), |cause| json!({ "automatic": cause }));
    user.put(&path(room, root), body).await
}

async fn subscription(user: &User, room: &str, root: &str) -> Reply {
    user.get(&path(room, root)).await
}

async fn reply(user: &User, room: &str, root: &str, body: &str) -> String {
    let relation = json!({ "rel_type": "m.thread", "event_id": root });
    let content = json!({ "msgtype": "m.text", "body": body, "m.relates_to": relation });
    user.send(room, "m.room.message", content).await.event_id()
}

/// What the extension says, and the new `pos`.
async fn slide(user: &User, pos: Option<&str>, limit: u64) -> (Value, String) {
    let body = json!({ "extensions": { EXTENSION: { "enabled": true, "limit": limit } } });
    let answer = user.slide(pos, 0, body).await.ok();
    (answer["extensions"][EXTENSION].clone(), answer["pos"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn subscribing_and_unsubscribing() {
    let (_home, alice, bob, room) = two().await;
    let root = alice.text(&room, "root").await;
    subscription(&bob, &room, &root).await.expect(404, "M_NOT_FOUND");
    subscribe(&bob, &room, &root, None).await.ok();
    assert_eq!(subscription(&bob, &room, &root).await.ok(), json!({ "automatic": false }));
    subscribe(&bob, &room, &root, None).await.ok();
    subscription(&alice, &room, &root).await.expect(404, "M_NOT_FOUND");
    for _ in 0..2 {
        bob.delete(&path(&room, &root)).await.ok();
        subscription(&bob, &room, &root).await.expect(404, "M_NOT_FOUND");
    }
}

#[tokio::test]
async fn a_client_does_not_undo_what_the_user_did_since() {
    let (_home, alice, bob, room) = two().await;
    let root = alice.text(&room, "root").await;
    let first = reply(&alice, &room, &root, "@bob!").await;
    subscribe(&bob, &room, &root, Some(&first)).await.ok();
    assert_eq!(subscription(&bob, &room, &root).await.ok(), json!({ "automatic": true }));
    // By hand counts more.
    subscribe(&bob, &room, &root, None).await.ok();
    subscribe(&bob, &room, &root, Some(&first)).await.ok();
    assert_eq!(subscription(&bob, &room, &root).await.ok(), json!({ "automatic": false }));
    bob.delete(&path(&room, &root)).await.ok();
    subscribe(&bob, &room, &root, Some(&first)).await.expect(409, CONFLICT);
    subscription(&bob, &room, &root).await.expect(404, "M_NOT_FOUND");
    let second = reply(&alice, &room, &root, "@bob, again").await;
    subscribe(&bob, &room, &root, Some(&second)).await.ok();
    assert_eq!(subscription(&bob, &room, &root).await.ok(), json!({ "automatic": true }));
}

#[tokio::test]
async fn what_is_no_thread_is_refused() {
    let (home, alice, bob, room) = two().await;
    let root = alice.text(&room, "root").await;
    let other = alice.text(&room, "another").await;
    let inside = reply(&alice, &room, &root, "inside").await;
    for cause in [&root, &other, &"$nothing".to_owned()] {
        subscribe(&bob, &room, &root, Some(cause)).await.expect(400, ELSEWHERE);
    }
    let carol = home.user("carol").await;
    for (user, event) in [(&bob, "$nothing"), (&carol, root.as_str()), (&bob, inside.as_str())] {
        subscribe(user, &room, event, None).await.expect(404, "M_NOT_FOUND");
        user.delete(&path(&room, event)).await.expect(404, "M_NOT_FOUND");
    }
    let elsewhere = alice.create_room(json!({})).await;
    subscribe(&alice, &elsewhere, &root, None).await.expect(404, "M_NOT_FOUND");
}

/// Unread notifications of the room without and with its threads.
async fn unread(user: &User, room: &str) -> (u64, u64) {
    let filter = json!({ "room": { "timeline": { "unread_thread_notifications": true } } });
    let options = stoa_kit::SyncOptions::default().filter(filter);
    let sync = user.sync_with(&options).await;
    let joined = sync.joined(room);
    let of = |value: &Value| value["notification_count"].as_u64().unwrap_or(0);
    let threads = joined["unread_thread_notifications"].as_object();
    (of(&joined["unread_notifications"]), threads.map_or(0, |threads| threads.values().map(of).sum()))
}

#[tokio::test]
async fn who_follows_threads_hears_of_those_alone() {
    let (_home, alice, bob, room) = two().await;
    let (wanted, other) = (alice.text(&room, "a").await, alice.text(&room, "b").await);
    // Who never followed a thread has a client that does not know of it: all threads count as they always did.
    reply(&alice, &room, &wanted, "1").await;
    reply(&alice, &room, &other, "1").await;
    assert_eq!(unread(&bob, &room).await, (2, 2));
    subscribe(&bob, &room, &wanted, None).await.ok();
    assert_eq!(unread(&bob, &room).await, (2, 1));
    // A mention notifies in any thread.
    let relation = json!({ "rel_type": "m.thread", "event_id": other });
    let mention = json!({ "msgtype": "m.text", "body": "hey", "m.relates_to": relation,
        "m.mentions": { "user_ids": [bob.id] } });
    alice.send(&room, "m.room.message", mention).await.ok();
    assert_eq!(unread(&bob, &room).await, (2, 2));
    // A room whose messages do not notify does not silence a thread that is followed.
    let rule = format!("/pushrules/global/room/{}", encode(&room));
    bob.put(&rule, json!({ "actions": [] })).await.ok();
    assert_eq!(unread(&bob, &room).await, (0, 2));
    bob.delete(&path(&room, &wanted)).await.ok();
    assert_eq!(unread(&bob, &room).await, (0, 1));
}

#[tokio::test]
async fn the_rules_are_default_rules() {
    let (_home, alice, _bob, _room) = two().await;
    let rules = alice.get("/pushrules/").await.ok();
    let ids: Vec<&str> =
        rules["global"]["postcontent"].as_array().unwrap().iter().map(|it| it["rule_id"].as_str().unwrap()).collect();
    let rule = |name: &str| format!(".io.element.msc4306.rule.{name}_thread");
    assert_eq!(ids, [rule("unsubscribed"), rule("subscribed")]);
    let own = format!("/pushrules/global/postcontent/{}", rule("subscribed"));
    assert_eq!(alice.get(&own).await.ok()["conditions"][0]["kind"], "io.element.msc4306.thread_subscription");
    alice.put(&format!("{own}/enabled"), json!({ "enabled": false })).await.ok();
    assert_eq!(alice.get(&format!("{own}/enabled")).await.ok()["enabled"], false);
    alice.delete(&own).await.expect(400, "M_INVALID_PARAM");
    let mine = json!({ "actions": ["notify"], "conditions": [] });
    alice.put("/pushrules/global/postcontent/mine", mine).await.expect(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn sliding_sync_tells_what_changed() {
    let (home, alice, bob, room) = two().await;
    let mut roots = Vec::new();
    for n in 0..5 {
        roots.push(alice.text(&room, &format!("{n}")).await);
        subscribe(&bob, &room, &roots[n], None).await.ok();
    }
    bob.delete(&path(&room, &roots[0])).await.ok();
    let (first, pos) = slide(&bob, None, 100).await;
    assert_eq!(first["subscribed"][&room].as_object().unwrap().len(), 4);
    assert!(first["subscribed"][&room][&roots[1]]["bump_stamp"].is_u64() && first.get("prev_batch").is_none());
    let (quiet, pos) = slide(&bob, Some(&pos), 100).await;
    assert!(quiet.is_null());

    // The first one is subscribed to again, and three others no longer: only the newest two fit.
    for root in &roots[2..] {
        bob.delete(&path(&room, root)).await.ok();
    }
    subscribe(&bob, &room, &roots[0], None).await.ok();
    let (next, _) = slide(&bob, Some(&pos), 2).await;
    assert!(next["subscribed"][&room][&roots[0]].is_object(), "{next}");
    assert_eq!(next["unsubscribed"][&room].as_object().unwrap().len(), 1);
    let from = next["prev_batch"].as_str().expect("there are more");
    let page = |from: &str, rest: &str| {
        format!("/_matrix/client/unstable/io.element.msc4308/thread_subscriptions?dir=b&from={from}{rest}")
    };
    let more = bob.get(&page(from, &format!("&to={pos}&limit=1"))).await.ok();
    assert!(more["unsubscribed"][&room][&roots[3]].is_object(), "{more}");
    let end = more["end"].as_str().expect("one more");
    let last = bob.get(&page(end, &format!("&to={pos}"))).await.ok();
    assert!(last["unsubscribed"][&room][&roots[2]].is_object() && last.get("end").is_none(), "{last}");
    assert!(last.get("subscribed").is_none(), "what was told before is not told again");

    let all = "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions";
    assert_eq!(bob.get(&format!("{all}?dir=b")).await.ok()["subscribed"][&room].as_object().unwrap().len(), 2);
    bob.get(&format!("{all}?dir=f")).await.expect(400, "M_INVALID_PARAM");
    bob.get(all).await.expect(400, "M_MISSING_PARAM");
    bob.get(&format!("{all}?dir=b&limit=0")).await.expect(400, "M_INVALID_PARAM");
    bob.get(&format!("{all}?dir=b&from=x")).await.expect(400, "M_INVALID_PARAM");
    assert_eq!(home.device_of(&alice).await.get(&format!("{all}?dir=b")).await.ok(), json!({}));
}

#[tokio::test]
async fn a_change_wakes_who_waits() {
    let (home, alice, bob, room) = two().await;
    let root = alice.text(&room, "root").await;
    let (_, pos) = slide(&bob, None, 100).await;
    let other = home.device_of(&bob).await;
    let waiting = tokio::spawn(async move {
        let body = json!({ "extensions": { EXTENSION: { "enabled": true } } });
        bob.slide(Some(&pos), 20_000, body).await.ok()
    });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    subscribe(&other, &room, &root, None).await.ok();
    let answer = waiting.await.unwrap();
    assert!(answer["extensions"][EXTENSION]["subscribed"][&room][&root].is_object(), "{answer}");
}
