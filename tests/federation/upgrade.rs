//! Room upgrades (Client-Server API, "Room Upgrades"), seen from the other server.

use stoa_kit::{User, encode, json};

use crate::{Two, accept, aliased_room, arrives, between, eventually, has_state};

async fn upgrade(user: &User, room: &str) -> String {
    let reply = user.post(&format!("/rooms/{}/upgrade", encode(room)), json!({ "new_version": "11" })).await.ok();
    reply["replacement_room"].as_str().expect("a replacement").to_owned()
}

between!(upgraded_rooms_are_followed);
async fn upgraded_rooms_are_followed(two: Two) {
    let (alice, bob) = two.users().await;
    for (one, other) in [(&alice, &bob), (&bob, &alice)] {
        let options = json!({ "preset": "public_chat", "room_version": "10", "name": "Garden" });
        let (old, alias) = aliased_room(one, options).await;
        other.join(&alias).await.ok();
        let new = upgrade(one, &old).await;
        let tombstone = async || {
            other.state(&old, "m.room.tombstone", "").await.json["replacement_room"].as_str().map(str::to_owned)
        };
        assert_eq!(eventually("the tombstone on the other server", tombstone).await, new);
        one.invite(&new, other).await.ok();
        accept(other, &new).await;
        has_state(other, &new, "m.room.name", "", json!({ "name": "Garden" })).await;
        let create = other.state(&new, "m.room.create", "").await.ok();
        assert_eq!((&create["room_version"], &create["predecessor"]["room_id"]), (&json!("11"), &json!(old)));
        let found = other.get(&format!("/directory/room/{}", encode(&alias))).await.ok();
        assert_eq!(found["room_id"], new, "the alias leads to the new room");
        for (speaker, listener) in [(one, other), (other, one)] {
            let event = speaker.text(&new, "here we are").await;
            arrives(listener, &new, &event).await;
        }
    }
}
