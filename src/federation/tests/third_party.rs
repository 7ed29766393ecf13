//! Invites by third-party identifiers: an address is invited, and who proves to have it comes in.

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use common::{World, answer, name, ok, their_key};
use serde_json::{Map, Value, json};
use stoa_accounts::Who;
use stoa_event::{
    ids::{OwnedRoomId, OwnedUserId},
    sign::{SigningKey, sign_event, sign_json},
    version::Rules,
};
use stoa_federation::{Bound, Error, Exchange, ThirdParty};

const IDENTITY: &str = "id.example";
const TOKEN: &str = "tok.1";

fn key() -> SigningKey {
    SigningKey::from_seed(&[5; 32], "0").unwrap()
}

/// An identity server that knows whose the address is, or nobody, and whether its key still holds.
fn identity(world: &World, knows: Option<&'static str>) -> Arc<AtomicBool> {
    let valid = Arc::new(AtomicBool::new(true));
    let still = valid.clone();
    world.net.serve(IDENTITY, move |request| {
        let path = request.uri().path();
        if path == "/isvalid" {
            let asked = request.uri().query().unwrap();
            assert!(asked.starts_with("old=1&public_key=") && !asked.contains('+'), "{asked}");
            return ok(&json!({ "valid": still.load(Ordering::SeqCst) }));
        }
        if request.headers()["authorization"] != "Bearer secret" {
            return answer(401, &json!({ "errcode": "M_UNAUTHORIZED" }));
        }
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        match path.strip_prefix("/_matrix/identity/v2/").unwrap() {
            "hash_details" => ok(&json!({ "algorithms": ["none", "sha256"], "lookup_pepper": "matrixrocks" })),
            "lookup" => {
                // The example of the Identity Service API.
                assert_eq!(body["addresses"], json!(["4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUc"]));
                let found = knows.map(|user| (body["addresses"][0].as_str().unwrap().to_owned(), Value::from(user)));
                ok(&json!({ "mappings": Map::from_iter(found) }))
            }
            "store-invite" => {
                assert_eq!(body["room_name"], "The room");
                ok(&json!({ "token": TOKEN, "display_name": "a...@e...", "public_keys": [
                    { "public_key": "AAAA" },
                    {
                        "public_key": key().verify_key().to_base64(),
                        "key_validity_url": "https://id.example/isvalid?old=1",
                    },
                ] }))
            }
            _ => answer(404, &json!({ "errcode": "M_UNRECOGNIZED" })),
        }
    });
    valid
}

fn address(token: &str) -> ThirdParty {
    let body = json!({
        "id_server": IDENTITY, "id_access_token": token, "medium": "email", "address": "alice@example.com",
    });
    serde_json::from_value(body).unwrap()
}

/// What the identity server signs for who proved the address.
fn proof(user: &str, token: &str, key: &SigningKey) -> Value {
    let signed = json!({ "mxid": user, "token": token });
    serde_json::from_slice(&sign_json(signed.to_string().as_bytes(), &name(IDENTITY), key).unwrap()).unwrap()
}

async fn room(world: &World) -> (Who, OwnedRoomId) {
    let alice = world.user("alice").await;
    let room = world.room(&alice).await;
    let name = stoa_rooms::NewEvent {
        sender: alice.user.clone(),
        kind: "m.room.name".into(),
        state_key: Some(String::new()),
        content: br#"{"name":"The room"}"#.to_vec(),
        redacts: None,
        txn: None,
        ts: None,
    };
    world.rooms.send(&room, name).await.unwrap();
    (alice, room)
}

async fn state(world: &World, room: &OwnedRoomId, kind: &str, key: &str) -> Option<Value> {
    world.rooms.state_event(room, kind, key).await.unwrap().map(|event| event.content_as().unwrap())
}

