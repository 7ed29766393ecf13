//! Leaving servers alone that fail, limits, and what an answer means.

mod common;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use common::*;
use futures_util::future::join_all;
use ruma_federation_api::{discovery::get_server_version, event::get_event, transactions::send_transaction_message};
use serde_json::json;
use stoa_remote::{Config, Error, Options, TransportError, config::Tuning};

const THEM: &str = "them.example";

fn version() -> get_server_version::v1::Request {
    get_server_version::v1::Request::new()
}

fn event() -> get_event::v1::Request {
    get_event::v1::Request::new("$event".try_into().unwrap())
}

async fn ask(world: &World) -> Result<(), Error> {
    world.remote.call(&name(THEM), version()).await.map(|_| ())
}

async fn until(world: &World) -> Option<u64> {
    world.remote.backing_off(&name(THEM)).await.unwrap()
}

#[tokio::test]
async fn failures_double_the_pause_and_success_ends_it() {
    let world = World::plain().await;
    world.net.down(THEM);
    let mut pauses = Vec::new();
    for _ in 0..20 {
        assert!(matches!(ask(&world).await, Err(Error::Transport(TransportError::Connect(_)))));
        let until = until(&world).await.unwrap();
        pauses.push(until - world.now());
        // Nobody is asked meanwhile.
        let asked = world.net.count(THEM);
        assert!(matches!(ask(&world).await, Err(Error::BackingOff { until: said }) if said == until));
        assert_eq!(world.net.count(THEM), asked);
        world.wait(until - world.now());
    }
    for (n, pause) in pauses.iter().enumerate() {
        let span = (5_000u64 << n).min(DAY);
        assert!((span - span / 4..=span).contains(pause), "{n}: {pause}");
    }
    assert!(pauses[10..].iter().any(|pause| !pause.is_multiple_of(5_000)), "there is no jitter");
    world.net.serve(THEM, |_| ok(&json!({})));
    ask(&world).await.unwrap();
    assert_eq!(until(&world).await, None);
    world.net.down(THEM);
    ask(&world).await.unwrap_err();
    assert!(until(&world).await.unwrap() <= world.now() + 5_000);
}

#[tokio::test]
async fn a_pause_outlives_a_restart() {
    let mut world = World::plain().await;
    world.net.down(THEM);
    ask(&world).await.unwrap_err();
    let before = until(&world).await;
    world.restart();
    assert_eq!(until(&world).await, before);
    assert!(matches!(ask(&world).await, Err(Error::BackingOff { .. })));
    // And so does its end.
    world.remote.heard_from(&name(THEM)).await;
    world.restart();
    assert_eq!(until(&world).await, None);
}

#[tokio::test]
async fn who_speaks_is_there_again() {
    let world = World::plain().await;
    let mut back = world.remote.back_again();
    world.net.down(THEM);
    ask(&world).await.unwrap_err();
    world.remote.heard_from(&name("other.example")).await;
    assert!(until(&world).await.is_some());
    world.remote.heard_from(&name(THEM)).await;
    assert_eq!(until(&world).await, None);
    assert_eq!(back.recv().await.unwrap(), THEM);
    // It is news only once.
    world.remote.heard_from(&name(THEM)).await;
    assert!(back.try_recv().is_err());
}

#[tokio::test]
async fn many_that_fail_together_are_one_failure() {
    let world = World::plain().await;
    world.net.down(THEM);
    join_all((0..10).map(|_| ask(&world))).await;
    assert_eq!(world.net.count(THEM), 10);
    assert!(until(&world).await.unwrap() <= world.now() + 5_000);
    world.wait(5_001);
    ask(&world).await.unwrap_err();
    assert!(until(&world).await.unwrap() > world.now() + 7_000, "the second failure counts");
}

