//! Rooms whose forward extremities grow because nobody of us speaks there get an event that says nothing (decision record
//! 0007). Each server waits for a while of its own, so that they do not all do it at once.

use std::{collections::HashMap, time::Duration};

use stoa_store::RoomNo;

use crate::{Error, Inner};

/// How long a room waits at least.
const WAITS_MS: u64 = 10_000;
/// Beyond that, within a time that grows with the number of servers in the room, about one of them does it each second.
const SPREAD_MS: std::ops::RangeInclusive<u64> = 30_000..=3_600_000;
const PER_SERVER_MS: u64 = 1_000;
/// How many such events a room gets in one go: enough for a few hundred forward extremities.
const ROUNDS: usize = 20;
/// How long the timer sleeps at most: the clock is not its own.
const NAP: Duration = Duration::from_secs(1);

impl Inner {
    /// Brings forward extremities together, again and again.
    pub(crate) async fn knit(&self) {
        let mut due: HashMap<RoomNo, u64> = HashMap::new();
        loop {
            if due.is_empty() {
                self.rooms.one_more_forked().await;
            } else {
                tokio::time::sleep(NAP).await;
            }
            let forked = self.rooms.forked();
            due.retain(|room, _| forked.contains(room));
            for room in forked {
                let done = match due.get(&room) {
                    Some(at) if *at > self.env.now_ms() => continue,
                    Some(_) => self.knit_room(room).await,
                    None => Ok(()),
                };
                match done.and(self.next_time(room).await) {
                    Ok(at) => due.insert(room, at),
                    Err(why) => {
                        tracing::info!(?room, %why, "cannot bring the forward extremities of a room together");
                        due.insert(room, self.env.now_ms() + SPREAD_MS.end())
                    }
                };
            }
        }
    }

    async fn next_time(&self, room: RoomNo) -> Result<u64, Error> {
        let servers = match self.rooms.knot(room).await? {
            Some((id, _)) => self.rooms.servers(&id).await?.len() as u64,
            None => return Ok(self.env.now_ms() + SPREAD_MS.end()),
        };
        let mut random = [0; 8];
        self.env.random.fill(&mut random);
        let spread = (servers * PER_SERVER_MS).clamp(*SPREAD_MS.start(), *SPREAD_MS.end());
        Ok(self.env.now_ms() + WAITS_MS + u64::from_be_bytes(random) % spread)
    }

    async fn knit_room(&self, room: RoomNo) -> Result<(), Error> {
        for _ in 0..ROUNDS {
            let Some((id, event)) = self.rooms.knot(room).await? else { return Ok(()) };
            self.agreed(self.rooms.send(&id, event).await).await?;
        }
        Ok(())
    }
}
