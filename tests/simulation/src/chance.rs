//! Chance that repeats itself, and a clock that follows tokio's, which a test may pause.

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use stoa_store::{Clock, Random};
use tokio::time::Instant;

/// When the simulation begins, in milliseconds since 1970.
const BEGIN_MS: u64 = 1_700_000_000_000;

/// Repeatable chance (splitmix64).
pub(crate) struct Dice(u64);

impl Dice {
    /// One that says the same for the same seed and name.
    pub(crate) fn new(seed: u64, name: &str) -> Dice {
        let hash = Sha256::digest(format!("{seed} {name}"));
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        Dice(u64::from_be_bytes(first))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// Less than `n`, which is not 0.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Whether something happens that does in so many of a hundred cases.
    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// One of these, by their weights.
    pub(crate) fn weighted<T: Copy>(&mut self, of: &[(u64, T)]) -> T {
        let mut left = self.below(of.iter().map(|(weight, _)| weight).sum());
        for (weight, it) in of {
            match left.checked_sub(*weight) {
                Some(less) => left = less,
                None => return *it,
            }
        }
        of[0].1
    }
}

/// The clock of one server, which need not be right.
pub(crate) struct SimClock {
    begin: Instant,
    ahead_ms: u64,
}

impl SimClock {
    pub(crate) fn new(begin: Instant, ahead_ms: u64) -> SimClock {
        SimClock { begin, ahead_ms }
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        let passed = Instant::now().duration_since(self.begin).as_millis();
        BEGIN_MS + self.ahead_ms + u64::try_from(passed).unwrap_or(0)
    }
}

/// Randomness that repeats itself.
pub(crate) struct SimRandom(Mutex<Dice>);

impl SimRandom {
    pub(crate) fn new(seed: u64, name: &str) -> SimRandom {
        SimRandom(Mutex::new(Dice::new(seed, name)))
    }
}

impl Random for SimRandom {
    fn fill(&self, bytes: &mut [u8]) {
        let mut dice = self.0.lock();
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&dice.next().to_be_bytes()[..chunk.len()]);
        }
    }
}
