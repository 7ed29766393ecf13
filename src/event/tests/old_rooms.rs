//! Room versions 1 to 5 against what Synapse makes of them (`scripts/old-rooms` writes the file), and by example.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod room;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use proptest::prelude::*;
use room::{OLD, Plan, rules};
use serde::Deserialize;
use serde_json::{Value, json};
use stoa_event::{
    auth::{self, AuthState, Field, PowerLevels, Rule},
    build::{Draft, Given, given_id, seal, seal_given},
    format::{FormatError, Received},
    hash,
    ids::{EventId, OwnedEventId, RoomId, RoomVersionId, ServerName, UserId},
    json::{Object, Value as Json, Why},
    pdu::Pdu,
    redact::redact,
    resolve::{AuthEvents, Graph, resolve_states},
    sign::{KnownKey, SigningKey, sign_event},
    version::{Rules, SUPPORTED},
    visible::HistoryVisibility,
};

const V1: RoomVersionId = RoomVersionId::V1;
const V3: RoomVersionId = RoomVersionId::V3;
const V5: RoomVersionId = RoomVersionId::V5;
const V6: RoomVersionId = RoomVersionId::V6;

#[derive(Deserialize)]
struct Synapse {
    numbers: Vec<(String, Option<String>)>,
    integers: Vec<(String, Option<i64>)>,
    events: Vec<Made>,
    signed: Vec<Signed>,
    auth: Vec<Judged>,
    rooms: Vec<Grown>,
}

#[derive(Deserialize)]
struct Made {
    version: RoomVersionId,
    json: String,
    /// `null` if Synapse refuses it.
    kept: Option<String>,
    #[serde(default)]
    event_id: String,
    #[serde(default)]
    content_hash: String,
    #[serde(default)]
    reference_hash: String,
    #[serde(default)]
    redacted: String,
}

#[derive(Deserialize)]
struct Signed {
    version: RoomVersionId,
    event: Value,
    event_id: OwnedEventId,
}

#[derive(Deserialize)]
struct Judged {
    version: RoomVersionId,
    create: OwnedEventId,
    state: Vec<(OwnedEventId, String)>,
    event: (OwnedEventId, String),
    allowed: bool,
}

#[derive(Deserialize)]
struct Grown {
    events: Vec<(OwnedEventId, String)>,
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
struct Merge {
    states: Vec<Vec<OwnedEventId>>,
    rejected: Vec<OwnedEventId>,
    resolved: Vec<OwnedEventId>,
}

/// The file of the repository, or a bigger one.
fn synapse() -> Synapse {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/old_rooms.json").into();
    let path = std::env::var_os("STOA_OLD_ROOMS").unwrap_or(own);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn stored(version: &RoomVersionId, id: &OwnedEventId, json: &str) -> Arc<Pdu> {
    Arc::new(Pdu::stored(json.to_owned().into(), id.clone(), &rules(version)).unwrap())
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32], "1").unwrap()
}

fn one() -> &'static ServerName {
    "one.example".try_into().unwrap()
}

fn keys(server: &ServerName, id: &str) -> Option<KnownKey> {
    (server == one() && id == "ed25519:1").then(|| KnownKey { key: key().verify_key(), valid_until_ts: u64::MAX })
}

#[test]
fn numbers_are_written_as_synapse_writes_them() {
    for (text, canonical) in synapse().numbers {
        let json = format!("{{\"n\":{text}}}");
        let ours = Object::parse_lenient(json.as_bytes()).map(|o| Json::Object(o).to_canonical());
        let ours = ours.ok().map(|ours| String::from_utf8(ours).unwrap());
        assert_eq!(ours, canonical.map(|canonical| format!("{{\"n\":{canonical}}}")), "{text}");
    }
}

#[test]
fn levels_are_the_integers_that_synapse_reads() {
    for (text, n) in synapse().integers {
        let content = format!("{{\"users\":{{\"@a:b\":{text}}}}}");
        for version in OLD {
            let ours = PowerLevels::read(&rules(&version), content.as_bytes());
            assert_eq!(ours.ok().and_then(|levels| levels.users.get("@a:b")), n, "{text} in version {version}");
        }
    }
}

