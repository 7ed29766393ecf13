//! Registration and user-interactive authentication.

mod common;

use common::{SECRET, Server, auth, challenge, config, new_account, password, refusal, user_id};
use serde_json::json;
use stoa_accounts::{Config, Error, NewAccount, Registration, uia::Operation};

fn by_token() -> Config {
    Config { registration: Registration::Token(vec!["letmein".into(), "other".into()]), ..config() }
}

#[tokio::test]
async fn an_account_is_made_after_the_dummy_stage() {
    let server = Server::open().await;
    let new = new_account("alice");
    let asked = challenge(server.accounts.register(&new, None).await);
    assert_eq!(asked.flows[0].stages, ["m.login.dummy"]);
    assert_eq!(asked.refused, None);
    let body = serde_json::to_value(&asked).unwrap();
    assert_eq!(body, json!({ "session": asked.session, "flows": [{ "stages": ["m.login.dummy"] }], "params": {} }));
    // Nothing was made yet.
    assert!(!server.accounts.has_users().await.unwrap());
    let answer = auth(json!({ "type": "m.login.dummy", "session": asked.session }));
    let made = server.accounts.register(&new, Some(&answer)).await.unwrap();
    assert_eq!(made.user, "@alice:stoa.test");
    let (device, tokens) = made.session.unwrap();
    let who = server.accounts.whoami(&tokens.access).await.unwrap();
    assert_eq!((who.user.as_str(), who.device, who.admin, who.guest), ("@alice:stoa.test", device, false, false));
    assert!(tokens.refresh.is_none() && tokens.expires_in_ms.is_none());
    assert_eq!(server.accounts.profile(&who.user).await.unwrap()["displayname"], "alice");
}

#[tokio::test]
async fn a_session_makes_one_account() {
    let server = Server::open().await;
    let asked = challenge(server.accounts.register(&new_account("alice"), None).await);
    let answer = auth(json!({ "type": "m.login.dummy", "session": asked.session }));
    server.accounts.register(&new_account("alice"), Some(&answer)).await.unwrap();
    assert_eq!(refusal(server.accounts.register(&new_account("bob"), Some(&answer)).await), "M_UNKNOWN");
    // Without a session, as old clients do, each request begins its own.
    let bare = auth(json!({ "type": "m.login.dummy" }));
    server.accounts.register(&new_account("bob"), Some(&bare)).await.unwrap();
}

#[tokio::test]
async fn a_completed_session_survives_a_refused_operation() {
    let server = Server::open().await;
    let asked = challenge(server.accounts.register(&NewAccount::default(), None).await);
    let answer = auth(json!({ "type": "m.login.dummy", "session": asked.session }));
    let without = NewAccount { username: Some("alice".into()), ..NewAccount::default() };
    refused!(server.accounts.register(&without, Some(&answer)).await, Error::MissingParam("password"));
    // The stage is done: only the session is named now.
    let again = auth(json!({ "session": asked.session }));
    let made = server.accounts.register(&new_account("alice"), Some(&again)).await.unwrap();
    assert_eq!(made.user, "@alice:stoa.test");
}

#[tokio::test]
async fn sessions_end() {
    let server = Server::open().await;
    let asked = challenge(server.accounts.register(&new_account("alice"), None).await);
    server.wait(config().uia_ms);
    let answer = auth(json!({ "type": "m.login.dummy", "session": asked.session }));
    assert_eq!(refusal(server.accounts.register(&new_account("alice"), Some(&answer)).await), "M_UNKNOWN");
}

#[tokio::test]
async fn stages_are_taken_as_asked_for() {
    let server = Server::open().await;
    let new = new_account("alice");
    let first = challenge(server.accounts.register(&new, None).await);
    for kind in ["m.login.password", "m.login.registration_token", "m.login.recaptcha", ""] {
        let wrong = auth(json!({ "type": kind, "session": first.session, "token": "x", "password": SECRET }));
        let again = challenge(server.accounts.register(&new, Some(&wrong)).await);
        assert_eq!(again.refused.unwrap().errcode, "M_UNRECOGNIZED", "{kind}");
        assert_eq!(again.session, first.session);
        assert!(again.completed.is_empty());
    }
    // Asking only for how it stands is no error, and no pass either.
    let ask = auth(json!({ "session": first.session }));
    assert_eq!(challenge(server.accounts.register(&new, Some(&ask)).await).refused, None);
    let empty = auth(json!({}));
    assert_eq!(challenge(server.accounts.register(&new, Some(&empty)).await).refused, None);
    assert!(!server.accounts.has_users().await.unwrap());
}

