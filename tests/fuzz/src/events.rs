//! Events and what is in them.

use bytes::Bytes;
use stoa_event::{
    acl::ServerAcl,
    auth::{Membership, PowerLevels},
    format::Received,
    ids::ServerName,
    json::{self, Value},
    pdu::Pdu,
    redact::redact,
    sign::KnownKey,
    version::{Rules, SUPPORTED},
};

/// The first byte says of which version the room is, the others are an event.
pub(crate) fn pdu(data: &[u8]) {
    let Some((first, event)) = data.split_first() else { return };
    // Letters and digits, so that the corpus can be read.
    let version = &SUPPORTED[usize::from(first.wrapping_sub(b'a')) % SUPPORTED.len()];
    let Some(rules) = Rules::of(version) else { return };
    let Ok(received) = Received::read(Bytes::copy_from_slice(event), &rules) else { return };
    let pdu = received.pdu();
    // Nobody's keys are known: it is read, and not believed.
    let nobody = |_: &ServerName, _: &str| None::<KnownKey>;
    let _ = (received.content_hash(), received.wanted_keys(), received.signers().map(<[_]>::len));
    let believed = received.verify(&rules, &nobody).is_ok();
    assert!(!believed || received.signers().is_ok_and(<[_]>::is_empty), "signed by nobody, and believed");
    // What is kept can be read again, and is the same event.
    let again = Pdu::read(pdu.json().clone(), &rules);
    assert_eq!(again.map(|again| again.event_id().clone()).ok().as_ref(), Some(pdu.event_id()));
    assert!(Pdu::stored(pdu.json().clone(), pdu.event_id().clone(), &rules).is_ok());
    assert!(serde_json::from_slice::<&serde_json::value::RawValue>(pdu.json()).is_ok(), "a client could not read it");
    assert!(serde_json::from_slice::<&serde_json::value::RawValue>(pdu.content()).is_ok());
    // So is its canonical form, where the version has one.
    if rules.strict_json {
        let canonical = json::canonical(pdu.json());
        let canonical = canonical.unwrap_or_else(|why| panic!("an event that cannot be written again: {why}"));
        assert_eq!(json::canonical(&canonical).as_ref(), Ok(&canonical));
        let same = Pdu::read(canonical.into(), &rules);
        assert_eq!(same.map(|same| same.event_id().clone()).ok().as_ref(), Some(pdu.event_id()));
    }
    // What redaction leaves is the same event, and nothing is left to take away.
    let redacted = pdu.redacted(&rules).unwrap_or_else(|why| panic!("an event that cannot be redacted: {why}"));
    assert_eq!(redacted.event_id(), pdu.event_id());
    let twice = redact(redacted.json(), &rules).unwrap_or_default();
    assert_eq!(twice, redacted.json().as_ref(), "redacting twice leaves less than redacting once");
    // Whatever the law reads of it, it reads to the end.
    let _ = PowerLevels::read(&rules, pdu.content());
    let _ = Membership::of_content(pdu.content()).as_str().len();
}

/// Canonical JSON.
pub(crate) fn json(data: &[u8]) {
    if let Ok(canonical) = json::canonical(data) {
        assert_eq!(json::canonical(&canonical).as_ref(), Ok(&canonical), "it is its own canonical form");
        let (before, after) = (parsed(data), parsed(&canonical));
        // The other parser keeps the last of two equal keys where ours refuses them, and has other limits of depth.
        assert!(before.is_none() || before == after, "something else was written than was read");
        let value = Value::parse(&canonical).map(|value| value.to_canonical());
        assert_eq!(value.as_ref(), Ok(&canonical));
    }
    if let Ok(canonical) = json::canonical_request(data) {
        assert_eq!(json::canonical_request(&canonical).as_ref(), Ok(&canonical));
    }
}

fn parsed(json: &[u8]) -> Option<serde_json::Value> {
    serde_json::from_slice(json).ok()
}

/// A line with the name of a server, then the content of an ACL.
pub(crate) fn acl(data: &[u8]) {
    let (name, content) = super::line(data);
    let Ok(acl) = ServerAcl::parse(content) else { return };
    let Some(name) = str::from_utf8(name).ok().and_then(|name| <&ServerName>::try_from(name).ok()) else { return };
    let allows = acl.allows(name);
    let shouted = name.as_str().to_ascii_uppercase();
    if let Ok(shouted) = <&ServerName>::try_from(shouted.as_str()) {
        assert_eq!(acl.allows(shouted), allows, "case matters");
    }
}
