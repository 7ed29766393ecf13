//! Whose turn it is: which pushers have something waiting, which are being told, which rest because they failed. One pusher is
//! told one thing at a time.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use stoa_store::rows::pushers::PusherKey;
use tokio::sync::Notify;

/// How many pushers are told at once.
const AT_ONCE: usize = 64;
/// How many of them may be at servers that failed the last time: a dead gateway holds up no other.
const DOUBTFUL_AT_ONCE: usize = 16;
/// After the first failure a pusher rests for so long, doubled with each further one, and at most so long.
const PATIENCE_MS: u64 = 1_000;
const LONGEST_MS: u64 = 60 * 60 * 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is known to wait.
    Idle,
    /// In a queue for its turn.
    Ready,
    /// Being told; whether among the doubtful.
    Running(bool),
    /// It rests until then, in milliseconds since 1970.
    Resting(u64),
}

struct Known {
    phase: Phase,
    /// Something came while it was being told.
    again: bool,
    /// How many times in a row it did not take what it was told.
    failures: u32,
    /// The number of unread messages that it was told last.
    badge: Option<u64>,
    /// The server that it is reached at.
    host: Option<Arc<str>>,
}

#[derive(Default)]
struct State {
    known: HashMap<PusherKey, Known>,
    ready: VecDeque<PusherKey>,
    doubtful: VecDeque<PusherKey>,
    resting: BTreeSet<(u64, PusherKey)>,
    /// Servers that failed the last time.
    failing: BTreeSet<Arc<str>>,
    running: usize,
    running_doubtful: usize,
}

/// All pushers that were told something or are to be.
#[derive(Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    wake: Notify,
}

/// A pusher whose turn it is.
pub(super) struct Turn {
    pub(super) pusher: PusherKey,
    /// How many times in a row it failed before.
    pub(super) failures: u32,
    /// The number of unread messages that it was told last.
    pub(super) badge: Option<u64>,
}

/// What became of a turn.
pub(super) enum Outcome {
    /// It was told. Whether more waits, the number of unread messages that it knows now, and the server that took it.
    Told { more: bool, badge: Option<u64>, host: Option<Arc<str>> },
    /// It did not take it; when it asked to be left alone until a moment, that is it. `host` is the server that failed.
    Later { until: u64, host: Option<Arc<str>> },
    /// There is no such pusher any more.
    Gone,
}

impl Turns {
    /// Something waits for a pusher.
    pub(super) fn enqueue(&self, pusher: PusherKey) {
        let mut state = self.state.lock();
        let known = state.known.entry(pusher.clone()).or_insert_with(Known::new);
        match known.phase {
            Phase::Idle => state.make_ready(pusher),
            Phase::Running(_) => known.again = true,
            Phase::Ready | Phase::Resting(_) => {}
        }
        drop(state);
        self.wake.notify_one();
    }

    /// The number of unread messages that a pusher was told last.
    pub(super) fn badge(&self, pusher: &PusherKey) -> Option<u64> {
        self.state.lock().known.get(pusher)?.badge
    }

    /// The next one whose turn it is, if there is place.
    pub(super) fn next(&self) -> Option<Turn> {
        let mut state = self.state.lock();
        if state.running >= AT_ONCE {
            return None;
        }
        let ready = state.ready.pop_front().map(|pusher| (pusher, false));
        let (pusher, doubtful) = match ready {
            Some(ready) => ready,
            None if state.running_doubtful < DOUBTFUL_AT_ONCE => (state.doubtful.pop_front()?, true),
            None => return None,
        };
        state.running += 1;
        state.running_doubtful += usize::from(doubtful);
        let known = state.known.entry(pusher.clone()).or_insert_with(Known::new);
        (known.phase, known.again) = (Phase::Running(doubtful), false);
        Some(Turn { failures: known.failures, badge: known.badge, pusher })
    }

