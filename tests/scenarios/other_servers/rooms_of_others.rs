//! Rooms of servers that lie while our users come in, and afterwards (Server-Server API, "Joining Rooms", "Leaving Rooms", "Knocking
//! upon a room", "Retrieving events"). The numbers are those of the cases in docs/testing.md.

use std::sync::Arc;

use stoa_kit::{Garden, Reply, Stranger, User, Value, encode, json};

use super::Meeting;

/// Alice and a room that she could come into.
async fn before_the_gate(meeting: &Meeting) -> (User, Garden) {
    (meeting.home.user("alice").await, Garden::of(&meeting.other))
}

async fn join(alice: &User, garden: &Garden, other: &Stranger) -> Reply {
    let path = format!("/join/{}?via={}", encode(&garden.id), encode(other.name()));
    alice.post(&path, json!({})).await
}

/// A server that does not do what it should: the gateway is bad, not the client.
#[track_caller]
fn is_blamed(reply: Reply, what: &str) {
    assert!([400, 403, 502].contains(&reply.status), "{what}: {reply:?}");
    assert_ne!(reply["errcode"], "M_BAD_JSON", "{what}: it was not the client's: {reply:?}");
    assert!(reply["errcode"].is_string() && reply["error"].is_string(), "{what}: {reply:?}");
}