fn bound(user: &str, room: &OwnedRoomId, sender: &str, signed: Value) -> Bound {
    let invite = json!({ "medium": "email", "address": "alice@example.com", "mxid": user, "room_id": room,
        "sender": sender, "signed": signed });
    serde_json::from_value(json!({ "medium": "email", "address": "x", "mxid": user, "invites": [invite] })).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_address_that_nobody_has_is_invited_and_redeemed_later() {
    let world = World::open().await;
    let (alice, room) = room(&world).await;
    identity(&world, None);
    world.federation.invite_address(&room, &alice.user, address("secret")).await.unwrap();
    let waiting = state(&world, &room, "m.room.third_party_invite", TOKEN).await.unwrap();
    assert_eq!(waiting["display_name"], "a...@e...");
    assert_eq!(waiting["public_keys"].as_array().unwrap().len(), 2);
    assert!(!waiting.to_string().contains("alice@example.com"));
    // Bob proves that he has it.
    world.account("bob").await;
    let bob = "@bob:us.example";
    world.federation.bound(bound(bob, &room, "@alice:us.example", proof(bob, TOKEN, &key()))).await.unwrap();
    let member = state(&world, &room, "m.room.member", bob).await.unwrap();
    assert_eq!(
        (&member["membership"], &member["third_party_invite"]["display_name"]),
        (&json!("invite"), &json!("a...@e..."))
    );
    assert_eq!(member["third_party_invite"]["signed"]["mxid"], bob);
    // Users of nobody, and of others, are not ours to invite.
    for user in ["@nobody:us.example", "@bob:b.example"] {
        let told = bound(user, &room, "@alice:us.example", proof(user, TOKEN, &key()));
        assert!(matches!(world.federation.bound(told).await, Err(Error::NotFound(_))));
        assert!(state(&world, &room, "m.room.member", user).await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_that_somebody_has_invites_that_user() {
    let world = World::open().await;
    let (alice, room) = room(&world).await;
    identity(&world, Some("@carol:us.example"));
    world.federation.invite_address(&room, &alice.user, address("secret")).await.unwrap();
    assert_eq!(state(&world, &room, "m.room.member", "@carol:us.example").await.unwrap()["membership"], "invite");
    assert!(state(&world, &room, "m.room.third_party_invite", TOKEN).await.is_none());
    assert!(!world.net.paths(IDENTITY).iter().any(|path| path.ends_with("store-invite")));
}

#[tokio::test(start_paused = true)]
async fn who_may_not_invite_reaches_no_identity_server() {
    let world = World::open().await;
    let (alice, room) = room(&world).await;
    identity(&world, None);
    let eve = world.user("eve").await;
    assert!(world.federation.invite_address(&room, &eve.user, address("secret")).await.is_err());
    assert!(world.net.paths(IDENTITY).is_empty());
    // One that refuses, or is not there, changes nothing.
    assert!(world.federation.invite_address(&room, &alice.user, address("wrong")).await.is_err());
    world.net.down(IDENTITY);
    assert!(world.federation.invite_address(&room, &alice.user, address("secret")).await.is_err());
    assert!(state(&world, &room, "m.room.third_party_invite", TOKEN).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn another_server_asks_for_the_invite_of_its_user() {
    let world = World::open().await;
    let (alice, room) = room(&world).await;
    let valid = identity(&world, None);
    world.federation.invite_address(&room, &alice.user, address("secret")).await.unwrap();
    let now = world.now();
    world.net.serve("c.example", move |request| match request.uri().path() {
        "/_matrix/key/v2/server" => ok(&common::key_document("c.example", now)),
        path if path.contains("/v2/invite/") => {
            let body: Value = serde_json::from_slice(request.body()).unwrap();
            let rules = Rules::of(&"12".try_into().unwrap()).unwrap();
            let event = body["event"].to_string();
            let signed = sign_event(event.as_bytes(), &rules, &name("c.example"), &their_key("c.example")).unwrap();
            ok(&json!({ "event": serde_json::from_slice::<Value>(&signed).unwrap() }))
        }
        _ => ok(&json!({})),
    });
    let dave = "@dave:c.example";
    let ask = async |origin: &str, change: &dyn Fn(&mut Value)| {
        let mut event = json!({
            "type": "m.room.member", "room_id": room, "sender": "@alice:us.example", "state_key": dave,
            "content": { "membership": "invite", "third_party_invite": {
                "display_name": "x", "signed": proof(dave, TOKEN, &key()),
            } },
        });
        change(&mut event);
        let event: Exchange = serde_json::from_value(event).unwrap();
        world.federation.exchange(&name(origin), &room, event).await
    };
    let signed = |event: &mut Value, proof: Value| event["content"]["third_party_invite"]["signed"] = proof;
    assert!(ask("b.example", &|_| ()).await.is_err());
    assert!(ask("c.example", &|event| event["type"] = "m.room.name".into()).await.is_err());
    assert!(ask("c.example", &|event| event["room_id"] = "!other:us.example".into()).await.is_err());
    assert!(ask("c.example", &|event| event["sender"] = "@bob:b.example".into()).await.is_err());
    assert!(ask("c.example", &|event| event["content"]["membership"] = "join".into()).await.is_err());
    for bad in [
        proof("@eve:c.example", TOKEN, &key()),
        proof(dave, "other", &key()),
        proof(dave, TOKEN, &their_key("c.example")),
        json!({ "mxid": dave, "token": TOKEN, "signatures": {} }),
    ] {
        assert!(matches!(ask("c.example", &|event| signed(event, bad.clone())).await, Err(Error::Forbidden(_))));
    }
    // The identity server took its key back.
    valid.store(false, Ordering::SeqCst);
    assert!(matches!(ask("c.example", &|_| ()).await, Err(Error::Forbidden(_))));
    assert!(state(&world, &room, "m.room.member", dave).await.is_none());
    valid.store(true, Ordering::SeqCst);
    ask("c.example", &|_| ()).await.unwrap();
    let member = state(&world, &room, "m.room.member", dave).await.unwrap();
    assert_eq!(
        (&member["membership"], &member["third_party_invite"]["display_name"]),
        (&json!("invite"), &json!("a...@e..."))
    );
}

#[tokio::test(start_paused = true)]
async fn the_server_of_who_invited_is_asked() {
    let world = World::open().await;
    world.net.up("b.example");
    world.account("bob").await;
    let bob: OwnedUserId = "@bob:us.example".try_into().unwrap();
    let room: OwnedRoomId = "!far:b.example".try_into().unwrap();
    let told = bound(bob.as_str(), &room, "@alice:b.example", proof(bob.as_str(), TOKEN, &key()));
    world.federation.bound(told).await.unwrap();
    let path = "/_matrix/federation/v1/exchange_third_party_invite/%21far%3Ab.example";
    assert_eq!(world.net.paths("b.example"), [path]);
    // Proofs for somebody else are not passed on.
    let told = bound(bob.as_str(), &room, "@alice:b.example", proof("@eve:us.example", TOKEN, &key()));
    world.federation.bound(told).await.unwrap();
    assert_eq!(world.net.paths("b.example"), [path]);
}
