//! Which servers this one speaks with: the allow and deny lists of the settings.

use stoa_event::ids::ServerName;

use crate::config::Config;

/// The lists, in small letters.
pub(crate) struct Lists {
    enabled: bool,
    allow: Vec<String>,
    deny: Vec<String>,
}

impl Lists {
    pub(crate) fn new(config: &Config) -> Lists {
        let lower = |list: &[String]| list.iter().map(|entry| entry.to_ascii_lowercase()).collect();
        Lists { enabled: config.enabled, allow: lower(&config.allow), deny: lower(&config.deny) }
    }

    /// Whether a server may be spoken with.
    pub(crate) fn allows(&self, server: &ServerName) -> bool {
        let (name, host) = (server.as_str().to_ascii_lowercase(), server.host().to_ascii_lowercase());
        let among = |list: &[String]| list.iter().any(|entry| matches(entry, &name) || matches(entry, &host));
        self.enabled && !among(&self.deny) && (self.allow.is_empty() || among(&self.allow))
    }
}

/// Whether a name matches a pattern: `*` stands for any characters, `?` for one. Both are ASCII.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Behind the last star, and where its run ends that is tried now.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(b'?') => (p, n) = (p + 1, n + 1),
            Some(byte) if *byte == name[n] => (p, n) = (p + 1, n + 1),
            _ => match &mut star {
                Some((behind, end)) => {
                    *end += 1;
                    (p, n) = (*behind, *end);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(allow: &[&str], deny: &[&str], server: &str) -> bool {
        let own = |list: &[&str]| list.iter().map(|entry| (*entry).to_owned()).collect();
        let config = Config { allow: own(allow), deny: own(deny), ..Config::default() };
        Lists::new(&config).allows(<&ServerName>::try_from(server).unwrap())
    }

    #[test]
    fn without_lists_everybody_is_welcome() {
        assert!(allows(&[], &[], "any.example"));
    }

    #[test]
    fn entries_name_a_host_or_a_host_with_its_port() {
        assert!(allows(&["a.example"], &[], "a.example"));
        assert!(allows(&["a.example"], &[], "A.example:8448"));
        assert!(allows(&["localhost:1234"], &[], "localhost:1234"));
        assert!(!allows(&["localhost:1234"], &[], "localhost:1235"));
        assert!(!allows(&["a.example"], &[], "b.a.example"));
        assert!(!allows(&["a.example"], &[], "ba.example"));
    }

    #[test]
    fn deny_wins() {
        assert!(!allows(&["*.example"], &["evil.example"], "EVIL.example"));
        assert!(allows(&["*.example"], &["evil.example"], "good.example"));
        assert!(!allows(&[], &["*evil*"], "very-evil.example:1"));
    }

    #[test]
    fn stars() {
        assert!(matches("*", "anything"));
        assert!(matches("a*c*e", "abcde"));
        assert!(!matches("a*c*e", "abcd"));
        assert!(!matches("*.a", "a"));
        assert!(!matches("ab*ba", "aba"));
        assert!(matches("**b", "ab") && matches("a**", "a") && matches("", ""));
        assert!(matches("a?c", "abc") && !matches("a?c", "ac") && matches("?*", "ac") && !matches("?*", ""));
    }

    #[test]
    fn who_speaks_with_nobody_speaks_with_nobody() {
        let config = Config { enabled: false, ..Config::default() };
        assert!(!Lists::new(&config).allows(<&ServerName>::try_from("any.example").unwrap()));
    }
}
