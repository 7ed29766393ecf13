//! Settings of federation.

use std::path::PathBuf;

use ipnet::IpNet;
use stoa_event::ids::OwnedServerName;

/// Settings of federation.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Whether this server speaks with others at all.
    pub enabled: bool,
    /// If not empty: only with servers whose name, with or without the port, matches one of these. `*` stands for any
    /// characters, `?` for one.
    pub allow: Vec<String>,
    /// Never with servers whose name matches one of these.
    pub deny: Vec<String>,
    /// Ranges of addresses that are reached although they are not public, or denied.
    pub ip_range_allow: Vec<IpNet>,
    /// Ranges of addresses that are not reached, beside those that are not public.
    pub ip_range_deny: Vec<IpNet>,
    /// PEM files of authorities whose certificates are accepted beside those that the system trusts.
    pub extra_ca: Vec<PathBuf>,
    /// Servers that are asked for the keys of servers that do not answer. They are believed.
    pub trusted_key_servers: Vec<OwnedServerName>,
    /// How long a server may be gone before what waits for its devices is forgotten; `None`: for ever.
    pub give_up_ms: Option<u64>,
    /// Public keys, in base64, that nobody may use because their private halves are known.
    pub refused_keys: Vec<String>,
    /// What nobody needs to set.
    pub tuning: Tuning,
}

/// What nobody needs to set.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// How long an answer may take, unless the caller says otherwise.
    pub timeout_ms: u64,
    /// How long a connection may take to stand.
    pub connect_timeout_ms: u64,
    /// How long an answer to a question for keys may take.
    pub key_timeout_ms: u64,
    /// How large an answer may be, unless the caller says otherwise.
    pub max_response: usize,
    /// How many requests to one server may be under way.
    pub requests_per_server: usize,
    /// How many requests may wait for one server.
    pub waiting_per_server: usize,
    /// How long a server is left alone after it failed once. It doubles with each further time.
    pub backoff_min_ms: u64,
    /// How long a server is left alone at most.
    pub backoff_max_ms: u64,
    /// How many servers are asked for their keys at once.
    pub key_requests: usize,
    /// The same for requests that we cannot believe before we have the key.
    pub key_requests_of_strangers: usize,
    /// How long a server is not asked for keys again when it did not have one. It doubles up to an hour.
    pub key_retry_ms: u64,
    /// From how many servers on the notaries are asked first.
    pub bulk_keys: usize,
    /// The keys of how many servers are held in memory.
    pub cached_servers: usize,
    /// How many servers one question to us as notary may name.
    pub notary_servers: usize,
    /// How many of them we ask for others in one question.
    pub notary_fetches: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            enabled: true,
            allow: Vec::new(),
            deny: Vec::new(),
            ip_range_allow: Vec::new(),
            ip_range_deny: Vec::new(),
            extra_ca: Vec::new(),
            trusted_key_servers: Vec::new(),
            give_up_ms: None,
            // ELEMENTSEC-2025-1670: a chart for Kubernetes gave the same key to many servers.
            refused_keys: vec!["l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og".to_owned()],
            tuning: Tuning::default(),
        }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            timeout_ms: 60_000,
            connect_timeout_ms: 10_000,
            key_timeout_ms: 15_000,
            max_response: 50 << 20,
            requests_per_server: 16,
            waiting_per_server: 1000,
            backoff_min_ms: 5_000,
            backoff_max_ms: 24 * 60 * 60 * 1000,
            key_requests: 64,
            key_requests_of_strangers: 64,
            key_retry_ms: 10_000,
            bulk_keys: 16,
            cached_servers: 20_000,
            notary_servers: 100,
            notary_fetches: 16,
        }
    }
}
