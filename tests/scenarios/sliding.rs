//! Simplified sliding sync (MSC4186), in the spelling that clients use today and in the accepted one.

use std::time::Duration;

use stoa_kit::{Home, Reply, User, Value, encode, json};

use crate::home;

/// A list of rooms with their names and one event each.
fn list(last: usize) -> Value {
    json!({ "ranges": [[0, last]], "timeline_limit": 1, "required_state": [["m.room.name", ""]] })
}

fn rooms(body: Value) -> Value {
    json!({ "conn_id": "main", "lists": { "all": body } })
}

fn ids(answer: &Value) -> Vec<&str> {
    answer["rooms"].as_object().expect("rooms").keys().map(String::as_str).collect()
}

fn bodies<'a>(answer: &'a Value, room: &str) -> Vec<&'a str> {
    let timeline = answer["rooms"][room]["timeline"].as_array().into_iter().flatten();
    timeline.filter_map(|event| event["content"]["body"].as_str()).collect()
}

fn pos(answer: &Value) -> &str {
    answer["pos"].as_str().expect("pos")
}

fn states(answer: &Value, room: &str) -> Vec<(String, String)> {
    let state = answer["rooms"][room]["required_state"].as_array().into_iter().flatten();
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let mut states: Vec<_> = state.map(|event| (text(event, "type"), text(event, "state_key"))).collect();
    states.sort();
    states
}

async fn stable(user: &User, body: Value) -> Reply {
    user.post("/_matrix/client/v4/sync", body).await
}

async fn named(user: &User, name: &str) -> String {
    user.create_room(json!({ "preset": "public_chat", "name": name })).await
}

async fn three_rooms(home: &Home) -> (User, Vec<String>) {
    let alice = home.user("alice").await;
    let mut all = Vec::new();
    for name in ["one", "two", "three"] {
        all.push(named(&alice, name).await);
    }
    (alice, all)
}

#[tokio::test]
async fn the_flag_that_clients_look_for_is_there() {
    let versions = home().await.get("/_matrix/client/versions").await.ok();
    assert_eq!(versions["unstable_features"]["org.matrix.simplified_msc3575"], true);
}

#[tokio::test]
async fn the_newest_rooms_come_first_and_growing_the_window_brings_the_others() {
    let home = home().await;
    let (alice, all) = three_rooms(&home).await;
    alice.text(&all[0], "up").await;
    let first = alice.slide(None, 0, rooms(list(0))).await.ok();
    assert_eq!(first["lists"]["all"]["count"], 3);
    assert_eq!(ids(&first), [&all[0]]);
    let room = &first["rooms"][&all[0]];
    assert_eq!((&room["initial"], &room["name"], &room["joined_count"]), (&json!(true), &json!("one"), &json!(1)));
    assert_eq!(bodies(&first, &all[0]), ["up"]);
    assert_eq!(room["limited"], true);
    assert_eq!(states(&first, &all[0]), [("m.room.name".to_owned(), String::new())]);
    assert!(room["bump_stamp"].as_u64().is_some_and(|stamp| stamp > 0));

    let second = alice.slide(Some(pos(&first)), 0, rooms(list(99))).await.ok();
    let mut found = ids(&second);
    found.sort_unstable();
    let mut others = [all[1].as_str(), &all[2]];
    others.sort_unstable();
    assert_eq!(found, others);
    let third = alice.slide(Some(pos(&second)), 0, rooms(list(99))).await.ok();
    assert!(ids(&third).is_empty());
}

#[tokio::test]
async fn only_what_is_new_is_told() {
    let home = home().await;
    let (alice, all) = three_rooms(&home).await;
    let first = alice.slide(None, 0, rooms(list(99))).await.ok();
    alice.text(&all[1], "hello").await;
    alice.set_state(&all[1], "m.room.name", "", json!({ "name": "second" })).await.ok();
    let next = alice.slide(Some(pos(&first)), 0, rooms(list(99))).await.ok();
    assert_eq!(ids(&next), [&all[1]]);
    let room = &next["rooms"][&all[1]];
    assert!(
        room.get("initial").is_none() && room["name"] == "second" && room["num_live"] == 1 && room["limited"] == true
    );
    assert_eq!(states(&next, &all[1]), [("m.room.name".to_owned(), String::new())]);
    assert!(room.get("joined_count").is_none(), "nobody came or went: {room}");
}

