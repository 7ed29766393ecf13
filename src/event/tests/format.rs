//! The shape of events: what is refused, and why; ruma's check of the format as an oracle.

use proptest::prelude::*;
use ruma_common::CanonicalJsonObject;
use serde_json::{Value, json};
use stoa_event::{
    build::{Draft, seal},
    format::{FormatError, MAX_EVENT_BYTES, Received},
    ids::{EventId, RoomId, RoomVersionId, ServerName, UserId},
    json::Why,
    pdu::Pdu,
    sign::SigningKey,
    version::{Rules, SUPPORTED},
};

#[path = "common/random.rs"]
mod random;
use random::{cases, content, spelled, value};

const ID: &str = "$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg";
const ROOM: &str = "!Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg";

fn event() -> Value {
    json!({
        "type": "m.room.message", "room_id": ROOM, "sender": "@alice:example.org", "depth": 7,
        "origin_server_ts": 1_700_000_000_000_i64, "content": {"body": "hello", "msgtype": "m.text"},
        "prev_events": [ID], "auth_events": [ID, ID], "hashes": {"sha256": "hash"},
        "signatures": {"example.org": {"ed25519:1": "signature"}}, "unsigned": {"age": 4},
    })
}

fn rules(version: RoomVersionId) -> Rules {
    Rules::of(&version).unwrap()
}

fn read(event: &Value) -> Result<Pdu, FormatError> {
    Pdu::read(serde_json::to_vec(event).unwrap().into(), &rules(RoomVersionId::V12))
}

fn with(field: &str, value: Value) -> Value {
    let mut event = event();
    event[field] = value;
    event
}

fn without(field: &str) -> Value {
    let mut event = event();
    event.as_object_mut().unwrap().remove(field);
    event
}

#[test]
fn a_good_event_is_read() {
    let pdu = read(&event()).unwrap();
    assert_eq!(pdu.kind(), "m.room.message");
    assert_eq!(pdu.state_key(), None);
    assert_eq!(pdu.room_id().as_str(), ROOM);
    assert_eq!(pdu.sender().as_str(), "@alice:example.org");
    assert_eq!((pdu.depth(), pdu.origin_server_ts()), (7, 1_700_000_000_000));
    assert_eq!((pdu.prev_events().len(), pdu.auth_events().len()), (1, 2));
    assert_eq!(serde_json::from_slice::<Value>(pdu.content()).unwrap(), event()["content"]);
}

#[test]
fn fields_that_must_be_there() {
    let fields = [
        "type",
        "room_id",
        "sender",
        "depth",
        "origin_server_ts",
        "content",
        "prev_events",
        "auth_events",
        "hashes",
        "signatures",
    ];
    for field in fields {
        assert_eq!(read(&without(field)).unwrap_err(), FormatError::Missing(field));
    }
    assert_eq!(read(&with("hashes", json!({}))).unwrap_err(), FormatError::Missing("hashes.sha256"));
    for field in ["unsigned", "state_key"] {
        read(&without(field)).unwrap();
    }
}

#[test]
fn fields_must_have_their_type() {
    for field in [
        "type",
        "room_id",
        "sender",
        "state_key",
        "depth",
        "origin_server_ts",
        "content",
        "prev_events",
        "auth_events",
        "hashes",
        "signatures",
        "unsigned",
    ] {
        for value in [json!(null), json!(true), json!([1]), json!([null])] {
            let error = read(&with(field, value)).unwrap_err();
            assert!(matches!(error, FormatError::WrongType { field: f, .. } if f == field), "{field}: {error}");
        }
    }
    for (field, value) in [
        ("depth", json!(-1)),
        ("depth", json!("1")),
        ("origin_server_ts", json!(-1)),
        ("prev_events", json!([[ID, {}]])),
        ("hashes", json!({ "sha256": 1 })),
    ] {
        assert!(matches!(read(&with(field, value)), Err(FormatError::WrongType { .. })), "{field}");
    }
}

#[test]
fn numbers_must_be_canonical() {
    for (field, value) in [("depth", "9007199254740992"), ("depth", "1.0"), ("origin_server_ts", "1e3")] {
        let json =
            event().to_string().replace(&format!("\"{field}\":{}", event()[field]), &format!("\"{field}\":{value}"));
        let error = Pdu::read(json.into(), &rules(RoomVersionId::V12)).unwrap_err();
        assert!(matches!(error, FormatError::BadJson(_)), "{field} {value}: {error}");
    }
    assert!(matches!(read(&with("content", json!({ "n": 0.5 }))), Err(FormatError::BadJson(e)) if e.why == Why::Float));
    assert_eq!(read(&with("depth", json!((1_i64 << 53) - 1))).unwrap().depth(), (1 << 53) - 1);
}

