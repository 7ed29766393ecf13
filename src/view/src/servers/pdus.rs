//! Many events, read piece by piece as they are sent: the state of a large room is never in memory as a whole.

use bytes::Bytes;
use stoa_store::{EventNo, RoomNo, Store, rows::events::Standing};

use super::BATCH;
use crate::Error;

/// State and auth events as servers in the room are told them: whole. Rejected ones are left out.
#[derive(Clone)]
pub struct Pdus {
    store: Store,
    room: RoomNo,
    rest: Vec<EventNo>,
}

impl Pdus {
    pub(super) fn new(store: &Store, room: RoomNo, nos: impl IntoIterator<Item = EventNo>) -> Pdus {
        let mut rest: Vec<EventNo> = nos.into_iter().collect();
        rest.reverse();
        Pdus { store: store.clone(), room, rest }
    }

    /// How many there are still, at most.
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether that was all.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next of them; nothing at the end.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Error> {
        while !self.rest.is_empty() {
            let mut batch = self.rest.split_off(self.rest.len().saturating_sub(BATCH));
            batch.reverse();
            // A new one each time: who reads slowly must not hold back the store.
            let snapshot = self.store.snapshot().await?;
            let events = self.store.events().get_many(&snapshot, self.room, &batch).await?;
            let good = events.iter().flatten().filter(|event| event.header.standing != Standing::Rejected);
            let good: Vec<Bytes> = good.map(|event| event.json.clone()).collect();
            if !good.is_empty() {
                return Ok(Some(good));
            }
        }
        Ok(None)
    }
}
