//! Our hashes, signatures, redactions and events against those of ruma, on random events of every version that it covers.

use proptest::prelude::*;
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, canonical_json, serde::Base64};
use serde_json::{Value, json};
use stoa_event::{
    build::{self, Draft, Given, given_id},
    format::{FormatError, Received},
    hash::{self, ContentHash},
    ids::{EventId, OwnedEventId, RoomId, RoomVersionId, ServerName, UserId},
    json::Object,
    pdu::Pdu,
    redact,
    sign::{KnownKey, SigningKey},
    version::{Rules, SUPPORTED},
};

#[path = "common/random.rs"]
mod random;
use random::{cases, content, kind};

const EVENT_ID: &str = "$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg";

fn server() -> &'static ServerName {
    <&ServerName>::try_from("example.org").unwrap()
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32], "a_1").unwrap()
}

fn our_key(server_name: &ServerName, id: &str) -> Option<KnownKey> {
    (server_name == server() && id == "ed25519:a_1")
        .then(|| KnownKey { key: key().verify_key(), valid_until_ts: u64::MAX })
}

fn ruma_keys() -> ruma_signatures::PublicKeyMap {
    let key = Base64::new(key().verify_key().as_bytes().to_vec());
    [("example.org".to_owned(), [("ed25519:a_1".to_owned(), key)].into())].into()
}

fn version() -> impl Strategy<Value = RoomVersionId> {
    prop::sample::select(SUPPORTED.to_vec())
}

/// Seals in any version. Ids and hashes are given where they must be.
fn seal(draft: Draft, rules: &Rules, server: &ServerName, key: &SigningKey) -> Result<Pdu, FormatError> {
    let given = Given {
        event_id: given_id("given", server)?,
        prev_hashes: vec![Some([1; 32]); draft.prev_events.len()],
        auth_hashes: vec![Some([2; 32]); draft.auth_events.len()],
    };
    build::seal_given(draft, &given, rules, server, key)
}

fn draft(version: &RoomVersionId, kind: &str, content: &Value) -> Draft {
    let rules = Rules::of(version).unwrap();
    let create = rules.room_id_is_create_hash && kind == "m.room.create";
    let room = if rules.room_id_is_create_hash { EVENT_ID.replace('$', "!") } else { "!room:example.org".to_owned() };
    let ids = |n: usize| vec![EventId::parse(EVENT_ID).unwrap(); n];
    Draft {
        room_id: (!create).then(|| RoomId::parse(&room).unwrap()),
        sender: UserId::parse("@alice:example.org").unwrap(),
        kind: kind.to_owned(),
        state_key: kind.starts_with("m.room.").then(|| "ключ\n\"".to_owned()),
        content: serde_json::to_vec(content).unwrap(),
        prev_events: ids(2),
        auth_events: ids(3),
        depth: 12,
        origin_server_ts: 1_700_000_000_000,
        redacts: None,
    }
}

fn ruma_object(json: &[u8]) -> CanonicalJsonObject {
    serde_json::from_slice(json).unwrap()
}

