//! Whose turn it is: which servers have something waiting, which are being sent to, which are left alone for now. A server
//! for which nothing waits is not remembered.

use std::collections::{BTreeSet, HashMap, VecDeque};

use parking_lot::Mutex;
use stoa_event::ids::OwnedServerName;
use stoa_store::RoomNo;
use tokio::sync::Notify;

use super::passing::Passing;

/// How many servers are sent to at once.
const AT_ONCE: usize = 128;
/// How many of them may be servers that failed the last time: those that are there never wait for those that are not.
const DOUBTFUL_AT_ONCE: usize = 32;
/// After how many rows that were added while a server is away its queue is trimmed.
const TRIM_AFTER: u32 = 500;
/// After a refusal, so many turns have one thing each.
const CAREFUL: u32 = 150;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is known to wait.
    Idle,
    /// In a queue for its turn.
    Ready,
    /// Being sent to.
    Running,
    /// Left alone until then, in milliseconds since 1970.
    Waiting(u64),
    /// What it is to be told can wait until then.
    Resting(u64),
}

struct Destination {
    phase: Phase,
    /// Something came while it was being sent to.
    again: bool,
    /// How many times in a row it did not take what was sent.
    failures: u32,
    /// It refused what was sent: so many turns with one thing each, to find out which.
    careful: u32,
    passing: Passing,
    /// The room that had its turn last.
    after: Option<RoomNo>,
    /// Rows that were added while it is left alone.
    added: u32,
}

impl Destination {
    fn new() -> Destination {
        Destination {
            phase: Phase::Idle,
            again: false,
            failures: 0,
            careful: 0,
            passing: Passing::default(),
            after: None,
            added: 0,
        }
    }
}

#[derive(Default)]
struct State {
    known: HashMap<OwnedServerName, Destination>,
    ready: VecDeque<OwnedServerName>,
    doubtful: VecDeque<OwnedServerName>,
    waiting: BTreeSet<(u64, OwnedServerName)>,
    running: usize,
    running_doubtful: usize,
}

/// All servers for which something waits.
#[derive(Default)]
pub(crate) struct Destinations {
    state: Mutex<State>,
    wake: Notify,
}

/// A server whose turn it is.
pub(crate) struct Turn {
    pub(crate) server: OwnedServerName,
    /// What is not written down anywhere.
    pub(crate) passing: Passing,
    /// Begin with the room after this one.
    pub(crate) after: Option<RoomNo>,
    /// Send one thing only.
    pub(crate) careful: bool,
    /// How many times in a row it failed before.
    pub(crate) failures: u32,
    /// So much was added while it was away that the queue is to be trimmed.
    pub(crate) trim: bool,
}

/// What became of a turn.
pub(crate) enum Outcome {
    /// It has what was sent. Whether more waits, and the room that had its turn last.
    Sent { more: bool, after: Option<RoomNo> },
    /// It is left alone until then.
    Later { until: u64, passing: Passing },
    /// It refused what was sent because of what it is.
    Refused { until: u64 },
}

impl Destinations {
    /// Something that is written down waits for a server.
    pub(crate) fn enqueue(&self, server: OwnedServerName, rows: u32) {
        let mut state = self.state.lock();
        let destination = state.known.entry(server.clone()).or_insert_with(Destination::new);
        destination.added = destination.added.saturating_add(rows);
        state.called(server);
        drop(state);
        self.wake.notify_one();
    }

    /// Something that is written down nowhere is to be told to a server.
    pub(crate) fn pass(&self, server: OwnedServerName, add: impl FnOnce(&mut Passing)) {
        let mut state = self.state.lock();
        let destination = state.known.entry(server.clone()).or_insert_with(Destination::new);
        add(&mut destination.passing);
        state.called(server);
        drop(state);
        self.wake.notify_one();
    }

    /// The same, with the next thing that is told, or at `until`.
    pub(crate) fn pass_later(&self, server: OwnedServerName, until: u64, add: impl FnOnce(&mut Passing)) {
        let mut state = self.state.lock();
        let destination = state.known.entry(server.clone()).or_insert_with(Destination::new);
        add(&mut destination.passing);
        // Otherwise it goes along.
        if destination.phase == Phase::Idle {
            destination.phase = Phase::Resting(until);
            state.waiting.insert((until, server));
        }
        drop(state);
        self.wake.notify_one();
    }

