//! Coming into a room that other servers hold: its state and the auth events of that become known, and the join gets its
//! place on top of them (Server-Server API, "Joining rooms").

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use stoa_event::{
    auth::{Create, kind},
    ids::{EventId, OwnedEventId, OwnedRoomId},
    pdu::Pdu,
    version::Rules,
};
use stoa_store::{Snapshot, Tx, rows, rows::partial::PartialRoom, schema};

use crate::{
    Error, Rooms,
    effects::Way,
    ingest::{Outcome, StateAfter},
    live::Live,
    writer::Writer,
};

/// How many events are written in one commit. The last of them share one with the join; a small room is one commit.
const BATCH: usize = 500;
/// How many servers are remembered of a room whose state is not whole.
const SERVERS: usize = 10_000;

/// A room as the server told it that let our user in. All signatures are checked.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The room.
    pub room: OwnedRoomId,
    /// Its version, as the template of the join said.
    pub rules: Arc<Rules>,
    /// The join of our user.
    pub join: Arc<Pdu>,
    /// The state before the join.
    pub state: Vec<Arc<Pdu>>,
    /// The auth chain of that state.
    pub auth: Vec<Arc<Pdu>>,
    /// Given where the state lacks members.
    pub omitted: Option<Omitted>,
}

/// Members were omitted from a state: from whom the rest can be had.
#[derive(Clone, Debug)]
pub struct Omitted {
    /// The server that told the state.
    pub via: String,
    /// The servers that are in the room.
    pub servers: Vec<String>,
}

impl Rooms {
    /// Comes into a room.
    ///
    /// # Errors
    /// Where what was told does not make a room in which the join is allowed; [`Error::Partial`] where it lacks members, but
    /// the join must be judged by all of them, because this server is in the room already.
    pub async fn enter(&self, entry: Entry) -> Result<(), Error> {
        let create = create_of(&entry)?;
        let ordered = in_order(entry.auth.iter().chain(&entry.state));
        let told: Vec<&Arc<Pdu>> = [&create].into_iter().chain(ordered).collect();
        let (early, last) = told.split_at(told.len().saturating_sub(BATCH));
        for events in early.chunks(BATCH) {
            let (snapshot, lock, tx) = self.at_the_door(&entry).await?;
            let mut writer = self.writer_of(&snapshot, lock, tx, (&entry, &create)).await?;
            writer.know(&entry, events).await?;
            writer.commit().await?;
        }
        let (snapshot, lock, tx) = self.at_the_door(&entry).await?;
        let mut writer = self.writer_of(&snapshot, lock, tx, (&entry, &create)).await?;
        writer.know(&entry, last).await?;
        writer.come_in(entry).await
    }

    /// The lock of the room, whether it is known or not.
    async fn at_the_door(&self, entry: &Entry) -> Result<(Snapshot, crate::lock::RoomLock, Tx), Error> {
        let store = &self.inner.store;
        let snapshot = store.snapshot().await?;
        let mut tx = Tx::new();
        let no = store.names().name_room(&snapshot, &mut tx, entry.room.as_str()).await?;
        let lock = self.lock(no).await;
        Ok((store.snapshot().await?, lock, tx))
    }

    async fn writer_of<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        lock: crate::lock::RoomLock,
        tx: Tx,
        (entry, create): (&Entry, &Arc<Pdu>),
    ) -> Result<Writer<'a>, Error> {
        let (inner, no) = (&*self.inner, lock.room());
        let mut writer = match snapshot.has(&schema::ROOMS, &no).await? {
            true => Writer::begin(inner, snapshot, lock).await?,
            false => {
                let live = Live::unwritten(no, entry.room.clone(), entry.rules.clone(), create.clone());
                Writer::over(inner, snapshot, live, Some(lock))
            }
        };
        if writer.live.create.event_id() != create.event_id() {
            return Err(Error::forbidden("the room has another create event"));
        }
        writer.tx = tx;
        Ok(writer)
    }
}

/// The create event, if it is one and fits the room.
fn create_of(entry: &Entry) -> Result<Arc<Pdu>, Error> {
    let all = entry.state.iter().chain(&entry.auth);
    let create = all.into_iter().find(|pdu| pdu.is_state(kind::CREATE, "") && *pdu.room_id() == entry.room);
    let create = create.ok_or_else(|| Error::forbidden("no create event was told"))?;
    #[derive(serde::Deserialize)]
    struct Content {
        room_version: Option<String>,
    }
    let content: Content = create.content_as().map_err(|why| Error::BadContent(why.to_string()))?;
    if content.room_version.as_deref().unwrap_or("1") != entry.rules.id.as_str() {
        return Err(Error::forbidden("the create event is of another room version"));
    }
    let powers = stoa_event::auth::Powers::new(Create::read(&entry.rules, create), None);
    stoa_event::auth::check_with(&entry.rules, create, &powers, &stoa_event::auth::AuthState::<Arc<Pdu>>::new())?;
    Ok(create.clone())
}

