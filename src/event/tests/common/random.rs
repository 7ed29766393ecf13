//! Random JSON and events for the property tests: the values that have gone wrong somewhere are likely.

#![allow(dead_code)]

use proptest::{prelude::*, test_runner::RngSeed};
use serde_json::{Map, Value, json};

/// A fixed seed and few cases in CI; `STOA_LONG=1` runs twenty times as many from a fresh seed.
pub fn cases(n: u32) -> ProptestConfig {
    let long = std::env::var_os("STOA_LONG").is_some_and(|v| v == "1");
    ProptestConfig {
        cases: if long { n * 20 } else { n },
        rng_seed: if long { RngSeed::Random } else { RngSeed::Fixed(0x570A) },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Text with control characters, quotes, escapes, characters below `"`, and some beyond the basic plane.
pub fn text() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        4 => prop::char::range('a', 'f'),
        2 => prop::char::range('\0', '\u{7f}'),
        1 => prop::sample::select(vec!['"', '\\', '/', ' ', '!', '#', '\n', '\r', '\t', '\u{8}', '\u{c}', '\0', '\u{1f}', '\u{7f}']),
        1 => prop::sample::select(vec!['\u{80}', 'é', '日', '\u{2028}', '\u{d7ff}', '\u{e000}', '\u{ffff}', '\u{10000}', '😀', '\u{10ffff}']),
        1 => any::<char>(),
    ];
    prop::collection::vec(character, 0..20).prop_map(|chars| chars.into_iter().collect())
}

/// Integers at the borders and between them.
pub fn int() -> impl Strategy<Value = i64> {
    const MAX: i64 = (1 << 53) - 1;
    prop_oneof![Just(0), Just(-1), Just(9), Just(10), Just(MAX), Just(-MAX), -1000..1000_i64, -MAX..=MAX,]
}

/// Any value that canonical JSON allows.
pub fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        int().prop_map(Value::from),
        text().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 40, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((text(), inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Event types that redaction knows, and others.
pub fn kind() -> impl Strategy<Value = String> {
    prop_oneof![
        10 => prop::sample::select(vec![
            "m.room.create", "m.room.member", "m.room.join_rules", "m.room.power_levels", "m.room.aliases",
            "m.room.history_visibility", "m.room.redaction", "m.room.server_acl", "m.room.message", "m.room.encrypted",
        ]).prop_map(str::to_owned),
        1 => text().prop_filter("at most 255 bytes", |t| t.len() <= 255),
    ]
}

/// A content with keys that redaction knows, and others.
pub fn content() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        4 => prop::sample::select(vec![
            "creator", "room_version", "membership", "join_authorised_via_users_server_", "third_party_invite",
            "join_rule", "allow", "ban", "events", "events_default", "invite", "kick", "redact", "state_default", "users",
            "users_default", "notifications", "aliases", "history_visibility", "redacts_", "body", "deny", "reason",
        ]).prop_map(str::to_owned),
        1 => text(),
    ];
    let special = prop_oneof![
        Just(json!({ "signed": { "token": "t" }, "display_name": "x" })),
        Just(json!({ "display_name": "x" })),
        Just(json!("leave")),
    ];
    prop::collection::vec((key, prop_oneof![3 => value(), 1 => special]), 0..8)
        .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>()))
}

/// The same value as text in one of the many ways that JSON allows: members shuffled, white space, needless escapes.
pub fn spelled(value: &Value, seed: u64) -> String {
    let mut out = String::new();
    spell(value, &mut Dice(seed | 1), &mut out);
    out
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn spell(value: &Value, dice: &mut Dice, out: &mut String) {
    space(dice, out);
    match value {
        Value::String(text) => spell_text(text, dice, out),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                spell(item, dice, out);
            }
            space(dice, out);
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            let mut members: Vec<_> = members.iter().collect();
            for i in (1..members.len()).rev() {
                members.swap(i, dice.roll(i as u64 + 1) as usize);
            }
            for (i, (key, item)) in members.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                space(dice, out);
                spell_text(key, dice, out);
                space(dice, out);
                out.push(':');
                spell(item, dice, out);
            }
            space(dice, out);
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
    space(dice, out);
}

fn space(dice: &mut Dice, out: &mut String) {
    if dice.roll(4) == 0 {
        out.push_str([" ", "\n", "\t\r", "        "][dice.roll(4) as usize]);
    }
}

fn spell_text(text: &str, dice: &mut Dice, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        let plain = !matches!(c, '\0'..='\u{1f}' | '"' | '\\');
        match dice.roll(6) {
            0 => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&if dice.roll(2) == 0 { format!("\\u{unit:04x}") } else { format!("\\u{unit:04X}") });
                }
            }
            1 if c == '/' => out.push_str("\\/"),
            _ if plain => out.push(c),
            _ => {
                let quoted = Value::String(c.to_string()).to_string();
                out.push_str(&quoted[1..quoted.len() - 1]);
            }
        }
    }
    out.push('"');
}
