//! What concerns which application service: which of our users are theirs, and in which rooms these are. It is read from the store
//! once and then follows the feed, so that an event costs a look at two sets, not at the members of its room.

use std::{collections::HashMap, ops::Bound, sync::Arc};

use roaring::RoaringBitmap;
use stoa_accounts::{Service, Services};
use stoa_store::{
    Direction, Fact, Membership, Position, RoomNo, Snapshot, Store, UserNo,
    rows::{events::StoredEvent, rooms::OwnMembership},
    schema,
};

/// How many aliases of a room are looked at.
const ALIASES: usize = 1_000;
/// How many commits are read at once.
const COMMITS: usize = 1_000;
/// In how many rooms of a service it is looked for somebody of another server; whose service has more counts as there.
const ROOMS: u64 = 2_000;

/// The users of each service, by their numbers, and where they are joined: as of a place in the feed.
#[derive(Default)]
pub(super) struct Interest {
    /// Whose interest that is.
    pub(super) services: Arc<Services>,
    /// In the order of the services.
    mine: Vec<RoaringBitmap>,
    /// Rooms with users of each, in that order.
    rooms: Vec<RoaringBitmap>,
    /// Users of any service who are joined to a room.
    joined: HashMap<RoomNo, RoaringBitmap>,
}

impl Interest {
    /// As it was at a place in the feed. The rows may be newer: who left since was there then.
    pub(super) async fn read(
        store: &Store,
        services: Arc<Services>,
        at: Position,
    ) -> Result<Interest, stoa_store::Error> {
        let snapshot = store.snapshot().await?;
        let none = vec![RoaringBitmap::new(); services.all().len()];
        let mut interest = Interest { services, mine: none.clone(), rooms: none, joined: HashMap::new() };
        let mut unclear = Vec::new();
        for (user, _) in snapshot.scan(&schema::USERS, &(), Direction::Forward, usize::MAX).await? {
            let id = store.names().user_id(&snapshot, user).await?;
            if !interest.meet(user, &id) {
                continue;
            }
            for ((_, room), own) in snapshot.scan(&schema::MEMBERSHIPS, &user, Direction::Forward, usize::MAX).await? {
                match was_joined(&own, at) {
                    Some(true) => interest.moved(room, user, true),
                    Some(false) => {}
                    None => unclear.push((room, user, own.joined_at)),
                }
            }
        }
        if !unclear.is_empty() {
            let first = first_moves(&snapshot, at).await?;
            for (room, user, joined_at) in unclear {
                // Who joined first was not there before, unless that was another stay than the last one.
                let came =
                    matches!(first.get(&(room, user)), Some((Membership::Join, last)) if Some(*last) >= joined_at);
                if !came {
                    interest.moved(room, user, true);
                }
            }
        }
        Ok(interest)
    }

    /// Hears of a user of ours. Whether it is one of a service is the answer.
    pub(super) fn meet(&mut self, user: UserNo, id: &str) -> bool {
        let mut any = false;
        for (service, mine) in self.services.all().iter().zip(&mut self.mine) {
            if service.is_mine(id) {
                mine.insert(user.0);
                any = true;
            }
        }
        any
    }

    /// Whether a user is one of any service.
    pub(super) fn knows(&self, user: UserNo) -> bool {
        self.mine.iter().any(|mine| mine.contains(user.0))
    }

    /// Whether a user is one of a service.
    pub(super) fn is_mine(&self, nth: usize, user: UserNo) -> bool {
        self.mine.get(nth).is_some_and(|mine| mine.contains(user.0))
    }

    /// Whether users of a service are joined to a room.
    pub(super) fn has_room(&self, nth: usize, room: RoomNo) -> bool {
        self.rooms.get(nth).is_some_and(|rooms| rooms.contains(room.0))
    }

    /// Somebody joined a room or is not joined any more.
    pub(super) fn moved(&mut self, room: RoomNo, user: UserNo, joined: bool) {
        if !self.knows(user) {
            return;
        }
        let there = self.joined.entry(room).or_default();
        if joined {
            there.insert(user.0);
        } else {
            there.remove(user.0);
        }
        for (mine, rooms) in self.mine.iter().zip(&mut self.rooms) {
            if mine.is_disjoint(there) {
                rooms.remove(room.0);
            } else {
                rooms.insert(room.0);
            }
        }
        if there.is_empty() {
            self.joined.remove(&room);
        }
    }
}

