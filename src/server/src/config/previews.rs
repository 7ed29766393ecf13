//! The section `[url_previews]`: whether links get previews, and which.

use std::sync::Arc;

use serde::Deserialize;
use stoa_media::PreviewConfig;
use stoa_remote::{dns::SystemDns, outside::Client};

use super::{Config, Error, IpRange, Size};

/// Previews of links.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PreviewsConfig {
    /// Whether there are any.
    pub enabled: bool,
    /// If not empty: only of URLs that match one of these.
    pub allow: Vec<String>,
    /// Never of URLs that match one of these.
    pub deny: Vec<String>,
    /// Addresses that are reached although they are not public, or denied.
    pub ip_range_allow: Vec<IpRange>,
    /// Addresses that are not reached, beside those that are not public.
    pub ip_range_deny: Vec<IpRange>,
    /// The languages that pages are asked for.
    pub languages: String,
    /// How much of a page is read.
    pub max_page: Size,
    /// The largest picture.
    pub max_picture: Size,
}

impl Default for PreviewsConfig {
    fn default() -> Self {
        PreviewsConfig {
            enabled: false,
            allow: Vec::new(),
            deny: Vec::new(),
            ip_range_allow: Vec::new(),
            ip_range_deny: Vec::new(),
            languages: "en".to_owned(),
            max_page: Size(1 << 20),
            max_picture: Size(10 << 20),
        }
    }
}

impl PreviewsConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        let bad = |option, why: &str| Err(Error::Value { option, why: why.to_owned() });
        if !self.languages.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return bad("url_previews.languages", "it is written like `de, en;q=0.5`");
        }
        if self.max_page.0 > 16 << 20 || self.max_picture.0 > 64 << 20 {
            return bad(
                "url_previews",
                "max_page is at most 16M and max_picture at most 64M: they are read into memory",
            );
        }
        Ok(())
    }
}

impl Config {
    /// What this means for previews, if there are any.
    ///
    /// # Errors
    /// Where certificates, TLS or DNS cannot be had.
    pub fn previews(&self) -> Result<Option<PreviewConfig>, String> {
        let previews = &self.url_previews;
        if !previews.enabled {
            return Ok(None);
        }
        let ranges = |ranges: &[IpRange]| ranges.iter().map(|range| range.0).collect::<Vec<_>>();
        // The addresses that are allowed for federation are not allowed for everybody who writes a link.
        let outside = stoa_remote::Config {
            ip_range_allow: ranges(&previews.ip_range_allow),
            ip_range_deny: ranges(&[&*self.federation.ip_range_deny, &*previews.ip_range_deny].concat()),
            extra_ca: self.federation.extra_ca.clone(),
            ..stoa_remote::Config::default()
        };
        let dns = Arc::new(SystemDns::new().map_err(|why| why.to_string())?);
        let web = Client::new(&outside, dns).map_err(|why| why.to_string())?.only(&previews.allow, &previews.deny);
        Ok(Some(PreviewConfig {
            languages: previews.languages.clone(),
            max_page: usize::try_from(previews.max_page.0).unwrap_or(usize::MAX),
            max_picture: previews.max_picture.0,
            ..PreviewConfig::with(web)
        }))
    }
}
