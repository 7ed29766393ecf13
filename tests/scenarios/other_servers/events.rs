//! Events that are made to hurt (Server-Server API, "Checks performed on receipt of a PDU"). The numbers are those of the cases
//! in docs/testing.md.

use std::time::Duration;

use stoa_kit::{Stranger, Value, encode, json};
use tokio::time::Instant;

use super::{Inside, Meeting, bodies, current, path};

fn version(version: &str) -> Value {
    json!({ "preset": "public_chat", "room_version": version })
}

/// Bob makes himself an administrator, which he may not.
fn grab(inside: &Inside, other: &Stranger) -> (String, Value) {
    let levels = json!({ "users": { &inside.bob: 100 } });
    other.event(inside.state("m.room.power_levels", "", &inside.join, inside.depth + 1, levels))
}

#[tokio::test]
async fn d3_01_events_that_cannot_be_written_again_stop_nobody() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    for room_version in ["5", "11", "12"] {
        let inside = meeting.inside_of(version(room_version)).await;
        let Inside { alice, room, join, depth, .. } = &inside;
        let third = meeting.another(2).await;
        third.join(home, room, &third.user("carol")).await;
        let changes: [(&str, Value); 9] = [
            ("depth", json!("7")),
            ("depth", json!(1.5)),
            ("depth", json!(-1)),
            ("depth", json!(1e300)),
            ("origin_server_ts", json!(1e19)),
            ("content", json!({ "body": 1e200, "x": [0.1, -0.0, u64::MAX] })),
            ("prev_events", json!([[join, {}]])),
            ("auth_events", json!({})),
            ("unsigned", json!({ "age": [1e300] })),
        ];
        let bad: Vec<Value> = changes
            .into_iter()
            .map(|(field, value)| {
                let mut event = inside.message(other, join, depth + 1, "odd").1;
                event[field] = value;
                other.event(event).1
            })
            .collect();
        let answer = other.send(home, &bad.iter().collect::<Vec<_>>()).await.ok();
        assert!(answer["pdus"].is_object(), "{answer}");
        // Everybody still hears of everything, and what is asked for is JSON.
        let said = alice.text(room, "still here").await;
        for server in [other, &third] {
            let heard = server.hears_of("still here").await;
            assert_eq!(heard["content"]["body"], "still here");
            let back = format!("{}?limit=50&v={}", path("backfill", &[room]), encode(&said));
            assert!(server.get(home, &back).await.ok()["pdus"].is_array());
        }
        alice.sync_until(None, |sync| sync.has(room, &said)).await;
        alice.whole_history(room).await;
    }
}

#[tokio::test]
async fn d3_03_what_is_no_json_is_refused() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let inside = meeting.inside_of(version("11")).await;
    let Inside { alice, room, join, depth, .. } = &inside;
    let event = inside.message(other, join, depth + 1, "odd").1.to_string();
    let odd = [
        event.replace("\"odd\"", "NaN"),
        event.replace("\"odd\"", "Infinity"),
        event.replace("\"odd\"", "1e400"),
        event.replace("\"odd\"", "1.5"),
        event.replace("\"odd\"", "9007199254740993"),
        event.replace("\"odd\"", "\"odd\",\"body\":\"twice\""),
        event.replace("\"odd\"", "\"\\ud800\""),
        event.replace("\"odd\"", "\"\u{1}\""),
    ];
    for text in odd {
        let body = format!("{{\"pdus\":[{text}]}}");
        let reply = other.put_text(home, &path("send", &[&stoa_kit::unique()]), &body).await;
        // The request as a whole is no JSON that could be signed, or the event alone is refused.
        match reply.status {
            200 => assert!(!reply.json["pdus"].to_string().contains(":{}"), "{text}: {reply:?}"),
            _ => drop(reply.expect_any(&[400, 401], &["M_NOT_JSON", "M_BAD_JSON", "M_UNAUTHORIZED"])),
        }
    }
    let said = alice.text(room, "still here").await;
    let sync = alice.get("/sync").await.ok().to_string();
    assert!(sync.contains(&said) && !sync.contains("\"odd\""), "{sync}");
}

