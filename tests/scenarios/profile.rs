//! Client-Server API, "Profiles" and "Events on Change of Profile Information".

use stoa_kit::{Value, json};

use crate::home;

#[tokio::test]
async fn name_and_picture_can_be_set_and_read_by_others() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let path = format!("/profile/{}", alice.path_id());
    alice.put(&format!("{path}/displayname"), json!({ "displayname": "Alice 🎨" })).await.ok();
    alice.put(&format!("{path}/avatar_url"), json!({ "avatar_url": "mxc://localhost/picture" })).await.ok();
    assert_eq!(bob.get(&format!("{path}/displayname")).await.ok(), json!({ "displayname": "Alice 🎨" }));
    assert_eq!(bob.get(&format!("{path}/avatar_url")).await.ok(), json!({ "avatar_url": "mxc://localhost/picture" }));
    let whole = bob.get(&path).await.ok();
    assert_eq!(whole["displayname"], "Alice 🎨");
    assert_eq!(whole["avatar_url"], "mxc://localhost/picture");
}

#[tokio::test]
async fn nobody_sets_the_profile_of_another() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let path = format!("/profile/{}/displayname", bob.path_id());
    bob.put(&path, json!({ "displayname": "Bob" })).await.ok();
    let reply = alice.put(&path, json!({ "displayname": "Fool" })).await;
    // Synapse says 400 here; the specification says 403 M_FORBIDDEN.
    reply.expect_any(&[400, 403], &["M_FORBIDDEN", "M_UNKNOWN"]);
    assert_eq!(bob.get(&path).await.ok()["displayname"], "Bob");
}

#[tokio::test]
async fn an_unknown_user_has_no_profile() {
    let home = home().await;
    let alice = home.user("alice").await;
    let nobody = alice.path_id().replace("alice-", "nobody-");
    for path in [format!("/profile/{nobody}"), format!("/profile/{nobody}/displayname")] {
        let reply = alice.get(&path).await;
        assert!(reply.status == 404 && (reply["errcode"] == "M_NOT_FOUND" || !crate::strict()), "{reply:?}");
    }
}

#[tokio::test]
async fn a_new_name_shows_in_every_room() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let token = bob.sync().await.token().to_owned();
    alice.put(&format!("/profile/{}/displayname", alice.path_id()), json!({ "displayname": "Alicia" })).await.ok();
    let renamed = |event: &&Value| event["state_key"] == alice.id && event["content"]["displayname"] == "Alicia";
    let sync = bob.sync_until(Some(&token), |sync| sync.timeline(&room).iter().any(renamed)).await;
    let event = sync.timeline(&room).into_iter().find(renamed).expect("the event").clone();
    assert_eq!(event["content"]["membership"], "join");
    assert_eq!(event["unsigned"]["prev_content"]["membership"], "join");
}

#[tokio::test]
async fn who_joins_later_brings_the_profile_along() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    bob.put(&format!("/profile/{}/displayname", bob.path_id()), json!({ "displayname": "Robert" })).await.ok();
    let room = alice.public_room().await;
    bob.join(&room).await.ok();
    let member = alice.state(&room, "m.room.member", &bob.id).await.ok();
    assert_eq!(member["displayname"], "Robert");
    let members = alice.get(&format!("/rooms/{room}/joined_members")).await.ok();
    assert_eq!(members["joined"][&bob.id]["display_name"], "Robert");
}

#[tokio::test]
async fn names_of_wrong_type_are_refused_and_change_nothing() {
    let home = home().await;
    let alice = home.user("alice").await;
    let path = format!("/profile/{}/displayname", alice.path_id());
    alice.put(&path, json!({ "displayname": "Alice" })).await.ok();
    for wrong in [json!(7), json!({ "a": 1 }), json!(["x"]), json!("x".repeat(70_000))] {
        let reply = alice.put(&path, json!({ "displayname": wrong })).await;
        crate::refused(&reply);
    }
    assert_eq!(alice.get(&path).await.ok()["displayname"], "Alice");
}

#[tokio::test]
async fn a_field_is_taken_away() {
    let home = home().await;
    let alice = home.user("alice").await;
    let path = format!("/profile/{}/displayname", alice.path_id());
    alice.put(&path, json!({ "displayname": "Alice" })).await.ok();
    alice.delete(&path).await.ok();
    assert!(alice.get(&format!("/profile/{}", alice.path_id())).await.ok().get("displayname").is_none());
}
