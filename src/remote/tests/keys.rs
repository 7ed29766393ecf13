//! The key ring: where keys come from, which are believed, for how long, and how often anybody is asked.

mod common;

use std::sync::Arc;

use common::*;
use futures_util::future::join_all;
use serde_json::{Value, json};
use stoa_event::sign::{Keys, verify_json};
use stoa_remote::{
    Config, Error, Unauthorized,
    config::Tuning,
    keys::{Wanted, document::LONGEST_VALIDITY_MS, read_wanted},
    xmatrix,
};

const THEM: &str = "them.example";
const NOTARY: &str = "notary.example";

fn serve(world: &World, server: &str, document: Value) {
    world.net.serve(server, move |request| {
        assert_eq!((request.method().as_str(), request.uri().path()), ("GET", "/_matrix/key/v2/server"));
        assert!(request.headers().get("authorization").is_none());
        ok(&document)
    });
}

async fn fetch(world: &World, server: &str, id: &str, at: Option<u64>) -> Option<u64> {
    world.remote.keys().fetch(&wanted(&[(server, id)]), at).await;
    world.remote.keys().known().key(&name(server), id).map(|known| known.valid_until_ts)
}

#[tokio::test]
async fn a_key_comes_from_its_server_then_from_memory_then_from_the_store() {
    let mut world = World::plain().await;
    serve(&world, THEM, document(THEM, &[&key(2, "one")], &[], START + DAY));
    assert_eq!(fetch(&world, THEM, "ed25519:one", None).await, Some(START + DAY));
    assert_eq!(fetch(&world, THEM, "ed25519:one", Some(START)).await, Some(START + DAY));
    assert_eq!(world.net.count(THEM), 1);
    world.restart();
    assert!(world.remote.keys().known().key(&name(THEM), "ed25519:one").is_none());
    world.net.down(THEM);
    assert_eq!(fetch(&world, THEM, "ed25519:one", None).await, Some(START + DAY));
    assert_eq!(world.net.count(THEM), 1);
    let known = world.remote.keys().known().key(&name(THEM), "ed25519:one").unwrap();
    assert_eq!(known.key, key(2, "one").verify_key());
}

#[tokio::test]
async fn a_key_is_valid_for_seven_days_at_most() {
    let world = World::plain().await;
    serve(&world, THEM, document(THEM, &[&key(2, "one")], &[], START + 1000 * DAY));
    assert_eq!(fetch(&world, THEM, "ed25519:one", None).await, Some(START + LONGEST_VALIDITY_MS));
}

#[tokio::test]
async fn a_key_that_ended_is_asked_for_again_if_the_event_is_newer() {
    let world = World::plain().await;
    serve(&world, THEM, document(THEM, &[&key(2, "one")], &[], START + HOUR));
    fetch(&world, THEM, "ed25519:one", None).await;
    world.wait(DAY);
    // An event from when it was valid.
    fetch(&world, THEM, "ed25519:one", Some(START)).await;
    assert_eq!(world.net.count(THEM), 1);
    serve(&world, THEM, document(THEM, &[&key(2, "one")], &[], START + 2 * DAY));
    assert_eq!(fetch(&world, THEM, "ed25519:one", Some(START + DAY)).await, Some(START + 2 * DAY));
    // Nobody can know more of an event from the future.
    fetch(&world, THEM, "ed25519:one", Some(START + 1000 * DAY)).await;
    assert_eq!(world.net.count(THEM), 2);
}

#[tokio::test]
async fn each_key_has_a_time_of_its_own() {
    let world = World::plain().await;
    let (gone, there) = ("gone.example", "there.example");
    for server in [gone, there] {
        serve(&world, server, document(server, &[&key(2, "one")], &[], START + HOUR));
        fetch(&world, server, "ed25519:one", None).await;
    }
    world.wait(DAY);
    serve(&world, there, document(there, &[&key(2, "one")], &[], START + 2 * DAY));
    let each = |server: &str, at| (name(server), "ed25519:one".to_owned(), Some(at));
    // Of one server there is an old event only, of the other an old and a new one.
    let wanted = [each(gone, START), each(there, START), each(there, START + DAY), each(there, START + 1)];
    world.remote.keys().fetch_each(wanted).await;
    assert_eq!((world.net.count(gone), world.net.count(there)), (1, 2));
    let known = world.remote.keys().known().key(&name(there), "ed25519:one").unwrap();
    assert_eq!(known.valid_until_ts, START + 2 * DAY);
}

