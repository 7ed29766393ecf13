//! Rooms that were joined with partial state (Server-Server API, `send_join` with `omit_members`): the states around events
//! lack members until the whole state is there. Then they are worked out again, in the order in which the events came, a
//! few at a time; what the room is now follows, and the mark is lifted. See `docs/decisions/0006-partial-state.md`.

use std::{collections::HashSet, sync::Arc, time::Duration};

use stoa_event::{
    auth::{check_with, kind},
    ids::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, UserId},
    pdu::Pdu,
};
use stoa_store::{
    Direction, EventNo, Position, rows,
    rows::{
        events::{Standing, StoredEvent},
        partial::{PartialEvent, PartialRoom},
    },
    schema,
    state::Root,
};

use crate::{Error, Rooms, writer::Writer};

/// How many events are judged again in one step.
const EVENTS: usize = 100;
/// How many members the room gets in one step.
const MEMBERS: usize = 1_000;

/// A room whose state is not whole yet.
#[derive(Clone, Debug)]
pub struct Partial {
    /// The join by which this server came in.
    pub join: OwnedEventId,
    /// The server that let us in, and the others that are in the room, as it said.
    pub servers: Vec<OwnedServerName>,
    /// Whether the whole state before the join is there.
    pub told: bool,
}

impl Rooms {
    /// The rooms that this server is in and whose state is not whole yet.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn partial_rooms(&self) -> Result<Vec<OwnedRoomId>, Error> {
        let store = &self.inner.store;
        let snapshot = store.snapshot().await?;
        let mut rooms = Vec::new();
        for (no, _) in snapshot.scan(&schema::PARTIAL_ROOMS, &(), Direction::Forward, usize::MAX).await? {
            if !store.who().local(no).is_empty() {
                rooms.extend(OwnedRoomId::try_from(&*store.names().room_id(&snapshot, no).await?).ok());
            }
        }
        Ok(rooms)
    }

    /// What is known of a room whose state is not whole; nothing for one whose state is.
    ///
    /// # Errors
    /// Where the room is not known or the store fails.
    pub async fn partial(&self, room: &RoomId) -> Result<Option<Partial>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let no = self.room_no(&snapshot, room).await?;
        let Some(PartialRoom { join, via, servers }) = snapshot.get(&schema::PARTIAL_ROOMS, &no).await? else {
            return Ok(None);
        };
        let join = self.inner.store.events().get(&snapshot, no, join).await?;
        let join = join.ok_or(stoa_store::Error::Missing("the join of a partial room"))?;
        let id = <&EventId>::try_from(join.header.event_id.as_str());
        let id = id.map_err(|_| stoa_store::Error::Corrupt("a stored event has no valid id"))?;
        let others = servers.into_iter().filter(|server| *server != via);
        let servers = [via.clone()].into_iter().chain(others).filter_map(|name| name.try_into().ok()).collect();
        Ok(Some(Partial { join: id.to_owned(), servers, told: !join.header.partial }))
    }

    /// Waits until a room's state is whole; says whether it is.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn wait_whole(&self, room: &RoomId, patience: Duration) -> Result<bool, Error> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            // Listening begins before looking.
            let rung = self.inner.whole.notified();
            let mut rung = std::pin::pin!(rung);
            rung.as_mut().enable();
            match self.partial(room).await {
                Ok(None) | Err(Error::UnknownRoom) => return Ok(true),
                Ok(Some(_)) => {}
                Err(why) => return Err(why),
            }
            if tokio::time::timeout_at(deadline, rung).await.is_err() {
                return Ok(false);
            }
        }
    }

    /// The whole state before the join by which this server came into a room, all of whose events are held. A `strict` look
    /// refuses one that has nothing where the server that let us in told something.
    ///
    /// # Errors
    /// Where it cannot be the state of this room, or the join is not allowed in it. Nothing is changed then.
    pub async fn set_whole_state(&self, room: &RoomId, state: &[OwnedEventId], strict: bool) -> Result<(), Error> {
        let inner = &*self.inner;
        let (lock, snapshot) = self.locked(room).await?;
        let Some(partial) = snapshot.get(&schema::PARTIAL_ROOMS, &lock.room()).await? else { return Ok(()) };
        let mut writer = Writer::begin(inner, &snapshot, lock).await?;
        let join = writer.stored(partial.join).await?;
        if !join.header.partial {
            writer.leave();
            return Ok(());
        }
        let bad = |why: &str| Error::BadContent(format!("what was told is not the state of the room: {why}"));
        let before = writer.told(state).await?.map_err(|_| bad("some of its events cannot be had"))?;
        let create = writer.at(before, kind::CREATE, "").await?;
        if create.is_none_or(|(no, _)| no != writer.live.head.create) {
            return Err(bad("it has another create event"));
        }
        if strict && let Some(first) = join.header.before {
            for change in writer.state.changes(first, before).await? {
                if change.after.is_none() {
                    return Err(bad("it lacks what was told before"));
                }
            }
        }
        writer.judge_again(partial.join, &join, before).await?;
        if writer.standing(partial.join).await? == Standing::Rejected {
            return Err(bad("it does not allow the join"));
        }
        writer.commit().await
    }

    /// One step towards a whole room, once the whole state before the join is there. Says whether the room is whole.
    ///
    /// # Errors
    /// Where that state is not there or the store fails.
    pub async fn make_whole(&self, room: &RoomId) -> Result<bool, Error> {
        let inner = &*self.inner;
        let (lock, snapshot) = self.locked(room).await?;
        let Some(partial) = snapshot.get(&schema::PARTIAL_ROOMS, &lock.room()).await? else { return Ok(true) };
        let mut writer = Writer::begin(inner, &snapshot, lock).await?;
        if writer.is_partial(partial.join).await? {
            writer.leave();
            return Err(Error::Partial);
        }
        let rows = snapshot.scan(&schema::PARTIAL_EVENTS, &writer.room(), Direction::Forward, EVENTS).await?;
        for (_, PartialEvent { event, prev, told }) in &rows {
            let stored = writer.stored(*event).await?;
            let mut roots = told.clone();
            for prev in prev {
                roots.push(writer.state_after(*prev).await?);
            }
            let before = writer.resolve(roots).await?;
            writer.judge_again(*event, &stored, before).await?;
        }
        let whole = rows.len() < EVENTS && writer.approach().await?;
        writer.commit().await?;
        if whole {
            tracing::info!(%room, "the room is whole");
            inner.whole.notify_waiters();
        }
        Ok(whole)
    }
}

