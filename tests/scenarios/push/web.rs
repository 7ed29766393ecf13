//! Web Push (MSC4174): browsers are told without a gateway, and nobody on the way can read what.

use stoa_kit::{Browser, Fault, Gateway, Home, Pushed, Reply, User, Value, json};

use super::launch;

const APP: &str = "org.example.web";

/// Alice, who writes; Bob, who has a browser; their room; and the push service of the browser.
struct Scene {
    home: Home,
    alice: User,
    bob: User,
    room: String,
    service: Gateway,
    browser: Browser,
    vapid: String,
}

impl Scene {
    async fn new() -> Option<Scene> {
        let home = Home::launch(launch()?).await;
        let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
        let room = alice.room_with(&[&bob, &carol]).await;
        let capabilities = bob.get("/capabilities").await.ok();
        let told = &capabilities["capabilities"]["org.matrix.msc4174.webpush"];
        assert_eq!(told["enabled"], true);
        let vapid = told["vapid"].as_str().expect("a key").to_owned();
        let versions = home.get("/_matrix/client/versions").await.ok();
        assert_eq!(versions["unstable_features"]["org.matrix.msc4174"], true);
        Some(Scene { home, alice, bob, room, service: Gateway::start().await, browser: Browser::new(1), vapid })
    }

    fn body(&self, data: Value) -> Value {
        body(&self.browser, &self.service.at("/wpush/v2/abc"), data)
    }

    async fn set(&self, data: Value) -> Reply {
        self.bob.post("/pushers/set", self.body(data)).await
    }

    /// What the browser was told, with the requests that brought it.
    fn read(&self) -> Vec<(Value, Pushed)> {
        let all = self.service.taken().into_iter();
        all.map(|pushed| (self.browser.read(&pushed).expect("it is for this browser"), pushed)).collect()
    }

    async fn until(&self, fits: impl Fn(&Value) -> bool) -> (Value, Pushed) {
        let pushed = self.service.until(|pushed| self.browser.read(pushed).is_some_and(|said| fits(&said))).await;
        (self.browser.read(&pushed).expect("it was read before"), pushed)
    }

    async fn event(&self, id: &str) -> (Value, Pushed) {
        self.until(|said| said["event_id"] == id).await
    }

    /// Sets a pusher and shows that it arrives.
    async fn subscribe(&self, data: Value) {
        assert_eq!(self.set(data).await.status, 201);
        let (said, _) = self.until(|said| said["ack_token"].is_string()).await;
        self.bob.post("/pushers/ack", said).await.ok();
    }
}

fn body(browser: &Browser, url: &str, mut data: Value) -> Value {
    data["url"] = json!(url);
    data["auth"] = json!(browser.auth());
    json!({
        "pushkey": browser.p256dh(), "kind": "webpush", "app_id": APP, "app_display_name": "App",
        "device_display_name": "Browser", "lang": "en", "data": data,
    })
}

async fn activated(user: &User) -> Value {
    let listed = user.get("/pushers").await.ok();
    let pusher = &listed["pushers"][0];
    assert_eq!(pusher["data"]["activated"], pusher["activated"]);
    pusher["activated"].clone()
}