    /// A server that failed is there again.
    pub(crate) fn back(&self, server: &OwnedServerName) {
        let mut state = self.state.lock();
        let Some(Phase::Waiting(until)) = state.known.get(server).map(|known| known.phase) else { return };
        state.waiting.remove(&(until, server.clone()));
        state.make_ready(server.clone());
        drop(state);
        self.wake.notify_one();
    }

    /// Lets those have their turn that were left alone long enough. Answers when the next one is to have it.
    pub(crate) fn tick(&self, now: u64) -> Option<u64> {
        let mut state = self.state.lock();
        while let Some((until, server)) = state.waiting.first().filter(|(until, _)| *until <= now).cloned() {
            state.waiting.remove(&(until, server.clone()));
            state.make_ready(server);
        }
        state.waiting.first().map(|(until, _)| *until)
    }

    /// The next one whose turn it is, if there is room for one more.
    pub(crate) fn next(&self) -> Option<Turn> {
        let state = &mut *self.state.lock();
        if state.running >= AT_ONCE {
            return None;
        }
        let server = match state.ready.pop_front() {
            Some(server) => server,
            None if state.running_doubtful < DOUBTFUL_AT_ONCE => state.doubtful.pop_front()?,
            None => return None,
        };
        let destination = state.known.get_mut(&server)?;
        destination.phase = Phase::Running;
        destination.again = false;
        let trim = destination.added > TRIM_AFTER && destination.failures > 0;
        destination.added = 0;
        state.running += 1;
        state.running_doubtful += usize::from(destination.failures > 0);
        Some(Turn {
            passing: std::mem::take(&mut destination.passing),
            after: destination.after,
            careful: destination.careful > 0,
            failures: destination.failures,
            trim,
            server,
        })
    }

    /// A turn is over.
    pub(crate) fn over(&self, server: OwnedServerName, outcome: Outcome) {
        let mut state = self.state.lock();
        let Some(destination) = state.known.get_mut(&server) else { return };
        let was_doubtful = destination.failures > 0;
        match outcome {
            Outcome::Sent { more, after } => {
                destination.failures = 0;
                destination.careful = destination.careful.saturating_sub(1);
                destination.after = after;
                destination.phase = Phase::Idle;
                let careful = destination.careful > 0;
                if more || careful || destination.again || !destination.passing.is_empty() {
                    state.make_ready(server);
                } else {
                    state.known.remove(&server);
                }
            }
            Outcome::Later { until, passing } => {
                destination.passing.put_back(passing);
                state.wait(server, until);
            }
            Outcome::Refused { until } => {
                destination.careful = CAREFUL;
                state.wait(server, until);
            }
        }
        state.running -= 1;
        state.running_doubtful -= usize::from(was_doubtful);
        drop(state);
        self.wake.notify_one();
    }

    /// Returns when something may have changed.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(crate) fn known(&self) -> usize {
        self.state.lock().known.len()
    }
}

impl State {
    /// Something waits for a server that is known.
    fn called(&mut self, server: OwnedServerName) {
        let Some(destination) = self.known.get_mut(&server) else { return };
        match destination.phase {
            Phase::Idle => self.make_ready(server),
            Phase::Running => destination.again = true,
            Phase::Resting(until) => {
                self.waiting.remove(&(until, server.clone()));
                self.make_ready(server);
            }
            // While it is away nothing is looked at, but its queue must not grow without end.
            Phase::Waiting(until) if destination.added > TRIM_AFTER => {
                self.waiting.remove(&(until, server.clone()));
                self.make_ready(server);
            }
            Phase::Ready | Phase::Waiting(_) => {}
        }
    }

    fn make_ready(&mut self, server: OwnedServerName) {
        let Some(destination) = self.known.get_mut(&server) else { return };
        destination.phase = Phase::Ready;
        match destination.failures {
            0 => self.ready.push_back(server),
            _ => self.doubtful.push_back(server),
        }
    }

