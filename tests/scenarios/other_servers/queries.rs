//! Questions of other servers about users, devices, aliases, files and spaces.

use stoa_kit::{Keys, Method, json};

use super::{Meeting, path};

#[tokio::test]
async fn profiles_and_aliases_are_told() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, room) = meeting.shared_room().await;
    alice.put(&format!("/profile/{}/displayname", alice.path_id()), json!({ "displayname": "Alice" })).await.ok();
    let profile =
        |user: &str, more: &str| format!("{}?user_id={}{more}", path("query/profile", &[]), stoa_kit::encode(user));
    assert_eq!(other.get(home, &profile(&alice.id, "")).await.ok()["displayname"], "Alice");
    let field = other.get(home, &profile(&alice.id, "&field=displayname")).await.ok();
    assert_eq!(field, json!({ "displayname": "Alice" }));
    let nobody = format!("@nobody-there:{}", home.server_name());
    other.get(home, &profile(&nobody, "")).await.expect(404, "M_NOT_FOUND");
    other.get(home, &profile(&other.user("bob"), "")).await.expect(404, "M_NOT_FOUND");
    let alias = format!("#{}:{}", stoa_kit::unique(), home.server_name());
    alice.put(&format!("/directory/room/{}", stoa_kit::encode(&alias)), json!({ "room_id": room })).await.ok();
    let query = |alias: &str| format!("{}?room_alias={}", path("query/directory", &[]), stoa_kit::encode(alias));
    let told = other.get(home, &query(&alias)).await.ok();
    assert_eq!(told["room_id"], room);
    assert_eq!(told["servers"], json!([home.server_name(), other.name()]));
    other.get(home, &query(&format!("#none:{}", home.server_name()))).await.expect(404, "M_NOT_FOUND");
    other.get(home, &path("query/other", &[])).await.expect(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn published_rooms_are_listed() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let options =
        |name: &str, visibility: &str| json!({ "name": name, "preset": "public_chat", "visibility": visibility });
    let listed = alice.create_room(options("Open garden", "public")).await;
    alice.create_room(options("Hidden garden", "private")).await;
    for list in [
        other.get(home, &path("publicRooms", &[])).await.ok(),
        other.get(home, &format!("{}?limit=0", path("publicRooms", &[]))).await.ok(),
        other
            .post(home, &path("publicRooms", &[]), &json!({ "filter": { "generic_search_term": "GARDEN" } }))
            .await
            .ok(),
    ] {
        let rooms = list["chunk"].as_array().expect("rooms");
        assert_eq!(rooms.iter().map(|room| &room["room_id"]).collect::<Vec<_>>(), [&listed]);
        assert_eq!(rooms[0]["name"], "Open garden");
    }
    let none = json!({ "filter": { "generic_search_term": "desert" } });
    assert_eq!(other.post(home, &path("publicRooms", &[]), &none).await.ok()["chunk"], json!([]));
}

#[tokio::test]
async fn devices_and_keys_are_told_without_names() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let keys = Keys::new(5);
    let device = keys.device(&alice.id, &alice.device);
    let one_time = keys.sign(&alice.id, &format!("ed25519:{}", alice.device), json!({ "key": "public" }));
    let upload = json!({ "device_keys": device, "one_time_keys": { "signed_curve25519:AAA": one_time } });
    alice.post("/keys/upload", upload).await.ok();
    alice.put(&format!("/devices/{}", alice.device), json!({ "display_name": "Secret laptop" })).await.ok();
    let told = other.get(home, &path("user/devices", &[&alice.id])).await.ok();
    assert_eq!((told["user_id"].as_str(), told["stream_id"].is_u64()), (Some(alice.id.as_str()), true));
    assert_eq!(told["devices"][0]["device_id"], alice.device.as_str());
    assert_eq!(told["devices"][0]["keys"], device);
    other.get(home, &path("user/devices", &[&other.user("bob")])).await.expect(404, "M_NOT_FOUND");
    let query = json!({ "device_keys": { &alice.id: [], other.user("bob"): [] } });
    let found = other.post(home, &path("user/keys/query", &[]), &query).await.ok();
    assert_eq!(found["device_keys"], json!({ &alice.id: { &alice.device: device } }));
    assert!(!found.to_string().contains("Secret laptop") && !told.to_string().contains("Secret laptop"));
    let claim = json!({ "one_time_keys": { &alice.id: { &alice.device: "signed_curve25519" } } });
    let claimed = other.post(home, &path("user/keys/claim", &[]), &claim).await.ok();
    assert_eq!(claimed["one_time_keys"][&alice.id][&alice.device]["signed_curve25519:AAA"], one_time);
    let again = other.post(home, &path("user/keys/claim", &[]), &claim).await.ok();
    assert_eq!(again["one_time_keys"], json!({}));
}