impl Writer<'_> {
    /// Whether the states around an event lack members.
    pub(crate) async fn is_partial(&self, no: EventNo) -> Result<bool, Error> {
        match self.added.get(&no) {
            Some(header) => Ok(header.partial),
            None => Ok(self.stored(no).await?.header.partial),
        }
    }

    /// Whether they do for ever: nobody of us was in the room any more before they could be worked out again.
    pub(crate) async fn is_stale(&self, no: EventNo) -> Result<bool, Error> {
        if self.added.contains_key(&no) {
            return Ok(false);
        }
        let event = self.stored(no).await?;
        let Some(at) = event.header.at.filter(|_| event.header.partial) else { return Ok(false) };
        Ok(self.anew || !self.snapshot.has(&schema::PARTIAL_EVENTS, &(self.live.no, at)).await?)
    }

    /// Whether a user's membership cannot be known yet.
    pub(crate) async fn lacks_member(&mut self, user: &UserId) -> Result<bool, Error> {
        Ok(self.live.head.partial && self.current(kind::MEMBER, user.as_str()).await?.is_none())
    }

    /// Adds to a state that is not whole the members whom it lacks and whom an event names as what allows it. What its
    /// sender's server says must do until the whole state is there.
    pub(crate) async fn fill(&mut self, mut root: Root, auth: &[EventNo]) -> Result<Root, Error> {
        for no in auth {
            let pdu = self.pdu(*no).await?;
            let Some(user) = pdu.state_key().filter(|_| pdu.kind() == kind::MEMBER) else { continue };
            if self.standing(*no).await? == Standing::Rejected {
                continue;
            }
            let key = self.state_key(kind::MEMBER, user).await?;
            if self.state.get(root, key).await?.is_none() {
                root = self.state.set(root, key, Some(*no)).await?;
            }
        }
        Ok(root)
    }

    /// Judges an event by the whole state before it, and writes the states around it anew.
    async fn judge_again(&mut self, no: EventNo, event: &Arc<StoredEvent>, before: Root) -> Result<(), Error> {
        let pdu = Arc::new(event.pdu(&self.live.rules)?);
        let mut event = StoredEvent::clone(event);
        let header = &mut event.header;
        header.standing = match (self.allows(&pdu, before).await?, header.standing) {
            (false, _) => Standing::Rejected,
            // It was shown to nobody, and it is too late for that; but it counts for what follows it.
            (true, Standing::Rejected) => Standing::SoftFailed,
            (true, standing) => standing,
        };
        let (after, replaces) = match header.standing {
            Standing::Rejected => (before, None),
            _ => self.change_state(before, &pdu, no).await?,
        };
        header.before = Some(before);
        header.after = (pdu.state_key().is_some() && header.standing != Standing::Rejected).then_some(after);
        header.replaces = replaces;
        header.partial = false;
        self.roots.extend([before, after]);
        self.live.graph.remove(&no.0);
        rows::events::rewrite(&mut self.tx, self.live.no, no, &event);
        rows::partial::delete_event(&mut self.tx, self.live.no, event.header.at.unwrap_or(Position::MIN));
        self.added.insert(no, event.header);
        Ok(())
    }

    /// Whether an event is allowed by what it names and by a state.
    async fn allows(&mut self, pdu: &Arc<Pdu>, before: Root) -> Result<bool, Error> {
        let Ok(by_auth) = self.by_auth(pdu).await? else { return Ok(false) };
        let gathered = self.gather_at(before, (pdu.sender(), pdu.kind(), pdu.state_key(), pdu.content())).await?;
        let by_state = check_with(&self.live.rules, pdu, &gathered.powers, &gathered.state);
        if let Some(why) = by_auth.reject.or(by_state.err()) {
            tracing::info!(room = %self.live.id, event = %pdu.event_id(), %why, "the whole state rejects an event");
            return Ok(false);
        }
        Ok(true)
    }

    /// What the room is now comes closer to what its forward extremities make of it. Says whether it is that.
    async fn approach(&mut self) -> Result<bool, Error> {
        self.drop_rejected_tips().await?;
        let mut roots = Vec::with_capacity(self.live.head.extremities.len());
        for (tip, _) in self.live.head.extremities.clone() {
            roots.push(self.state_after(tip).await?);
        }
        let old = self.live.head.root;
        let mut new = self.resolve(roots).await?;
        let mut changes = self.state.changes(old, new).await?;
        let whole = changes.len() <= MEMBERS;
        if !whole {
            changes.truncate(MEMBERS);
            new = old;
            for change in &changes {
                new = self.state.set(new, change.key, change.after).await?;
            }
        }
        let slot = self.tx.slot();
        self.last = Some(slot);
        if new != old {
            self.turn(slot, new, changes).await?;
        }
        if whole {
            self.whole = true;
            rows::partial::delete_room(&mut self.tx, self.live.no);
        }
        Ok(whole)
    }

    /// Nothing may follow a rejected event: what that followed stands in its place.
    async fn drop_rejected_tips(&mut self) -> Result<(), Error> {
        let mut todo: Vec<EventNo> = self.live.head.extremities.iter().map(|(no, _)| *no).collect();
        let (mut met, mut tips, mut ids) = (HashSet::new(), Vec::new(), Vec::new());
        while let Some(no) = todo.pop() {
            if !met.insert(no) {
                continue;
            }
            let stored = self.stored(no).await?;
            let header = self.added.get(&no).unwrap_or(&stored.header);
            if header.standing == Standing::Rejected {
                todo.extend(header.prev.iter().copied());
                continue;
            }
            let depth = header.depth;
            tips.push((no, depth));
            ids.push(self.pdu(no).await?.event_id().clone());
        }
        (self.live.head.extremities, self.live.tips) = (tips, ids);
        Ok(())
    }
}
