//! History: paging there and back, what is around an event, and who may see what of it (Client-Server API, "Room History
//! Visibility").

mod common;

use common::{Dice, Home, bodies, ids, list, token};
use serde_json::{Value, json};
use stoa_event::ids::OwnedRoomId;
use stoa_rooms::Action;
use stoa_view::{ContextRequest, Error, MembersRequest, RoomEventFilter, Viewer};

/// All pages from one end, by event id; every page but the last must have an `end`.
async fn walk(
    home: &Home,
    who: &Viewer,
    room: &OwnedRoomId,
    from: Option<String>,
    back: bool,
    step: u64,
) -> Vec<String> {
    let (mut all, mut from) = (Vec::new(), from);
    for _ in 0..2000 {
        let page = home.page(who, room, from.as_deref(), back, step).await;
        let chunk = ids(&page["chunk"]);
        assert!(chunk.len() as u64 <= step);
        all.extend(chunk);
        match page["end"].as_str() {
            Some(end) => from = Some(end.to_owned()),
            None => return all,
        }
    }
    panic!("the pages never end");
}

async fn sees(home: &Home, who: &Viewer, room: &OwnedRoomId) -> Vec<String> {
    match home.view.messages(&request(who, room)).await {
        Ok(page) => {
            let page: Value = serde_json::from_slice(&page.body).unwrap();
            let mut said = bodies(&page["chunk"]);
            said.reverse();
            said
        }
        Err(Error::Forbidden(_)) => vec!["forbidden".into()],
        Err(other) => panic!("{other:?}"),
    }
}

fn request(who: &Viewer, room: &OwnedRoomId) -> stoa_view::MessagesRequest {
    stoa_view::MessagesRequest {
        over_gaps: false,
        viewer: who.clone(),
        room: room.clone(),
        from: None,
        to: None,
        backward: true,
        limit: Some(1000),
        filter: RoomEventFilter::default(),
    }
}

#[tokio::test]
async fn paging_meets_each_event_once_both_ways() {
    let home = Home::open().await;
    let alice = home.user("alice").await;
    let mut dice = Dice::new(3);
    for _ in 0..6 {
        let room = home.room(&alice).await;
        for n in 0..dice.below(60) {
            home.say(&alice, &room, &n.to_string()).await;
        }
        let step = 1 + dice.below(9) as u64;
        let back = walk(&home, &alice, &room, None, true, step).await;
        let mut forth = walk(&home, &alice, &room, None, false, step).await;
        assert_eq!(forth.len(), forth.iter().collect::<std::collections::BTreeSet<_>>().len());
        assert!(forth.len() >= 5);
        forth.reverse();
        assert_eq!(back, forth, "step {step}");
        // From the middle: both directions together are the whole.
        let page = home.page(&alice, &room, None, true, 4).await;
        let middle = page["end"].as_str().map(str::to_owned);
        let older = walk(&home, &alice, &room, middle.clone(), true, step).await;
        let mut newer = walk(&home, &alice, &room, middle, false, step).await;
        newer.reverse();
        assert_eq!([newer, older].concat(), back, "step {step}");
    }
}

#[tokio::test]
async fn a_page_stops_where_it_is_told() {
    let home = Home::open().await;
    let alice = home.user("alice").await;
    let room = home.room(&alice).await;
    let before = home.sync(&alice, None).await;
    for n in 0..5 {
        home.say(&alice, &room, &n.to_string()).await;
    }
    let request = stoa_view::MessagesRequest { to: Some(token(&before)), ..request(&alice, &room) };
    let page: Value = serde_json::from_slice(&home.view.messages(&request).await.unwrap().body).unwrap();
    assert_eq!(bodies(&page["chunk"]), ["4", "3", "2", "1", "0"]);
    assert_eq!(list(&page["chunk"]).len(), 5);
    assert!(page.get("end").is_none());
}

