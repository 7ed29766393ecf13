//! Work that is done once however many wait for it, and given up when nobody waits any more.

use std::collections::HashMap;

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use parking_lot::Mutex;

/// What is under way, by its key.
pub(crate) struct Flights<T: Clone> {
    under_way: Mutex<HashMap<String, WeakShared<BoxFuture<'static, T>>>>,
}

impl<T: Clone> Default for Flights<T> {
    fn default() -> Self {
        Flights { under_way: Mutex::default() }
    }
}

/// Forgets a flight when the last who waits is gone.
struct Waits<'a, T: Clone> {
    flights: &'a Flights<T>,
    key: &'a str,
}

impl<T: Clone> Drop for Waits<'_, T> {
    fn drop(&mut self) {
        let mut under_way = self.flights.under_way.lock();
        if under_way.get(self.key).is_some_and(|flight| flight.upgrade().is_none()) {
            under_way.remove(self.key);
        }
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// What is under way already, or begins with the first who waits.
    pub(crate) async fn join(&self, key: &str, begin: impl FnOnce() -> BoxFuture<'static, T>) -> T {
        // Declared first, so that it is dropped last.
        let _waits = Waits { flights: self, key };
        let flight = self.board(key, begin);
        flight.await
    }

    fn board(&self, key: &str, begin: impl FnOnce() -> BoxFuture<'static, T>) -> Shared<BoxFuture<'static, T>> {
        let mut under_way = self.under_way.lock();
        if let Some(flight) = under_way.get(key).and_then(WeakShared::upgrade) {
            return flight;
        }
        let flight = begin().shared();
        if let Some(weak) = flight.downgrade() {
            under_way.insert(key.to_owned(), weak);
        }
        flight
    }

    /// Whether nothing is remembered of what is over.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.under_way.lock().is_empty()
    }
}
