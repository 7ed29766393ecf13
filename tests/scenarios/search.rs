//! Client-Server API, "Server Side Search": what was said is found, by those who may see it and by nobody else.

use std::time::Duration;

use stoa_kit::{Home, Reply, User, Value, encode, json};

use crate::{home, one, own, refused, strict, two};

/// Searches with these criteria.
async fn search(user: &User, criteria: Value) -> Value {
    user.post("/search", json!({ "search_categories": { "room_events": criteria } })).await.ok()["search_categories"]
        ["room_events"]
        .clone()
}

/// The same from a token on.
async fn search_from(user: &User, token: &str, criteria: Value) -> Reply {
    let body = json!({ "search_categories": { "room_events": criteria } });
    user.post(&format!("/search?next_batch={}", encode(token)), body).await
}

/// The texts that are found, in order.
fn texts(found: &Value) -> Vec<String> {
    let text = |result: &Value| {
        let content = &result["result"]["content"];
        let text = [&content["body"], &content["name"], &content["topic"]].into_iter().find_map(Value::as_str);
        text.unwrap_or("(no text)").to_owned()
    };
    found["results"].as_array().expect("results").iter().map(text).collect()
}

/// The texts that a user finds, in alphabetical order.
async fn finds(user: &User, term: &str) -> Vec<String> {
    let mut found = texts(&search(user, json!({ "search_term": term, "filter": { "limit": 100 } })).await);
    found.sort();
    found
}