#[tokio::test]
async fn a_long_poll_is_woken_and_one_without_news_ends_in_time() {
    let home = home().await;
    let (alice, all) = three_rooms(&home).await;
    let first = alice.slide(None, 0, rooms(list(99))).await.ok();
    let waits = alice.slide(Some(pos(&first)), 20_000, rooms(list(99)));
    let (next, _) = tokio::join!(waits, async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        alice.text(&all[2], "wake up").await
    });
    assert!(next.took < Duration::from_secs(10));
    let next = next.ok();
    assert_eq!(bodies(&next, &all[2]), ["wake up"]);
    let quiet = alice.slide(Some(pos(&next)), 500, rooms(list(99))).await;
    assert!(quiet.took >= Duration::from_millis(450), "{:?}", quiet.took);
    assert!(ids(&quiet.ok()).is_empty());
}

#[tokio::test]
async fn an_answer_that_was_lost_is_told_again() {
    let home = home().await;
    let (alice, all) = three_rooms(&home).await;
    let first = alice.slide(None, 0, rooms(list(99))).await.ok();
    alice.text(&all[0], "once").await;
    let lost = alice.slide(Some(pos(&first)), 0, rooms(list(99))).await.ok();
    assert_eq!(bodies(&lost, &all[0]), ["once"]);
    let again = alice.slide(Some(pos(&first)), 0, rooms(list(99))).await.ok();
    assert_eq!(bodies(&again, &all[0]), ["once"]);
    let next = alice.slide(Some(pos(&again)), 0, rooms(list(99))).await.ok();
    assert!(ids(&next).is_empty());
    // Who has gone on cannot go back.
    alice.slide(Some(pos(&first)), 0, rooms(list(99))).await.expect(400, "M_UNKNOWN_POS");
}

#[tokio::test]
async fn a_pos_is_good_for_its_own_connection_only() {
    let mut home = home().await;
    let (alice, all) = three_rooms(&home).await;
    let bob = home.user("bob").await;
    let tablet = home.device_of(&alice).await;
    let first = alice.slide(None, 0, rooms(list(99))).await.ok();
    for other in [&bob, &tablet] {
        other.slide(Some(pos(&first)), 0, rooms(list(99))).await.expect(400, "M_UNKNOWN_POS");
    }
    for forged in ["", "p1", "x", "s1_1", "p1.s1_1", "p99999999999999999999.s1_1"] {
        alice.slide(Some(forged), 0, rooms(list(99))).await.expect(400, "M_UNKNOWN_POS");
    }
    // Another connection of the same device begins by itself.
    let mut other = rooms(list(99));
    other["conn_id"] = json!("other");
    alice.slide(Some(pos(&first)), 0, other.clone()).await.expect(400, "M_UNKNOWN_POS");
    assert_eq!(ids(&alice.slide(None, 0, other).await.ok()).len(), 3);
    alice.text(&all[0], "hello").await;
    let next = alice.slide(Some(pos(&first)), 0, rooms(list(99))).await.ok();
    assert_eq!(ids(&next), [&all[0]]);
    // It is not kept over a restart; clients begin anew.
    home.restart().await;
    alice.slide(Some(pos(&next)), 0, rooms(list(99))).await.expect(400, "M_UNKNOWN_POS");
    assert_eq!(ids(&alice.slide(None, 0, rooms(list(99))).await.ok()).len(), 3);
}

#[tokio::test]
async fn a_pos_leads_into_history() {
    let home = home().await;
    let (alice, all) = three_rooms(&home).await;
    alice.texts(&all[0], (0..5).map(|n| n.to_string())).await;
    let first = alice.slide(None, 0, rooms(list(99))).await.ok();
    for from in [pos(&first), first["rooms"][&all[0]]["prev_batch"].as_str().unwrap()] {
        let page = alice.messages(&all[0], &format!("dir=b&limit=3&from={}", encode(from))).await.ok();
        assert_eq!(page["chunk"].as_array().unwrap().len(), 3);
    }
}