#[test]
fn a_key_twice_at_the_top_is_refused() {
    let twice = event().to_string().replacen('{', "{\"depth\":8,", 1);
    let error = Pdu::read(twice.into(), &rules(RoomVersionId::V12)).unwrap_err();
    assert!(matches!(error, FormatError::BadJson(e) if e.why == Why::DuplicateKey("depth".into())));
}

#[test]
fn identifiers_must_be_identifiers() {
    for (field, bad) in [
        ("sender", "alice"),
        ("sender", "@alice"),
        ("sender", "@alice:"),
        ("sender", "@alice:exa mple"),
        ("room_id", "room"),
        ("room_id", "!room:example.org"),
        ("room_id", "!short"),
        ("room_id", ID),
    ] {
        assert_eq!(read(&with(field, json!(bad))).unwrap_err(), FormatError::BadId(field), "{bad}");
    }
    for field in ["prev_events", "auth_events"] {
        for bad in ["", "id", "@id", "$a\0b", &format!("${}", "x".repeat(255))] {
            assert_eq!(read(&with(field, json!([bad]))).unwrap_err(), FormatError::BadId(field), "{bad}");
        }
    }
    // Historical user ids are to be accepted in events.
    for historical in ["@Ali Ce!:example.org", "@:example.org", "@ünï:example.org:8448", "@a:[::1]"] {
        assert_eq!(read(&with("sender", json!(historical))).unwrap().sender().as_str(), historical);
    }
}

#[test]
fn references_have_limits() {
    read(&with("prev_events", json!(vec![ID; 20]))).unwrap();
    read(&with("auth_events", json!(vec![ID; 10]))).unwrap();
    for (field, count, limit) in [("prev_events", 21, 20), ("auth_events", 11, 10)] {
        let error = read(&with(field, json!(vec![ID; count]))).unwrap_err();
        assert_eq!(error, FormatError::TooMany { field, count, limit });
    }
}

#[test]
fn texts_have_255_bytes() {
    // Bytes, not characters: 127 times two and one.
    let longest = "é".repeat(127) + "x";
    for field in ["type", "state_key"] {
        read(&with(field, json!(longest))).unwrap();
        let error = read(&with(field, json!(format!("{longest}x")))).unwrap_err();
        assert_eq!(error, FormatError::TooLarge { what: field, size: 256, limit: 255 });
    }
    let user = format!("@{}:example.org", "x".repeat(255 - 13));
    read(&with("sender", json!(user))).unwrap();
    let user = user.replace('@', "@x");
    assert!(matches!(read(&with("sender", json!(user))), Err(FormatError::TooLarge { what: "sender", .. })));
}

#[test]
fn an_event_has_65536_canonical_bytes() {
    let bare = with("content", json!({ "body": "" })).to_string().len();
    let sized = |size: usize| with("content", json!({ "body": "x".repeat(size - bare) }));
    assert_eq!(sized(MAX_EVENT_BYTES).to_string().len(), MAX_EVENT_BYTES);
    read(&sized(MAX_EVENT_BYTES)).unwrap();
    let error = read(&sized(MAX_EVENT_BYTES + 1)).unwrap_err();
    assert_eq!(error, FormatError::TooLarge { what: "event", size: MAX_EVENT_BYTES + 1, limit: MAX_EVENT_BYTES });

    // White space does not count, up to a point.
    let padded =
        |spaces: usize| sized(MAX_EVENT_BYTES).to_string().replacen(':', &format!(":{}", " ".repeat(spaces)), 1);
    Pdu::read(padded(100_000).into(), &rules(RoomVersionId::V12)).unwrap();
    let error = Pdu::read(padded(1_000_000).into(), &rules(RoomVersionId::V12)).unwrap_err();
    assert!(matches!(error, FormatError::TooLarge { what: "event", .. }));
}

#[test]
fn only_a_version_12_create_event_has_no_room_id() {
    let mut create = event();
    create["type"] = json!("m.room.create");
    create["state_key"] = json!("");
    assert_eq!(read(&create).unwrap_err(), FormatError::Unexpected("room_id"));
    create.as_object_mut().unwrap().remove("room_id");
    let pdu = read(&create).unwrap();
    assert_eq!(pdu.room_id().as_str(), pdu.event_id().as_str().replace('$', "!"));
    let stored = Pdu::stored(pdu.json().clone(), pdu.event_id().clone(), &rules(RoomVersionId::V12)).unwrap();
    assert_eq!(stored.room_id(), pdu.room_id());
    let old = Pdu::read(create.to_string().into(), &rules(RoomVersionId::V11));
    assert_eq!(old.unwrap_err(), FormatError::Missing("room_id"));
    for version in SUPPORTED.into_iter().filter(|v| *v != RoomVersionId::V12 && !rules(v.clone()).reference_pairs) {
        create["room_id"] = json!("!room:example.org");
        Pdu::read(create.to_string().into(), &rules(version)).unwrap();
    }
}

