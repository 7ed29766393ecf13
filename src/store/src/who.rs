//! Who of our own users is in which room, and where each room and user last changed: kept in memory, fed by the feed, so
//! that waking and skipping cost nothing but a look.

use std::collections::HashMap;

use parking_lot::RwLock;
use roaring::RoaringBitmap;
use stoa_engine::Direction;

use crate::{Error, Membership, Position, RoomNo, Snapshot, UserNo, feed::Commit, schema, tx::Fact};

#[derive(Default)]
struct Room {
    /// Local users who are joined.
    local: RoaringBitmap,
    last: Position,
}

#[derive(Default)]
struct User {
    /// Rooms in which the user is joined.
    joined: RoaringBitmap,
    last: Position,
}

#[derive(Default)]
struct State {
    /// Everything up to here is counted in.
    applied: Position,
    rooms: HashMap<RoomNo, Room>,
    users: HashMap<UserNo, User>,
}

/// Who is where. Rooms and users that nobody mentioned since start count as changed at the position of the start.
pub struct Who {
    opened: Position,
    state: RwLock<State>,
}

impl Who {
    pub(crate) async fn open(snapshot: &Snapshot) -> Result<Who, Error> {
        let opened = snapshot.position();
        let mut state = State { applied: opened, ..State::default() };
        // Our own users' memberships: as many as they have rooms, not as many as the rooms have members.
        for ((user, room), own) in snapshot.scan(&schema::MEMBERSHIPS, &(), Direction::Forward, usize::MAX).await? {
            if own.membership == Membership::Join {
                state.join(room, user, opened);
            }
        }
        Ok(Who { opened, state: RwLock::new(state) })
    }

    pub(crate) fn apply(&self, commit: &Commit) {
        let mut state = self.state.write();
        state.applied = commit.last;
        for fact in &commit.facts {
            match *fact {
                Fact::Event { room, at, .. } | Fact::Room { room, at } => state.room(room, self.opened).last = at,
                Fact::User { user, at } => state.user(user, self.opened).last = at,
                Fact::Devices { user, at } => state.user(user, self.opened).last = at,
                Fact::Member { room, user, membership, local } if local => {
                    if membership == Membership::Join {
                        state.join(room, user, self.opened);
                    } else {
                        state.room(room, self.opened).local.remove(user.0);
                        state.user(user, self.opened).joined.remove(room.0);
                    }
                    state.user(user, self.opened).last = commit.last;
                }
                Fact::Member { .. } | Fact::Changed { .. } | Fact::Profile { .. } | Fact::Pushers { .. } => {}
            }
        }
    }

    /// The position up to which all of this is true. What is read from a snapshot taken later is at least as new.
    pub fn position(&self) -> Position {
        self.state.read().applied
    }

    /// The local users who are joined to a room.
    pub fn local(&self, room: RoomNo) -> RoaringBitmap {
        self.state.read().rooms.get(&room).map(|room| room.local.clone()).unwrap_or_default()
    }

    /// Whether a local user is joined to a room.
    pub fn is_joined(&self, room: RoomNo, user: UserNo) -> bool {
        self.state.read().rooms.get(&room).is_some_and(|room| room.local.contains(user.0))
    }

    /// The local users among `candidates` who are joined to a room.
    pub fn local_among(&self, room: RoomNo, candidates: &RoaringBitmap) -> RoaringBitmap {
        self.state.read().rooms.get(&room).map(|room| &room.local & candidates).unwrap_or_default()
    }

    /// The rooms to which a local user is joined.
    pub fn joined(&self, user: UserNo) -> RoaringBitmap {
        self.state.read().users.get(&user).map(|user| user.joined.clone()).unwrap_or_default()
    }

    /// The rooms among a user's joined ones that changed after a position.
    pub fn changed_rooms(&self, user: UserNo, after: Position) -> Vec<RoomNo> {
        let state = self.state.read();
        let Some(joined) = state.users.get(&user).map(|user| &user.joined) else { return Vec::new() };
        let last = |room: RoomNo| state.rooms.get(&room).map_or(self.opened, |room| room.last);
        joined.iter().map(RoomNo).filter(|room| last(*room) > after).collect()
    }

    /// All local users who share a room with this one, the user included.
    pub fn neighbours(&self, user: UserNo) -> RoaringBitmap {
        let state = self.state.read();
        let mut all = RoaringBitmap::from_iter([user.0]);
        for room in state.users.get(&user).into_iter().flat_map(|user| user.joined.iter()) {
            if let Some(room) = state.rooms.get(&RoomNo(room)) {
                all |= &room.local;
            }
        }
        all
    }

    /// The rooms to which any of some local users are joined.
    pub fn rooms_of(&self, users: &RoaringBitmap) -> RoaringBitmap {
        let state = self.state.read();
        let joined = users.iter().filter_map(|user| state.users.get(&UserNo(user))).map(|user| &user.joined);
        joined.fold(RoaringBitmap::new(), |all, rooms| all | rooms)
    }

    /// Where a room last changed for those in it.
    pub fn room_last(&self, room: RoomNo) -> Position {
        self.state.read().rooms.get(&room).map_or(self.opened, |room| room.last)
    }

    /// Where something last changed for this user alone: account data, to-device messages, memberships, own devices.
    pub fn user_last(&self, user: UserNo) -> Position {
        self.state.read().users.get(&user).map_or(self.opened, |user| user.last)
    }
}

impl State {
    fn room(&mut self, room: RoomNo, opened: Position) -> &mut Room {
        self.rooms.entry(room).or_insert_with(|| Room { last: opened, ..Room::default() })
    }

    fn user(&mut self, user: UserNo, opened: Position) -> &mut User {
        self.users.entry(user).or_insert_with(|| User { last: opened, ..User::default() })
    }

    fn join(&mut self, room: RoomNo, user: UserNo, opened: Position) {
        self.room(room, opened).local.insert(user.0);
        self.user(user, opened).joined.insert(room.0);
    }
}
