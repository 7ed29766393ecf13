//! The specification's own vectors (appendices, "Canonical JSON" and "Cryptographic Test Vectors").

use serde_json::json;
use stoa_event::{
    hash,
    ids::{RoomVersionId, ServerName},
    json::{Object, Why, canonical},
    sign::{self, KnownKey, SigningKey},
    version::Rules,
};

const SEED: &str = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";

fn key() -> SigningKey {
    SigningKey::parse(&format!("ed25519 1 {SEED}")).unwrap()
}

fn domain() -> &'static ServerName {
    <&ServerName>::try_from("domain").unwrap()
}

fn our_key(server: &ServerName, id: &str) -> Option<KnownKey> {
    (server == domain() && id == "ed25519:1").then(|| KnownKey { key: key().verify_key(), valid_until_ts: u64::MAX })
}

fn canonical_text(input: &str) -> String {
    String::from_utf8(canonical(input.as_bytes()).unwrap()).unwrap()
}

#[test]
fn canonical_json_examples() {
    let examples = [
        ("{}", "{}"),
        ("{\n    \"one\": 1,\n    \"two\": \"Two\"\n}", r#"{"one":1,"two":"Two"}"#),
        (r#"{"b": "2", "a": "1"}"#, r#"{"a":"1","b":"2"}"#),
        (r#"{"b":"2","a":"1"}"#, r#"{"a":"1","b":"2"}"#),
        (
            r#"{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {"display_name": "John Doe",
            "three_pids": [{"medium": "email", "address": "john.doe@example.org"},
            {"medium": "msisdn", "address": "123456789"}]}}}"#,
            r#"{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}"#,
        ),
        (r#"{"a": "日本語"}"#, r#"{"a":"日本語"}"#),
        (r#"{"本": 2, "日": 1}"#, r#"{"日":1,"本":2}"#),
        (r#"{"a": "\u65E5"}"#, r#"{"a":"日"}"#),
        (r#"{"a": null}"#, r#"{"a":null}"#),
    ];
    for (input, output) in examples {
        assert_eq!(canonical_text(input), output);
    }
}

/// The last example of the specification (`{"a": -0, "b": 1e10}`) is for the lenient versions; versions 6 and later must
/// refuse it.
#[test]
fn numbers_in_other_notations_are_refused() {
    assert_eq!(canonical(br#"{"a": -0}"#).unwrap_err().why, Why::NegativeZero);
    assert_eq!(canonical(br#"{"b": 1e10}"#).unwrap_err().why, Why::Float);
}

#[test]
fn json_signing() {
    let signed = sign::sign_json(b"{}", domain(), &key()).unwrap();
    assert_eq!(
        std::str::from_utf8(&signed).unwrap(),
        r#"{"signatures":{"domain":{"ed25519:1":"K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"}}}"#
    );
    sign::verify_json(&signed, domain(), &our_key).unwrap();

    let signed = sign::sign_json(br#"{"one": 1, "two": "Two"}"#, domain(), &key()).unwrap();
    assert_eq!(
        std::str::from_utf8(&signed).unwrap(),
        r#"{"one":1,"signatures":{"domain":{"ed25519:1":"KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"}},"two":"Two"}"#
    );
    sign::verify_json(&signed, domain(), &our_key).unwrap();
}

/// Puts the content hash in and signs, for events that a draft cannot make (`origin`, no `depth`).
fn hash_and_sign(mut event: serde_json::Value) -> serde_json::Value {
    let rules = Rules::of(&RoomVersionId::V1).unwrap();
    let bytes = serde_json::to_vec(&event).unwrap();
    let hash = hash::base64_encode(&hash::content_hash(&Object::parse(&bytes).unwrap(), &rules));
    event["hashes"] = json!({ "sha256": hash });
    let bytes = serde_json::to_vec(&event).unwrap();
    serde_json::from_slice(&sign::sign_event(&bytes, &rules, domain(), &key()).unwrap()).unwrap()
}

#[test]
fn event_signing_minimal() {
    let signed = hash_and_sign(json!({
        "room_id": "!x:domain", "sender": "@a:domain", "origin": "domain", "origin_server_ts": 1000000,
        "signatures": {}, "hashes": {}, "type": "X", "content": {}, "prev_events": [], "auth_events": [],
        "depth": 3, "unsigned": { "age_ts": 1000000 }
    }));
    assert_eq!(signed["hashes"]["sha256"], "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos");
    assert_eq!(
        signed["signatures"]["domain"]["ed25519:1"],
        "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg"
    );
    assert_eq!(signed["unsigned"], json!({ "age_ts": 1000000 }));
}

#[test]
fn event_signing_redactable() {
    let signed = hash_and_sign(json!({
        "content": { "body": "Here is the message content" }, "event_id": "$0:domain", "origin": "domain",
        "origin_server_ts": 1000000, "type": "m.room.message", "room_id": "!r:domain", "sender": "@u:domain",
        "signatures": {}, "unsigned": { "age_ts": 1000000 }
    }));
    assert_eq!(signed["hashes"]["sha256"], "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g");
    assert_eq!(
        signed["signatures"]["domain"]["ed25519:1"],
        "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA"
    );
}

#[test]
fn key_lines_survive() {
    let line = key().to_line();
    assert_eq!(SigningKey::parse(&line).unwrap().to_line(), line);
    assert_eq!(key().id(), "ed25519:1");
    assert!(SigningKey::parse("ed25519 a-b YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").is_err());
    assert!(SigningKey::parse("rsa 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").is_err());
    assert!(SigningKey::parse("ed25519 1 YJDB").is_err());
    assert!(!format!("{:?}", key()).contains(SEED), "a debug print must not show the seed");
}
