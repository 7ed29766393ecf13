//! Taking in events of other servers (Server-Server API, "Checks performed on receipt of a PDU").
//!
//! Checks 1 to 3 (shape, signatures, content hash) are done before, without the room's lock: what arrives here is a
//! [`stoa_event::pdu::Pdu`] that its servers signed. Nothing is fetched here: what is lacking is named, and a higher floor comes
//! back with it.

use std::{collections::BTreeSet, sync::Arc};

use stoa_event::{
    auth::{AuthState, Create, PowerLevels, Powers, Reject, check_auth_events, check_with, kind},
    format::MAX_PREV_EVENTS,
    ids::{EventId, OwnedEventId, OwnedServerName, RoomId, RoomVersionId},
    pdu::Pdu,
    version::Rules,
};
use stoa_store::{
    Direction, EventNo,
    rows::{
        self,
        events::{EventPlace, Header, Standing, StoredEvent},
    },
    schema,
    state::Root,
};

use crate::{
    Error, Policy, Rooms,
    effects::{Again, Place, Way},
    policy::is_spared,
    send::TxnKey,
    writer::Writer,
};

/// How many events of a state are looked up at once.
const MANY: usize = 256;
/// How many rows of events that are waited for are looked at to find gaps.
const MANY_GAPS: usize = 2000;

/// The state after an event that is not held, as another server told it.
#[derive(Clone, Debug)]
pub struct StateAfter {
    /// The event.
    pub event: OwnedEventId,
    /// The ids of the state's events, all of which must be held.
    pub state: Vec<OwnedEventId>,
}

/// An event that comes from another server.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// It happened now. With states after those of its `prev_events` that cannot be had.
    Live(Arc<Pdu>, Vec<StateAfter>),
    /// It happened before what is known: `/backfill`.
    History(Arc<Pdu>, Vec<StateAfter>),
    /// It happened now, and the room's policy server does not sign it. Why not.
    Unsigned(Arc<Pdu>, Vec<StateAfter>, String),
    /// It is only known of: an auth event, or part of a state.
    Outlier(Arc<Pdu>),
}

impl Arrival {
    /// The event.
    pub fn pdu(&self) -> &Arc<Pdu> {
        match self {
            Arrival::Live(pdu, _) | Arrival::History(pdu, _) | Arrival::Unsigned(pdu, ..) | Arrival::Outlier(pdu) => {
                pdu
            }
        }
    }
}

/// What an event lacks before it can be judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Events that it names as its auth events, or that a told state holds.
    pub events: Vec<OwnedEventId>,
    /// Events that it follows.
    pub prevs: Vec<OwnedEventId>,
    /// The signature of the room's policy server.
    pub policy: Option<Arc<Policy>>,
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is part of the room.
    Accepted,
    /// It is allowed where it stands, but not by what the room is now: kept, and shown to nobody.
    SoftFailed(String),
    /// It is not allowed: kept so that what builds on it can be judged.
    Rejected(String),
    /// It was part of the room before, or is an outlier now.
    Known,
    /// It cannot be judged yet.
    Needs(Needs),
}

