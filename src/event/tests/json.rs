//! Canonical JSON against ruma's on random values, and against serde_canonical_json where that is right.

use proptest::prelude::*;
use ruma_common::CanonicalJsonValue;
use serde_json::{Value as Json, json};
use stoa_event::json::{JsonError, MAX_DEPTH, MAX_INT, Object, Value, Why, canonical};

#[path = "common/random.rs"]
mod random;
use random::{cases, spelled, text, value};

fn rumas(json: &[u8]) -> Option<Vec<u8>> {
    let value: CanonicalJsonValue = serde_json::from_slice(json).ok()?;
    Some(serde_json::to_vec(&value).unwrap())
}

fn why(json: &str) -> Why {
    canonical(json.as_bytes()).unwrap_err().why
}

/// Whether serde_canonical_json agrees with the specification about a value: no control characters, and no keys with
/// characters that sort before the closing quote or are escaped.
fn packages_ground(value: &Json) -> bool {
    let calm = |text: &str| !text.chars().any(|c| c < ' ');
    match value {
        Json::String(text) => calm(text),
        Json::Array(items) => items.iter().all(packages_ground),
        Json::Object(members) => members
            .iter()
            .all(|(key, value)| calm(key) && !key.contains([' ', '!', '"', '\\']) && packages_ground(value)),
        _ => true,
    }
}