#[tokio::test]
async fn after_a_rotation_both_keys_are_known_the_old_one_until_then() {
    let world = World::plain().await;
    let (one, two) = (key(2, "one"), key(3, "two"));
    serve(&world, THEM, document(THEM, &[&one], &[], START + DAY));
    fetch(&world, THEM, "ed25519:one", None).await;
    world.wait(HOUR);
    serve(&world, THEM, document(THEM, &[&two], &[(&one, START + 5)], START + 2 * DAY));
    assert_eq!(fetch(&world, THEM, "ed25519:two", None).await, Some(START + 2 * DAY));
    assert_eq!(fetch(&world, THEM, "ed25519:one", None).await, Some(START + 5));
    // Whoever asks for it at a later time learns nothing from asking again.
    assert_eq!(fetch(&world, THEM, "ed25519:one", Some(START + HOUR)).await, Some(START + 5));
    assert_eq!(world.net.count(THEM), 2);
    // A key that the server no longer names is not forgotten.
    world.wait(DAY * 3);
    serve(&world, THEM, document(THEM, &[&key(4, "three")], &[], START + 5 * DAY));
    fetch(&world, THEM, "ed25519:three", None).await;
    assert_eq!(fetch(&world, THEM, "ed25519:one", None).await, Some(START + 5));
    assert_eq!(fetch(&world, THEM, "ed25519:two", None).await, Some(START + 2 * DAY));
}

#[tokio::test]
async fn an_old_key_is_not_valid_in_the_future() {
    let world = World::plain().await;
    let (one, two) = (key(2, "one"), key(3, "two"));
    serve(&world, THEM, document(THEM, &[&two], &[(&one, START + 1000 * DAY)], START + DAY));
    assert_eq!(fetch(&world, THEM, "ed25519:one", None).await, Some(START));
}

#[tokio::test]
async fn documents_that_are_not_to_be_believed() {
    let own = key(2, "one");
    let other = key(9, "one");
    let unsigned = || unsigned(THEM, &[&own], &[], START + DAY);
    let many: Vec<_> = (0..100).map(|n| key(2, &format!("k{n}"))).collect();
    let mut changed = document(THEM, &[&own], &[], START + DAY);
    changed["valid_until_ts"] = json!(START + DAY + 1);
    let cases = [
        ("no signature", unsigned()),
        ("signed with another key of the same id", sign(&unsigned(), THEM, &other)),
        ("signed by another server", sign(&unsigned(), "evil.example", &own)),
        ("changed after it was signed", changed),
        ("the keys of another server", document("evil.example", &[&own], &[], START + DAY)),
        ("too many keys", document(THEM, &many.iter().collect::<Vec<_>>(), &[], START + DAY)),
        ("signed with an old key only", {
            let two = key(3, "two");
            sign(&common::unsigned(THEM, &[&two], &[(&own, START)], START + DAY), THEM, &own)
        }),
        ("no list", json!([])),
    ];
    for (what, document) in cases {
        let world = World::plain().await;
        serve(&world, THEM, document);
        assert_eq!(fetch(&world, THEM, "ed25519:one", None).await, None, "{what}");
        assert_eq!(world.net.count(THEM), 1, "{what}");
    }
}

#[tokio::test]
async fn no_other_key_takes_the_place_of_one_that_is_valid() {
    let world = World::plain().await;
    serve(&world, THEM, document(THEM, &[&key(2, "one")], &[], START + DAY));
    fetch(&world, THEM, "ed25519:one", None).await;
    // Somebody took over the host, or the server lost its key.
    serve(&world, THEM, document(THEM, &[&key(9, "one"), &key(8, "two")], &[], START + DAY));
    fetch(&world, THEM, "ed25519:two", None).await;
    let known = || world.remote.keys().known().key(&name(THEM), "ed25519:one").unwrap();
    assert_eq!(known().key, key(2, "one").verify_key());
    // When it has ended, the server may use the id again.
    world.wait(2 * DAY);
    serve(&world, THEM, document(THEM, &[&key(9, "one")], &[], START + 3 * DAY));
    fetch(&world, THEM, "ed25519:one", Some(START + 2 * DAY)).await;
    assert_eq!(known().key, key(9, "one").verify_key());
}

