//! How long the steps of one event take: `cargo run --release -p stoa-event --example speed`.
//!
//! Each figure is the best of several windows on one core, which is what stays when the machine is busy.

#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used)]

use std::{hint::black_box, time::Instant};

use serde_json::json;
use stoa_event::{
    acl::ServerAcl,
    build::{Draft, seal},
    format::Received,
    hash,
    ids::{EventId, RoomId, RoomVersionId, ServerName, UserId},
    json::{Object, canonical},
    pdu::Pdu,
    redact::redact,
    sign::{KnownKey, SigningKey},
    version::Rules,
};

fn time<T>(what: &str, mut run: impl FnMut() -> T) {
    let mut rounds = 1_u32;
    let mut best = f64::INFINITY;
    for _ in 0..12 {
        let start = Instant::now();
        for _ in 0..rounds {
            black_box(run());
        }
        let seconds = start.elapsed().as_secs_f64();
        if seconds < 0.02 {
            rounds *= 4;
            continue;
        }
        best = best.min(seconds / f64::from(rounds));
    }
    println!("{what:<52} {:>9.2} us", best * 1e6);
}

fn main() {
    let rules = Rules::of(&RoomVersionId::V11).unwrap();
    let server = <&ServerName>::try_from("matrix.example.org").unwrap();
    let key = SigningKey::from_seed(&[7; 32], "a_abcd").unwrap();
    let id = EventId::parse("$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg").unwrap();
    let body =
        "Some words of a message, as people write them.\nIt has a second line, \"quotes\" and ünïcode. ".repeat(2);
    let content = json!({
        "msgtype": "m.text", "body": body, "format": "org.matrix.custom.html", "formatted_body": format!("<p>{body}</p>"),
        "m.mentions": {"user_ids": ["@bob:matrix.example.org"]},
        "m.relates_to": {"rel_type": "m.thread", "event_id": id, "is_falling_back": true, "m.in_reply_to": {"event_id": id}},
    });
    let draft = Draft {
        room_id: Some(RoomId::parse("!abcdefghijklmnopqr:matrix.example.org").unwrap()),
        sender: UserId::parse("@alice:matrix.example.org").unwrap(),
        kind: "m.room.message".to_owned(),
        state_key: None,
        content: serde_json::to_vec(&content).unwrap(),
        prev_events: vec![id.clone()],
        auth_events: vec![id.clone(), id.clone(), id.clone()],
        depth: 1234,
        origin_server_ts: 1_700_000_000_000,
        redacts: None,
    };
    let pdu = seal(draft.clone(), &rules, server, &key).unwrap();
    let json = pdu.json().clone();
    let object = Object::parse(&json).unwrap();
    let known = KnownKey { key: key.verify_key(), valid_until_ts: u64::MAX };
    let keys = move |_: &ServerName, _: &str| Some(known);
    println!("an event of {} bytes", json.len());

    time("json: parse", || Object::parse(&json).unwrap());
    time("json: write canonical", || {
        let mut out = Vec::with_capacity(json.len());
        object.write_canonical(&mut out);
        out
    });
    time("json: canonical (parse and write)", || canonical(&json).unwrap());
    time("json: canonical and sha256", || hash::sha256(&canonical(&json).unwrap()));
    time("sha256 alone", || hash::sha256(&json));
    time("hash: content hash of a tree", || hash::content_hash(&object, &rules));
    time("hash: reference hash of a tree", || hash::reference_hash(&object, &rules));
    time("redact: bytes to bytes", || redact(&json, &rules).unwrap());
    time("format: Pdu::read (shape and id)", || Pdu::read(json.clone(), &rules).unwrap());
    time("format: Pdu::stored (trusted)", || Pdu::stored(json.clone(), id.clone(), &rules).unwrap());
    time("format: Received::read (shape, id, content hash)", || Received::read(json.clone(), &rules).unwrap());
    time("format: Received::read and verify", || {
        Received::read(json.clone(), &rules).unwrap().verify(&rules, &keys).unwrap()
    });
    time("sign: one signature", || key.sign(&json));
    let signature = key.sign(&json);
    let verify_key = key.verify_key();
    time("sign: one verification", || verify_key.verify(&json, &signature));
    time("build: seal", || seal(draft.clone(), &rules, server, &key).unwrap());
    time("serde_json: parse to a Value, for comparison", || {
        serde_json::from_slice::<serde_json::Value>(&json).unwrap()
    });

    let many: Vec<_> = (0..1000).map(|n| format!("*.evil{n}.example.com")).collect();
    let acl = ServerAcl::parse(json!({ "allow": ["*"], "deny": many }).to_string().as_bytes()).unwrap();
    time("acl: 1000 patterns, none matches", || acl.allows(server));
    for pattern in [format!("*{}b*", "?".repeat(126)), format!("*{}b*", "a".repeat(126)), "*a".repeat(63) + "b"] {
        let count = 65_000 / (pattern.len() + 3);
        let list = json!({ "deny": vec![&pattern; count], "allow": ["*"] }).to_string();
        let acl = ServerAcl::parse(list.as_bytes()).unwrap();
        let name = "a".repeat(230);
        let name = <&ServerName>::try_from(name.as_str()).unwrap();
        time(&format!("acl: worst list, {count} patterns {}...", &pattern[..6]), || acl.allows(name));
    }
}
