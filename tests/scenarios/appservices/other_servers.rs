//! Application services and other servers: users and rooms of services that these ask for, and invites from them.

use std::sync::Arc;

use stoa_kit::{Bridge, Ca, Home, Launch, Stranger, Value, encode, json};

use super::asking::when_asked;
use crate::{binary, own};

/// A homeserver that knows an application service, and another server.
async fn meeting(bridge: &Bridge) -> Option<(Home, Stranger)> {
    own()?;
    let ca: Arc<Ca> = Ca::shared();
    let home = Home::launch(bridge.known_to(Launch::federating(binary(), &ca))).await;
    Some((home, Stranger::start(&ca, 1).await))
}

#[tokio::test]
async fn an_invite_to_a_room_elsewhere_is_told_with_what_is_known() {
    let bridge = Bridge::start("irc").await;
    let Some((home, other)) = meeting(&bridge).await else { return };
    let name = home.server_name();
    let invite = async |room: &str, user: &str| {
        let (id, event) = other.event(json!({
            "type": "m.room.member", "room_id": room, "sender": other.user("bob"), "state_key": user,
            "content": { "membership": "invite", "is_direct": true }, "origin_server_ts": 1_700_000_000_000_u64,
            "depth": 7, "prev_events": ["$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
            "auth_events": ["$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
        }));
        let state = json!([{
            "type": "m.room.name", "state_key": "", "sender": other.user("bob"), "content": { "name": "Garden" },
        }]);
        let body = json!({ "room_version": "11", "event": event, "invite_room_state": state });
        let path = format!("/_matrix/federation/v2/invite/{}/{}", encode(room), encode(&id));
        (id, other.put(&home, &path, &body).await)
    };
    let (one, two) = (format!("!one:{}", other.name()), format!("!two:{}", other.name()));
    let ghost = bridge.ghost(home.client(), "alice").await;
    let (id, answer) = invite(&one, &ghost).await;
    answer.ok();
    let told = bridge.event(&id).await;
    let fields =
        |event: &Value| ["type", "room_id", "sender", "state_key"].map(|it| event[it].as_str().map(str::to_owned));
    let wanted = ["m.room.member", &one, &other.user("bob"), &ghost].map(|it| Some(it.to_owned()));
    assert_eq!(fields(&told), wanted);
    assert_eq!(told["content"], json!({ "membership": "invite", "is_direct": true }));
    assert_eq!(told["origin_server_ts"], 1_700_000_000_000_u64);
    assert_eq!(told["unsigned"]["invite_room_state"][0]["content"]["name"], "Garden");
    // Who is not there yet is asked for.
    let carol = format!("@_irc_carol:{name}");
    let (maker, client) = (bridge.clone(), home.client().clone());
    when_asked(&bridge, format!("/_matrix/app/v1/users/{}", encode(&carol)), async move {
        maker.ghost(&client, "carol").await;
    })
    .await;
    let (id, answer) = invite(&two, &carol).await;
    answer.ok();
    bridge.event(&id).await;
}

#[tokio::test]
async fn what_others_ask_for_is_made_by_the_service() {
    let bridge = Bridge::start("irc").await;
    let Some((home, other)) = meeting(&bridge).await else { return };
    let name = home.server_name();
    let alias = format!("#_irc_chat:{name}");
    let query = format!("/_matrix/federation/v1/query/directory?room_alias={}", encode(&alias));
    other.get(&home, &query).await.expect(404, "M_NOT_FOUND");
    let (maker, client) = (bridge.clone(), home.client().clone());
    when_asked(&bridge, format!("/_matrix/app/v1/rooms/{}", encode(&alias)), async move {
        let room = json!({ "preset": "public_chat", "room_alias_name": "_irc_chat" });
        maker.ask(&client, stoa_kit::Method::POST, "/createRoom", room).await.ok();
    })
    .await;
    let found = other.get(&home, &query).await.ok();
    assert!(found["room_id"].is_string());
    let user = format!("@_irc_dave:{name}");
    let (maker, client) = (bridge.clone(), home.client().clone());
    when_asked(&bridge, format!("/_matrix/app/v1/users/{}", encode(&user)), async move {
        maker.ghost(&client, "dave").await;
    })
    .await;
    let profile = format!("/_matrix/federation/v1/query/profile?user_id={}", encode(&user));
    assert_eq!(other.get(&home, &profile).await.ok()["displayname"], "_irc_dave");
    // A room of a network is listed for others too.
    let room = found["room_id"].as_str().expect("a room");
    let list = format!("/directory/list/appservice/libera/{}", encode(room));
    bridge.ask(home.client(), stoa_kit::Method::PUT, &list, json!({ "visibility": "public" })).await.ok();
    let rooms = "/_matrix/federation/v1/publicRooms?third_party_instance_id=irc%7Clibera";
    assert_eq!(other.get(&home, rooms).await.ok()["chunk"][0]["room_id"], room);
}