#[tokio::test]
async fn files_come_as_the_second_of_two_parts() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n * 31 % 251) as u8).collect();
    let upload = "/_matrix/media/v3/upload?filename=data.bin";
    let uri = alice.raw(Method::POST, upload, "application/x-data", bytes.clone()).await.ok()["content_uri"].clone();
    let id = uri.as_str().and_then(|uri| uri.rsplit('/').next()).expect("an id").to_owned();
    let reply = other.get(home, &path("media/download", &[&id])).await;
    assert_eq!(reply.status, 200);
    let kind = reply.header("content-type").to_owned();
    let boundary = kind.strip_prefix("multipart/mixed; boundary=").expect("two parts").to_owned();
    assert_eq!(reply.header("content-length"), reply.body.len().to_string());
    let head = format!("--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n");
    let text = String::from_utf8_lossy(&reply.body);
    assert!(text.starts_with(&head), "{}", &text[..200]);
    let after = &reply.body[head.len()..];
    let end = after.windows(4).position(|four| four == b"\r\n\r\n").expect("the end of the headers");
    let headers = String::from_utf8_lossy(&after[..end]).into_owned();
    assert!(headers.contains("Content-Type: application/x-data") && headers.contains("data.bin"), "{headers}");
    let tail = format!("\r\n--{boundary}--\r\n");
    assert_eq!(after[end + 4..], [&bytes[..], tail.as_bytes()].concat());
    other.get(home, &path("media/download", &["nothing"])).await.expect(404, "M_NOT_FOUND");
    other.get(home, &path("media/download", &["../db"])).await.expect(400, "M_INVALID_PARAM");
    let thumbnail = format!("{}?width=32&height=32", path("media/thumbnail", &[&id]));
    other.get(home, &thumbnail).await.expect_any(&[400], &["M_UNKNOWN"]);
    // Without a signature there is nothing.
    home.get(&path("media/download", &[&id])).await.expect(401, "M_UNAUTHORIZED");
}

#[tokio::test]
async fn spaces_show_what_a_server_could_come_into() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let space = json!({ "preset": "public_chat", "name": "Agora", "creation_content": { "type": "m.space" } });
    let space = alice.create_room(space).await;
    let open = alice.create_room(json!({ "preset": "public_chat", "name": "Open" })).await;
    let closed = alice.create_room(json!({ "preset": "private_chat", "name": "Closed" })).await;
    let rules = json!([{ "type": "m.room.join_rules", "state_key": "", "content": {
        "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": space }],
    } }]);
    let members = alice.create_room(json!({ "name": "For members", "initial_state": rules })).await;
    let via = json!([home.server_name()]);
    for (room, more) in
        [(&open, true), (&closed, false), (&members, false), (&"!elsewhere:example.org".to_owned(), false)]
    {
        let child = json!({ "via": via, "suggested": more });
        alice.set_state(&space, "m.space.child", room, child).await.ok();
    }
    alice.set_state(&space, "m.space.child", "!removed:example.org", json!({})).await.ok();
    let ask = path("hierarchy", &[&space]);
    let told = other.get(home, &ask).await.ok();
    let names = |told: &stoa_kit::Value| -> Vec<String> {
        told["children"].as_array().unwrap().iter().map(|room| room["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((told["room"]["name"].as_str(), told["room"]["room_type"].as_str()), (Some("Agora"), Some("m.space")));
    assert_eq!(told["room"]["children_state"].as_array().unwrap().len(), 4);
    assert_eq!(names(&told), ["Open"]);
    let mut shut = [closed.as_str(), members.as_str()];
    shut.sort_unstable();
    let mut told_shut: Vec<&str> =
        told["inaccessible_children"].as_array().unwrap().iter().filter_map(|id| id.as_str()).collect();
    told_shut.sort_unstable();
    assert_eq!(told_shut, shut);
    // Who is in the space may come into the room for its members.
    other.join(home, &space, &other.user("bob")).await;
    let told = other.get(home, &ask).await.ok();
    let mut shown = names(&told);
    shown.sort();
    assert_eq!(shown, ["For members", "Open"]);
    let restricted = told["children"].as_array().unwrap().iter().find(|room| room["name"] == "For members").unwrap();
    assert_eq!(restricted["allowed_room_ids"], json!([space]));
    assert_eq!(names(&other.get(home, &format!("{ask}?suggested_only=true")).await.ok()), ["Open"]);
    other.get(home, &path("hierarchy", &[&closed])).await.expect(404, "M_NOT_FOUND");
    other
        .get(home, &path("hierarchy", &["!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]))
        .await
        .expect(404, "M_NOT_FOUND");
}