/// What a hostile server makes of a template.
type Lie = (&'static str, fn(&mut Value));

const LIES: [Lie; 20] = [
    ("type", |it| it["event"]["type"] = json!("m.room.power_levels")),
    ("type", |it| it["event"]["type"] = json!("m.room.server_acl")),
    ("sender", |it| it["event"]["sender"] = json!("@other:elsewhere.example")),
    ("state key", |it| it["event"]["state_key"] = json!("@other:elsewhere.example")),
    ("state key", |it| it["event"]["state_key"] = json!("")),
    ("no state key", |it| drop(it["event"].as_object_mut().map(|event| event.remove("state_key")))),
    ("room", |it| it["event"]["room_id"] = json!("!other:elsewhere.example")),
    ("no room", |it| drop(it["event"].as_object_mut().map(|event| event.remove("room_id")))),
    ("membership", |it| it["event"]["content"]["membership"] = json!("ban")),
    ("membership", |it| it["event"]["content"]["membership"] = json!("invite")),
    ("membership", |it| it["event"]["content"]["membership"] = json!(["join"])),
    ("no content", |it| it["event"]["content"] = json!(null)),
    ("a list", |it| it["event"] = json!([])),
    ("text", |it| it["event"] = json!("m.room.member")),
    ("no event", |it| drop(it.as_object_mut().map(|it| it.remove("event")))),
    ("a version that nobody knows", |it| it["room_version"] = json!("org.example.none")),
    ("a version with another form", |it| it["room_version"] = json!("1")),
    ("no version", |it| drop(it.as_object_mut().map(|it| it.remove("room_version")))),
    ("what it follows", |it| it["event"]["prev_events"] = json!({ "x": 1 })),
    ("what allows it", |it| it["event"]["auth_events"] = json!([7])),
];

#[tokio::test]
async fn d3_07_templates_are_signed_only_for_what_was_asked() {
    let Some(meeting) = Meeting::new().await else { return };
    let other = &meeting.other;
    for (n, (what, lie)) in LIES.into_iter().enumerate() {
        for membership in ["join", "knock", "leave"] {
            let (alice, garden) = before_the_gate(&meeting).await;
            let (room, via) = (encode(&garden.id), encode(other.name()));
            if membership == "leave" {
                invite(&meeting, &garden, &alice).await;
            }
            let liar = garden.clone();
            other.answers(&format!("v1/make_{membership}/{}", garden.id), move |asked| {
                let user = asked.segment(3);
                let event = liar.draft(user, "m.room.member", Some(user), json!({ "membership": membership }));
                let mut template = json!({ "room_version": "11", "event": event });
                lie(&mut template);
                (200, template.to_string())
            });
            let what = format!("{membership}: {what} ({n})");
            match membership {
                "leave" => drop(alice.leave(&garden.id).await.ok()),
                _ => is_blamed(alice.post(&format!("/{membership}/{room}?via={via}"), json!({})).await, &what),
            }
            assert!(!other.heard(&format!("v1/make_{membership}/{}", garden.id)).is_empty(), "{what}");
            for version in ["v1", "v2"] {
                let sent = other.heard(&format!("{version}/send_{membership}/{}", garden.id));
                assert!(sent.is_empty(), "{what}: {sent:?}");
            }
            let sync = alice.sync().await;
            assert!(sync.joined(&garden.id).is_null() && sync.invited(&garden.id).is_null(), "{what}");
        }
    }
}

#[tokio::test]
async fn d3_07_what_a_template_adds_is_not_signed() {
    let Some(meeting) = Meeting::new().await else { return };
    let other = &meeting.other;
    let (alice, garden) = before_the_gate(&meeting).await;
    let liar = garden.clone();
    other.answers(&format!("v1/make_join/{}", garden.id), move |asked| {
        let user = asked.segment(3);
        let content = json!({
            "membership": "join", "displayname": "Mallory", "avatar_url": "mxc://evil.example/x", "org.example": 1,
            "third_party_invite": { "signed": {} }, "join_authorised_via_users_server": "@mallory:evil.example",
        });
        let mut event = liar.draft(user, "m.room.member", Some(user), content);
        event["redacts"] = json!("$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        event["origin"] = json!("evil.example");
        event["origin_server_ts"] = json!(1);
        event["signatures"] = json!({ "evil.example": { "ed25519:x": "x" } });
        event["unsigned"] = json!({ "x": 1 });
        event["org.example.field"] = json!(1);
        (200, json!({ "room_version": "11", "event": event }).to_string())
    });
    // Whether it is let in then does not matter here.
    let _ = join(&alice, &garden, other).await;
    let sent = other.heard("v2/send_join").pop().expect("it was sent").body;
    let mut names: Vec<&String> = sent["content"].as_object().expect("content").keys().collect();
    names.retain(|name| *name != "join_authorised_via_users_server");
    assert_eq!(names, ["displayname", "membership"], "{sent}");
    assert_eq!(sent["content"]["displayname"], alice.localpart());
    for field in ["redacts", "unsigned", "org.example.field"] {
        assert!(sent.get(field).is_none(), "{field}: {sent}");
    }
    assert_eq!(sent["signatures"].as_object().map(serde_json::Map::len), Some(1), "{sent}");
    assert!(sent["origin_server_ts"].as_u64().is_some_and(|ts| ts > 1_700_000_000_000), "{sent}");
}

/// An invite of the gardener for Alice.
async fn invite(meeting: &Meeting, garden: &Garden, alice: &User) {
    let other = &meeting.other;
    let content = json!({ "membership": "invite" });
    let (id, event) = other.event(garden.draft(&garden.gardener, "m.room.member", Some(&alice.id), content));
    let path = format!("/_matrix/federation/v2/invite/{}/{}", encode(&garden.id), encode(&id));
    let body = json!({ "room_version": "11", "event": event, "invite_room_state": [] });
    other.put(&meeting.home, &path, &body).await.ok();
    garden.take(&id, &event);
    alice.sync_until(None, |sync| !sync.invited(&garden.id).is_null()).await;
}

#[tokio::test]
async fn a_garden_is_a_room_like_any_other() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, garden) = before_the_gate(&meeting).await;
    garden.state(other, "m.room.topic", "", json!({ "topic": "roses" }));
    garden.say(other, "before you came");
    join(&alice, &garden, other).await.ok();
    assert_eq!(alice.state(&garden.id, "m.room.topic", "").await.ok()["topic"], "roses");
    let (id, event) = garden.say(other, "welcome");
    other.send(home, &[&event]).await.ok();
    alice.sync_until(None, |sync| sync.has(&garden.id, &id)).await;
    alice.text(&garden.id, "thank you").await;
    other.hears_of("thank you").await;
    let history = alice.whole_history(&garden.id).await;
    assert!(history.iter().any(|event| event["content"]["body"] == "before you came"), "{history:?}");
}