#[tokio::test]
async fn d3_04_no_depth_makes_a_room_unusable() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    const MOST: u64 = (1 << 53) - 1;
    for room_version in ["1", "5", "11"] {
        let old = room_version == "1";
        let inside = meeting.inside_of(version(room_version)).await;
        let Inside { alice, room, join, .. } = &inside;
        for depth in [MOST, MOST + 2, (1 << 63) - 1, u64::MAX] {
            let mut event = inside.draft("m.room.message", join, depth, json!({ "msgtype": "m.text", "body": "deep" }));
            if old {
                inside.make_old(other, &mut event);
            }
            let (id, event) = other.event(event);
            let told = inside.told(other, home, &[&event]).await;
            let is_one = told.get(&id).is_some_and(|told| *told == json!({}));
            assert_eq!(is_one, depth <= MOST, "{room_version} {depth}: {told:?}");
        }
        let text = format!("after it all in {room_version}");
        alice.text(room, &text).await;
        let heard = other.hears_of(&text).await;
        assert!(heard["depth"].as_u64().is_some_and(|depth| depth <= MOST), "{heard}");
        let (_, join) = other.make(home, "join", room, &other.user("carol")).await;
        assert!(join["depth"].as_u64().is_some_and(|depth| depth <= MOST), "{join}");
        assert!(alice.whole_history(room).await.iter().any(|event| event["content"]["body"] == "deep"));
    }
}

#[tokio::test]
async fn d3_13_a_rejected_event_never_becomes_state() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let inside = meeting.inside().await;
    let Inside { alice, room, bob, join, depth, auth } = &inside;
    let levels = current(alice, room, "m.room.power_levels", "").await;
    let (grab_id, grab) = grab(&inside, other);
    assert!(inside.told(other, home, &[&grab]).await[&grab_id]["error"].is_string());
    let topic = |prev: &str, auth: &[&str]| {
        let mut event = inside.state("m.room.topic", "", prev, depth + 2, json!({ "topic": "mine now" }));
        event["auth_events"] = json!(auth);
        other.event(event)
    };
    // Named as an auth event, and as what it follows.
    let by_auth = topic(join, &[&grab_id, join]);
    let by_prev = topic(&grab_id, &[&auth[0], join]);
    for (id, event) in [by_auth, by_prev] {
        assert!(inside.told(other, home, &[&event]).await[&id]["error"].is_string());
    }
    // And told as part of the state after something that is not known here.
    let (lost, lost_event) = inside.message(other, join, depth + 1, "of which nobody told");
    let (id, event) = topic(&lost, &[&auth[0], join]);
    let state: Vec<String> = {
        let all = alice.all_state(room).await;
        let ids = all.iter().filter(|event| event["type"] != "m.room.power_levels").map(|event| &event["event_id"]);
        ids.filter_map(Value::as_str).map(str::to_owned).chain([grab_id.clone()]).collect()
    };
    other.answers_with("v1/get_missing_events", 200, json!({ "events": [] }));
    other.answers_with("v1/state_ids", 200, json!({ "pdu_ids": state, "auth_chain_ids": [] }));
    other.answers_with(&format!("v1/event/{lost}"), 200, json!({ "pdus": [lost_event] }));
    let told = inside.told(other, home, &[&event]).await;
    assert!(!other.heard("v1/state_ids").is_empty());
    assert_eq!(current(alice, room, "m.room.power_levels", "").await, levels, "{told:?}");
    assert_ne!(told[&id], json!({}), "who has no power sets no topic");
    alice.state(room, "m.room.topic", "").await.expect(404, "M_NOT_FOUND");
    assert_eq!(alice.state(room, "m.room.member", bob).await.ok()["membership"], "join");
}

