//! Long names of rooms and users, and the dense numbers that stand for them.
//!
//! A number is given out before the transaction that needs it is committed, and another transaction may use it
//! meanwhile. So every transaction that uses a number whose row is not on disk yet writes that row too.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use parking_lot::RwLock;
use stoa_engine::{Batch, Direction, Op};

use crate::{Error, RoomNo, Snapshot, UserNo, codec::KeyPart, schema, table::Table, tx::Tx, value::Value};

/// A name that a transaction gives to a number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Named {
    User(Arc<str>, UserNo),
    Room(Arc<str>, RoomNo),
}

impl Named {
    pub(crate) fn write(&self, batch: &mut Batch) {
        match self {
            Named::User(name, no) => both(batch, &schema::USER_NOS, &schema::USER_IDS, name, *no),
            Named::Room(name, no) => both(batch, &schema::ROOM_NOS, &schema::ROOM_IDS, name, *no),
        }
    }
}

fn both<N: KeyPart + Value + Copy>(
    batch: &mut Batch,
    by_name: &Table<String, N>,
    by_number: &Table<N, String>,
    name: &str,
    no: N,
) {
    let name = name.to_owned();
    batch.ops.push(Op::Put { space: by_name.space, key: by_name.key(&name), value: no.to_bytes() });
    batch.ops.push(Op::Put { space: by_number.space, key: by_number.key(&no), value: name.to_bytes() });
}

struct Entry {
    no: u32,
    durable: bool,
}

struct Book {
    by_name: RwLock<HashMap<Arc<str>, Entry>>,
    by_number: RwLock<HashMap<u32, Arc<str>>>,
    next: AtomicU32,
}

impl Book {
    fn new(next: u32) -> Self {
        Book { by_name: RwLock::default(), by_number: RwLock::default(), next: AtomicU32::new(next) }
    }

    fn known(&self, name: &str) -> Option<u32> {
        self.by_name.read().get(name).map(|entry| entry.no)
    }

    fn name_of(&self, no: u32) -> Option<Arc<str>> {
        self.by_number.read().get(&no).cloned()
    }

    fn remember(&self, name: &Arc<str>, no: u32) {
        self.by_name.write().entry(name.clone()).or_insert(Entry { no, durable: true });
        self.by_number.write().entry(no).or_insert_with(|| name.clone());
    }

    /// The number of a name that is not on disk; given out now if nobody did before.
    fn give(&self, name: &str) -> (Arc<str>, u32, bool) {
        let mut book = self.by_name.write();
        if let Some((name, entry)) = book.get_key_value(name) {
            return (name.clone(), entry.no, entry.durable);
        }
        let name: Arc<str> = name.into();
        let no = self.next.fetch_add(1, Ordering::Relaxed);
        book.insert(name.clone(), Entry { no, durable: false });
        self.by_number.write().insert(no, name.clone());
        (name, no, false)
    }

    fn durable(&self, name: &str) {
        if let Some(entry) = self.by_name.write().get_mut(name) {
            entry.durable = true;
        }
    }
}

/// The names of users and rooms that were met since start.
pub struct Names {
    users: Book,
    rooms: Book,
}

impl Names {
    pub(crate) async fn open(snapshot: &Snapshot) -> Result<Names, Error> {
        let user = snapshot.scan(&schema::USER_IDS, &(), Direction::Backward, 1).await?;
        let room = snapshot.scan(&schema::ROOM_IDS, &(), Direction::Backward, 1).await?;
        Ok(Names {
            users: Book::new(user.first().map_or(0, |(no, _)| no.0 + 1)),
            rooms: Book::new(room.first().map_or(0, |(no, _)| no.0 + 1)),
        })
    }

    pub(crate) fn durable(&self, named: &[Named]) {
        for name in named {
            match name {
                Named::User(name, _) => self.users.durable(name),
                Named::Room(name, _) => self.rooms.durable(name),
            }
        }
    }

    /// A user's number, if this server has met the user.
    ///
    /// # Errors
    /// Where the engine fails.
    pub async fn user(&self, snapshot: &Snapshot, id: &str) -> Result<Option<UserNo>, Error> {
        if let Some(no) = self.users.known(id) {
            return Ok(Some(UserNo(no)));
        }
        let found = snapshot.get(&schema::USER_NOS, &id.to_owned()).await?;
        if let Some(no) = found {
            self.users.remember(&id.into(), no.0);
        }
        Ok(found)
    }

    /// A room's number, if this server has met the room.
    ///
    /// # Errors
    /// Where the engine fails.
    pub async fn room(&self, snapshot: &Snapshot, id: &str) -> Result<Option<RoomNo>, Error> {
        if let Some(no) = self.rooms.known(id) {
            return Ok(Some(RoomNo(no)));
        }
        let found = snapshot.get(&schema::ROOM_NOS, &id.to_owned()).await?;
        if let Some(no) = found {
            self.rooms.remember(&id.into(), no.0);
        }
        Ok(found)
    }

    /// The number of a user, given out in `tx` if there is none yet.
    ///
    /// # Errors
    /// Where the engine fails.
    pub async fn name_user(&self, snapshot: &Snapshot, tx: &mut Tx, id: &str) -> Result<UserNo, Error> {
        self.user(snapshot, id).await?;
        let (name, no, durable) = self.users.give(id);
        if !durable {
            tx.named.push(Named::User(name, UserNo(no)));
        }
        Ok(UserNo(no))
    }

    /// The number of a room, given out in `tx` if there is none yet.
    ///
    /// # Errors
    /// Where the engine fails.
    pub async fn name_room(&self, snapshot: &Snapshot, tx: &mut Tx, id: &str) -> Result<RoomNo, Error> {
        self.room(snapshot, id).await?;
        let (name, no, durable) = self.rooms.give(id);
        if !durable {
            tx.named.push(Named::Room(name, RoomNo(no)));
        }
        Ok(RoomNo(no))
    }

    /// The id of a user.
    ///
    /// # Errors
    /// Where the engine fails or there is no such number.
    pub async fn user_id(&self, snapshot: &Snapshot, no: UserNo) -> Result<Arc<str>, Error> {
        if let Some(name) = self.users.name_of(no.0) {
            return Ok(name);
        }
        let name: Arc<str> = snapshot.get(&schema::USER_IDS, &no).await?.ok_or(Error::Missing("a user"))?.into();
        self.users.remember(&name, no.0);
        Ok(name)
    }

    /// The id of a room.
    ///
    /// # Errors
    /// Where the engine fails or there is no such number.
    pub async fn room_id(&self, snapshot: &Snapshot, no: RoomNo) -> Result<Arc<str>, Error> {
        if let Some(name) = self.rooms.name_of(no.0) {
            return Ok(name);
        }
        let name: Arc<str> = snapshot.get(&schema::ROOM_IDS, &no).await?.ok_or(Error::Missing("a room"))?.into();
        self.rooms.remember(&name, no.0);
        Ok(name)
    }
}