#[tokio::test]
async fn an_answer_that_refuses_is_an_answer() {
    let world = World::plain().await;
    world.net.serve(THEM, |_| answer(404, r#"{"errcode":"M_NOT_FOUND","error":"no such event"}"#));
    let Err(Error::Answer(refused)) = world.remote.call(&name(THEM), event()).await else { panic!() };
    assert_eq!((refused.status, refused.errcode.as_deref()), (404, Some("M_NOT_FOUND")));
    assert_eq!(refused.message.as_deref(), Some("no such event"));
    assert_eq!(until(&world).await, None);
    // A web server knows nothing of the homeserver: it neither fails nor is it there again.
    world.net.down(THEM);
    ask(&world).await.unwrap_err();
    let before = until(&world).await;
    world.net.serve(THEM, |_| answer(404, "<html>"));
    let patient = Options { ignore_backoff: true, ..Options::default() };
    world.remote.call_with(&name(THEM), event(), patient).await.unwrap_err();
    assert_eq!(until(&world).await, before);
    // A Matrix error is one of a server that lives.
    world.net.serve(THEM, |_| answer(403, r#"{"errcode":"M_FORBIDDEN"}"#));
    world.remote.call_with(&name(THEM), event(), patient).await.unwrap_err();
    assert_eq!(until(&world).await, None);
}

#[tokio::test]
async fn errors_of_the_server_and_redirects_are_failures() {
    for status in [500, 502, 503, 302] {
        let world = World::plain().await;
        world.net.serve(THEM, move |_| answer(status, "{}"));
        assert!(matches!(ask(&world).await, Err(Error::Answer(_))));
        assert!(until(&world).await.is_some(), "{status}");
    }
}

#[tokio::test]
async fn who_asks_for_a_pause_gets_it() {
    let world = World::plain().await;
    world.net.serve(THEM, |_| answer(429, r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":30000}"#));
    ask(&world).await.unwrap_err();
    assert_eq!(until(&world).await, Some(world.now() + 30_000));
    world.wait(30_000);
    // The header counts before the body, and nobody can ask for ever.
    world.net.serve(THEM, |_| {
        let mut answer = answer(429, r#"{"retry_after_ms":1}"#)?;
        answer.headers_mut().insert("retry-after", "999999999".parse().unwrap());
        Ok(answer)
    });
    ask(&world).await.unwrap_err();
    assert_eq!(until(&world).await, Some(world.now() + HOUR));
    // It did not fail, so the next failure is the first.
    world.wait(HOUR);
    world.net.down(THEM);
    ask(&world).await.unwrap_err();
    assert!(until(&world).await.unwrap() <= world.now() + 5_000);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_fails() {
    struct Never;
    impl stoa_remote::Transport for Never {
        fn call(
            &self,
            _: &stoa_event::ids::ServerName,
            _: http::Request<bytes::Bytes>,
            _: stoa_remote::Limits,
        ) -> futures_util::future::BoxFuture<'_, Answer> {
            Box::pin(std::future::pending())
        }
    }
    let mut world = World::plain().await;
    let (env, _) = env();
    world.remote = stoa_remote::Remote::new(
        world.store.clone(),
        env,
        name(US),
        world.key.clone(),
        std::sync::Arc::new(Never),
        Config::default(),
    );
    let quick = Options { timeout: Some(Duration::from_secs(3)), ..Options::default() };
    let asked = world.remote.call_with(&name(THEM), version(), quick).await;
    assert!(matches!(asked, Err(Error::Transport(TransportError::Timeout))));
    assert!(until(&world).await.is_some());
}

#[tokio::test]
async fn lists_and_ourselves() {
    let config = Config { deny: vec!["*.evil.example".to_owned()], ..Config::default() };
    let world = World::new(config).await;
    let evil = name("very.evil.example");
    assert!(!world.remote.is_allowed(&evil) && world.remote.is_allowed(&name(THEM)));
    assert!(matches!(world.remote.call(&evil, version()).await, Err(Error::NotAllowed(_))));
    assert!(matches!(world.remote.call(&name(US), version()).await, Err(Error::Ourselves)));
    assert!(world.net.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_answer_that_is_too_large_or_something_else() {
    let world = World::plain().await;
    world.net.serve(THEM, |_| answer(200, vec![b' '; 101]));
    let small = Options { max_response: Some(100), ..Options::default() };
    let asked = world.remote.call_with(&name(THEM), version(), small).await;
    assert!(matches!(asked, Err(Error::Transport(TransportError::TooLarge(100)))));
    assert!(matches!(ask(&world).await, Err(Error::Malformed(_))));
    assert_eq!(until(&world).await, None);
}

#[tokio::test]
async fn one_server_gets_so_many_requests_at_once() {
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    struct Slow;
    impl stoa_remote::Transport for Slow {
        fn call(
            &self,
            _: &stoa_event::ids::ServerName,
            _: http::Request<bytes::Bytes>,
            _: stoa_remote::Limits,
        ) -> futures_util::future::BoxFuture<'_, Answer> {
            Box::pin(async {
                MOST.fetch_max(RUNNING.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                RUNNING.fetch_sub(1, Ordering::SeqCst);
                ok(&json!({}))
            })
        }
    }
    let world = World::plain().await;
    let (env, _) = env();
    let tuning = Tuning { requests_per_server: 3, waiting_per_server: 5, ..Tuning::default() };
    let config = Config { tuning, ..Config::default() };
    let remote = stoa_remote::Remote::new(
        world.store.clone(),
        env,
        name(US),
        world.key.clone(),
        std::sync::Arc::new(Slow),
        config,
    );
    let them = name(THEM);
    let asked = join_all((0..10).map(|_| remote.call(&them, version()))).await;
    assert_eq!(MOST.load(Ordering::SeqCst), 3);
    assert_eq!(asked.iter().filter(|answer| answer.is_ok()).count(), 8);
    assert_eq!(asked.iter().filter(|answer| matches!(answer, Err(Error::Busy))).count(), 2);
}

#[tokio::test]
async fn requests_are_signed_where_the_endpoint_says_so() {
    use ruma_federation_api::authentication::XMatrix;
    let world = World::plain().await;
    world.net.serve(THEM, |request| match request.uri().path() {
        "/_matrix/federation/v1/version" => ok(&json!({})),
        _ => ok(&json!({ "pdus": {} })),
    });
    ask(&world).await.unwrap();
    let mut transaction = send_transaction_message::v1::Request::new(
        "txn/1".into(),
        name(US),
        ruma_common::MilliSecondsSinceUnixEpoch(1u32.into()),
    );
    let pdu = json!({ "type": "m.room.message", "content": { "body": "a\n\u{1}é" } });
    transaction.pdus.push(serde_json::value::to_raw_value(&pdu).unwrap());
    world.remote.call(&name(THEM), transaction).await.unwrap();
    let asked = world.net.asked.lock().unwrap();
    assert_eq!(asked[0].1.headers().get("authorization"), None);
    let request = &asked[1].1;
    assert_eq!(request.method(), "PUT");
    assert_eq!(request.uri(), "/_matrix/federation/v1/send/txn%2F1");
    assert_eq!(request.headers()["content-type"], "application/json");
    assert!(request.headers()["user-agent"].to_str().unwrap().starts_with("Stoa/"));
    let header = XMatrix::extract_from_http_headers(request.headers()).unwrap();
    assert_eq!((header.origin.as_str(), header.destination.as_deref()), (US, Some(&*name(THEM))));
    let public = ruma_common::serde::Base64::new(world.key.verify_key().as_bytes().to_vec());
    let keys = [(US.to_owned(), [("ed25519:us".to_owned(), public)].into())].into();
    header.verify_http_request(request, &name(THEM), &keys).unwrap();
}