#[tokio::test]
async fn pages_go_on_from_what_is_around_an_event() {
    let home = Home::open().await;
    let alice = home.user("alice").await;
    let room = home.room(&alice).await;
    let mut said = Vec::new();
    for n in 0..9 {
        said.push(home.say(&alice, &room, &n.to_string()).await);
    }
    for (middle, limit) in [(4, 4), (0, 20), (8, 6), (4, 0)] {
        let request = ContextRequest {
            viewer: alice.clone(),
            room: room.clone(),
            limit: Some(limit),
            filter: RoomEventFilter::default(),
        };
        let context: Value =
            serde_json::from_slice(&home.view.context(&request, &said[middle]).await.unwrap()).unwrap();
        assert_eq!(context["event"]["event_id"], said[middle].as_str());
        let mut around = ids(&context["events_before"]);
        around.reverse();
        around.push(said[middle].to_string());
        around.extend(ids(&context["events_after"]));
        assert!(around.len() as u64 <= limit + 1);
        let text = |name: &str| context[name].as_str().map(str::to_owned);
        let mut older = walk(&home, &alice, &room, text("start"), true, 3).await;
        older.reverse();
        let newer = walk(&home, &alice, &room, text("end"), false, 3).await;
        let all = walk(&home, &alice, &room, None, false, 50).await;
        assert_eq!([older, around, newer].concat(), all, "{middle} {limit}");
    }
}

/// What one who was invited, joined, left and came again sees; and one who never was there.
#[tokio::test]
async fn visibility_as_a_table() {
    for (visibility, bob_sees, outsider_sees) in [
        (
            "world_readable",
            vec!["before", "invited", "inside", "left", "again"],
            vec!["before", "invited", "inside", "left", "again"],
        ),
        ("shared", vec!["before", "invited", "inside", "left", "again"], vec!["forbidden"]),
        ("invited", vec!["invited", "inside", "again"], vec!["forbidden"]),
        ("joined", vec!["inside", "again"], vec!["forbidden"]),
    ] {
        let home = Home::open().await;
        let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
        let state = [("m.room.history_visibility", json!({ "history_visibility": visibility }))];
        let room = home.room_with(&alice, &state).await;
        home.say(&alice, &room, "before").await;
        assert!(home.act(Action::Invite, &alice, &bob, &room).await);
        home.say(&alice, &room, "invited").await;
        home.join(&bob, &room).await;
        home.say(&alice, &room, "inside").await;
        home.leave(&bob, &room).await;
        home.say(&alice, &room, "left").await;
        let away = sees(&home, &bob, &room).await;
        let expected: Vec<&str> = match visibility {
            "world_readable" => bob_sees.iter().copied().filter(|it| *it != "again").collect(),
            _ => bob_sees.iter().copied().filter(|it| !["left", "again"].contains(it)).collect(),
        };
        assert_eq!(away, expected, "{visibility}, away");
        home.join(&bob, &room).await;
        home.say(&alice, &room, "again").await;
        assert_eq!(sees(&home, &bob, &room).await, bob_sees, "{visibility}");
        assert_eq!(sees(&home, &carol, &room).await, outsider_sees, "{visibility}, outside");
        // One event alone follows the same rule.
        for (n, name) in [(0, "before"), (3, "left")] {
            let said = walk(&home, &alice, &room, None, false, 100).await;
            let bodies = sees(&home, &alice, &room).await;
            assert_eq!(bodies[n], name);
            for id in said {
                let id: stoa_event::ids::OwnedEventId = id.try_into().unwrap();
                let shown = home.view.event(&bob, &room, &id).await;
                let Ok(json) = home.view.event(&alice, &room, &id).await else { panic!("alice sees all") };
                let json: Value = serde_json::from_slice(&json).unwrap();
                if json["content"]["body"] == name {
                    assert_eq!(shown.is_ok(), bob_sees.contains(&name), "{visibility}: {name}");
                }
            }
        }
    }
}

