//! One writer a room. The guard is the proof that later steps ask for, and it carries what the last writer knew.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use stoa_store::RoomNo;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::live::Live;

/// How many rooms are remembered before idle ones are let go.
const REMEMBERED: usize = 1024;

type Slot = Arc<AsyncMutex<Option<Live>>>;

/// All locks.
#[derive(Default)]
pub(crate) struct Locks {
    rooms: Mutex<HashMap<RoomNo, Slot>>,
}

/// The right to write a room.
pub(crate) struct RoomLock {
    room: RoomNo,
    guard: OwnedMutexGuard<Option<Live>>,
}

impl Locks {
    /// Waits until nobody else writes the room.
    pub(crate) async fn room(&self, room: RoomNo) -> RoomLock {
        let slot = {
            let mut rooms = self.rooms.lock();
            if rooms.len() > REMEMBERED {
                // Only those that nobody holds or waits for.
                rooms.retain(|_, slot| Arc::strong_count(slot) > 1);
            }
            rooms.entry(room).or_default().clone()
        };
        RoomLock { room, guard: slot.lock_owned().await }
    }
}

impl RoomLock {
    /// The room.
    pub(crate) fn room(&self) -> RoomNo {
        self.room
    }

    /// Takes what the last writer knew. What is not put back is read anew by the next writer: so after a failure nothing
    /// half-done is believed.
    pub(crate) fn take(&mut self) -> Option<Live> {
        self.guard.take()
    }

    /// Leaves what is known for the next writer.
    pub(crate) fn put_back(&mut self, live: Live) {
        *self.guard = Some(live);
    }
}
