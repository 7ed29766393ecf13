//! Coming into a room that other servers hold: its state and the auth events of that become known at once, and the join
//! gets its place on top of them (Server-Server API, "Joining rooms").

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
use stoa_store::{Tx, schema};

use crate::{
    Error, Rooms,
    effects::Way,
    ingest::{Outcome, StateAfter},
    live::Live,
    writer::Writer,
};

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
}

impl Rooms {
    /// Comes into a room.
    ///
    /// # Errors
    /// Where what was told does not make a room in which the join is allowed.
    pub async fn enter(&self, entry: Entry) -> Result<(), Error> {
        let inner = &*self.inner;
        let create = create_of(&entry)?;
        let snapshot = inner.store.snapshot().await?;
        let mut tx = Tx::new();
        let no = inner.store.names().name_room(&snapshot, &mut tx, entry.room.as_str()).await?;
        let lock = self.lock(no).await;
        let snapshot = inner.store.snapshot().await?;
        let mut writer = match snapshot.has(&schema::ROOMS, &no).await? {
            true => Writer::begin(inner, &snapshot, lock).await?,
            false => {
                let live = Live::unwritten(no, entry.room.clone(), entry.rules.clone(), create.clone());
                Writer::over(inner, &snapshot, live, Some(lock))
            }
        };
        if writer.live.create.event_id() != create.event_id() {
            return Err(Error::forbidden("the room has another create event"));
        }
        writer.tx = tx;
        writer.know(&entry, &create).await?;
        if inner.store.who().local(no).is_empty() {
            // What we knew of it is over: it goes on from what was told.
            writer.live.head.extremities.clear();
            writer.live.tips.clear();
        }
        let mut ids = Vec::with_capacity(entry.state.len());
        for pdu in &entry.state {
            // What was left out is no part of the state either: one bad event does not keep anybody out.
            if writer.in_room(pdu.event_id().as_str()).await?.is_some() {
                ids.push(pdu.event_id().clone());
            }
        }
        let state = |event: &OwnedEventId| StateAfter { event: event.clone(), state: ids.clone() };
        let states = entry.join.prev_events().iter().map(state).collect();
        let Ok(by_auth) = writer.by_auth(&entry.join).await? else {
            return Err(Error::forbidden("the join names auth events that were not told"));
        };
        match writer.judge(entry.join, states, by_auth, Way::Live).await? {
            Outcome::Accepted => writer.commit().await,
            Outcome::Rejected(why) | Outcome::SoftFailed(why) => Err(Error::Forbidden(why)),
            Outcome::Known | Outcome::Needs(_) => Err(Error::forbidden("the state that was told is not whole")),
        }
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
    async fn know(&mut self, entry: &Entry, create: &Arc<Pdu>) -> Result<(), Error> {
        if self.in_room(create.event_id().as_str()).await?.is_none() {
            self.keep_outlier(create, Vec::new(), false).await?;
        }
        let mut left_out = 0;
        for pdu in in_order(entry.auth.iter().chain(&entry.state)) {
            if *pdu.room_id() != entry.room || self.in_room(pdu.event_id().as_str()).await?.is_some() {
                continue;
            }
            if pdu.kind() == kind::CREATE {
                left_out += 1;
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
}

/// Events so that each comes after those of them that it names as auth events.
fn in_order<'a>(events: impl Iterator<Item = &'a Arc<Pdu>>) -> Vec<&'a Arc<Pdu>> {
    let by_id: HashMap<&EventId, &Arc<Pdu>> = events.map(|pdu| (&**pdu.event_id(), pdu)).collect();
    let (mut done, mut order) = (HashSet::new(), Vec::with_capacity(by_id.len()));
    for first in by_id.values() {
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
