//! Server access control lists (Client-Server API, "Server Access Control Lists (ACLs) for rooms").
//!
//! No regular expressions: a pattern is cut at its stars into pieces, each is looked for once, from left to right. The work
//! for one list of the greatest size that an event can have stays at about a millisecond, whoever wrote it.

#![deny(clippy::indexing_slicing)]

use crate::{
    ids::ServerName,
    json::{JsonError, Object, Value},
};

/// The longest server name that can be in an identifier, and so the longest piece of a pattern that can match.
const LONGEST: usize = 255;

/// An `m.room.server_acl`, made ready for matching. Where a room has none, everybody may speak: nothing to ask here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAcl {
    allow: Vec<Glob>,
    deny: Vec<Glob>,
    allow_ip_literals: bool,
}

impl ServerAcl {
    /// Reads the content of an `m.room.server_acl` event.
    ///
    /// A list that is no array is an empty list, an entry that is no string is passed over, and `allow_ip_literals`
    /// counts as `true` unless it is `false`. So a redacted list denies everybody, as the specification has it.
    ///
    /// # Errors
    /// If the bytes are not a JSON object.
    pub fn parse(content: &[u8]) -> Result<ServerAcl, JsonError> {
        let content = Object::parse_lenient(content)?;
        Ok(ServerAcl {
            allow: globs(content.get("allow")),
            deny: globs(content.get("deny")),
            allow_ip_literals: content.get("allow_ip_literals") != Some(&Value::Bool(false)),
        })
    }

    /// Whether a server may take part in the room. Its port does not matter.
    pub fn allows(&self, server: &ServerName) -> bool {
        if !self.allow_ip_literals && server.is_ip_literal() {
            return false;
        }
        let host = server.host().to_ascii_lowercase();
        let host = host.as_bytes();
        !self.deny.iter().any(|glob| glob.matches(host)) && self.allow.iter().any(|glob| glob.matches(host))
    }
}

fn globs(list: Option<&Value<'_>>) -> Vec<Glob> {
    let entries = list.and_then(Value::as_array).unwrap_or_default();
    entries.iter().filter_map(Value::as_str).filter_map(Glob::new).collect()
}

/// A pattern for server names: `*` is any run of characters, `?` is one character, case does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    /// What must stand at the start; without a star, the whole.
    head: Box<[u8]>,
    /// Whether it has a star.
    star: bool,
    /// What stands between stars.
    middle: Box<[Box<[u8]>]>,
    /// What must stand at the end.
    tail: Box<[u8]>,
}

impl Glob {
    /// `None` for a pattern that is too long to match any server name or user id.
    pub fn new(pattern: &str) -> Option<Glob> {
        if pattern.bytes().filter(|byte| *byte != b'*').count() > LONGEST {
            return None;
        }
        let lower = pattern.to_ascii_lowercase();
        let mut pieces = lower.split('*').map(|piece| Box::<[u8]>::from(piece.as_bytes()));
        let head = pieces.next()?;
        let mut middle: Vec<_> = pieces.collect();
        let tail = middle.pop();
        middle.retain(|piece| !piece.is_empty());
        Some(Glob { head, star: tail.is_some(), middle: middle.into(), tail: tail.unwrap_or_default() })
    }

    /// Whether it matches all of a name, which is given in lower case.
    pub fn matches(&self, host: &[u8]) -> bool {
        if !self.star {
            return host.len() == self.head.len() && fits(&self.head, host);
        }
        let Some((start, rest)) = host.split_at_checked(self.head.len()) else {
            return false;
        };
        let Some((rest, end)) = rest.len().checked_sub(self.tail.len()).and_then(|at| rest.split_at_checked(at)) else {
            return false;
        };
        if !fits(&self.head, start) || !fits(&self.tail, end) {
            return false;
        }
        // The leftmost place for each piece leaves the most room for those that follow.
        let mut rest = rest;
        self.middle.iter().all(|piece| {
            let found = rest.windows(piece.len()).position(|there| fits(piece, there));
            match found.and_then(|at| rest.get(at + piece.len()..)) {
                Some(after) => {
                    rest = after;
                    true
                }
                None => false,
            }
        })
    }
}