#[tokio::test]
async fn members_come_as_the_timeline_needs_them() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.room_with(&[&bob, &carol]).await;
    bob.text(&room, "from bob").await;
    let wanted = json!([["m.room.member", "$LAZY"], ["m.room.member", "$ME"], ["m.room.create", ""]]);
    let ask = rooms(json!({ "ranges": [[0, 9]], "timeline_limit": 1, "required_state": wanted }));
    let first = carol.slide(None, 0, ask.clone()).await.ok();
    let member = |user: &User| ("m.room.member".to_owned(), user.id.clone());
    let mut expected = [("m.room.create".to_owned(), String::new()), member(&bob), member(&carol)];
    expected.sort();
    assert_eq!(states(&first, &room), expected);
    bob.text(&room, "again").await;
    let next = carol.slide(Some(pos(&first)), 0, ask.clone()).await.ok();
    assert!(states(&next, &room).is_empty(), "bob was told before");
    alice.text(&room, "me too").await;
    let next = carol.slide(Some(pos(&next)), 0, ask).await.ok();
    assert_eq!(states(&next, &room), [member(&alice)]);
}

#[tokio::test]
async fn wildcards_and_wider_wishes_bring_the_state_they_name() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = named(&alice, "calls").await;
    for device in ["a", "b"] {
        alice.set_state(&room, "m.call.member", device, json!({ "n": device })).await.ok();
    }
    let ask = |wanted: Value| rooms(json!({ "ranges": [[0, 9]], "timeline_limit": 0, "required_state": wanted }));
    let first = alice.slide(None, 0, ask(json!([["m.call.member", "*"]]))).await.ok();
    let call = |device: &str| ("m.call.member".to_owned(), device.to_owned());
    assert_eq!(states(&first, &room), [call("a"), call("b")]);
    let wider = json!([["m.call.member", "*"], ["m.room.name", ""]]);
    let next = alice.slide(Some(pos(&first)), 0, ask(wider.clone())).await.ok();
    assert_eq!(states(&next, &room), [("m.room.name".to_owned(), String::new())]);
    alice.set_state(&room, "m.call.member", "b", json!({})).await.ok();
    let next = alice.slide(Some(pos(&next)), 0, ask(wider)).await.ok();
    assert_eq!(states(&next, &room), [call("b")]);
}

#[tokio::test]
async fn a_subscription_brings_more_of_one_room() {
    let home = home().await;
    let (alice, all) = three_rooms(&home).await;
    let bob = home.user("bob").await;
    let secret = bob.create_room(json!({})).await;
    alice.texts(&all[1], (0..5).map(|n| n.to_string())).await;
    let first = alice.slide(None, 0, rooms(list(99))).await.ok();
    assert_eq!(bodies(&first, &all[1]), ["4"]);
    let mut ask = rooms(list(99));
    ask["room_subscriptions"] = json!({
        &all[1]: { "timeline_limit": 4, "required_state": [["m.room.create", ""]] },
        &secret: { "timeline_limit": 4, "required_state": [["*", "*"]] },
        "!nowhere:example.org": { "timeline_limit": 4, "required_state": [["*", "*"]] },
    });
    let next = alice.slide(Some(pos(&first)), 0, ask.clone()).await.ok();
    assert_eq!(ids(&next), [&all[1]]);
    assert_eq!(bodies(&next, &all[1]), ["1", "2", "3", "4"]);
    assert_eq!(next["rooms"][&all[1]]["unstable_expanded_timeline"], true);
    assert_eq!(next["rooms"][&all[1]]["num_live"], 0);
    assert_eq!(states(&next, &all[1]), [("m.room.create".to_owned(), String::new())]);
    assert!(ids(&alice.slide(Some(pos(&next)), 0, ask).await.ok()).is_empty());
}

#[tokio::test]
async fn an_invite_shows_what_it_says_and_joining_shows_the_room() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({ "name": "tea", "invite": [&bob.id], "preset": "private_chat" })).await;
    let first = bob.slide(None, 0, rooms(list(9))).await.ok();
    let invite = &first["rooms"][&room];
    let stripped = invite["invite_state"].as_array().expect("invite_state");
    assert!(stripped.iter().any(|event| event["content"]["name"] == "tea"));
    assert!(invite.get("timeline").is_none() && invite.get("required_state").is_none());
    bob.join(&room).await.ok();
    let next = bob.slide(Some(pos(&first)), 0, rooms(list(9))).await.ok();
    let joined = &next["rooms"][&room];
    assert_eq!((&joined["initial"], &joined["membership"]), (&json!(true), &json!("join")));
    assert_eq!((&joined["name"], &joined["joined_count"]), (&json!("tea"), &json!(2)));
}