    /// A turn is over.
    pub(super) fn over(&self, pusher: &PusherKey, outcome: Outcome) {
        let mut state = self.state.lock();
        let Some(known) = state.known.get_mut(pusher) else { return };
        let doubtful = known.phase == Phase::Running(true);
        match outcome {
            Outcome::Told { more, badge, host } => {
                known.failures = 0;
                known.badge = badge.or(known.badge);
                known.phase = Phase::Idle;
                let again = more || known.again;
                if let Some(host) = host {
                    known.host = Some(host.clone());
                    state.failing.remove(&host);
                }
                if again {
                    state.make_ready(pusher.clone());
                }
            }
            Outcome::Later { until, host } => {
                known.failures = known.failures.saturating_add(1);
                known.phase = Phase::Resting(until);
                if let Some(host) = host {
                    known.host = Some(host.clone());
                    state.failing.insert(host);
                }
                state.resting.insert((until, pusher.clone()));
            }
            Outcome::Gone => drop(state.known.remove(pusher)),
        }
        state.running -= 1;
        state.running_doubtful -= usize::from(doubtful);
    }

    /// Those who rested long enough have their turn. Answers when the next one will have.
    pub(super) fn tick(&self, now_ms: u64) -> Option<u64> {
        let mut state = self.state.lock();
        while let Some((until, _)) = state.resting.first() {
            if *until > now_ms {
                return Some(*until);
            }
            let Some((_, pusher)) = state.resting.pop_first() else { break };
            state.make_ready(pusher);
        }
        None
    }

    /// Returns when something was added.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }
}

/// How long a pusher rests after so many failures in a row before this one.
pub(super) fn rest_ms(failures: u32) -> u64 {
    PATIENCE_MS.saturating_mul(1 << failures.min(20)).min(LONGEST_MS)
}

impl Known {
    fn new() -> Known {
        Known { phase: Phase::Idle, again: false, failures: 0, badge: None, host: None }
    }
}

impl State {
    fn make_ready(&mut self, pusher: PusherKey) {
        let Some(known) = self.known.get_mut(&pusher) else { return };
        known.phase = Phase::Ready;
        let failing = known.host.as_ref().is_some_and(|host| self.failing.contains(host));
        if known.failures > 0 || failing {
            self.doubtful.push_back(pusher);
        } else {
            self.ready.push_back(pusher);
        }
    }
}

#[cfg(test)]
mod tests {
    use stoa_store::UserNo;

    use super::*;

    fn pusher(n: u32) -> PusherKey {
        (UserNo(n), "app".to_owned(), "key".to_owned())
    }

    fn told(more: bool) -> Outcome {
        Outcome::Told { more, badge: Some(1), host: Some("good".into()) }
    }

    fn later(until: u64) -> Outcome {
        Outcome::Later { until, host: Some("bad".into()) }
    }

    #[test]
    fn one_thing_at_a_time_and_what_comes_meanwhile_is_another_turn() {
        let turns = Turns::default();
        turns.enqueue(pusher(1));
        turns.enqueue(pusher(1));
        let turn = turns.next().unwrap();
        assert!(turns.next().is_none());
        turns.enqueue(pusher(1));
        assert!(turns.next().is_none());
        turns.over(&turn.pusher, told(false));
        assert_eq!(turns.badge(&pusher(1)), Some(1));
        let turn = turns.next().unwrap();
        turns.over(&turn.pusher, told(false));
        assert!(turns.next().is_none());
    }

    #[test]
    fn who_failed_rests_and_then_comes_again() {
        let turns = Turns::default();
        turns.enqueue(pusher(1));
        let turn = turns.next().unwrap();
        assert_eq!(turn.failures, 0);
        turns.over(&turn.pusher, later(100));
        turns.enqueue(pusher(1));
        assert_eq!(turns.tick(99), Some(100));
        assert!(turns.next().is_none());
        assert_eq!(turns.tick(100), None);
        assert_eq!(turns.next().unwrap().failures, 1);
        assert_eq!((rest_ms(0), rest_ms(3), rest_ms(60)), (1_000, 8_000, LONGEST_MS));
    }

    #[test]
    fn a_dead_server_never_takes_all_places() {
        let turns = Turns::default();
        for n in 0..200 {
            turns.enqueue(pusher(n));
            let turn = turns.next().unwrap();
            turns.over(&turn.pusher, later(5));
        }
        turns.tick(5);
        let under_way: Vec<_> = std::iter::from_fn(|| turns.next()).collect();
        assert_eq!(under_way.len(), DOUBTFUL_AT_ONCE);
        turns.enqueue(pusher(1000));
        assert_eq!(turns.next().unwrap().pusher, pusher(1000));
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let turns = Turns::default();
        turns.enqueue(pusher(1));
        let turn = turns.next().unwrap();
        turns.over(&turn.pusher, Outcome::Gone);
        assert!(turns.state.lock().known.is_empty());
    }
}
