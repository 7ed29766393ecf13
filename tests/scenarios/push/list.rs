//! Client-Server API, "Listing notifications".

use stoa_kit::{User, Value, encode, json};

use crate::home;

async fn all(user: &User, query: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut from = String::new();
    for _ in 0..100 {
        let page = user.get(&format!("/notifications?{query}{from}")).await.ok();
        found.extend(page["notifications"].as_array().cloned().expect("notifications"));
        let Some(next) = page["next_token"].as_str() else { return found };
        from = format!("&from={}", encode(next));
    }
    panic!("the pages never end");
}

fn ids(list: &[Value]) -> Vec<String> {
    list.iter().map(|it| it["event"]["event_id"].as_str().expect("an event id").to_owned()).collect()
}

#[tokio::test]
async fn what_notified_is_listed_newest_first() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let (one, two) = (alice.room_with(&[&bob]).await, alice.room_with(&[&bob]).await);
    let before: Vec<String> = ids(&all(&bob, "").await);
    let mut sent = Vec::new();
    for n in 0..4 {
        sent.push(alice.text(if n % 2 == 0 { &one } else { &two }, &format!("{n}")).await);
    }
    bob.text(&one, "one's own is no news").await;
    alice.send(&two, "m.room.message", json!({ "msgtype": "m.notice", "body": "nor is a bot" })).await.ok();
    bob.receipt(&two, "m.read", &sent[1], json!({})).await.ok();
    let list = all(&bob, "").await;
    let newest: Vec<String> = sent.iter().rev().cloned().collect();
    assert_eq!(ids(&list)[..4], newest);
    assert_eq!(list.len(), 4 + before.len());
    let it = &list[2];
    assert_eq!((&it["room_id"], &it["read"]), (&json!(two), &json!(true)));
    assert_eq!(list[0]["read"], false);
    assert!(it["actions"].as_array().is_some_and(|actions| actions.contains(&json!("notify"))));
    assert_eq!((&it["event"]["content"]["body"], &it["event"]["sender"]), (&json!("1"), &json!(alice.id)));
    assert_eq!(it["event"]["type"], "m.room.message");
    assert!(it["ts"].is_u64());
    // In pages it is the same.
    assert_eq!(ids(&all(&bob, "limit=1").await), ids(&list));
    assert_eq!(ids(&all(&bob, "limit=3").await), ids(&list));
    bob.get("/notifications?from=nonsense").await.expect(400, "M_INVALID_PARAM");
    bob.get("/notifications?limit=x").await.expect(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn highlights_can_be_had_alone_and_the_list_follows_the_rules() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let mention = json!({ "msgtype": "m.text", "body": "hey", "m.mentions": { "user_ids": [bob.id] } });
    let mention = alice.send(&room, "m.room.message", mention).await.event_id();
    let plain = alice.text(&room, "hello").await;
    let gone = alice.text(&room, "gone").await;
    alice.redact(&room, &gone).await.ok();
    assert_eq!(ids(&all(&bob, "only=highlight").await), std::slice::from_ref(&mention));
    assert_eq!(ids(&all(&bob, "").await)[..2], [plain, mention]);
    // It is worked out by the rules of now, as the numbers in /sync are.
    let mute = json!({ "actions": [], "conditions": [{ "kind": "event_match", "key": "room_id", "pattern": room }] });
    bob.put(&format!("/pushrules/global/override/{}", encode(&room)), mute).await.ok();
    assert!(all(&bob, "").await.iter().all(|it| it["room_id"] != room.as_str()));
    bob.post(&format!("/rooms/{}/leave", encode(&room)), json!({})).await.ok();
    assert!(all(&bob, "").await.is_empty());
}
