//! Which servers this one speaks with, and which URLs it gets: the allow and deny lists of the settings.

use reqwest::Url;
use stoa_event::ids::ServerName;

use crate::{config::Config, transport::TransportError};

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

/// Lists of URLs. Without any, all are allowed.
#[derive(Debug, Default)]
pub(crate) struct Urls {
    allow: Vec<String>,
    deny: Vec<String>,
}

impl Urls {
    pub(crate) fn new(allow: &[String], deny: &[String]) -> Urls {
        Urls { allow: allow.to_vec(), deny: deny.to_vec() }
    }

    /// Looks whether a URL may be had.
    pub(crate) fn check(&self, url: &Url) -> Result<(), TransportError> {
        let among = |list: &[String]| list.iter().any(|pattern| matches_url(pattern, url));
        match !among(&self.deny) && (self.allow.is_empty() || among(&self.allow)) {
            true => Ok(()),
            false => Err(TransportError::NotAllowed),
        }
    }
}

/// Whether a URL matches a pattern of a host, of a host and a path, or of a whole URL. The URL parser has written scheme and
/// host in small letters; a dot at the end of a host changes nothing.
fn matches_url(pattern: &str, url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    if pattern.contains("://") {
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        return matches(pattern, &format!("{}://{host}{port}{}{query}", url.scheme(), url.path()));
    }
    match pattern.split_once('/') {
        Some((_, _)) => matches(pattern, &format!("{host}{}", url.path())),
        None => matches(&pattern.to_ascii_lowercase(), host),
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
    fn urls_are_named_by_host_path_or_whole() {
        let allowed = |allow: &[&str], deny: &[&str], url: &str| {
            let own = |list: &[&str]| list.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>();
            Urls::new(&own(allow), &own(deny)).check(&Url::parse(url).unwrap()).is_ok()
        };
        assert!(allowed(&[], &[], "http://any.example:1/x"));
        for denied in
            ["http://evil.example/", "https://EVIL.example:8/x", "https://evil.example./", "http://evil%2eexample"]
        {
            assert!(!allowed(&[], &["Evil.example"], denied), "{denied}");
        }
        assert!(allowed(&[], &["evil.example"], "https://www.evil.example/"));
        assert!(!allowed(&[], &["*.evil.example"], "https://www.evil.example/"));
        assert!(!allowed(&[], &["a.example/secret/*"], "https://a.example/secret/x"));
        assert!(!allowed(&[], &["a.example/secret/*"], "https://a.example/open/../secret/x"));
        assert!(allowed(&[], &["a.example/secret/*"], "https://a.example/open"));
        assert!(
            allowed(&["https://*"], &[], "https://a.example/x") && !allowed(&["https://*"], &[], "http://a.example/x")
        );
        assert!(!allowed(&["*.example"], &["b.example"], "http://b.example/"));
        assert!(!allowed(&["a.example"], &[], "http://b.example/?a.example"));
    }

    #[test]
    fn who_speaks_with_nobody_speaks_with_nobody() {
        let config = Config { enabled: false, ..Config::default() };
        assert!(!Lists::new(&config).allows(<&ServerName>::try_from("any.example").unwrap()));
    }
}
