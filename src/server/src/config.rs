//! The configuration: the file, what overrides it, and what it means for each part. `config/stoa.toml` shows every option.

mod appservices;
mod bucket;
mod email;
mod federation;
mod previews;
mod push;
mod search;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Deserialize;
use stoa_client_api::{Rtc, Support, Turn};
use stoa_event::ids::OwnedServerName;
use stoa_http::limit;

pub use self::{
    appservices::AppservicesConfig,
    bucket::BucketConfig,
    email::{EmailConfig, EmailSecurity},
    federation::{FederationConfig, IpRange, Pattern},
    previews::PreviewsConfig,
    push::PushConfig,
    search::{SearchConfig, UserDirectoryConfig},
};
use crate::args::{Options, Registration, Switch};

/// The example, with every option at its default.
pub const EXAMPLE: &str = include_str!("../../../config/stoa.toml");

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {why}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        why: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {why}", .path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
    /// An option has a value that cannot be.
    #[error("{option}: {why}")]
    Value {
        /// Which.
        option: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The name of the server. It is part of every id and cannot change.
    pub server_name: String,
    /// The folder for everything that is kept.
    pub data: PathBuf,
    /// The addresses to listen on without TLS.
    pub listen: Vec<SocketAddr>,
    /// The address at which clients find the server.
    pub base_url: Option<String>,
    /// Memory for caches.
    pub memory: Size,
    /// When a request is acknowledged.
    pub durability: Durability,
    /// What is logged.
    pub log: String,
    /// Whether people are told who is there.
    pub presence: bool,
    /// Listening with TLS.
    pub tls: TlsConfig,
    /// Other servers.
    pub federation: FederationConfig,
    /// Whom to ask about this server.
    pub support: Support,
    /// Who may make an account.
    pub registration: RegistrationConfig,
    /// Ways to log in.
    pub login: LoginConfig,
    /// Letters.
    pub email: EmailConfig,
    /// Files.
    pub media: MediaConfig,
    /// Previews of links.
    pub url_previews: PreviewsConfig,
    /// Phones and browsers.
    pub push: PushConfig,
    /// Delayed events.
    pub delayed_events: DelayedConfig,
    /// The relays for calls.
    pub turn: Turn,
    /// The infrastructure of group calls.
    pub rtc: Rtc,
    /// Search in what people say.
    pub search: SearchConfig,
    /// Search for people.
    pub user_directory: UserDirectoryConfig,
    /// Application services.
    pub appservices: AppservicesConfig,
    /// Rate limits.
    pub limits: limit::Config,
}

/// Who may make an account.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrationConfig {
    /// `open`, `token` or `closed`.
    pub mode: Mode,
    /// The tokens that let somebody in where the mode is `token`.
    pub tokens: Vec<String>,
    /// Whether guests may come, who have no password.
    pub guests: bool,
    /// The documents that people agree to who register.
    pub policies: Vec<stoa_accounts::Policy>,
}

/// Ways to log in beside the password.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoginConfig {
    /// By JSON Web Tokens that somebody else signs.
    pub jwt: Option<stoa_accounts::Jwt>,
}

/// `open`, `token` or `closed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Everybody.
    Open,
    /// Who has a token.
    Token,
    /// Only the administrator.
    #[default]
    Closed,
}

/// Listening with TLS.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The addresses.
    pub listen: Vec<SocketAddr>,
    /// The PEM file of the certificate, with those between it and the authority.
    pub certificate: Option<PathBuf>,
    /// The PEM file of its private key.
    pub key: Option<PathBuf>,
}