#[tokio::test]
async fn an_invite_that_was_refused_goes_away() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({ "invite": [&bob.id], "preset": "private_chat", "name": "tea" })).await;
    let first = bob.slide(None, 0, rooms(list(9))).await.ok();
    bob.leave(&room).await.ok();
    let next = bob.slide(Some(pos(&first)), 0, rooms(list(9))).await.ok();
    let left = &next["rooms"][&room];
    assert_eq!(left["membership"], "leave");
    let told = left["timeline"].as_array().into_iter().chain(left["required_state"].as_array()).flatten();
    let told: Vec<&Value> = told.collect();
    assert!(told.iter().all(|event| event["state_key"] == bob.id.as_str()), "only what became of bob: {left}");
    assert!(told.iter().any(|event| event["content"]["membership"] == "leave"));
    assert!(left.get("name").is_none() && left.get("joined_count").is_none(), "{left}");
    assert!(ids(&bob.slide(Some(pos(&next)), 0, rooms(list(9))).await.ok()).is_empty());
}

/// CVE-2024-53867, and the same in another server: not one more event after leaving or a kick.
#[tokio::test]
async fn nothing_more_comes_after_a_kick() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let everything = json!({ "ranges": [[0, 9]], "timeline_limit": 20, "required_state": [["*", "*"]] });
    let mut ask = rooms(everything.clone());
    ask["room_subscriptions"] = json!({ &room: { "timeline_limit": 20, "required_state": [["*", "*"]] } });
    ask["extensions"] = json!({ "receipts": { "enabled": true }, "typing": { "enabled": true } });
    let first = bob.slide(None, 0, ask.clone()).await.ok();
    alice.kick(&room, &bob).await.ok();
    let after = alice.text(&room, "bob is gone").await;
    alice.set_state(&room, "m.room.topic", "", json!({ "topic": "about bob" })).await.ok();
    alice.typing(&room, true).await.ok();
    alice.receipt(&room, "m.read", &after, json!({})).await.ok();
    let next = bob.slide(Some(pos(&first)), 0, ask.clone()).await.ok();
    assert_eq!(next["rooms"][&room]["membership"], "leave");
    assert!(!next.to_string().contains("bob is gone") && !next.to_string().contains("about bob"), "{next}");
    let told = next["rooms"][&room]["timeline"].as_array().unwrap();
    assert_eq!(told.last().unwrap()["content"]["membership"], "leave");
    assert!(next["extensions"].get("typing").is_none() && next["extensions"].get("receipts").is_none());
    let quiet = bob.slide(Some(pos(&next)), 0, ask.clone()).await.ok();
    assert!(ids(&quiet).is_empty(), "{quiet}");
    // Beginning anew shows the kick, and nothing after it.
    let anew = bob.slide(None, 0, ask).await.ok();
    assert_eq!(anew["rooms"][&room]["membership"], "leave");
    assert!(!anew.to_string().contains("bob is gone") && !anew.to_string().contains("about bob"), "{anew}");
}

#[tokio::test]
async fn leaving_is_told_once_and_coming_back_shows_the_room_anew() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await.ok();
    let first = bob.slide(None, 0, rooms(list(9))).await.ok();
    bob.leave(&room).await.ok();
    let left = bob.slide(Some(pos(&first)), 0, rooms(list(9))).await.ok();
    assert_eq!(left["rooms"][&room]["membership"], "leave");
    alice.text(&room, "unheard").await;
    let quiet = bob.slide(Some(pos(&left)), 0, rooms(list(9))).await.ok();
    assert!(ids(&quiet).is_empty());
    bob.join(&room).await.ok();
    let back = bob.slide(Some(pos(&quiet)), 0, rooms(list(9))).await.ok();
    assert_eq!((&back["rooms"][&room]["initial"], &back["rooms"][&room]["membership"]), (&json!(true), &json!("join")));
    // Rooms that were left before do not come to who begins.
    bob.leave(&room).await.ok();
    assert!(ids(&bob.slide(None, 0, rooms(list(9))).await.ok()).is_empty());
}