#[test]
fn events_have_the_hashes_and_ids_that_they_have_in_synapse() {
    for made in synapse().events {
        let rules = rules(&made.version);
        let read = Received::read(made.json.clone().into(), &rules);
        let Some(kept) = made.kept else {
            assert!(read.is_err(), "{}", made.json);
            continue;
        };
        let pdu = read.unwrap_or_else(|error| panic!("{error}: {}", made.json)).pdu().clone();
        assert_eq!(pdu.event_id().as_str(), made.event_id, "{}", made.json);
        let mut object = Object::parse_lenient(pdu.json()).unwrap();
        assert_eq!(hash::base64_encode(&hash::content_hash(&object, &rules)), made.content_hash, "{}", made.json);
        assert_eq!(hash::base64_encode(&hash::reference_hash(&object, &rules)), made.reference_hash, "{}", made.json);
        assert_eq!(String::from_utf8(redact(pdu.json(), &rules).unwrap()).unwrap(), made.redacted);
        assert_eq!(pdu.reference_hash(&rules).unwrap(), hash::reference_hash(&object, &rules));
        object.remove("unsigned");
        assert_eq!(String::from_utf8(Json::Object(object).to_canonical()).unwrap(), kept);
        // What is kept can be read again, by those who trust it as well.
        let again = Pdu::stored(pdu.json().clone(), pdu.event_id().clone(), &rules).unwrap();
        assert_eq!(format!("{again:?}"), format!("{pdu:?}"));
    }
}

#[test]
fn events_of_ours_are_those_that_synapse_makes() {
    for Signed { version, event, event_id } in synapse().signed {
        let rules = rules(&version);
        let json = event.to_string();
        let received = Received::read(json.into(), &rules).unwrap();
        let (pdu, whole) = received.verify(&rules, &keys).unwrap();
        assert_eq!((whole, pdu.event_id()), (hash::ContentHash::Same, &event_id));

        let draft = Draft {
            room_id: Some(pdu.room_id().clone()),
            sender: pdu.sender().clone(),
            kind: pdu.kind().into(),
            state_key: pdu.state_key().map(Into::into),
            content: pdu.content().to_vec(),
            prev_events: pdu.prev_events().to_vec(),
            auth_events: pdu.auth_events().to_vec(),
            depth: pdu.depth(),
            origin_server_ts: pdu.origin_server_ts(),
            redacts: None,
        };
        // The generator's hashes are those of the ids.
        let hashes = |ids: &[OwnedEventId]| ids.iter().map(|id| Some(hash::sha256(id.as_bytes()))).collect();
        let ours = if rules.reference_pairs {
            let (prev_hashes, auth_hashes) = (hashes(pdu.prev_events()), hashes(pdu.auth_events()));
            seal_given(draft, &Given { event_id: event_id.clone(), prev_hashes, auth_hashes }, &rules, one(), &key())
        } else {
            seal(draft, &rules, one(), &key())
        };
        assert_eq!(serde_json::from_slice::<Value>(ours.unwrap().json()).unwrap(), event, "version {version}");
    }
}

#[test]
fn events_are_judged_as_in_synapse() {
    let cases = synapse().auth;
    for Judged { version, create, state, event, allowed } in &cases {
        let events: AuthState = state.iter().map(|(id, json)| stored(version, id, json)).collect();
        let create = state.iter().find(|(id, _)| id == create).unwrap();
        let create = stored(version, &create.0, &create.1);
        let ours = auth::check(&rules(version), &stored(version, &event.0, &event.1), &create, &events);
        let state: Vec<&str> = state.iter().map(|(_, json)| json.as_str()).collect();
        assert_eq!(ours.is_ok(), *allowed, "{ours:?}\nevent {}\nstate {}", event.1, state.join("\n      "));
    }
    let allowed = cases.iter().filter(|case| case.allowed).count();
    assert!(allowed * 10 > cases.len() && allowed * 10 < cases.len() * 9);
}