    fn wait(&mut self, server: OwnedServerName, until: u64) {
        let Some(destination) = self.known.get_mut(&server) else { return };
        destination.failures = destination.failures.saturating_add(1);
        destination.phase = Phase::Waiting(until);
        self.waiting.insert((until, server));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: usize) -> OwnedServerName {
        format!("s{n}.example").try_into().unwrap()
    }

    fn sent(more: bool) -> Outcome {
        Outcome::Sent { more, after: None }
    }

    fn later(until: u64) -> Outcome {
        Outcome::Later { until, passing: Passing::default() }
    }

    #[test]
    fn one_turn_at_a_time_for_each_and_nothing_is_remembered_after() {
        let all = Destinations::default();
        all.enqueue(name(1), 1);
        all.enqueue(name(1), 1);
        let turn = all.next().unwrap();
        assert!(all.next().is_none());
        // What comes meanwhile is another turn.
        all.enqueue(name(1), 1);
        assert!(all.next().is_none());
        all.over(turn.server, sent(false));
        let turn = all.next().unwrap();
        all.over(turn.server, sent(false));
        assert!(all.next().is_none());
        assert_eq!(all.known(), 0);
    }

    #[test]
    fn who_has_much_waits_behind_who_has_little() {
        let all = Destinations::default();
        all.enqueue(name(1), 1000);
        all.enqueue(name(2), 1);
        let first = all.next().unwrap();
        assert_eq!(first.server, name(1));
        all.over(first.server, sent(true));
        let order: Vec<_> = std::iter::from_fn(|| all.next()).map(|turn| turn.server).collect();
        assert_eq!(order, [name(2), name(1)]);
    }

    #[test]
    fn those_that_fail_never_take_all_places() {
        let all = Destinations::default();
        for n in 0..200 {
            all.enqueue(name(n), 1);
        }
        let mut turns: Vec<_> = std::iter::from_fn(|| all.next()).collect();
        assert_eq!(turns.len(), AT_ONCE);
        while let Some(turn) = turns.pop() {
            all.over(turn.server, later(5));
            turns.extend(std::iter::from_fn(|| all.next()));
        }
        assert_eq!(all.tick(4), Some(5));
        assert!(all.next().is_none());
        assert_eq!(all.tick(5), None);
        let turns: Vec<_> = std::iter::from_fn(|| all.next()).collect();
        assert_eq!(turns.len(), DOUBTFUL_AT_ONCE);
        all.enqueue(name(1000), 1);
        assert_eq!(all.next().unwrap().server, name(1000));
    }

    #[test]
    fn who_is_left_alone_comes_back_when_it_is_time_or_when_it_speaks() {
        let all = Destinations::default();
        for n in [1, 2] {
            all.enqueue(name(n), 1);
            let turn = all.next().unwrap();
            all.over(turn.server, later(100));
        }
        all.enqueue(name(1), 1);
        assert!(all.next().is_none());
        all.back(&name(1));
        assert_eq!(all.next().unwrap().server, name(1));
        all.tick(100);
        assert_eq!(all.next().unwrap().server, name(2));
        all.back(&name(2));
        assert!(all.next().is_none());
    }

    #[test]
    fn what_can_wait_goes_with_the_next_thing_or_when_it_is_time() {
        let all = Destinations::default();
        for n in [1, 2] {
            all.pass_later(name(n), 100, |passing| passing.typing("!r".into(), "@a".into(), true));
        }
        assert!(all.next().is_none());
        all.enqueue(name(1), 1);
        let turn = all.next().unwrap();
        assert_eq!((turn.server, turn.passing.is_empty()), (name(1), false));
        assert_eq!(all.tick(99), Some(100));
        assert!(all.next().is_none());
        assert_eq!(all.tick(100), None);
        assert_eq!(all.next().unwrap().server, name(2));
    }

    #[test]
    fn a_queue_that_grows_while_a_server_is_away_is_trimmed() {
        let all = Destinations::default();
        all.enqueue(name(1), 1);
        let turn = all.next().unwrap();
        assert!(!turn.trim);
        all.over(turn.server, later(1_000_000));
        all.enqueue(name(1), TRIM_AFTER);
        assert!(all.next().is_none());
        all.enqueue(name(1), 1);
        assert!(all.next().unwrap().trim);
    }
}