#[tokio::test]
async fn visibility_is_that_of_the_time() {
    let home = Home::open().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = home.room(&alice).await;
    home.say(&alice, &room, "shared").await;
    home.set(&alice, &room, "m.room.history_visibility", "", json!({ "history_visibility": "joined" })).await;
    home.say(&alice, &room, "joined").await;
    home.set(&alice, &room, "m.room.history_visibility", "", json!({ "history_visibility": "shared" })).await;
    home.say(&alice, &room, "shared again").await;
    home.join(&bob, &room).await;
    assert_eq!(sees(&home, &bob, &room).await, ["shared", "shared again"]);
}

#[tokio::test]
async fn members_are_those_of_the_time() {
    let home = Home::open().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = home.room(&alice).await;
    let before = home.sync(&alice, None).await;
    home.join(&bob, &room).await;
    home.leave(&bob, &room).await;
    home.join(&carol, &room).await;
    let ask = async |who: &Viewer, at: Option<String>| {
        let request = MembersRequest { at, membership: Some(stoa_store::Membership::Join), not_membership: None };
        let answer: Value = serde_json::from_slice(&home.view.members(who, &room, &request).await.unwrap()).unwrap();
        common::keys(&answer["chunk"]).into_iter().map(|(_, key)| key).collect::<Vec<_>>()
    };
    assert_eq!(ask(&alice, None).await, ["@alice:stoa.test", "@carol:stoa.test"]);
    assert_eq!(ask(&alice, Some(token(&before))).await, ["@alice:stoa.test"]);
    // Who left sees those of that time, whatever is asked for.
    assert_eq!(ask(&bob, None).await, ["@alice:stoa.test"]);
    let now = home.sync(&alice, None).await;
    assert_eq!(ask(&bob, Some(token(&now))).await, ["@alice:stoa.test"]);
    assert!(home.view.joined_members(&bob, &room).await.is_err());
    assert!(home.view.state(&home.user("dave").await, &room).await.is_err());
}

#[tokio::test]
async fn who_left_and_is_banned_later_is_told_so_everywhere() {
    let home = Home::open().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = home.room(&alice).await;
    home.join(&bob, &room).await;
    home.say(&bob, &room, "bye").await;
    home.leave(&bob, &room).await;
    let left = home.sync(&alice, None).await;
    home.set(&alice, &room, "m.room.topic", "", json!({ "topic": "secret" })).await;
    assert!(home.act(Action::Ban, &alice, &bob, &room).await);
    home.say(&alice, &room, "he is gone").await;

    let own = |events: &Value| {
        let of_bob = |event: &&Value| event["state_key"] == bob.user.as_str();
        list(events).iter().find(of_bob).expect("the member event of bob").clone()
    };
    let state: Value = serde_json::from_slice(&home.view.state(&bob, &room).await.unwrap()).unwrap();
    assert_eq!(own(&state)["content"]["membership"], "ban");
    assert!(!state.to_string().contains("secret"));
    let page = home.page(&bob, &room, None, true, 100).await;
    assert_eq!(list(&page["chunk"])[0]["content"]["membership"], "ban");
    assert_eq!(list(&page["chunk"])[1]["content"]["membership"], "leave");
    assert_eq!(bodies(&page["chunk"]), ["bye"]);
    assert!(!page.to_string().contains("secret"));
    let id: stoa_event::ids::OwnedEventId = own(&state)["event_id"].as_str().unwrap().try_into().unwrap();
    assert!(home.view.event(&bob, &room, &id).await.is_ok());
    let members = async |at: Option<String>| {
        let request = MembersRequest { at, ..MembersRequest::default() };
        let answer: Value = serde_json::from_slice(&home.view.members(&bob, &room, &request).await.unwrap()).unwrap();
        own(&answer["chunk"])["content"]["membership"].clone()
    };
    assert_eq!(members(None).await, "ban");
    assert_eq!(members(Some(token(&left))).await, "leave");
    assert_eq!(members(Some(token(&home.sync(&alice, None).await))).await, "ban");
    // And no longer when the ban is lifted.
    assert!(home.act(Action::Unban, &alice, &bob, &room).await);
    assert_eq!(members(None).await, "leave");
    assert!(!home.page(&bob, &room, None, true, 100).await.to_string().contains("secret"));
}