impl Rooms {
    /// The rules of a room that this server knows.
    ///
    /// # Errors
    /// [`Error::UnknownRoom`] where it is not known.
    pub async fn rules_of(&self, room: &RoomId) -> Result<Arc<Rules>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let no = self.room_no(&snapshot, room).await?;
        let head = snapshot.get(&schema::ROOMS, &no).await?.ok_or(Error::UnknownRoom)?;
        crate::live::rules(&head.version)
    }

    /// The version of a room that this server knows.
    ///
    /// # Errors
    /// [`Error::UnknownRoom`] where it is not known.
    pub async fn version_of(&self, room: &RoomId) -> Result<RoomVersionId, Error> {
        Ok(self.rules_of(room).await?.id.clone())
    }

    /// The ids of a room's forward extremities.
    ///
    /// # Errors
    /// [`Error::UnknownRoom`] where the room is not known.
    pub async fn tips(&self, room: &RoomId) -> Result<Vec<OwnedEventId>, Error> {
        let store = &self.inner.store;
        let snapshot = store.snapshot().await?;
        let no = self.room_no(&snapshot, room).await?;
        let head = snapshot.get(&schema::ROOMS, &no).await?.ok_or(Error::UnknownRoom)?;
        let nos: Vec<EventNo> = head.extremities.iter().map(|(no, _)| *no).collect();
        let events = store.events().get_many(&snapshot, no, &nos).await?;
        let id = |event: &Arc<StoredEvent>| OwnedEventId::try_from(event.header.event_id.as_str()).ok();
        Ok(events.iter().flatten().filter_map(id).collect())
    }

    /// The ids of events that those we hold follow and that we do not hold, the latest first: where history can be fetched
    /// from. Only of gaps that are not later than a depth; at most as many as one question may name.
    ///
    /// # Errors
    /// [`Error::UnknownRoom`] where the room is not known.
    pub async fn missing(&self, room: &RoomId, depth: u64) -> Result<Vec<OwnedEventId>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let no = self.room_no(&snapshot, room).await?;
        let rows = snapshot.scan(&schema::WAITING, &no, Direction::Forward, MANY_GAPS).await?;
        let gaps = rows.into_iter().filter(|(_, waiting)| waiting.follows && waiting.depth <= depth);
        let mut gaps: Vec<(u64, String)> = gaps.map(|((_, id, _), waiting)| (waiting.depth, id)).collect();
        gaps.sort_by(|a, b| b.cmp(a));
        gaps.dedup_by(|a, b| a.1 == b.1);
        gaps.truncate(MAX_PREV_EVENTS);
        Ok(gaps.into_iter().filter_map(|(_, id)| OwnedEventId::try_from(id).ok()).collect())
    }

    /// The servers that have users in a room, as it is now.
    ///
    /// # Errors
    /// [`Error::UnknownRoom`] where the room is not known.
    pub async fn servers(&self, room: &RoomId) -> Result<Vec<OwnedServerName>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let no = self.room_no(&snapshot, room).await?;
        let mut rows = snapshot.scan(&schema::ROOM_SERVERS, &no, Direction::Forward, usize::MAX).await?;
        // Those with most users first: they are likely to hold most.
        rows.sort_by_key(|(_, joined)| std::cmp::Reverse(*joined));
        let mut servers: Vec<String> = rows.into_iter().map(|((_, server), _)| server).collect();
        if let Some(partial) = snapshot.get(&schema::PARTIAL_ROOMS, &no).await? {
            let known: BTreeSet<String> = servers.iter().cloned().collect();
            servers.extend(partial.servers.into_iter().filter(|server| !known.contains(server)));
        }
        Ok(servers.into_iter().filter_map(|server| OwnedServerName::try_from(server).ok()).collect())
    }

    /// Whether an event of a room is held, as whatever.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn holds(&self, room: &RoomId, id: &EventId) -> Result<bool, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let no = self.inner.store.names().room(&snapshot, room.as_str()).await?;
        let place = snapshot.get(&schema::EVENT_IDS, &id.to_string()).await?;
        Ok(place.is_some_and(|place| Some(place.room) == no))
    }

    /// Those of some events of a room that are not held, as whatever; each once.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn not_held(&self, room: &RoomId, ids: &[OwnedEventId]) -> Result<Vec<OwnedEventId>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let no = self.inner.store.names().room(&snapshot, room.as_str()).await?;
        let mut missing = BTreeSet::new();
        for ids in ids.chunks(MANY) {
            let rows = snapshot.get_many(&schema::EVENT_IDS, ids.iter().map(ToString::to_string)).await?;
            let held = |row: &Option<EventPlace>| row.is_some_and(|row| Some(row.room) == no);
            missing.extend(ids.iter().zip(rows).filter(|(_, row)| !held(row)).map(|(id, _)| id.clone()));
        }
        Ok(missing.into_iter().collect())
    }

    /// Takes in events of one room, in the order given, and says what became of each. All that could be judged is
    /// committed, at once where nothing in it builds on another's stored form.
    ///
    /// # Errors
    /// Where the room is not known or the store fails. Nothing is half done then.
    pub async fn ingest(&self, room: &RoomId, arrivals: Vec<Arrival>) -> Result<Vec<Outcome>, Error> {
        let mut outcomes = Vec::with_capacity(arrivals.len());
        let mut arrivals = arrivals.into_iter().peekable();
        while arrivals.peek().is_some() {
            let inner = &*self.inner;
            let (lock, snapshot) = self.locked(room).await?;
            let mut writer = Writer::begin(inner, &snapshot, lock).await?;
            while let Some(arrival) = arrivals.next_if(|next| !writer.must_end_before(next.pdu())) {
                outcomes.push(writer.arrive(arrival).await?);
            }
            writer.commit().await?;
        }
        Ok(outcomes)
    }
}