#[tokio::test]
async fn a_browser_shows_that_it_is_there_and_is_told() {
    let Some(scene) = Scene::new().await else { return };
    let Scene { home, alice, bob, room, .. } = &scene;
    let reply = scene.set(json!({ "activated": true })).await;
    assert_eq!((reply.status, &reply.json), (201, &json!({})));
    assert_eq!(activated(bob).await, false);
    let early = alice.text(room, "too early").await;
    let (said, pushed) = scene.until(|said| said["ack_token"].is_string()).await;
    let token = said["ack_token"].clone();
    assert_eq!(said, json!({ "app_id": APP, "ack_token": token }));
    assert!(pushed.head.starts_with("POST /wpush/v2/abc "), "{}", pushed.head);
    assert_eq!(pushed.header("content-encoding"), Some("aes128gcm"));
    assert_eq!(pushed.header("topic"), None);
    // Only the one who was asked, with what was asked.
    let ack = |app: &str, token: &Value| json!({ "app_id": app, "ack_token": token });
    bob.post("/pushers/ack", ack("org.example.other", &token)).await.expect(404, "M_NOT_FOUND");
    let path = "/_matrix/client/unstable/org.matrix.msc4174/pushers/ack";
    bob.post(path, ack(APP, &json!("guessed"))).await.expect(400, "M_UNKNOWN_ACTIVATION_TOKEN");
    let mallory = home.user("mallory").await;
    let other = Browser::new(7);
    let reply = mallory.post("/pushers/set", body(&other, &scene.service.at("/other"), json!({}))).await;
    assert_eq!(reply.status, 201);
    mallory.post(path, ack(APP, &token)).await.expect(400, "M_UNKNOWN_ACTIVATION_TOKEN");
    assert_eq!(activated(bob).await, false);
    assert_eq!(bob.post(path, ack(APP, &token)).await.ok(), json!({}));
    assert_eq!(activated(bob).await, true);
    alice.put(&format!("/profile/{}/displayname", alice.path_id()), json!({ "displayname": "Alice" })).await.ok();
    let id = alice.text(room, "hello").await;
    let pushed = scene.service.until(|pushed| scene.browser.read(pushed).is_some_and(|it| it["event_id"] == *id)).await;
    let said = scene.browser.read(&pushed).expect("for this browser");
    assert!(other.read(&pushed).is_none(), "for no other");
    let expected = json!({
        "event_id": id, "room_id": room, "type": "m.room.message", "sender": alice.id,
        "sender_display_name": "Alice", "content": { "msgtype": "m.text", "body": "hello" },
        "prio": "low", "unread": 2, "tweaks": {},
    });
    assert_eq!(said, expected);
    assert_eq!((pushed.header("ttl"), pushed.header("urgency")), (Some("86400"), Some("normal")));
    let claims = Browser::claims(&pushed, &scene.vapid).expect("signed with the key that browsers are told of");
    let origin = scene.service.at("");
    assert_eq!((&claims["aud"], &claims["sub"]), (&json!(origin), &json!("https://localhost")));
    assert!(claims["exp"].is_u64());
    assert!(!scene.service.told().iter().any(|it| scene.browser.read(it).is_some_and(|it| it["event_id"] == *early)));
}

#[tokio::test]
async fn the_same_browser_need_not_show_itself_again_but_another_must() {
    let Some(mut scene) = Scene::new().await else { return };
    scene.subscribe(json!({})).await;
    assert_eq!(scene.set(json!({ "format": "event_id_only" })).await.status, 200);
    assert_eq!(activated(&scene.bob).await, true);
    let id = scene.alice.text(&scene.room, "secret").await;
    let (said, _) = scene.event(&id).await;
    assert_eq!(said, json!({ "event_id": id, "room_id": scene.room, "prio": "low", "unread": 1 }));
    // The key of the server outlives it, as does the subscription.
    scene.home.kill();
    scene.home.restart().await;
    let capabilities = scene.bob.get("/capabilities").await.ok();
    assert_eq!(capabilities["capabilities"]["org.matrix.msc4174.webpush"]["vapid"], scene.vapid);
    let id = scene.alice.text(&scene.room, "again").await;
    let (_, pushed) = scene.event(&id).await;
    assert!(Browser::claims(&pushed, &scene.vapid).is_some());
    let elsewhere = body(&scene.browser, &scene.service.at("/elsewhere"), json!({}));
    assert_eq!(scene.bob.post("/pushers/set", elsewhere).await.status, 201);
    assert_eq!(activated(&scene.bob).await, false);
}