impl Writer<'_> {
    /// Keeps what was told as outliers, each after those that it names. Events whose auth events were not told are left out.
    async fn know(&mut self, entry: &Entry, events: &[&Arc<Pdu>]) -> Result<(), Error> {
        let mut left_out = 0;
        for pdu in events {
            if *pdu.room_id() != entry.room || self.in_room(pdu.event_id().as_str()).await?.is_some() {
                continue;
            }
            if pdu.kind() == kind::CREATE {
                match pdu.event_id() == self.live.create.event_id() {
                    true => drop(self.keep_outlier(pdu, Vec::new(), false).await?),
                    false => left_out += 1,
                }
                continue;
            }
            match self.by_auth(pdu).await? {
                Ok(by_auth) => {
                    self.keep_outlier(pdu, by_auth.nos, by_auth.reject.is_some()).await?;
                }
                Err(_) => left_out += 1,
            }
        }
        if left_out > 0 {
            tracing::warn!(room = %entry.room, left_out, "events of the room's state came without their auth events");
        }
        Ok(())
    }

    /// The join gets its place. What was told is known.
    async fn come_in(mut self, entry: Entry) -> Result<(), Error> {
        self.anew = self.inner.store.who().local(self.live.no).is_empty();
        if self.anew {
            // What we knew of it is over: it goes on from what was told.
            self.live.head.extremities.clear();
            self.live.tips.clear();
            self.live.head.partial = false;
            rows::partial::delete_room(&mut self.tx, self.live.no);
        }
        self.told_partial = entry.omitted.is_some();
        let ids: Vec<OwnedEventId> = entry.state.iter().map(|pdu| pdu.event_id().clone()).collect();
        // What was left out is no part of the state either: one bad event does not keep anybody out.
        let held = self.in_room_many(&ids).await?;
        let ids: Vec<OwnedEventId> = ids.into_iter().zip(held).filter_map(|(id, no)| no.map(|_| id)).collect();
        let state = |event: &OwnedEventId| StateAfter { event: event.clone(), state: ids.clone() };
        let states = entry.join.prev_events().iter().map(state).collect();
        let Ok(by_auth) = self.by_auth(&entry.join).await? else {
            return Err(Error::forbidden("the join names auth events that were not told"));
        };
        let id = entry.join.event_id().clone();
        match self.judge(entry.join, states, by_auth, Way::Live).await? {
            Outcome::Accepted => {}
            Outcome::Rejected(why) | Outcome::SoftFailed(why) => return Err(Error::Forbidden(why)),
            Outcome::Known | Outcome::Needs(_) => return Err(Error::forbidden("the state that was told is not whole")),
        }
        if let (Some(omitted), Some(no)) = (entry.omitted, self.in_room(id.as_str()).await?)
            && self.is_partial(no).await?
        {
            if !self.anew {
                return Err(Error::Partial);
            }
            self.live.head.partial = true;
            let mut servers = omitted.servers;
            servers.truncate(SERVERS);
            let partial = PartialRoom { join: no, via: omitted.via, servers };
            rows::partial::put_room(&mut self.tx, self.live.no, &partial);
        }
        self.commit().await
    }
}

/// Events so that each comes after those of them that it names.
fn in_order<'a>(events: impl Iterator<Item = &'a Arc<Pdu>>) -> Vec<&'a Arc<Pdu>> {
    let events: Vec<&Arc<Pdu>> = events.collect();
    let by_id: HashMap<&EventId, &Arc<Pdu>> = events.iter().map(|pdu| (&**pdu.event_id(), *pdu)).collect();
    let (mut done, mut order) = (HashSet::new(), Vec::with_capacity(by_id.len()));
    for first in &events {
        // Depth first, without recursion: chains may be long. `true` when all that it names is done.
        let mut stack = vec![(*first, false)];
        while let Some((pdu, ready)) = stack.pop() {
            if ready {
                order.push(pdu);
            } else if done.insert(pdu.event_id()) {
                stack.push((pdu, true));
                stack.extend(pdu.auth_events().iter().filter_map(|id| Some((*by_id.get(&**id)?, false))));
            }
        }
    }
    order
}
