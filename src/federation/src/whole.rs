//! Rooms that were joined with partial state become whole: their whole state is asked for, of one server after the other
//! and again later, for as long as this server is in them (`docs/decisions/0006-partial-state.md`).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use stoa_event::{
    ids::{EventId, OwnedRoomId, OwnedServerName, RoomId, ServerName},
    version::Rules,
};
use stoa_rooms::Partial;
use tokio::sync::Notify;

use crate::{Error, Federation, Inner};

/// How many rooms are worked on at once.
const AT_ONCE: usize = 4;
/// How many servers are asked before a room waits for its next turn.
const SERVERS: usize = 8;
/// After so many turns in vain a state is believed that lacks what the first server told: that one may have made it up.
const STRICT: u32 = 4;
/// How long a room waits for its next turn, at first and at most.
const FIRST_MS: u64 = 1_000;
const LONGEST_MS: u64 = 60_000;
/// How long nothing is looked at, at most.
const NAP: Duration = Duration::from_secs(300);
/// How long it waits when the store fails.
const PAUSE: Duration = Duration::from_secs(1);

/// Rung when a room was joined with partial state.
#[derive(Default)]
pub(crate) struct Wake(Notify);

impl Wake {
    /// There is something to do.
    pub(crate) fn wake(&self) {
        self.0.notify_one();
    }
}

/// What was tried for a room.
#[derive(Clone, Copy, Default)]
struct Tries {
    failed: u32,
    /// When it has its next turn, in milliseconds since 1970.
    next_ms: u64,
}

impl Tries {
    fn again(self, now_ms: u64) -> Tries {
        let wait = (FIRST_MS << self.failed.min(16)).min(LONGEST_MS);
        Tries { failed: self.failed.saturating_add(1), next_ms: now_ms + wait }
    }
}

impl Federation {
    /// Waits until all members of a room are known.
    ///
    /// # Errors
    /// [`stoa_rooms::Error::Partial`] where they are not in that time.
    pub async fn wait_whole(&self, room: &RoomId, patience: Duration) -> Result<(), Error> {
        match self.inner.rooms.wait_whole(room, patience).await? {
            true => Ok(()),
            false => Err(stoa_rooms::Error::Partial.into()),
        }
    }
}

impl Inner {
    /// Makes rooms whole, for ever.
    pub(crate) async fn make_whole(&self) {
        let mut tries: HashMap<OwnedRoomId, Tries> = HashMap::new();
        let mut busy: HashSet<OwnedRoomId> = HashSet::new();
        let mut work = FuturesUnordered::new();
        loop {
            let rooms = match self.rooms.partial_rooms().await {
                Ok(rooms) => rooms,
                Err(stoa_rooms::Error::Store(stoa_store::Error::Closed)) => return,
                Err(why) => {
                    tracing::error!(%why, "cannot see which rooms are not whole");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let now = self.env.now_ms();
            let mut nap = NAP;
            tries.retain(|room, _| rooms.contains(room));
            for room in rooms.into_iter().filter(|room| !busy.contains(room)).collect::<Vec<_>>() {
                let of = tries.get(&room).copied().unwrap_or_default();
                if of.next_ms > now {
                    nap = nap.min(Duration::from_millis(of.next_ms - now));
                } else if busy.len() < AT_ONCE {
                    busy.insert(room.clone());
                    work.push(self.turn_of(room, of.failed));
                }
            }
            tokio::select! {
                Some((room, done)) = work.next(), if !work.is_empty() => {
                    busy.remove(&room);
                    let of = tries.remove(&room).unwrap_or_default();
                    if let Err(why) = done {
                        tracing::info!(%room, %why, "the room does not become whole yet");
                        tries.insert(room, of.again(self.env.now_ms()));
                    }
                }
                () = self.whole.0.notified() => {}
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    async fn turn_of(&self, room: OwnedRoomId, failed: u32) -> (OwnedRoomId, Result<(), Error>) {
        let done = self.make_one_whole(&room, failed).await;
        (room, done)
    }

    async fn make_one_whole(&self, room: &RoomId, failed: u32) -> Result<(), Error> {
        let Some(partial) = self.rooms.partial(room).await? else { return Ok(()) };
        if !partial.told {
            self.ask_for_whole(room, &partial, failed).await?;
        }
        // Each step takes the room's lock anew, so that others have their turns.
        while !self.rooms.make_whole(room).await? {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Asks servers for the whole state until one tells one that can be believed.
    async fn ask_for_whole(&self, room: &RoomId, partial: &Partial, failed: u32) -> Result<(), Error> {
        let rules = self.rooms.rules_of(room).await?;
        let mut last = Error::NoServers;
        for server in self.who_may_know(room, partial, failed).await? {
            match self.whole_from(&server, room, &rules, &partial.join, failed < STRICT).await {
                Ok(()) => return Ok(()),
                Err(Error::Store(why) | Error::Rooms(stoa_rooms::Error::Store(why))) => return Err(why.into()),
                Err(why) => {
                    tracing::info!(%room, %server, %why, "a server does not tell the whole state");
                    last = why;
                }
            }
        }
        Err(last)
    }

    /// The server that let us in, and some of the others: other ones in every turn.
    async fn who_may_know(&self, room: &RoomId, partial: &Partial, failed: u32) -> Result<Vec<OwnedServerName>, Error> {
        let mut servers = partial.servers.clone();
        for server in self.rooms.servers(room).await? {
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        servers.retain(|server| self.is_other(server));
        if let Some(others) = servers.get_mut(1..).filter(|others| !others.is_empty()) {
            let turn = failed as usize * (SERVERS - 1) % others.len();
            others.rotate_left(turn);
        }
        servers.truncate(SERVERS);
        Ok(servers)
    }

    async fn whole_from(
        &self,
        from: &ServerName,
        room: &RoomId,
        rules: &Arc<Rules>,
        join: &EventId,
        strict: bool,
    ) -> Result<(), Error> {
        let (state, events) = self.state_before(from, room, rules, join, &[]).await?;
        self.keep(room, events).await?;
        Ok(self.rooms.set_whole_state(room, &state, strict).await?)
    }
}
