//! Everything that was acknowledged is there after `kill -9`: once, in order; and tokens of before still hold.

use std::collections::BTreeSet;
use std::time::Duration;

use stoa_kit::{Dice, Home, Method, User, encode, json};

use crate::own;

/// How often the burst is interrupted: the short form here, the long form by `scripts/crash`.
fn rounds() -> usize {
    std::env::var("STOA_CRASH_ROUNDS").ok().and_then(|count| count.parse().ok()).unwrap_or(2)
}

/// Sends numbered messages one after the other until the server is gone; gives those that were acknowledged.
async fn burst(
    user: User,
    room: String,
    name: String,
    start: usize,
) -> (Vec<(String, String)>, Option<(String, String)>) {
    let mut acknowledged = Vec::new();
    for n in start.. {
        let (body, txn) = (format!("{name} {n}"), format!("{name}-{n}"));
        let path = format!("/rooms/{}/send/m.room.message/{txn}", encode(&room));
        match user.attempt(Method::PUT, &path, json!({ "msgtype": "m.text", "body": body })).await {
            Ok(reply) if reply.status == 200 => acknowledged.push((body, reply.event_id())),
            Ok(reply) => panic!("a send failed in another way: {reply:?}"),
            // It may or may not have been written: whoever repeats the transaction must get one event.
            Err(_) => return (acknowledged, Some((body, txn))),
        }
    }
    (acknowledged, None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_survives_kill_9() {
    let Some(launch) = own() else { return };
    let mut home = Home::launch(launch).await;
    let mut dice = Dice::new(std::env::var("STOA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(42));
    let alice = home.user("alice").await;
    let (room, second) = (alice.public_room().await, alice.public_room().await);
    let mut senders = Vec::new();
    for n in 0..4 {
        let user = home.user(&format!("sender{n}")).await;
        for room in [&room, &second] {
            user.join(room).await.ok();
        }
        senders.push(user);
    }
    let mut sent: Vec<Vec<(String, String)>> = vec![Vec::new(); senders.len()];
    for round in 0..rounds() {
        let token = alice.sync().await.token().to_owned();
        let bursts = senders.iter().enumerate().map(|(n, user)| {
            let room = if n % 2 == 0 { &room } else { &second };
            tokio::spawn(burst(user.clone(), room.clone(), format!("s{n}r{round}"), 0))
        });
        let bursts: Vec<_> = bursts.collect();
        tokio::time::sleep(Duration::from_millis(50 + dice.below(400) as u64)).await;
        home.kill();
        let mut ended = Vec::new();
        for burst in bursts {
            ended.push(burst.await.expect("a burst"));
        }
        home.restart().await;
        for (n, (acknowledged, open)) in ended.into_iter().enumerate() {
            let room = if n % 2 == 0 { &room } else { &second };
            sent[n].extend(acknowledged.clone());
            check_transactions(&senders[n], room, &mut sent[n], &acknowledged, open).await;
        }
        for (n, list) in sent.iter().enumerate() {
            let room = if n % 2 == 0 { &room } else { &second };
            check_history(&alice, room, &format!("s{n}r"), list).await;
        }
        check_token(&alice, &token, &room, &second, &sent, round).await;
    }
}

/// A repeated transaction gives the event of before; the one that was open gives one event now.
async fn check_transactions(
    user: &User,
    room: &str,
    sent: &mut Vec<(String, String)>,
    acknowledged: &[(String, String)],
    open: Option<(String, String)>,
) {
    for (body, id) in acknowledged.iter().rev().take(3) {
        let txn = body.replace(' ', "-");
        let again = user.send_as(room, "m.room.message", &txn, json!({ "msgtype": "m.text", "body": body })).await;
        assert_eq!(again.event_id(), *id, "the transaction {txn} is remembered");
    }
    if let Some((body, txn)) = open {
        let id =
            user.send_as(room, "m.room.message", &txn, json!({ "msgtype": "m.text", "body": body })).await.event_id();
        sent.push((body, id));
    }
}

/// Every message of this sender is in the history once, in order, and nothing else of theirs.
async fn check_history(reader: &User, room: &str, name: &str, sent: &[(String, String)]) {
    let mut history = reader.whole_history(room).await;
    history.reverse();
    let own =
        history.iter().filter(|event| event["content"]["body"].as_str().is_some_and(|body| body.starts_with(name)));
    let found: Vec<(&str, &str)> = own
        .map(|event| (event["content"]["body"].as_str().unwrap_or(""), event["event_id"].as_str().unwrap_or("")))
        .collect();
    let expected: Vec<(&str, &str)> = sent.iter().map(|(body, id)| (body.as_str(), id.as_str())).collect();
    assert_eq!(found, expected, "what {name} sent to {room}");
}

/// A sync token from before the crash leads to exactly what came after it.
async fn check_token(reader: &User, token: &str, one: &str, two: &str, sent: &[Vec<(String, String)>], round: usize) {
    let filter = User::timeline_filter(100_000);
    let sync = reader.sync_with(&stoa_kit::SyncOptions::since(token).filter(filter)).await;
    let found: BTreeSet<String> = [one, two].iter().flat_map(|room| sync.bodies(room)).map(str::to_owned).collect();
    let mark = format!("r{round} ");
    let all = sent.iter().flatten().filter(|(body, _)| body.contains(&mark));
    let expected: BTreeSet<String> = all.map(|(body, _)| body.clone()).collect();
    let limited = [one, two].iter().any(|room| sync.joined(room)["timeline"]["limited"] == true);
    match limited {
        false => assert_eq!(found, expected, "since the token of before"),
        true => assert!(found.is_subset(&expected) && !found.is_empty(), "since the token of before"),
    }
}

#[tokio::test]
async fn accounts_and_all_that_belongs_to_them_survive() {
    let Some(launch) = own() else { return };
    let mut home = Home::launch(launch).await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    alice.put(&format!("/profile/{}/displayname", alice.path_id()), json!({ "displayname": "Alice" })).await.ok();
    alice.set_account_data(None, "org.example.a", json!({ "n": 1 })).await.ok();
    alice.set_account_data(Some(&room), "org.example.b", json!({ "n": 2 })).await.ok();
    let id = bob.text(&room, "before").await;
    alice.receipt(&room, "m.read", &id, json!({})).await.ok();
    let keys = stoa_kit::Keys::new(1).device(&alice.id, &alice.device);
    alice.post("/keys/upload", json!({ "device_keys": keys })).await.ok();
    let messages = json!({ "messages": { &alice.id: { &alice.device: { "n": 3 } } } });
    bob.put("/sendToDevice/org.example.c/1", messages).await.ok();
    home.kill();
    home.restart().await;
    assert_eq!(alice.get("/account/whoami").await.ok()["user_id"], alice.id);
    assert_eq!(bob.get(&format!("/profile/{}", alice.path_id())).await.ok()["displayname"], "Alice");
    assert_eq!(alice.account_data(None, "org.example.a").await.ok()["n"], 1);
    assert_eq!(alice.account_data(Some(&room), "org.example.b").await.ok()["n"], 2);
    assert_eq!(alice.event(&room, &id).await.ok()["content"]["body"], "before");
    let found = bob.post("/keys/query", json!({ "device_keys": { &alice.id: [] } })).await.ok();
    assert!(found["device_keys"][&alice.id][&alice.device].is_object());
    let sync = alice.sync().await;
    assert_eq!(sync.to_device()[0]["content"]["n"], 3);
    assert!(sync.0.to_string().contains("m.receipt"), "the receipt");
    home.device_of(&alice).await;
}

#[tokio::test]
async fn a_client_that_syncs_across_a_restart_misses_nothing() {
    let Some(launch) = own() else { return };
    let mut home = Home::launch(launch).await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let mut replica = stoa_kit::Replica::new(&bob, 3);
    replica.catch_up().await;
    for round in 0..3 {
        alice.texts(&room, (0..5).map(|n| format!("{round} {n}"))).await;
        home.kill();
        home.restart().await;
        alice.set_state(&room, "m.room.topic", "", json!({ "topic": format!("{round}") })).await.ok();
        replica.catch_up().await;
        replica.verify().await;
    }
}

#[tokio::test]
async fn a_server_that_is_asked_to_end_ends_cleanly() {
    let Some(launch) = own() else { return };
    let home = Home::launch(launch).await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let id = alice.text(&room, "last words").await;
    let token = alice.sync().await.token().to_owned();
    // A client that waits must not hold it up.
    let waiting = alice.clone();
    let wait = tokio::spawn(async move {
        let path = format!("/sync?timeout=60000&since={}", encode(&token));
        waiting.attempt(Method::GET, &path, json!(null)).await.map(|reply| reply.status)
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (launch, status) = home.stop().await;
    assert!(status.success(), "{status}:\n{}", launch.log());
    let _ = wait.await.expect("the waiting client is told or cut off");
    let home = Home::launch(launch).await;
    let alice = home.device_of(&alice_at(&home, alice)).await;
    assert_eq!(alice.event(&room, &id).await.ok()["content"]["body"], "last words");
}

/// The same account at another address.
fn alice_at(home: &Home, user: User) -> User {
    let reply = json!({ "user_id": user.id, "access_token": user.token, "device_id": user.device });
    User::from_reply(home.client(), &reply, &user.password)
}

/// Everything that lies in a folder and below it.
fn bytes_below(folder: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(bytes_below(&path)),
            path => found.push((path.clone(), std::fs::read(&path).unwrap_or_default())),
        }
    }
    found
}

#[tokio::test]
async fn d3_53_no_password_and_no_token_lies_on_the_disk() {
    let Some(launch) = own() else { return };
    let mut home = Home::launch(launch).await;
    let password = "a password that is nowhere written down";
    let name = stoa_kit::unique();
    let body = json!({ "username": name, "password": password, "refresh_token": true });
    let reply = home.register(body).await.ok();
    let alice = User::from_reply(home.client(), &reply, password);
    let auth = json!({ "type": "m.login.password", "password": "a wrong password that is nowhere either" });
    alice
        .post("/account/password", json!({ "new_password": "another one of the kind", "auth": auth }))
        .await
        .expect_any(&[401, 403], &["M_FORBIDDEN", "M_UNKNOWN"]);
    let login = alice.post_with_password("/_matrix/client/v1/login/get_token", json!({})).await.ok();
    alice.set_account_data(None, "x.y", json!({ "found": "what is looked for in the right place" })).await.ok();
    home.kill();
    let files = bytes_below(home.how().folder());
    let lies = |secret: &str| {
        let wanted = secret.as_bytes();
        files.iter().find(|(_, bytes)| bytes.windows(wanted.len()).any(|window| window == wanted)).map(|(path, _)| path)
    };
    assert!(lies("what is looked for in the right place").is_some(), "what is written is found");
    let refresh = reply["refresh_token"].as_str().expect("a refresh token");
    let login = login["login_token"].as_str().expect("a login token");
    for secret in [password, "a wrong password that", "another one of the kind", &alice.token, refresh, login] {
        assert_eq!(lies(secret), None);
    }
}