/// Files.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MediaConfig {
    /// The largest file that can be uploaded.
    pub max_upload: Size,
    /// How much a user may upload in all; `0` for no limit.
    pub user_quota: Size,
    /// The largest file of another server that is fetched.
    pub max_remote: Size,
    /// How much of other servers' files is kept; `0` for no limit.
    pub remote_cache: Size,
    /// How many days after its last use such a file is kept; `0` for no limit.
    pub remote_cache_days: u64,
    /// How many days after it came such a file is asked for again; `0` for never.
    pub remote_days: u64,
    /// How many days after it came a file of this server is deleted; `0` for never.
    pub local_days: u64,
    /// How many days after its last use a file of this server is deleted; `0` for never.
    pub local_unused_days: u64,
    /// How much all files of this server may need; what was not used for the longest is deleted first. `0` for no limit.
    pub local_space: Size,
    /// Whether the endpoints without authentication are served too, for old clients.
    pub allow_unauthenticated: bool,
    /// Where uploads are kept instead of the data folder.
    pub bucket: BucketConfig,
}

/// Delayed events.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DelayedConfig {
    /// For how many hours an event may be delayed; `0` for no delayed events at all.
    pub max_delay_hours: u64,
    /// How many of a user may wait at once.
    pub max_per_user: usize,
}

/// When a request is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When it is on disk: a power failure loses nothing that was acknowledged.
    #[default]
    Synced,
    /// When it is written: a power failure may lose the last moments, a crash of the server does not.
    Relaxed,
}

/// A number of bytes, written as `256M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Size(pub u64);

impl Default for Config {
    fn default() -> Self {
        Config {
            server_name: "localhost".to_owned(),
            data: "./data".into(),
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8008))],
            base_url: None,
            memory: Size(256 << 20),
            durability: Durability::default(),
            log: "info".to_owned(),
            presence: true,
            tls: TlsConfig::default(),
            federation: FederationConfig::default(),
            support: Support::default(),
            registration: RegistrationConfig::default(),
            login: LoginConfig::default(),
            email: EmailConfig::default(),
            media: MediaConfig::default(),
            url_previews: PreviewsConfig::default(),
            push: PushConfig::default(),
            delayed_events: DelayedConfig::default(),
            turn: Turn::default(),
            rtc: Rtc::default(),
            search: SearchConfig::default(),
            user_directory: UserDirectoryConfig::default(),
            appservices: AppservicesConfig::default(),
            limits: limit::Config::default(),
        }
    }
}

impl Default for DelayedConfig {
    fn default() -> Self {
        DelayedConfig { max_delay_hours: 24, max_per_user: 100 }
    }
}

impl Default for MediaConfig {
    fn default() -> Self {
        MediaConfig {
            max_upload: Size(100 << 20),
            user_quota: Size(0),
            max_remote: Size(100 << 20),
            remote_cache: Size(10 << 30),
            remote_cache_days: 0,
            remote_days: 0,
            local_days: 0,
            local_unused_days: 0,
            local_space: Size(0),
            allow_unauthenticated: false,
            bucket: BucketConfig::default(),
        }
    }
}

impl TlsConfig {
    /// The files of certificate and key, if there is something to use them for.
    pub fn files(&self) -> Option<(&Path, &Path)> {
        let files = self.certificate.as_deref().zip(self.key.as_deref());
        files.filter(|_| !self.listen.is_empty())
    }

    fn check(&self) -> Result<(), Error> {
        let bad = |option, why: &str| Err(Error::Value { option, why: why.to_owned() });
        match (self.listen.is_empty(), &self.certificate, &self.key) {
            (true, None, None) | (false, Some(_), Some(_)) => Ok(()),
            (true, ..) => bad("tls.listen", "there is a certificate, but no address to use it on"),
            (false, None, _) => bad("tls.certificate", "tls.listen needs the file of a certificate"),
            (false, _, None) => bad("tls.key", "tls.listen needs the file of the certificate's private key"),
        }
    }
}

impl Config {
    /// The file, if one is named, with the options over it.
    ///
    /// # Errors
    /// Where the file cannot be read or something in it cannot be.
    pub fn load(options: &Options) -> Result<Config, Error> {
        let mut config = match &options.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        config.override_with(options);
        config.check()?;
        Ok(config)
    }