#[tokio::test]
async fn unread_counts_follow_reading() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let first = bob.slide(None, 0, rooms(list(9))).await.ok();
    let event = alice.text(&room, "hello").await;
    let next = bob.slide(Some(pos(&first)), 0, rooms(list(9))).await.ok();
    assert_eq!(next["rooms"][&room]["notification_count"], 1);
    bob.receipt(&room, "m.read", &event, json!({})).await.ok();
    let read = bob.slide(Some(pos(&next)), 5_000, rooms(list(9))).await.ok();
    assert_eq!(read["rooms"][&room]["notification_count"], 0);
    assert!(ids(&bob.slide(Some(pos(&read)), 0, rooms(list(9))).await.ok()).is_empty());
}

#[tokio::test]
async fn filters_choose_the_rooms_of_a_list() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let plain = named(&alice, "plain").await;
    let space = alice.create_room(json!({ "creation_content": { "type": "m.space" } })).await;
    let child = named(&alice, "child").await;
    let via = json!({ "via": ["localhost"] });
    alice.set_state(&space, "m.space.child", &child, via).await.ok();
    let direct = alice.create_room(json!({ "is_direct": true })).await;
    alice.set_account_data(None, "m.direct", json!({ &bob.id: [&direct] })).await.ok();
    let encryption = json!({ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } });
    let secret = alice.create_room(json!({ "initial_state": [encryption] })).await;
    let tag = json!({ "tags": { "m.favourite": {} } });
    alice.set_account_data(Some(&plain), "m.tag", tag).await.ok();
    let invited = bob.create_room(json!({ "invite": [&alice.id] })).await;
    for (filters, expected) in [
        (json!({ "is_dm": true }), vec![&direct]),
        (json!({ "is_dm": false, "is_invite": false }), vec![&plain, &space, &child, &secret]),
        (json!({ "is_encrypted": true }), vec![&secret]),
        (json!({ "is_invite": true }), vec![&invited]),
        (json!({ "is_invited": true }), vec![&invited]),
        (json!({ "room_types": ["m.space"] }), vec![&space]),
        (json!({ "room_types": [null], "is_dm": true }), vec![&direct]),
        (json!({ "not_room_types": ["m.space"] }), vec![&plain, &child, &direct, &secret, &invited]),
        (json!({ "spaces": [&space] }), vec![&child]),
        (json!({ "tags": ["m.favourite"] }), vec![&plain]),
        (json!({ "not_tags": ["m.favourite"] }), vec![&space, &child, &direct, &secret, &invited]),
    ] {
        let mut ask = list(99);
        ask["filters"] = filters.clone();
        let answer = alice.slide(None, 0, rooms(ask)).await.ok();
        let mut expected: Vec<&str> = expected.into_iter().map(String::as_str).collect();
        expected.sort_unstable();
        let mut found = ids(&answer);
        found.sort_unstable();
        assert_eq!(found, expected, "{filters}");
        assert_eq!(answer["lists"]["all"]["count"], expected.len());
    }
    let answer = alice.slide(None, 0, rooms(list(99))).await.ok();
    assert_eq!(answer["rooms"][&direct]["is_dm"], true);
    assert!(answer["rooms"][&plain].get("is_dm").is_none());
}