/// ruma keeps a `third_party_invite` that is no object, Synapse and we do not: kept out of the comparison.
fn comparable(mut content: Value) -> Value {
    if content.get("third_party_invite").is_some_and(|invite| !invite.is_object()) {
        content["third_party_invite"] = json!({});
    }
    content
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn sealed_events_are_what_ruma_makes(version in version(), kind in kind(), content in content()) {
        let mut content = comparable(content);
        if kind == "m.room.member" {
            // ruma verifies no member event without one.
            content["membership"] = json!("invite");
        }
        let rules = Rules::of(&version).unwrap();
        let ruma_rules = version.rules().unwrap();
        let pdu = seal(draft(&version, &kind, &content), &rules, server(), &key()).unwrap();

        // The same bytes, the same hash, the same signature when ruma does it from the bare event.
        let mut object = ruma_object(pdu.json());
        object.remove("hashes");
        object.remove("signatures");
        let pair = ruma_signatures::Ed25519KeyPair::from_der(&pkcs8(&[7; 32]), "a_1".to_owned()).unwrap();
        ruma_signatures::hash_and_sign_event("example.org", &pair, &mut object, &ruma_rules.redaction).unwrap();
        prop_assert_eq!(serde_json::to_vec(&object).unwrap(), pdu.json().to_vec());

        // The same id, or where it is given the same hash for references to it.
        let hash = ruma_signatures::reference_hash(&object, &ruma_rules).unwrap();
        if rules.reference_pairs {
            prop_assert_eq!(hash, hash::base64_encode(&pdu.reference_hash(&rules).unwrap()));
        } else {
            prop_assert_eq!(format!("${hash}"), pdu.event_id().as_str());
        }

        // ruma accepts it, and so do we, and reading gives back what was made.
        let verified = ruma_signatures::verify_event(&ruma_keys(), &object, &ruma_rules);
        prop_assert_eq!(verified.unwrap(), ruma_signatures::Verified::All);
        let (read, hash) = Received::read(pdu.json().clone(), &rules).unwrap().verify(&rules, &our_key).unwrap();
        prop_assert_eq!(hash, ContentHash::Same);
        prop_assert_eq!(format!("{:?}", &read), format!("{:?}", &pdu));
        let stored = Pdu::stored(pdu.json().clone(), pdu.event_id().clone(), &rules).unwrap();
        prop_assert_eq!(format!("{:?}", &stored), format!("{:?}", &pdu));
    }

    #[test]
    fn redaction_is_rumas(version in version(), kind in kind(), content in content()) {
        let content = comparable(content);
        let rules = Rules::of(&version).unwrap();
        let ruma_rules = version.rules().unwrap();
        let event = json!({
            "type": kind, "content": content, "sender": "@a:b", "room_id": "!r:b", "origin": "b", "membership": "join",
            "prev_state": [], "redacts": EVENT_ID, "unsigned": {"age": 1}, "extra": {"a": 1}, "event_id": EVENT_ID,
            "state_key": "", "depth": 1, "prev_events": [], "auth_events": [], "origin_server_ts": 1,
            "hashes": {"sha256": "x"}, "signatures": {"b": {"ed25519:1": "y"}},
        });
        let bytes = serde_json::to_vec(&event).unwrap();
        let theirs = canonical_json::redact(ruma_object(&bytes), &ruma_rules.redaction, None).unwrap();
        prop_assert_eq!(redact::redact(&bytes, &rules).unwrap(), serde_json::to_vec(&theirs).unwrap());

        let left = redact::redact_content(&kind, &serde_json::to_vec(&content).unwrap(), &rules).unwrap();
        let theirs: &CanonicalJsonValue = &theirs["content"];
        prop_assert_eq!(left, serde_json::to_vec(theirs).unwrap());
    }

    #[test]
    fn redacted_events_keep_id_and_signature(version in version(), kind in kind(), content in content()) {
        let rules = Rules::of(&version).unwrap();
        let pdu = seal(draft(&version, &kind, &content), &rules, server(), &key()).unwrap();
        let redacted = pdu.redacted(&rules).unwrap();
        prop_assert_eq!(redacted.event_id(), pdu.event_id());
        let received = Received::read(redacted.json().clone(), &rules).unwrap();
        prop_assert_eq!(received.pdu().event_id(), pdu.event_id());
        received.check_signatures(&rules, &our_key).unwrap();
    }

    #[test]
    fn what_was_changed_is_found_out(version in version(), content in content(), body in "[a-z]{1,9}") {
        let rules = Rules::of(&version).unwrap();
        let pdu = seal(draft(&version, "m.room.message", &content), &rules, server(), &key()).unwrap();
        let mut event: Value = serde_json::from_slice(pdu.json()).unwrap();

        // A changed content: still signed, but only the redacted form may be used.
        event["content"] = json!({ "body": body });
        let changed = serde_json::to_vec(&event).unwrap();
        let object = Object::parse(&changed).unwrap();
        prop_assert_eq!(hash::check_content_hash(&object, &rules), ContentHash::Different);
        let (used, hash) =
            Received::read(changed.into(), &rules).unwrap().verify(&rules, &our_key).unwrap();
        prop_assert_eq!(hash, ContentHash::Different);
        prop_assert_eq!(used.content(), b"{}");
        prop_assert_eq!(used.event_id(), pdu.event_id());

        // A changed field that redaction keeps: neither the id nor the signature holds.
        event["depth"] = json!(13);
        let changed = Received::read(serde_json::to_vec(&event).unwrap().into(), &rules).unwrap();
        prop_assert_eq!(changed.pdu().event_id() == pdu.event_id(), rules.reference_pairs);
        prop_assert!(changed.check_signatures(&rules, &our_key).is_err());
    }

    #[test]
    fn content_hash_is_rumas(content in content(), version in version()) {
        let rules = Rules::of(&version).unwrap();
        let bytes = serde_json::to_vec(&json!({
            "content": content, "hashes": {"sha256": "old"}, "signatures": {"x": {}}, "unsigned": {"age": 1}, "type": "a",
        })).unwrap();
        let ours = hash::base64_encode(&hash::content_hash(&Object::parse(&bytes).unwrap(), &rules));
        prop_assert_eq!(ours, ruma_signatures::content_hash(&ruma_object(&bytes)).unwrap().encode());
    }
}

