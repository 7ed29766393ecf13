//! Client-Server API, "User Directory": people are found by name or id, by those who may know of them.

use std::time::Duration;

use stoa_kit::{Home, User, Value, json};

use crate::{home, own, strict};

async fn search(user: &User, term: &str, limit: usize) -> Value {
    user.post("/user_directory/search", json!({ "search_term": term, "limit": limit })).await.ok()
}

/// The ids of those who are found, in order.
async fn finds(user: &User, term: &str) -> Vec<String> {
    let found = search(user, term, 50).await;
    let ids = found["results"].as_array().expect("results").iter();
    ids.map(|it| it["user_id"].as_str().expect("a user id").to_owned()).collect()
}

/// Waits until a search finds just these.
async fn comes_to_find(user: &User, term: &str, expected: &[&User]) {
    let mut expected: Vec<String> = expected.iter().map(|user| user.id.clone()).collect();
    expected.sort();
    let mut found = Vec::new();
    for _ in 0..200 {
        found = finds(user, term).await;
        found.sort();
        if found == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("`{term}` finds {found:?} and not {expected:?}");
}

async fn call(user: &User, name: &str) {
    user.put(&format!("/profile/{}/displayname", user.path_id()), json!({ "displayname": name })).await.ok();
}

/// A user with a name in the directory.
async fn called(home: &Home, name: &str) -> User {
    let user = home.user("someone").await;
    call(&user, name).await;
    user
}

/// A word that nobody else is called.
fn word() -> String {
    format!("w{}", stoa_kit::unique()).replace(|c: char| !c.is_ascii_alphanumeric(), "")
}

#[tokio::test]
async fn those_who_share_a_room_or_are_in_an_open_one_are_found() {
    let home = home().await;
    let name = word();
    let alice = home.user("alice").await;
    let friend = called(&home, &format!("{name} friend")).await;
    let stranger = called(&home, &format!("{name} stranger")).await;
    let public = called(&home, &format!("{name} public")).await;
    let read = called(&home, &format!("{name} read")).await;
    alice.room_with(&[&friend]).await;
    // Case 50 of the bad inputs: who is in private rooms only is not told to others.
    let private = stranger.create_room(json!({ "preset": "private_chat", "name": name })).await;
    public.public_room().await;
    let readable = json!([{
        "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": "world_readable" },
    }]);
    let open = read.create_room(json!({ "preset": "private_chat", "initial_state": readable })).await;
    comes_to_find(&alice, &name, &[&friend, &public, &read]).await;
    assert_eq!(finds(&alice, &name).await[0], friend.id, "who shares a room comes first");
    alice.get(&format!("/rooms/{private}/members")).await.expect(403, "M_FORBIDDEN");
    alice.get(&format!("/rooms/{private}/state/m.room.name/")).await.expect(403, "M_FORBIDDEN");

    // What changes is followed.
    let closed = json!({ "history_visibility": "shared" });
    read.set_state(&open, "m.room.history_visibility", "", closed).await.ok();
    comes_to_find(&alice, &name, &[&friend, &public]).await;
    let room = stranger.room_with(&[&alice]).await;
    comes_to_find(&alice, &name, &[&friend, &public, &stranger]).await;
    alice.leave(&room).await.ok();
    comes_to_find(&alice, &name, &[&friend, &public]).await;
    read.set_state(&open, "m.room.join_rules", "", json!({ "join_rule": "public" })).await.ok();
    comes_to_find(&alice, &name, &[&friend, &public, &read]).await;
    read.leave(&open).await.ok();
    comes_to_find(&alice, &name, &[&friend, &public]).await;
}

#[tokio::test]
async fn names_are_found_by_the_beginnings_of_their_words() {
    if !strict() {
        return;
    }
    let home = home().await;
    let alice = home.user("alice").await;
    let names = ["Jörg Müller-Lüdenscheidt", "山田太郎", "김철수", "Zoë 🦊", "ΣΊΣΥΦΟΣ"];
    let mut people = Vec::new();
    for name in names {
        let user = called(&home, name).await;
        user.public_room().await;
        people.push(user);
    }
    comes_to_find(&alice, "ΣΊΣΥΦΟΣ", &[&people[4]]).await;
    for (term, place) in [
        ("jör", 0),
        ("JORG", 0),
        ("mul", 0),
        ("müller lud", 0),
        ("山田", 1),
        ("太郎", 1),
        ("田", 1),
        ("철수", 2),
        ("김", 2),
        ("zoe", 3),
        ("🦊", 3),
        ("σισ", 4),
    ] {
        comes_to_find(&alice, term, &[&people[place]]).await;
    }
    for none in ["örg", "jörg schmidt", "郎太", "", "  ", "-"] {
        assert!(finds(&alice, none).await.is_empty(), "{none}");
    }
}

