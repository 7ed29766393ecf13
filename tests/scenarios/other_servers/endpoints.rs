//! Every endpoint of the Server-Server API is there.

use stoa_kit::{Home, Launch, Method, Value, json};

use super::Meeting;
use crate::{binary, own};

/// The endpoints of Matrix 1.19, as the specification's table has them, and the older forms that servers still ask.
const ENDPOINTS: &[&str] = &[
    "GET /_matrix/federation/v1/backfill/{roomId}",
    "GET /_matrix/federation/v1/event/{eventId}",
    "GET /_matrix/federation/v1/event_auth/{roomId}/{eventId}",
    "GET /_matrix/federation/v1/hierarchy/{roomId}",
    "GET /_matrix/federation/v1/make_join/{roomId}/{userId}",
    "GET /_matrix/federation/v1/make_knock/{roomId}/{userId}",
    "GET /_matrix/federation/v1/make_leave/{roomId}/{userId}",
    "GET /_matrix/federation/v1/media/download/{mediaId}",
    "GET /_matrix/federation/v1/media/thumbnail/{mediaId}",
    "GET /_matrix/federation/v1/openid/userinfo",
    "GET /_matrix/federation/v1/publicRooms",
    "GET /_matrix/federation/v1/query/directory",
    "GET /_matrix/federation/v1/query/profile",
    "GET /_matrix/federation/v1/query/{queryType}",
    "GET /_matrix/federation/v1/state/{roomId}",
    "GET /_matrix/federation/v1/state_ids/{roomId}",
    "GET /_matrix/federation/v1/timestamp_to_event/{roomId}",
    "GET /_matrix/federation/v1/user/devices/{userId}",
    "GET /_matrix/federation/v1/version",
    "GET /_matrix/key/v2/query/{serverName}",
    "GET /_matrix/key/v2/server",
    "POST /_matrix/federation/v1/get_missing_events/{roomId}",
    "POST /_matrix/federation/v1/publicRooms",
    "POST /_matrix/federation/v1/user/keys/claim",
    "POST /_matrix/federation/v1/user/keys/query",
    "POST /_matrix/key/v2/query",
    "PUT /_matrix/federation/v1/3pid/onbind",
    "PUT /_matrix/federation/v1/exchange_third_party_invite/{roomId}",
    "PUT /_matrix/federation/v1/invite/{roomId}/{eventId}",
    "PUT /_matrix/federation/v1/send/{txnId}",
    "PUT /_matrix/federation/v1/send_join/{roomId}/{eventId}",
    "PUT /_matrix/federation/v1/send_knock/{roomId}/{eventId}",
    "PUT /_matrix/federation/v1/send_leave/{roomId}/{eventId}",
    "PUT /_matrix/federation/v2/invite/{roomId}/{eventId}",
    "PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}",
    "PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}",
];

fn filled(path: &str, server: &str) -> String {
    [
        ("{roomId}", "%21nowhere"),
        ("{eventId}", "%24nothing"),
        ("{userId}", "%40nobody%3Alocalhost"),
        ("{mediaId}", "none"),
        ("{queryType}", "weather"),
        ("{serverName}", server),
        ("{txnId}", "1"),
    ]
    .into_iter()
    .fold(path.to_owned(), |path, (name, value)| path.replace(name, value))
}

#[tokio::test]
async fn none_is_unrecognised() {
    let Some(meeting) = Meeting::new().await else { return };
    for endpoint in ENDPOINTS {
        let (method, path) = endpoint.split_once(' ').expect("a method and a path");
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let body = (method != Method::GET).then(|| json!({}));
        let reply = meeting.other.ask(&meeting.home, method, &filled(path, meeting.other.name()), body.as_ref()).await;
        assert!(reply.status != 405 && reply["errcode"] != "M_UNRECOGNIZED", "{endpoint}: {reply:?}");
        assert!(reply.status < 500, "{endpoint}: {reply:?}");
    }
}

/// Only policy servers sign, and this is none ("Policy Servers": the endpoint is optional; `M_UNRECOGNIZED` says so).
#[tokio::test]
async fn this_is_no_policy_server() {
    let Some(meeting) = Meeting::new().await else { return };
    let reply = meeting.other.post(&meeting.home, "/_matrix/policy/v1/sign", &json!({})).await;
    reply.expect(404, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn wellknown_files_say_what_the_settings_say() {
    let Some(launch) = own() else { return };
    let ask = async |home: &Home, what: &str| home.get(&format!("/.well-known/matrix/{what}")).await;
    // What is not set is not there.
    let home = Home::launch(launch).await;
    ask(&home, "server").await.expect(404, "M_NOT_FOUND");
    ask(&home, "support").await.expect(404, "M_NOT_FOUND");
    let launch = Launch::new(binary());
    let file = launch.folder().join("stoa.toml");
    let text = r#"
        [federation]
        well_known = "matrix.example.org:443"
        [support]
        contacts = [{ role = "m.role.admin", matrix_id = "@admin:example.org" }]
        page = "https://example.org/help"
    "#;
    std::fs::write(&file, text).expect("a file in a folder of ours");
    let home = Home::launch(launch.env("STOA_CONFIG", &file.display().to_string())).await;
    assert_eq!(ask(&home, "server").await.ok(), json!({ "m.server": "matrix.example.org:443" }));
    let contacts = json!([{ "role": "m.role.admin", "matrix_id": "@admin:example.org" }]);
    let support: Value = ask(&home, "support").await.ok();
    assert_eq!(support, json!({ "contacts": contacts, "support_page": "https://example.org/help" }));
}
