//! One at a time for each key: who comes while somebody else is on the way waits, and then looks whether it is done.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;

/// Gates by their keys.
pub(crate) struct Gates<K> {
    open: Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>,
}

/// Holds a gate until it is dropped.
pub(crate) struct Gate<'a, K: Eq + Hash> {
    gates: &'a Gates<K>,
    key: K,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl<K: Eq + Hash + Clone> Gates<K> {
    pub(crate) fn new() -> Gates<K> {
        Gates { open: Mutex::new(HashMap::new()) }
    }

    /// Waits for whoever is inside.
    pub(crate) async fn enter(&self, key: K) -> Gate<'_, K> {
        let gate = self.open.lock().entry(key.clone()).or_default().clone();
        // From here on, so that it is cleaned up too if the caller stops waiting.
        let mut entered = Gate { gates: self, key, held: None };
        entered.held = Some(gate.lock_owned().await);
        entered
    }
}

impl<K: Eq + Hash> Drop for Gate<'_, K> {
    fn drop(&mut self) {
        self.held = None;
        let mut open = self.gates.open.lock();
        // Nobody can take a copy while the map is locked: one that only the map has is one that nobody waits for.
        if open.get(&self.key).is_some_and(|gate| Arc::strong_count(gate) == 1) {
            open.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn one_at_a_time_for_each_key_and_nothing_is_left() {
        let gates = Gates::new();
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let visit = |key: u8| {
            let (gates, inside, most) = (&gates, &inside, &most);
            async move {
                let _gate = gates.enter(key).await;
                most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
            }
        };
        futures_util::future::join_all((0..10).map(|_| visit(1))).await;
        assert_eq!(most.load(Ordering::SeqCst), 1);
        futures_util::future::join_all((0..10).map(visit)).await;
        assert!(most.load(Ordering::SeqCst) > 1);
        assert!(gates.open.lock().is_empty());
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_nothing_behind() {
        let gates = Gates::new();
        let held = gates.enter(1).await;
        let waits = tokio::time::timeout(std::time::Duration::from_millis(5), gates.enter(1)).await;
        assert!(waits.is_err());
        drop(held);
        assert!(gates.open.lock().is_empty());
    }
}
