//! Server-Server API, "Public Room Directory", "Spaces", and the query for aliases.

use stoa_kit::{User, Value, encode, json, unique};

use crate::{Two, aliased_room, becomes, between, eventually};

/// A page of the rooms that another server shows.
async fn public_rooms(user: &User, server: &str, body: Value) -> Value {
    user.post(&format!("/publicRooms?server={}", encode(server)), body).await.ok()
}

between!(aliases);
async fn aliases(two: Two) {
    let (alice, bob) = two.users().await;
    let (room, alias) = aliased_room(&alice, json!({})).await;
    let found = bob.get(&format!("/directory/room/{}", encode(&alias))).await.ok();
    assert_eq!(found["room_id"], room);
    assert!(found["servers"].as_array().expect("servers").contains(&json!(alice.server())), "{found}");
    let nothing = format!("#{}:{}", unique(), alice.server());
    bob.get(&format!("/directory/room/{}", encode(&nothing))).await.expect(404, "M_NOT_FOUND");
    let taken = bob.put(&format!("/directory/room/{}", encode(&nothing)), json!({ "room_id": room })).await;
    assert!((400..500).contains(&taken.status), "{taken:?}");
}

between!(public_rooms_of_another_server);
async fn public_rooms_of_another_server(two: Two) {
    let (alice, bob) = two.users().await;
    let word = unique();
    let options = json!({ "visibility": "public", "name": format!("The {word} club"), "topic": "talk" });
    let (room, alias) = aliased_room(&alice, options).await;
    aliased_room(&alice, json!({ "visibility": "public", "name": "Another" })).await;
    let hidden = alice.create_room(json!({ "preset": "public_chat", "name": format!("Hidden {word}") })).await;
    let listed = async || {
        let page = public_rooms(&bob, alice.server(), json!({ "limit": 50 })).await;
        let rooms = page["chunk"].as_array().expect("chunk").clone();
        assert!(!rooms.iter().any(|found| found["room_id"] == hidden), "{rooms:?}");
        rooms.into_iter().find(|found| found["room_id"] == room)
    };
    let found = eventually("the room in the other server's directory", listed).await;
    assert_eq!(found["name"], format!("The {word} club"));
    assert_eq!((&found["topic"], &found["num_joined_members"]), (&json!("talk"), &json!(1)));
    assert_eq!(found["canonical_alias"], alias);
    let filter = json!({ "filter": { "generic_search_term": word }, "limit": 50 });
    let some = public_rooms(&bob, alice.server(), filter).await;
    let ids: Vec<&Value> = some["chunk"].as_array().expect("chunk").iter().map(|found| &found["room_id"]).collect();
    assert_eq!(ids, [&json!(room)]);
    bob.join(&alias).await.ok();
    becomes(&alice, &room, &bob, "join").await;
}

between!(public_rooms_page_by_page);
async fn public_rooms_page_by_page(two: Two) {
    let (alice, bob) = two.users().await;
    let mut wanted = Vec::new();
    for n in 0..5 {
        wanted.push(alice.create_room(json!({ "visibility": "public", "name": format!("Room {n}") })).await);
    }
    wanted.sort();
    let all = async || {
        let (mut found, mut since) = (Vec::new(), Value::Null);
        for _ in 0..10 {
            let mut body = json!({ "limit": 2 });
            if since.is_string() {
                body["since"] = since;
            }
            let page = public_rooms(&bob, alice.server(), body).await;
            let chunk = page["chunk"].as_array().expect("chunk");
            assert!(chunk.len() <= 2, "{page}");
            found.extend(chunk.iter().filter_map(|room| room["room_id"].as_str()).map(str::to_owned));
            since = page["next_batch"].clone();
            if since.is_null() {
                break;
            }
        }
        found.sort();
        (found == wanted).then_some(())
    };
    eventually("all five rooms in pages of two", all).await;
}

between!(a_space_across_servers, ignore_to_stoa = "the hierarchy of spaces is not there yet");
async fn a_space_across_servers(two: Two) {
    let (alice, bob) = two.users().await;
    let carol = two.b.home.user("carol").await;
    let child = alice.create_room(json!({ "preset": "public_chat", "name": "Child" })).await;
    let secret = alice.create_room(json!({ "preset": "private_chat", "name": "Secret child" })).await;
    let space = json!({ "creation_content": { "type": "m.space" }, "name": "Space" });
    let (space, alias) = aliased_room(&alice, space).await;
    for room in [&child, &secret] {
        alice.set_state(&space, "m.space.child", room, json!({ "via": [alice.server()] })).await.ok();
    }
    // Bob is in the space, but in none of its rooms: his server has to ask.
    bob.join(&alias).await.ok();
    let path = format!("/_matrix/client/v1/rooms/{}/hierarchy", encode(&space));
    let found = bob.get(&path).await.ok();
    let rooms = found["rooms"].as_array().expect("rooms");
    let names: Vec<&Value> = rooms.iter().map(|room| &room["name"]).collect();
    assert_eq!(names, [&json!("Space"), &json!("Child")]);
    assert_eq!(rooms[0]["children_state"].as_array().map(Vec::len), Some(2));
    assert_eq!((&rooms[1]["room_id"], &rooms[1]["join_rule"]), (&json!(child), &json!("public")));
    // Carol's server is in the space now.
    let found = carol.get(&path).await.ok();
    assert_eq!(found["rooms"][0]["name"], "Space");
}
