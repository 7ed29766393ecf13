//! Login, tokens, refreshing, logout, devices, passwords, deactivation.

mod common;

use std::time::Instant;

use common::{SECRET, Server, auth, challenge, config, device, password, refusal, user_id};
use serde_json::json;
use stoa_accounts::{Accounts, Config, Error, LoggedIn, NewDevice, NewPusher, Who};
use stoa_store::{Fact, Heard};

async fn unknown(accounts: &Accounts, token: &str) -> bool {
    matches!(accounts.whoami(token).await, Err(Error::UnknownToken { soft_logout: false }))
}

fn refreshing(id: &str) -> NewDevice {
    NewDevice { refresh: true, ..device(id) }
}

fn own_password() -> stoa_accounts::uia::AuthData {
    auth(json!({ "type": "m.login.password", "password": SECRET }))
}

#[tokio::test]
async fn people_log_in_by_name_or_id() {
    let server = Server::open().await;
    server.user("alice").await;
    for name in ["alice", "@alice:stoa.test", "Alice", "@ALICE:stoa.test"] {
        let LoggedIn { user, tokens, device } = server.login(name, NewDevice::default()).await.unwrap();
        assert_eq!(user, "@alice:stoa.test");
        assert_eq!(server.accounts.whoami(&tokens.access).await.unwrap().device, device);
    }
    for name in ["", "@", "bob", "@alice:elsewhere.test", "alice:stoa.test", "@alice", "a\0b", "@:stoa.test"] {
        refused!(server.login(name, NewDevice::default()).await, Error::BadCredentials);
    }
    for wrong in ["", "wrong horse", "Correct horse", &"x".repeat(100_000)] {
        let tried = server.accounts.login("alice", password(wrong), &NewDevice::default()).await;
        refused!(tried, Error::BadCredentials);
    }
}

#[tokio::test]
async fn nobody_guesses_for_long() {
    let server = Server::open().await;
    server.user("alice").await;
    for _ in 0..10 {
        let tried = server.accounts.login("alice", password("wrong"), &NewDevice::default()).await;
        refused!(tried, Error::BadCredentials);
    }
    refused!(server.login("alice", NewDevice::default()).await, Error::LimitExceeded { retry_after_ms: 1000 });
    server.wait(1000);
    server.login("alice", NewDevice::default()).await.unwrap();
    // A name that nobody has behaves the same.
    for _ in 0..10 {
        refused!(server.login("nobody", NewDevice::default()).await, Error::BadCredentials);
    }
    refused!(server.login("nobody", NewDevice::default()).await, Error::LimitExceeded { retry_after_ms: 1000 });
    // The right password clears it.
    refused!(server.accounts.login("alice", password("wrong"), &NewDevice::default()).await, Error::BadCredentials);
    server.login("alice", NewDevice::default()).await.unwrap();
}

#[tokio::test]
async fn a_device_has_one_token() {
    let server = Server::open().await;
    let (_, _, other) = server.user("alice").await;
    let named = NewDevice { name: Some("Phone".into()), ..device("PHONE") };
    let first = server.login("alice", named).await.unwrap().tokens.access;
    assert!(server.accounts.whoami(&first).await.is_ok());
    let renamed = NewDevice { name: Some("Other".into()), ..device("PHONE") };
    let second = server.login("alice", renamed).await.unwrap().tokens.access;
    assert!(unknown(&server.accounts, &first).await);
    let who = server.accounts.whoami(&second).await.unwrap();
    assert!(server.accounts.whoami(&other).await.is_ok());
    // The name of a known device is not changed by logging in.
    assert_eq!(server.accounts.device(who.user_no, "PHONE").await.unwrap().name.as_deref(), Some("Phone"));
    // Somebody else's device of the same name is another.
    server.user("bob").await;
    server.login("bob", device("PHONE")).await.unwrap();
    assert!(server.accounts.whoami(&second).await.is_ok());
    for bad in ["", "a\nb", &"x".repeat(256)] {
        refused!(server.login("alice", device(bad)).await, Error::InvalidParam(_));
    }
}

