//! The sets that state resolution starts from: conflicted state, auth difference, conflicted state subgraph.

use std::collections::{BTreeMap, HashMap, HashSet};

use smallvec::{SmallVec, smallvec};

use super::Graph;

/// Where states agree and where they do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflicts {
    /// What all states have.
    pub unconflicted: BTreeMap<u32, u32>,
    /// For every other state key, the different events that it has.
    pub conflicted: BTreeMap<u32, Vec<u32>>,
    /// For every state, its events under those keys.
    pub sets: Vec<Vec<u32>>,
}

/// Compares whole states, maps of state keys to events.
pub fn conflicts(states: &[&BTreeMap<u32, u32>]) -> Conflicts {
    let mut found: BTreeMap<u32, (usize, SmallVec<[u32; 2]>)> = BTreeMap::new();
    for state in states {
        for (key, event) in *state {
            let (count, events) = found.entry(*key).or_default();
            *count += 1;
            if !events.contains(event) {
                events.push(*event);
            }
        }
    }
    let mut conflicts = Conflicts::default();
    for (key, (count, events)) in found {
        match events.as_slice() {
            [event] if count == states.len() => {
                conflicts.unconflicted.insert(key, *event);
            }
            _ => {
                conflicts.conflicted.insert(key, events.into_vec());
            }
        }
    }
    let of_state =
        |state: &&BTreeMap<u32, u32>| conflicts.conflicted.keys().filter_map(|key| state.get(key).copied()).collect();
    conflicts.sets = states.iter().map(of_state).collect();
    conflicts
}

/// The auth difference: the events that are in the auth chains of some states but not of all.
///
/// `sets` are the conflicted events of every state, `unconflicted` are the events that all states have. A state's own
/// events count as part of its chain, as in all servers (the text leaves them out; they are in the full conflicted set
/// anyway, or in every state).
///
/// In an ordered graph it walks down from the newest event and stops where all that is left to see is in all chains.
pub fn auth_difference(sets: &[&[u32]], unconflicted: impl IntoIterator<Item = u32>, graph: &dyn Graph) -> Vec<u32> {
    let mut chains = Chains { all: sets.len(), ..Chains::default() };
    for event in unconflicted {
        chains.reach_all(event);
    }
    for (i, set) in sets.iter().enumerate() {
        for event in *set {
            chains.reach(*event, &Mask::one(i));
        }
    }
    let starts = (chains.partly.clone(), chains.wholly.clone());
    chains.descend(graph).unwrap_or_else(|| {
        let mut again = Chains { all: sets.len(), partly: starts.0, wholly: starts.1, ..Chains::default() };
        again.in_any_order(graph)
    })
}

/// The states whose chains have an event.
#[derive(Clone, Default)]
struct Mask(SmallVec<[u64; 1]>);

impl Mask {
    fn one(i: usize) -> Mask {
        let mut mask = Mask(smallvec![0; i / 64 + 1]);
        if let Some(last) = mask.0.last_mut() {
            *last = 1 << (i % 64);
        }
        mask
    }

    /// Adds another mask; whether that changed anything.
    fn add(&mut self, other: &Mask) -> bool {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        let mut changed = false;
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            changed |= *word | more != *word;
            *word |= more;
        }
        changed
    }

    fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }
}

#[derive(Default)]
struct Chains {
    /// How many states there are.
    all: usize,
    /// Events that were seen in some chains.
    partly: HashMap<u32, Mask>,
    /// Events that were seen in all chains.
    wholly: Numbers,
    /// Those of both whose own auth events are still to be seen.
    waiting: Numbers,
    /// How many of those that wait are in some chains only.
    open: usize,
}

impl Chains {
    fn reach_all(&mut self, event: u32) {
        if self.wholly.insert(event) {
            self.waiting.insert(event);
            if self.partly.remove(&event).is_some() {
                self.open -= 1;
            }
        }
    }

    fn reach(&mut self, event: u32, mask: &Mask) {
        if self.wholly.contains(event) {
            return;
        }
        let waits = self.waiting.insert(event);
        self.open += usize::from(waits);
        let seen = self.partly.entry(event).or_default();
        seen.add(mask);
        if seen.count() == self.all {
            self.reach_all(event);
        }
    }

    /// From the newest down. `None` if the graph is not ordered.
    fn descend(&mut self, graph: &dyn Graph) -> Option<Vec<u32>> {
        if !graph.is_ordered() {
            return None;
        }
        let mut difference = Vec::new();
        let mut end = self.waiting.end();
        while self.open > 0 {
            let Some(event) = self.waiting.last_before(end) else {
                break;
            };
            end = event;
            self.waiting.remove(event);
            let mask = self.partly.get(&event).cloned();
            if mask.is_some() {
                difference.push(event);
                self.open -= 1;
            }
            for named in graph.auth_events(event) {
                if named >= event {
                    return None;
                }
                match &mask {
                    Some(mask) => self.reach(named, mask),
                    None => self.reach_all(named),
                }
            }
        }
        Some(difference)
    }

