//! Client-Server API, "Reporting Content".

use stoa_kit::json;

use crate::{home, two};

#[tokio::test]
async fn events_rooms_and_users_are_reported() {
    let (home, alice, bob, room) = two().await;
    let event = bob.text(&room, "rude words").await;
    let path = format!("/rooms/{room}/report/{event}");
    alice.post(&path, json!({ "reason": "rude", "score": -100 })).await.ok();
    alice.post(&path, json!({})).await.ok();
    alice.post(&format!("/rooms/{room}/report"), json!({ "reason": "" })).await.ok();
    alice.post(&format!("/users/{}/report", bob.path_id()), json!({ "reason": "rude" })).await.ok();
    // Whether there is such a room or user is not told.
    alice.post("/rooms/!nowhere:example.org/report", json!({ "reason": "?" })).await.ok();
    alice.post("/users/@nobody:localhost/report", json!({ "reason": "?" })).await.ok();
    let path = format!("/rooms/{room}/report/$nothing");
    alice.post(&path, json!({ "reason": "?" })).await.expect(404, "M_NOT_FOUND");
    let carol = home.user("carol").await;
    let path = format!("/rooms/{room}/report/{event}");
    carol.post(&path, json!({ "reason": "?" })).await.expect(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_report_says_why() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let path = format!("/rooms/{room}/report");
    alice.post(&path, json!({})).await.expect(400, "M_BAD_JSON");
    alice.post(&path, json!({ "reason": 5 })).await.expect(400, "M_BAD_JSON");
    alice.post(&path, json!({ "reason": "x".repeat(5000) })).await.expect(400, "M_INVALID_PARAM");
}
