//! Who may read what of a room: every read by a server that is in the room, one that was, one that never was, and one that
//! the ACL shuts out.

use stoa_kit::{Home, Reply, Stranger, User, Value, encode, json};

use super::{Meeting, acl_without, bodies, path};

/// What is to be had only while somebody of one's own is in the room.
const READS: [&str; 7] =
    ["event", "state", "state_ids", "event_auth", "backfill", "get_missing_events", "timestamp_to_event"];
const NOWHERE: &str = "!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const NOTHING: &str = "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Every read of a room, with an event of it.
async fn every_read(other: &Stranger, home: &Home, room: &str, event: &str) -> Vec<(&'static str, Reply)> {
    let at = |start| format!("{}?event_id={}", path(start, &[room]), encode(event));
    let missing = json!({ "latest_events": [event], "earliest_events": [], "limit": 10 });
    vec![
        ("event", other.get(home, &path("event", &[event])).await),
        ("state", other.get(home, &at("state")).await),
        ("state_ids", other.get(home, &at("state_ids")).await),
        ("event_auth", other.get(home, &path("event_auth", &[room, event])).await),
        ("backfill", other.get(home, &format!("{}?limit=10&v={}", path("backfill", &[room]), encode(event))).await),
        ("get_missing_events", other.post(home, &path("get_missing_events", &[room]), &missing).await),
        ("timestamp_to_event", other.get(home, &format!("{}?ts=0&dir=f", path("timestamp_to_event", &[room]))).await),
    ]
}

#[tokio::test]
async fn a_server_in_the_room_reads() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, room) = meeting.shared_room().await;
    let first = alice.text(&room, "one").await;
    let second = alice.text(&room, "two").await;
    for (read, reply) in every_read(other, home, &room, &second).await {
        let body = reply.ok();
        match read {
            "event" => {
                assert_eq!(body["origin"], home.server_name());
                assert_eq!(body["pdus"][0]["content"]["body"], "two");
                assert!(body["pdus"][0]["signatures"][home.server_name()].is_object());
                assert_eq!(body["pdus"].as_array().unwrap().len(), 1);
            }
            "state" => {
                let kinds: Vec<&str> =
                    body["pdus"].as_array().unwrap().iter().filter_map(|event| event["type"].as_str()).collect();
                assert!(kinds.contains(&"m.room.create") && kinds.contains(&"m.room.member"), "{kinds:?}");
                assert!(!kinds.contains(&"m.room.message"));
                assert!(!body["auth_chain"].as_array().unwrap().is_empty());
            }
            "state_ids" => {
                let whole = format!("{}?event_id={}", path("state", &[&room]), encode(&second));
                let whole = other.get(home, &whole).await.ok();
                for (ids, events) in [("pdu_ids", "pdus"), ("auth_chain_ids", "auth_chain")] {
                    assert_eq!(body[ids].as_array().unwrap().len(), whole[events].as_array().unwrap().len());
                }
            }
            "event_auth" => {
                let kinds: Vec<&str> =
                    body["auth_chain"].as_array().unwrap().iter().filter_map(|event| event["type"].as_str()).collect();
                assert!(kinds.contains(&"m.room.power_levels"), "{kinds:?}");
                assert!(!kinds.contains(&"m.room.message"));
            }
            "backfill" => assert_eq!(bodies(&body["pdus"])[..2], ["two", "one"]),
            "get_missing_events" => assert_eq!(bodies(&body["events"]).last().unwrap(), "one"),
            "timestamp_to_event" => assert!(body["event_id"].is_string() && body["origin_server_ts"].is_u64()),
            other => panic!("{other}"),
        }
    }
    // Between two events that one has.
    let third = alice.text(&room, "three").await;
    let ask = json!({ "latest_events": [third], "earliest_events": [first], "limit": 10 });
    let between = other.post(home, &path("get_missing_events", &[&room]), &ask).await.ok();
    assert_eq!(bodies(&between["events"]), ["two"]);
}

/// How a server stands to a room.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Standing {
    Member,
    Left,
    Kicked,
    Banned,
    Never,
    Invited,
    Knocked,
    /// A user of it is joined, but the ACL shuts the server out.
    ShutOut,
    /// The same where nobody of it ever was.
    ShutOutBefore,
}

