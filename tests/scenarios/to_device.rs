//! Client-Server API, "Send-to-Device messaging".

use stoa_kit::{Sync, User, Value, json};

use crate::home;

const KIND: &str = "org.example.hello";

async fn send(from: &User, txn: &str, messages: Value) {
    from.put(&format!("/sendToDevice/{KIND}/{txn}"), json!({ "messages": messages })).await.ok();
}

fn words(sync: &Sync) -> Vec<&str> {
    sync.to_device().into_iter().filter_map(|event| event["content"]["word"].as_str()).collect()
}

#[tokio::test]
async fn a_message_reaches_one_device() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let phone = home.device_of(&bob).await;
    send(&alice, "1", json!({ &bob.id: { &bob.device: { "word": "hi" } } })).await;
    let sync = bob.sync_until(None, |sync| !sync.to_device().is_empty()).await;
    assert_eq!(sync.to_device(), [&json!({ "type": KIND, "sender": alice.id, "content": { "word": "hi" } })]);
    assert!(phone.sync().await.to_device().is_empty());
}

#[tokio::test]
async fn a_star_means_every_device() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let phone = home.device_of(&bob).await;
    send(&alice, "1", json!({ &bob.id: { "*": { "word": "all" } } })).await;
    for device in [&bob, &phone] {
        device.sync_until(None, |sync| words(sync) == ["all"]).await;
    }
}

#[tokio::test]
async fn messages_keep_their_order_and_are_given_until_acknowledged() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let start = bob.sync().await.token().to_owned();
    for word in ["a", "b", "c"] {
        send(&alice, word, json!({ &bob.id: { &bob.device: { "word": word } } })).await;
    }
    let first = bob.sync_until(Some(&start), |sync| words(sync) == ["a", "b", "c"]).await;
    let again = bob.sync_since(&start).await;
    assert_eq!(words(&again), ["a", "b", "c"], "the answer may have been lost on the way");
    assert!(words(&bob.sync_since(first.token()).await).is_empty());
}

#[tokio::test]
async fn a_repeated_transaction_sends_once() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    for _ in 0..3 {
        send(&alice, "same", json!({ &bob.id: { &bob.device: { "word": "once" } } })).await;
    }
    let sync = bob.sync_until(None, |sync| !sync.to_device().is_empty()).await;
    assert_eq!(words(&sync), ["once"]);
    assert!(words(&bob.sync_since(sync.token()).await).is_empty());
}

#[tokio::test]
async fn unknown_users_and_devices_are_passed_over() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let nobody = bob.id.replace("bob-", "nobody-");
    let messages = json!({
        nobody: { "*": { "word": "x" } },
        &bob.id: { "NOPE": { "word": "y" }, &bob.device: { "word": "z" } },
    });
    send(&alice, "1", messages).await;
    bob.sync_until(None, |sync| words(sync) == ["z"]).await;
}

#[tokio::test]
async fn a_long_poll_is_woken() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let start = bob.sync().await.token().to_owned();
    let options = stoa_kit::SyncOptions::since(&start).wait(15_000);
    let (sync, ()) = tokio::join!(bob.sync_with(&options), async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        send(&alice, "1", json!({ &bob.id: { &bob.device: { "word": "wake" } } })).await;
    });
    assert_eq!(words(&sync), ["wake"]);
}

#[tokio::test]
async fn many_messages_come_in_several_answers_without_loss() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let mut token = bob.sync().await.token().to_owned();
    for n in 0..150 {
        send(&alice, &format!("m{n}"), json!({ &bob.id: { &bob.device: { "word": n.to_string() } } })).await;
    }
    let mut found = Vec::new();
    for _ in 0..20 {
        let sync = bob.sync_since(&token).await;
        found.extend(words(&sync).into_iter().map(str::to_owned));
        token = sync.token().to_owned();
    }
    assert_eq!(found, (0..150).map(|n: u32| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn malformed_messages_are_refused() {
    let home = home().await;
    let alice = home.user("alice").await;
    for wrong in [json!({}), json!({ "messages": [] }), json!({ "messages": { "@a:b": "x" } })] {
        let reply = alice.put(&format!("/sendToDevice/{KIND}/{}", stoa_kit::unique()), wrong).await;
        crate::refused(&reply);
    }
}