#[tokio::test]
async fn d3_14_auth_events_are_of_the_room_that_they_allow_something_in() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let inside = meeting.inside().await;
    let elsewhere = meeting.inside().await;
    for auth in [
        vec![elsewhere.auth[0].clone(), inside.join.clone()],
        vec![inside.auth[0].clone(), elsewhere.join.clone()],
        elsewhere.auth.clone(),
    ] {
        let mut event = inside.message(other, &inside.join, inside.depth + 1, "by the law of another room").1;
        event["auth_events"] = json!(auth);
        let (id, event) = other.event(event);
        let told = inside.told(other, home, &[&event]).await;
        assert!(told[&id]["error"].is_string(), "{told:?}");
        inside.alice.event(&inside.room, &id).await.expect(404, "M_NOT_FOUND");
    }
}

#[tokio::test]
async fn d3_15_a_state_that_lacks_something_takes_nothing_away() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let inside = meeting.inside().await;
    let Inside { alice, room, join, depth, .. } = &inside;
    alice.set_state(room, "m.room.topic", "", json!({ "topic": "flowers" })).await.ok();
    let carol = home.user("carol").await;
    carol.join(room).await.ok();
    let before: Vec<Value> = alice.all_state(room).await;
    let (lost, lost_event) = inside.message(other, join, depth + 1, "of which nobody told");
    let (id, event) = inside.message(other, &lost, depth + 2, "after it");
    // The room as Bob wants it: he and who made it.
    let few = ["m.room.create", "m.room.power_levels", "m.room.join_rules"];
    let few = before.iter().filter(|event| {
        few.iter().any(|kind| event["type"] == *kind)
            || event["state_key"] == inside.bob
            || event["state_key"] == alice.id
    });
    let ids: Vec<&Value> = few.map(|event| &event["event_id"]).collect();
    other.answers_with("v1/get_missing_events", 200, json!({ "events": [] }));
    other.answers_with("v1/state_ids", 200, json!({ "pdu_ids": ids, "auth_chain_ids": [] }));
    other.answers_with(&format!("v1/event/{lost}"), 200, json!({ "pdus": [lost_event] }));
    let told = inside.told(other, home, &[&event]).await;
    assert_eq!(told[&id], json!({}), "it is allowed by that state");
    assert!(!other.heard("v1/state_ids").is_empty());
    let ids = |state: Vec<Value>| {
        let ids = state.into_iter().map(|event| event["event_id"].to_string());
        ids.collect::<std::collections::BTreeSet<String>>()
    };
    assert_eq!(ids(alice.all_state(room).await), ids(before));
    carol.text(room, "I am still here").await;
}

#[tokio::test]
async fn d3_16_redactions_redact_what_they_may() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    for room_version in ["1", "2", "4", "10", "11", "12"] {
        let inside = meeting.inside_of(version(room_version)).await;
        let Inside { alice, room, join, depth, .. } = &inside;
        let said = alice.text(room, "not Bob's to redact").await;
        let create = current(alice, room, "m.room.create", "").await;
        let old = ["1", "2"].contains(&room_version);
        let redaction = |prev: &str, depth: u64, target: &str, id: &str| {
            let content = match room_version {
                "11" | "12" => json!({ "redacts": target }),
                _ => json!({}),
            };
            let mut event = inside.draft("m.room.redaction", prev, depth, content);
            event["redacts"] = json!(target);
            if old {
                inside.make_old(other, &mut event);
                event["event_id"] = json!(id);
            }
            other.event(event)
        };
        for target in [&said, &create] {
            let (_, event) = redaction(join, depth + 1, target, &format!("${}:{}", stoa_kit::unique(), other.name()));
            inside.told(other, home, &[&event]).await;
        }
        assert_eq!(alice.event(room, &said).await.ok()["content"]["body"], "not Bob's to redact", "{room_version}");
        assert!(alice.event(room, &create).await.ok()["content"]["room_version"].is_string(), "{room_version}");
        if !old {
            continue;
        }
        // Ids that senders choose make circles possible: each redacts the other.
        let ids = ["one", "two"].map(|name| format!("${name}-{}:{}", stoa_kit::unique(), other.name()));
        let (_, one) = redaction(join, depth + 1, &ids[1], &ids[0]);
        let (_, two) = redaction(&ids[0], depth + 2, &ids[0], &ids[1]);
        let told = inside.told(other, home, &[&one, &two]).await;
        assert_eq!(told.len(), 2, "{told:?}");
        let after = alice.text(room, "after the circle").await;
        alice.sync_until(None, |sync| sync.has(room, &after)).await;
        alice.whole_history(room).await;
        let back = format!("{}?limit=50&v={}", path("backfill", &[room]), encode(&after));
        assert!(bodies(&other.get(home, &back).await.ok()["pdus"]).contains(&"after the circle".to_owned()));
    }
}

