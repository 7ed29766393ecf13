//! Waiting: who long-polls, and waking them when the feed or the live bus brings something for them.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use roaring::RoaringBitmap;
use stoa_store::{Fact, Heard, Membership, RoomNo, Store, UserNo, rows::rooms::Member, schema};
use tokio::sync::{Notify, broadcast::error::RecvError};

#[derive(Default)]
struct Waiting {
    /// Who waits: what is intersected with the members of a room.
    users: RoaringBitmap,
    /// How to wake them, and how many of their devices wait.
    bells: HashMap<UserNo, (Arc<Notify>, u32)>,
}

/// All who wait.
#[derive(Default)]
pub(crate) struct Waiters {
    waiting: Mutex<Waiting>,
}

/// Somebody who waits; no longer, when dropped.
pub(crate) struct Waiter {
    waiters: Arc<Waiters>,
    user: UserNo,
    pub(crate) bell: Arc<Notify>,
}

impl Waiters {
    /// Registers a user who is going to wait, once for everything.
    pub(crate) fn enter(self: &Arc<Self>, user: UserNo) -> Waiter {
        let mut waiting = self.waiting.lock();
        waiting.users.insert(user.0);
        let (bell, count) = waiting.bells.entry(user).or_default();
        *count += 1;
        Waiter { waiters: self.clone(), user, bell: bell.clone() }
    }

    fn wake(&self, store: &Store, fact: &Fact) {
        let mut waiting = self.waiting.lock();
        if waiting.users.is_empty() {
            return;
        }
        let who = store.who();
        let woken = match *fact {
            Fact::Event { room, .. } | Fact::Room { room, .. } => who.local_among(room, &waiting.users),
            Fact::Member { user, local, .. } if local => RoaringBitmap::from_iter([user.0]),
            Fact::Member { .. } | Fact::Changed { .. } | Fact::Profile { .. } | Fact::Pushers { .. } => return,
            Fact::User { user, .. } => RoaringBitmap::from_iter([user.0]),
            Fact::Devices { user, .. } => who.neighbours(user) & &waiting.users,
        };
        waiting.ring(&woken);
    }

    /// Wakes everyone: at the end, and when something was missed.
    pub(crate) fn wake_all(&self) {
        let mut waiting = self.waiting.lock();
        let all = waiting.users.clone();
        waiting.ring(&all);
    }

    /// How many devices wait.
    pub(crate) fn count(&self) -> usize {
        self.waiting.lock().bells.values().map(|(_, count)| *count as usize).sum()
    }

    /// Listens to feed and bus, and wakes. Ends when the store does.
    pub(crate) async fn run(self: Arc<Self>, store: Store) {
        tokio::join!(self.listen(&store), self.listen_for_strangers(&store));
    }

    /// News of the devices of other servers' users wake who shares a room with them. Where those are is not in memory, so that
    /// it is looked up beside everything else. Presence, which comes about once a second, is told here too.
    async fn listen_for_strangers(&self, store: &Store) {
        let mut feed = store.feed();
        let mut presence = store.bus().listen_to_presence();
        loop {
            tokio::select! {
                heard = feed.next() => match heard {
                    Heard::Commit(commit) => {
                        for fact in &commit.facts {
                            let Fact::Devices { user, .. } = *fact else { continue };
                            self.wake_who_sees(store, user).await;
                        }
                    }
                    // The other listener wakes all.
                    Heard::Missed => {}
                    Heard::End => break,
                },
                heard = presence.recv() => match heard {
                    Ok(users) => {
                        for user in users.iter() {
                            self.wake_neighbours(store, *user);
                            self.wake_who_sees(store, *user).await;
                        }
                    }
                    Err(RecvError::Lagged(_)) => self.wake_all(),
                    Err(RecvError::Closed) => break,
                },
            }
        }
    }

    /// Wakes who shares a room with a user of ours.
    fn wake_neighbours(&self, store: &Store, user: UserNo) {
        let mut waiting = self.waiting.lock();
        if !waiting.users.is_empty() {
            let woken = store.who().neighbours(user) & &waiting.users;
            waiting.ring(&woken);
        }
    }

    /// Wakes who shares a room with a user of another server.
    async fn wake_who_sees(&self, store: &Store, user: UserNo) {
        match self.who_sees(store, user).await {
            Ok(woken) => self.waiting.lock().ring(&woken),
            Err(why) => tracing::warn!(%why, "cannot tell whom news of a user concern"),
        }
    }

    /// Who waits and shares a room with a user of another server.
    async fn who_sees(&self, store: &Store, user: UserNo) -> Result<RoaringBitmap, stoa_store::Error> {
        let who = store.who();
        let waiting = self.waiting.lock().users.clone();
        if waiting.is_empty() || !who.joined(user).is_empty() {
            return Ok(RoaringBitmap::new());
        }
        let rooms: Vec<RoomNo> = who.rooms_of(&waiting).iter().map(RoomNo).collect();
        let snapshot = store.snapshot().await?;
        let members = snapshot.get_many(&schema::MEMBERS, rooms.iter().map(|room| (*room, user))).await?;
        let joined = |member: Option<Member>| member.is_some_and(|member| member.membership == Membership::Join);
        let shared = rooms.into_iter().zip(members).filter(|(_, member)| joined(member.clone()));
        Ok(shared.fold(RoaringBitmap::new(), |all, (room, _)| all | who.local_among(room, &waiting)))
    }

    async fn listen(&self, store: &Store) {
        let mut feed = store.feed();
        let mut bus = store.bus().listen();
        loop {
            tokio::select! {
                heard = feed.next() => match heard {
                    Heard::Commit(commit) => commit.facts.iter().for_each(|fact| self.wake(store, fact)),
                    Heard::Missed => self.wake_all(),
                    Heard::End => break,
                },
                heard = bus.recv() => match heard {
                    Ok(room) => {
                        let mut waiting = self.waiting.lock();
                        let woken = store.who().local_among(room, &waiting.users);
                        waiting.ring(&woken);
                    }
                    Err(RecvError::Lagged(_)) => self.wake_all(),
                    Err(RecvError::Closed) => break,
                },
            }
        }
    }
}

impl Waiting {
    fn ring(&mut self, users: &RoaringBitmap) {
        for user in users {
            if let Some((bell, _)) = self.bells.get(&UserNo(user)) {
                bell.notify_waiters();
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.waiters.waiting.lock();
        if let Some((_, count)) = waiting.bells.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                waiting.bells.remove(&self.user);
                waiting.users.remove(self.user.0);
            }
        }
    }
}