/// Waits until everything that happened before can be found: the index is a moment behind.
async fn indexed(user: &User) {
    let room = user.create_room(json!({})).await;
    let marker = format!("marker{}", user.txn().replace(|c: char| !c.is_ascii_alphanumeric(), ""));
    user.text(&room, &marker).await;
    for _ in 0..600 {
        if finds(user, &marker).await == [marker.as_str()] {
            user.leave(&room).await.ok();
            user.forget(&room).await.ok();
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("what was said half a minute ago is not found");
}

async fn edit(user: &User, room: &str, event: &str, body: &str) -> String {
    let content = json!({
        "msgtype": "m.text", "body": format!("* {body}"),
        "m.new_content": { "msgtype": "m.text", "body": body },
        "m.relates_to": { "rel_type": "m.replace", "event_id": event },
    });
    user.send(room, "m.room.message", content).await.event_id()
}

#[tokio::test]
async fn texts_names_and_topics_are_found_by_their_keys() {
    let (_home, alice, room) = one().await;
    alice.text(&room, "the lighthouse keeper").await;
    alice.set_state(&room, "m.room.name", "", json!({ "name": "Lighthouse friends" })).await.ok();
    let rich = json!({ "topic": "lamps", "m.topic": { "m.text": [
        { "body": "every lighthouse of the coast" }, { "mimetype": "text/html", "body": "<i>candle</i>" },
    ] } });
    alice.set_state(&room, "m.room.topic", "", rich).await.ok();
    alice.send(&room, "org.example.note", json!({ "body": "no lighthouse here" })).await.ok();
    indexed(&alice).await;

    assert_eq!(finds(&alice, "LIGHTHOUSE").await, ["Lighthouse friends", "lamps", "the lighthouse keeper"]);
    assert_eq!(finds(&alice, "lamps").await, ["lamps"]);
    assert!(finds(&alice, "candle").await.is_empty());
    assert_eq!(finds(&alice, "keeper lighthouse").await, ["the lighthouse keeper"], "all words, in any order");
    assert!(finds(&alice, "lighthouse ship").await.is_empty());
    assert!(finds(&alice, " .,! ").await.is_empty());
    for (key, expected) in
        [("content.body", "the lighthouse keeper"), ("content.name", "Lighthouse friends"), ("content.topic", "lamps")]
    {
        let found = search(&alice, json!({ "search_term": "lighthouse", "keys": [key] })).await;
        assert_eq!(texts(&found), [expected]);
        assert_eq!(found["count"], 1);
        let result = &found["results"][0];
        assert!(result["rank"].is_number() && result["context"].is_null(), "{result}");
        assert_eq!((&result["result"]["room_id"], &result["result"]["sender"]), (&json!(room), &json!(alice.id)));
    }
    let nothing = alice.post("/search", json!({ "search_categories": {} })).await.ok();
    assert!(nothing["search_categories"]["room_events"].is_null());
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused() {
    let (home, alice, _) = one().await;
    let ask = async |criteria: Value| {
        alice.post("/search", json!({ "search_categories": { "room_events": criteria } })).await
    };
    for criteria in [
        json!({}),
        json!({ "search_term": 5 }),
        json!({ "search_term": "x", "order_by": "length" }),
        json!({ "search_term": "x", "groupings": { "group_by": [{ "key": "colour" }] } }),
    ] {
        refused(&ask(criteria).await);
    }
    refused(&alice.post("/search", json!({})).await);
    if strict() {
        ask(json!({ "search_term": "x", "keys": ["content.secret"] })).await.expect(400, "M_INVALID_PARAM");
        ask(json!({ "search_term": "x".repeat(2000) })).await.expect(400, "M_INVALID_PARAM");
        let many: Vec<String> = (0..40).map(|i| format!("w{i}")).collect();
        ask(json!({ "search_term": many.join(" ") })).await.expect(400, "M_INVALID_PARAM");
        search_from(&alice, "not-a-token", json!({ "search_term": "x" })).await.expect(400, "M_INVALID_PARAM");
        // A token of another order.
        let token = "t.1-2-3.4";
        search_from(&alice, token, json!({ "search_term": "x" })).await.expect(400, "M_INVALID_PARAM");
    }
    home.post("/search", json!({ "search_categories": {} })).await.expect(401, "M_MISSING_TOKEN");
}

#[tokio::test]
async fn many_languages_are_understood() {
    let (_home, alice, room) = one().await;
    let said = [
        "Wir suchen alte Häuser am Fluss",
        "She was running through the libraries",
        "Les chevaux mangent des pommes à l'école",
        "El niño corrió hacia la montaña",
        "Книги лежат на столе",
        "我们今天去北京大学图书馆",
        "東京タワーに行きました。ｶﾒﾗも",
        "오늘 학교에서 점심을 먹었어요",
        "ฉันรักภาษาไทย",
        "Glückwunsch zum Geburtstag 🎂🎉",
        "cafe\u{301} au lait",
        "Die Straße nach Łódź",
    ];
    for text in said {
        alice.text(&room, text).await;
    }
    indexed(&alice).await;
    for (term, place) in [
        ("Haus", 0),
        ("hauses", 0),
        ("HÄUSERN flüsse", 0),
        ("run library", 1),
        ("cheval", 2),
        ("ecole", 2),
        ("pomme", 2),
        ("nino montañas", 3),
        ("книга стол", 4),
        ("北京", 5),
        ("图书馆", 5),
        ("馆", 5),
        ("大学图书馆", 5),
        ("東京", 6),
        ("行きました", 6),
        ("カメラ", 6),
        ("학교", 7),
        ("점심을", 7),
        ("ภาษา", 8),
        ("🎉", 9),
        ("🎂 Geburtstage", 9),
        ("café", 10),
        ("CAFE", 10),
        ("strasse lodz", 11),
    ] {
        assert_eq!(finds(&alice, term).await, [said[place]], "{term}");
    }
    for none in ["京北", "图馆", "大学图馆", "점학", "Maus", "🎁"] {
        assert!(finds(&alice, none).await.is_empty(), "{none}");
    }
    // What to highlight is what stands there.
    let found = search(&alice, json!({ "search_term": "library runs" })).await;
    let mut words: Vec<_> = found["highlights"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    words.sort_unstable();
    assert_eq!(words, ["libraries", "running"]);
    assert_eq!(search(&alice, json!({ "search_term": "图书馆" })).await["highlights"], json!(["图书馆"]));
}

#[tokio::test]
async fn what_fits_best_or_was_said_last_comes_first() {
    let (_home, alice, room) = one().await;
    alice.text(&room, "walnut").await;
    alice.text(&room, "a long text in which there is much about other things and a walnut only at its end").await;
    alice.text(&room, "nuts: a walnut, and another walnut").await;
    indexed(&alice).await;
    let recent = search(&alice, json!({ "search_term": "walnut", "order_by": "recent" })).await;
    assert_eq!(recent["count"], 3);
    assert!(texts(&recent)[0].starts_with("nuts") && texts(&recent)[2] == "walnut");
    let ranked = search(&alice, json!({ "search_term": "walnut" })).await;
    assert!(texts(&ranked)[2].starts_with("a long text"), "{:?}", texts(&ranked));
    let ranks: Vec<f64> = ranked["results"].as_array().unwrap().iter().map(|it| it["rank"].as_f64().unwrap()).collect();
    assert!(ranks.is_sorted_by(|a, b| a >= b), "{ranks:?}");
}

#[tokio::test]
async fn filters_choose_rooms_senders_types_and_links() {
    let (_home, alice, bob, room) = two().await;
    let other = alice.create_room(json!({ "name": "pepper room" })).await;
    alice.text(&room, "pepper of alice").await;
    bob.text(&room, "pepper of bob").await;
    alice.text(&other, "pepper elsewhere").await;
    let file = json!({ "msgtype": "m.file", "body": "pepper.pdf", "url": "mxc://example.org/pepper" });
    alice.send(&room, "m.room.message", file).await.ok();
    indexed(&alice).await;
    let with = async |filter: Value| {
        let mut found = texts(&search(&alice, json!({ "search_term": "pepper", "filter": filter })).await);
        found.sort();
        found
    };
    let all = ["pepper elsewhere", "pepper of alice", "pepper of bob", "pepper room", "pepper.pdf"];
    assert_eq!(with(json!({})).await, all);
    assert_eq!(with(json!({ "rooms": [other] })).await, ["pepper elsewhere", "pepper room"]);
    assert_eq!(with(json!({ "not_rooms": [other] })).await, ["pepper of alice", "pepper of bob", "pepper.pdf"]);
    assert_eq!(with(json!({ "senders": [bob.id] })).await, ["pepper of bob"]);
    assert_eq!(with(json!({ "not_senders": [alice.id] })).await, ["pepper of bob"]);
    assert!(with(json!({ "senders": ["@nobody:example.org"] })).await.is_empty());
    assert_eq!(with(json!({ "types": ["m.room.name"] })).await, ["pepper room"]);
    assert_eq!(with(json!({ "not_types": ["m.room.message"] })).await, ["pepper room"]);
    assert_eq!(with(json!({ "contains_url": true })).await, ["pepper.pdf"]);
    assert_eq!(with(json!({ "contains_url": false, "rooms": [room] })).await, ["pepper of alice", "pepper of bob"]);
    assert_eq!(with(json!({ "limit": 2 })).await.len(), 2);
    assert!(with(json!({ "rooms": [] })).await.is_empty());
    // Whom one ignores is not found.
    let ignore = json!({ "ignored_users": { &bob.id: {} } });
    alice.set_account_data(None, "m.ignored_user_list", ignore).await.ok();
    assert!(!with(json!({})).await.contains(&"pepper of bob".to_owned()));
}

#[tokio::test]
async fn pages_lead_to_the_end_and_nothing_comes_twice() {
    let (_home, alice, bob, room) = two().await;
    let other = alice.create_room(json!({})).await;
    alice.texts(&room, (0..23).map(|i| format!("cherry number {i}"))).await;
    bob.text(&room, "cherry of bob").await;
    alice.texts(&other, (0..3).map(|i| format!("other cherry {i}"))).await;
    indexed(&alice).await;
    for order in ["recent", "rank"] {
        let groups = json!({ "group_by": [{ "key": "room_id" }, { "key": "sender" }] });
        let criteria = json!({
            "search_term": "cherry", "order_by": order, "filter": { "limit": 10 }, "groupings": groups,
        });
        let first = search(&alice, criteria.clone()).await;
        assert_eq!((texts(&first).len(), &first["count"]), (10, &json!(27)));
        let mut all = texts(&first);
        let mut next = first["next_batch"].as_str().map(str::to_owned);
        while let Some(token) = next {
            let page = search_from(&alice, &token, criteria.clone()).await.ok();
            let page = &page["search_categories"]["room_events"];
            assert_eq!(page["count"], 27);
            all.extend(texts(page));
            next = page["next_batch"].as_str().map(str::to_owned);
            assert!(all.len() <= 27, "{all:?}");
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 27, "{order}");

        // Groups go on by themselves.
        let rooms = first["groups"]["room_id"].as_object().expect("groups of rooms");
        let listed: usize = rooms.values().map(|group| group["results"].as_array().unwrap().len()).sum();
        assert_eq!(listed, 10);
        let mut of_room = rooms.get(&room).map_or(0, |group| group["results"].as_array().unwrap().len());
        let mut next = rooms.get(&room).and_then(|group| group["next_batch"].as_str()).map(str::to_owned);
        assert!(next.is_some(), "{rooms:?}");
        while let Some(token) = next {
            let page = search_from(&alice, &token, criteria.clone()).await.ok();
            let page = page["search_categories"]["room_events"].clone();
            for result in page["results"].as_array().unwrap() {
                assert_eq!(result["result"]["room_id"], room);
                of_room += 1;
            }
            next = page["next_batch"].as_str().map(str::to_owned);
        }
        assert_eq!(of_room, 24, "{order}");
        let senders = first["groups"]["sender"].as_object().expect("groups of senders");
        assert!(senders.contains_key(&alice.id) && senders[&alice.id]["order"].is_number(), "{senders:?}");
    }
}

#[tokio::test]
async fn context_shows_what_was_around_and_leads_on() {
    let (_home, alice, bob, room) = two().await;
    for text in ["one", "two", "three", "the needle", "five", "six", "seven"] {
        alice.text(&room, text).await;
    }
    indexed(&alice).await;
    let context = json!({ "before_limit": 2, "after_limit": 1, "include_profile": true });
    let criteria = json!({ "search_term": "needle", "event_context": context, "include_state": true });
    let found = search(&bob, criteria.clone()).await;
    let context = &found["results"][0]["context"];
    let bodies = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|it| it["content"]["body"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(bodies(&context["events_before"]), ["three", "two"]);
    assert_eq!(bodies(&context["events_after"]), ["five"]);
    assert_eq!(context["profile_info"][&alice.id]["displayname"], alice.localpart());
    // The tokens are those of `/messages`.
    let page = |token: &Value, dir| format!("from={}&dir={dir}&limit=1", encode(token.as_str().unwrap()));
    let before = bob.messages(&room, &page(&context["start"], "b")).await.ok();
    assert_eq!(bodies(&before["chunk"]), ["one"]);
    let after = bob.messages(&room, &page(&context["end"], "f")).await.ok();
    assert_eq!(bodies(&after["chunk"]), ["six"]);
    let state = found["state"][&room].as_array().expect("the state of the room");
    assert!(state.iter().any(|event| event["type"] == "m.room.create"));
    assert!(state.iter().any(|event| event["type"] == "m.room.member" && event["state_key"] == bob.id.as_str()));

    let plain = search(&bob, json!({ "search_term": "needle", "event_context": {} })).await;
    let context = &plain["results"][0]["context"];
    assert_eq!(bodies(&context["events_after"]), ["five", "six", "seven"]);
    assert!(context["profile_info"].is_null() && plain["state"].is_null());
}

#[tokio::test]
async fn what_is_redacted_is_gone() {
    let (_home, alice, room) = one().await;
    let id = alice.text(&room, "embarrassing turnip").await;
    alice.text(&room, "harmless turnip").await;
    indexed(&alice).await;
    assert_eq!(finds(&alice, "turnip").await.len(), 2);
    alice.redact(&room, &id).await.ok();
    // At once, not only when the index has heard of it.
    assert_eq!(finds(&alice, "turnip").await, ["harmless turnip"]);
    indexed(&alice).await;
    assert_eq!(finds(&alice, "turnip").await, ["harmless turnip"]);
    assert!(finds(&alice, "embarrassing").await.is_empty());
}

#[tokio::test]
async fn an_edited_message_is_found_by_what_it_says_now() {
    let (_home, alice, bob, room) = two().await;
    let id = alice.text(&room, "meet at the fountain").await;
    indexed(&alice).await;
    bob.leave(&room).await.ok();
    let first = edit(&alice, &room, &id, "meet at the bridge").await;
    let second = edit(&alice, &room, &id, "meet at the tower").await;
    // Somebody else's is none.
    indexed(&alice).await;
    if !strict() {
        return;
    }
    let found = search(&alice, json!({ "search_term": "tower" })).await;
    let result = &found["results"][0]["result"];
    assert_eq!((found["results"].as_array().unwrap().len(), &result["event_id"]), (1, &json!(id)));
    assert_eq!(result["unsigned"]["m.relations"]["m.replace"]["event_id"], second);
    assert!(finds(&alice, "fountain").await.is_empty() && finds(&alice, "bridge").await.is_empty());
    // Who left before knows what was said then, and must not learn what it says now.
    assert_eq!(finds(&bob, "fountain").await, ["meet at the fountain"]);
    assert!(finds(&bob, "tower").await.is_empty() && finds(&bob, "bridge").await.is_empty());
    // Edits that are taken back leave what was there before.
    alice.redact(&room, &second).await.ok();
    indexed(&alice).await;
    assert_eq!(finds(&alice, "bridge").await.len(), 1);
    alice.redact(&room, &first).await.ok();
    indexed(&alice).await;
    assert_eq!(finds(&alice, "fountain").await, ["meet at the fountain"]);
    let third = edit(&alice, &room, &id, "meet at the harbour").await;
    alice.redact(&room, &id).await.ok();
    indexed(&alice).await;
    assert!(finds(&alice, "harbour").await.is_empty(), "{third}");
}

#[tokio::test]
async fn nobody_finds_what_they_may_not_see() {
    let home = home().await;
    let (alice, bob, eve) = (home.user("alice").await, home.user("bob").await, home.user("eve").await);
    for (visibility, expected) in [
        ("shared", vec!["quince before", "quince between", "quince invited", "quince joined"]),
        ("invited", vec!["quince between", "quince invited", "quince joined"]),
        ("joined", vec!["quince joined"]),
        ("world_readable", vec!["quince before", "quince between", "quince invited", "quince joined"]),
    ] {
        let state = json!([{
            "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": visibility },
        }]);
        let room = alice.create_room(json!({ "preset": "private_chat", "initial_state": state })).await;
        alice.text(&room, "quince before").await;
        alice.invite(&room, &bob).await.ok();
        alice.text(&room, "quince invited").await;
        alice.text(&room, "quince between").await;
        bob.join(&room).await.ok();
        alice.text(&room, "quince joined").await;
        bob.leave(&room).await.ok();
        alice.text(&room, "quince after").await;
        alice.set_state(&room, "m.room.topic", "", json!({ "topic": "quince topic" })).await.ok();
        indexed(&alice).await;
        assert_eq!(finds(&bob, "quince").await, expected, "{visibility}");
        let found = search(&bob, json!({ "search_term": "quince" })).await;
        assert_eq!(found["count"], expected.len(), "what may not be seen is not counted either");
        assert!(found["next_batch"].is_null());
        let context = json!({ "before_limit": 50, "after_limit": 50 });
        let criteria = json!({ "search_term": "quince", "event_context": context, "include_state": true });
        let all = search(&bob, criteria).await.to_string();
        // The world may read what comes later by other ways, if it is open to the world.
        assert!(visibility == "world_readable" || !all.contains("quince after") && !all.contains("quince topic"));
        assert_eq!(finds(&alice, "quince").await.len(), 6);
        // Case 50 of the bad inputs: who was never there finds nothing, by no filter.
        for filter in [json!({}), json!({ "rooms": [room] })] {
            let found = search(&eve, json!({ "search_term": "quince", "filter": filter })).await;
            assert_eq!((texts(&found).len(), &found["count"]), (0, &json!(0)));
        }
        bob.forget(&room).await.ok();
        assert!(finds(&bob, "quince").await.is_empty());
        alice.leave(&room).await.ok();
        alice.forget(&room).await.ok();
    }
}

#[tokio::test]
async fn who_is_thrown_out_finds_only_what_was_before() {
    let (_home, alice, bob, room) = two().await;
    alice.text(&room, "saffron before").await;
    alice.kick(&room, &bob).await.ok();
    alice.text(&room, "saffron between").await;
    indexed(&alice).await;
    assert_eq!(finds(&bob, "saffron").await, ["saffron before"]);
    alice.ban(&room, &bob).await.ok();
    alice.text(&room, "saffron after").await;
    indexed(&alice).await;
    assert_eq!(finds(&bob, "saffron").await, ["saffron before"]);
    alice.unban(&room, &bob).await.ok();
    alice.invite(&room, &bob).await.ok();
    bob.join(&room).await.ok();
    assert_eq!(finds(&bob, "saffron").await, ["saffron after", "saffron before", "saffron between"]);
}

#[tokio::test]
async fn encrypted_rooms_are_not_searched() {
    let (_home, alice, room) = one().await;
    alice.text(&room, "plain parsnip").await;
    indexed(&alice).await;
    assert_eq!(finds(&alice, "parsnip").await, ["plain parsnip"]);
    if strict() {
        let encryption = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
        alice.set_state(&room, "m.room.encryption", "", encryption).await.ok();
        assert!(finds(&alice, "parsnip").await.is_empty());
    }
}

#[tokio::test]
async fn the_old_room_is_searched_on_request() {
    let (_home, alice, room) = one().await;
    alice.text(&room, "olive in the old room").await;
    let upgraded = alice.post(&format!("/rooms/{room}/upgrade"), json!({ "new_version": "11" })).await.ok();
    let new = upgraded["replacement_room"].as_str().expect("a new room").to_owned();
    alice.text(&new, "olive in the new room").await;
    indexed(&alice).await;
    assert_eq!(finds(&alice, "olive").await.len(), 2);
    let both = json!({ "search_term": "olive", "filter": { "rooms": [room, new] } });
    assert_eq!(texts(&search(&alice, both).await).len(), 2);
    let only = json!({ "search_term": "olive", "filter": { "rooms": [new] } });
    assert_eq!(texts(&search(&alice, only).await), ["olive in the new room"]);
}

#[tokio::test]
async fn a_room_of_thousands_of_messages_is_searched() {
    let (_home, alice, bob, room) = two().await;
    let rest = ["plum", "pear", "apple"];
    alice.texts(&room, (0..2000).map(|i| format!("message {i} about a {}", rest[i % 3]))).await;
    indexed(&alice).await;
    let found = search(&bob, json!({ "search_term": "pear", "order_by": "recent" })).await;
    assert_eq!(texts(&found)[0], "message 1999 about a pear");
    let count = found["count"].as_u64().unwrap();
    assert!((400..=667).contains(&count), "{count}");
    assert_eq!(finds(&bob, "1234").await, ["message 1234 about a pear"]);
    // To the end.
    let criteria = json!({ "search_term": "plum", "order_by": "recent", "filter": { "limit": 100 } });
    let (mut all, mut next) = (0, None::<String>);
    loop {
        let page = match &next {
            None => search(&bob, criteria.clone()).await,
            Some(token) => {
                search_from(&bob, token, criteria.clone()).await.ok()["search_categories"]["room_events"].clone()
            }
        };
        all += texts(&page).len();
        next = page["next_batch"].as_str().map(str::to_owned);
        if next.is_none() {
            break;
        }
    }
    assert_eq!(all, 667);
}

#[tokio::test]
async fn the_index_outlives_a_crash_and_is_made_anew_where_it_is_lost() {
    let Some(launch) = own() else { return };
    let mut home = Home::launch(launch).await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let gone = alice.text(&room, "juniper to be redacted").await;
    alice.text(&room, "juniper first").await;
    indexed(&alice).await;
    // What was said and not indexed when the power failed.
    alice.redact(&room, &gone).await.ok();
    alice.text(&room, "juniper second").await;
    home.kill();
    home.restart().await;
    indexed(&alice).await;
    assert_eq!(finds(&bob, "juniper").await, ["juniper first", "juniper second"]);

    // Without an index, and with one that is damaged.
    let index = home.how().data().join("search");
    home.kill();
    std::fs::remove_dir_all(&index).unwrap();
    home.restart().await;
    indexed(&alice).await;
    assert_eq!(finds(&bob, "juniper").await, ["juniper first", "juniper second"]);
    home.kill();
    std::fs::write(index.join("meta.json"), "not an index").unwrap();
    home.restart().await;
    alice.text(&room, "juniper third").await;
    indexed(&alice).await;
    assert_eq!(finds(&bob, "juniper").await, ["juniper first", "juniper second", "juniper third"]);
    let people = bob.post("/user_directory/search", json!({ "search_term": alice.localpart() })).await.ok();
    assert_eq!(people["results"][0]["user_id"], alice.id);

    // At the wish of the administrator, while it runs.
    let done = std::process::Command::new(crate::binary())
        .args(["search", "rebuild", "--data"])
        .arg(home.how().data())
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    indexed(&alice).await;
    for _ in 0..100 {
        if finds(&bob, "juniper").await.len() == 3 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the index is not whole again: {:?}", finds(&bob, "juniper").await);
}

#[tokio::test]
async fn the_search_can_be_switched_off() {
    let Some(launch) = own() else { return };
    let config = launch.folder().join("search.toml");
    std::fs::write(&config, "[search]\nenabled = false\n").unwrap();
    let home = Home::launch(launch.env("STOA_CONFIG", config.to_str().unwrap())).await;
    let alice = home.user("alice").await;
    let body = json!({ "search_categories": { "room_events": { "search_term": "x" } } });
    alice.post("/search", body).await.expect(404, "M_UNRECOGNIZED");
    alice.post("/user_directory/search", json!({ "search_term": "x" })).await.ok();
}