#[tokio::test]
async fn d3_18_d3_64_a_long_chain_of_auth_events_costs_linear_work() {
    const LONG: usize = 1_200;
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let inside = meeting.inside_of(version("11")).await;
    let Inside { alice, room, bob, join, depth, auth } = &inside;
    // Bob changes his name again and again, where nobody hears it. Each change names the one before.
    let mut chain: Vec<(String, Value)> = Vec::new();
    for n in 0..LONG {
        let last = chain.last().map_or(join, |(id, _)| id);
        let content = json!({ "membership": "join", "displayname": format!("Bob {n}") });
        let mut event = inside.state("m.room.member", bob, last, depth + 1 + n as u64, content);
        let rules = current(alice, room, "m.room.join_rules", "");
        if n == 0 {
            event["auth_events"] = json!([auth[0], auth[2], last, rules.await]);
        } else {
            event["auth_events"] = json!([auth[0], auth[2], last, chain[0].1["auth_events"][3]]);
        }
        chain.push(other.event(event));
    }
    let last = chain.last().expect("it is long").0.clone();
    let events: Vec<Value> = chain.iter().map(|(_, event)| event.clone()).collect();
    let by_id: std::collections::HashMap<String, Value> = chain.into_iter().collect();
    other.answers("v1/event/", move |asked| match by_id.get(asked.segment(2)) {
        Some(event) => (200, json!({ "pdus": [event] }).to_string()),
        None => (404, json!({ "errcode": "M_NOT_FOUND", "error": "" }).to_string()),
    });
    other.answers_with("v1/event_auth", 200, json!({ "auth_chain": events }));
    let mut event = inside.draft("m.room.message", join, depth + 1, json!({ "msgtype": "m.text", "body": "at last" }));
    event["auth_events"] = json!([auth[0], auth[2], last]);
    let (id, event) = other.event(event);
    let begin = Instant::now();
    let told = inside.told(other, home, &[&event]).await;
    assert_eq!(told[&id], json!({}));
    let (took, asked) = (begin.elapsed(), other.heard("v1/").len());
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(asked < 12, "{asked} questions for one event");
    // Nothing of it became part of what people see.
    let state = alice.state(room, "m.room.member", bob).await.ok();
    assert_eq!(state["displayname"], Value::Null);
}

#[tokio::test]
async fn d3_19_auth_events_that_are_no_state_allow_nothing() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let inside = meeting.inside().await;
    let (said, first) = inside.message(other, &inside.join, inside.depth + 1, "no state");
    inside.told(other, home, &[&first]).await;
    let mut cases = Vec::new();
    for auth in [vec![said.clone()], [inside.auth.clone(), vec![said.clone()]].concat(), vec![inside.join.clone(); 5]] {
        let mut event = inside.message(other, &said, inside.depth + 2, "by what was said").1;
        event["auth_events"] = json!(auth);
        cases.push(other.event(event));
    }
    for (id, event) in cases {
        let told = inside.told(other, home, &[&event]).await;
        assert!(told[&id]["error"].is_string(), "{told:?}");
    }
    let (id, event) = inside.message(other, &said, inside.depth + 2, "as it should be");
    assert_eq!(inside.told(other, home, &[&event]).await[&id], json!({}));
}

