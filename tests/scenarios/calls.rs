//! Client-Server API, "Voice over IP", and MSC4143: where calls find their relays and their infrastructure.

use stoa_kit::{Home, Method, Value, json};

use crate::{home, own};

const TRANSPORTS: [&str; 2] =
    ["/_matrix/client/v1/rtc/transports", "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports"];

#[tokio::test]
async fn a_server_without_relays_says_so() {
    let home = home().await;
    let alice = home.user("alice").await;
    assert_eq!(alice.get("/voip/turnServer").await.ok(), json!({}));
    for path in TRANSPORTS {
        assert_eq!(alice.get(path).await.ok(), json!({ "rtc_transports": [] }));
    }
    let client = home.client().json(Method::GET, "/.well-known/matrix/client", None, None).await.ok();
    assert!(client.get("org.matrix.msc4143.rtc_foci").is_none());
}

#[tokio::test]
async fn relays_are_told_with_a_password_for_a_while() {
    let Some(launch) = own() else { return };
    let settings =
        "[turn]\nuris = [\"turn:a.example?transport=udp\", \"turns:a.example\"]\nsecret = \"north\"\nttl = 600";
    let home = Home::launch(launch.with_config(settings)).await;
    let alice = home.user("alice").await;
    let before = stoa_kit::now_ms() / 1000;
    let turn = alice.get("/voip/turnServer").await.ok();
    assert_eq!((&turn["ttl"], &turn["uris"][1]), (&json!(600), &json!("turns:a.example")));
    let (expires, user) = turn["username"].as_str().unwrap().split_once(':').unwrap();
    assert_eq!(user, alice.id);
    assert!((before + 600..before + 660).contains(&expires.parse().unwrap()));
    assert_eq!(turn["password"].as_str().unwrap().len(), 28, "20 bytes in base64");
    home.get("/voip/turnServer").await.expect(401, "M_MISSING_TOKEN");
}

#[tokio::test]
async fn group_calls_find_their_infrastructure() {
    let Some(launch) = own() else { return };
    let settings = "[rtc]\ntransports = [{ type = \"livekit\", livekit_service_url = \"https://rtc.example\" }]";
    let home = Home::launch(launch.with_config(settings)).await;
    let alice = home.user("alice").await;
    let transports: Value = json!([{ "type": "livekit", "livekit_service_url": "https://rtc.example" }]);
    for path in TRANSPORTS {
        assert_eq!(alice.get(path).await.ok()["rtc_transports"], transports);
        home.get(path).await.expect(401, "M_MISSING_TOKEN");
    }
    let client = home.client().json(Method::GET, "/.well-known/matrix/client", None, None).await.ok();
    assert_eq!(client["org.matrix.msc4143.rtc_foci"], transports);
}
