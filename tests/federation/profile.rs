//! Server-Server API, "Query" for profiles.

use stoa_kit::{User, encode, json};

use crate::{Two, becomes, between, eventually, shared_room};

async fn set(user: &User, key: &str, value: &str) {
    let path = format!("/profile/{}/{key}", user.path_id());
    user.put(&path, json!({ key: value })).await.ok();
}

between!(name_and_avatar);
async fn name_and_avatar(two: Two) {
    let (alice, bob) = two.users().await;
    let avatar = format!("mxc://{}/avatar", alice.server());
    set(&alice, "displayname", "Alice \u{1F33B}").await;
    set(&alice, "avatar_url", &avatar).await;
    let path = format!("/profile/{}", encode(&alice.id));
    let found = bob.get(&path).await.ok();
    assert_eq!((&found["displayname"], &found["avatar_url"]), (&json!("Alice \u{1F33B}"), &json!(avatar)));
    assert_eq!(bob.get(&format!("{path}/displayname")).await.ok(), json!({ "displayname": "Alice \u{1F33B}" }));
    assert_eq!(bob.get(&format!("{path}/avatar_url")).await.ok(), json!({ "avatar_url": avatar }));
    let nobody = encode(&format!("@nobody:{}", alice.server()));
    bob.get(&format!("/profile/{nobody}")).await.expect(404, "M_NOT_FOUND");
}

between!(in_rooms);
async fn in_rooms(two: Two) {
    let (alice, bob) = two.users().await;
    set(&bob, "displayname", "Bob").await;
    let room = shared_room(&alice, &bob).await;
    assert_eq!(alice.state(&room, "m.room.member", &bob.id).await.ok()["displayname"], "Bob");
    set(&bob, "displayname", "Robert").await;
    let renamed = async || {
        let member = alice.state(&room, "m.room.member", &bob.id).await.ok();
        (member["displayname"] == "Robert").then_some(())
    };
    eventually("the new name in the room", renamed).await;
    becomes(&alice, &room, &bob, "join").await;
}
