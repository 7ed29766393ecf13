//! OpenID tokens (Client-Server API, "OpenID"): by one of them, which a client hands on, somebody else can ask this server who
//! the user is.
//!
//! They live for an hour and in memory: after a restart a client asks for another one.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use stoa_event::ids::OwnedUserId;
use stoa_store::rows::tokens::TokenHash;

use crate::{Accounts, Who, token};

/// How long a token can be used.
pub const LIFE_MS: u64 = 60 * 60 * 1000;
/// How many tokens are kept; the oldest fall off.
const MANY: usize = 100_000;

/// The tokens that were given out, by their hashes.
#[derive(Default)]
pub(crate) struct OpenId {
    tokens: Mutex<Tokens>,
}

#[derive(Default)]
struct Tokens {
    known: HashMap<TokenHash, Known>,
    /// In the order in which they were made, and so in which they end.
    order: VecDeque<TokenHash>,
}

struct Known {
    user: OwnedUserId,
    until: u64,
}

impl Tokens {
    fn forget_old(&mut self, now: u64) {
        while let Some(oldest) = self.order.front() {
            if self.order.len() <= MANY && self.known.get(oldest).is_some_and(|token| token.until > now) {
                break;
            }
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

impl Accounts {
    /// A new token for who asks.
    pub fn new_openid_token(&self, who: &Who) -> String {
        let new = token::new(self.env(), "soi");
        let (hash, now) = (token::hash(&new), self.env().now_ms());
        let mut tokens = self.openid().tokens.lock();
        tokens.known.insert(hash, Known { user: who.user.clone(), until: now.saturating_add(LIFE_MS) });
        tokens.order.push_back(hash);
        tokens.forget_old(now);
        new
    }

    /// Whose token that is, if it is one that can still be used.
    pub fn user_of_openid_token(&self, token: &str) -> Option<OwnedUserId> {
        let now = self.env().now_ms();
        let mut tokens = self.openid().tokens.lock();
        tokens.forget_old(now);
        tokens.known.get(&token::hash(token)).map(|known| known.user.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_ones_are_forgotten_and_many_are_not_kept() {
        let user: OwnedUserId = "@a:x".try_into().unwrap();
        let mut tokens = Tokens::default();
        for n in 0..=MANY as u64 {
            let hash = token::hash(&n.to_string());
            tokens.known.insert(hash, Known { user: user.clone(), until: n + 10 });
            tokens.order.push_back(hash);
        }
        tokens.forget_old(0);
        assert_eq!((tokens.known.len(), tokens.order.len()), (MANY, MANY));
        assert!(!tokens.known.contains_key(&token::hash("0")), "the oldest fell off");
        tokens.forget_old(MANY as u64 + 9);
        assert_eq!(tokens.known.len(), 1);
        tokens.forget_old(MANY as u64 + 10);
        assert!(tokens.known.is_empty() && tokens.order.is_empty());
    }
}