/// How an event comes to be judged.
pub(crate) enum Manner {
    /// As others.
    Usual(Way),
    /// The room's policy server does not sign it. Why not.
    Unsigned(String),
    /// It is ours, and was sent to be signed by another server. It is kept only if it is accepted.
    Ours(Option<TxnKey>),
}

/// What an event follows.
#[derive(Default)]
struct Behind {
    /// What of it is held.
    prev: Vec<EventNo>,
    /// That of which the states after it are known here.
    known: Vec<EventNo>,
    /// Those states.
    roots: Vec<Root>,
    /// The states after the rest, as they were told.
    told: Vec<Root>,
    /// What is not held.
    missing: Vec<OwnedEventId>,
    /// The greatest depth of what is held.
    depth: u64,
    /// Whether some of these states lack members.
    partial: bool,
}

/// What judging an event by its own auth events found.
pub(crate) struct ByAuth {
    pub(crate) nos: Vec<EventNo>,
    pub(crate) reject: Option<Reject>,
}

impl Writer<'_> {
    /// Whether an event can only be added when what this transaction adds is stored.
    fn must_end_before(&self, pdu: &Pdu) -> bool {
        self.named.contains(pdu.event_id().as_str())
            || pdu.redacts().is_some_and(|target| self.fresh.contains_key(target.as_str()))
    }

    async fn arrive(&mut self, arrival: Arrival) -> Result<Outcome, Error> {
        let pdu = arrival.pdu().clone();
        if pdu.room_id() != &self.live.id {
            return Ok(Outcome::Rejected("it is of another room".into()));
        }
        if let Some(no) = self.in_room(pdu.event_id().as_str()).await?
            && (matches!(arrival, Arrival::Outlier(_)) || self.has_place(no).await?)
        {
            return self.known(no, &arrival).await;
        }
        if pdu.kind() == kind::CREATE && pdu.event_id() != self.live.create.event_id() {
            return Ok(Outcome::Rejected("the room has another create event".into()));
        }
        let by_auth = match self.by_auth(&pdu).await? {
            Ok(by_auth) => by_auth,
            Err(missing) => return Ok(Outcome::Needs(Needs { events: missing, ..Needs::default() })),
        };
        match arrival {
            Arrival::Outlier(pdu) => {
                self.keep_outlier(&pdu, by_auth.nos, by_auth.reject.is_some()).await?;
                Ok(by_auth.reject.map_or(Outcome::Known, |why| Outcome::Rejected(why.to_string())))
            }
            Arrival::Live(pdu, states) => self.judge(pdu, states, by_auth, Way::Live).await,
            Arrival::History(pdu, states) => self.judge(pdu, states, by_auth, Way::History).await,
            Arrival::Unsigned(pdu, states, why) => self.judge_as(pdu, states, by_auth, Manner::Unsigned(why)).await,
        }
    }

    /// What is said of an event that comes again. Who brings what was refused is refused again.
    async fn known(&self, no: EventNo, arrival: &Arrival) -> Result<Outcome, Error> {
        Ok(match (arrival, self.standing(no).await?) {
            (Arrival::Outlier(_), _) => Outcome::Known,
            (_, Standing::Rejected) => Outcome::Rejected("it was rejected when it came first".into()),
            (_, Standing::SoftFailed) => Outcome::SoftFailed("it was not allowed any more when it came first".into()),
            (_, Standing::Accepted | Standing::Outlier) => Outcome::Known,
        })
    }

    /// Whether an event has its place in the graph, so that the state around it is known.
    async fn has_place(&self, no: EventNo) -> Result<bool, Error> {
        match self.added.get(&no) {
            Some(header) => Ok(header.before.is_some()),
            None => Ok(self.stored(no).await?.header.before.is_some()),
        }
    }

    pub(crate) async fn standing(&self, no: EventNo) -> Result<Standing, Error> {
        match self.added.get(&no) {
            Some(header) => Ok(header.standing),
            None => Ok(self.stored(no).await?.header.standing),
        }
    }

    /// Check 4: the events that it names itself allow it. `Err` are those that are not held.
    pub(crate) async fn by_auth(&mut self, pdu: &Arc<Pdu>) -> Result<Result<ByAuth, Vec<OwnedEventId>>, Error> {
        let mut missing = Vec::new();
        let mut nos = Vec::with_capacity(pdu.auth_events().len());
        let mut events = Vec::with_capacity(pdu.auth_events().len());
        for id in pdu.auth_events() {
            match self.in_room(id.as_str()).await? {
                Some(no) => {
                    nos.push(no);
                    events.push((self.pdu(no).await?, self.standing(no).await? == Standing::Rejected));
                }
                None => missing.push(id.clone()),
            }
        }
        if !missing.is_empty() {
            return Ok(Err(missing));
        }
        let named: Vec<(&Pdu, bool)> = events.iter().map(|(pdu, rejected)| (&**pdu, *rejected)).collect();
        let (rules, create) = (&self.live.rules, &self.live.create);
        let reject =
            check_auth_events(rules, pdu, &named, Some(create)).and_then(|()| allowed_by(rules, create, pdu, &named));
        Ok(Ok(ByAuth { nos, reject: reject.err() }))
    }

    /// Judges an event of ours that was away to be signed.
    pub(crate) async fn come_back(&mut self, pdu: Arc<Pdu>, txn: Option<TxnKey>) -> Result<Outcome, Error> {
        match self.by_auth(&pdu).await? {
            Ok(by_auth) => self.judge_as(pdu, Vec::new(), by_auth, Manner::Ours(txn)).await,
            Err(missing) => Ok(Outcome::Needs(Needs { events: missing, ..Needs::default() })),
        }
    }

    /// Judges an event as others are.
    pub(crate) async fn judge(
        &mut self,
        pdu: Arc<Pdu>,
        states: Vec<StateAfter>,
        by_auth: ByAuth,
        way: Way,
    ) -> Result<Outcome, Error> {
        self.judge_as(pdu, states, by_auth, Manner::Usual(way)).await
    }

    /// Checks 5, 6 and 7: the state before it allows it, and what the room is now, and the room's ACL and policy server. Then
    /// it gets its place.
    async fn judge_as(
        &mut self,
        pdu: Arc<Pdu>,
        states: Vec<StateAfter>,
        by_auth: ByAuth,
        manner: Manner,
    ) -> Result<Outcome, Error> {
        let way = if let Manner::Usual(way) = manner { way } else { Way::Live };
        let behind = match self.behind(&pdu, &states).await? {
            Ok(behind) => behind,
            Err(needs) => return Ok(Outcome::Needs(needs)),
        };
        let Behind { prev, known, roots, told, missing, depth, partial } = behind;
        let mut before = self.resolve([roots, told.clone()].concat()).await?;
        if partial {
            before = self.fill(before, &by_auth.nos).await?;
        }
        let gathered = self.gather_at(before, (pdu.sender(), pdu.kind(), pdu.state_key(), pdu.content())).await?;
        let by_state = || check_with(&self.live.rules, &pdu, &gathered.powers, &gathered.state);
        let mut outcome = match by_auth.reject.map_or_else(by_state, Err) {
            Ok(()) => Outcome::Accepted,
            Err(why) => Outcome::Rejected(why.to_string()),
        };
        // Who has just come in has nothing else to judge by.
        let goes_on = way == Way::Live && !self.live.head.extremities.is_empty();
        if outcome == Outcome::Accepted && goes_on && before != self.live.head.root {
            let mut now = self.live.head.root;
            if self.live.head.partial {
                now = self.fill(now, &by_auth.nos).await?;
            }
            let now = self.gather_at(now, (pdu.sender(), pdu.kind(), pdu.state_key(), pdu.content())).await?;
            if let Err(why) = check_with(&self.live.rules, &pdu, &now.powers, &now.state) {
                outcome = Outcome::SoftFailed(why.to_string());
            }
        }
        if outcome == Outcome::Accepted && goes_on && !self.admits_sender(&pdu).await? {
            outcome = Outcome::SoftFailed("the room's server ACL denies the server of its sender".into());
        }
        if outcome == Outcome::Accepted && goes_on {
            outcome = self.recommended(&pdu, &manner).await?;
        }
        let (ours, txn) = match manner {
            Manner::Ours(txn) => (true, txn),
            _ => (false, None),
        };
        // What is refused of our own is discarded.
        if matches!(outcome, Outcome::Needs(_)) || (ours && outcome != Outcome::Accepted) {
            return Ok(outcome);
        }
        let place = Place {
            way,
            standing: match outcome {
                Outcome::Accepted => Standing::Accepted,
                Outcome::SoftFailed(_) => Standing::SoftFailed,
                _ => Standing::Rejected,
            },
            before,
            auth: by_auth.nos,
            prev,
            depth: if missing.is_empty() { depth + 1 } else { pdu.depth().max(depth + 1) },
            // What was told for a join that lacks members is no whole state.
            again: partial.then(|| Again { prev: known, told: if self.told_partial { Vec::new() } else { told } }),
            missing: missing.into_iter().map(|id| id.to_string()).collect(),
            powers: gathered.powers,
            txn,
            made_here: ours,
        };
        self.place(pdu, place).await?;
        Ok(outcome)
    }

    /// Check 7: the policy server of the room as it is now recommends it.
    async fn recommended(&mut self, pdu: &Pdu, manner: &Manner) -> Result<Outcome, Error> {
        let Some(policy) = self.policy().await? else { return Ok(Outcome::Accepted) };
        if is_spared(pdu) || policy.signed(pdu, &self.live.rules) {
            return Ok(Outcome::Accepted);
        }
        Ok(match manner {
            Manner::Unsigned(why) => Outcome::SoftFailed(why.clone()),
            _ => Outcome::Needs(Needs { policy: Some(policy), ..Needs::default() }),
        })
    }

    /// What an event follows, and the states after that: those that are known here, and those that were told.
    async fn behind(&mut self, pdu: &Pdu, states: &[StateAfter]) -> Result<Result<Behind, Needs>, Error> {
        let (mut behind, mut needs) = (Behind::default(), Needs::default());
        for id in pdu.prev_events() {
            let held = match self.in_room(id.as_str()).await? {
                Some(no) if self.has_place(no).await? => Some(no),
                _ => None,
            };
            match held {
                Some(no) => {
                    behind.depth = behind.depth.max(self.depth(no).await?);
                    behind.prev.push(no);
                    if !self.is_stale(no).await? {
                        behind.partial |= self.is_partial(no).await?;
                        behind.roots.push(self.state_after(no).await?);
                        behind.known.push(no);
                        continue;
                    }
                }
                None => behind.missing.push(id.clone()),
            }
            match states.iter().find(|state| state.event == *id) {
                Some(told) => match self.told(&told.state).await? {
                    Ok(root) => behind.told.push(root),
                    Err(events) => needs.events.extend(events),
                },
                None => needs.prevs.push(id.clone()),
            }
        }
        behind.partial |= self.told_partial && !behind.told.is_empty();
        Ok(if needs == Needs::default() { Ok(behind) } else { Err(needs) })
    }

    async fn depth(&self, no: EventNo) -> Result<u64, Error> {
        match self.added.get(&no) {
            Some(header) => Ok(header.depth),
            None => Ok(self.stored(no).await?.header.depth),
        }
    }

    /// A state that another server told, as a tree. `Err` are the events of it that are not held.
    pub(crate) async fn told(&mut self, state: &[OwnedEventId]) -> Result<Result<Root, Vec<OwnedEventId>>, Error> {
        let (mut root, mut missing) = (Root::EMPTY, Vec::new());
        for ids in state.chunks(MANY) {
            let nos = self.in_room_many(ids).await?;
            missing.extend(ids.iter().zip(&nos).filter(|(_, no)| no.is_none()).map(|(id, _)| id.clone()));
            for (no, header) in self.headers(nos.into_iter().flatten().collect()).await? {
                if let Some(key) = header.state_key.as_deref().filter(|_| header.standing != Standing::Rejected) {
                    let key = self.state_key(&header.kind, key).await?;
                    root = self.state.set(root, key, Some(no)).await?;
                }
            }
        }
        self.roots.push(root);
        Ok(if missing.is_empty() { Ok(root) } else { Err(missing) })
    }

    /// The numbers of events of this room.
    pub(crate) async fn in_room_many(&self, ids: &[OwnedEventId]) -> Result<Vec<Option<EventNo>>, Error> {
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(MANY) {
            let rows = self.snapshot.get_many(&schema::EVENT_IDS, ids.iter().map(ToString::to_string)).await?;
            for (id, row) in ids.iter().zip(rows) {
                let stored = row.filter(|row: &EventPlace| row.room == self.live.no).map(|row| row.event);
                found.push(self.fresh.get(id.as_str()).copied().or(stored));
            }
        }
        Ok(found)
    }

    /// What is known of events of this room.
    async fn headers(&self, nos: Vec<EventNo>) -> Result<Vec<(EventNo, Header)>, Error> {
        let events = self.inner.store.events().get_many(self.snapshot, self.live.no, &nos).await?;
        let known = |(no, event): (EventNo, Option<Arc<StoredEvent>>)| {
            let header = self.added.get(&no).cloned().or_else(|| event.map(|event| event.header.clone()));
            Ok((no, header.ok_or(stoa_store::Error::Missing("an event that its id names"))?))
        };
        nos.into_iter().zip(events).map(known).collect()
    }

    /// Keeps an event apart from the graph.
    pub(crate) async fn keep_outlier(
        &mut self,
        pdu: &Arc<Pdu>,
        auth: Vec<EventNo>,
        rejected: bool,
    ) -> Result<EventNo, Error> {
        let no = self.live.head.next_event;
        self.live.head.next_event = EventNo(no.0 + 1);
        let content = pdu.content_range();
        let header = Header {
            event_id: pdu.event_id().to_string(),
            kind: pdu.kind().to_owned(),
            state_key: pdu.state_key().map(str::to_owned),
            sender: pdu.sender().to_string(),
            origin_server_ts: pdu.origin_server_ts(),
            depth: pdu.depth(),
            content_from: content.start,
            content_to: content.end,
            standing: if rejected { Standing::Rejected } else { Standing::Outlier },
            at: None,
            before: None,
            after: None,
            replaces: None,
            redacted_by: None,
            prev: Vec::new(),
            auth,
            txn: None,
            redacts: pdu.redacts().map(ToString::to_string),
            relates_to: None,
            gap: false,
            partial: false,
        };
        let event = StoredEvent { header: header.clone(), json: pdu.json().clone() };
        rows::events::put_outlier(&mut self.tx, self.live.no, no, &event);
        self.fresh.insert(header.event_id.clone(), no);
        self.added.insert(no, header);
        self.live.pdus.insert(no, pdu.clone());
        Ok(no)
    }
}

/// Whether the events that an event names allow it.
pub(crate) fn allowed_by(rules: &Rules, create: &Pdu, pdu: &Pdu, named: &[(&Pdu, bool)]) -> Result<(), Reject> {
    let levels = named.iter().find(|(pdu, _)| pdu.is_state(kind::POWER_LEVELS, ""));
    let levels = levels.map(|(pdu, _)| PowerLevels::read(rules, pdu.content())).transpose()?;
    let powers = Powers::new(Create::read(rules, create), levels.map(Arc::new));
    let state: AuthState<&Pdu> = named.iter().map(|(pdu, _)| *pdu).collect();
    check_with(rules, pdu, &powers, &state)
}
