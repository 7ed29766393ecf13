//! MSC4140, delayed events: scheduled, looked at, restarted, cancelled, sent; by their own endpoints and as the first clients
//! ask for them.

use std::time::Duration;

use stoa_kit::{Home, Method, Reply, User, Value, encode, json};

use crate::{own, two};

const UNSTABLE: &str = "/_matrix/client/unstable/org.matrix.msc4140";
const STABLE: &str = "/_matrix/client/v1";
/// Longer than any test.
const LONG: u64 = 3_600_000;

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

/// Schedules a message with a transaction ID, at the stable endpoint.
async fn schedule_as(user: &User, room: &str, txn: &str, body: Value) -> Reply {
    user.put(&format!("/rooms/{}/delayed_event/m.room.message/{txn}", encode(room)), body).await
}

/// Schedules a text and gives its delay ID.
async fn schedule(user: &User, room: &str, delay_ms: u64, body: &str) -> String {
    let reply = schedule_as(user, room, &user.txn(), json!({ "delay_ms": delay_ms, "content": text(body) })).await;
    delay_id(&reply.ok())
}

fn delay_id(reply: &Value) -> String {
    assert!(reply.get("event_id").is_none(), "nothing was sent yet: {reply}");
    reply["delay_id"].as_str().expect("a delay_id").to_owned()
}

async fn look(user: &User, id: &str) -> Reply {
    user.get(&format!("{STABLE}/delayed_events/{id}")).await
}

async fn act(user: &User, id: &str, action: &str) -> Reply {
    user.post(&format!("{STABLE}/delayed_events/{id}/{action}"), json!({})).await
}

/// The IDs of what still waits, the next one first.
async fn waiting(user: &User) -> Vec<String> {
    let all = user.get(&format!("{STABLE}/delayed_events")).await.ok();
    all["delayed_events"].as_array().expect("a list").iter().map(delay_id).collect()
}

