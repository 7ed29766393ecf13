//! Settings of accounts.

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

/// Settings of accounts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who may make an account.
    pub registration: Registration,
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