#[tokio::test]
async fn what_does_not_fit_is_left_out() {
    let Some(scene) = Scene::new().await else { return };
    scene.subscribe(json!({ "default_payload": { "session": "s1" } })).await;
    let long = scene.alice.text(&scene.room, &"long ".repeat(2000)).await;
    let (said, pushed) = scene.event(&long).await;
    assert_eq!((&said["content"], &said["sender"]), (&Value::Null, &json!(scene.alice.id)));
    assert_eq!(said["session"], "s1");
    assert!(pushed.body.len() <= 4096);
    // A service that takes less than others is told less.
    scene.service.fail_next(Fault::Status(413));
    let id = scene.alice.text(&scene.room, "short").await;
    let (said, _) = scene.event(&id).await;
    assert_eq!(said, json!({ "event_id": id, "room_id": scene.room }));
    let mention = json!({ "msgtype": "m.text", "body": "hey", "m.mentions": { "user_ids": [scene.bob.id] } });
    let id = scene.alice.send(&scene.room, "m.room.message", mention).await.event_id();
    let (said, pushed) = scene.event(&id).await;
    assert_eq!((&said["prio"], &said["tweaks"]["highlight"]), (&json!("high"), &json!(true)));
    assert_eq!(pushed.header("urgency"), Some("high"));
}

#[tokio::test]
async fn numbers_replace_each_other() {
    let Some(scene) = Scene::new().await else { return };
    scene.subscribe(json!({ "only_last_per_room": true })).await;
    let id = scene.alice.text(&scene.room, "hello").await;
    let (_, of_room) = scene.event(&id).await;
    scene.bob.receipt(&scene.room, "m.read", &id, json!({})).await.ok();
    let (said, pushed) = scene.until(|said| said["unread"] == 0).await;
    assert_eq!(said, json!({ "unread": 0 }));
    assert_eq!((pushed.header("topic"), pushed.header("urgency")), (Some("unread"), Some("low")));
    let topic = of_room.header("topic").expect("a topic of the room");
    assert!(topic.len() <= 32 && topic.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{topic}");
    // Who wants events only is not told of numbers.
    assert_eq!(scene.set(json!({ "events_only": true })).await.status, 200);
    let id = scene.alice.text(&scene.room, "more").await;
    scene.event(&id).await;
    scene.bob.receipt(&scene.room, "m.read", &id, json!({})).await.ok();
    let id = scene.alice.text(&scene.room, "last").await;
    scene.event(&id).await;
    assert_eq!(scene.read().iter().filter(|(said, _)| said["event_id"].is_null() && said["unread"] == 0).count(), 1);
}

#[tokio::test]
async fn a_browser_that_is_gone_is_forgotten() {
    for status in [404, 410, 403] {
        let Some(scene) = Scene::new().await else { return };
        scene.subscribe(json!({})).await;
        scene.service.fail(Some(Fault::Status(status)));
        scene.alice.text(&scene.room, "hello").await;
        let start = tokio::time::Instant::now();
        while scene.bob.get("/pushers").await.ok()["pushers"] != json!([]) {
            assert!(start.elapsed() < std::time::Duration::from_secs(10), "it stays after {status}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn what_is_no_subscription_is_refused() {
    let Some(scene) = Scene::new().await else { return };
    let good = scene.body(json!({}));
    for (field, value) in [
        ("pushkey", json!("BCVxsr7N")),
        ("pushkey", json!(scene.browser.p256dh().replace(|letter: char| letter.is_ascii_digit(), "x"))),
        ("auth", json!("short")),
        ("url", json!("https:///wpush")),
        ("url", json!("mailto:a@example.org")),
    ] {
        let mut bad = good.clone();
        match field {
            "pushkey" => bad[field] = value,
            _ => bad["data"][field] = value,
        }
        scene.bob.post("/pushers/set", bad).await.expect(400, "M_INVALID_PARAM");
    }
    let mut bad = good;
    bad["data"].as_object_mut().expect("data").remove("auth");
    scene.bob.post("/pushers/set", bad).await.expect(400, "M_MISSING_PARAM");
    assert!(scene.service.told().is_empty());
}
