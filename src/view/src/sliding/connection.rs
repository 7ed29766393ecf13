//! What a client has of what: a connection (MSC4186, "Connections") remembers which rooms it was sent, and up to where. In
//! memory and bounded; a client whose connection is forgotten is told to begin anew (`M_UNKNOWN_POS`).

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use quick_cache::{Weighter, sync::Cache};
use roaring::RoaringBitmap;
use stoa_store::{Position, RoomNo, UserNo};

use super::wanted::RoomConfig;
use crate::{
    Error,
    token::{SlidingToken, SyncToken},
};

/// How many rooms all connections remember together, each about 100 bytes.
const REMEMBERED: u64 = 1_000_000;

/// A room that was sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    /// Up to where it was sent, where it is not in the window any more.
    pub(super) at: SyncToken,
    /// What was wanted of it.
    pub(super) config: Arc<RoomConfig>,
    /// Whether it was sent with state and timeline, and not as an invite or a knock.
    pub(super) whole: bool,
    /// Whether it was sent as a direct chat.
    pub(super) is_dm: bool,
    /// The counts that were sent: notifications, highlights.
    pub(super) counts: (u64, u64),
    /// The place of the last thing that moves it up in a room list, as it was sent.
    pub(super) bump: Position,
}

/// What a client has after one answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Had {
    pub(super) rooms: HashMap<RoomNo, Sent>,
    /// The rooms that were wanted: what is theirs was sent as far as the answer goes, even where nothing had to be.
    pub(super) wanted: RoaringBitmap,
}

/// What an answer adds to it.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) rooms: HashMap<RoomNo, Sent>,
    pub(super) wanted: RoaringBitmap,
}

#[derive(Default)]
struct State {
    /// The answer that the client is known to have: it went on from there.
    had: Arc<Had>,
    serial: u64,
    /// The last answer, which the client may not have got.
    told: Option<(u64, Told)>,
}

/// One connection of a device.
#[derive(Default)]
pub(super) struct Connection {
    state: Mutex<State>,
}

impl Connection {
    /// What the client has, given where it goes on from.
    ///
    /// # Errors
    /// [`Error::UnknownPos`]
    fn resume(&self, serial: u64) -> Result<Arc<Had>, Error> {
        let mut state = self.state.lock();
        match state.told.take() {
            Some((told_serial, told)) if told_serial == serial => {
                let had = Arc::make_mut(&mut state.had);
                had.rooms.extend(told.rooms);
                had.wanted = told.wanted;
                state.serial = serial;
            }
            // The same request again: what was told in between did not arrive, or does not count.
            told if state.serial == serial => state.told = told,
            told => {
                state.told = told;
                return Err(Error::UnknownPos);
            }
        }
        Ok(state.had.clone())
    }

    /// Notes an answer.
    pub(super) fn tell(&self, serial: u64, told: Told) {
        self.state.lock().told = Some((serial, told));
    }
}

type Key = (UserNo, Arc<str>, Arc<str>);

/// A connection, and how many rooms it remembered when it was put here.
#[derive(Clone)]
struct Kept {
    connection: Arc<Connection>,
    rooms: u64,
}

#[derive(Clone)]
struct ByRooms;

impl Weighter<Key, Kept> for ByRooms {
    fn weight(&self, _: &Key, kept: &Kept) -> u64 {
        // A cache must be told the same each time, so it is put here anew with each request.
        100 + kept.rooms
    }
}

/// All connections.
pub(crate) struct Connections {
    all: Cache<Key, Kept, ByRooms>,
    serial: AtomicU64,
}

impl Connections {
    /// `now_ms` makes serials grow over restarts, so that a `pos` from before one is known to be of no connection here.
    pub(crate) fn new(now_ms: u64) -> Connections {
        let all = Cache::with_weighter(10_000, REMEMBERED, ByRooms);
        Connections { all, serial: AtomicU64::new(now_ms.saturating_mul(1000)) }
    }

    /// A number for the next answer; never the same again.
    pub(super) fn serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// A connection, and what the client has: nothing without a `pos`.
    ///
    /// # Errors
    /// [`Error::UnknownPos`] for a `pos` that is not of this connection, or too old.
    pub(super) fn open(
        &self,
        (user, device, name): (UserNo, &str, &str),
        pos: Option<SlidingToken>,
    ) -> Result<(Arc<Connection>, Arc<Had>), Error> {
        let key: Key = (user, device.into(), name.into());
        let Some(pos) = pos else {
            let fresh = Arc::<Connection>::default();
            self.all.insert(key, Kept { connection: fresh.clone(), rooms: 0 });
            return Ok((fresh, Arc::default()));
        };
        let connection = self.all.get(&key).ok_or(Error::UnknownPos)?.connection;
        let had = connection.resume(pos.serial)?;
        self.all.insert(key, Kept { connection: connection.clone(), rooms: had.rooms.len() as u64 });
        Ok((connection, had))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(serial: u64) -> Option<SlidingToken> {
        Some(SlidingToken { serial, at: SyncToken::default() })
    }

    fn told(rooms: &[u32]) -> Told {
        let sent = Sent {
            at: SyncToken::default(),
            config: Arc::default(),
            whole: true,
            is_dm: false,
            counts: (0, 0),
            bump: Position::MIN,
        };
        let rooms: HashMap<RoomNo, Sent> = rooms.iter().map(|no| (RoomNo(*no), sent.clone())).collect();
        Told { wanted: rooms.keys().map(|room| room.0).collect(), rooms }
    }

    #[test]
    fn an_answer_counts_when_the_client_goes_on_from_it() {
        let all = Connections::new(1);
        let key = (UserNo(1), "phone", "main");
        let (connection, had) = all.open(key, None).unwrap();
        assert!(had.rooms.is_empty());
        let (first, second) = (all.serial(), all.serial());
        connection.tell(first, told(&[1]));
        let (connection, had) = all.open(key, token(first)).unwrap();
        assert_eq!(had.rooms.len(), 1);
        connection.tell(second, told(&[2]));
        // The answer was lost: the client asks again from where it was.
        let (_, had) = all.open(key, token(first)).unwrap();
        assert_eq!(had.rooms.len(), 1);
        let (_, had) = all.open(key, token(second)).unwrap();
        assert_eq!(had.rooms.len(), 2);
        assert_eq!(had.wanted.iter().collect::<Vec<_>>(), [2]);
        // What came before is gone.
        assert!(matches!(all.open(key, token(first)), Err(Error::UnknownPos)));
    }

    #[test]
    fn a_pos_belongs_to_one_connection_of_one_device() {
        let all = Connections::new(1);
        let (connection, _) = all.open((UserNo(1), "phone", "main"), None).unwrap();
        let serial = all.serial();
        connection.tell(serial, told(&[1]));
        for other in [(UserNo(2), "phone", "main"), (UserNo(1), "tablet", "main"), (UserNo(1), "phone", "other")] {
            let (connection, _) = all.open(other, None).unwrap();
            connection.tell(all.serial(), told(&[]));
            assert!(matches!(all.open(other, token(serial)), Err(Error::UnknownPos)));
        }
        // Beginning anew ends the old one.
        all.open((UserNo(1), "phone", "main"), None).unwrap();
        assert!(matches!(all.open((UserNo(1), "phone", "main"), token(serial)), Err(Error::UnknownPos)));
    }
}