#[tokio::test]
async fn closed_means_closed() {
    let server = Server::new(Config { registration: Registration::Closed, ..config() }).await;
    refused!(server.accounts.register(&new_account("alice"), None).await, Error::Forbidden(_));
    let answer = auth(json!({ "type": "m.login.dummy" }));
    refused!(server.accounts.register(&new_account("alice"), Some(&answer)).await, Error::Forbidden(_));
    // The administrator still can.
    server.accounts.create_user("alice", password(SECRET), true).await.unwrap();
    let all = server.accounts.list_users().await.unwrap();
    assert_eq!(all.len(), 1);
    assert!(all[0].row.admin && all[0].id == "@alice:stoa.test");
}

#[tokio::test]
async fn a_registration_token_is_asked_for() {
    let server = Server::new(by_token()).await;
    let new = new_account("alice");
    let asked = challenge(server.accounts.register(&new, None).await);
    assert_eq!(asked.flows[0].stages, ["m.login.registration_token"]);
    let attempt = |token: Option<&str>| {
        auth(json!({ "type": "m.login.registration_token", "session": asked.session, "token": token }))
    };
    for wrong in ["", "letmei", "letmein ", "LETMEIN"] {
        assert_eq!(refusal(server.accounts.register(&new, Some(&attempt(Some(wrong)))).await), "M_FORBIDDEN");
        assert!(!server.accounts.is_registration_token(wrong));
    }
    assert_eq!(refusal(server.accounts.register(&new, Some(&attempt(None))).await), "M_MISSING_PARAM");
    let dummy = auth(json!({ "type": "m.login.dummy", "session": asked.session }));
    assert_eq!(refusal(server.accounts.register(&new, Some(&dummy)).await), "M_UNRECOGNIZED");
    assert!(server.accounts.is_registration_token("other"));
    server.accounts.register(&new, Some(&attempt(Some("other")))).await.unwrap();
}

#[tokio::test]
async fn names_have_rules() {
    let server = Server::open().await;
    for bad in
        ["", "a b", "ä", "a:b", "@alice:stoa.test", "a\0", "a\"", "a#b", "a?b", "a\\b", "a[b", "a@b", "\u{202e}a"]
    {
        refused!(server.accounts.username_available(bad).await, Error::InvalidUsername(_));
        refused!(server.accounts.register(&new_account(bad), None).await, Error::InvalidUsername(_));
        refused!(server.accounts.create_user(bad, password(SECRET), false).await, Error::InvalidUsername(_));
    }
    for good in ["a", "0", "a.b_c=d-e/f+g", "-", "alice2"] {
        server.accounts.username_available(good).await.unwrap();
    }
    // 255 bytes for the whole id: `@`, `:stoa.test` and the rest.
    server.accounts.username_available(&"a".repeat(244)).await.unwrap();
    refused!(server.accounts.username_available(&"a".repeat(245)).await, Error::InvalidUsername(_));
    refused!(server.accounts.username_available("_bridge_x").await, Error::Exclusive);
    refused!(server.accounts.register(&new_account("_x"), None).await, Error::Exclusive);
}

#[tokio::test]
async fn capitals_become_small() {
    let server = Server::open().await;
    let answer = auth(json!({ "type": "m.login.dummy" }));
    let made = server.accounts.register(&new_account("Alice"), Some(&answer)).await.unwrap();
    assert_eq!(made.user, "@alice:stoa.test");
    refused!(server.accounts.register(&new_account("ALICE"), Some(&answer)).await, Error::UserInUse);
}

#[tokio::test]
async fn a_name_is_given_out_once() {
    let server = Server::open().await;
    let answer = auth(json!({ "type": "m.login.dummy" }));
    // All at once: one wins.
    let attempts = (0..8).map(|_| {
        let (accounts, answer) = (server.accounts.clone(), answer.clone());
        tokio::spawn(async move { accounts.register(&new_account("alice"), Some(&answer)).await.is_ok() })
    });
    let mut won = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        won += u32::from(attempt.await.unwrap());
    }
    assert_eq!(won, 1);
    refused!(server.accounts.username_available("alice").await, Error::UserInUse);
    // Not even when nobody uses it any more.
    server.accounts.deactivate(user_id("@alice:stoa.test"), true).await.unwrap();
    refused!(server.accounts.username_available("alice").await, Error::UserInUse);
    refused!(server.accounts.create_user("alice", password(SECRET), false).await, Error::UserInUse);
}