    fn read(path: &Path) -> Result<Config, Error> {
        let text = std::fs::read_to_string(path).map_err(|why| Error::Read { path: path.to_owned(), why })?;
        Config::parse(&text).map_err(|why| Error::Parse { path: path.to_owned(), why })
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Config, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    fn override_with(&mut self, options: &Options) {
        let options = options.clone();
        set(&mut self.server_name, options.server_name);
        set(&mut self.data, options.data);
        set(&mut self.memory, options.memory);
        set(&mut self.durability, options.durability);
        set(&mut self.log, options.log);
        set(&mut self.presence, options.presence.map(|switch| switch == Switch::On));
        set(&mut self.media.max_upload, options.max_upload);
        if !options.listen.is_empty() {
            self.listen = options.listen;
        }
        if !options.tls_listen.is_empty() {
            self.tls.listen = options.tls_listen;
        }
        self.tls.certificate = options.tls_certificate.or(self.tls.certificate.take());
        self.tls.key = options.tls_key.or(self.tls.key.take());
        set(&mut self.federation.enabled, options.federation.map(|switch| switch == Switch::On));
        if !options.federation_ca.is_empty() {
            self.federation.extra_ca = options.federation_ca;
        }
        if !options.federation_ip_allow.is_empty() {
            self.federation.ip_range_allow = options.federation_ip_allow;
        }
        if options.base_url.is_some() {
            self.base_url = options.base_url;
        }
        if !options.registration_token.is_empty() {
            self.registration = RegistrationConfig {
                mode: Mode::Token,
                tokens: options.registration_token,
                ..std::mem::take(&mut self.registration)
            };
        }
        set(
            &mut self.registration.mode,
            options.registration.map(|who| match who {
                Registration::Open => Mode::Open,
                Registration::Token => Mode::Token,
                Registration::Closed => Mode::Closed,
            }),
        );
        set(&mut self.url_previews.enabled, options.url_previews.map(|switch| switch == Switch::On));
        if !options.url_preview_ip_allow.is_empty() {
            self.url_previews.ip_range_allow = options.url_preview_ip_allow;
        }
        if !options.appservice.is_empty() {
            self.appservices.files = options.appservice;
        }
        set(&mut self.limits.enabled, options.rate_limits.map(|switch| switch == Switch::On));
    }

    fn check(&self) -> Result<(), Error> {
        let bad = |option, why: &str| Err(Error::Value { option, why: why.to_owned() });
        self.name()?;
        self.tls.check()?;
        self.federation.check()?;
        self.email.check()?;
        self.media.bucket.check()?;
        self.url_previews.check()?;
        self.push.check()?;
        self.search.check()?;
        self.support.check().map_err(|why| Error::Value { option: "support", why })?;
        self.turn.check().map_err(|why| Error::Value { option: "turn", why })?;
        self.rtc.check().map_err(|why| Error::Value { option: "rtc", why })?;
        if self.addresses().next().is_none() {
            return bad("listen", "there is no address to listen on");
        }
        if self.memory.0 < 32 << 20 {
            return bad("memory", "less than 32M is not enough");
        }
        if self.registration.mode == Mode::Token && self.registration.tokens.iter().all(String::is_empty) {
            return bad("registration", "the mode is `token`, but there are no tokens");
        }
        if let Some(jwt) = &self.login.jwt {
            jwt.check().map_err(|why| Error::Value { option: "login.jwt", why })?;
        }
        match &self.base_url {
            Some(url) if !url.starts_with("http://") && !url.starts_with("https://") => {
                bad("base_url", "it must begin with http:// or https://")
            }
            _ => Ok(()),
        }
    }

    /// Every address to listen on, and whether with TLS.
    pub fn addresses(&self) -> impl Iterator<Item = (SocketAddr, bool)> {
        let plain = self.listen.iter().map(|address| (*address, false));
        plain.chain(self.tls.listen.iter().map(|address| (*address, true)))
    }

    /// The name of the server.
    ///
    /// # Errors
    /// Where it is none.
    pub fn name(&self) -> Result<OwnedServerName, Error> {
        OwnedServerName::try_from(self.server_name.as_str()).map_err(|_| Error::Value {
            option: "server_name",
            why: format!("`{}` cannot be the name of a server; it is written like example.org", self.server_name),
        })
    }

    /// What this means for accounts.
    pub fn accounts(&self) -> stoa_accounts::Config {
        let registration = match self.registration.mode {
            Mode::Open => stoa_accounts::Registration::Open,
            Mode::Token => stoa_accounts::Registration::Token(self.registration.tokens.clone()),
            Mode::Closed => stoa_accounts::Registration::Closed,
        };
        stoa_accounts::Config {
            registration,
            guests: self.registration.guests,
            policies: self.registration.policies.clone(),
            jwt: self.login.jwt.clone(),
            presence: self.presence,
            mail: self.letters(),
            ..stoa_accounts::Config::default()
        }
    }

    /// What this means for rooms.
    pub fn rooms(&self) -> stoa_rooms::Config {
        stoa_rooms::Config {
            max_delay_ms: self.delayed_events.max_delay_hours.saturating_mul(60 * 60 * 1000),
            max_delayed: self.delayed_events.max_per_user,
            ..stoa_rooms::Config::default()
        }
    }

    /// The configuration of other servers.
    ///
    /// # Errors
    /// Where the name of one is none.
    pub fn remote(&self) -> Result<stoa_remote::Config, Error> {
        let federation = &self.federation;
        let names = |patterns: &[Pattern]| patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect();
        let ranges = |ranges: &[IpRange]| ranges.iter().map(|range| range.0).collect::<Vec<_>>();
        Ok(stoa_remote::Config {
            enabled: federation.enabled,
            allow: names(&federation.allow),
            deny: names(&federation.deny),
            ip_range_allow: ranges(&federation.ip_range_allow),
            ip_range_deny: ranges(&federation.ip_range_deny),
            extra_ca: federation.extra_ca.clone(),
            trusted_key_servers: federation.notaries()?,
            give_up_ms: Some(federation.give_up_days.saturating_mul(24 * 60 * 60 * 1000)).filter(|ms| *ms > 0),
            ..stoa_remote::Config::default()
        })
    }

    /// What this means for files.
    ///
    /// # Errors
    /// Where the file with the key of the bucket cannot be read.
    pub fn media(&self) -> Result<stoa_media::Config, Error> {
        let limit = |value: u64| Some(value).filter(|value| *value > 0);
        let days = |days: u64| limit(days.saturating_mul(24 * 60 * 60 * 1000));
        Ok(stoa_media::Config {
            max_upload: self.media.max_upload.0,
            user_quota: limit(self.media.user_quota.0),
            max_remote: self.media.max_remote.0,
            remote_cache: limit(self.media.remote_cache.0),
            remote_cache_ms: days(self.media.remote_cache_days),
            remote_age_ms: days(self.media.remote_days),
            local: stoa_media::Retention {
                age_ms: days(self.media.local_days),
                unused_ms: days(self.media.local_unused_days),
                space: limit(self.media.local_space.0),
            },
            allow_unauthenticated: self.media.allow_unauthenticated,
            bucket: self.media.bucket.bucket()?,
            ..stoa_media::Config::in_folder(self.data.join("media"))
        })
    }
}

/// Something that is not shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("...")
    }
}