/// Whether a piece without stars fits text of its length. Sixteen characters are compared before looking at the
/// outcome, so that the compiler can compare them at once.
fn fits(piece: &[u8], text: &[u8]) -> bool {
    let same = |(p, t): (&u8, &u8)| (p == t) | (*p == b'?');
    let (pieces, piece_rest) = piece.as_chunks::<16>();
    let (texts, text_rest) = text.as_chunks::<16>();
    pieces.iter().zip(texts).all(|(p, t)| p.iter().zip(t).fold(true, |all, pair| all & same(pair)))
        && piece_rest.iter().zip(text_rest).all(same)
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, test_runner::RngSeed};

    use super::*;

    fn acl(content: serde_json::Value) -> ServerAcl {
        ServerAcl::parse(content.to_string().as_bytes()).unwrap()
    }

    fn allows(content: serde_json::Value, server: &str) -> bool {
        acl(content).allows(<&ServerName>::try_from(server).unwrap())
    }

    #[test]
    fn deny_comes_before_allow_and_nothing_is_allowed_by_default() {
        use serde_json::json;
        let list = json!({ "allow": ["*"], "deny": ["evil.com", "*.evil.com"] });
        assert!(allows(list.clone(), "good.com"));
        assert!(!allows(list.clone(), "evil.com"));
        assert!(!allows(list.clone(), "evil.com:8448"));
        assert!(!allows(list.clone(), "EVIL.com:1234"));
        assert!(!allows(list.clone(), "a.b.evil.com"));
        assert!(allows(list, "notevil.com"));
        assert!(!allows(json!({ "deny": [] }), "good.com"));
        assert!(!allows(json!({}), "good.com"));
        assert!(!allows(json!({ "allow": ["other.com"] }), "good.com"));
        assert!(allows(json!({ "allow": ["GOOD.com"] }), "good.com"));
    }

    #[test]
    fn ip_literals() {
        use serde_json::json;
        for literal in ["1.2.3.4", "1.2.3.4:8448", "[::1]", "[2001:db8::1]:8448"] {
            assert!(allows(json!({ "allow": ["*"] }), literal));
            assert!(allows(json!({ "allow": ["*"], "allow_ip_literals": true }), literal));
            assert!(allows(json!({ "allow": ["*"], "allow_ip_literals": "false" }), literal));
            assert!(!allows(json!({ "allow": ["*"], "allow_ip_literals": false }), literal));
        }
        assert!(allows(json!({ "allow": ["*"], "allow_ip_literals": false }), "1.2.3.4.com"));
        assert!(!allows(json!({ "allow": ["*"], "deny": ["[2001:DB8:*]"] }), "[2001:db8::1]:8448"));
    }

    #[test]
    fn malformed_lists() {
        use serde_json::json;
        assert!(!allows(json!({ "allow": "*" }), "good.com"));
        assert!(allows(json!({ "allow": [1, null, "*"], "deny": "*" }), "good.com"));
        assert!(!allows(json!({ "allow": ["*"], "deny": [{}, "good.com"] }), "good.com"));
        assert!(ServerAcl::parse(b"[]").is_err());
    }

    #[test]
    fn the_worst_list_is_quick() {
        // The whole size of an event, of patterns that almost match everywhere.
        let server = "a".repeat(255);
        for pattern in [
            format!("*{}b*", "?".repeat(126)),
            format!("*{}b*", "a".repeat(126)),
            "*a".repeat(63) + "b",
            "*?".repeat(120) + "*b*",
            "*".repeat(250) + "b",
        ] {
            let patterns = vec![pattern.as_str(); 65_536 / (pattern.len() + 3)];
            let list = acl(serde_json::json!({ "deny": patterns, "allow": ["*"] }));
            assert!(list.deny.iter().all(|glob| !glob.matches(server.as_bytes())));
        }
    }

    /// What the specification says, written as plainly as possible.
    fn plainly(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', pattern_rest)), _) => {
                plainly(pattern_rest, text) || text.split_first().is_some_and(|(_, rest)| plainly(pattern, rest))
            }
            (Some((p, pattern_rest)), Some((t, text_rest))) => {
                (p == t || *p == b'?') && plainly(pattern_rest, text_rest)
            }
            _ => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 1000,
            rng_seed: RngSeed::Fixed(0xAC1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        #[test]
        fn globs_match_what_they_should(pattern in "[ab?*]{0,9}", text in "[ab]{0,9}") {
            prop_assert_eq!(Glob::new(&pattern).unwrap().matches(text.as_bytes()), plainly(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn long_globs_match_what_they_should(pattern in "[a?]{15,40}\\*[ab?]{15,20}", text in "a{30,70}b?a{0,5}") {
            prop_assert_eq!(Glob::new(&pattern).unwrap().matches(text.as_bytes()), plainly(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
