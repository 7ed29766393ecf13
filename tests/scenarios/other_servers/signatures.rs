//! Request authentication.

use stoa_kit::{Home, Method, Reply, Stranger, ask_with, json, now_ms};

use super::{Meeting, path};

/// Something harmless that every server may ask, but only signed.
fn question() -> String {
    path("publicRooms", &[])
}

async fn ask(meeting: &Meeting, authorizations: &[&str]) -> Reply {
    ask_with(meeting.home.client(), Method::GET, &question(), None, authorizations).await
}

fn signed(by: &Stranger, to: &str) -> String {
    by.authorization(&Method::GET, &question(), to, None)
}

#[tokio::test]
async fn only_signed_requests_are_answered() {
    let Some(meeting) = Meeting::new().await else { return };
    let us = meeting.home.server_name();
    ask(&meeting, &[]).await.expect(401, "M_UNAUTHORIZED");
    ask(&meeting, &["Bearer abc"]).await.expect(401, "M_UNAUTHORIZED");
    ask(&meeting, &["X-Matrix origin=x"]).await.expect(401, "M_UNAUTHORIZED");
    let good = signed(&meeting.other, &us);
    ask(&meeting, &[&good]).await.ok();
    // One good signature is enough.
    let bad = good.replace("sig=\"", "sig=\"AAAA");
    ask(&meeting, &[&bad]).await.expect(401, "M_UNAUTHORIZED");
    ask(&meeting, &[&bad, "Basic abc", &good]).await.ok();
    assert_eq!(meeting.other.asked(), 1, "its keys are asked for once");
}

#[tokio::test]
async fn a_signature_is_of_this_request_and_of_that_server() {
    let Some(meeting) = Meeting::new().await else { return };
    let (us, other) = (meeting.home.server_name(), &meeting.other);
    let good = signed(other, &us);
    ask(&meeting, &[&good]).await.ok();
    // For another server, whatever it says about that.
    let elsewhere = signed(other, "elsewhere.example");
    ask(&meeting, &[&elsewhere]).await.expect(401, "M_UNAUTHORIZED");
    ask(&meeting, &[&elsewhere.replace("elsewhere.example", &us)]).await.expect(401, "M_UNAUTHORIZED");
    // Of another server, which has another key.
    let third = meeting.another(2).await;
    ask(&meeting, &[&good.replace(other.name(), third.name())]).await.expect(401, "M_UNAUTHORIZED");
    ask(&meeting, &[&good.replace(other.name(), &us)]).await.expect(401, "M_UNAUTHORIZED");
    ask(&meeting, &[&good.replace("ed25519:stranger", "ed25519:unknown")]).await.expect(401, "M_UNAUTHORIZED");
    // Of another method, path or query.
    let client = meeting.home.client();
    ask_with(client, Method::POST, &question(), None, &[&good]).await.expect(401, "M_UNAUTHORIZED");
    let more = format!("{}?limit=1", question());
    ask_with(client, Method::GET, &more, None, &[&good]).await.expect(401, "M_UNAUTHORIZED");
}

#[tokio::test]
async fn the_path_is_signed_as_it_was_sent() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    for path in ["/_matrix/federation/v1/publicRooms?since=d0&limit=%31", "/_matrix/federation/v1/%70ublicRooms?"] {
        let reply = other.get(home, path).await;
        // Whether such a path is found or not: it is never the signature that is wrong.
        assert_ne!(reply.status, 401, "{path}: {reply:?}");
    }
}

#[tokio::test]
async fn the_body_is_signed() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let search = json!({ "limit": 3, "filter": { "generic_search_term": "a\u{1}\n\u{1F600}" } });
    other.post(home, &question(), &search).await.ok();
    let authorization = other.authorization(&Method::POST, &question(), &home.server_name(), Some(&search));
    let changed = json!({ "limit": 4 });
    let reply = ask_with(home.client(), Method::POST, &question(), Some(&changed), &[&authorization]).await;
    reply.expect(401, "M_UNAUTHORIZED");
    let unsigned_body = other.authorization(&Method::POST, &question(), &home.server_name(), None);
    let reply = ask_with(home.client(), Method::POST, &question(), Some(&search), &[&unsigned_body]).await;
    reply.expect(401, "M_UNAUTHORIZED");
    // A body that is too large is not read to its end.
    let large = json!({ "x": "x".repeat(5 << 20) });
    other.post(home, &question(), &large).await.expect(413, "M_TOO_LARGE");
}

#[tokio::test]
async fn d3_71_keys_that_are_over_sign_nothing() {
    let Some(meeting) = Meeting::new().await else { return };
    let us = meeting.home.server_name();
    let (expired, retired) = (meeting.another(2).await, meeting.another(3).await);
    expired.set_validity(now_ms() - 60_000);
    retired.retire_key(now_ms() - 60_000);
    for other in [&expired, &retired] {
        ask(&meeting, &[&signed(other, &us)]).await.expect(401, "M_UNAUTHORIZED");
    }
}

