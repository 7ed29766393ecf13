//! Rooms with a policy server (Server-Server API, "Policy Servers"): what ours send goes there first, what others send must
//! come from there, and who runs a room can always be rid of it.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Answer, World, answer, key_document, name, ok};
use serde_json::{Map, Value, json};
use stoa_accounts::Who;
use stoa_event::{
    ids::{OwnedEventId, OwnedRoomId},
    sign::{POLICY_KEY_ID, SigningKey, sign_event},
    version::Rules,
};
use stoa_federation::Error;
use stoa_rooms::{Action, Change, NewEvent, Profile, TxnKey};

const JUDGE: &str = "p.example";
const SIGN: &str = "/_matrix/policy/v1/sign";

fn policy_key() -> SigningKey {
    SigningKey::from_seed(&[9; 32], "policy_server").unwrap()
}

/// What a policy server answers to an event that it recommends, with that key.
fn signs(event: &[u8], key: &SigningKey) -> Answer {
    let rules = Rules::of(&"12".try_into().unwrap()).unwrap();
    let signed: Value = serde_json::from_slice(&sign_event(event, &rules, &name(JUDGE), key).unwrap()).unwrap();
    ok(&json!({ JUDGE: { POLICY_KEY_ID: signed["signatures"][JUDGE][key.id()] } }))
}

/// A policy server that recommends everything but events with `spam` in them.
fn judge(world: &World) {
    world.net.serve(JUDGE, |request| match request.uri().path() {
        SIGN if String::from_utf8_lossy(request.body()).contains("spam") => {
            answer(400, &json!({ "errcode": "M_FORBIDDEN", "error": "looks like spam" }))
        }
        SIGN => signs(request.body(), &policy_key()),
        _ => ok(&json!({})),
    });
}

fn event(who: &Who, kind: &str, state_key: Option<&str>, content: Value) -> NewEvent {
    NewEvent {
        sender: who.user.clone(),
        kind: kind.into(),
        state_key: state_key.map(str::to_owned),
        content: content.to_string().into_bytes(),
        redacts: None,
        txn: None,
        ts: None,
    }
}

fn message(who: &Who, text: &str) -> NewEvent {
    event(who, "m.room.message", None, json!({ "msgtype": "m.text", "body": text }))
}

fn policy(who: &Who, content: Value) -> NewEvent {
    event(who, "m.room.policy", Some(""), content)
}

/// Alice's room with a user of the policy server in it, which she makes the room's.
async fn guarded(world: &World) -> (Who, OwnedRoomId) {
    let alice = world.user("alice").await;
    let room = world.room(&alice).await;
    judge(world);
    world.join(&room, "@judge:p.example", "join").await;
    let content = json!({ "via": JUDGE, "public_keys": { "ed25519": policy_key().verify_key().to_base64() } });
    world.federation.send(&room, policy(&alice, content)).await.unwrap();
    world.all_sent().await;
    world.net.forget();
    (alice, room)
}

async fn stored(world: &World, id: &OwnedEventId) -> Value {
    let snapshot = world.store.snapshot().await.unwrap();
    let (_, event) = world.store.events().by_id(&snapshot, id.as_str()).await.unwrap().unwrap();
    serde_json::from_slice(&event.json).unwrap()
}

fn asked(world: &World) -> usize {
    world.net.paths(JUDGE).iter().filter(|path| *path == SIGN).count()
}

#[tokio::test(start_paused = true)]
async fn what_ours_send_carries_its_signature() {
    let world = World::open().await;
    let (alice, room) = guarded(&world).await;
    let said = world.federation.send(&room, message(&alice, "hello")).await.unwrap();
    assert!(stored(&world, &said).await["signatures"][JUDGE][POLICY_KEY_ID].is_string());
    // That is what goes to other servers too, signed by us beside it.
    world.all_sent().await;
    let sent = world.net.got(JUDGE).into_iter().flat_map(|got| got.pdus).find(|pdu| pdu["type"] == "m.room.message");
    let signatures = sent.unwrap()["signatures"].clone();
    assert!(signatures[JUDGE][POLICY_KEY_ID].is_string() && signatures["us.example"].is_object());
    assert_eq!(asked(&world), 1);
    // State, redactions, memberships and names are events as others are.
    let topic = event(&alice, "m.room.topic", Some(""), json!({ "topic": "x" }));
    world.federation.send(&room, topic).await.unwrap();
    let mut redaction = event(&alice, "m.room.redaction", None, json!({}));
    redaction.redacts = Some(said);
    world.federation.redact(&room, redaction).await.unwrap();
    let ban = Change {
        action: Action::Ban,
        sender: alice.user.clone(),
        target: "@eve:e.example".try_into().unwrap(),
        reason: None,
        content: Map::new(),
        profile: Profile::default(),
    };
    world.federation.change(&room, ban).await.unwrap();
    let profile = Profile { displayname: Some("Alice".into()), avatar_url: None };
    world.federation.show_profile(&alice.user, &profile).await.unwrap();
    assert_eq!(asked(&world), 5);
    // A policy event that is not the room's own is one of them.
    world.federation.send(&room, event(&alice, "m.room.policy", Some("x"), json!({}))).await.unwrap();
    world.federation.send(&room, event(&alice, "m.room.policy", None, json!({}))).await.unwrap();
    assert_eq!(asked(&world), 7);
}

