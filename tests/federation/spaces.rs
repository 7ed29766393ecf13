//! Server-Server API, "Spaces": the tree of a space whose rooms are on different servers, and summaries of rooms of others.

use stoa_kit::{User, encode, json};

use crate::{Two, between, eventually};

async fn in_space(user: &User, space: &str, child: &str, via: &User) {
    user.set_state(space, "m.space.child", child, json!({ "via": [via.server()] })).await.ok();
}

/// The names of the rooms of a tree.
async fn names(user: &User, space: &str) -> Vec<String> {
    let path = format!("/_matrix/client/v1/rooms/{}/hierarchy", encode(space));
    let reply = user.get(&path).await.ok();
    let rooms = reply["rooms"].as_array().expect("rooms");
    let mut names: Vec<_> = rooms.iter().filter_map(|room| room["name"].as_str().map(str::to_owned)).collect();
    names.sort();
    names
}

between!(hierarchy);
async fn hierarchy(two: Two) {
    let (alice, bob) = two.users().await;
    for (one, other) in [(&alice, &bob), (&bob, &alice)] {
        let space =
            |name: &str| json!({ "name": name, "preset": "public_chat", "creation_content": { "type": "m.space" } });
        let (here, there) = (one.create_room(space("here")).await, other.create_room(space("there")).await);
        let room = other.create_room(json!({ "name": "room there", "preset": "public_chat" })).await;
        let closed = other.create_room(json!({ "name": "closed there", "preset": "private_chat" })).await;
        in_space(one, &here, &there, other).await;
        in_space(other, &there, &room, other).await;
        in_space(other, &there, &closed, other).await;
        // The space of the one leads to a space of the other, and that one back.
        in_space(other, &there, &here, one).await;
        let whole = async || (names(one, &here).await == ["here", "room there", "there"]).then_some(());
        eventually("the whole tree over both servers", whole).await;
    }
}