/// Whether somebody was joined at a place in the feed; `None` for who came and went since.
fn was_joined(own: &OwnMembership, at: Position) -> Option<bool> {
    let came_since = own.joined_at.is_some_and(|joined| joined > at);
    match own.left_at.is_some_and(|left| left > at) {
        true if came_since => None,
        true => Some(true),
        false => Some(own.membership == Membership::Join && !came_since),
    }
}

/// What became first of everybody of us in each room after a place in the feed, and in which commit.
async fn first_moves(
    snapshot: &Snapshot,
    at: Position,
) -> Result<HashMap<(RoomNo, UserNo), (Membership, Position)>, stoa_store::Error> {
    let mut first = HashMap::new();
    let mut after = at;
    loop {
        let (from, to) = (Bound::Excluded(after), Bound::<Position>::Unbounded);
        let rows = snapshot.range(&schema::FEED, from, to, Direction::Forward, COMMITS).await?;
        let Some((last, _)) = rows.last() else { return Ok(first) };
        after = *last;
        for (last, row) in rows {
            for fact in row.facts {
                if let Fact::Member { room, user, membership, local: true } = fact {
                    first.entry((room, user)).or_insert((membership, last));
                }
            }
        }
    }
}

/// What was found out about rooms in one go, so that it is not asked for each event.
#[derive(Default)]
pub(super) struct Rooms {
    by_name: HashMap<(usize, RoomNo), bool>,
}

impl super::Inner {
    /// Whether everything in a room concerns a service.
    pub(super) async fn wants_room(
        &self,
        snapshot: &Snapshot,
        (nth, service): (usize, &Arc<Service>),
        room: RoomNo,
        rooms: &mut Rooms,
    ) -> Result<bool, stoa_store::Error> {
        if self.interest.read().has_room(nth, room) {
            return Ok(true);
        }
        if let Some(known) = rooms.by_name.get(&(nth, room)) {
            return Ok(*known);
        }
        let id = self.store.names().room_id(snapshot, room).await?;
        let mut wants = service.has_room(&id);
        if !wants && service.has_aliases() {
            let aliases = snapshot.scan(&schema::ROOM_ALIASES, &room, Direction::Forward, ALIASES).await?;
            wants = aliases.iter().any(|((_, alias), ())| service.has_alias(alias));
        }
        rooms.by_name.insert((nth, room), wants);
        Ok(wants)
    }

    /// Whether an event concerns a service.
    pub(super) async fn wants_event(
        &self,
        snapshot: &Snapshot,
        service: (usize, &Arc<Service>),
        (room, event): (RoomNo, &StoredEvent),
        rooms: &mut Rooms,
    ) -> Result<bool, stoa_store::Error> {
        let header = &event.header;
        let about = header.state_key.as_deref().filter(|_| header.kind == "m.room.member");
        let about_mine = about.is_some_and(|user| service.1.is_mine(user));
        Ok(about_mine || service.1.is_mine(&header.sender) || self.wants_room(snapshot, service, room, rooms).await?)
    }

    /// Whether somebody is one of a service's users, or in a room with one.
    pub(super) async fn wants_person(
        &self,
        snapshot: &Snapshot,
        nth: usize,
        user: UserNo,
    ) -> Result<bool, stoa_store::Error> {
        let joined = self.store.who().joined(user);
        let rooms = {
            let interest = self.interest.read();
            let Some(rooms) = interest.rooms.get(nth) else { return Ok(false) };
            if interest.is_mine(nth, user) || !joined.is_disjoint(rooms) {
                return Ok(true);
            }
            rooms.clone()
        };
        // Of our own users that was all.
        if !joined.is_empty() {
            return Ok(false);
        }
        if rooms.len() > ROOMS {
            return Ok(true);
        }
        let keys = rooms.iter().map(|room| (RoomNo(room), user));
        let members = snapshot.get_many(&schema::MEMBERS, keys).await?;
        Ok(members.into_iter().flatten().any(|member| member.membership == Membership::Join))
    }
}