#[tokio::test]
async fn tokens_are_stored_as_hashes() {
    let server = Server::open().await;
    let (_, who, token) = server.user("alice").await;
    let snapshot = server.store.snapshot().await.unwrap();
    let all = stoa_store::Direction::Forward;
    for (hash, row) in snapshot.scan(&stoa_store::schema::ACCESS_TOKENS, &(), all, 10).await.unwrap() {
        assert_eq!(row.user, who.user_no);
        assert!(!token.as_bytes().windows(8).any(|part| hash.windows(8).any(|other| other == part)));
    }
    let phc = snapshot.get(&stoa_store::schema::PASSWORDS, &who.user_no).await.unwrap().unwrap();
    assert!(phc.starts_with("$argon2id$v=19$m=64,t=1,p=1$") && !phc.contains(SECRET));
    assert!(token.len() >= 40);
}

#[tokio::test]
async fn garbage_is_no_token() {
    let server = Server::open().await;
    let (_, _, token) = server.user("alice").await;
    let cut = &token[..token.len() - 1];
    for garbage in ["", " ", "x", cut, "\0", &"x".repeat(1_000_000)] {
        assert!(unknown(&server.accounts, garbage).await);
    }
}

#[tokio::test]
async fn logout_ends_the_device() {
    let server = Server::open().await;
    let (_, who, first) = server.user("alice").await;
    let second = server.login("alice", device("PHONE")).await.unwrap().tokens.access;
    server.accounts.logout(&who).await.unwrap();
    assert!(unknown(&server.accounts, &first).await);
    let left = server.accounts.devices(who.user_no).await.unwrap();
    assert_eq!(left.iter().map(|device| device.id.as_str()).collect::<Vec<_>>(), ["PHONE"]);
    assert!(server.accounts.whoami(&second).await.is_ok());
    let third = server.login("alice", refreshing("TABLET")).await.unwrap().tokens;
    server.accounts.logout_all(who.user_no).await.unwrap();
    for token in [&second, &third.access] {
        assert!(unknown(&server.accounts, token).await);
    }
    refused!(server.accounts.refresh(&third.refresh.unwrap()).await, Error::UnknownToken { soft_logout: false });
    assert!(server.accounts.devices(who.user_no).await.unwrap().is_empty());
}

#[tokio::test]
async fn access_tokens_that_can_be_refreshed_end_softly() {
    let server = Server::open().await;
    server.user("alice").await;
    let first = server.login("alice", refreshing("PHONE")).await.unwrap().tokens;
    assert_eq!(first.expires_in_ms, Some(config().access_token_ms));
    server.accounts.whoami(&first.access).await.unwrap();
    server.wait(config().access_token_ms);
    refused!(server.accounts.whoami(&first.access).await, Error::UnknownToken { soft_logout: true });
    let second = server.accounts.refresh(first.refresh.as_ref().unwrap()).await.unwrap();
    assert_eq!(server.accounts.whoami(&second.access).await.unwrap().device, "PHONE");
    // A refresh token is no access token, and the other way round.
    assert!(unknown(&server.accounts, second.refresh.as_ref().unwrap()).await);
    refused!(server.accounts.refresh(&second.access).await, Error::UnknownToken { soft_logout: false });
    refused!(server.accounts.refresh("").await, Error::UnknownToken { soft_logout: false });
}

#[tokio::test]
async fn the_old_tokens_hold_until_a_new_one_is_used() {
    let server = Server::open().await;
    server.user("alice").await;
    let first = server.login("alice", refreshing("PHONE")).await.unwrap().tokens;
    let old = first.refresh.unwrap();
    let lost = server.accounts.refresh(&old).await.unwrap();
    // The answer got lost: the client asks again, and goes on with the old one meanwhile.
    assert!(server.accounts.whoami(&first.access).await.is_ok());
    let second = server.accounts.refresh(&old).await.unwrap();
    assert!(unknown(&server.accounts, &lost.access).await);
    refused!(server.accounts.refresh(&lost.refresh.unwrap()).await, Error::UnknownToken { soft_logout: false });
    assert!(server.accounts.whoami(&first.access).await.is_ok());
    // Used: now the old ones end.
    assert!(server.accounts.whoami(&second.access).await.is_ok());
    assert!(unknown(&server.accounts, &first.access).await);
    refused!(server.accounts.refresh(&old).await, Error::UnknownToken { soft_logout: false });
    assert!(server.accounts.whoami(&second.access).await.is_ok());
    // The new refresh token counts as use too.
    let third = server.accounts.refresh(second.refresh.as_ref().unwrap()).await.unwrap();
    let fourth = server.accounts.refresh(third.refresh.as_ref().unwrap()).await.unwrap();
    assert!(unknown(&server.accounts, &second.access).await);
    refused!(server.accounts.refresh(&second.refresh.unwrap()).await, Error::UnknownToken { soft_logout: false });
    assert!(server.accounts.whoami(&third.access).await.is_ok());
    assert!(server.accounts.whoami(&fourth.access).await.is_ok());
}