#[tokio::test]
async fn settings_say_with_whom_we_speak() {
    let Some(meeting) = Meeting::new().await else { return };
    let us = meeting.home.server_name();
    let good = signed(&meeting.other, &us);
    ask(&meeting, &[&good]).await.ok();
    let (launch, _) = meeting.home.stop().await;
    let settings = launch.folder().join("stoa.toml");
    std::fs::write(&settings, format!("[federation]\ndeny = [\"{}\"]\n", meeting.other.name())).unwrap();
    let home = Home::launch(launch.env("STOA_CONFIG", &settings.display().to_string())).await;
    let reply = ask_with(home.client(), Method::GET, &question(), None, &[&good]).await;
    reply.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn anybody_may_ask_for_keys_and_the_version() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, us) = (&meeting.home, meeting.home.server_name());
    assert_eq!(home.get("/_matrix/federation/v1/version").await.ok()["server"]["name"], "Stoa");
    let own = home.get("/_matrix/key/v2/server").await.ok();
    assert_eq!(own["server_name"], us);
    assert!(own["valid_until_ts"].as_u64().is_some_and(|until| until > now_ms()));
    let keys: Vec<&String> = own["verify_keys"].as_object().expect("keys").keys().collect();
    assert!(own["signatures"][&us][keys[0]].is_string());
    // Of others, with their signature and ours.
    let other = meeting.other.name();
    let wanted = json!({ "server_keys": { other: {} } });
    let told = home.post("/_matrix/key/v2/query", wanted).await.ok();
    let document = &told["server_keys"][0];
    assert_eq!(document["server_name"], other);
    assert!(document["signatures"][other]["ed25519:stranger"].is_string());
    assert!(document["signatures"][&us][keys[0]].is_string());
    let told = home.get(&format!("/_matrix/key/v2/query/{other}")).await.ok();
    assert_eq!(told["server_keys"][0]["server_name"], other);
    // Who is not there has no keys, and that is no error.
    let told = home.get("/_matrix/key/v2/query/localhost:1").await.ok();
    assert_eq!(told["server_keys"], json!([]));
    home.post("/_matrix/key/v2/query", json!({ "server_keys": 1 })).await.expect(400, "M_BAD_JSON");
}

#[tokio::test]
async fn openid_tokens_say_who_somebody_is() {
    let Some(meeting) = Meeting::new().await else { return };
    let home = &meeting.home;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let ask =
        async |token: &str| home.get(&format!("/_matrix/federation/v1/openid/userinfo?access_token={token}")).await;
    let request = |user: &str| format!("/user/{}/openid/request_token", stoa_kit::encode(user));
    let token = alice.post(&request(&alice.id), json!({})).await.ok();
    assert_eq!((token["token_type"].as_str(), token["expires_in"].as_u64()), (Some("Bearer"), Some(3600)));
    assert_eq!(token["matrix_server_name"], home.server_name());
    let text = token["access_token"].as_str().expect("a token");
    assert_eq!(ask(text).await.ok(), json!({ "sub": alice.id }));
    bob.post(&request(&alice.id), json!({})).await.expect(403, "M_FORBIDDEN");
    ask("x").await.expect(401, "M_UNKNOWN_TOKEN");
    // It is no access token, and an access token is none of these.
    ask(&alice.token).await.expect(401, "M_UNKNOWN_TOKEN");
    let reply = home.client().json(Method::GET, "/account/whoami", Some(text), None).await;
    reply.expect(401, "M_UNKNOWN_TOKEN");
    home.get("/_matrix/federation/v1/openid/userinfo").await.expect(401, "M_MISSING_TOKEN");
}

#[tokio::test]
async fn a_server_that_asks_too_much_is_told_to_wait() {
    let Some(Meeting { home, ca, other }) = Meeting::new().await else { return };
    let us = home.server_name();
    let (launch, _) = home.stop().await;
    let settings = launch.folder().join("stoa.toml");
    std::fs::write(&settings, "[limits]\nfederation = { per_second = 0.001, burst = 3 }\n").unwrap();
    let settings = settings.display().to_string();
    let home = Home::launch(launch.env("STOA_CONFIG", &settings).env("STOA_RATE_LIMITS", "on")).await;
    let ask =
        async |authorization: &str| ask_with(home.client(), Method::GET, &question(), None, &[authorization]).await;
    let good = signed(&other, &us);
    // Nobody uses up what another server may ask.
    for _ in 0..5 {
        ask(&good.replace("sig=\"", "sig=\"AAAA")).await.expect(401, "M_UNAUTHORIZED");
    }
    for _ in 0..3 {
        ask(&good).await.ok();
    }
    assert!(ask(&good).await.expect(429, "M_LIMIT_EXCEEDED")["retry_after_ms"].is_u64());
    let third = Stranger::start(&ca, 2).await;
    ask(&signed(&third, &us)).await.ok();
}