#[tokio::test]
async fn keys_whose_secret_is_known_to_all_are_nobodys() {
    let bad = key(7, "one");
    let config = Config { refused_keys: vec![bad.verify_key().to_base64()], ..Config::default() };
    let world = World::new(config).await;
    serve(&world, THEM, document(THEM, &[&bad], &[], START + DAY));
    assert_eq!(fetch(&world, THEM, "ed25519:one", None).await, None);
    assert_eq!(Config::default().refused_keys.len(), 1);
    assert!(stoa_event::sign::VerifyKey::parse(&Config::default().refused_keys[0]).is_ok());
}

#[tokio::test]
async fn only_one_asks_at_a_time() {
    let world = World::plain().await;
    serve(&world, THEM, document(THEM, &[&key(2, "one")], &[], START + DAY));
    join_all((0..20).map(|_| fetch(&world, THEM, "ed25519:one", None))).await;
    assert_eq!(world.net.count(THEM), 1);
    // The same where it is in vain.
    join_all((0..20).map(|n| {
        let id = format!("ed25519:no{n}");
        let world = &world;
        async move { fetch(world, THEM, &id, None).await }
    }))
    .await;
    assert_eq!(world.net.count(THEM), 2);
}

#[tokio::test]
async fn a_flood_of_unknown_keys_is_no_flood_of_questions() {
    let world = World::plain().await;
    serve(&world, THEM, document(THEM, &[&key(2, "one")], &[], START + DAY));
    for n in 0..50 {
        fetch(&world, THEM, &format!("ed25519:x{n}"), None).await;
        world.wait(100);
    }
    assert_eq!(world.net.count(THEM), 1);
    world.wait(10_000);
    fetch(&world, THEM, "ed25519:x", None).await;
    assert_eq!(world.net.count(THEM), 2);
    // What is no key id is not even asked for.
    world.wait(HOUR);
    for id in ["", "ed25519:", "rsa:1", "ed25519:a b", "ed25519:\"", &format!("ed25519:{}", "a".repeat(200))] {
        fetch(&world, THEM, id, None).await;
    }
    assert_eq!(world.net.count(THEM), 2);
}

#[tokio::test]
async fn a_server_that_is_away_is_asked_less_and_less() {
    let world = World::plain().await;
    world.net.down(THEM);
    for _ in 0..24 * 60 {
        fetch(&world, THEM, "ed25519:one", None).await;
        world.wait(60_000);
    }
    let asked = world.net.count(THEM);
    assert!((8..40).contains(&asked), "{asked} times in a day");
}

fn notary_world() -> Config {
    Config { trusted_key_servers: vec![name(NOTARY)], ..Config::default() }
}

/// A notary that answers its own key, and these documents with its signature.
fn serve_notary(world: &World, documents: Vec<Value>) {
    let own = key(5, "n");
    let signed: Vec<_> = documents
        .into_iter()
        .map(|document| match document["server_name"].is_string() {
            true => sign(&document, NOTARY, &own),
            false => document,
        })
        .collect();
    world.net.serve(NOTARY, move |request| match request.uri().path() {
        "/_matrix/key/v2/server" => ok(&document(NOTARY, &[&own], &[], START + DAY)),
        _ => ok(&json!({ "server_keys": signed })),
    });
}

#[tokio::test]
async fn a_notary_helps_where_the_server_is_gone() {
    let world = World::new(notary_world()).await;
    world.net.down(THEM);
    serve_notary(&world, vec![document(THEM, &[&key(2, "one")], &[], START + DAY)]);
    assert_eq!(fetch(&world, THEM, "ed25519:one", Some(START)).await, Some(START + DAY));
    let asked = world.net.asked.lock().unwrap();
    let question = asked.iter().find(|(_, request)| request.uri().path() == "/_matrix/key/v2/query").unwrap();
    let body: Value = serde_json::from_slice(question.1.body()).unwrap();
    assert_eq!(body, json!({ "server_keys": { THEM: { "ed25519:one": { "minimum_valid_until_ts": START } } } }));
}