#[tokio::test]
async fn refreshing_at_once_leaves_one_pair_that_works() {
    let server = Server::open().await;
    server.user("alice").await;
    let old = server.login("alice", refreshing("PHONE")).await.unwrap().tokens.refresh.unwrap();
    let asked: Vec<_> = (0..6)
        .map(|_| {
            let (accounts, old) = (server.accounts.clone(), old.clone());
            tokio::spawn(async move { accounts.refresh(&old).await })
        })
        .collect();
    let mut good = 0;
    let mut pairs = Vec::new();
    for one in asked {
        pairs.push(one.await.unwrap().unwrap());
    }
    for pair in pairs {
        good += u32::from(server.accounts.whoami(&pair.access).await.is_ok());
    }
    assert_eq!(good, 1);
}

#[tokio::test]
async fn devices_are_listed_and_renamed() {
    let server = Server::open().await;
    let (_, who, _) = server.user("alice").await;
    let from = NewDevice { ip: Some("192.0.2.1".parse().unwrap()), ..device("PHONE") };
    let token = server.login("alice", from).await.unwrap().tokens.access;
    let phone = server.accounts.device(who.user_no, "PHONE").await.unwrap();
    assert_eq!((phone.name, phone.last_seen_ip.as_deref()), (None, Some("192.0.2.1")));
    let mut feed = server.store.feed();
    server.accounts.rename_device(who.user_no, "PHONE", Some("Telephone")).await.unwrap();
    let Heard::Commit(commit) = feed.next().await else { panic!("nothing heard") };
    assert!(matches!(commit.facts[..], [Fact::Devices { user, .. }] if user == who.user_no));
    server.accounts.rename_device(who.user_no, "PHONE", None).await.unwrap();
    let phone = server.accounts.device(who.user_no, "PHONE").await.unwrap();
    assert_eq!(phone.name.as_deref(), Some("Telephone"));
    refused!(server.accounts.rename_device(who.user_no, "NONE", Some("x")).await, Error::NotFound(_));
    refused!(server.accounts.device(who.user_no, "NONE").await, Error::NotFound(_));
    let long = "x".repeat(256);
    refused!(server.accounts.rename_device(who.user_no, "PHONE", Some(&long)).await, Error::InvalidParam(_));
    // Somebody else's device is none of ours.
    let (_, bob, _) = server.user("bob").await;
    refused!(server.accounts.device(bob.user_no, "PHONE").await, Error::NotFound(_));
    refused!(server.accounts.rename_device(bob.user_no, "PHONE", Some("x")).await, Error::NotFound(_));
    // Seen again: at once in the list, later on disk.
    server.wait(5000);
    let phone_who = server.accounts.whoami(&token).await.unwrap();
    server.accounts.seen(&phone_who, Some("192.0.2.2".parse().unwrap()));
    let listed = server.accounts.device(who.user_no, "PHONE").await.unwrap();
    assert_eq!(listed.last_seen_ip.as_deref(), Some("192.0.2.2"));
    assert_eq!(listed.last_seen_ts, Some(phone.last_seen_ts.unwrap() + 5000));
    let accounts = server.accounts.clone();
    tokio::spawn(async move { accounts.write_seen().await }).await.unwrap().unwrap();
    assert_eq!(server.accounts.device(who.user_no, "PHONE").await.unwrap(), listed);
}

