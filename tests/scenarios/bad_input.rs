//! Input that no client should send. It gets the specified error, changes nothing, and the server goes on.
//! Client-Server API, "Size limits" and "Standard error response"; Appendices, "Canonical JSON" and identifier grammar.

use stoa_kit::{Home, Method, Reply, SyncOptions, User, Value, encode, json, unique};

use crate::home;

/// A room whose history must be the same afterwards.
struct Untouched {
    alice: User,
    room: String,
    before: Vec<Value>,
}

impl Untouched {
    async fn new(home: &Home) -> Self {
        let alice = home.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let before = alice.whole_history(&room).await;
        Self { alice, room, before }
    }

    async fn raw(&self, body: impl Into<Vec<u8>>) -> Reply {
        let path = format!("/rooms/{}/send/m.room.message/{}", encode(&self.room), unique());
        self.alice.raw(Method::PUT, &path, "application/json", body.into()).await
    }

    async fn check(&self) {
        let ids = |events: &[Value]| events.iter().map(|event| event["event_id"].clone()).collect::<Vec<_>>();
        assert_eq!(ids(&self.alice.whole_history(&self.room).await), ids(&self.before));
        self.alice.text(&self.room, "the room still works").await;
    }
}

#[tokio::test]
async fn floats_and_big_integers_are_not_canonical() {
    let home = home().await;
    let room = Untouched::new(&home).await;
    for number in
        ["1.5", "1e3", "-0.0", "9007199254740992", "-9007199254740992", "123456789012345678901234567890", "1e400"]
    {
        for body in [format!("{{\"n\":{number}}}"), format!("{{\"deep\":[{{\"n\":[{number}]}}]}}")] {
            let reply = room.raw(body).await;
            reply.expect_any(&[400], &["M_BAD_JSON", "M_NOT_JSON", "M_UNKNOWN"]);
        }
    }
    for number in ["NaN", "Infinity", "-Infinity", "01", "+1", ".5", "0x10"] {
        room.raw(format!("{{\"n\":{number}}}")).await.expect_any(&[400], &["M_BAD_JSON", "M_NOT_JSON"]);
    }
    room.check().await;
}

#[tokio::test]
async fn the_largest_integers_are_fine() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let content = json!({ "most": 9_007_199_254_740_991_i64, "least": -9_007_199_254_740_991_i64, "zero": 0 });
    let id = alice.send(&room, "org.example.numbers", content.clone()).await.event_id();
    assert_eq!(alice.event(&room, &id).await.ok()["content"], content);
}

#[tokio::test]
async fn deep_nesting_does_not_hurt() {
    let home = home().await;
    let room = Untouched::new(&home).await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let depth = 9_000;
        let inner = if open == "[" { String::new() } else { "1".to_owned() };
        let body = format!("{{\"x\":{}{inner}{}}}", open.repeat(depth), close.repeat(depth));
        let reply = room.raw(body).await;
        crate::refused(&reply);
    }
    // Never closed, in a body of the largest size.
    let reply = room.raw("[".repeat(60_000)).await;
    assert_eq!(reply.status, 400, "{reply:?}");
    room.check().await;
}

#[tokio::test]
async fn an_event_has_at_most_65536_bytes() {
    let home = home().await;
    let room = Untouched::new(&home).await;
    for length in [65_537, 66_000, 120_000] {
        let body = json!({ "msgtype": "m.text", "body": "x".repeat(length) }).to_string();
        room.raw(body).await.expect(413, "M_TOO_LARGE");
    }
    room.check().await;
    // What is added to the content (hashes, signatures, IDs) fits beside 60,000 bytes of text.
    let id = room.alice.text(&room.room, &"y".repeat(60_000)).await;
    assert_eq!(room.alice.event(&room.room, &id).await.ok()["content"]["body"].as_str().map(str::len), Some(60_000));
}

#[tokio::test]
async fn a_huge_body_is_cut_off_early() {
    let home = home().await;
    let room = Untouched::new(&home).await;
    let path = format!("/rooms/{}/send/m.room.message/{}", encode(&room.room), unique());
    let body = vec![b' '; 40_000_000];
    let token = Some(room.alice.token.as_str());
    // The connection may be closed while we still write.
    if let Ok(reply) = home.client().attempt(Method::PUT, &path, token, "application/json", body.into()).await {
        crate::refused(&reply);
        assert!(!crate::strict() || reply.status == 413, "{reply:?}");
    }
    room.check().await;
}

#[tokio::test]
async fn odd_unicode_is_kept_exactly() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    for text in [
        "\u{1}\u{2}\u{1f}\u{7f}\u{80}\u{9f}",
        "line\nline\r\n\ttab \u{2028}\u{2029}",
        "\u{202e}right to left\u{202c} \u{200d}\u{feff}",
        "e\u{301} is not \u{e9}",
        "👩‍👩‍👧‍👦 \u{10ffff} \u{fffd} \u{fffe}",
        "\"quotes\" \\backslash\\ /slash/ </script>",
        "Ω ℵ 漢字 🎨 नमस्ते",
    ] {
        let content = json!({ "msgtype": "m.text", "body": text, text: { text: [text] } });
        let id = alice.send(&room, "m.room.message", content.clone()).await.event_id();
        assert_eq!(bob.event(&room, &id).await.ok()["content"], content);
    }
}