#[tokio::test]
async fn messages_to_the_device_come_until_they_are_acknowledged() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let ask = |since: Option<&str>| {
        json!({
            "conn_id": "encryption",
            "extensions": { "to_device": { "enabled": true, "since": since }, "e2ee": { "enabled": true } },
        })
    };
    let first = bob.slide(None, 0, ask(None)).await.ok();
    let device = first["extensions"]["to_device"]["next_batch"].as_str().unwrap().to_owned();
    assert!(first["extensions"]["e2ee"]["device_one_time_keys_count"].is_object());
    let messages = json!({ "messages": { &bob.id: { "*": { "n": 1 } } } });
    let waits = bob.slide(Some(pos(&first)), 20_000, ask(Some(&device)));
    let (next, _) = tokio::join!(waits, async {
        alice.put(&format!("/sendToDevice/org.example.ping/{}", alice.txn()), messages).await.ok()
    });
    let next = next.ok();
    let told = &next["extensions"]["to_device"];
    assert_eq!(told["events"][0]["content"]["n"], 1);
    // Not acknowledged: it comes again, on any connection.
    let again = bob.slide(Some(pos(&next)), 0, ask(Some(&device))).await.ok();
    assert_eq!(again["extensions"]["to_device"]["events"].as_array().unwrap().len(), 1);
    let done = bob.slide(Some(pos(&again)), 0, ask(told["next_batch"].as_str())).await.ok();
    assert_eq!(done["extensions"]["to_device"]["events"], json!([]));
    assert!(bob.sync().await.to_device().is_empty(), "what was acknowledged is gone everywhere");
}

#[tokio::test]
async fn device_lists_tell_of_those_in_encrypted_rooms() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let encryption = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
    alice.set_state(&room, "m.room.encryption", "", encryption).await.ok();
    let ask = json!({ "conn_id": "encryption", "extensions": { "e2ee": { "enabled": true } } });
    let first = bob.slide(None, 0, ask.clone()).await.ok();
    let waits = bob.slide(Some(pos(&first)), 20_000, ask);
    let (next, ()) = tokio::join!(waits, async {
        let keys = stoa_kit::Keys::new(7).device(&alice.id, &alice.device);
        alice.post("/keys/upload", json!({ "device_keys": keys })).await.ok();
    });
    assert_eq!(next.ok()["extensions"]["e2ee"]["device_lists"]["changed"], json!([&alice.id]));
}

#[tokio::test]
async fn account_data_of_the_account_and_of_rooms_in_the_window() {
    let home = home().await;
    let (alice, all) = three_rooms(&home).await;
    alice.set_account_data(None, "org.example.a", json!({ "n": 1 })).await.ok();
    alice.set_account_data(Some(&all[0]), "org.example.b", json!({ "n": 2 })).await.ok();
    alice.text(&all[2], "newest").await;
    let ask = |last: usize| {
        let mut ask = rooms(list(last));
        ask["extensions"] = json!({ "account_data": { "enabled": true } });
        ask
    };
    let first = alice.slide(None, 0, ask(0)).await.ok();
    let data = &first["extensions"]["account_data"];
    let kinds: Vec<&str> = data["global"].as_array().unwrap().iter().filter_map(|it| it["type"].as_str()).collect();
    assert!(kinds.contains(&"org.example.a") && kinds.contains(&"m.push_rules"), "{kinds:?}");
    assert!(data["rooms"].get(&all[0]).is_none(), "not in the window");
    let next = alice.slide(Some(pos(&first)), 0, ask(99)).await.ok();
    assert_eq!(next["extensions"]["account_data"]["rooms"][&all[0]][0]["content"]["n"], 2);
    assert_eq!(next["extensions"]["account_data"]["global"], json!([]));
    alice.set_account_data(Some(&all[0]), "org.example.b", json!({ "n": 3 })).await.ok();
    let last = alice.slide(Some(pos(&next)), 5_000, ask(99)).await.ok();
    assert_eq!(last["extensions"]["account_data"]["rooms"][&all[0]][0]["content"]["n"], 3);
}

#[tokio::test]
async fn typing_begins_and_ends_and_receipts_come() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let event = alice.text(&room, "read me").await;
    let mut ask = rooms(list(9));
    ask["extensions"] = json!({ "typing": { "enabled": true }, "receipts": { "enabled": true } });
    let first = bob.slide(None, 0, ask.clone()).await.ok();
    alice.typing(&room, true).await.ok();
    let on = bob.slide(Some(pos(&first)), 5_000, ask.clone()).await.ok();
    assert_eq!(on["extensions"]["typing"]["rooms"][&room]["content"]["user_ids"], json!([&alice.id]));
    alice.typing(&room, false).await.ok();
    let off = bob.slide(Some(pos(&on)), 5_000, ask.clone()).await.ok();
    assert_eq!(off["extensions"]["typing"]["rooms"][&room]["content"]["user_ids"], json!([]));
    alice.receipt(&room, "m.read", &event, json!({})).await.ok();
    let read = bob.slide(Some(pos(&off)), 5_000, ask.clone()).await.ok();
    let receipt = &read["extensions"]["receipts"]["rooms"][&room];
    assert_eq!(receipt["type"], "m.receipt");
    assert!(receipt["content"][&event]["m.read"][&alice.id].is_object(), "{receipt}");
    // Who begins is told who read what is shown.
    let anew = bob.slide(None, 0, ask.clone()).await.ok();
    assert!(anew["extensions"]["receipts"]["rooms"][&room]["content"][&event].is_object());
    bob.text(&room, "newer").await;
    let anew = bob.slide(None, 0, ask).await.ok();
    assert!(anew["extensions"].get("receipts").is_none(), "nobody read the only event that is shown");
}