#[tokio::test]
async fn deleting_a_device_wants_the_password() {
    let server = Server::open().await;
    let (_, who, _) = server.user("alice").await;
    let (_, bob, _) = server.user("bob").await;
    let phone = server.login("alice", device("PHONE")).await.unwrap().tokens.access;
    server.login("bob", device("PHONE")).await.unwrap();
    let ids = ["PHONE".to_owned(), "NONE".to_owned()];
    let asked = challenge(server.accounts.delete_devices(&who, &ids, None).await);
    assert!(server.accounts.whoami(&phone).await.is_ok());
    let wrong = auth(json!({ "type": "m.login.password", "session": asked.session, "password": "wrong" }));
    assert_eq!(refusal(server.accounts.delete_devices(&who, &ids, Some(&wrong)).await), "M_FORBIDDEN");
    let right = auth(json!({ "type": "m.login.password", "session": asked.session, "password": SECRET }));
    server.accounts.delete_devices(&who, &ids, Some(&right)).await.unwrap();
    assert!(unknown(&server.accounts, &phone).await);
    refused!(server.accounts.device(who.user_no, "PHONE").await, Error::NotFound(_));
    assert!(server.accounts.device(bob.user_no, "PHONE").await.is_ok());
    // The session is spent.
    assert_eq!(refusal(server.accounts.delete_devices(&who, &ids, Some(&right)).await), "M_UNKNOWN");
}

fn pusher(app: &str, key: &str, append: bool) -> NewPusher {
    NewPusher { app: app.to_owned(), key: key.to_owned(), json: b"{}".to_vec(), append, ..NewPusher::default() }
}

#[tokio::test]
async fn a_device_takes_its_pushers_with_it() {
    let server = Server::open().await;
    let (_, who, _) = server.user("alice").await;
    let token = server.login("alice", device("PHONE")).await.unwrap().tokens.access;
    let phone = server.accounts.whoami(&token).await.unwrap();
    server.accounts.set_pusher(&who, &pusher("app", "here", false)).await.unwrap();
    server.accounts.set_pusher(&phone, &pusher("app", "there", false)).await.unwrap();
    assert_eq!(server.accounts.pushers(who.user_no).await.unwrap().len(), 2);
    server.accounts.logout(&phone).await.unwrap();
    assert_eq!(server.accounts.pushers(who.user_no).await.unwrap().len(), 1);
    // A telephone that changes hands stops telling its former owner.
    let (_, bob, _) = server.user("bob").await;
    server.accounts.set_pusher(&bob, &pusher("app", "here", true)).await.unwrap();
    assert_eq!(server.accounts.pushers(who.user_no).await.unwrap().len(), 1);
    server.accounts.set_pusher(&bob, &pusher("app", "here", false)).await.unwrap();
    assert!(server.accounts.pushers(who.user_no).await.unwrap().is_empty());
    server.accounts.delete_pusher(bob.user_no, "app", "here").await.unwrap();
    assert!(server.accounts.pushers(bob.user_no).await.unwrap().is_empty());
    for (app, key) in [("", "x"), ("x", ""), (&"x".repeat(65)[..], "x"), ("x", &"x".repeat(513)[..])] {
        refused!(server.accounts.set_pusher(&bob, &pusher(app, key, false)).await, Error::InvalidParam(_));
    }
}

#[tokio::test]
async fn a_new_password_logs_the_others_out() {
    let server = Server::open().await;
    let (_, who, here) = server.user("alice").await;
    let there = server.login("alice", device("PHONE")).await.unwrap().tokens.access;
    let accounts = &server.accounts;
    challenge(accounts.change_password(&who, "a new secret", true, None).await);
    refused!(accounts.change_password(&who, "short", true, Some(&own_password())).await, Error::WeakPassword(_));
    accounts.change_password(&who, "a new secret", true, Some(&own_password())).await.unwrap();
    assert!(accounts.whoami(&here).await.is_ok());
    assert!(unknown(accounts, &there).await);
    refused!(server.login("alice", NewDevice::default()).await, Error::BadCredentials);
    accounts.login("alice", password("a new secret"), &device("PHONE")).await.unwrap();
    // Others stay if they are to.
    let new = auth(json!({ "type": "m.login.password", "password": "a new secret" }));
    accounts.change_password(&who, SECRET, false, Some(&new)).await.unwrap();
    assert_eq!(accounts.devices(who.user_no).await.unwrap().len(), 2);
    // The administrator's way takes every device.
    accounts.set_password(&who.user, password("by the administrator")).await.unwrap();
    assert!(unknown(accounts, &here).await);
    refused!(accounts.set_password(user_id("@nobody:stoa.test"), password(SECRET)).await, Error::NotFound(_));
}

