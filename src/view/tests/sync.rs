//! `/sync` by its rules (Client-Server API, "Syncing"), one room at a time.

mod common;

use common::{Home, bodies, ids, keys, list, token};
use serde_json::{Value, json};
use stoa_rooms::Action;

fn joined<'a>(sync: &'a Value, room: &str) -> &'a Value {
    &sync["rooms"]["join"][room]
}

fn members(events: &Value) -> Vec<String> {
    keys(events).into_iter().filter(|(kind, _)| kind == "m.room.member").map(|(_, key)| key).collect()
}

#[tokio::test]
async fn the_first_answer_has_state_before_the_timeline() {
    let home = Home::open().await;
    let alice = home.user("alice").await;
    let room = home.room(&alice).await;
    home.set(&alice, &room, "m.room.topic", "", json!({ "topic": "one" })).await;
    for n in 0..12 {
        home.say(&alice, &room, &n.to_string()).await;
    }
    let sync = home.sync(&alice, None).await;
    let it = joined(&sync, room.as_str());
    assert_eq!(bodies(&it["timeline"]["events"]), (2..12).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(it["timeline"]["limited"], true);
    assert!(keys(&it["state"]["events"]).contains(&("m.room.topic".into(), String::new())));
    assert_eq!(members(&it["state"]["events"]), ["@alice:stoa.test"]);
    assert_eq!(it["summary"]["m.joined_member_count"], 1);
    assert_eq!(it["state"]["events"][0]["unsigned"]["age"].as_u64().map(|age| age < 60_000), Some(true));
}

#[tokio::test]
async fn afterwards_only_what_is_new_is_told() {
    let home = Home::open().await;
    let alice = home.user("alice").await;
    let room = home.room(&alice).await;
    let quiet = home.room(&alice).await;
    let first = home.sync(&alice, None).await;
    let nothing = home.sync(&alice, Some(&token(&first))).await;
    assert!(nothing.get("rooms").is_none(), "{nothing}");
    assert_eq!(token(&nothing), token(&first));

    home.say(&alice, &room, "news").await;
    let sync = home.sync(&alice, Some(&token(&first))).await;
    let it = joined(&sync, room.as_str());
    assert_eq!(bodies(&it["timeline"]["events"]), ["news"]);
    assert_eq!(it["timeline"]["limited"], false);
    assert_eq!(it["state"]["events"], json!([]));
    assert!(it.get("summary").is_none());
    assert!(sync["rooms"]["join"].get(quiet.as_str()).is_none());
    // The device that sent it gets its transaction id back, another one of the user does not.
    let event = &it["timeline"]["events"][0];
    assert!(event["unsigned"]["transaction_id"].is_string());
    let other = stoa_view::Viewer { device: "another".into(), ..alice.clone() };
    let sync = home.sync(&other, Some(&token(&first))).await;
    let event = &joined(&sync, room.as_str())["timeline"]["events"][0];
    assert!(event["unsigned"].get("transaction_id").is_none());
    assert!(event.get("room_id").is_none());
}

#[tokio::test]
async fn a_gap_tells_the_state_that_changed_in_it() {
    let home = Home::open().await;
    let alice = home.user("alice").await;
    let room = home.room(&alice).await;
    let first = home.sync(&alice, None).await;
    home.set(&alice, &room, "m.room.topic", "", json!({ "topic": "in the gap" })).await;
    home.say(&alice, &room, "one").await;
    home.set(&alice, &room, "m.room.name", "", json!({ "name": "in the timeline" })).await;
    home.say(&alice, &room, "two").await;
    let filter = json!({ "room": { "timeline": { "limit": 2 } } });
    let sync = home.sync_with(&alice, Some(&token(&first)), filter.clone()).await;
    let it = joined(&sync, room.as_str());
    assert_eq!(it["timeline"]["limited"], true);
    assert_eq!(list(&it["timeline"]["events"]).len(), 2);
    assert_eq!(keys(&it["state"]["events"]), [("m.room.topic".into(), String::new())]);
    // Paging back from there brings the rest of the gap, newest first.
    let back = home.page(&alice, &room, it["timeline"]["prev_batch"].as_str(), true, 2).await;
    assert_eq!(bodies(&back["chunk"]), ["one"]);
    assert_eq!(back["chunk"][1]["type"], "m.room.topic");

    let mut request = home.request(&alice, Some(&token(&first)), filter);
    request.state_after = Some("state_after");
    let sync = home.answer(request).await;
    let it = joined(&sync, room.as_str());
    assert!(it.get("state").is_none());
    let after = [("m.room.name".into(), String::new()), ("m.room.topic".into(), String::new())];
    assert_eq!(keys(&it["state_after"]["events"]), after);
}

#[tokio::test]
async fn a_timeline_of_nothing_still_says_that_there_is_more() {
    let home = Home::open().await;
    let alice = home.user("alice").await;
    let room = home.room(&alice).await;
    let first = home.sync(&alice, None).await;
    home.set(&alice, &room, "m.room.topic", "", json!({ "topic": "x" })).await;
    home.say(&alice, &room, "one").await;
    let filter = json!({ "room": { "timeline": { "limit": 0 } } });
    let sync = home.sync_with(&alice, Some(&token(&first)), filter).await;
    let it = joined(&sync, room.as_str());
    assert_eq!((&it["timeline"]["events"], &it["timeline"]["limited"]), (&json!([]), &json!(true)));
    assert_eq!(keys(&it["state"]["events"]), [("m.room.topic".into(), String::new())]);
    let back = home.page(&alice, &room, it["timeline"]["prev_batch"].as_str(), true, 1).await;
    assert_eq!(bodies(&back["chunk"]), ["one"]);
}

#[tokio::test]
async fn what_the_filter_hides_between_is_told_as_state() {
    let home = Home::open().await;
    let alice = home.user("alice").await;
    let room = home.room(&alice).await;
    let first = home.sync(&alice, None).await;
    home.say(&alice, &room, "one").await;
    home.set(&alice, &room, "m.room.topic", "", json!({ "topic": "x" })).await;
    home.say(&alice, &room, "two").await;
    let filter = json!({ "room": { "timeline": { "types": ["m.room.message"] } } });
    let sync = home.sync_with(&alice, Some(&token(&first)), filter).await;
    let it = joined(&sync, room.as_str());
    assert_eq!(bodies(&it["timeline"]["events"]), ["one", "two"]);
    assert_eq!(keys(&it["state"]["events"]), [("m.room.topic".into(), String::new())]);
}

#[tokio::test]
async fn many_hidden_events_end_the_search_but_not_silently() {
    let home = Home::open().await;
    let alice = home.user("alice").await;
    let room = home.room(&alice).await;
    let first = home.sync(&alice, None).await;
    home.say(&alice, &room, "far away").await;
    for n in 0..130 {
        home.try_send(&alice, &room, "org.example.noise", None, json!({ "n": n })).await.unwrap();
    }
    let filter = json!({ "room": { "timeline": { "limit": 1, "types": ["m.room.message"] } } });
    let sync = home.sync_with(&alice, Some(&token(&first)), filter).await;
    let it = joined(&sync, room.as_str());
    assert_eq!((&it["timeline"]["events"], &it["timeline"]["limited"]), (&json!([]), &json!(true)));
}

#[tokio::test]
async fn who_joins_gets_the_whole_state() {
    let home = Home::open().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = home.room(&alice).await;
    home.set(&alice, &room, "m.room.topic", "", json!({ "topic": "old" })).await;
    let before = home.sync(&bob, None).await;
    home.join(&bob, &room).await;
    for n in 0..11 {
        home.say(&alice, &room, &n.to_string()).await;
    }
    let sync = home.sync(&bob, Some(&token(&before))).await;
    let it = joined(&sync, room.as_str());
    assert!(keys(&it["state"]["events"]).contains(&("m.room.topic".into(), String::new())));
    assert_eq!(members(&it["state"]["events"]), ["@alice:stoa.test", "@bob:stoa.test"]);
    assert_eq!(it["summary"]["m.joined_member_count"], 2);
    assert_eq!(it["summary"]["m.heroes"], json!(["@alice:stoa.test"]));
}

#[tokio::test]
async fn invites_come_with_stripped_state_and_go_when_refused() {
    let home = Home::open().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = home.room(&alice).await;
    home.set(&alice, &room, "m.room.name", "", json!({ "name": "the porch" })).await;
    let before = home.sync(&bob, None).await;
    assert!(home.act(Action::Invite, &alice, &bob, &room).await);
    let invited = home.sync(&bob, Some(&token(&before))).await;
    let events = &invited["rooms"]["invite"][room.as_str()]["invite_state"]["events"];
    assert!(list(events).iter().any(|event| event["content"]["name"] == "the porch"), "{events}");
    assert!(list(events).iter().all(|event| event.get("event_id").is_none()));
    let again = home.sync(&bob, Some(&token(&invited))).await;
    assert!(again.get("rooms").is_none());

    home.say(&alice, &room, "nothing for bob").await;
    home.leave(&bob, &room).await;
    let refused = home.sync(&bob, Some(&token(&invited))).await;
    let it = &refused["rooms"]["leave"][room.as_str()];
    assert_eq!(list(&it["timeline"]["events"]).len(), 1);
    assert_eq!(it["timeline"]["events"][0]["content"]["membership"], "leave");
    assert_eq!(it["state"]["events"], json!([]));
}

#[tokio::test]
async fn who_leaves_is_told_up_to_there_and_once() {
    let home = Home::open().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = home.room(&alice).await;
    home.join(&bob, &room).await;
    let before = home.sync(&bob, None).await;
    home.say(&alice, &room, "stay").await;
    assert!(home.act(Action::Kick, &alice, &bob, &room).await);
    home.set(&alice, &room, "m.room.topic", "", json!({ "topic": "secret" })).await;
    home.say(&alice, &room, "he is gone").await;
    let sync = home.sync(&bob, Some(&token(&before))).await;
    let it = &sync["rooms"]["leave"][room.as_str()];
    assert_eq!(bodies(&it["timeline"]["events"]), ["stay"]);
    assert_eq!(list(&it["timeline"]["events"])[1]["content"]["membership"], "leave");
    assert!(!it.to_string().contains("secret"));
    assert!(home.sync(&bob, Some(&token(&sync))).await.get("rooms").is_none());
    // Who begins anew hears of it on request only.
    assert!(home.sync(&bob, None).await.get("rooms").is_none());
    let with_left = home.sync_with(&bob, None, json!({ "room": { "include_leave": true } })).await;
    let it = &with_left["rooms"]["leave"][room.as_str()];
    assert!(!it.to_string().contains("secret"));
    assert!(!list(&it["timeline"]["events"]).is_empty());
}

#[tokio::test]
async fn full_state_does_not_lose_a_room_that_was_just_left() {
    let home = Home::open().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let (room, stays) = (home.room(&alice).await, home.room(&alice).await);
    home.join(&bob, &room).await;
    home.join(&bob, &stays).await;
    let before = home.sync(&bob, None).await;
    home.leave(&bob, &room).await;
    let mut request = home.request(&bob, Some(&token(&before)), json!({}));
    request.full_state = true;
    let sync = home.answer(request).await;
    assert!(sync["rooms"]["leave"].get(room.as_str()).is_some());
    let it = joined(&sync, stays.as_str());
    assert_eq!(it["timeline"]["events"], json!([]));
    assert_eq!(members(&it["state"]["events"]), ["@alice:stoa.test", "@bob:stoa.test"]);
}

#[tokio::test]
async fn a_ban_after_leaving_tells_nothing_of_the_time_between() {
    let home = Home::open().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = home.room(&alice).await;
    home.join(&bob, &room).await;
    let start = home.sync(&bob, None).await;
    home.leave(&bob, &room).await;
    let left = home.sync(&bob, Some(&token(&start))).await;
    home.set(&alice, &room, "m.room.topic", "", json!({ "topic": "secret" })).await;
    assert!(home.act(Action::Ban, &alice, &bob, &room).await);
    for (since, state_after) in [(&start, false), (&start, true), (&left, false), (&left, true)] {
        let mut request = home.request(&bob, Some(&token(since)), json!({}));
        request.state_after = state_after.then_some("state_after");
        let sync = home.answer(request).await;
        let it = &sync["rooms"]["leave"][room.as_str()];
        assert!(!it.to_string().contains("secret"), "{it}");
        let last = list(&it["timeline"]["events"]).last().unwrap();
        assert_eq!(last["content"]["membership"], "ban");
        if state_after {
            let own = list(&it["state_after"]["events"]).iter().find(|event| event["state_key"] == bob.user.as_str());
            assert_eq!(own.unwrap()["content"]["membership"], "ban");
        }
    }
}

#[tokio::test]
async fn lazy_members_are_those_who_speak_and_each_once() {
    let home = Home::open().await;
    let alice = home.user("alice").await;
    let room = home.room_with(&alice, &[("m.room.name", json!({ "name": "named" }))]).await;
    let mut others = Vec::new();
    for n in 0..5 {
        let user = home.user(&format!("u{n}")).await;
        home.join(&user, &room).await;
        others.push(user);
    }
    for n in 0..3 {
        home.say(&others[0], &room, &n.to_string()).await;
    }
    let filter = json!({ "room": { "timeline": { "limit": 2 }, "state": { "lazy_load_members": true } } });
    let first = home.sync_with(&alice, None, filter.clone()).await;
    assert_eq!(members(&joined(&first, room.as_str())["state"]["events"]), ["@alice:stoa.test", "@u0:stoa.test"]);

    home.say(&others[0], &room, "again").await;
    home.say(&others[1], &room, "me too").await;
    let second = home.sync_with(&alice, Some(&token(&first)), filter.clone()).await;
    assert_eq!(members(&joined(&second, room.as_str())["state"]["events"]), ["@u1:stoa.test"]);
    // The answer was lost on its way: the same question brings the same members.
    let lost = home.sync_with(&alice, Some(&token(&first)), filter.clone()).await;
    let told = members(&joined(&lost, room.as_str())["state"]["events"]);
    assert!(told.contains(&"@u1:stoa.test".to_owned()));

    home.say(&others[1], &room, "and again").await;
    let third = home.sync_with(&alice, Some(&token(&lost)), filter.clone()).await;
    assert_eq!(members(&joined(&third, room.as_str())["state"]["events"]), Vec::<String>::new());
    let redundant = json!({ "room": { "state": { "lazy_load_members": true, "include_redundant_members": true } } });
    let fourth = home.sync_with(&alice, Some(&token(&lost)), redundant).await;
    assert_eq!(members(&joined(&fourth, room.as_str())["state"]["events"]), ["@u1:stoa.test"]);
}

#[tokio::test]
async fn lazy_clients_learn_of_members_who_change_in_a_gap() {
    let home = Home::open().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = home.room(&alice).await;
    home.join(&bob, &room).await;
    let filter = json!({ "room": { "timeline": { "limit": 1 }, "state": { "lazy_load_members": true } } });
    let first = home.sync_with(&alice, None, filter.clone()).await;
    home.leave(&bob, &room).await;
    home.say(&alice, &room, "one").await;
    home.say(&alice, &room, "two").await;
    let sync = home.sync_with(&alice, Some(&token(&first)), filter).await;
    let it = joined(&sync, room.as_str());
    assert_eq!(members(&it["state"]["events"]), ["@bob:stoa.test"]);
    assert_eq!(it["summary"]["m.joined_member_count"], 1);
}

#[tokio::test]
async fn tokens_survive_a_restart() {
    let home = Home::open().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = home.room(&alice).await;
    home.join(&bob, &room).await;
    let before = home.sync(&alice, None).await;
    let at = joined(&before, room.as_str())["timeline"]["prev_batch"].as_str().unwrap().to_owned();
    home.say(&bob, &room, "one").await;
    let home = home.reopened().await;
    home.say(&bob, &room, "two").await;
    let sync = home.sync(&alice, Some(&token(&before))).await;
    assert_eq!(bodies(&joined(&sync, room.as_str())["timeline"]["events"]), ["one", "two"]);
    let forward = home.page(&alice, &room, Some(&token(&before)), false, 10).await;
    assert_eq!(bodies(&forward["chunk"]), ["one", "two"]);
    assert_eq!(list(&home.page(&alice, &room, Some(&at), true, 10).await["chunk"]).len(), 0);
}

#[tokio::test]
async fn who_waits_is_woken_by_what_concerns_them() {
    let home = Home::open().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let (room, other) = (home.room(&alice).await, home.room(&bob).await);
    let first = home.sync(&alice, None).await;
    let mut request = home.request(&alice, Some(&token(&first)), json!({}));
    request.timeout_ms = 60_000;
    let (answer, ()) = tokio::join!(home.answer(request), async {
        while home.view.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        home.say(&bob, &other, "not for alice").await;
        tokio::task::yield_now().await;
        assert_eq!(home.view.waiting(), 1);
        home.say(&alice, &room, "from another device").await;
    });
    assert_eq!(bodies(&joined(&answer, room.as_str())["timeline"]["events"]), ["from another device"]);
    assert_eq!(home.view.waiting(), 0);
    // An invite wakes, too: by then the user is in no list of the room.
    let mut request = home.request(&bob, Some(&token(&home.sync(&bob, None).await)), json!({}));
    request.timeout_ms = 60_000;
    let (answer, invited) = tokio::join!(home.answer(request), home.act(Action::Invite, &alice, &bob, &room));
    assert!(invited && answer["rooms"]["invite"].get(room.as_str()).is_some());
}

#[tokio::test]
async fn typing_and_receipts_are_told_once() {
    let home = Home::open().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = home.room(&alice).await;
    home.join(&bob, &room).await;
    let event = home.say(&alice, &room, "hello").await;
    let before = home.sync(&alice, None).await;
    home.rooms.typing(&room, &bob.user, Some(5000)).await.unwrap();
    home.read(&bob, &room, &event, None).await;
    let sync = home.sync(&alice, Some(&token(&before))).await;
    let events = &joined(&sync, room.as_str())["ephemeral"]["events"];
    let find = |kind: &str| list(events).iter().find(|event| event["type"] == kind).unwrap()["content"].clone();
    assert_eq!(find("m.typing")["user_ids"], json!([bob.user]));
    assert_eq!(find("m.receipt")[event.as_str()]["m.read"][bob.user.as_str()]["ts"], home.now());
    assert!(home.sync(&alice, Some(&token(&sync))).await.get("rooms").is_none());
    home.wait(6000);
    home.store.bus().expire(home.now());
    let ended = home.sync(&alice, Some(&token(&sync))).await;
    let events = &joined(&ended, room.as_str())["ephemeral"]["events"];
    assert_eq!(events, &json!([{ "type": "m.typing", "content": { "user_ids": [] } }]));
}

#[tokio::test]
async fn a_redacted_event_shows_what_redacted_it() {
    let home = Home::open().await;
    let alice = home.user("alice").await;
    let room = home.room(&alice).await;
    let first = home.sync(&alice, None).await;
    let event = home.say(&alice, &room, "oops").await;
    home.redact(&alice, &room, &event).await;
    let sync = home.sync(&alice, Some(&token(&first))).await;
    let events = &joined(&sync, room.as_str())["timeline"]["events"];
    assert_eq!(ids(events).len(), 2);
    assert_eq!(events[0]["content"], json!({}));
    assert_eq!(events[0]["unsigned"]["redacted_because"]["type"], "m.room.redaction");
    assert_eq!(events[0]["unsigned"]["redacted_because"]["event_id"], events[1]["event_id"]);
    assert_eq!(events[1]["redacts"], event.as_str());
}

#[tokio::test]
async fn who_is_in_a_room_that_becomes_encrypted_is_told_to_the_others() {
    let home = Home::open().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = home.room(&alice).await;
    home.join(&bob, &room).await;
    home.join(&carol, &room).await;
    home.leave(&carol, &room).await;
    let start = home.sync(&bob, None).await;
    home.say(&alice, &room, "in the open").await;
    let open = home.sync(&bob, Some(&token(&start))).await;
    assert!(open.get("device_lists").is_none());
    let encryption = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
    home.set(&alice, &room, "m.room.encryption", "", encryption).await;
    let sync = home.sync(&bob, Some(&token(&open))).await;
    let changed = &sync["device_lists"]["changed"];
    assert!(list(changed).contains(&json!(alice.user)), "{changed}");
    assert!(!list(changed).contains(&json!(carol.user)), "{changed}");
    let answer = home.view.key_changes(&bob, &token(&open), &token(&sync)).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(&answer["changed"], changed);
    // Once is enough; who comes later is told as before.
    home.say(&alice, &room, "secret").await;
    let after = home.sync(&bob, Some(&token(&sync))).await;
    assert!(after.get("device_lists").is_none());
    home.join(&carol, &room).await;
    let came = home.sync(&bob, Some(&token(&after))).await;
    assert_eq!(came["device_lists"]["changed"], json!([carol.user]));
}

#[tokio::test]
async fn account_data_of_rooms_heeds_the_rooms_of_its_filter() {
    let home = Home::open().await;
    let alice = home.user("alice").await;
    let (one, two) = (home.room(&alice).await, home.room(&alice).await);
    let tag = async |room: &stoa_event::ids::OwnedRoomId| {
        let snapshot = home.store.snapshot().await.unwrap();
        let no = home.store.names().room(&snapshot, room.as_str()).await.unwrap();
        let mut tx = stoa_store::Tx::new();
        let slot = tx.slot();
        let json = bytes::Bytes::from_static(b"{\"tags\":{}}");
        stoa_store::rows::account_data::put(&mut tx, slot, alice.user_no, no, "m.tag", &json, None);
        home.store.commit(tx).await.unwrap();
    };
    let start = home.sync(&alice, None).await;
    tag(&one).await;
    tag(&two).await;
    let told = |sync: &Value| {
        let rooms = [&one, &two].into_iter();
        let has = |room: &&stoa_event::ids::OwnedRoomId| {
            !list(&joined(sync, room.as_str())["account_data"]["events"]).is_empty()
        };
        rooms.filter(has).map(ToString::to_string).collect::<Vec<_>>()
    };
    for filter in [json!({ "rooms": [one] }), json!({ "not_rooms": [two] })] {
        let filter = json!({ "room": { "account_data": filter } });
        let sync = home.sync_with(&alice, Some(&token(&start)), filter.clone()).await;
        assert_eq!(told(&sync), [one.as_str()]);
        // Nothing else is new in the other room, so it is not told at all.
        assert!(joined(&sync, two.as_str()).is_null());
        assert_eq!(told(&home.sync_with(&alice, None, filter).await), [one.as_str()]);
    }
    assert_eq!(told(&home.sync(&alice, Some(&token(&start))).await).len(), 2);
}