#[tokio::test(start_paused = true)]
async fn what_it_refuses_is_not_sent_and_its_words_are_told() {
    let world = World::open().await;
    let (alice, room) = guarded(&world).await;
    let before = world.rooms.tips(&room).await.unwrap();
    match world.federation.send(&room, message(&alice, "spam")).await {
        Err(Error::Remote(stoa_remote::Error::Answer(answer))) => {
            assert_eq!((answer.status, answer.errcode.as_deref()), (400, Some("M_FORBIDDEN")));
            assert_eq!(answer.message.as_deref(), Some("looks like spam"));
        }
        other => panic!("{other:?}"),
    }
    // Neither what is no signature, nor one of another key, nor one of another event.
    let other: Value = json!({ JUDGE: { POLICY_KEY_ID: "AAAA" } });
    for (what, say) in [("none", json!({})), ("odd", json!([])), ("bad", other)] {
        world.net.serve(JUDGE, move |_| ok(&say));
        let sent = world.federation.send(&room, message(&alice, "hello")).await;
        assert!(matches!(sent, Err(Error::Forbidden(_) | Error::Rooms(_))), "{what}: {sent:?}");
    }
    world.net.serve(JUDGE, |request| signs(request.body(), &SigningKey::from_seed(&[8; 32], "policy_server").unwrap()));
    assert!(world.federation.send(&room, message(&alice, "hello")).await.is_err());
    assert_eq!(world.rooms.tips(&room).await.unwrap(), before);
    // Where nobody asks, nothing goes out either.
    assert!(matches!(world.rooms.send(&room, message(&alice, "x")).await, Err(stoa_rooms::Error::Unsigned(_))));
    judge(&world);
    world.federation.send(&room, message(&alice, "hello")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_runs_the_room_is_rid_of_one_that_is_silent() {
    let world = World::open().await;
    let (alice, room) = guarded(&world).await;
    world.net.down(JUDGE);
    assert!(world.federation.send(&room, message(&alice, "hello")).await.is_err());
    world.federation.send(&room, policy(&alice, json!({}))).await.unwrap();
    world.net.forget();
    world.federation.send(&room, message(&alice, "hello")).await.unwrap();
    assert_eq!(asked(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_in_the_room_or_not_named_rightly_is_not_asked() {
    let world = World::open().await;
    let (alice, room) = guarded(&world).await;
    let key = policy_key().verify_key().to_base64();
    for content in [
        json!({ "via": "elsewhere.example", "public_keys": { "ed25519": key } }),
        json!({ "via": "us.example", "public_keys": { "ed25519": key } }),
        json!({ "via": "a b", "public_keys": { "ed25519": key } }),
        json!({ "via": JUDGE, "public_keys": { "other": key } }),
        json!({ "via": JUDGE, "public_keys": { "ed25519": 7 } }),
        json!({ "via": JUDGE }),
        json!({ "public_keys": { "ed25519": key } }),
    ] {
        world.federation.send(&room, policy(&alice, content)).await.unwrap();
        world.federation.send(&room, message(&alice, "spam")).await.unwrap();
    }
    // One that leaves does not want to be asked.
    let content = json!({ "via": JUDGE, "public_keys": { "ed25519": key } });
    world.federation.send(&room, policy(&alice, content)).await.unwrap();
    assert_eq!(asked(&world), 0);
    world.federation.send(&room, message(&alice, "hello")).await.unwrap();
    assert_eq!(asked(&world), 1);
    world.net.serve("p.example", |request| signs(request.body(), &policy_key()));
    let leave = world.member_event(&room, "@judge:p.example", "leave").await;
    world.take(&room, "p.example", &leave).await;
    world.federation.send(&room, message(&alice, "spam")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_it_but_who_sends() {
    let world = World::open().await;
    let (alice, room) = guarded(&world).await;
    world.net.slow(JUDGE, Duration::from_secs(20));
    let started = tokio::time::Instant::now();
    let mut first = message(&alice, "hello");
    first.txn = Some(TxnKey { device: "PHONE".into(), deed: "send".into(), id: "1".into() });
    let meanwhile = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.federation.send(&room, policy(&alice, json!({}))).await.unwrap();
        let said = world.federation.send(&room, message(&alice, "meanwhile")).await.unwrap();
        (said, started.elapsed())
    };
    // The same request twice is one event.
    let (sent, again, (_, at)) =
        tokio::join!(world.federation.send(&room, first.clone()), world.federation.send(&room, first), meanwhile);
    assert!(at < Duration::from_secs(5) && started.elapsed() >= Duration::from_secs(20));
    assert_eq!(sent.unwrap(), again.unwrap());
    assert_eq!(world.rooms.tips(&room).await.unwrap().len(), 2);
    // One that never answers is given up.
    let key = policy_key().verify_key().to_base64();
    let content = json!({ "via": JUDGE, "public_keys": { "ed25519": key } });
    world.federation.send(&room, policy(&alice, content)).await.unwrap();
    world.net.slow(JUDGE, Duration::from_secs(100_000));
    let started = tokio::time::Instant::now();
    assert!(world.federation.send(&room, message(&alice, "hello")).await.is_err());
    assert!(started.elapsed() <= Duration::from_secs(31));
}

#[tokio::test(start_paused = true)]
async fn what_others_send_is_asked_about_unless_it_is_signed() {
    let world = World::open().await;
    let alice = world.user("alice").await;
    let room = world.room(&alice).await;
    judge(&world);
    for user in ["@judge:p.example", "@bob:b.example", "@carol:b.example", "@spam:b.example", "@dan:b.example"] {
        world.join(&room, user, "join").await;
    }
    let content = json!({ "via": JUDGE, "public_keys": { "ed25519": policy_key().verify_key().to_base64() } });
    world.federation.send(&room, policy(&alice, content)).await.unwrap();
    let now = world.now();
    world.net.serve("b.example", move |request| match request.uri().path() {
        "/_matrix/key/v2/server" => ok(&key_document("b.example", now)),
        _ => ok(&json!({})),
    });
    let leave = async |user: &str| world.member_event(&room, user, "leave").await;
    // It comes unsigned, and is signed now: so it is kept and handed on.
    let bob = leave("@bob:b.example").await;
    world.take(&room, "b.example", &bob).await;
    assert!(stored(&world, bob.event_id()).await["signatures"][JUDGE][POLICY_KEY_ID].is_string());
    assert_eq!((world.rooms.tips(&room).await.unwrap(), asked(&world)), (vec![bob.event_id().clone()], 1));
    // It comes signed.
    let carol = leave("@carol:b.example").await;
    let signature: Value = serde_json::from_slice(signs(carol.json(), &policy_key()).unwrap().body()).unwrap();
    let signature = signature[JUDGE][POLICY_KEY_ID].as_str().unwrap().to_owned();
    let rules = world.rooms.rules_of(&room).await.unwrap();
    let carol = world.rooms.policy(&room).await.unwrap().unwrap().add(&carol, &rules, &signature).unwrap();
    world.take(&room, "b.example", &carol).await;
    assert_eq!((world.rooms.tips(&room).await.unwrap(), asked(&world)), (vec![carol.event_id().clone()], 1));
    // It is not recommended: soft-failed, and nothing goes on from it. The same where the policy server is not there.
    let spam = leave("@spam:b.example").await;
    world.take(&room, "b.example", &spam).await;
    assert_eq!((world.rooms.tips(&room).await.unwrap(), asked(&world)), (vec![carol.event_id().clone()], 2));
    world.net.down(JUDGE);
    let dan = leave("@dan:b.example").await;
    world.take(&room, "b.example", &dan).await;
    assert_eq!(world.rooms.tips(&room).await.unwrap(), [carol.event_id().clone()]);
    assert!(stored(&world, spam.event_id()).await["signatures"].get(JUDGE).is_none());
    for standing in [spam, dan] {
        let snapshot = world.store.snapshot().await.unwrap();
        let (_, event) = world.store.events().by_id(&snapshot, standing.event_id().as_str()).await.unwrap().unwrap();
        assert_eq!(event.header.standing, stoa_store::rows::events::Standing::SoftFailed);
    }
    // With an invite it goes to the other server signed by both.
    judge(&world);
    world.wait(1_000_000);
    let invite = Change {
        action: Action::Invite,
        sender: alice.user.clone(),
        target: "@erin:b.example".try_into().unwrap(),
        reason: None,
        content: Map::new(),
        profile: Profile::default(),
    };
    let signed = std::sync::Arc::new(std::sync::Mutex::new(Value::Null));
    let seen = signed.clone();
    world.net.serve("b.example", move |request| match request.uri().path() {
        "/_matrix/key/v2/server" => ok(&key_document("b.example", now)),
        path if path.contains("/v2/invite/") => {
            let body: Value = serde_json::from_slice(request.body()).unwrap();
            *seen.lock().unwrap() = body["event"]["signatures"].clone();
            let event = Bytes::from(body["event"].to_string());
            let rules = Rules::of(&"12".try_into().unwrap()).unwrap();
            let signed = sign_event(&event, &rules, &name("b.example"), &common::their_key("b.example")).unwrap();
            ok(&json!({ "event": serde_json::from_slice::<Value>(&signed).unwrap() }))
        }
        _ => ok(&json!({})),
    });
    world.federation.invite(&room, invite).await.unwrap();
    let signed = signed.lock().unwrap().clone();
    assert!(signed[JUDGE][POLICY_KEY_ID].is_string() && signed["us.example"].is_object(), "{signed}");
}
