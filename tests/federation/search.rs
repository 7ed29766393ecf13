//! What comes from another server is found as what was said here: messages, also old ones, and people.

use stoa_kit::{User, Value, json};

use crate::{Two, between, eventually, shared_room};

async fn finds(user: &User, term: &str) -> Vec<Value> {
    let criteria = json!({ "search_categories": { "room_events": { "search_term": term } } });
    let found = user.post("/search", criteria).await.ok();
    found["search_categories"]["room_events"]["results"].as_array().expect("results").clone()
}

between!(messages_of_others);
async fn messages_of_others(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    let id = alice.text(&room, "a rhubarb for Bob").await;
    let found = async || {
        let found = finds(&bob, "rhubarb").await;
        found.first().filter(|found| found["result"]["event_id"] == id.as_str()).map(|_| ())
    };
    eventually("the message is found", found).await;
    alice.redact(&room, &id).await.ok();
    let gone = async || finds(&bob, "rhubarb").await.is_empty().then_some(());
    eventually("the redacted message is gone", gone).await;
}

between!(history_that_was_fetched, stoa_only);
async fn history_that_was_fetched(two: Two) {
    let (alice, bob) = two.users().await;
    let room = alice.public_room().await;
    alice.text(&room, "a medlar long ago").await;
    alice.texts(&room, (0..30).map(|i| format!("between {i}"))).await;
    let via = format!("/join/{room}?server_name={}&via={}", alice.server(), alice.server());
    bob.post(&via, json!({})).await.ok();
    let found = async || {
        bob.messages(&room, "dir=b&limit=100").await.ok();
        (!finds(&bob, "medlar").await.is_empty()).then_some(())
    };
    eventually("old history is found once it was fetched", found).await;
}

between!(people_of_others);
async fn people_of_others(two: Two) {
    let (alice, bob) = two.users().await;
    let path = format!("/profile/{}/displayname", alice.path_id());
    alice.put(&path, json!({ "displayname": "Persimmon" })).await.ok();
    let stranger = two.b.home.user("stranger").await;
    shared_room(&alice, &bob).await;
    let people = async |user: &User| {
        let body = json!({ "search_term": "persimm" });
        user.post("/user_directory/search", body).await.ok()["results"].as_array().expect("results").clone()
    };
    let found = async || {
        let found = people(&bob).await;
        let found = found.iter().find(|it| it["user_id"] == alice.id.as_str())?;
        (found["display_name"] == "Persimmon").then_some(())
    };
    eventually("Alice is found", found).await;
    // The room is a private one.
    assert!(people(&stranger).await.is_empty());
    let open = alice.public_room().await;
    bob.post(&format!("/join/{open}?server_name={}&via={}", alice.server(), alice.server()), json!({})).await.ok();
    let found = async || (!people(&stranger).await.is_empty()).then_some(());
    eventually("Alice is found by a stranger", found).await;
}