#[test]
fn versions_1_and_2_have_ids_and_pairs() {
    for version in [RoomVersionId::V1, RoomVersionId::V2] {
        let rules = rules(version);
        let mut event = event();
        event["room_id"] = json!("!room:example.org");
        event["prev_events"] = json!([["$a:example.org", { "sha256": "x" }]]);
        event["auth_events"] = json!([]);
        let read = |event: &Value| Pdu::read(event.to_string().into(), &rules);
        assert_eq!(read(&event).unwrap_err(), FormatError::Missing("event_id"));
        event["event_id"] = json!("$nodomain");
        assert_eq!(read(&event).unwrap_err(), FormatError::BadId("event_id"));
        event["event_id"] = json!("$b:example.org");
        let pdu = read(&event).unwrap();
        assert_eq!(pdu.event_id().as_str(), "$b:example.org");
        assert_eq!(pdu.prev_events()[0].as_str(), "$a:example.org");
        for bad in [
            json!(["$a:example.org"]),
            json!([["$a:example.org"]]),
            json!([[{}, "$a:example.org"]]),
            json!([["$a:example.org", {}, {}]]),
            json!([["$a:example.org", { "sha256": 1 }]]),
        ] {
            event["prev_events"] = bad;
            assert!(matches!(read(&event), Err(FormatError::WrongType { field: "prev_events", .. })));
        }
    }
}

#[test]
fn a_redaction_of_nothing_redacts_nothing() {
    let mut event = event();
    event["type"] = json!("m.room.redaction");
    for (content, redacts) in [
        (json!({}), None),
        (json!({"redacts": 1}), None),
        (json!({"redacts": "x"}), None),
        (json!({ "redacts": ID }), Some(ID)),
    ] {
        event["content"] = content;
        let pdu = read(&event).unwrap();
        assert_eq!(pdu.redacts().map(|id| id.as_str()), redacts);
    }
    event["redacts"] = json!(7);
    read(&event).expect("the field at the top means nothing in this version");
    event["room_id"] = json!("!room:example.org");
    let old = Pdu::read(event.to_string().into(), &rules(RoomVersionId::V10)).unwrap_err();
    assert!(matches!(old, FormatError::WrongType { field: "redacts", .. }));
}