/// PKCS#8, which is the only form that ruma reads keys in.
fn pkcs8(seed: &[u8; 32]) -> Vec<u8> {
    let head = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    head.into_iter().chain(*seed).collect()
}

#[test]
fn version_3_ids_are_in_standard_base64() {
    for (version, ruma) in [(RoomVersionId::V3, "V3"), (RoomVersionId::V4, "V4"), (RoomVersionId::V5, "V5")] {
        let rules = Rules::of(&version).unwrap();
        for n in 0..200 {
            let pdu = seal(draft(&version, "m.room.message", &json!({ "n": n })), &rules, server(), &key()).unwrap();
            let hash = ruma_signatures::reference_hash(&ruma_object(pdu.json()), &version.rules().unwrap()).unwrap();
            assert_eq!(pdu.event_id().as_str(), format!("${hash}"), "version {ruma}");
            let read = Pdu::read(pdu.json().clone(), &rules).unwrap();
            assert_eq!(read.event_id(), pdu.event_id());
        }
    }
}

#[test]
fn redactions_carry_what_they_redact_where_the_version_keeps_it() {
    let target: OwnedEventId = EventId::parse(EVENT_ID).unwrap();
    for version in SUPPORTED {
        let rules = Rules::of(&version).unwrap();
        let draft = Draft {
            redacts: Some(target.clone()),
            state_key: None,
            ..draft(&version, "m.room.redaction", &json!({ "reason": "spam" }))
        };
        let pdu = seal(draft, &rules, server(), &key()).unwrap();
        assert_eq!(pdu.redacts(), Some(&target));
        let event: Value = serde_json::from_slice(pdu.json()).unwrap();
        let (kept, not) = if rules.redaction.updated {
            (&event["content"]["redacts"], &event["redacts"])
        } else {
            (&event["redacts"], &event["content"]["redacts"])
        };
        assert_eq!((kept, not), (&json!(EVENT_ID), &Value::Null), "version {version}");
        let object = ruma_object(pdu.json());
        assert_eq!(serde_json::to_vec(&object).unwrap(), pdu.json().to_vec(), "not canonical");
        let verified = ruma_signatures::verify_event(&ruma_keys(), &object, &version.rules().unwrap());
        assert_eq!(verified.unwrap(), ruma_signatures::Verified::All);
        let read = Pdu::read(pdu.json().clone(), &rules).unwrap();
        let stored = Pdu::stored(pdu.json().clone(), pdu.event_id().clone(), &rules).unwrap();
        for again in [read, stored] {
            assert_eq!((again.redacts(), again.event_id()), (Some(&target), pdu.event_id()));
        }
    }
}