use Standing::{Banned, Invited, Kicked, Knocked, Left, Member, Never, ShutOut, ShutOutBefore};

const STANDINGS: [Standing; 9] = [Member, Left, Kicked, Banned, Never, Invited, Knocked, ShutOut, ShutOutBefore];

/// A room into which one is invited or knocks; and how Bob's server stands to it.
async fn room_as(meeting: &Meeting, alice: &User, standing: Standing) -> (String, String) {
    let (home, other) = (&meeting.home, &meeting.other);
    let rules =
        |rule: &str| json!([{ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": rule } }]);
    let room = alice.create_room(json!({ "initial_state": rules("knock") })).await;
    let bob = other.user("bob");
    let about = async |what: &str| {
        alice.post(&format!("/rooms/{}/{what}", encode(&room)), json!({ "user_id": bob })).await.ok();
    };
    if standing != Never && standing != Knocked && standing != ShutOutBefore {
        about("invite").await;
    }
    if [Member, Left, Kicked, Banned, ShutOut].contains(&standing) {
        other.join(home, &room, &bob).await;
    }
    // What is asked for was said while Bob was there, where he ever was.
    let event = alice.text(&room, "secret").await;
    match standing {
        Member | Never | Invited => {}
        Left => other.leave(home, &room, &bob).await,
        Kicked => about("kick").await,
        Banned => about("ban").await,
        Knocked => {
            let (id, event) = other.make(home, "knock", &room, &bob).await;
            other.put(home, &path("send_knock", &[&room, &id]), &event).await.ok();
        }
        ShutOut | ShutOutBefore => {
            alice.set_state(&room, "m.room.server_acl", "", acl_without(&["LOCALHOST"])).await.ok();
        }
    }
    (room, event)
}

#[tokio::test]
async fn d3_20_d3_21_d3_22_d3_26_reads_are_for_servers_that_are_in_the_room() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let unknown = every_read(other, home, NOWHERE, NOTHING).await;
    for standing in STANDINGS {
        let (room, event) = room_as(&meeting, &alice, standing).await;
        let read = every_read(other, home, &room, &event).await;
        assert_eq!(read.iter().map(|(name, _)| *name).collect::<Vec<_>>(), READS);
        for ((name, reply), (_, unknown)) in read.into_iter().zip(&unknown) {
            let what = format!("{name} as {standing:?}");
            match standing {
                Member => drop(reply.ok()),
                // That its users are in the room is known to the server: it may be told why.
                ShutOut if name != "event" => drop(reply.expect(403, "M_FORBIDDEN")),
                // The same, byte for byte, as of a room or an event that is not there.
                _ => {
                    assert!([403, 404].contains(&reply.status), "{what}: {reply:?}");
                    assert_eq!((reply.status, &reply.body), (unknown.status, &unknown.body), "{what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn d3_21_what_a_server_may_ask_to_come_in_or_go() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    // The room lets people in who are invited, and lets others knock. 0 says: as of a room that is not there.
    let table: [(&str, [u16; 9]); 4] = [
        // Member, Left, Kicked, Banned, Never, Invited, Knocked, ShutOut, ShutOutBefore
        ("make_join", [200, 403, 403, 403, 403, 200, 403, 403, 403]),
        ("make_leave", [200, 403, 403, 403, 403, 200, 200, 403, 403]),
        ("make_knock", [403, 200, 200, 403, 200, 403, 200, 403, 403]),
        ("hierarchy", [200, 200, 200, 200, 200, 200, 200, 0, 0]),
    ];
    for (n, standing) in STANDINGS.into_iter().enumerate() {
        let (room, event) = room_as(&meeting, &alice, standing).await;
        let bob = other.user("bob");
        for (name, statuses) in table {
            let ask = |room: &str| match name {
                "hierarchy" => path(name, &[room]),
                "make_leave" => path(name, &[room, &bob]),
                _ => format!("{}?ver=12", path(name, &[room, &bob])),
            };
            let reply = other.get(home, &ask(&room)).await;
            let (what, status) = (format!("{name} as {standing:?}"), reply.status);
            match statuses[n] {
                0 => {
                    let unknown = other.get(home, &ask(NOWHERE)).await;
                    assert_eq!((status, &reply.body), (unknown.status, &unknown.body), "{what}");
                }
                200 => {
                    assert!(!reply.ok().to_string().contains("secret"), "{what}");
                }
                _ => drop(reply.expect(statuses[n], "M_FORBIDDEN")),
            }
            assert!(status == statuses[n] || statuses[n] == 0, "{what}: {status}");
            // Nobody asks for others.
            if name != "hierarchy" {
                let ask = ask(&room).replace(&encode(&bob), &encode(&alice.id));
                other.get(home, &ask).await.expect(403, "M_FORBIDDEN");
            }
        }
        // What comes of a template is no more than the template: a stranger's own is refused as well.
        if [Never, Left, Kicked, Banned, ShutOut, ShutOutBefore].contains(&standing) {
            let (id, join) = other.event(json!({
                "type": "m.room.member", "room_id": room, "sender": bob, "state_key": bob, "depth": 20,
                "origin_server_ts": 1_700_000_000_000_u64, "prev_events": [event], "auth_events": [],
                "content": { "membership": "join" },
            }));
            // The second time as the first.
            for start in ["v1", "v2", "v2"] {
                let send = format!("/_matrix/federation/{start}/send_join/{}/{}", encode(&room), encode(&id));
                let reply = other.put(home, &send, &join).await;
                assert!([400, 403].contains(&reply.status), "{standing:?}: {reply:?}");
            }
        }
    }
}

#[tokio::test]
async fn d3_21_what_is_asked_of_users_needs_no_room_and_tells_of_none() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let (_, event) = room_as(&meeting, &alice, Never).await;
    let nobody = format!("@nobody-there:{}", home.server_name());
    // Of users of others, and of nobody, there is the same to be had: nothing.
    for user in [&nobody, &other.user("bob"), "@carol:elsewhere.example"] {
        let devices = other.get(home, &path("user/devices", &[user])).await;
        let unknown = other.get(home, &path("user/devices", &[&nobody])).await;
        assert_eq!((devices.status, &devices.body), (404, &unknown.body));
        let query = json!({ "device_keys": { user: [] } });
        let keys = other.post(home, &path("user/keys/query", &[]), &query).await.ok();
        assert_eq!(keys["device_keys"].as_object().map_or(0, serde_json::Map::len), 0, "{keys}");
        let claim = json!({ "one_time_keys": { user: { "DEVICE": "signed_curve25519" } } });
        let keys = other.post(home, &path("user/keys/claim", &[]), &claim).await.ok();
        assert!(keys["one_time_keys"].as_object().is_none_or(serde_json::Map::is_empty), "{keys}");
        let profile = |user: &str| format!("{}?user_id={}", path("query/profile", &[]), encode(user));
        let (told, unknown) = (other.get(home, &profile(user)).await, other.get(home, &profile(&nobody)).await);
        assert_eq!((told.status, &told.body), (404, &unknown.body));
    }
    // Nothing of a closed room is in what everybody may ask.
    for open in [path("publicRooms", &[]), path("user/devices", &[&alice.id])] {
        let told = other.get(home, &open).await.ok().to_string();
        assert!(!told.contains(&event) && !told.contains("secret"), "{told}");
    }
}

#[tokio::test]
async fn a_server_that_left_may_come_again_and_read() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, room) = meeting.shared_room().await;
    let event = alice.text(&room, "while it was there").await;
    other.leave(home, &room, &other.user("bob")).await;
    other.get(home, &path("event", &[&event])).await.expect(404, "M_NOT_FOUND");
    other.join(home, &room, &other.user("bob")).await;
    other.get(home, &path("event", &[&event])).await.ok();
}

#[tokio::test]
async fn d3_20_an_event_of_another_room_is_not_there() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, room) = meeting.shared_room().await;
    let secret = alice.create_room(json!({})).await;
    let event = alice.text(&secret, "secret").await;
    let through = every_read(other, home, &room, &event).await;
    let unknown = every_read(other, home, &room, NOTHING).await;
    for ((read, through), (_, unknown)) in through.into_iter().zip(unknown) {
        if read == "timestamp_to_event" {
            continue;
        }
        assert_eq!((through.status, &through.json.get("pdus")), (unknown.status, &unknown.json.get("pdus")), "{read}");
        assert!(!String::from_utf8_lossy(&through.body).contains("secret"), "{read}");
        if through.status != 200 {
            assert_eq!(through.body, unknown.body, "{read}");
        }
    }
}

#[tokio::test]
async fn what_nobody_of_a_server_could_see_goes_out_redacted() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let room = alice.public_room().await;
    alice.set_state(&room, "m.room.history_visibility", "", json!({ "history_visibility": "joined" })).await.ok();
    let before = alice.text(&room, "before they came").await;
    other.join(home, &room, &other.user("bob")).await;
    let after = alice.text(&room, "while they are there").await;
    let event = |id: &str| path("event", &[id]);
    let hidden = other.get(home, &event(&before)).await.ok()["pdus"][0].clone();
    assert_eq!(hidden["content"], json!({}));
    assert!(hidden["hashes"].is_object() && hidden["signatures"].is_object(), "the graph holds together");
    let shown = other.get(home, &event(&after)).await.ok()["pdus"][0].clone();
    assert_eq!(shown["content"]["body"], "while they are there");
    let back = format!("{}?limit=100&v={}", path("backfill", &[&room]), encode(&after));
    let back = other.get(home, &back).await.ok();
    let bodies = bodies(&back["pdus"]);
    assert!(bodies.contains(&"while they are there".into()) && !bodies.contains(&"before they came".into()));
    let missing = json!({ "latest_events": [after], "earliest_events": [], "limit": 20 });
    let missing = other.post(home, &path("get_missing_events", &[&room]), &missing).await.ok();
    let text = missing.to_string();
    assert!(text.contains("m.room.message") && !text.contains("before they came"));
}

#[tokio::test]
async fn d3_19_questions_without_end_have_one() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, room) = meeting.shared_room().await;
    let said: Vec<String> = alice.texts(&room, (0..130).map(|n| n.to_string())).await;
    let last = said.last().unwrap();
    let count = |list: &Value| list.as_array().unwrap().len();
    let back = format!("{}?limit=100000&v={}", path("backfill", &[&room]), encode(last));
    assert_eq!(count(&other.get(home, &back).await.ok()["pdus"]), 100);
    let missing = json!({ "latest_events": [last], "earliest_events": [], "limit": 100_000 });
    let missing = other.post(home, &path("get_missing_events", &[&room]), &missing).await.ok();
    assert_eq!(count(&missing["events"]), 20);
    assert_eq!(bodies(&missing["events"]).last().unwrap(), "128");
    // None, and nonsense.
    let none = json!({ "latest_events": [last], "earliest_events": [], "limit": 0 });
    let none = other.post(home, &path("get_missing_events", &[&room]), &none).await.ok();
    assert_eq!(none["events"], json!([]));
    other.get(home, &path("backfill", &[&room])).await.expect_any(&[400], &["M_MISSING_PARAM"]);
    other
        .get(home, &format!("{}?limit=1&v=nonsense", path("backfill", &[&room])))
        .await
        .expect_any(&[400], &["M_INVALID_PARAM"]);
}

#[tokio::test]
async fn a_large_state_comes_whole() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let alice = home.user("alice").await;
    let state: Vec<Value> = (0..700)
        .map(|n| json!({ "type": "org.example.shelf", "state_key": n.to_string(), "content": { "n": n } }))
        .collect();
    let room = alice.create_room(json!({ "preset": "public_chat", "initial_state": state })).await;
    let (_, answer) = other.join(home, &room, &other.user("bob")).await;
    let event = alice.text(&room, "all of it").await;
    let at = format!("{}?event_id={}", path("state", &[&room]), encode(&event));
    let told = other.get(home, &at).await.ok();
    for (list, more) in [(&answer["state"], 0), (&told["pdus"], 1)] {
        let list = list.as_array().expect("a list");
        let mut shelves: Vec<u64> = list.iter().filter_map(|event| event["content"]["n"].as_u64()).collect();
        shelves.sort_unstable();
        assert_eq!(shelves, (0..700).collect::<Vec<_>>());
        let members = list.iter().filter(|event| event["type"] == "m.room.member").count();
        assert_eq!(members, 1 + more);
    }
    assert!(!told["auth_chain"].as_array().expect("a list").is_empty());
}