#[tokio::test]
async fn nul_and_lone_surrogates_never_break_reading() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let token = bob.sync().await.token().to_owned();
    for body in [
        r#"{"msgtype":"m.text","body":"nul \u0000 nul"}"#,
        r#"{"msgtype":"m.text","body":"lone \ud800 surrogate"}"#,
        r#"{"msgtype":"m.text","body":"swapped \udc00\ud800"}"#,
        r#"{"msgtype":"m.text","b\u0000dy":"key"}"#,
    ] {
        let path = format!("/rooms/{}/send/m.room.message/{}", encode(&room), unique());
        let reply = alice.raw(Method::PUT, &path, "application/json", body).await;
        // NUL is a character of Unicode and may be kept; a lone surrogate is none and cannot be.
        if reply.status != 200 {
            crate::refused(&reply);
        }
    }
    let id = alice.text(&room, "after").await;
    let sync = bob.sync_until(Some(&token), |sync| sync.has(&room, &id)).await;
    assert!(sync.bodies(&room).contains(&"after"));
    alice.whole_history(&room).await;
}

#[tokio::test]
async fn a_key_twice_is_one_key() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let path = format!("/rooms/{}/send/org.example.twice/{}", encode(&room), unique());
    let reply = alice.raw(Method::PUT, &path, "application/json", r#"{"a":1,"a":2}"#).await;
    if reply.status == 200 {
        let id = reply.event_id();
        let event = alice.event(&room, &id).await;
        assert_eq!(String::from_utf8_lossy(&event.body).matches("\"a\"").count(), 1, "{event:?}");
    } else {
        reply.expect_any(&[400], &["M_NOT_JSON", "M_BAD_JSON"]);
    }
}

#[tokio::test]
async fn content_must_be_an_object() {
    let home = home().await;
    let room = Untouched::new(&home).await;
    for body in ["[]", "null", "1", "\"x\"", "true"] {
        room.raw(body).await.expect_any(&[400], &["M_BAD_JSON", "M_NOT_JSON"]);
        let path = format!("/rooms/{}/state/org.example.x/", encode(&room.room));
        let reply = room.alice.raw(Method::PUT, &path, "application/json", body).await;
        reply.expect_any(&[400], &["M_BAD_JSON", "M_NOT_JSON"]);
    }
    room.check().await;
}

#[tokio::test]
async fn over_long_names_are_refused() {
    let home = home().await;
    let room = Untouched::new(&home).await;
    let alice = &room.alice;
    let long = "x".repeat(256);
    let sent = alice.send(&room.room, &long, json!({})).await;
    sent.expect_any(&[400, 413], &["M_TOO_LARGE", "M_BAD_JSON", "M_INVALID_PARAM", "M_UNKNOWN"]);
    let set = alice.set_state(&room.room, "org.example.x", &long, json!({})).await;
    set.expect_any(&[400, 413], &["M_TOO_LARGE", "M_BAD_JSON", "M_INVALID_PARAM", "M_UNKNOWN"]);
    // 128 characters of two bytes are 256 bytes.
    let set = alice.set_state(&room.room, "org.example.x", &"é".repeat(128), json!({})).await;
    set.expect_any(&[400, 413], &["M_TOO_LARGE", "M_BAD_JSON", "M_INVALID_PARAM", "M_UNKNOWN"]);
    room.check().await;
    alice.set_state(&room.room, "org.example.x", &"x".repeat(255), json!({})).await.ok();
}

#[tokio::test]
async fn rooms_that_do_not_exist_are_like_rooms_of_others() {
    let home = home().await;
    let alice = home.user("alice").await;
    let statuses = [403, 404, 400];
    let codes = ["M_FORBIDDEN", "M_NOT_FOUND", "M_INVALID_PARAM", "M_UNKNOWN"];
    for room in ["!nothing:example.org", "!nothing", "nothing", "!", "!:", "#alias:example.org", "!a b:c", "!\u{0}:x"] {
        let text = json!({ "msgtype": "m.text", "body": "x" });
        alice.send(room, "m.room.message", text).await.expect_any(&statuses, &codes);
        alice.state(room, "m.room.name", "").await.expect_any(&statuses, &codes);
        alice.messages(room, "dir=b").await.expect_any(&statuses, &codes);
        alice.typing(room, true).await.expect_any(&statuses, &codes);
    }
    assert!(alice.sync().await.quiet());
}

#[tokio::test]
async fn identifiers_of_wrong_shape_are_refused() {
    let home = home().await;
    let room = Untouched::new(&home).await;
    let path = format!("/rooms/{}/invite", encode(&room.room));
    for wrong in
        ["", "bob", "@", "@bob", "@bob:", ":", &format!("@{}:localhost", "b".repeat(300)), "@b\u{0}b:localhost"]
    {
        let reply = room.alice.post(&path, json!({ "user_id": wrong })).await;
        if wrong.is_ascii() && !wrong.contains('\0') || crate::strict() {
            crate::refused(&reply);
        }
    }
    for wrong in [json!({}), json!({ "user_id": 5 }), json!({ "user_id": null })] {
        let reply = room.alice.post(&path, wrong).await;
        crate::refused(&reply);
    }
    room.check().await;
}

