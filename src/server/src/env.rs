//! The real clock and the real randomness: the only place that asks the machine for them.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rand::Rng;
use stoa_store::{Clock, Env, Random};

struct System;

impl Clock for System {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that is passed in everywhere else")]
    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
    }
}

impl Random for System {
    #[expect(clippy::disallowed_methods, reason = "this is the randomness that is passed in everywhere else")]
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}

/// The clock and randomness of this machine.
pub fn system() -> Env {
    Env { clock: Arc::new(System), random: Arc::new(System) }
}