#[tokio::test]
async fn d3_30_a_room_that_nobody_here_is_in_is_left_alone() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let inside = meeting.inside().await;
    let Inside { alice, room, join, depth, .. } = &inside;
    alice.leave(room).await.ok();
    // Bob's server would have her back.
    let (id, event) = inside.message(other, join, depth + 1, "is anybody there?");
    let levels = json!({ "membership": "join" });
    let (back, mut again) = other.event(inside.state("m.room.member", &alice.id, join, depth + 1, levels));
    again["sender"] = json!(alice.id);
    let told = other.send(home, &[&event, &again]).await.ok();
    assert_ne!(told["pdus"][&id], json!({}), "{told}");
    assert_ne!(told["pdus"][&back], json!({}), "{told}");
    assert!(other.heard("v1/get_missing_events").is_empty() && other.heard("v1/state_ids").is_empty());
    let sync = alice.get("/sync").await.ok();
    assert!(!sync.to_string().contains("is anybody there?") && sync["rooms"]["join"].get(room).is_none(), "{sync}");
}

#[tokio::test]
async fn d3_32_rejected_events_do_not_end_a_page() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let inside = meeting.inside().await;
    let Inside { alice, room, join, depth, .. } = &inside;
    let first = alice.text(room, "before all that").await;
    let mut prev = join.clone();
    for n in 0..4 {
        let mut events = Vec::new();
        for m in 0..40 {
            let content = json!({ "topic": format!("mine {n} {m}") });
            let (id, event) = other.event(inside.state("m.room.topic", "", &prev, depth + 1 + n * 40 + m, content));
            events.push(event);
            prev = id;
        }
        inside.told(other, home, &events.iter().collect::<Vec<_>>()).await;
    }
    let (last, event) = inside.message(other, &prev, depth + 200, "after all that");
    assert_eq!(inside.told(other, home, &[&event]).await[&last], json!({}));
    for limit in [1, 3, 10] {
        let (mut from, mut seen) = (String::new(), Vec::new());
        for _ in 0..40 {
            let page = alice.messages(room, &format!("dir=b&limit={limit}{from}")).await.ok();
            seen.extend(page["chunk"].as_array().expect("a page").iter().map(|event| event["event_id"].clone()));
            let Some(end) = page["end"].as_str() else { break };
            from = format!("&from={}", encode(end));
        }
        assert!(seen.contains(&json!(first)) && seen.contains(&json!(last)), "{limit}: {seen:?}");
    }
    // Others who ask for history come through as well.
    let back = format!("{}?limit=5&v={}", path("backfill", &[room]), encode(&last));
    assert!(other.get(home, &back).await.ok()["pdus"].as_array().is_some_and(|pdus| pdus.len() > 2));
}

#[tokio::test]
async fn d3_66_extremities_stay_few() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let inside = meeting.inside().await;
    let Inside { alice, room, join, depth, .. } = &inside;
    // Many who all follow the same, and some of them forbidden.
    for n in 0..4 {
        let mut events = Vec::new();
        for m in 0..50 {
            events.push(match m % 5 {
                0 => {
                    other
                        .event(inside.state(
                            "m.room.topic",
                            "",
                            join,
                            depth + 1,
                            json!({ "topic": format!("{n} {m}") }),
                        ))
                        .1
                }
                _ => inside.message(other, join, depth + 1, &format!("{n} {m}")).1,
            });
        }
        inside.told(other, home, &events.iter().collect::<Vec<_>>()).await;
    }
    for n in 0..12 {
        alice.text(room, &format!("mine {n}")).await;
    }
    let first = other.hears_of("mine 0").await;
    assert!(first["prev_events"].as_array().is_some_and(|prev| prev.len() <= 20), "{first}");
    let last = other.hears_of("mine 11").await;
    assert_eq!(last["prev_events"].as_array().map(Vec::len), Some(1), "{last}");
}