#[tokio::test]
async fn the_accepted_spelling_says_the_same_and_more() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({ "invite": [&bob.id], "name": "tea" })).await;
    let ask = |pos: Option<&str>, include: Value| {
        json!({
            "conn_id": "main",
            "pos": pos,
            "lists": { "all": {
                "range": [0, 9], "timeline_limit": 1, "required_state": { "include": include, "lazy_members": true },
            } },
        })
    };
    let names = json!([{ "type": "m.room.name" }]);
    let first = stable(&bob, ask(None, names.clone())).await.ok();
    assert!(first["rooms"][&room]["stripped_state"].is_array());
    assert_eq!(first["rooms"][&room]["lists"], json!(["all"]));
    let first = stable(&alice, ask(None, names)).await.ok();
    let told = &first["rooms"][&room];
    assert_eq!((&told["membership"], &told["lists"]), (&json!("join"), &json!(["all"])));
    assert!(states(&first, &room).contains(&("m.room.name".to_owned(), String::new())));
    let next = stable(&alice, ask(Some(pos(&first)), json!([{}]))).await.ok();
    let more = states(&next, &room);
    assert!(more.contains(&("m.room.create".to_owned(), String::new())), "{more:?}");
    assert!(!more.iter().any(|(kind, key)| kind == "m.room.member" && *key == bob.id), "members come lazily");
}

#[tokio::test]
async fn too_much_is_refused() {
    let home = home().await;
    let alice = home.user("alice").await;
    let many = Value::Object((0..101).map(|n| (n.to_string(), list(0))).collect());
    alice.slide(None, 0, json!({ "lists": many })).await.expect(400, "M_INVALID_PARAM");
    let state: Vec<Value> = (0..300).map(|n| json!(["m.room.name", n.to_string()])).collect();
    let ask = json!({ "ranges": [[0, 1]], "timeline_limit": 1, "required_state": state });
    alice.slide(None, 0, rooms(ask)).await.expect(400, "M_INVALID_PARAM");
    alice.slide(None, 0, rooms(json!({ "ranges": [[5, 1]] }))).await.expect(400, "M_INVALID_PARAM");
    alice.slide(None, 0, json!({ "conn_id": "x".repeat(300) })).await.expect(400, "M_INVALID_PARAM");
    alice.slide(None, 0, json!({ "lists": [] })).await.expect(400, "M_BAD_JSON");
    alice.slide(None, 0, json!({ "lists": { "a": { "timeline_limit": -1 } } })).await.expect(400, "M_BAD_JSON");
    stable(&alice, json!({ "set_presence": "dancing" })).await.expect(400, "M_INVALID_PARAM");
    // An endless window is all rooms, and a huge limit what is allowed.
    let ask = json!({ "ranges": [[0, u32::MAX]], "timeline_limit": 1_000_000, "required_state": [] });
    alice.slide(None, 0, rooms(ask)).await.ok();
}

#[tokio::test]
async fn who_slides_is_online() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    alice.room_with(&[&bob]).await;
    let path = format!("/presence/{}/status", bob.path_id());
    let path = path.as_str();
    bob.post("/_matrix/client/v4/sync", json!({ "set_presence": "offline" })).await.ok();
    assert_eq!(alice.get(path).await.ok()["presence"], "offline");
    bob.slide(None, 0, rooms(list(1))).await.ok();
    assert_eq!(alice.get(path).await.ok()["presence"], "online");
}
