//! Tokens that live for a while and in memory: after a restart a client asks for another one.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use stoa_store::{Env, rows::tokens::TokenHash};

use crate::token;

/// How many are kept; the oldest fall off.
const MANY: usize = 100_000;

/// Tokens that were given out, by their hashes, and what each stands for.
pub(crate) struct Tickets<T> {
    prefix: &'static str,
    life_ms: u64,
    state: Mutex<State<T>>,
}

struct State<T> {
    known: HashMap<TokenHash, (T, u64)>,
    /// In the order in which they were made, and so in which they end.
    order: VecDeque<TokenHash>,
}

impl<T: Clone> Tickets<T> {
    pub(crate) fn new(prefix: &'static str, life_ms: u64) -> Self {
        let state = State { known: HashMap::new(), order: VecDeque::new() };
        Tickets { prefix, life_ms, state: Mutex::new(state) }
    }

    /// A new one.
    pub(crate) fn give(&self, env: &Env, stands_for: T) -> String {
        let new = token::new(env, self.prefix);
        let (hash, now) = (token::hash(&new), env.now_ms());
        let mut state = self.state.lock();
        state.known.insert(hash, (stands_for, now.saturating_add(self.life_ms)));
        state.order.push_back(hash);
        state.forget_old(now);
        new
    }

    /// What a token stands for that has not ended.
    pub(crate) fn look_at(&self, env: &Env, token: &str) -> Option<T> {
        let mut state = self.state.lock();
        state.forget_old(env.now_ms());
        state.known.get(&token::hash(token)).map(|(stands_for, _)| stands_for.clone())
    }

    /// The same, and it ends.
    pub(crate) fn take(&self, env: &Env, token: &str) -> Option<T> {
        let mut state = self.state.lock();
        state.forget_old(env.now_ms());
        state.known.remove(&token::hash(token)).map(|(stands_for, _)| stands_for)
    }
}

impl<T> State<T> {
    fn forget_old(&mut self, now: u64) {
        while let Some(oldest) = self.order.front() {
            if self.order.len() <= MANY && self.known.get(oldest).is_some_and(|(_, until)| *until > now) {
                break;
            }
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_ones_are_forgotten_and_many_are_not_kept() {
        let tickets = Tickets::new("x", 10);
        let mut state = tickets.state.lock();
        for n in 0..=MANY as u64 {
            let hash = token::hash(&n.to_string());
            state.known.insert(hash, ((), n + 10));
            state.order.push_back(hash);
        }
        state.forget_old(0);
        assert_eq!((state.known.len(), state.order.len()), (MANY, MANY));
        assert!(!state.known.contains_key(&token::hash("0")), "the oldest fell off");
        state.forget_old(MANY as u64 + 9);
        assert_eq!(state.known.len(), 1);
        state.forget_old(MANY as u64 + 10);
        assert!(state.known.is_empty() && state.order.is_empty());
    }
}
