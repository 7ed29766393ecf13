//! Tokens and their hashes.

use sha2::{Digest, Sha256};
use stoa_store::{Env, rows::tokens::TokenHash};

/// Letters and digits of a new token: 238 bits.
const LENGTH: usize = 40;

/// The SHA-256 by which a token is found. A lookup by the hash tells nothing about the token, however long it takes.
pub(crate) fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

/// A new token that nobody can guess. The prefix says what was found where it should not be.
pub(crate) fn new(env: &Env, prefix: &str) -> String {
    format!("{prefix}_{}", env.token(LENGTH))
}