#[test]
fn drafts_have_the_same_limits() {
    let key = SigningKey::from_seed(&[1; 32], "1").unwrap();
    let server = <&ServerName>::try_from("example.org").unwrap();
    let id = EventId::parse(ID).unwrap();
    let draft = || Draft {
        room_id: Some(RoomId::parse(ROOM).unwrap()),
        sender: UserId::parse("@alice:example.org").unwrap(),
        kind: "m.room.message".to_owned(),
        state_key: None,
        content: b"{}".to_vec(),
        prev_events: vec![id.clone()],
        auth_events: vec![id.clone()],
        depth: 1,
        origin_server_ts: 1,
        redacts: None,
    };
    let sealed = |draft: Draft, version| seal(draft, &rules(version), server, &key).map(|pdu| pdu.json().len());
    let v12 = RoomVersionId::V12;
    sealed(draft(), v12.clone()).unwrap();

    let content = |content: &str| Draft { content: content.as_bytes().to_vec(), ..draft() };
    for (bad, why) in [
        (r#"{"n":1.5}"#, Why::Float),
        (r#"{"n":9007199254740992}"#, Why::IntegerRange),
        ("{", Why::End),
        ("[]", Why::NotAnObject),
        (r#"{"a":1,"a":1}"#, Why::DuplicateKey("a".into())),
        ("", Why::End),
    ] {
        assert!(matches!(sealed(content(bad), v12.clone()), Err(FormatError::BadJson(e)) if e.why == why), "{bad}");
    }
    let bare = sealed(content(r#"{"b":""}"#), v12.clone()).unwrap();
    let sized = |size: usize| content(&json!({ "b": "x".repeat(size - bare) }).to_string());
    assert_eq!(sealed(sized(MAX_EVENT_BYTES), v12.clone()).unwrap(), MAX_EVENT_BYTES);
    assert!(matches!(
        sealed(sized(MAX_EVENT_BYTES + 1), v12.clone()),
        Err(FormatError::TooLarge { what: "event", .. })
    ));

    let long = "x".repeat(256);
    assert!(matches!(
        sealed(Draft { kind: long.clone(), ..draft() }, v12.clone()),
        Err(FormatError::TooLarge { what: "type", .. })
    ));
    assert!(matches!(
        sealed(Draft { state_key: Some(long), ..draft() }, v12.clone()),
        Err(FormatError::TooLarge { what: "state_key", .. })
    ));
    assert!(matches!(
        sealed(Draft { prev_events: vec![id.clone(); 21], ..draft() }, v12.clone()),
        Err(FormatError::TooMany { .. })
    ));
    assert!(matches!(
        sealed(Draft { auth_events: vec![id.clone(); 11], ..draft() }, v12.clone()),
        Err(FormatError::TooMany { .. })
    ));
    assert!(matches!(
        sealed(Draft { depth: 1 << 53, ..draft() }, v12.clone()),
        Err(FormatError::WrongType { field: "depth", .. })
    ));
    assert_eq!(sealed(Draft { room_id: None, ..draft() }, v12.clone()), Err(FormatError::Missing("room_id")));
    let create = || Draft { kind: "m.room.create".to_owned(), state_key: Some(String::new()), ..draft() };
    assert_eq!(sealed(create(), v12.clone()), Err(FormatError::Unexpected("room_id")));
    sealed(Draft { room_id: None, ..create() }, v12).unwrap();
    assert_eq!(sealed(Draft { room_id: None, ..create() }, RoomVersionId::V11), Err(FormatError::Missing("room_id")));
    assert_eq!(sealed(draft(), RoomVersionId::V2), Err(FormatError::Missing("event_id")));
}

proptest! {
    #![proptest_config(cases(500))]

    /// However an event is spelled, it is the same event; its content is found; and the trusted reading of the same bytes
    /// finds the same.
    #[test]
    fn spelling_does_not_matter(content in content(), extra in value(), seed in any::<u64>(), state in any::<bool>()) {
        let mut event = with("content", content.clone());
        event["unsigned"] = json!({ "extra": extra });
        event["org.example.extra"] = extra;
        if state {
            event["state_key"] = json!("a\"\\ключ");
        }
        let plain = read(&event).unwrap();
        let rules = rules(RoomVersionId::V12);
        let odd = Pdu::read(spelled(&event, seed).into(), &rules).unwrap();
        prop_assert_eq!(odd.event_id(), plain.event_id());
        prop_assert_eq!(serde_json::from_slice::<Value>(odd.content()).unwrap(), content);
        let stored = Pdu::stored(odd.json().clone(), odd.event_id().clone(), &rules).unwrap();
        prop_assert_eq!(format!("{stored:?}"), format!("{odd:?}"));
    }

    /// What we read, ruma's format check takes too.
    #[test]
    fn what_we_read_ruma_takes(
        version in prop::sample::select(SUPPORTED.to_vec()),
        field in prop::sample::select(vec!["type", "room_id", "sender", "state_key", "depth", "origin_server_ts", "content",
            "prev_events", "auth_events", "hashes", "signatures", "unsigned", "redacts", "event_id", "origin"]),
        value in prop_oneof![value(), Just(json!([])), Just(json!([ID])), Just(json!("m.room.create")), Just(json!(ROOM))],
    ) {
        let event = with(field, value);
        let bytes = serde_json::to_vec(&event).unwrap();
        if let Ok(received) = Received::read(bytes.clone().into(), &rules(version.clone())) {
            let object: CanonicalJsonObject = serde_json::from_slice(&bytes).unwrap();
            let mut format = version.rules().unwrap().event_format;
            // Auth rules refuse this for us, so that the event is rejected and not dropped.
            format.allow_room_create_in_auth_events = true;
            let theirs = ruma_state_res::check_pdu_format(&object, &format);
            prop_assert!(theirs.is_ok(), "{:?} {:?}", theirs, received.pdu());
        }
    }

    /// Trusted reading of bytes that cannot be trusted gives an error or an event, never a panic or an endless loop.
    #[test]
    fn trusted_reading_survives_anything(seed in any::<u64>(), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let rules = rules(RoomVersionId::V12);
        let mut bytes = spelled(&event(), seed).into_bytes();
        let at = cut.index(bytes.len());
        let id = EventId::parse(ID).unwrap();
        let _ = Pdu::stored(bytes[..at].to_vec().into(), id.clone(), &rules);
        bytes[at] = byte;
        let _ = Pdu::stored(bytes.clone().into(), id, &rules);
        let _ = Pdu::read(bytes.into(), &rules);
    }
}