#[tokio::test]
async fn a_deactivated_account_is_closed_for_good() {
    let server = Server::open().await;
    let (alice, who, token) = server.user("alice").await;
    let phone = server.login("alice", refreshing("PHONE")).await.unwrap().tokens;
    let accounts = &server.accounts;
    accounts.set_pusher(&who, &pusher("app", "key", false)).await.unwrap();
    accounts.set_account_data(&who, &alice, None, "m.direct", &"{\"a\":1}".into()).await.unwrap();
    accounts.deactivate(&alice, false).await.unwrap();
    for token in [&token, &phone.access] {
        assert!(unknown(accounts, token).await);
    }
    refused!(accounts.refresh(&phone.refresh.unwrap()).await, Error::UnknownToken { soft_logout: false });
    refused!(server.login("alice", NewDevice::default()).await, Error::UserDeactivated);
    refused!(accounts.set_password(&alice, password(SECRET)).await, Error::UserDeactivated);
    assert!(accounts.pushers(who.user_no).await.unwrap().is_empty());
    assert!(accounts.account_data(&who, &alice, None, "m.direct").await.is_ok());
    assert!(accounts.profile(&alice).await.is_ok());
    // Twice is fine, and with `erase` everything goes.
    accounts.deactivate(&alice, true).await.unwrap();
    refused!(accounts.account_data(&who, &alice, None, "m.direct").await, Error::NotFound(_));
    refused!(accounts.profile(&alice).await, Error::NotFound(_));
    let row = accounts.account(&alice).await.unwrap().unwrap().row;
    assert!(row.erased && row.deactivated.is_some());
    refused!(accounts.deactivate(user_id("@nobody:stoa.test"), false).await, Error::NotFound(_));
}

#[tokio::test]
async fn administrators_are_known_by_their_tokens() {
    let server = Server::open().await;
    let (alice, who, token) = server.user("alice").await;
    assert!(!who.admin);
    server.accounts.set_admin(&alice, true).await.unwrap();
    assert!(server.accounts.whoami(&token).await.unwrap().admin);
    server.accounts.set_admin(&alice, false).await.unwrap();
    assert!(!server.accounts.whoami(&token).await.unwrap().admin);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_logout_is_seen_by_everybody_at_once() {
    let server = Server::open().await;
    server.user("alice").await;
    for round in 0..40 {
        let token = server.login("alice", device(&format!("D{round}"))).await.unwrap().tokens.access;
        let asking: Vec<_> = (0..3)
            .map(|_| {
                let (accounts, token) = (server.accounts.clone(), token.clone());
                tokio::spawn(async move { while accounts.whoami(&token).await.is_ok() {} })
            })
            .collect();
        let who: Who = server.accounts.whoami(&token).await.unwrap();
        server.accounts.logout(&who).await.unwrap();
        assert!(unknown(&server.accounts, &token).await);
        for one in asking {
            tokio::time::timeout(std::time::Duration::from_secs(10), one).await.unwrap().unwrap();
        }
        assert!(unknown(&server.accounts, &token).await);
    }
}

#[tokio::test]
async fn more_sessions_than_the_cache_holds_are_fine() {
    let server = Server::new(Config { cached_tokens: 16, ..config() }).await;
    server.user("alice").await;
    let mut tokens = Vec::new();
    for n in 0..50 {
        tokens.push(server.login("alice", device(&format!("D{n}"))).await.unwrap().tokens.access);
    }
    for _ in 0..2 {
        for (n, token) in tokens.iter().enumerate() {
            assert_eq!(server.accounts.whoami(token).await.unwrap().device, format!("D{n}"));
        }
    }
}

/// Not a test of right and wrong: `cargo test --release -- --ignored --nocapture how_long` tells.
#[tokio::test]
#[ignore = "a measurement"]
#[allow(clippy::disallowed_methods, clippy::print_stdout)]
async fn how_long_whoami_takes() {
    let server = Server::open().await;
    let (_, who, token) = server.user("alice").await;
    let begin = Instant::now();
    const ROUNDS: u32 = 1_000_000;
    for _ in 0..ROUNDS {
        std::hint::black_box(server.accounts.whoami(&token).await.unwrap());
    }
    println!("whoami: {:?}", begin.elapsed() / ROUNDS);
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        server.accounts.seen(&who, None);
    }
    println!("seen: {:?}", begin.elapsed() / ROUNDS);
}