#[tokio::test]
async fn ids_are_found_whole_and_by_their_beginnings() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("Zebedee.Q").await);
    call(&bob, "completely different").await;
    alice.room_with(&[&bob]).await;
    let localpart = bob.localpart().to_owned();
    comes_to_find(&alice, &localpart, &[&bob]).await;
    comes_to_find(&alice, &bob.id, &[&bob]).await;
    comes_to_find(&alice, &bob.id.to_uppercase(), &[&bob]).await;
    if strict() {
        comes_to_find(&alice, &bob.id[..bob.id.len() - 3], &[&bob]).await;
        comes_to_find(&alice, "zebe", &[&bob]).await;
        assert!(finds(&alice, "@ebedee").await.is_empty());
    }
    assert!(finds(&bob, &localpart).await.is_empty(), "nobody looks for oneself");
}

#[tokio::test]
async fn profiles_are_the_public_ones() {
    let home = home().await;
    let name = word();
    let alice = home.user("alice").await;
    let bob = called(&home, &name).await;
    let avatar = json!({ "avatar_url": "mxc://example.org/picture" });
    bob.put(&format!("/profile/{}/avatar_url", bob.path_id()), avatar).await.ok();
    let room = alice.room_with(&[&bob]).await;
    // A name for one room only is not what people are found by.
    let other = word();
    let content = json!({ "membership": "join", "displayname": other });
    bob.set_state(&room, "m.room.member", &bob.id, content).await.ok();
    comes_to_find(&alice, &name, &[&bob]).await;
    let found = search(&alice, &name, 10).await;
    let expected = json!({ "user_id": bob.id, "display_name": name, "avatar_url": "mxc://example.org/picture" });
    assert_eq!(found, json!({ "results": [expected], "limited": false }));
    assert!(finds(&alice, &other).await.is_empty());
    // A new name takes the place of the old one.
    let new = word();
    call(&bob, &new).await;
    comes_to_find(&alice, &new, &[&bob]).await;
    assert!(finds(&alice, &name).await.is_empty());
    // Who has gone is gone.
    bob.post_with_password("/account/deactivate", json!({})).await.ok();
    comes_to_find(&alice, &new, &[]).await;
}

#[tokio::test]
async fn the_list_is_limited_and_says_so() {
    let home = home().await;
    let name = word();
    let alice = home.user("alice").await;
    let mut people = Vec::new();
    for i in 0..12 {
        people.push(called(&home, &format!("{name} {i}")).await);
    }
    alice.room_with(&people.iter().collect::<Vec<_>>()).await;
    comes_to_find(&alice, &name, &people.iter().collect::<Vec<_>>()).await;
    for (limit, count, limited) in [(5, 5, true), (12, 12, false), (50, 12, false)] {
        let found = search(&alice, &name, limit).await;
        assert_eq!((found["results"].as_array().unwrap().len(), &found["limited"]), (count, &json!(limited)));
    }
    let default = alice.post("/user_directory/search", json!({ "search_term": name })).await.ok();
    assert_eq!((default["results"].as_array().unwrap().len(), &default["limited"]), (10, &json!(true)));
    // Who is called just so comes first.
    call(&people[7], &name).await;
    for _ in 0..100 {
        if finds(&alice, &name).await[0] == people[7].id {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} is not first", people[7].id);
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused() {
    let home = home().await;
    let alice = home.user("alice").await;
    for body in [json!({}), json!({ "search_term": 5 }), json!({ "search_term": "x", "limit": -1 })] {
        crate::refused(&alice.post("/user_directory/search", body).await);
    }
    home.post("/user_directory/search", json!({ "search_term": "x" })).await.expect(401, "M_MISSING_TOKEN");
    let long = json!({ "search_term": "x".repeat(100_000) });
    alice.post("/user_directory/search", long).await.ok();
    search(&alice, "x", 10).await;
}

#[tokio::test]
async fn the_setting_shows_all_accounts() {
    let Some(launch) = own() else { return };
    let config = launch.folder().join("directory.toml");
    std::fs::write(&config, "[user_directory]\nsearch_all_users = true\n").unwrap();
    let home = Home::launch(launch.env("STOA_CONFIG", config.to_str().unwrap())).await;
    let (alice, hermit) = (home.user("alice").await, called(&home, "Simeon Stylites").await);
    comes_to_find(&alice, "simeon", &[&hermit]).await;
}