    /// Until nothing changes, for graphs whose numbers are in no order.
    fn in_any_order(&mut self, graph: &dyn Graph) -> Vec<u32> {
        let full = (0..self.all).fold(Mask::default(), |mut mask, i| {
            mask.add(&Mask::one(i));
            mask
        });
        let mut masks = std::mem::take(&mut self.partly);
        masks.extend(self.wholly.iter().map(|event| (event, full.clone())));
        let mut work: Vec<u32> = masks.keys().copied().collect();
        while let Some(event) = work.pop() {
            let Some(mask) = masks.get(&event).cloned() else {
                continue;
            };
            for named in graph.auth_events(event) {
                let new = !masks.contains_key(&named);
                if masks.entry(named).or_default().add(&mask) || new {
                    work.push(named);
                }
            }
        }
        masks.into_iter().filter(|(_, mask)| mask.count() < self.all).map(|(event, _)| event).collect()
    }
}

/// The conflicted state subgraph: the events on the paths along auth events from one conflicted event to another, both
/// ends included.
pub fn conflicted_subgraph(conflicted: &[u32], graph: &dyn Graph) -> Vec<u32> {
    // What is older than every conflicted event leads to none.
    let oldest = conflicted.iter().copied().min().filter(|_| graph.is_ordered()).unwrap_or(0);
    let referrers = referrers(conflicted, oldest, graph).or_else(|| referrers(conflicted, 0, graph));
    let referrers = referrers.unwrap_or_default();
    let mut found: HashSet<u32> = conflicted.iter().copied().collect();
    let mut work: Vec<u32> = found.iter().copied().collect();
    while let Some(event) = work.pop() {
        for referrer in referrers.get(&event).into_iter().flatten() {
            if found.insert(*referrer) {
                work.push(*referrer);
            }
        }
    }
    found.into_iter().collect()
}

/// For every event in the chains of `events`, down to a number, those that name it. `None` if it turns out
/// that the graph is not ordered, so that the number is no bound; never with 0 as the bound.
fn referrers(events: &[u32], oldest: u32, graph: &dyn Graph) -> Option<HashMap<u32, Vec<u32>>> {
    let mut referrers: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut seen: HashSet<u32> = events.iter().copied().collect();
    let mut work: Vec<u32> = seen.iter().copied().collect();
    while let Some(event) = work.pop() {
        for named in graph.auth_events(event) {
            if named >= event && oldest > 0 {
                return None;
            }
            if named >= oldest {
                referrers.entry(named).or_default().push(event);
                if seen.insert(named) {
                    work.push(named);
                }
            }
        }
    }
    Some(referrers)
}

/// A set of small numbers.
#[derive(Clone, Default)]
struct Numbers(Vec<u64>);

impl Numbers {
    /// Whether the number is new.
    fn insert(&mut self, n: u32) -> bool {
        let (word, bit) = (n as usize / 64, 1 << (n % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        match self.0.get_mut(word) {
            Some(word) => {
                let new = *word & bit == 0;
                *word |= bit;
                new
            }
            None => false,
        }
    }

    fn remove(&mut self, n: u32) {
        if let Some(word) = self.0.get_mut(n as usize / 64) {
            *word &= !(1 << (n % 64));
        }
    }

    fn contains(&self, n: u32) -> bool {
        self.0.get(n as usize / 64).is_some_and(|word| word & (1 << (n % 64)) != 0)
    }

    /// One more than the greatest number there can be.
    fn end(&self) -> u32 {
        self.0.len() as u32 * 64
    }

    /// The greatest number below `end`.
    fn last_before(&self, end: u32) -> Option<u32> {
        let mut index = end as usize / 64;
        let mut word = self.0.get(index).map_or(0, |word| word & ((1 << (end % 64)) - 1));
        while word == 0 {
            index = index.checked_sub(1)?;
            word = self.0.get(index).copied().unwrap_or(0);
        }
        Some(index as u32 * 64 + 63 - word.leading_zeros())
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        let words = self.0.iter().zip((0u32..).step_by(64));
        words.flat_map(|(word, first)| (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| first + bit))
    }
}

#[cfg(test)]
mod tests {
    use super::Numbers;

    #[test]
    fn numbers_come_back_from_the_greatest_down() {
        let mut numbers = Numbers::default();
        for n in [0, 1, 63, 64, 127, 128, 1000] {
            assert!(numbers.insert(n));
            assert!(!numbers.insert(n));
        }
        numbers.remove(64);
        let mut end = numbers.end();
        let mut seen = Vec::new();
        while let Some(n) = numbers.last_before(end) {
            seen.push(n);
            end = n;
        }
        assert_eq!(seen, [1000, 128, 127, 63, 1, 0]);
        assert!(numbers.contains(127) && !numbers.contains(64) && !numbers.contains(5000));
        assert_eq!(numbers.iter().collect::<Vec<_>>(), [0, 1, 63, 127, 128, 1000]);
    }
}