/// A room of version 1, its events in the order in which they were made.
struct World {
    pdus: Vec<Arc<Pdu>>,
    numbers: HashMap<OwnedEventId, u32>,
    keys: HashMap<(String, String), u32>,
    rejected: Vec<u32>,
}

impl World {
    fn new(events: &[(OwnedEventId, String)]) -> World {
        let pdus: Vec<Arc<Pdu>> = events.iter().map(|(id, json)| stored(&V1, id, json)).collect();
        let numbers = pdus.iter().zip(0..).map(|(pdu, n)| (pdu.event_id().clone(), n)).collect();
        let mut keys = HashMap::new();
        for pdu in &pdus {
            let next = keys.len() as u32;
            if let Some(key) = pdu.state_key() {
                keys.entry((pdu.kind().to_owned(), key.to_owned())).or_insert(next);
            }
        }
        World { pdus, numbers, keys, rejected: Vec::new() }
    }

    fn state(&self, ids: &[OwnedEventId]) -> BTreeMap<u32, u32> {
        let numbers = ids.iter().map(|id| self.numbers[id]);
        numbers.map(|n| (self.state_key(n).unwrap(), n)).collect()
    }
}

impl Graph for World {
    fn pdu(&self, event: u32) -> Option<Arc<Pdu>> {
        self.pdus.get(event as usize).cloned()
    }
    fn auth_events(&self, event: u32) -> AuthEvents {
        self.pdus[event as usize].auth_events().iter().map(|id| self.numbers[id]).collect()
    }
    fn is_rejected(&self, event: u32) -> bool {
        self.rejected.contains(&event)
    }
    fn state_key(&self, event: u32) -> Option<u32> {
        let pdu = &self.pdus[event as usize];
        self.find_key(pdu.kind(), pdu.state_key()?)
    }
    fn find_key(&self, kind: &str, key: &str) -> Option<u32> {
        self.keys.get(&(kind.to_owned(), key.to_owned())).copied()
    }
    fn create(&self) -> Option<u32> {
        Some(0)
    }
}

#[test]
fn states_of_version_1_resolve_as_in_synapse() {
    let rules = rules(&V1);
    let mut merges = 0;
    for Grown { events, merges: of_room } in synapse().rooms {
        let mut world = World::new(&events);
        for merge in of_room {
            world.rejected = merge.rejected.iter().map(|id| world.numbers[id]).collect();
            let states: Vec<_> = merge.states.iter().map(|ids| world.state(ids)).collect();
            let ours = resolve_states(&rules, &states.iter().collect::<Vec<_>>(), &world);
            assert_eq!(ours, world.state(&merge.resolved), "merge {merges}");
            merges += 1;
        }
    }
    assert!(merges > 30, "{merges}");
}

/// An event as it may stand in an old room.
fn event(version: &RoomVersionId) -> Value {
    let pairs = rules(version).reference_pairs;
    let mut event = json!({
        "type": "m.room.message", "room_id": "!r:one.example", "sender": "@a:one.example", "depth": 7,
        "origin_server_ts": 5, "content": {"body": "hello"}, "auth_events": [], "hashes": {"sha256": "hash"},
        "prev_events": if pairs { json!([["$p:two.example", {"sha256": "x"}]]) } else { json!(["$p"]) }, "signatures": {},
    });
    if pairs {
        event["event_id"] = json!("$e:one.example");
    }
    event
}

