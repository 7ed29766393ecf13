//! "Pinging", "Querying", "Third-party networks", "Published room directories".

use stoa_kit::{Bridge, Home, Method, User, Value, encode, json};

use super::bridged;
use crate::own;

const PING: &str = "/_matrix/client/v1/appservice/irc/ping";
const PONG: &str = "/_matrix/app/v1/ping";

#[tokio::test]
async fn a_ping_says_whether_a_service_can_be_reached() {
    let bridge = Bridge::start("irc").await;
    let Some(home) = bridged(&bridge).await else { return };
    let client = home.client();
    bridge.answer(PONG, 200, json!({}));
    let ping = async || bridge.ask(client, Method::POST, PING, json!({ "transaction_id": "meow" })).await;
    assert!(ping().await.ok()["duration_ms"].is_u64());
    let heard = bridge.asked(PONG).await;
    assert_eq!(heard.body, json!({ "transaction_id": "meow" }));
    assert_eq!((heard.method.as_str(), heard.authorization.as_str()), ("POST", "Bearer hs_token_of_irc"));
    bridge.answer(PONG, 403, json!({ "errcode": "M_FORBIDDEN", "error": "no" }));
    let error = ping().await.expect(502, "M_BAD_STATUS");
    assert_eq!(error["status"], 403);
    assert!(error["body"].as_str().is_some_and(|body| body.contains("M_FORBIDDEN")));
    bridge.away(true);
    ping().await.expect(502, "M_CONNECTION_FAILED");
    // As a user that is not there yet, as mautrix does.
    bridge.away(false);
    bridge.answer(PONG, 200, json!({}));
    bridge.ask_as(client, "@_irc_new:localhost", Method::POST, PING, json!({})).await.ok();
    // Others may not, nor for others.
    let alice = home.user("alice").await;
    alice.post(PING, json!({})).await.expect(403, "M_FORBIDDEN");
    client.json(Method::POST, PING, None, Some(&json!({}))).await.expect(401, "M_MISSING_TOKEN");
    let other = PING.replace("irc", "other");
    bridge.ask(client, Method::POST, &other, json!({})).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn a_service_without_a_url_is_not_pinged() {
    let bridge = Bridge::start("irc").await.with("url", json!(null));
    let Some(home) = bridged(&bridge).await else { return };
    bridge.ask(home.client(), Method::POST, PING, json!({})).await.expect(400, "M_URL_NOT_SET");
}

/// Answers the question for a path by doing something first.
pub(super) async fn when_asked(bridge: &Bridge, path: String, then: impl Future<Output = ()> + Send + 'static) {
    let bridge = bridge.clone();
    bridge.hold(&path);
    tokio::spawn(async move {
        bridge.asked(&path).await;
        then.await;
        bridge.answer(&path, 200, json!({}));
    });
}

#[tokio::test]
async fn an_unknown_alias_of_a_service_is_asked_for() {
    let bridge = Bridge::start("irc").await;
    let Some(home) = bridged(&bridge).await else { return };
    let alice = home.user("alice").await;
    let alias = "#_irc_chat:localhost";
    let path = format!("/_matrix/app/v1/rooms/{}", encode(alias));
    // It says no.
    alice.post(&format!("/join/{}", encode(alias)), json!({})).await.expect(404, "M_NOT_FOUND");
    bridge.asked(&path).await;
    // It makes the room meanwhile.
    let (maker, client) = (bridge.clone(), home.client().clone());
    when_asked(&bridge, path, async move {
        let room = json!({ "preset": "public_chat", "room_alias_name": "_irc_chat" });
        maker.ask(&client, Method::POST, "/createRoom", room).await.ok();
    })
    .await;
    let joined = alice.post(&format!("/join/{}", encode(alias)), json!({})).await.room_id();
    let found = alice.get(&format!("/directory/room/{}", encode(alias))).await.ok();
    assert_eq!(found["room_id"], joined.as_str());
    // Aliases of nobody are asked of nobody.
    let known = bridge.heard().len();
    alice.post(&format!("/join/{}", encode("#other:localhost")), json!({})).await.expect(404, "M_NOT_FOUND");
    assert!(bridge.heard()[known..].iter().all(|heard| !heard.path.contains("/rooms/")));
    // Who does not answer has not said no.
    bridge.away(true);
    alice.post(&format!("/join/{}", encode("#_irc_other:localhost")), json!({})).await.expect(408, "M_UNKNOWN");
}

#[tokio::test]
async fn an_unknown_user_of_a_service_is_asked_for() {
    let bridge = Bridge::start("irc").await;
    let Some(home) = bridged(&bridge).await else { return };
    let alice = home.user("alice").await;
    let user = "@_irc_carol:localhost";
    let path = format!("/_matrix/app/v1/users/{}", encode(user));
    alice.get(&format!("/profile/{}", encode(user))).await.expect(404, "M_NOT_FOUND");
    let (maker, client) = (bridge.clone(), home.client().clone());
    when_asked(&bridge, path, async move {
        maker.ghost(&client, "carol").await;
    })
    .await;
    let profile = alice.get(&format!("/profile/{}", encode(user))).await.ok();
    assert_eq!(profile["displayname"], "_irc_carol");
    // By an invite too.
    let user = "@_irc_dave:localhost";
    let room = alice.create_room(json!({})).await;
    let invite = format!("/rooms/{}/invite", encode(&room));
    alice.post(&invite, json!({ "user_id": user })).await.ok();
    bridge.asked(&format!("/_matrix/app/v1/users/{}", encode(user))).await;
}

#[tokio::test]
async fn networks_are_what_services_say() {
    let irc = Bridge::start("irc").await.with("protocols", json!(["irc"]));
    let more = Bridge::start("more").await.with("protocols", json!(["irc", "gitter"]));
    let Some(launch) = own() else { return };
    let files = [&irc, &more].map(|bridge| bridge.register_at(&launch).display().to_string());
    let home = Home::launch(launch.env("STOA_APPSERVICE", &files.join(","))).await;
    let alice = home.user("alice").await;
    let network = |id: &str| {
        json!({
            "user_fields": ["nick"], "location_fields": ["channel"], "icon": "mxc://localhost/icon",
            "field_types": {}, "instances": [{ "network_id": id, "desc": id, "fields": {} }],
        })
    };
    irc.answer("/_matrix/app/v1/thirdparty/protocol/irc", 200, network("libera"));
    more.answer("/_matrix/app/v1/thirdparty/protocol/irc", 200, network("oftc"));
    let all = alice.get("/thirdparty/protocols").await.ok();
    assert!(all.get("gitter").is_none(), "nothing was said of it");
    let ids = |protocol: &Value| -> Vec<String> {
        let instances = protocol["instances"].as_array().expect("instances");
        instances.iter().filter_map(|it| it["instance_id"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(ids(&all["irc"]), ["irc|libera", "more|oftc"]);
    assert_eq!(ids(&alice.get("/thirdparty/protocol/irc").await.ok()), ["irc|libera", "more|oftc"]);
    alice.get("/thirdparty/protocol/none").await.expect(404, "M_NOT_FOUND");
    // Places and people, by fields and by name.
    let place = json!([{ "alias": "#_irc_x:localhost", "protocol": "irc", "fields": { "channel": "#x" } }]);
    irc.answer("/_matrix/app/v1/thirdparty/location/irc", 200, place.clone());
    irc.answer("/_matrix/app/v1/thirdparty/location", 200, place.clone());
    let person = json!([{ "userid": "@_irc_x:localhost", "protocol": "irc", "fields": { "nick": "x" } }]);
    irc.answer("/_matrix/app/v1/thirdparty/user/irc", 200, person.clone());
    irc.answer("/_matrix/app/v1/thirdparty/user", 200, person.clone());
    assert_eq!(alice.get("/thirdparty/location/irc?channel=%23x").await.ok(), place);
    let heard = irc.asked("/_matrix/app/v1/thirdparty/location/irc").await;
    assert!(heard.path.ends_with("?channel=%23x"), "the fields are passed on: {}", heard.path);
    assert_eq!(alice.get("/thirdparty/user/irc?nick=x").await.ok(), person);
    assert_eq!(alice.get("/thirdparty/location?alias=%23_irc_x%3Alocalhost").await.ok(), place);
    assert_eq!(alice.get("/thirdparty/user?userid=%40_irc_x%3Alocalhost").await.ok(), person);
    alice.get("/thirdparty/user?userid=%40nobody%3Alocalhost").await.expect(404, "M_NOT_FOUND");
    alice.get("/thirdparty/user/none?nick=x").await.expect(404, "M_NOT_FOUND");
}

async fn listed(user: &User, body: Value) -> Vec<String> {
    let page = user.post("/publicRooms", body).await.ok();
    let chunk = page["chunk"].as_array().expect("a chunk");
    chunk.iter().filter_map(|room| room["room_id"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn services_list_rooms_for_their_networks() {
    let bridge = Bridge::start("irc").await;
    let Some(home) = bridged(&bridge).await else { return };
    let alice = home.user("alice").await;
    let ours = alice.create_room(json!({ "visibility": "public", "preset": "public_chat" })).await;
    let theirs = alice.public_room().await;
    let path = format!("/directory/list/appservice/libera/{}", encode(&theirs));
    alice.put(&path, json!({ "visibility": "public" })).await.expect(403, "M_FORBIDDEN");
    bridge.ask(home.client(), Method::PUT, &path, json!({ "visibility": "public" })).await.ok();
    let network = json!({ "third_party_instance_id": "irc|libera" });
    assert_eq!(listed(&alice, json!({})).await, [ours.as_str()]);
    assert_eq!(listed(&alice, network.clone()).await, [theirs.as_str()]);
    let mut all = listed(&alice, json!({ "include_all_networks": true })).await;
    all.sort();
    let mut both = [ours, theirs];
    both.sort();
    assert_eq!(all, both);
    bridge.ask(home.client(), Method::PUT, &path, json!({ "visibility": "private" })).await.ok();
    assert!(listed(&alice, network).await.is_empty());
    let none = path.replace(&encode(&both[0]), "%21none%3Alocalhost").replace(&encode(&both[1]), "%21none%3Alocalhost");
    bridge.ask(home.client(), Method::PUT, &none, json!({ "visibility": "public" })).await.expect(404, "M_NOT_FOUND");
}