#[tokio::test]
async fn a_notary_is_asked_only_where_it_is_needed() {
    let world = World::new(notary_world()).await;
    serve(&world, THEM, document(THEM, &[&key(2, "one")], &[], START + DAY));
    fetch(&world, THEM, "ed25519:one", None).await;
    assert_eq!(world.net.count(NOTARY), 0);
}

#[tokio::test]
async fn what_a_notary_may_not_do() {
    let them = key(2, "one");
    let good = || document(THEM, &[&them], &[], START + DAY);
    // Not signed by the notary.
    let world = World::new(notary_world()).await;
    world.net.down(THEM);
    world.net.serve(NOTARY, {
        let good = good();
        move |request| match request.uri().path() {
            "/_matrix/key/v2/server" => ok(&document(NOTARY, &[&key(5, "n")], &[], START + DAY)),
            _ => ok(&json!({ "server_keys": [good] })),
        }
    });
    assert_eq!(fetch(&world, THEM, "ed25519:one", None).await, None);
    // Not signed by the server.
    let world = World::new(notary_world()).await;
    world.net.down(THEM);
    serve_notary(&world, vec![unsigned(THEM, &[&them], &[], START + DAY)]);
    assert_eq!(fetch(&world, THEM, "ed25519:one", None).await, None);
    // Keys that nobody asked for; one bad document does not spoil the others.
    let world = World::new(notary_world()).await;
    world.net.down(THEM);
    let other = document("other.example", &[&key(6, "one")], &[], START + DAY);
    serve_notary(&world, vec![json!({ "server_name": 1.5 }), other, good()]);
    assert_eq!(fetch(&world, THEM, "ed25519:one", None).await, Some(START + DAY));
    world.net.down("other.example");
    world.net.down(NOTARY);
    assert_eq!(fetch(&world, "other.example", "ed25519:one", None).await, None);
}

#[tokio::test]
async fn a_notary_does_not_replace_what_the_server_said() {
    let world = World::new(notary_world()).await;
    let (one, two) = (key(2, "one"), key(3, "two"));
    serve(&world, THEM, document(THEM, &[&two], &[(&one, START - DAY)], START + HOUR));
    fetch(&world, THEM, "ed25519:two", None).await;
    world.net.down(THEM);
    world.wait(2 * HOUR);
    // An older document, and another key for an id whose validity has ended.
    serve_notary(&world, vec![document(THEM, &[&one, &key(9, "two"), &key(4, "new")], &[], START - HOUR)]);
    assert!(fetch(&world, THEM, "ed25519:new", None).await.is_some());
    let known = |id: &str| world.remote.keys().known().key(&name(THEM), id).unwrap();
    assert_eq!(known("ed25519:one").valid_until_ts, START - DAY);
    assert_eq!(known("ed25519:two").key, two.verify_key());
}

#[tokio::test]
async fn many_servers_at_once_are_one_question_to_the_notary() {
    let config = Config { tuning: Tuning { bulk_keys: 10, ..Tuning::default() }, ..notary_world() };
    let world = World::new(config).await;
    let names: Vec<_> = (0..30).map(|n| format!("s{n}.example")).collect();
    let them = Arc::new(key(2, "one"));
    serve_notary(&world, names.iter().map(|server| document(server, &[&them], &[], START + DAY)).collect());
    let all: Vec<_> = names.iter().map(|server| (name(server), "ed25519:one".to_owned())).collect();
    world.remote.keys().fetch(&all, None).await;
    let known = world.remote.keys().known();
    assert!(all.iter().all(|(server, id)| known.key(server, id).is_some()));
    assert_eq!(world.net.asked.lock().unwrap().len(), 2, "one for its own key, one for all others");
}

