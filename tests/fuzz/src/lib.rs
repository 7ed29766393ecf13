//! What other servers send, as bytes of chance: nothing of it may make us fall, take long, or believe something that we could
//! not say again. Each target is a function that panics where that is not so.
//!
//! The corpora are replayed, and changed by chance, by an ordinary test; `scripts/fuzz` has libFuzzer look for more.

mod events;
mod requests;

/// A target: it is given bytes, and panics where something is not as it must be.
pub type Target = fn(&[u8]);

/// The targets: their names, which are also those of their corpora, and what they hold.
pub const TARGETS: [(&str, Target); 8] = [
    ("pdu", events::pdu),
    ("json", events::json),
    ("acl", events::acl),
    ("transaction", requests::transaction),
    ("x_matrix", requests::x_matrix),
    ("well_known", requests::well_known),
    ("keys", requests::keys),
    ("multipart", requests::multipart),
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// The first line, and what follows it.
fn line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[]),
    }
}