fn with_content(version: &RoomVersionId, content: &str) -> String {
    event(version).to_string().replace(r#"{"body":"hello"}"#, content)
}

#[test]
fn odd_json_is_kept_in_canonical_form_and_only_in_old_rooms() {
    for (content, kept) in [
        (r#"{"n":1.50}"#, r#"{"n":1.5}"#),
        (r#"{"n":1E2}"#, r#"{"n":100.0}"#),
        (r#"{"n":-0}"#, r#"{"n":0}"#),
        (r#"{"n":9007199254740992}"#, r#"{"n":9007199254740992}"#),
        (r#"{"a":1,"b":2,"a":{"c":3,"c":4}}"#, r#"{"a":{"c":4},"b":2}"#),
    ] {
        for version in SUPPORTED {
            let read = Received::read(with_content(&version, content).into(), &rules(&version));
            if OLD.contains(&version) {
                let received = read.unwrap();
                assert_eq!(std::str::from_utf8(received.pdu().content()).unwrap(), kept);
                serde_json::from_slice::<Value>(received.pdu().json()).expect("what clients get is JSON");
            } else if version != RoomVersionId::V12 {
                assert!(matches!(read, Err(FormatError::BadJson(_))), "{content} in version {version}");
            }
        }
    }
    // What says everything in one way is kept as it came.
    let plain = with_content(&V1, r#"{ "b" : [1,  "\u0061"],"a":null}"#);
    assert_eq!(Received::read(plain.clone().into(), &rules(&V1)).unwrap().pdu().json(), plain.as_bytes());
}

#[test]
fn what_no_version_reads() {
    for (content, why) in [
        (r#"{"n":NaN}"#, Why::Syntax),
        (r#"{"n":1e400}"#, Why::NumberRange),
        (r#"{"n":01}"#, Why::Syntax),
        (r#"{"n":1.}"#, Why::Syntax),
        (r#"{"n":.5}"#, Why::Syntax),
        (r#"{"n":1e}"#, Why::Syntax),
        (r#"{"n":+1}"#, Why::Syntax),
        (r#"{"n":"\ud800"}"#, Why::LoneSurrogate),
    ] {
        for version in OLD {
            let read = Received::read(with_content(&version, content).into(), &rules(&version));
            assert!(matches!(read, Err(FormatError::BadJson(error)) if error.why == why), "{content}");
        }
    }
    let huge = with_content(&V1, &format!("{{\"n\":{}}}", "9".repeat(400)));
    assert!(
        matches!(Received::read(huge.into(), &rules(&V1)), Err(FormatError::BadJson(e)) if e.why == Why::NumberRange)
    );
}

#[test]
fn times_have_64_bits_and_are_shown_with_53() {
    for (time, shown) in
        [("-7", 0), ("0", 0), ("9007199254740991", (1 << 53) - 1), ("9223372036854775807", (1 << 53) - 1)]
    {
        let json = event(&V3).to_string().replace(r#""origin_server_ts":5"#, &format!("\"origin_server_ts\":{time}"));
        let pdu = Pdu::read(json.clone().into(), &rules(&V3)).unwrap();
        assert_eq!(pdu.origin_server_ts(), shown);
        assert!(std::str::from_utf8(pdu.json()).unwrap().contains(time), "what is signed stays");
    }
    for (field, bad) in [
        ("origin_server_ts", "9223372036854775808"),
        ("origin_server_ts", "1.0"),
        ("depth", "1.0"),
        ("depth", "-1"),
        ("depth", "9007199254740992"),
        ("depth", "true"),
    ] {
        let value = event(&V3)[field].to_string();
        let json = event(&V3).to_string().replace(&format!("\"{field}\":{value}"), &format!("\"{field}\":{bad}"));
        let error = Pdu::read(json.into(), &rules(&V3)).unwrap_err();
        assert!(matches!(error, FormatError::WrongType { field: f, .. } if f == field), "{field} {bad}: {error}");
    }
}

#[test]
fn events_of_ours_hold_no_odd_json_in_any_version() {
    for version in SUPPORTED {
        let rules = rules(&version);
        for content in [r#"{"n":1.5}"#, r#"{"n":-0}"#, r#"{"n":9007199254740992}"#, r#"{"n":1,"n":2}"#] {
            let room =
                if rules.room_id_is_create_hash { format!("!{}", "x".repeat(43)) } else { "!r:one.example".into() };
            let given = Given { event_id: given_id("x", one()).unwrap(), prev_hashes: vec![], auth_hashes: vec![] };
            let draft = Draft {
                room_id: Some(RoomId::parse(room).unwrap()),
                sender: UserId::parse("@a:one.example").unwrap(),
                kind: "m.x".into(),
                state_key: None,
                content: content.into(),
                prev_events: vec![],
                auth_events: vec![],
                depth: 1,
                origin_server_ts: 1,
                redacts: None,
            };
            let made = seal_given(draft, &given, &rules, one(), &key());
            assert!(matches!(made, Err(FormatError::BadJson(_))), "{content} in version {version}");
        }
    }
}

#[test]
fn given_ids_are_of_the_server_that_signs() {
    let rules = rules(&V1);
    let id = |id: &str| EventId::parse(id).unwrap();
    let draft = Draft {
        room_id: Some(RoomId::parse("!r:one.example").unwrap()),
        sender: UserId::parse("@a:one.example").unwrap(),
        kind: "m.x".into(),
        state_key: None,
        content: b"{}".to_vec(),
        prev_events: vec![id("$p:two.example")],
        auth_events: vec![],
        depth: 1,
        origin_server_ts: 1,
        redacts: None,
    };
    let good =
        Given { event_id: given_id("Random1", one()).unwrap(), prev_hashes: vec![Some([3; 32])], auth_hashes: vec![] };
    let sealed = |given: &Given| seal_given(draft.clone(), given, &rules, one(), &key());
    let pdu = sealed(&good).unwrap();
    assert_eq!(pdu.event_id().as_str(), "$Random1:one.example");
    let json: Value = serde_json::from_slice(pdu.json()).unwrap();
    assert_eq!(json["prev_events"], json!([["$p:two.example", { "sha256": hash::base64_encode(&[3; 32]) }]]));
    assert_eq!(json["event_id"], "$Random1:one.example");
    assert_eq!(seal(draft.clone(), &rules, one(), &key()).unwrap_err(), FormatError::Missing("event_id"));
    let other = Given { event_id: id("$a:two.example"), ..good.clone() };
    assert_eq!(sealed(&other).unwrap_err(), FormatError::BadId("event_id"));
    for wrong in
        [Given { prev_hashes: vec![], ..good.clone() }, Given { auth_hashes: vec![Some([0; 32])], ..good.clone() }]
    {
        assert!(matches!(sealed(&wrong), Err(FormatError::WrongType { .. })));
    }
    for bad in ["", "a:b", "a b", "é", &"x".repeat(255)] {
        assert_eq!(given_id(bad, one()), Err(FormatError::BadId("event_id")), "{bad}");
    }
}

/// The server of the event id must have signed too, not only that of the sender.
#[test]
fn the_server_of_the_id_must_have_signed() {
    for version in [V1, RoomVersionId::V2] {
        let rules = rules(&version);
        let mut foreign = event(&version);
        foreign["event_id"] = json!("$e:two.example");
        let signed = sign_event(foreign.to_string().as_bytes(), &rules, one(), &key()).unwrap();
        let received = Received::read(signed.clone().into(), &rules).unwrap();
        assert_eq!(received.signers().unwrap(), ["one.example", "two.example"]);
        assert!(received.check_signatures(&rules, &keys).is_err());
        let two = "two.example".try_into().unwrap();
        let signed = sign_event(&signed, &rules, two, &key()).unwrap();
        let all = |_: &ServerName, _: &str| Some(KnownKey { key: key().verify_key(), valid_until_ts: u64::MAX });
        Received::read(signed.into(), &rules).unwrap().check_signatures(&rules, &all).unwrap();
    }
}

/// Keys need not be valid at the event's time before version 5.
#[test]
fn key_validity_counts_from_version_5_on() {
    let expired = |_: &ServerName, _: &str| Some(KnownKey { key: key().verify_key(), valid_until_ts: 1 });
    for version in OLD {
        let rules = rules(&version);
        let signed = sign_event(event(&version).to_string().as_bytes(), &rules, one(), &key()).unwrap();
        let checked = Received::read(signed.into(), &rules).unwrap().check_signatures(&rules, &expired);
        assert_eq!(checked.is_ok(), version != V5, "version {version}");
    }
}

#[test]
fn a_float_beside_it_hides_no_setting() {
    let content = br#"{"history_visibility":"joined","x":1.5}"#;
    assert_eq!(HistoryVisibility::of_content(content), HistoryVisibility::Joined);
    let acl = stoa_event::acl::ServerAcl::parse(br#"{"allow":["*"],"deny":["two.example"],"x":1e5}"#).unwrap();
    assert!(!acl.allows("two.example".try_into().unwrap()) && acl.allows(one()));
}

/// `null` is "not given" in the first power levels, and nothing can be changed from or to it.
#[test]
fn levels_that_are_null() {
    let read =
        |version: &RoomVersionId, content: Value| PowerLevels::read(&rules(version), content.to_string().as_bytes());
    let levels = read(&V5, json!({ "ban": null, "events": { "m.x": null, "m.y": 5 } })).unwrap();
    assert_eq!((levels.get(Field::Ban), levels.events.get("m.x"), levels.events.get("m.y")), (50, None, Some(5)));
    assert!(levels.has_nulls());
    assert!(read(&V5, json!({ "users": { "@a:b": null } })).is_err());
    assert!(read(&RoomVersionId::V10, json!({ "ban": null })).is_err());
    assert_eq!(read(&V5, json!({ "users": { "@a:b c": "7" } })).unwrap().users.get("@a:b c"), Some(7));
    assert!(read(&V6, json!({ "users": { "@a:b c": "7" } })).is_err());

    let rules = rules(&V5);
    let create =
        Plan::new("m.room.create", Some(""), "@a:b", json!({ "creator": "@a:b" })).pdu(&rules, "!r:b", "$create");
    let member = Plan::member("@a:b", "join").pdu(&rules, "!r:b", "$member");
    let power =
        |content: Value, id: &str| Plan::new("m.room.power_levels", Some(""), "@a:b", content).pdu(&rules, "!r:b", id);
    let judge = |old: Option<Value>, new: Value| {
        let mut state: AuthState = [create.clone(), member.clone()].into_iter().collect();
        if let Some(old) = old {
            state.set(power(old, "$old"));
        }
        auth::check(&rules, &power(new, "$new"), &create, &state).map_err(|reject| reject.rule)
    };
    let (plain, null) = (json!({ "users": { "@a:b": 100 } }), json!({ "users": { "@a:b": 100 }, "ban": null }));
    assert_eq!(judge(None, null.clone()), Ok(()));
    assert_eq!(judge(Some(plain.clone()), plain.clone()), Ok(()));
    assert_eq!(judge(Some(plain.clone()), null.clone()), Err(Rule::LevelsFields));
    assert_eq!(judge(Some(null), plain), Err(Rule::LevelsFields));
}

fn any_version() -> impl Strategy<Value = RoomVersionId> {
    prop::sample::select(SUPPORTED.to_vec())
}

/// Bytes that are often almost an event.
fn almost() -> impl Strategy<Value = Vec<u8>> {
    let broken = (
        prop::sample::select(SUPPORTED.to_vec()),
        any::<prop::sample::Index>(),
        prop::collection::vec(any::<u8>(), 0..4),
    );
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..200),
        2 => prop::collection::vec(prop::sample::select(br#"{}[]",:0123456789-+.eE\u tfn"#.to_vec()), 0..60),
        4 => broken.prop_map(|(version, at, bytes)| {
            let mut json = event(&version).to_string().into_bytes();
            let at = at.index(json.len());
            let end = (at + bytes.len()).min(json.len());
            json.splice(at..end, bytes);
            json
        }),
        2 => "-?[0-9]{0,30}(\\.[0-9]{0,20})?([eE][+-]?[0-9]{0,4})?".prop_map(|n| with_content(&V3, &format!("{{\"n\":{n}}}")).into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reading_survives_anything(version in any_version(), bytes in almost()) {
        let rules: Rules = rules(&version);
        let id = EventId::parse("$x:y").unwrap();
        let _ = Pdu::stored(bytes.clone().into(), id, &rules);
        let _ = redact(&bytes, &rules);
        if let Ok(received) = Received::read(bytes.into(), &rules) {
            let _ = received.wanted_keys();
            let _ = received.check_signatures(&rules, &keys);
            let pdu = received.pdu();
            // What was read once is read again, and is the same.
            let again = Received::read(pdu.json().clone(), &rules).unwrap();
            prop_assert_eq!(format!("{:?}", again.pdu()), format!("{pdu:?}"));
            pdu.redacted(&rules).unwrap();
        }
    }
}