#[tokio::test]
async fn our_own_keys_are_published_and_known() {
    let world = World::plain().await;
    let before = key(3, "before");
    world.remote.keys().retire(before.id(), &before.verify_key(), START - DAY).await.unwrap();
    let published = world.remote.keys().own_keys().await.unwrap();
    let document = stoa_remote::keys::document::Document::read(&published).unwrap();
    assert_eq!((document.server.as_str(), document.valid_until_ts), (US, START + DAY));
    assert_eq!(document.keys["ed25519:us"], world.key.verify_key());
    assert_eq!(document.old_keys["ed25519:before"], (before.verify_key(), START - DAY));
    assert_eq!(fetch(&world, US, "ed25519:us", Some(START)).await, Some(u64::MAX));
    assert_eq!(fetch(&world, US, "ed25519:before", Some(START)).await, Some(START - DAY));
    assert_eq!(fetch(&world, US, "ed25519:never", Some(START)).await, None);
    assert!(world.net.asked.lock().unwrap().is_empty());
}

/// The id of a key, and until when it must be valid.
type Asked<'a> = (&'a str, Option<u64>);

fn ask_notary(list: &[(&str, &[Asked<'_>])]) -> Wanted {
    let ids = |ids: &[Asked<'_>]| ids.iter().map(|(id, at)| ((*id).to_owned(), *at)).collect();
    list.iter().map(|(server, wanted)| (name(server), ids(wanted))).collect()
}

#[tokio::test]
async fn we_are_a_notary_for_others() {
    let world = World::plain().await;
    let them = key(2, "one");
    serve(&world, THEM, document(THEM, &[&them], &[], START + DAY));
    world.net.down("gone.example");
    let question = ask_notary(&[(THEM, &[]), ("gone.example", &[]), (US, &[])]);
    let answer = world.remote.keys().notary(&question).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let list = answer["server_keys"].as_array().unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!((&list[0]["server_name"], &list[1]["server_name"]), (&json!(THEM), &json!(US)));
    let own = |_: &stoa_event::ids::ServerName, id: &str| {
        let key = if id == "ed25519:us" { world.key.verify_key() } else { them.verify_key() };
        Some(stoa_event::sign::KnownKey { key, valid_until_ts: u64::MAX })
    };
    let bytes = list[0].to_string();
    verify_json(bytes.as_bytes(), &name(THEM), &own).unwrap();
    verify_json(bytes.as_bytes(), &name(US), &own).unwrap();
}

#[tokio::test]
async fn strangers_do_not_make_us_ask_all_the_time() {
    let world = World::plain().await;
    serve(&world, THEM, document(THEM, &[&key(2, "one")], &[], START + DAY));
    for n in 0..20 {
        let id = format!("ed25519:x{n}");
        world.remote.keys().notary(&ask_notary(&[(THEM, &[(&id, None)])])).await.unwrap();
    }
    assert_eq!(world.net.count(THEM), 1);
    world.wait(HOUR);
    world.remote.keys().notary(&ask_notary(&[(THEM, &[("ed25519:x", None)])])).await.unwrap();
    assert_eq!(world.net.count(THEM), 2);
    // What is valid long enough is not asked for.
    world.remote.keys().notary(&ask_notary(&[(THEM, &[("ed25519:one", Some(START + HOUR))])])).await.unwrap();
    assert_eq!(world.net.count(THEM), 2);
    let many: Wanted = (0..500).map(|n| (name(&format!("n{n}.example")), Default::default())).collect();
    world.remote.keys().notary(&many).await.unwrap();
    assert_eq!(world.net.asked.lock().unwrap().len(), 2 + 16);
    // A notary's questions do not stand in the way of our own.
    serve(&world, THEM, document(THEM, &[&key(3, "two")], &[], START + DAY));
    assert!(fetch(&world, THEM, "ed25519:two", None).await.is_some());
}

#[test]
fn questions_to_a_notary() {
    let read = |text: &str| read_wanted(text.as_bytes());
    let wanted =
        read(r#"{"server_keys":{"a.example":{"ed25519:1":{"minimum_valid_until_ts":5},"rsa:1":{}},"b b":{}}}"#);
    assert_eq!(wanted.unwrap(), ask_notary(&[("a.example", &[("ed25519:1", Some(5))])]));
    assert!(read("{}").is_none() && read("[]").is_none());
}

/// Signs a request of theirs to us.
fn signature(key: &stoa_event::sign::SigningKey, destination: &str, body: Option<&[u8]>) -> String {
    let message = xmatrix::signed_bytes("PUT", "/x?a=b", &name(THEM), &name(destination), body).unwrap();
    key.sign_base64(&message)
}

async fn check(world: &World, id: &str, sig: &str, to: Option<&str>, body: Option<&[u8]>) -> Result<(), Error> {
    let to = to.map(name);
    world.remote.keys().verify_request("PUT", "/x?a=b", &name(THEM), to.as_deref(), id, sig, body).await
}

#[track_caller]
fn refused(result: Result<(), Error>, why: Unauthorized) {
    match result {
        Err(Error::Unauthorized(said)) => assert_eq!(said, why),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn requests_to_us() {
    let world = World::plain().await;
    let them = key(2, "one");
    serve(&world, THEM, document(THEM, &[&them], &[], START + DAY));
    let body: Option<&[u8]> = Some(br#"{"b": 1, "a": "\u00e9"}"#);
    let sig = signature(&them, US, body);
    check(&world, "ed25519:one", &sig, Some(US), body).await.unwrap();
    check(&world, "ed25519:one", &sig, None, body).await.unwrap();
    check(&world, "ed25519:one", &signature(&them, US, None), Some(US), None).await.unwrap();
    check(&world, "ed25519:one", &signature(&them, US, None), Some(US), Some(b"")).await.unwrap();
    // The same said otherwise is the same.
    check(&world, "ed25519:one", &sig, Some(US), Some("{\"a\":\"é\",\"b\":1}".as_bytes())).await.unwrap();
    // Events of old rooms may have numbers that canonical JSON does not allow.
    let old: Option<&[u8]> = Some(br#"{"pdus":[{"depth":1.5}]}"#);
    check(&world, "ed25519:one", &signature(&them, US, old), Some(US), old).await.unwrap();
    // And be as deep as an event may be, inside of a list inside of a body.
    let deep = format!("{{\"pdus\":[{}{{}}{}]}}", "{\"a\":".repeat(126), "}".repeat(126));
    let deep: Option<&[u8]> = Some(deep.as_bytes());
    check(&world, "ed25519:one", &signature(&them, US, deep), Some(US), deep).await.unwrap();
    assert_eq!(world.net.count(THEM), 1);

    refused(check(&world, "ed25519:one", &sig, Some(US), None).await, Unauthorized::Signature);
    refused(check(&world, "ed25519:one", &sig, Some(US), Some(b"{}")).await, Unauthorized::Signature);
    refused(check(&world, "ed25519:one", "AAAA", Some(US), body).await, Unauthorized::Signature);
    refused(check(&world, "ed25519:one", &sig, Some("third.example"), body).await, Unauthorized::Destination);
    let for_third = signature(&them, "third.example", body);
    refused(check(&world, "ed25519:one", &for_third, None, body).await, Unauthorized::Signature);
    refused(check(&world, "ed25519:one", &sig, Some(US), Some(b"{")).await, Unauthorized::Body);
    refused(check(&world, "ed25519:no", &sig, Some(US), body).await, Unauthorized::UnknownKey);
    let ours = world.remote.keys();
    let from_us = ours.verify_request("PUT", "/x?a=b", &name(US), None, "ed25519:us", &sig, body).await;
    refused(from_us, Unauthorized::FromOurselves);
}

#[tokio::test]
async fn requests_are_not_signed_with_keys_that_ended() {
    let world = World::plain().await;
    let (one, two) = (key(2, "one"), key(3, "two"));
    serve(&world, THEM, document(THEM, &[&one], &[], START + HOUR));
    let sig = signature(&one, US, None);
    check(&world, "ed25519:one", &sig, Some(US), None).await.unwrap();
    // The server is asked again when the key has ended, and may still use it.
    world.wait(2 * HOUR);
    serve(&world, THEM, document(THEM, &[&one], &[], START + 3 * HOUR));
    check(&world, "ed25519:one", &sig, Some(US), None).await.unwrap();
    world.wait(2 * HOUR);
    refused(check(&world, "ed25519:one", &sig, Some(US), None).await, Unauthorized::ExpiredKey);
    world.wait(HOUR);
    serve(&world, THEM, document(THEM, &[&two], &[(&one, START + HOUR)], START + DAY));
    refused(check(&world, "ed25519:one", &sig, Some(US), None).await, Unauthorized::ExpiredKey);
    check(&world, "ed25519:two", &signature(&two, US, None), Some(US), None).await.unwrap();
}

#[tokio::test]
async fn who_speaks_to_us_is_asked_for_its_key_although_it_failed() {
    let world = World::plain().await;
    world.net.down(THEM);
    let them = key(2, "one");
    let sig = signature(&them, US, None);
    for _ in 0..12 {
        refused(check(&world, "ed25519:one", &sig, Some(US), None).await, Unauthorized::UnknownKey);
        world.wait(HOUR);
    }
    refused(check(&world, "ed25519:one", &sig, Some(US), None).await, Unauthorized::UnknownKey);
    assert!(world.remote.backing_off(&name(THEM)).await.unwrap().is_some());
    serve(&world, THEM, document(THEM, &[&them], &[], START + DAY));
    // Not at once, so that strangers cannot make us ask all the time, but soon.
    refused(check(&world, "ed25519:one", &sig, Some(US), None).await, Unauthorized::UnknownKey);
    world.wait(60_000);
    check(&world, "ed25519:one", &sig, Some(US), None).await.unwrap();
}

#[tokio::test]
async fn who_is_not_wanted_is_not_asked() {
    let world = World::new(Config { deny: vec![THEM.to_owned()], ..Config::default() }).await;
    let sig = signature(&key(2, "one"), US, None);
    assert!(matches!(check(&world, "ed25519:one", &sig, Some(US), None).await, Err(Error::NotAllowed(_))));
    assert_eq!(fetch(&world, THEM, "ed25519:one", None).await, None);
    world.remote.keys().notary(&ask_notary(&[(THEM, &[])])).await.unwrap();
    assert!(world.net.asked.lock().unwrap().is_empty());
}

/// What handlers and workers do with it needs futures that can go to another thread.
#[tokio::test]
async fn futures_can_go_to_other_threads() {
    fn sends(_: impl Send) {}
    let world = World::plain().await;
    let (remote, keys, them) = (&world.remote, world.remote.keys(), name(THEM));
    sends(keys.fetch(&[], None));
    sends(keys.fetch_each([]));
    sends(keys.notary(&Wanted::new()));
    sends(keys.own_keys());
    sends(keys.verify_request("", "", &them, None, "", "", None));
    sends(remote.heard_from(&them));
    sends(remote.call(&them, ruma_federation_api::discovery::get_server_version::v1::Request::new()));
    sends(keys.known());
}

proptest::proptest! {
    #[test]
    fn no_document_makes_it_fail(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), n in 0usize..400) {
        use stoa_remote::{keys::document::Document, well_known};
        let _ = (Document::read(&bytes), well_known::parse(&bytes), read_wanted(&bytes));
        // A good one with a byte that is not.
        let mut good = document(THEM, &[&key(2, "one")], &[(&key(3, "old"), 5)], START).to_string().into_bytes();
        let before = Document::read(&good).unwrap();
        let n = n % good.len();
        good[n] ^= 1;
        // Only spare bits at the end of the signature do not matter.
        if let Ok(read) = Document::read(&good) {
            proptest::prop_assert_eq!(read, before);
        }
    }
}

#[tokio::test]
async fn documents_that_are_too_large_are_not_read() {
    let world = World::plain().await;
    let mut large = unsigned(THEM, &[&key(2, "one")], &[], START + DAY);
    large["padding"] = json!("x".repeat(70_000));
    serve(&world, THEM, sign(&large, THEM, &key(2, "one")));
    assert_eq!(fetch(&world, THEM, "ed25519:one", None).await, None);
}