#[tokio::test]
async fn wrong_types_everywhere_are_refused() {
    let home = home().await;
    let room = Untouched::new(&home).await;
    let alice = &room.alice;
    let user = alice.path_id();
    for (method, path, body) in [
        (Method::POST, "/createRoom".to_owned(), json!({ "name": 7 })),
        (Method::POST, "/createRoom".to_owned(), json!({ "invite": { "a": 1 } })),
        (Method::POST, "/login".to_owned(), json!({ "type": 5 })),
        (Method::POST, "/login".to_owned(), json!({ "type": "m.login.password", "identifier": "x", "password": "y" })),
        (
            Method::POST,
            "/register".to_owned(),
            json!({ "username": 5, "password": "x", "auth": { "type": "m.login.dummy" } }),
        ),
        (Method::POST, "/keys/query".to_owned(), json!({ "device_keys": [] })),
        (Method::POST, "/keys/claim".to_owned(), json!({ "one_time_keys": 5 })),
        (Method::POST, "/keys/upload".to_owned(), json!({ "device_keys": "x" })),
        (Method::PUT, format!("/devices/{}", alice.device), json!({ "display_name": {} })),
        (Method::PUT, format!("/rooms/{}/typing/{user}", room.room), json!({ "typing": true, "timeout": "x" })),
        (Method::POST, format!("/user/{user}/filter"), json!([])),
    ] {
        let reply = alice.raw(method, &path, "application/json", body.to_string()).await;
        crate::refused(&reply);
    }
    room.check().await;
}

#[tokio::test]
async fn malformed_membership_and_state_are_refused() {
    let home = home().await;
    let room = Untouched::new(&home).await;
    let alice = &room.alice;
    for content in
        [json!({}), json!({ "membership": "dancing" }), json!({ "membership": 5 }), json!({ "membership": null })]
    {
        let reply = alice.set_state(&room.room, "m.room.member", &alice.id, content).await;
        crate::refused(&reply);
    }
    for key in ["not a user", "@", ""] {
        let reply = alice.set_state(&room.room, "m.room.member", key, json!({ "membership": "invite" })).await;
        crate::refused(&reply);
    }
    for levels in [json!({ "users": { "not a user": 5 } }), json!({ "users": [] }), json!({ "events": { "a": "5" } })] {
        let reply = alice.set_state(&room.room, "m.room.power_levels", "", levels).await;
        crate::refused(&reply);
    }
    room.check().await;
}

#[tokio::test]
async fn odd_queries_are_refused_or_bounded() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.texts(&room, (0..5).map(|n| n.to_string())).await;
    // A limit beyond reason is cut down, not obeyed and not an error.
    let page = alice.messages(&room, "dir=b&limit=999999999").await.ok();
    assert!(page["chunk"].as_array().is_some_and(|chunk| chunk.len() <= 1_000));
    for query in ["dir=b&limit=abc", "dir=b&limit=99999999999999999999999999"] {
        let reply = alice.messages(&room, query).await;
        assert!(reply.status == 400 || reply.status == 200, "{reply:?}");
    }
    for path in
        ["/sync?since=%00", "/sync?since=%FF%FE", "/sync?filter=%7B%22", "/sync?timeout=-1", "/sync?full_state=perhaps"]
    {
        let reply = alice.get(path).await;
        assert!(reply.status == 400 || reply.status == 200, "{path}: {reply:?}");
    }
    let filter = json!({ "room": { "timeline": { "limit": 999_999_999 } } });
    alice.sync_with(&SyncOptions::default().filter(filter)).await;
}

#[tokio::test]
async fn tokens_of_others_lead_nowhere() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({})).await;
    alice.text(&room, "secret").await;
    let token = alice.sync().await.token().to_owned();
    alice.text(&room, "secret").await;
    // Bob may use the token; it shows him nothing that is not his.
    let reply = bob.try_sync(&SyncOptions::since(&token)).await;
    assert!(!String::from_utf8_lossy(&reply.body).contains("secret"));
    bob.messages(&room, &format!("dir=b&from={}", encode(&token))).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn the_server_is_still_there_after_all_kinds_of_bytes() {
    let home = home().await;
    let alice = home.user("alice").await;
    let mut dice = stoa_kit::Dice::new(7);
    for _ in 0..150 {
        let length = dice.below(200);
        let body: Vec<u8> = (0..length).map(|_| dice.below(256) as u8).collect();
        let path =
            *dice.pick(&["/createRoom", "/keys/upload", "/login", "/register", "/keys/query", "/join/x", "/refresh"]);
        let reply = alice.raw(Method::POST, path, "application/json", body).await;
        assert!(reply.status < 500 || !crate::strict(), "{reply:?}");
    }
    alice.get("/account/whoami").await.ok();
}
