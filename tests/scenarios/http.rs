//! Client-Server API, "API Standards": errors, CORS, limits, `/versions`, well-known.

use stoa_kit::{Method, Request, json};

use crate::home;

#[tokio::test]
async fn versions_are_told_to_everybody() {
    let home = home().await;
    let reply = home.get("/_matrix/client/versions").await;
    assert_eq!(reply.header("content-type"), "application/json");
    let versions = reply.ok();
    let versions = versions["versions"].as_array().expect("versions");
    for version in ["v1.1", "v1.11"] {
        assert!(versions.contains(&json!(version)), "{version} in {versions:?}");
    }
}

#[tokio::test]
async fn unknown_paths_are_unrecognised() {
    let home = home().await;
    let alice = home.user("alice").await;
    for path in [
        "/_matrix/client/v3/nothing",
        "/_matrix/client/v99/sync",
        "/_matrix/client/unstable/org.example/x",
        "/_matrix/x",
    ] {
        alice.get(path).await.expect(404, "M_UNRECOGNIZED");
        home.get(path).await.expect(404, "M_UNRECOGNIZED");
    }
}

#[tokio::test]
async fn a_known_path_with_another_method_is_not_allowed() {
    let home = home().await;
    let alice = home.user("alice").await;
    alice.delete("/sync").await.expect(405, "M_UNRECOGNIZED");
    alice.get("/createRoom").await.expect(405, "M_UNRECOGNIZED");
    alice.post("/account/whoami", json!({})).await.expect(405, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn every_answer_is_for_every_origin() {
    let home = home().await;
    let alice = home.user("alice").await;
    for reply in [
        home.get("/_matrix/client/versions").await,
        home.get("/account/whoami").await,
        home.get("/_matrix/client/v3/nothing").await,
        alice.get("/sync").await,
    ] {
        assert_eq!(reply.header("access-control-allow-origin"), "*", "{reply:?}");
    }
}

#[tokio::test]
async fn a_browser_may_ask_first() {
    let home = home().await;
    for path in ["/_matrix/client/v3/sync", "/_matrix/client/v3/login", "/_matrix/media/v3/upload"] {
        let request = Request::builder()
            .method(Method::OPTIONS)
            .uri(format!("{}{path}", home.url()))
            .header("Origin", "https://app.example.org")
            .header("Access-Control-Request-Method", "PUT")
            .header("Access-Control-Request-Headers", "authorization,content-type")
            .body(Default::default())
            .expect("a request");
        let reply = home.client().send(format!("OPTIONS {path}"), request).await.expect("an answer");
        assert!(reply.status == 200 || reply.status == 204, "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), "*");
        let methods = reply.header("access-control-allow-methods").to_uppercase();
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
            assert!(methods.contains(method), "{method} in {methods}");
        }
        let headers = reply.header("access-control-allow-headers").to_lowercase();
        for header in ["authorization", "content-type", "x-requested-with"] {
            assert!(headers.contains(header), "{header} in {headers}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_is_told_apart_from_wrong_json() {
    let home = home().await;
    let alice = home.user("alice").await;
    for body in ["{", "", "not json", "{\"a\":}", "{\"a\":1}x", "\u{feff}{}"] {
        let reply = alice.raw(Method::POST, "/createRoom", "application/json", body).await;
        assert!(body.is_empty() || reply.status == 400, "{body:?}: {reply:?}");
        if !body.is_empty() {
            reply.expect(400, "M_NOT_JSON");
        }
    }
    for body in ["[]", "\"text\"", "5", "null"] {
        let reply = alice.raw(Method::POST, "/createRoom", "application/json", body).await;
        reply.expect_any(&[400], &["M_BAD_JSON", "M_NOT_JSON"]);
    }
    let reply = alice.raw(Method::POST, "/createRoom", "application/json", b"{\"name\":\"\xff\xfe\"}".to_vec()).await;
    reply.expect(400, "M_NOT_JSON");
}

#[tokio::test]
async fn a_token_in_the_query_is_not_used() {
    let home = home().await;
    let alice = home.user("alice").await;
    let reply = home.get(&format!("/account/whoami?access_token={}", alice.token)).await;
    // Deprecated since v1.11: a server may still accept it; it must not fail in another way.
    assert!(reply.status == 200 || reply.status == 401, "{reply:?}");
}

#[tokio::test]
async fn an_authorization_that_is_no_bearer_is_missing() {
    let home = home().await;
    for value in ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "bearer"] {
        let request = Request::builder()
            .uri(format!("{}/_matrix/client/v3/account/whoami", home.url()))
            .header("Authorization", value)
            .body(Default::default())
            .expect("a request");
        let reply = home.client().send(format!("Authorization: {value}"), request).await.expect("an answer");
        reply.expect_any(&[401], &["M_MISSING_TOKEN", "M_UNKNOWN_TOKEN"]);
    }
}

#[tokio::test]
async fn capabilities_name_the_default_room_version() {
    let home = home().await;
    let alice = home.user("alice").await;
    let found = alice.get("/capabilities").await.ok();
    let versions = &found["capabilities"]["m.room_versions"];
    assert_eq!(versions["default"], "12");
    for version in ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"] {
        assert_eq!(versions["available"][version], "stable");
    }
    assert!(found["capabilities"]["m.change_password"]["enabled"].is_boolean());
}

#[tokio::test]
async fn too_many_requests_are_told_when_to_come_back() {
    let Some(launch) = crate::own() else { return };
    let home = stoa_kit::Home::launch(launch.env("STOA_RATE_LIMITS", "on")).await;
    let body = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "nobody" },
        "password": "wrong",
    });
    for _ in 0..300 {
        let reply = home.post("/login", body.clone()).await;
        if reply.status == 429 {
            assert!(reply.header("retry-after").parse::<u64>().is_ok(), "{:?}", reply.headers);
            assert!(reply["retry_after_ms"].as_u64().is_some());
            assert_eq!(reply.header("access-control-allow-origin"), "*");
            reply.expect(429, "M_LIMIT_EXCEEDED");
            return;
        }
    }
    panic!("300 wrong passwords in a row were all tried");
}

/// Sends all of a request, and only then looks for the answer, as simple clients do.
fn send_all(url: &str, head: &str, bytes: usize) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(url.trim_start_matches("http://"))?;
    write!(stream, "{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n")?;
    for _ in 0..bytes.div_ceil(1 << 20) {
        stream.write_all(&[b' '; 1 << 20])?;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[tokio::test]
async fn who_goes_on_sending_reads_why_it_was_refused() {
    let Some(launch) = crate::own() else { return };
    let home = stoa_kit::Home::launch(launch.env("STOA_MAX_UPLOAD", "1M")).await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let upload = "POST /_matrix/media/v3/upload HTTP/1.1";
    let event = format!("PUT /_matrix/client/v3/rooms/{}/send/m.room.message/1 HTTP/1.1", stoa_kit::encode(&room));
    let known = format!("\r\nauthorization: Bearer {}", alice.token);
    for (head, status, errcode) in [
        (format!("{upload}{known}"), "413", "M_TOO_LARGE"),
        (format!("{event}{known}"), "413", "M_TOO_LARGE"),
        (upload.to_owned(), "401", "M_MISSING_TOKEN"),
    ] {
        let url = home.url().to_owned();
        let answer = tokio::task::spawn_blocking(move || send_all(&url, &head, 60 << 20)).await.unwrap();
        let answer = answer.expect("an answer, not a broken connection");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(errcode), "{answer}");
    }
}
