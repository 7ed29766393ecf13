//! What was there before `/sync`, and what is not there: Client-Server API, the deprecated endpoints, "Room Previews",
//! "Third-party Networks".

use stoa_kit::{encode, json};

use crate::{home, one, strict, two};

const WORLD: &str = "m.room.history_visibility";

#[tokio::test]
async fn a_room_is_previewed_and_listened_to_from_outside() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.public_room().await;
    let path = format!("/rooms/{}/initialSync?limit=5", encode(&room));
    bob.get(&path).await.expect(403, "M_FORBIDDEN");
    alice.set_state(&room, WORLD, "", json!({ "history_visibility": "world_readable" })).await.ok();
    let said = alice.text(&room, "the last word").await;
    let seen = bob.get(&path).await.ok();
    assert_eq!(seen["room_id"], room.as_str());
    let chunk = seen["messages"]["chunk"].as_array().expect("events");
    // What was said before all could read it is not among them.
    assert_eq!(chunk.last().expect("an event")["event_id"], said.as_str(), "the newest is the last");
    assert!(chunk.len() < 4, "{chunk:?}");
    assert!(seen["state"].as_array().is_some_and(|state| state.iter().any(|event| event["type"] == "m.room.create")));
    assert!(seen.get("membership").is_none(), "Bob is not in the room");
    let token = encode(seen["messages"]["end"].as_str().expect("a token"));
    let listen = format!("/events?room_id={}&from={token}&timeout=5000", encode(&room));
    let (heard, next) = tokio::join!(bob.get(&listen), alice.text(&room, "and another"));
    let heard = heard.ok();
    assert_eq!(heard["chunk"][0]["event_id"], next.as_str(), "{heard}");
    let quiet = format!("/events?room_id={}&from={}", encode(&room), encode(heard["end"].as_str().expect("a token")));
    assert_eq!(bob.get(&quiet).await.ok()["chunk"], json!([]));
}

#[tokio::test]
async fn everything_at_once_and_then_what_is_new() {
    let (home, alice, bob, room) = two().await;
    alice.set_account_data(None, "x.y", json!({ "a": 1 })).await.ok();
    alice.set_account_data(Some(&room), "x.z", json!({ "b": 2 })).await.ok();
    let invited = bob.create_room(json!({ "invite": [&alice.id] })).await;
    let all = alice.get("/initialSync?limit=3").await.ok();
    let rooms = all["rooms"].as_array().expect("rooms");
    let own = rooms.iter().find(|it| it["room_id"] == room.as_str()).expect("the room");
    assert_eq!((&own["membership"], own["messages"]["chunk"].as_array().map(Vec::len)), (&json!("join"), Some(3)));
    assert_eq!(own["account_data"][0]["type"], "x.z");
    assert!(rooms.iter().any(|it| it["room_id"] == invited.as_str() && it["membership"] == "invite"));
    assert!(all["account_data"].as_array().is_some_and(|all| all.iter().any(|event| event["type"] == "x.y")));
    let since = encode(all["end"].as_str().expect("a token"));
    let said = bob.text(&room, "new").await;
    let heard = alice.get(&format!("/events?from={since}&timeout=5000")).await.ok();
    let event = heard["chunk"].as_array().expect("events").iter().find(|event| event["event_id"] == said.as_str());
    assert_eq!(event.expect("the message")["room_id"], room.as_str());
    assert_eq!(alice.get(&format!("/events/{}", encode(&said))).await.ok()["event_id"], said.as_str());
    // Who may not see an event is not told whether there is one.
    let carol = home.user("carol").await;
    let there = carol.get(&format!("/events/{}", encode(&said))).await.expect(404, "M_NOT_FOUND");
    let not = carol.get(&format!("/events/{}", encode("$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"))).await;
    if strict() {
        assert_eq!(there, not.expect(404, "M_NOT_FOUND"));
    }
}

#[tokio::test]
async fn without_bridges_there_are_no_networks() {
    let (_home, alice, _) = one().await;
    assert_eq!(alice.get("/thirdparty/protocols").await.ok(), json!({}));
    for path in ["protocol/irc", "user/irc", "location/irc", "user?userid=@a:b", "location?alias=%23a:b"] {
        let reply = alice.get(&format!("/thirdparty/{path}")).await;
        if strict() {
            reply.expect(404, "M_NOT_FOUND");
        }
    }
}

#[tokio::test]
async fn what_is_for_application_services_is_for_nobody_else() {
    let (_home, alice, room) = one().await;
    alice.post("/_matrix/client/v1/appservice/irc/ping", json!({})).await.expect(403, "M_FORBIDDEN");
    let listed = format!("/directory/list/appservice/irc/{}", encode(&room));
    alice.put(&listed, json!({ "visibility": "public" })).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn what_this_server_does_not_have_is_unrecognized() {
    let (_home, alice, _) = one().await;
    if !strict() {
        return;
    }
    alice.get("/_matrix/client/v1/auth_metadata").await.expect(404, "M_UNRECOGNIZED");
    alice.get("/login/sso/redirect?redirectUrl=https://client.example").await.expect(404, "M_UNRECOGNIZED");
    alice.get("/login/sso/redirect/oidc?redirectUrl=https://client.example").await.expect(404, "M_UNRECOGNIZED");
    assert_eq!(alice.get("/.well-known/matrix/policy_server").await.status, 404);
    alice.post("/_matrix/policy/v1/sign", json!({})).await.expect(404, "M_UNRECOGNIZED");
}