/// What became of it, when it is over.
async fn over(user: &User, id: &str) -> Value {
    for _ in 0..400 {
        let delayed = look(user, id).await.ok();
        if delayed.get("finalised").is_some() {
            return delayed["finalised"].clone();
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{id} does not end");
}

#[tokio::test]
async fn an_event_is_sent_when_its_time_has_come() {
    let (_home, alice, bob, room) = two().await;
    let token = bob.sync().await.token().to_owned();
    let id = schedule(&alice, &room, 700, "later").await;
    let delayed = look(&alice, &id).await.ok();
    assert_eq!((&delayed["room_id"], &delayed["type"]), (&json!(room), &json!("m.room.message")));
    assert_eq!((&delayed["delay_ms"], &delayed["content"]), (&json!(700), &text("later")));
    assert!(delayed.get("state_key").is_none() && delayed.get("finalised").is_none(), "{delayed}");
    assert_eq!(waiting(&alice).await, [id.as_str()]);
    let sync = bob.sync_until(Some(&token), |sync| !sync.bodies(&room).is_empty()).await;
    let event = sync.timeline(&room)[0];
    assert_eq!((&event["content"], &event["sender"]), (&text("later"), &json!(alice.id)));
    let due = delayed["delayed_since_ts"].as_u64().unwrap() + 700;
    assert!(event["origin_server_ts"].as_u64().unwrap() >= due, "it was sent before its time");
    let end = over(&alice, &id).await;
    assert_eq!(end["event_id"], event["event_id"]);
    assert!(end["finalised_ts"].as_u64().unwrap() >= due && end.get("error").is_none());
    assert!(waiting(&alice).await.is_empty());
}

#[tokio::test]
async fn the_delay_id_is_told_to_the_sender_alone() {
    let (home, alice, bob, room) = two().await;
    let id = schedule(&alice, &room, 1, "soon").await;
    let event = over(&alice, &id).await["event_id"].as_str().unwrap().to_owned();
    let other_device = home.device_of(&alice).await;
    for device in [&alice, &other_device] {
        let unsigned = device.event(&room, &event).await.ok()["unsigned"].clone();
        assert_eq!((&unsigned["org.matrix.msc4140.delay_id"], &unsigned["delay_id"]), (&json!(id), &json!(id)));
        assert!(unsigned.get("transaction_id").is_none());
    }
    let unsigned = bob.event(&room, &event).await.ok()["unsigned"].clone();
    assert!(unsigned.get("org.matrix.msc4140.delay_id").is_none() && unsigned.get("delay_id").is_none());
}

#[tokio::test]
async fn the_first_clients_ask_by_a_parameter() {
    let (_home, alice, _bob, room) = two().await;
    let (path, room_path) = (format!("/rooms/{}", encode(&room)), encode(&room));
    let send = format!("{path}/send/m.room.message/t1?org.matrix.msc4140.delay={LONG}");
    let message = delay_id(&alice.put(&send, text("one")).await.ok());
    assert_eq!(delay_id(&alice.put(&send, text("one")).await.ok()), message, "it is a transaction");
    let state = format!("{path}/state/org.example.call/a%20key?org.matrix.msc4140.delay={}", LONG - 60_000);
    let state = delay_id(&alice.put(&state, json!({ "left": true })).await.ok());
    assert_eq!(waiting(&alice).await, [state.clone(), message.clone()]);
    // Under the unstable name, things are also called as they were before.
    let delayed = alice.get(&format!("{UNSTABLE}/delayed_events/{state}")).await.ok();
    assert_eq!((&delayed["state_key"], &delayed["delay"]), (&json!("a key"), &json!(LONG - 60_000)));
    assert_eq!(
        (&delayed["delay_ms"], &delayed["running_since"]),
        (&json!(LONG - 60_000), &delayed["delayed_since_ts"])
    );
    // The action stood in the body.
    let by_body = format!("{UNSTABLE}/delayed_events/{state}");
    alice.post(&by_body, json!({ "action": "eat" })).await.expect(400, "M_INVALID_PARAM");
    alice.post(&by_body, json!({})).await.expect(400, "M_BAD_JSON");
    alice.post(&by_body, json!({ "action": "send" })).await.ok();
    assert_eq!(alice.state(&room, "org.example.call", "a key").await.ok(), json!({ "left": true }));
    alice.post(&format!("{UNSTABLE}/delayed_events/{message}/cancel"), json!({})).await.ok();
    assert!(alice.get(&format!("{UNSTABLE}/delayed_events")).await.ok()["delayed_events"] == json!([]));
    let own = format!("{UNSTABLE}/rooms/{room_path}/delayed_event/org.example.call/t2");
    let id = delay_id(&alice.put(&own, json!({ "delay_ms": LONG, "state_key": "", "content": {} })).await.ok());
    assert_eq!(look(&alice, &id).await.ok()["state_key"], "");
}

#[tokio::test]
async fn a_repeated_request_schedules_once() {
    let (_home, alice, _bob, room) = two().await;
    let body = json!({ "delay_ms": LONG, "content": text("once") });
    let first = delay_id(&schedule_as(&alice, &room, "same", body.clone()).await.ok());
    let again = delay_id(&schedule_as(&alice, &room, "same", body.clone()).await.ok());
    assert_eq!(first, again);
    let other = delay_id(&schedule_as(&alice, &room, "other", body).await.ok());
    assert_ne!(first, other);
    assert_eq!(waiting(&alice).await.len(), 2);
}

#[tokio::test]
async fn restarting_waits_for_the_whole_delay_again() {
    let (_home, alice, _bob, room) = two().await;
    let id = schedule(&alice, &room, 1500, "heartbeat").await;
    let before = look(&alice, &id).await.ok()["delayed_since_ts"].as_u64().unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        act(&alice, &id, "restart").await.ok();
    }
    let delayed = look(&alice, &id).await.ok();
    assert!(delayed.get("finalised").is_none(), "it was sent in spite of the restarts: {delayed}");
    let since = delayed["delayed_since_ts"].as_u64().unwrap();
    assert!(since >= before + 2000);
    let end = over(&alice, &id).await;
    assert!(end["finalised_ts"].as_u64().unwrap() >= since + 1500);
}

#[tokio::test]
async fn what_is_cancelled_is_never_sent() {
    let (_home, alice, bob, room) = two().await;
    let id = schedule(&alice, &room, 600, "never").await;
    act(&alice, &id, "cancel").await.ok();
    tokio::time::sleep(Duration::from_millis(900)).await;
    let end = look(&alice, &id).await.ok()["finalised"].clone();
    assert!(end["finalised_ts"].is_u64() && end.get("event_id").is_none() && end.get("error").is_none(), "{end}");
    assert!(bob.sync().await.bodies(&room).is_empty());
}

#[tokio::test]
async fn actions_agree_with_what_became_of_it_or_conflict() {
    let (_home, alice, bob, room) = two().await;
    let (sent, cancelled) = (schedule(&alice, &room, LONG, "a").await, schedule(&alice, &room, LONG, "b").await);
    act(&alice, &sent, "send").await.ok();
    act(&alice, &cancelled, "cancel").await.ok();
    assert_eq!(bob.sync().await.bodies(&room), ["a"]);
    act(&alice, &sent, "send").await.ok();
    act(&alice, &cancelled, "cancel").await.ok();
    assert_eq!(bob.sync().await.bodies(&room), ["a"], "sending again sends nothing");
    for (id, action) in [(&sent, "cancel"), (&sent, "restart"), (&cancelled, "send"), (&cancelled, "restart")] {
        act(&alice, id, action).await.expect(409, "M_UNKNOWN");
        let old = format!("{UNSTABLE}/delayed_events/{id}/{action}");
        alice.post(&old, json!({})).await.expect(404, "M_NOT_FOUND");
    }
    act(&alice, "nonsense", "cancel").await.expect(404, "M_NOT_FOUND");
    act(&alice, &sent, "eat").await.expect(404, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn they_are_their_owners_alone() {
    let (home, alice, bob, room) = two().await;
    let id = schedule(&alice, &room, LONG, "mine").await;
    look(&bob, &id).await.expect(404, "M_NOT_FOUND");
    for action in ["cancel", "restart", "send"] {
        act(&bob, &id, action).await.expect(404, "M_NOT_FOUND");
        let path = format!("{STABLE}/delayed_events/{id}/{action}");
        bob.client().json(Method::POST, &path, None, Some(&json!({}))).await.expect(401, "M_MISSING_TOKEN");
    }
    assert!(waiting(&bob).await.is_empty());
    // Another device of the owner may.
    act(&home.device_of(&alice).await, &id, "cancel").await.ok();
}

#[tokio::test]
async fn power_counts_when_it_is_sent() {
    let (_home, alice, bob, room) = two().await;
    let path = format!("/rooms/{}/delayed_event/m.room.name/{}", encode(&room), bob.txn());
    let body = json!({ "delay_ms": LONG, "state_key": "", "content": { "name": "Bob's" } });
    let id = delay_id(&bob.put(&path, body).await.ok());
    // Sending it at once fails as /state would, and it goes on waiting.
    act(&bob, &id, "send").await.expect(403, "M_FORBIDDEN");
    assert_eq!(waiting(&bob).await, [id.as_str()]);
    alice.change_power(&room, |levels| levels["users"][&bob.id] = json!(50)).await;
    act(&bob, &id, "send").await.ok();
    assert_eq!(alice.state(&room, "m.room.name", "").await.ok()["name"], "Bob's");
}

#[tokio::test]
async fn what_cannot_be_sent_says_why() {
    let (_home, _alice, bob, room) = two().await;
    let id = schedule(&bob, &room, 500, "too late").await;
    bob.leave(&room).await.ok();
    let end = over(&bob, &id).await;
    assert_eq!(end["error"]["errcode"], "M_FORBIDDEN");
    assert!(end["error"]["error"].is_string() && end.get("event_id").is_none());
    // It counts as cancelled.
    act(&bob, &id, "cancel").await.ok();
    act(&bob, &id, "send").await.expect(409, "M_UNKNOWN");
}

#[tokio::test]
async fn what_cannot_be_scheduled_is_refused() {
    let (home, alice, _bob, room) = two().await;
    let carol = home.user("carol").await;
    let content = text("x");
    schedule_as(&carol, &room, "t", json!({ "delay_ms": 1, "content": content })).await.expect(403, "M_FORBIDDEN");
    schedule_as(&carol, "!no:localhost", "t", json!({ "delay_ms": 1, "content": content }))
        .await
        .expect(403, "M_FORBIDDEN");
    schedule_as(&alice, &room, "t", json!({ "delay_ms": 0, "content": content })).await.expect(400, "M_INVALID_PARAM");
    for bad in [json!({ "content": content }), json!({ "delay_ms": -1, "content": content })] {
        schedule_as(&alice, &room, "t", bad).await.expect(400, "M_BAD_JSON");
    }
    for bad in [json!({ "delay_ms": 5 }), json!({ "delay_ms": 5, "content": [] })] {
        schedule_as(&alice, &room, "t", bad).await.expect(400, "M_BAD_JSON");
    }
    let large = json!({ "delay_ms": 5, "content": { "body": "x".repeat(70_000) } });
    schedule_as(&alice, &room, "t", large).await.expect(413, "M_TOO_LARGE");
    let send = |delay: &str| format!("/rooms/{}/send/m.room.message/t?org.matrix.msc4140.delay={delay}", encode(&room));
    alice.put(&send("soon"), text("x")).await.expect(400, "M_INVALID_PARAM");
    alice.put(&send("0"), text("x")).await.expect(400, "M_INVALID_PARAM");
    assert!(waiting(&alice).await.is_empty());
}

#[tokio::test]
async fn the_limits_are_told_and_kept() {
    let Some(launch) = own() else { return };
    let home = Home::launch(launch.with_config("[delayed_events]\nmax_delay_hours = 2\nmax_per_user = 2")).await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let capabilities = alice.get("/capabilities").await.ok()["capabilities"].clone();
    let limits = json!({ "max_delay_ms": 7_200_000, "max_scheduled": 2 });
    assert_eq!(
        (&capabilities["m.delayed_events"], &capabilities["org.matrix.msc4140.delayed_events"]),
        (&limits, &limits)
    );
    let long = json!({ "delay_ms": 7_200_001, "content": {} });
    schedule_as(&alice, &room, "t", long.clone()).await.expect(400, "M_DELAY_TOO_LARGE");
    let unstable = format!("{UNSTABLE}/rooms/{}/delayed_event/m.room.message/t", encode(&room));
    alice.put(&unstable, long).await.expect(400, "ORG.MATRIX.MSC4140_DELAY_TOO_LARGE");
    let query = format!("/rooms/{}/send/m.room.message/t?org.matrix.msc4140.delay=7200001", encode(&room));
    let error = alice.put(&query, text("x")).await.expect(400, "M_UNKNOWN");
    assert_eq!(error["org.matrix.msc4140.errcode"], "M_MAX_DELAY_EXCEEDED");
    assert_eq!(error["org.matrix.msc4140.max_delay"], 7_200_000);

    let first = schedule(&alice, &room, 3_000_000, "1").await;
    schedule(&alice, &room, 7_200_000, "2").await;
    let reply = schedule_as(&alice, &room, "t", json!({ "delay_ms": 5, "content": {} })).await;
    let seconds: u64 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((2_990..=3_000).contains(&seconds), "until the next one is sent, not {seconds}");
    reply.expect(429, "M_LIMIT_EXCEEDED");
    act(&alice, &first, "cancel").await.ok();
    schedule(&alice, &room, LONG, "3").await;
}

#[tokio::test]
async fn a_server_may_delay_nothing() {
    let Some(launch) = own() else { return };
    let home = Home::launch(launch.with_config("[delayed_events]\nmax_per_user = 0")).await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    schedule_as(&alice, &room, "t", json!({ "delay_ms": 1, "content": {} })).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn nothing_is_lost_when_the_server_stops() {
    let Some(launch) = own() else { return };
    let mut home = Home::launch(launch).await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    // Due in another order than scheduled, while the server is away.
    let second = schedule(&alice, &room, 1200, "second").await;
    let first = schedule(&alice, &room, 900, "first").await;
    let later = schedule(&alice, &room, LONG, "later").await;
    let over_before = schedule(&alice, &room, LONG, "now").await;
    act(&alice, &over_before, "send").await.ok();
    home.kill();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    home.restart().await;
    for id in [&first, &second] {
        assert!(over(&alice, id).await["event_id"].is_string());
    }
    assert_eq!(alice.sync().await.bodies(&room), ["now", "first", "second"]);
    assert_eq!(waiting(&alice).await, [later]);
    assert!(over(&alice, &over_before).await["event_id"].is_string());
}

#[tokio::test]
async fn they_end_with_the_account() {
    let (home, alice, bob, room) = two().await;
    let token = bob.sync().await.token().to_owned();
    schedule(&alice, &room, 1500, "from nobody").await;
    alice.post_with_password("/account/deactivate", json!({})).await.ok();
    tokio::time::sleep(Duration::from_millis(1900)).await;
    assert!(bob.sync_since(&token).await.bodies(&room).is_empty());
    drop(home);
}

#[tokio::test]
async fn who_may_not_speak_now_does_not_speak_later() {
    let Some(launch) = own() else { return };
    let home = Home::launch(launch).await;
    let (root, alice, bob) = (home.administrator().await, home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let measure = |what: &str, user: &User| format!("/_matrix/client/v1/admin/{what}/{}", encode(&user.id));
    let (due, waits) = (schedule(&alice, &room, 700, "a").await, schedule(&alice, &room, LONG, "b").await);
    let locked = schedule(&bob, &room, 700, "c").await;
    root.put(&measure("suspend", &alice), json!({ "suspended": true })).await.ok();
    root.put(&measure("lock", &bob), json!({ "locked": true })).await.ok();
    schedule_as(&alice, &room, "t", json!({ "delay_ms": 1, "content": {} })).await.expect(403, "M_USER_SUSPENDED");
    act(&alice, &waits, "send").await.expect(403, "M_USER_SUSPENDED");
    act(&alice, &waits, "cancel").await.ok();
    assert_eq!(over(&alice, &due).await["error"]["errcode"], "M_USER_SUSPENDED");
    tokio::time::sleep(Duration::from_millis(200)).await;
    root.put(&measure("lock", &bob), json!({ "locked": false })).await.ok();
    assert_eq!(over(&bob, &locked).await["error"]["errcode"], "M_USER_LOCKED");
    assert!(bob.sync().await.bodies(&room).is_empty());
}

#[tokio::test]
async fn a_redaction_can_be_sent_later() {
    let Some(launch) = own() else { return };
    let home = Home::launch(launch).await;
    let alice = home.user("alice").await;
    for version in ["10", "12"] {
        let room = alice.create_room(json!({ "room_version": version })).await;
        let event = alice.put(&format!("/rooms/{}/send/m.room.message/1", encode(&room)), text("soon gone")).await;
        let event = event.event_id();
        let path = |txn: &str| format!("/rooms/{}/delayed_event/m.room.redaction/{txn}", encode(&room));
        let nothing = json!({ "delay_ms": 10, "content": { "reason": "no" } });
        alice.put(&path("none"), nothing).await.expect(400, "M_BAD_JSON");
        let content = json!({ "redacts": event, "reason": "over" });
        let id = delay_id(&alice.put(&path("it"), json!({ "delay_ms": 10, "content": content })).await.ok());
        let end = over(&alice, &id).await;
        assert!(end["event_id"].is_string(), "version {version}: {end}");
        let shown = alice.get(&format!("/rooms/{}/event/{}", encode(&room), encode(&event))).await.ok();
        assert_eq!(shown["content"], json!({}), "version {version}");
        assert_eq!(shown["unsigned"]["redacted_because"]["content"]["reason"], "over", "version {version}");
    }
}