#[tokio::test]
async fn what_was_not_asked_for_is_made_up() {
    let server = Server::open().await;
    let answer = auth(json!({ "type": "m.login.dummy" }));
    let new = NewAccount { username: None, ..new_account("") };
    let first = server.accounts.register(&new, Some(&answer)).await.unwrap();
    let second = server.accounts.register(&new, Some(&answer)).await.unwrap();
    assert_ne!(first.user, second.user);
    assert_ne!(first.session.unwrap().0, second.session.unwrap().0);
    // No login: no token.
    let quiet = NewAccount { device: None, ..new_account("quiet") };
    assert!(server.accounts.register(&quiet, Some(&answer)).await.unwrap().session.is_none());
    assert!(
        server
            .accounts
            .devices(server.accounts.account(user_id("@quiet:stoa.test")).await.unwrap().unwrap().no)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn passwords_have_rules() {
    let server = Server::open().await;
    let with = |text: &str| NewAccount { password: Some(text.to_owned()), ..new_account("alice") };
    refused!(server.accounts.register(&with(""), None).await, Error::WeakPassword(_));
    refused!(server.accounts.register(&with("1234567"), None).await, Error::WeakPassword(_));
    refused!(server.accounts.register(&with(&"x".repeat(1025)), None).await, Error::InvalidParam(_));
    // Eight characters, whatever their bytes.
    let answer = auth(json!({ "type": "m.login.dummy" }));
    server.accounts.register(&with("ääääöööö"), Some(&answer)).await.unwrap();
}

#[tokio::test]
async fn a_session_belongs_to_one_operation_of_one_user() {
    let server = Server::open().await;
    let (_, alice, _) = server.user("alice").await;
    let (_, bob, _) = server.user("bob").await;
    let right = |session: &str| {
        let who = json!({ "type": "m.id.user", "user": "alice" });
        auth(json!({ "type": "m.login.password", "session": session, "identifier": who, "password": SECRET }))
    };
    let asked = challenge(server.accounts.confirm(&alice, Operation::deactivate(), None).await);
    assert_eq!(asked.flows[0].stages, ["m.login.password"]);
    let ids = |id: &str| Operation::delete_devices(&[id.to_owned()]);
    for other in [Operation::password(), ids("A"), Operation::register()] {
        assert_eq!(refusal(server.accounts.confirm(&alice, other, Some(&right(&asked.session))).await), "M_UNKNOWN");
    }
    let bobs = server.accounts.confirm(&bob, Operation::deactivate(), Some(&right(&asked.session))).await;
    assert_eq!(refusal(bobs), "M_UNKNOWN");
    // It was not spent by all that.
    let proof = server.accounts.confirm(&alice, Operation::deactivate(), Some(&right(&asked.session))).await.unwrap();
    server.accounts.settle(proof, Ok(())).unwrap();
    // Devices are bound too.
    let asked = challenge(server.accounts.confirm(&alice, ids("A"), None).await);
    assert_eq!(refusal(server.accounts.confirm(&alice, ids("B"), Some(&right(&asked.session))).await), "M_UNKNOWN");
}

#[tokio::test]
async fn the_password_stage_wants_the_own_password() {
    let server = Server::open().await;
    let (_, alice, _) = server.user("alice").await;
    server.accounts.create_user("bob", password("another secret"), false).await.unwrap();
    let attempt = |value: serde_json::Value| {
        let accounts = &server.accounts;
        let alice = &alice;
        async move { accounts.confirm(alice, Operation::password(), Some(&auth(value))).await }
    };
    let id = |user: &str| json!({ "type": "m.id.user", "user": user });
    let wrong = [
        json!({ "type": "m.login.password", "identifier": id("alice"), "password": "wrong" }),
        json!({ "type": "m.login.password", "identifier": id("bob"), "password": "another secret" }),
        json!({ "type": "m.login.password", "identifier": id("bob"), "password": SECRET }),
        json!({ "type": "m.login.password", "identifier": id("@alice:elsewhere.test"), "password": SECRET }),
        json!({ "type": "m.login.password", "user": "bob", "password": SECRET }),
        json!({ "type": "m.login.password", "password": SECRET, "identifier":
            { "type": "m.id.thirdparty", "medium": "email", "address": "alice@stoa.test", "user": "alice" } }),
    ];
    for value in wrong {
        assert_eq!(refusal(attempt(value.clone()).await), "M_FORBIDDEN", "{value}");
    }
    let none = json!({ "type": "m.login.password", "identifier": id("alice") });
    assert_eq!(refusal(attempt(none).await), "M_MISSING_PARAM");
    for value in [
        json!({ "type": "m.login.password", "identifier": id("alice"), "password": SECRET }),
        json!({ "type": "m.login.password", "identifier": id("@alice:stoa.test"), "password": SECRET }),
        json!({ "type": "m.login.password", "user": "@alice:stoa.test", "password": SECRET }),
        json!({ "type": "m.login.password", "password": SECRET }),
    ] {
        let proof = attempt(value).await.unwrap();
        server.accounts.settle(proof, Ok(())).unwrap();
    }
}

#[test]
fn nothing_secret_is_printed() {
    let shown = format!("{:?}", auth(json!({ "type": "m.login.password", "password": SECRET, "token": "tok" })));
    assert!(!shown.contains(SECRET) && !shown.contains("tok\""), "{shown}");
}
