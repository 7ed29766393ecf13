//! Who must have signed an event, and what becomes of missing, unknown, expired and wrong signatures.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ruma_common::{CanonicalJsonObject, serde::Base64};
use serde_json::{Value, json};
use stoa_event::{
    format::Received,
    hash::ContentHash,
    ids::{RoomVersionId, ServerName},
    json::Object,
    pdu::Pdu,
    sign::{
        KeyError, KnownKey, POLICY_KEY_ID, SigningKey, VerifyError, VerifyKey, add_policy_signature, required_signers,
        sign_event, sign_json, signed_by_policy_server, signed_with, verify_json,
    },
    version::Rules,
};

#[path = "common/random.rs"]
mod random;
use random::cases;

const ID: &str = "$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg";

fn rules(version: RoomVersionId) -> Rules {
    Rules::of(&version).unwrap()
}

fn name(server: &str) -> &ServerName {
    <&ServerName>::try_from(server).unwrap()
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32], &n.to_string()).unwrap()
}

/// Known keys: server and key id to key and the time until which it is valid.
type Ring = BTreeMap<(&'static str, String), KnownKey>;

fn ring(keys: &[(&'static str, u8, u64)]) -> Ring {
    let known = |n, valid_until_ts| KnownKey { key: key(n).verify_key(), valid_until_ts };
    keys.iter().map(|(server, n, until)| ((*server, format!("ed25519:{n}")), known(*n, *until))).collect()
}

fn lookup(ring: &Ring) -> impl Fn(&ServerName, &str) -> Option<KnownKey> {
    move |server, id| ring.iter().find(|((s, i), _)| server == *s && id == i).map(|(_, known)| *known)
}

fn event(kind: &str, content: Value) -> Value {
    json!({
        "type": kind, "room_id": "!room:one.org", "sender": "@alice:one.org", "state_key": "@bob:two.org", "depth": 7,
        "origin_server_ts": 1000, "content": content, "prev_events": [ID], "auth_events": [ID],
        "hashes": {"sha256": ""}, "signatures": {},
    })
}

fn signed(event: &Value, rules: &Rules, by: &[(&str, u8)]) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(event).unwrap();
    for (server, n) in by {
        bytes = sign_event(&bytes, rules, name(server), &key(*n)).unwrap();
    }
    bytes
}

fn check(event: Vec<u8>, rules: &Rules, keys: &[(&'static str, u8, u64)]) -> Result<(), VerifyError> {
    Received::read(event.into(), rules).unwrap().check_signatures(rules, &lookup(&ring(keys)))
}

fn signers(event: &Value, version: RoomVersionId) -> Result<Vec<String>, VerifyError> {
    let rules = rules(version);
    let pdu = Pdu::read(event.to_string().into(), &rules).unwrap();
    let of_pdu = required_signers(&pdu, &rules);
    let received = Received::read(event.to_string().into(), &rules).unwrap();
    assert_eq!(received.signers().map(<[_]>::to_vec), of_pdu, "both ways must say the same");
    Ok(of_pdu?.iter().map(ToString::to_string).collect())
}

#[test]
fn the_senders_server_must_sign() {
    let rules = rules(RoomVersionId::V11);
    let plain = event("m.room.message", json!({}));
    assert_eq!(signers(&plain, RoomVersionId::V11).unwrap(), ["one.org"]);
    let known = [("one.org", 1, u64::MAX), ("two.org", 2, u64::MAX)];
    check(signed(&plain, &rules, &[("one.org", 1)]), &rules, &known).unwrap();
    check(signed(&plain, &rules, &[("one.org", 1), ("two.org", 2)]), &rules, &known).unwrap();
    for by in [&[][..], &[("two.org", 2)]] {
        let error = check(signed(&plain, &rules, by), &rules, &known).unwrap_err();
        assert_eq!(error, VerifyError::NotSigned(name("one.org").to_owned()));
    }
}

#[test]
fn restricted_joins_need_the_server_that_let_them_in() {
    let content = json!({ "membership": "join", "join_authorised_via_users_server": "@carol:three.org" });
    let join = event("m.room.member", content.clone());
    assert_eq!(signers(&join, RoomVersionId::V8).unwrap(), ["one.org", "three.org"]);
    assert_eq!(signers(&join, RoomVersionId::V11).unwrap(), ["one.org", "three.org"]);
    assert_eq!(signers(&join, RoomVersionId::V7).unwrap(), ["one.org"]);
    assert_eq!(signers(&event("m.room.message", content), RoomVersionId::V11).unwrap(), ["one.org"]);
    let own = json!({ "membership": "join", "join_authorised_via_users_server": "@carol:one.org" });
    assert_eq!(signers(&event("m.room.member", own), RoomVersionId::V11).unwrap(), ["one.org"]);
    for bad in [json!(1), json!("carol"), json!(null)] {
        let join = event("m.room.member", json!({ "membership": "join", "join_authorised_via_users_server": bad }));
        let error = signers(&join, RoomVersionId::V11).unwrap_err();
        assert_eq!(error, VerifyError::Malformed("content.join_authorised_via_users_server"));
    }

    let rules = rules(RoomVersionId::V11);
    let known = [("one.org", 1, u64::MAX), ("three.org", 3, u64::MAX)];
    let error = check(signed(&join, &rules, &[("one.org", 1)]), &rules, &known).unwrap_err();
    assert_eq!(error, VerifyError::NotSigned(name("three.org").to_owned()));
    check(signed(&join, &rules, &[("one.org", 1), ("three.org", 3)]), &rules, &known).unwrap();
}

#[test]
fn invites_by_third_party_id_need_no_senders_server() {
    let invite = json!({ "membership": "invite", "third_party_invite": { "signed": {} } });
    assert!(signers(&event("m.room.member", invite.clone()), RoomVersionId::V11).unwrap().is_empty());
    assert_eq!(signers(&event("m.room.message", invite), RoomVersionId::V11).unwrap(), ["one.org"]);
    for other in [
        json!({ "membership": "join", "third_party_invite": { "signed": {} } }),
        json!({ "membership": "invite", "third_party_invite": true }),
        json!({ "membership": "invite" }),
    ] {
        assert_eq!(signers(&event("m.room.member", other), RoomVersionId::V11).unwrap(), ["one.org"]);
    }
}

#[test]
fn versions_1_and_2_need_the_event_ids_server() {
    let mut old = event("m.room.message", json!({}));
    old["prev_events"] = json!([]);
    old["auth_events"] = json!([]);
    old["event_id"] = json!("$x:four.org");
    assert_eq!(signers(&old, RoomVersionId::V1).unwrap(), ["one.org", "four.org"]);
    assert_eq!(signers(&old, RoomVersionId::V2).unwrap(), ["one.org", "four.org"]);
    assert_eq!(signers(&old, RoomVersionId::V3).unwrap(), ["one.org"]);
    old["event_id"] = json!("$x:one.org");
    assert_eq!(signers(&old, RoomVersionId::V1).unwrap(), ["one.org"]);
}

#[test]
fn unknown_keys_are_asked_for_and_passed_over() {
    let rules = rules(RoomVersionId::V11);
    let both = signed(&event("m.room.message", json!({})), &rules, &[("one.org", 1), ("one.org", 9)]);
    let received = Received::read(both.clone().into(), &rules).unwrap();
    let wanted = |n| (name("one.org").to_owned(), format!("ed25519:{n}"));
    assert_eq!(received.wanted_keys().unwrap(), [wanted(1), wanted(9)]);
    assert_eq!(
        check(both.clone(), &rules, &[]).unwrap_err(),
        VerifyError::UnknownKeys {
            server: name("one.org").to_owned(),
            key_ids: vec!["ed25519:1".into(), "ed25519:9".into()]
        }
    );
    check(both.clone(), &rules, &[("one.org", 1, u64::MAX)]).unwrap();
    check(both.clone(), &rules, &[("one.org", 9, u64::MAX)]).unwrap();
    // Another server's key of the same name is not its key.
    assert!(check(both, &rules, &[("two.org", 1, u64::MAX)]).is_err());
    // Other algorithms are passed over, and alone they are no signature.
    let mut odd = event("m.room.message", json!({}));
    odd["signatures"] = json!({ "one.org": { "rsa:1": "AAAA" } });
    let known = [("one.org", 1, u64::MAX)];
    assert_eq!(
        check(signed(&odd, &rules, &[]), &rules, &known).unwrap_err(),
        VerifyError::NotSigned(name("one.org").to_owned())
    );
    check(signed(&odd, &rules, &[("one.org", 1)]), &rules, &known).unwrap();
}

#[test]
fn keys_must_be_valid_at_the_time_from_version_5_on() {
    let plain = event("m.room.message", json!({}));
    for (version, enforced) in [(RoomVersionId::V4, false), (RoomVersionId::V5, true), (RoomVersionId::V12, true)] {
        let rules = rules(version);
        let mut plain = plain.clone();
        if rules.room_id_is_create_hash {
            plain["room_id"] = json!(ID.replace('$', "!"));
        }
        let once = signed(&plain, &rules, &[("one.org", 1)]);
        check(once.clone(), &rules, &[("one.org", 1, 1000)]).unwrap();
        let late = check(once.clone(), &rules, &[("one.org", 1, 999)]);
        if enforced {
            let (server, key_id) = (name("one.org").to_owned(), "ed25519:1".into());
            assert_eq!(late.unwrap_err(), VerifyError::ExpiredKey { server, key_id, valid_until_ts: 999 });
        } else {
            late.unwrap();
        }
        let twice = signed(&plain, &rules, &[("one.org", 1), ("one.org", 2)]);
        check(twice, &rules, &[("one.org", 1, 999), ("one.org", 2, 1000)]).unwrap();
    }
}

#[test]
fn one_wrong_signature_spoils_the_right_ones() {
    let rules = rules(RoomVersionId::V11);
    let known = [("one.org", 1, u64::MAX), ("one.org", 2, u64::MAX)];
    let mut twice: Value =
        serde_json::from_slice(&signed(&event("m.room.message", json!({})), &rules, &[("one.org", 1), ("one.org", 2)]))
            .unwrap();
    check(twice.to_string().into_bytes(), &rules, &known).unwrap();
    let right = twice["signatures"]["one.org"]["ed25519:1"].clone();
    for bad in [json!("AAAA"), json!("%"), json!(""), right, json!(format!("{}A", "A".repeat(88)))] {
        twice["signatures"]["one.org"]["ed25519:2"] = bad.clone();
        let error = check(twice.to_string().into_bytes(), &rules, &known).unwrap_err();
        let (server, key_id) = (name("one.org").to_owned(), "ed25519:2".into());
        assert_eq!(error, VerifyError::Wrong { server, key_id }, "{bad}");
    }
    twice["signatures"]["one.org"]["ed25519:2"] = json!(7);
    assert_eq!(
        check(twice.to_string().into_bytes(), &rules, &known).unwrap_err(),
        VerifyError::Malformed("signatures")
    );
    twice["signatures"]["one.org"] = json!("x");
    assert_eq!(
        check(twice.to_string().into_bytes(), &rules, &known).unwrap_err(),
        VerifyError::Malformed("signatures")
    );
}

#[test]
fn padded_signatures_are_read() {
    let rules = rules(RoomVersionId::V11);
    let once = signed(&event("m.room.message", json!({})), &rules, &[("one.org", 1)]);
    let mut once: Value = serde_json::from_slice(&once).unwrap();
    let signature = once["signatures"]["one.org"]["ed25519:1"].as_str().unwrap().to_owned();
    once["signatures"]["one.org"]["ed25519:1"] = json!(format!("{signature}=="));
    check(once.to_string().into_bytes(), &rules, &[("one.org", 1, u64::MAX)]).unwrap();
}

#[test]
fn a_forged_content_leaves_only_the_redacted_event() {
    let rules = rules(RoomVersionId::V11);
    // The hash in it is wrong from the start.
    let bytes = signed(&event("m.room.message", json!({ "body": "forged" })), &rules, &[("one.org", 1)]);
    let received = Received::read(bytes.into(), &rules).unwrap();
    let id = received.pdu().event_id().clone();
    let (pdu, hash) = received.verify(&rules, &lookup(&ring(&[("one.org", 1, u64::MAX)]))).unwrap();
    assert_eq!(hash, ContentHash::Different);
    assert_eq!((pdu.content(), pdu.event_id()), (&b"{}"[..], &id));
    assert!(!String::from_utf8_lossy(pdu.json()).contains("forged"));
}

#[test]
fn objects_are_signed_beside_others() {
    let once = sign_json(br#"{"b":1,"a":"x","unsigned":{"age":1}}"#, name("one.org"), &key(1)).unwrap();
    let twice = sign_json(&once, name("one.org"), &key(2)).unwrap();
    let thrice = sign_json(&twice, name("two.org"), &key(3)).unwrap();
    let known = ring(&[("one.org", 1, 0), ("one.org", 2, 0), ("two.org", 3, 0)]);
    for server in ["one.org", "two.org"] {
        verify_json(&thrice, name(server), &lookup(&known)).unwrap();
    }
    let changed = String::from_utf8(thrice.clone()).unwrap();
    verify_json(changed.replace("\"age\":1", "\"age\":2").as_bytes(), name("one.org"), &lookup(&known)).unwrap();
    let changed = changed.replace("\"a\":\"x\"", "\"a\":\"y\"");
    assert!(verify_json(changed.as_bytes(), name("one.org"), &lookup(&known)).is_err());

    let object = Object::parse(&thrice).unwrap();
    assert!([1, 2, 3].into_iter().all(|n| signed_with(&object, &key(n).verify_key())));
    assert!(!signed_with(&object, &key(4).verify_key()));
    assert!(!signed_with(&Object::new(), &key(1).verify_key()));

    for bad in [r#"{"signatures":1}"#, r#"{"signatures":{"one.org":1}}"#, "[]", "x"] {
        assert!(sign_json(bad.as_bytes(), name("one.org"), &key(1)).is_err(), "{bad}");
    }
}

#[test]
fn a_policy_servers_signature_is_found_under_its_name() {
    let rules = rules(RoomVersionId::V11);
    let policy = SigningKey::from_seed(&[5; 32], "policy_server").unwrap();
    let bytes = signed(&event("m.room.message", json!({})), &rules, &[("one.org", 1)]);
    let found = |bytes: &[u8], via: &str, key: &SigningKey| {
        signed_by_policy_server(bytes, &rules, name(via), &key.verify_key())
    };
    assert!(!found(&bytes, "policy.org", &policy));
    let given: Value =
        serde_json::from_slice(&sign_event(&bytes, &rules, name("policy.org"), &policy).unwrap()).unwrap();
    let signature = given["signatures"]["policy.org"][POLICY_KEY_ID].as_str().unwrap();
    let bytes = add_policy_signature(&bytes, &rules, name("policy.org"), signature).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), given);
    assert!(found(&bytes, "policy.org", &policy));
    assert!(!found(&bytes, "one.org", &policy));
    assert!(!found(&bytes, "policy.org", &key(1)));
    // It is the redacted event that is signed: what is redacted later still holds.
    let redacted = stoa_event::redact::redact(&bytes, &rules).unwrap();
    assert!(found(&redacted, "policy.org", &policy));
    assert!(!found(b"x", "policy.org", &policy));
    check(bytes, &rules, &[("one.org", 1, u64::MAX)]).unwrap();
}

#[test]
fn keys_are_read_and_written() {
    let public = key(1).verify_key();
    assert_eq!(VerifyKey::parse(&public.to_base64()).unwrap(), public);
    assert_eq!(VerifyKey::parse(&(public.to_base64() + "=")).unwrap(), public);
    let other = (2..).map(key).map(|key| key.verify_key()).find(|key| key.to_base64().contains(['+', '/'])).unwrap();
    let url_safe = other.to_base64().replace('+', "-").replace('/', "_");
    assert_eq!(VerifyKey::parse_any(&url_safe).unwrap(), other);
    assert!(VerifyKey::parse(&url_safe).is_err());
    assert_eq!(VerifyKey::parse("AAAA").unwrap_err(), KeyError::Bytes);
    let no_point = (0..=255_u8).find(|n| VerifyKey::from_bytes(&[*n; 32]).is_err());
    assert!(no_point.is_some());
    for bad in ["", "a-b", "ü", "a b"] {
        assert_eq!(SigningKey::from_seed(&[1; 32], bad).unwrap_err(), KeyError::Version);
    }
}

proptest! {
    #![proptest_config(cases(300))]

    /// A signature with one bit changed, or a key with one: ruma and we refuse it alike.
    #[test]
    fn wrong_bits_are_judged_as_ruma_judges_them(in_key in any::<bool>(), at in 0..512_usize, n in 0..1000_i64) {
        let version = RoomVersionId::V11;
        let rules = rules(version.clone());
        let bytes = signed(&event("m.room.message", json!({ "n": n })), &rules, &[("one.org", 1)]);
        let mut public = *key(1).verify_key().as_bytes();
        let mut event: Value = serde_json::from_slice(&bytes).unwrap();
        if in_key {
            public[at / 8 % 32] ^= 1 << (at % 8);
        } else {
            let old = event["signatures"]["one.org"]["ed25519:1"].as_str().unwrap().to_owned();
            let mut signature = stoa_event::hash::base64_decode(&old).unwrap();
            signature[at / 8] ^= 1 << (at % 8);
            event["signatures"]["one.org"]["ed25519:1"] = json!(stoa_event::hash::base64_encode(&signature));
        }
        let ours = VerifyKey::from_bytes(&public).is_ok_and(|key| {
            let keys = move |_: &ServerName, _: &str| Some(KnownKey { key, valid_until_ts: u64::MAX });
            Received::read(event.to_string().into(), &rules).unwrap().check_signatures(&rules, &keys).is_ok()
        });
        let object: CanonicalJsonObject = serde_json::from_value(event).unwrap();
        let keys = [("ed25519:1".to_owned(), Base64::new(public.to_vec()))].into();
        let theirs = ruma_signatures::verify_event(
            &[("one.org".to_owned(), keys)].into(), &object, &version.rules().unwrap());
        prop_assert_eq!(ours, theirs.is_ok());
        prop_assert!(!ours);
    }
}