/// A secret that stands in the settings or in a file.
fn secret(here: Option<&Secret>, file: Option<&Path>) -> Result<Option<String>, Error> {
    match (here, file) {
        (Some(Secret(text)), _) => Ok(Some(text.clone())),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path).map_err(|why| Error::Read { path: path.to_owned(), why })?;
            Ok(Some(text.trim().to_owned()))
        }
        (None, None) => Ok(None),
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a size; it is written like 256M");
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = match text[digits.len()..].trim().to_ascii_uppercase().as_str() {
            "" | "B" => 1,
            "K" | "KB" | "KIB" => 1 << 10,
            "M" | "MB" | "MIB" => 1 << 20,
            "G" | "GB" | "GIB" => 1 << 30,
            _ => return Err(bad()),
        };
        let number: u64 = digits.parse().map_err(|_| bad())?;
        number.checked_mul(unit).map(Size).ok_or_else(bad)
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_shows_the_defaults() {
        assert_eq!(Config::parse(EXAMPLE), Ok(Config::default()));
        // What is commented out must be an option too: an unknown one would be an error.
        let all: String = EXAMPLE
            .lines()
            .map(|line| {
                line.strip_prefix('#').filter(|rest| rest.contains(" = ") && !rest.starts_with(' ')).unwrap_or(line)
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let config = Config::parse(&all).unwrap();
        assert!(config.base_url.is_some() && config.tls.certificate.is_some() && config.tls.key.is_some());
    }

    #[test]
    fn unknown_keys_are_errors_that_name_them() {
        assert!(Config::parse("serve_name = \"x\"").unwrap_err().contains("serve_name"));
        assert!(Config::parse("[limits]\nlogins = 1").unwrap_err().contains("logins"));
        assert!(Config::parse("[registration]\nmode = \"maybe\"").unwrap_err().contains("maybe"));
    }

    #[test]
    fn options_win_over_the_file() {
        let mut config = Config::parse("server_name = \"a.example\"\nmemory = \"64M\"").unwrap();
        config.override_with(&Options { memory: Some(Size(1 << 30)), ..Options::default() });
        assert_eq!((config.server_name.as_str(), config.memory), ("a.example", Size(1 << 30)));
        config.override_with(&Options { registration_token: vec!["t".into()], ..Options::default() });
        assert_eq!(config.registration.mode, Mode::Token);
        config.override_with(&Options { rate_limits: Some(Switch::Off), ..Options::default() });
        assert!(!config.limits.enabled);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let bad = |text: &str| Config::parse(text).unwrap().check().unwrap_err().to_string();
        assert!(bad("server_name = \"a b\"").contains("server_name"));
        assert!(bad("listen = []").contains("listen"));
        assert!(bad("memory = \"1M\"").contains("memory"));
        assert!(bad("[registration]\nmode = \"token\"").contains("tokens"));
        assert!(bad("base_url = \"example.org\"").contains("base_url"));
        assert!(bad("[tls]\nlisten = [\"[::]:8448\"]").contains("tls.certificate"));
        assert!(bad("[tls]\nlisten = [\"[::]:8448\"]\ncertificate = \"x\"").contains("tls.key"));
        assert!(bad("[tls]\ncertificate = \"x\"\nkey = \"y\"").contains("tls.listen"));
        assert!(bad("[federation]\nextra_ca = [\"no such file\"]").contains("no such file"));
        assert!(bad("[federation]\nwell_known = \"https://example.org\"").contains("federation.well_known"));
        assert!(bad("[url_previews]\nmax_page = \"1G\"").contains("max_page"));
        assert!(bad("[push]\ncontact = \"a@example.org\"").contains("push.contact"));
        assert!(bad("[support]\npage = \"example.org\"").contains("page"));
        assert!(bad("[support]\ncontacts = [{ role = \"m.role.admin\" }]").contains("m.role.admin"));
        assert!(bad("[federation]\ntrusted_key_servers = [\"a b\"]").contains("trusted_key_servers"));
        assert!(Config::parse("[federation]\nip_range_allow = [\"10/8\"]").unwrap_err().contains("10/8"));
    }

    #[test]
    fn tls_alone_is_enough() {
        let text = "listen = []\n[tls]\nlisten = [\"[::]:8448\"]\ncertificate = \"a\"\nkey = \"b\"";
        let config = Config::parse(text).unwrap();
        config.check().unwrap();
        assert_eq!(config.addresses().collect::<Vec<_>>(), [("[::]:8448".parse().unwrap(), true)]);
        assert_eq!(config.tls.files(), Some((Path::new("a"), Path::new("b"))));
    }

    #[test]
    fn sizes() {
        let size = |text: &str| text.parse::<Size>().ok().map(|size| size.0);
        assert_eq!(size("256M"), Some(256 << 20));
        assert_eq!(size("1 GiB"), Some(1 << 30));
        assert_eq!(size("12"), Some(12));
        assert_eq!(size("M"), None);
        assert_eq!(size("99999999999G"), None);
        assert_eq!(size("-1M"), None);
    }
}