proptest! {
    // The package is slow.
    #![proptest_config(cases(200))]

    #[test]
    fn it_is_serde_canonical_jsons_on_common_ground(value in value().prop_filter("common ground", packages_ground)) {
        use serde::Serialize;
        let formatter = serde_canonical_json::CanonicalFormatter::new();
        let mut serializer = serde_json::Serializer::with_formatter(Vec::new(), formatter);
        value.serialize(&mut serializer).unwrap();
        prop_assert_eq!(Value::from_serde(&value).unwrap().to_canonical(), serializer.into_inner());
    }
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn it_is_rumas_however_it_is_spelled(value in value(), seed in any::<u64>()) {
        let spelled = spelled(&value, seed);
        let ours = canonical(spelled.as_bytes()).unwrap();
        prop_assert_eq!(Some(ours.clone()), rumas(spelled.as_bytes()));
        prop_assert!(ours.len() <= spelled.len(), "canonical JSON must never be longer");
        prop_assert_eq!(&canonical(&ours).unwrap(), &ours);
        prop_assert_eq!(&Value::from_serde(&value).unwrap().to_canonical(), &ours);
        prop_assert_eq!(serde_json::from_slice::<Json>(&ours).unwrap(), value);
    }

    /// Valid JSON with a few bytes changed: what ruma refuses we refuse, what ruma takes we take with the same outcome,
    /// save a key that stands twice (ruma keeps the last).
    #[test]
    fn it_refuses_what_ruma_refuses(
        value in value(), seed in any::<u64>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, prop::sample::select(
            b"{}[]\":,\\u0123456789.-+eEdDtrufalsn /\x00\x1f\x7f\x80\xc3\xff\xed".to_vec())), 1..4),
    ) {
        let mut bytes = spelled(&value, seed).into_bytes();
        for (at, how, byte) in changes {
            let at = at.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match how {
                _ if bytes.is_empty() => bytes.push(byte),
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match (canonical(&bytes), rumas(&bytes)) {
            (Ok(ours), theirs) => prop_assert_eq!(Some(ours), theirs, "{}", text),
            (Err(JsonError { why: Why::DuplicateKey(_), .. }), _) => {}
            (Err(e), Some(_)) => prop_assert!(false, "ruma takes {}: {}", text, e),
            (Err(_), None) => {}
        }
    }

    #[test]
    fn objects_stay_in_order(keys in prop::collection::vec(text(), 0..12), gone in text()) {
        let mut object = Object::new();
        let mut map = std::collections::BTreeMap::new();
        for (n, key) in keys.iter().enumerate() {
            let before = object.insert(key.clone(), Value::Int(n as i64));
            prop_assert_eq!(before.and_then(|v| v.as_int()), map.insert(key.clone(), n as i64));
        }
        for key in keys.iter().take(2).chain([&gone]) {
            prop_assert_eq!(object.get(key).and_then(Value::as_int), map.get(key).copied());
            prop_assert_eq!(object.remove(key).and_then(|v| v.as_int()), map.remove(key));
        }
        prop_assert_eq!(Value::Object(object).to_canonical(), serde_json::to_vec(&map).unwrap());
    }
}

#[test]
fn integers_end_at_two_to_the_53() {
    assert_eq!(canonical(b"9007199254740991").unwrap(), b"9007199254740991");
    assert_eq!(canonical(b"-9007199254740991").unwrap(), b"-9007199254740991");
    for beyond in [
        "9007199254740992",
        "-9007199254740992",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "100000000000000000000000000000000000000000000000000000000000",
    ] {
        assert_eq!(why(beyond), Why::IntegerRange, "{beyond}");
    }
    assert_eq!(Value::from_serde(&json!(MAX_INT + 1)).unwrap_err().why, Why::IntegerRange);
    assert_eq!(Value::from_serde(&json!(u64::MAX)).unwrap_err().why, Why::IntegerRange);
    assert_eq!(Value::from_serde(&json!(1.0)).unwrap_err().why, Why::Float);
}

#[test]
fn numbers_have_one_spelling() {
    for float in ["1.0", "0.5", "-1.5", "1e1", "1E1", "1e-1", "0e0", "-0.0", "1.7976931348623157e308"] {
        assert_eq!(why(float), Why::Float, "{float}");
    }
    assert_eq!(why("-0"), Why::NegativeZero);
    for none in ["01", "00", "-01", "+1", ".5", "0x1", "NaN", "Infinity", "-Infinity", "1 2", "- 1", "1,"] {
        assert!(canonical(none.as_bytes()).is_err(), "{none}");
    }
    assert_eq!(why("-"), Why::End);
}

#[test]
fn a_key_may_stand_once() {
    assert_eq!(why(r#"{"a":1,"b":2,"a":3}"#), Why::DuplicateKey("a".into()));
    assert_eq!(why(r#"{"a":1,"a":3}"#), Why::DuplicateKey("a".into()));
    assert_eq!(why(r#"{"x":[{"é":1,"\u00e9":1}]}"#), Why::DuplicateKey("é".into()));
}

#[test]
fn levels_end_where_serde_json_ends() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let nested = |levels: usize| {
            let core = if open == "[" { "" } else { "1" };
            format!("{}{core}{}", open.repeat(levels), close.repeat(levels))
        };
        let deepest = nested(usize::from(MAX_DEPTH));
        assert_eq!(canonical(deepest.as_bytes()).unwrap(), deepest.as_bytes());
        serde_json::from_str::<Json>(&deepest).unwrap();
        let deeper = nested(usize::from(MAX_DEPTH) + 1);
        assert_eq!(why(&deeper), Why::TooDeep);
        serde_json::from_str::<Json>(&deeper).unwrap_err();
        assert_eq!(why(&open.repeat(1_000_000)), Why::TooDeep, "no stack may overflow");
    }
}

#[test]
fn half_of_a_pair_is_refused() {
    for half in
        [r#""\ud800""#, r#""\udc00""#, r#""\ud800x""#, r#""\ud800\n""#, r#""\ud800\ud800""#, r#""\udfff\udc00""#]
    {
        assert_eq!(why(half), Why::LoneSurrogate, "{half}");
    }
    assert_eq!(canonical(br#""\ud83d\ude00""#).unwrap(), "\"😀\"".as_bytes());
    assert_eq!(canonical(br#""\u0000\u001f\u007f""#).unwrap(), b"\"\\u0000\\u001f\x7f\"");
    assert_eq!(canonical(b"\"\xed\xa0\x80\"").unwrap_err().why, Why::Utf8, "a surrogate in UTF-8 is no UTF-8");
}

#[test]
fn control_characters_must_come_escaped() {
    for byte in 0..0x20_u8 {
        assert_eq!(canonical(&[b'"', byte, b'"']).unwrap_err().why, Why::ControlCharacter);
        let escaped = format!("\"\\u{byte:04X}\"");
        assert_eq!(Some(canonical(escaped.as_bytes()).unwrap()), rumas(escaped.as_bytes()));
    }
}

#[test]
fn every_place_of_a_word_is_looked_at() {
    // The scan goes eight bytes at a time: a special byte at each place, after each length.
    for before in 0..20 {
        for (special, escaped) in [("\\\"", "\\\""), ("\\\\", "\\\\"), ("\\u001f", "\\u001f"), ("\\/", "/")] {
            let json =
                format!("\"{}{special}{}\"", "é".repeat(before / 2) + &"x".repeat(before % 2), "!#[]~".repeat(3));
            let expected = json.replace(special, escaped);
            assert_eq!(String::from_utf8(canonical(json.as_bytes()).unwrap()).unwrap(), expected);
        }
    }
}

#[test]
fn errors_say_what_and_where() {
    assert_eq!(canonical(b"").unwrap_err(), JsonError { why: Why::End, at: 0 });
    assert_eq!(canonical(b"{\"a\":1} x").unwrap_err(), JsonError { why: Why::Trailing, at: 8 });
    assert_eq!(canonical(b"{\"a\":tru}").unwrap_err().why, Why::Syntax);
    assert_eq!(canonical(b"{\"a\"").unwrap_err().why, Why::End);
    assert_eq!(Object::parse(b"[]").unwrap_err().why, Why::NotAnObject);
    assert_eq!(
        canonical(b"[1.5]").unwrap_err().to_string(),
        "numbers must be integers, without fraction or exponent (at byte 2)"
    );
}
