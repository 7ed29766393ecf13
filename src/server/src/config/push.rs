//! The section `[push]`: how phones and browsers are told.

use std::sync::Arc;

use serde::Deserialize;
use stoa_remote::{dns::SystemDns, outside::Client};

use super::{Config, Error, IpRange};

/// How phones and browsers are told.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PushConfig {
    /// Whether they are.
    pub enabled: bool,
    /// Whether the URLs that people register must be HTTPS.
    pub require_https: bool,
    /// Whether push gateways are told what a message says, where an app does not ask for less.
    pub include_content: bool,
    /// Whom push services of browsers may ask about this server.
    pub contact: Option<String>,
    /// Addresses that are reached although they are not public, or denied.
    pub ip_range_allow: Vec<IpRange>,
    /// Addresses that are not reached, beside those that are not public.
    pub ip_range_deny: Vec<IpRange>,
}

impl Default for PushConfig {
    fn default() -> Self {
        PushConfig {
            enabled: true,
            require_https: true,
            include_content: true,
            contact: None,
            ip_range_allow: Vec::new(),
            ip_range_deny: Vec::new(),
        }
    }
}

impl PushConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        match &self.contact {
            Some(contact) if !contact.starts_with("mailto:") && !contact.starts_with("https://") => {
                Err(Error::Value { option: "push.contact", why: "it begins with mailto: or https://".to_owned() })
            }
            _ => Ok(()),
        }
    }
}

impl Config {
    /// What this means for push, if there is any.
    ///
    /// # Errors
    /// Where certificates, TLS or DNS cannot be had.
    pub fn push(&self) -> Result<Option<stoa_notify::push::Config>, String> {
        let push = &self.push;
        if !push.enabled {
            return Ok(None);
        }
        let ranges = |ranges: &[IpRange]| ranges.iter().map(|range| range.0).collect::<Vec<_>>();
        // The addresses that are allowed for federation are not allowed for everybody who registers a URL.
        let outside = stoa_remote::Config {
            ip_range_allow: ranges(&push.ip_range_allow),
            ip_range_deny: ranges(&[&*self.federation.ip_range_deny, &*push.ip_range_deny].concat()),
            extra_ca: self.federation.extra_ca.clone(),
            ..stoa_remote::Config::default()
        };
        let contact = push.contact.clone().or_else(|| self.base_url.clone().filter(|url| url.starts_with("https://")));
        let contact = contact.unwrap_or_else(|| format!("https://{}", self.server_name));
        let dns = Arc::new(SystemDns::new().map_err(|why| why.to_string())?);
        let web = Client::new(&outside, dns).map_err(|why| why.to_string())?;
        Ok(Some(stoa_notify::push::Config {
            require_https: push.require_https,
            include_content: push.include_content,
            ..stoa_notify::push::Config::with(web, contact)
        }))
    }
}
