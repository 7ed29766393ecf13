//! Settings of accounts.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

/// Who may make an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Registration {
    /// Nobody; the administrator makes them.
    #[default]
    Closed,
    /// Who has one of these tokens.
    Token(Vec<String>),
    /// Everybody.
    Open,
}

/// A document that people agree to who register (Client-Server API, "Terms of service at registration").
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// A name for machines, as `terms_of_service`.
    pub id: String,
    /// Its version.
    pub version: String,
    /// In each language: what it is called, and where it is.
    pub languages: BTreeMap<String, PolicyText>,
}

/// A document in one language.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyText {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub url: String,
}

/// Logging in by JSON Web Tokens that somebody else signs (`org.matrix.login.jwt`).
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// The shared secret (HS256, HS384, HS512), or the PEM text of the public key.
    pub secret: String,
    /// The only algorithm that is believed.
    #[serde(default = "hs256")]
    pub algorithm: String,
    /// The claim that names the user's localpart.
    #[serde(default = "sub")]
    pub subject_claim: String,
    /// The claim with the name that a new account gets.
    #[serde(default)]
    pub display_name_claim: Option<String>,
    /// Who must have issued it.
    #[serde(default)]
    pub issuer: Option<String>,
    /// For whom it must be, one of these.
    #[serde(default)]
    pub audiences: Vec<String>,
}

fn hs256() -> String {
    "HS256".to_owned()
}

fn sub() -> String {
    "sub".to_owned()
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The rest holds a secret.
        f.debug_struct("Jwt").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// What is to be known of letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// At what URL people reach this server: what links in letters begin with.
    pub base_url: String,
    /// Whether who registers must show an address.
    pub required: bool,
}

/// Settings of accounts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who may make an account.
    pub registration: Registration,
    /// Whether guests may come, who have no password (Client-Server API, "Guest Access").
    pub guests: bool,
    /// What people agree to who register.
    pub policies: Vec<Policy>,
    /// Who is let in by a JSON Web Token; nobody without it.
    pub jwt: Option<Jwt>,
    /// How letters are sent; nobody gets any without it.
    pub mail: Option<Mail>,
    /// Localparts that nobody can register. One that ends in `*` stands for all that begin with the rest.
    pub reserved: Vec<String>,
    /// Memory for hashing one password, in KiB.
    pub argon2_memory_kib: u32,
    /// Passes over that memory.
    pub argon2_passes: u32,
    /// How many passwords are hashed at once at most.
    pub hash_threads: usize,
    /// The least number of characters of a new password.
    pub password_min: usize,
    /// How long an access token holds that can be refreshed, in milliseconds.
    pub access_token_ms: u64,
    /// How long user-interactive authentication may take, in milliseconds.
    pub uia_ms: u64,
    /// How many access tokens are kept in memory.
    pub cached_tokens: usize,
    /// Whether it is told who is there.
    pub presence: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            registration: Registration::Closed,
            guests: false,
            policies: Vec::new(),
            jwt: None,
            mail: None,
            reserved: vec!["_*".to_owned()],
            // OWASP's recommendation for argon2id.
            argon2_memory_kib: 19 * 1024,
            argon2_passes: 2,
            hash_threads: std::thread::available_parallelism().map_or(2, usize::from),
            password_min: 8,
            access_token_ms: 60 * 60 * 1000,
            uia_ms: 15 * 60 * 1000,
            cached_tokens: 100_000,
            presence: true,
        }
    }
}

impl Config {
    /// The documents as `m.login.terms` shows them.
    pub(crate) fn terms(&self) -> Value {
        let policies = self.policies.iter().map(|policy| {
            let texts = policy.languages.iter();
            let mut shown: serde_json::Map<String, Value> = texts
                .map(|(language, text)| (language.clone(), json!({ "name": text.name, "url": text.url })))
                .collect();
            shown.insert("version".to_owned(), policy.version.clone().into());
            (policy.id.clone(), shown.into())
        });
        json!({ "policies": policies.collect::<serde_json::Map<String, Value>>() })
    }

    /// What somebody agreed to who passed that stage.
    pub(crate) fn agreed(&self) -> Vec<String> {
        self.policies.iter().map(|policy| format!("{} {}", policy.id, policy.version)).collect()
    }
}
