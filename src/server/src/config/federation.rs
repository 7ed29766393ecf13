//! The section `[federation]`: which other servers we speak with, and how they are reached.

use std::{net::IpAddr, path::PathBuf, str::FromStr};

use ipnet::IpNet;
use serde::Deserialize;
use stoa_event::ids::OwnedServerName;

use super::Error;

/// Other servers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FederationConfig {
    /// Whether we speak with other servers at all.
    pub enabled: bool,
    /// If not empty: only with servers whose name matches one of these.
    pub allow: Vec<Pattern>,
    /// Never with servers whose name matches one of these.
    pub deny: Vec<Pattern>,
    /// Addresses that are reached although they are not public, or denied.
    pub ip_range_allow: Vec<IpRange>,
    /// Addresses that are not reached, beside those that are not public.
    pub ip_range_deny: Vec<IpRange>,
    /// PEM files of authorities whose certificates are accepted beside those that the system trusts.
    pub extra_ca: Vec<PathBuf>,
    /// Servers that are asked for the keys of servers that do not answer.
    pub trusted_key_servers: Vec<String>,
    /// How many days a server may be gone before messages to devices of its users are dropped; `0`: never.
    pub give_up_days: u64,
    /// What `/.well-known/matrix/server` says: where other servers find this one.
    pub well_known: Option<String>,
}

/// Server names: `*` stands for any characters, `?` for one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(String);

/// Addresses with the same beginning, written as `10.0.0.0/8`; without a length it is one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct IpRange(pub IpNet);

impl Default for FederationConfig {
    fn default() -> Self {
        FederationConfig {
            enabled: true,
            allow: Vec::new(),
            deny: Vec::new(),
            ip_range_allow: Vec::new(),
            ip_range_deny: Vec::new(),
            extra_ca: Vec::new(),
            trusted_key_servers: Vec::new(),
            give_up_days: 60,
            well_known: None,
        }
    }
}

impl FederationConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        self.notaries()?;
        self.delegate()?;
        for path in &self.extra_ca {
            if let Err(why) = std::fs::File::open(path) {
                let why = format!("cannot read {}: {why}", path.display());
                return Err(Error::Value { option: "federation.extra_ca", why });
            }
        }
        Ok(())
    }

    /// The name under which other servers find this one, if it is not its own.
    ///
    /// # Errors
    /// Where it is none.
    pub fn delegate(&self) -> Result<Option<OwnedServerName>, Error> {
        let parse = |name: &String| {
            OwnedServerName::try_from(name.as_str()).map_err(|_| Error::Value {
                option: "federation.well_known",
                why: format!("`{name}` cannot be the name of a server; it is written like matrix.example.org:443"),
            })
        };
        self.well_known.as_ref().map(parse).transpose()
    }

    /// The names of the trusted key servers.
    ///
    /// # Errors
    /// Where one is none.
    pub fn notaries(&self) -> Result<Vec<OwnedServerName>, Error> {
        let parse = |name: &String| {
            OwnedServerName::try_from(name.as_str()).map_err(|_| Error::Value {
                option: "federation.trusted_key_servers",
                why: format!("`{name}` cannot be the name of a server"),
            })
        };
        self.trusted_key_servers.iter().map(parse).collect()
    }
}

impl Pattern {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-.:[]*?".contains(c);
        if text.is_empty() || !text.chars().all(fits) {
            return Err(format!("`{text}` matches no server; it is written like example.org or *.example.org"));
        }
        Ok(Pattern(text))
    }
}

impl FromStr for IpRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        range.map(IpRange).ok_or_else(|| format!("`{text}` is not a range of addresses; it is written like 10.0.0.0/8"))
    }
}

impl TryFrom<String> for IpRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let range = |text: &str| text.parse::<IpRange>().ok().map(|range| range.0.to_string());
        assert_eq!(range("10.0.0.0/8").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(range("127.0.0.1").as_deref(), Some("127.0.0.1/32"));
        assert_eq!(range("fe80::/10").as_deref(), Some("fe80::/10"));
        for bad in ["10.0.0.0/33", "::/129", "10.0.0/8", "x", "10.0.0.0/", "10.0.0.0/-1", ""] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }

    #[test]
    fn patterns_look_like_servers() {
        assert!(Pattern::try_from("*.example.org".to_owned()).is_ok());
        assert!(Pattern::try_from("[::1]:8448".to_owned()).is_ok());
        assert!(Pattern::try_from("https://example.org".to_owned()).is_err());
        assert!(Pattern::try_from(String::new()).is_err());
    }
}