#[tokio::test]
async fn d3_31_what_is_malformed_in_the_answer_to_a_join_is_left_out() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, garden) = before_the_gate(&meeting).await;
    garden.state(other, "m.room.topic", "", json!({ "topic": "roses" }));
    // Signed by nobody, by another, of another room, with a lie about its content, and no events at all.
    let honest = |key: &str| garden.draft(&garden.gardener, "org.example.shelf", Some(key), json!({ "is": key }));
    let third = meeting.another(2).await;
    let mut unsigned = other.event(honest("unsigned")).1;
    unsigned["signatures"] = json!({});
    let foreign = third.event(honest("foreign")).1;
    let mut elsewhere = honest("elsewhere");
    elsewhere["room_id"] = json!("!elsewhere:example.org");
    let mut changed = other.event(honest("changed")).1;
    changed["content"]["is"] = json!("something else");
    let mut unheard = honest("unheard");
    unheard["auth_events"] = json!(["$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]);
    let odd =
        [json!(7), json!(null), json!([]), json!({}), json!({ "type": "m.room.topic" }), json!({ "content": 1.5e300 })];
    let bad = [unsigned, foreign, other.event(elsewhere).1, changed, other.event(unheard).1];
    let bad: Vec<Value> = bad.into_iter().chain(odd).collect();
    let liar = garden.clone();
    other.answers(&format!("v2/send_join/{}", garden.id), move |asked| {
        let mut told: Value = serde_json::from_str(&liar.tell_join(asked).1).expect("what is honest");
        for list in ["state", "auth_chain"] {
            let list = told[list].as_array_mut().expect("a list");
            for (n, event) in bad.iter().enumerate() {
                list.insert((n * 2).min(list.len()), event.clone());
            }
        }
        (200, told.to_string())
    });
    join(&alice, &garden, other).await.ok();
    assert_eq!(alice.state(&garden.id, "m.room.topic", "").await.ok()["topic"], "roses");
    let state = alice.all_state(&garden.id).await;
    let shelves: Vec<&Value> = state.iter().filter(|event| event["type"] == "org.example.shelf").collect();
    // What was changed on the way counts as redacted; nothing of it is shown.
    assert!(shelves.iter().all(|event| event["content"] == json!({})), "{shelves:?}");
    alice.text(&garden.id, "here I am").await;
    other.hears_of("here I am").await;
    let (id, event) = garden.say(other, "welcome");
    other.send(home, &[&event]).await.ok();
    alice.sync_until(None, |sync| sync.has(&garden.id, &id)).await;
}

/// What a hostile server makes of the answer to a join.
type Answer = (&'static str, fn(&mut Value, &Garden));

const ANSWERS: [Answer; 9] = [
    ("no state", |told, _| told["state"] = json!([])),
    ("nothing", |told, _| *told = json!({})),
    ("a list", |told, _| *told = json!([])),
    ("no create event", |told, _| {
        for list in ["state", "auth_chain"] {
            told[list].as_array_mut().expect("a list").retain(|event| event["type"] != "m.room.create");
        }
    }),
    ("no power levels and no join rules", |told, _| {
        for list in ["state", "auth_chain"] {
            let list = told[list].as_array_mut().expect("a list");
            list.retain(|event| ["m.room.create", "m.room.member"].iter().any(|kind| event["type"] == *kind));
        }
    }),
    ("state that is text", |told, _| told["state"] = json!("all of it")),
    ("an auth chain of nothing", |told, _| told["auth_chain"] = json!([])),
    ("only who made it", |told, garden| {
        for list in ["state", "auth_chain"] {
            let list = told[list].as_array_mut().expect("a list");
            list.retain(|event| event["state_key"] == garden.gardener.as_str());
        }
    }),
    ("a state of another room", |told, _| {
        for event in told["state"].as_array_mut().into_iter().flatten() {
            event["room_id"] = json!("!elsewhere:example.org");
        }
        told["auth_chain"] = json!([]);
    }),
];

#[tokio::test]
async fn a_state_that_makes_no_room_lets_nobody_in() {
    let Some(meeting) = Meeting::new().await else { return };
    let other = &meeting.other;
    for (what, lie) in ANSWERS {
        let (alice, garden) = before_the_gate(&meeting).await;
        let liar = garden.clone();
        other.answers(&format!("v2/send_join/{}", garden.id), move |asked| {
            let mut told: Value = serde_json::from_str(&liar.tell_join(asked).1).expect("what is honest");
            lie(&mut told, &liar);
            (200, told.to_string())
        });
        let reply = join(&alice, &garden, other).await;
        if what == "an auth chain of nothing" && reply.status == 200 {
            // The state has all of it.
            continue;
        }
        is_blamed(reply, what);
        assert!(alice.sync().await.joined(&garden.id).is_null(), "{what}");
        // Honest now, and it works.
        let honest = garden.clone();
        other.answers(&format!("v2/send_join/{}", garden.id), move |asked| honest.tell_join(asked));
        join(&alice, &garden, other).await.ok();
        alice.text(&garden.id, "now").await;
    }
}

#[tokio::test]
async fn d3_10_events_that_are_asked_for_are_signed_like_any_other() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, garden) = before_the_gate(&meeting).await;
    let said: Vec<Value> = (0..6).map(|n| garden.say(other, &format!("before {n}")).1).collect();
    join(&alice, &garden, other).await.ok();
    // Backfill: one is signed by nobody, one by another server, one is changed.
    let third = meeting.another(2).await;
    let mut told = said.clone();
    told[1]["signatures"] = json!({});
    told[3] = third.event(told[3].clone()).1;
    told[4]["content"]["body"] = json!("a lie");
    told.reverse();
    other.answers_with("v1/backfill", 200, json!({ "origin": "", "origin_server_ts": 0, "pdus": told }));
    let history = alice.whole_history(&garden.id).await;
    let seen: Vec<&str> = history.iter().filter_map(|event| event["content"]["body"].as_str()).collect();
    assert!(!other.heard("v1/backfill").is_empty());
    for text in ["before 1", "before 3", "before 4", "a lie"] {
        assert!(!seen.contains(&text), "{text}: {seen:?}");
    }
    assert!(seen.contains(&"before 5"), "{seen:?}");
    // Missing events: the same.
    let (lost, mut between) = garden.say(other, "between");
    let (last, event) = garden.say(other, "the last");
    between["signatures"] = json!({ other.name(): { "ed25519:stranger": "AAAA" } });
    let between = Arc::new(between);
    other.answers_with("v1/get_missing_events", 200, json!({ "events": [*between] }));
    other.answers_with("v1/event/", 200, json!({ "pdus": [*between] }));
    other.send(home, &[&event]).await.ok();
    assert!(!other.heard("v1/get_missing_events").is_empty());
    alice.event(&garden.id, &lost).await.expect(404, "M_NOT_FOUND");
    assert!(!alice.get("/sync").await.ok().to_string().contains("between"));
    // When it is told as it was signed, all is well.
    let honest = garden.event(&lost).expect("it is there");
    other.answers_with("v1/get_missing_events", 200, json!({ "events": [honest] }));
    let (after, event) = garden.say(other, "after all");
    let known = garden.event(&last).expect("it is there");
    other.send(home, &[&honest, &known, &event]).await.ok();
    alice.sync_until(None, |sync| sync.has(&garden.id, &after)).await;
}
