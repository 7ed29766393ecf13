//! Effects: everything that an accepted event changes beside being there. The same for events of our own users and of
//! other servers.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use stoa_event::{
    auth::{self, Powers, kind, redaction_applies},
    ids::{OwnedUserId, UserId},
    pdu::Pdu,
    redact::redact,
};
use stoa_store::{
    EventNo, Membership, Position, Slot, UserNo, rows,
    rows::events::{Header, RelatesTo, Standing, StoredEvent, Txn},
    rows::partial::PartialEvent,
    rows::rooms::{Member, OwnMembership, SentTxn},
    schema,
    state::{Change, Class, Root},
};

use crate::{Error, gather::Gathered, send::TxnKey, writer::Writer};

/// What an invited or knocking user is shown of the room (Client-Server API, "Stripped state").
pub(crate) const STRIPPED: [&str; 7] = [
    kind::CREATE,
    kind::JOIN_RULES,
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.canonical_alias",
    "m.room.encryption",
];

#[derive(Deserialize)]
struct Relating {
    #[serde(rename = "m.relates_to")]
    relates_to: Option<RelatingTo>,
}

#[derive(Deserialize)]
struct RelatingTo {
    rel_type: String,
    event_id: String,
}

/// The relation that a content names, if it is well formed.
pub(crate) fn relation(content: &[u8]) -> Option<RelatesTo> {
    // Most events have none: look before parsing.
    if !memmem(content, b"m.relates_to") {
        return None;
    }
    let found: Relating = serde_json::from_slice(content).ok()?;
    let RelatingTo { rel_type, event_id } = found.relates_to?;
    Some(RelatesTo { rel_type, event_id })
}

fn memmem(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|window| window == needle)
}

fn stored_membership(membership: auth::Membership) -> Membership {
    match membership {
        auth::Membership::Join => Membership::Join,
        auth::Membership::Invite => Membership::Invite,
        auth::Membership::Ban => Membership::Ban,
        auth::Membership::Knock => Membership::Knock,
        _ => Membership::Leave,
    }
}

/// How an event comes into the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// At the end of the graph: it may change what the room is now.
    Live,
    /// Into history: the room has gone on since.
    History,
}

/// Where an event belongs, and what became of it.
pub(crate) struct Place {
    pub(crate) way: Way,
    /// Accepted, soft-failed or rejected.
    pub(crate) standing: Standing,
    /// The state before it.
    pub(crate) before: Root,
    /// The auth events that it names.
    pub(crate) auth: Vec<EventNo>,
    /// What it follows, as far as that is held.
    pub(crate) prev: Vec<EventNo>,
    /// Its depth: by what it follows where all of that is held, otherwise as it says.
    pub(crate) depth: u64,
    /// What it names that is not held.
    pub(crate) missing: Vec<String>,
    /// Who had what power in the state before it.
    pub(crate) powers: Arc<Powers>,
    /// The transaction of a local client.
    pub(crate) txn: Option<TxnKey>,
    /// Given where the state before it lacks members: of what it is to be worked out again.
    pub(crate) again: Option<Again>,
    /// Whether it is being made now, so that nobody can have named it.
    pub(crate) made_here: bool,
}

/// Of what the state before an event is to be worked out again when the room is whole.
#[derive(Default)]
pub(crate) struct Again {
    /// Events that it follows.
    pub(crate) prev: Vec<EventNo>,
    /// The whole states after the others.
    pub(crate) told: Vec<Root>,
}

impl Writer<'_> {
    /// Adds an allowed event of our own to the room, after its forward extremities.
    pub(crate) async fn apply(
        &mut self,
        pdu: Arc<Pdu>,
        gathered: Gathered,
        txn: Option<TxnKey>,
    ) -> Result<Arc<Pdu>, Error> {
        let Gathered { root, powers, nos, .. } = gathered;
        let prev: Vec<EventNo> = self.tips().into_iter().map(|(no, ..)| no).collect();
        let again = self.live.head.partial.then(|| Again { prev: prev.clone(), told: Vec::new() });
        let place = Place {
            way: Way::Live,
            standing: Standing::Accepted,
            before: root,
            auth: nos,
            prev,
            depth: pdu.depth(),
            missing: Vec::new(),
            powers,
            txn,
            again,
            made_here: true,
        };
        self.place(pdu.clone(), place).await?;
        Ok(pdu)
    }

    /// Adds a judged event to the room: its row, the state after it, and all that follows from it. Events of our own
    /// users and of other servers end here.
    pub(crate) async fn place(&mut self, pdu: Arc<Pdu>, place: Place) -> Result<EventNo, Error> {
        let no = self.number(&pdu).await?;
        let slot = self.tx.slot();
        self.last = Some(slot);
        let (after, replaces) = match place.standing {
            Standing::Rejected => (place.before, None),
            _ => self.change_state(place.before, &pdu, no).await?,
        };
        self.roots.extend([place.before, after]);
        self.live.pdus.insert(no, pdu.clone());
        let stored = self.describe(slot, &pdu, no, &place, (after, replaces)).await?;
        // Known from here on: the state that the room comes to may be resolved from it.
        self.added.insert(no, stored.header.clone());
        if place.standing == Standing::Accepted && place.way == Way::Live {
            self.go_on(slot, &pdu, no, &place, (after, replaces)).await?;
        }
        if place.standing == Standing::Accepted && pdu.kind() == kind::REDACTION {
            self.redact(&pdu, no, &place.powers).await?;
        }
        self.store(slot, no, stored, place).await?;
        Ok(no)
    }

    /// The number of an event that gets its place: a new one, or the one that it has as an outlier.
    async fn number(&mut self, pdu: &Pdu) -> Result<EventNo, Error> {
        let known = self.in_room(pdu.event_id().as_str()).await?;
        let no = match known {
            Some(no) => {
                rows::events::was_outlier(&mut self.tx, self.live.no, no);
                self.live.graph.remove(&no.0);
                no
            }
            None => {
                let no = self.live.head.next_event;
                self.live.head.next_event = EventNo(no.0 + 1);
                no
            }
        };
        self.fresh.insert(pdu.event_id().to_string(), no);
        Ok(no)
    }

    /// The room goes on with an event: its forward extremities, its current state, and who is in it.
    async fn go_on(
        &mut self,
        slot: Slot,
        pdu: &Pdu,
        no: EventNo,
        place: &Place,
        (after, replaces): (Root, Option<EventNo>),
    ) -> Result<(), Error> {
        let old = self.live.head.root;
        let mut tips = Vec::with_capacity(self.live.head.extremities.len() + 1);
        let mut ids = Vec::with_capacity(tips.capacity());
        for (tip, id) in self.live.head.extremities.iter().zip(&self.live.tips) {
            if !place.prev.contains(&tip.0) {
                tips.push(*tip);
                ids.push(id.clone());
            }
        }
        let mut roots = vec![after];
        for (tip, _) in &tips {
            roots.push(self.state_after(*tip).await?);
        }
        tips.push((no, place.depth));
        ids.push(pdu.event_id().clone());
        self.live.head.extremities = tips;
        self.live.tips = ids;
        let new = self.resolve(roots).await?;
        if new == old {
            return Ok(());
        }
        self.live.head.root = new;
        let changes = match (pdu.state_key(), place.before == old && new == after) {
            (Some(key), true) => {
                let key = self.state_key(pdu.kind(), key).await?;
                vec![Change { key, before: replaces, after: Some(no) }]
            }
            _ => self.state.changes(old, new).await?,
        };
        self.turn(slot, new, changes).await
    }

    /// The current state becomes another one: memberships on both sides, counts, encryption.
    pub(crate) async fn turn(&mut self, slot: Slot, new: Root, changes: Vec<Change>) -> Result<(), Error> {
        self.live.head.root = new;
        self.roots.push(new);
        rows::rooms::put_root(&mut self.tx, slot, self.live.no, new);
        for change in changes {
            if change.key.class() == Class::Members {
                self.member(slot, change).await?;
            } else if let Some(no) = change.after
                && !self.live.head.encrypted
            {
                self.live.head.encrypted = self.pdu(no).await?.is_state("m.room.encryption", "");
            }
        }
        Ok(())
    }

    /// The state after an event that has its place in the graph.
    pub(crate) async fn state_after(&self, no: EventNo) -> Result<Root, Error> {
        let root = match self.added.get(&no) {
            Some(header) => header.after.or(header.before),
            None => self.stored(no).await?.state_after(),
        };
        Ok(root.ok_or(stoa_store::Error::Missing("the state after an event"))?)
    }

    /// The state after an event, and the event that it replaced in it.
    pub(crate) async fn change_state(
        &mut self,
        before: Root,
        pdu: &Pdu,
        no: EventNo,
    ) -> Result<(Root, Option<EventNo>), Error> {
        let Some(key) = pdu.state_key() else { return Ok((before, None)) };
        let key = self.state_key(pdu.kind(), key).await?;
        let replaces = self.state.get(before, key).await?;
        let after = self.state.set(before, key, Some(no)).await?;
        Ok((after, replaces))
    }

    /// The event as it will be stored.
    async fn describe(
        &mut self,
        slot: Slot,
        pdu: &Pdu,
        no: EventNo,
        place: &Place,
        (after, replaces): (Root, Option<EventNo>),
    ) -> Result<StoredEvent, Error> {
        // What was redacted before it came is never kept whole.
        let redacted = match place.made_here {
            true => None,
            false => self.awaited(slot, no, pdu, place.standing).await?,
        };
        let (redacted_by, pdu) = match &redacted {
            Some((by, redacted)) => (Some(*by), redacted),
            None => (None, pdu),
        };
        let relates_to = match pdu.state_key().is_none() && redacted_by.is_none() {
            true => relation(pdu.content()),
            false => None,
        };
        let content = pdu.content_range();
        let is_state = pdu.state_key().is_some() && place.standing != Standing::Rejected;
        let header = Header {
            event_id: pdu.event_id().to_string(),
            kind: pdu.kind().to_owned(),
            state_key: pdu.state_key().map(str::to_owned),
            sender: pdu.sender().to_string(),
            origin_server_ts: pdu.origin_server_ts(),
            depth: place.depth,
            content_from: content.start,
            content_to: content.end,
            standing: place.standing,
            at: None,
            before: Some(place.before),
            after: is_state.then_some(after),
            replaces,
            redacted_by,
            prev: place.prev.clone(),
            auth: place.auth.clone(),
            txn: place.txn.as_ref().map(|txn| Txn { device: txn.device.clone(), id: txn.id.clone() }),
            redacts: pdu.redacts().map(ToString::to_string),
            relates_to,
            gap: !place.missing.is_empty(),
            partial: place.again.is_some(),
        };
        Ok(StoredEvent { header, json: pdu.json().clone() })
    }

    /// Writes an event's rows.
    async fn store(&mut self, slot: Slot, no: EventNo, event: StoredEvent, place: Place) -> Result<(), Error> {
        let header = &event.header;
        let parent = match &header.relates_to {
            Some(relates_to) => self.in_room(&relates_to.event_id).await?,
            None => None,
        };
        if let Some(txn) = place.txn {
            let sender = self.inner.store.names().name_user(self.snapshot, &mut self.tx, &header.sender).await?;
            let sent = SentTxn { event_id: header.event_id.clone(), ts: self.inner.env.now_ms() };
            rows::rooms::put_txn(&mut self.tx, sender, &txn.device, &txn.deed, &txn.id, &sent);
        }
        if place.standing == Standing::Accepted && !place.made_here {
            self.wait(no, header, &place.missing, parent).await?;
        }
        if let Some(Again { prev, told }) = place.again {
            rows::partial::put_event(&mut self.tx, slot, self.live.no, PartialEvent { event: no, prev, told });
        }
        match place.way {
            Way::Live => rows::events::append(&mut self.tx, slot, self.live.no, no, event, parent),
            Way::History => rows::events::append_history(&mut self.tx, slot, self.live.no, no, event, parent),
        }
        Ok(())
    }

    /// The number of an event of this room, stored or just added.
    pub(crate) async fn in_room(&self, id: &str) -> Result<Option<EventNo>, Error> {
        if let Some(no) = self.fresh.get(id) {
            return Ok(Some(*no));
        }
        let place = self.snapshot.get(&schema::EVENT_IDS, &id.to_owned()).await?;
        Ok(place.filter(|place| place.room == self.live.no).map(|place| place.event))
    }

    async fn membership_by(&mut self, no: Option<EventNo>) -> Result<Membership, Error> {
        match no {
            Some(no) => Ok(stored_membership(auth::Membership::of_content(self.pdu(no).await?.content()))),
            None => Ok(Membership::Leave),
        }
    }

    /// A membership changed: both sides' rows, the counts, and what an invited user is shown.
    async fn member(&mut self, slot: Slot, change: Change) -> Result<(), Error> {
        let Some(named) = change.after.or(change.before) else { return Ok(()) };
        let pdu = self.pdu(named).await?;
        let Some(target) = pdu.state_key().and_then(|key| OwnedUserId::try_from(key).ok()) else { return Ok(()) };
        let before = self.membership_by(change.before).await?;
        let membership = self.membership_by(change.after).await?;
        let head = &mut self.live.head;
        for (counted, by) in [(before, -1), (membership, 1)] {
            match counted {
                Membership::Join => {
                    head.joined = head.joined.saturating_add_signed(by);
                    *self.servers.entry(target.server_name().to_string()).or_default() += i64::from(by);
                }
                Membership::Invite => head.invited = head.invited.saturating_add_signed(by),
                _ => {}
            }
        }
        let user = self.inner.store.names().name_user(self.snapshot, &mut self.tx, target.as_str()).await?;
        let local = target.server_name() == self.inner.server;
        match change.after {
            Some(event) => {
                rows::rooms::put_member(&mut self.tx, self.live.no, user, &Member { membership, event }, local);
            }
            None => rows::rooms::delete_member(&mut self.tx, self.live.no, user, local),
        }
        if local {
            self.own_membership(slot, user, &pdu, named, membership).await?;
        }
        Ok(())
    }

    async fn own_membership(
        &mut self,
        slot: Slot,
        user: UserNo,
        pdu: &Pdu,
        no: EventNo,
        membership: Membership,
    ) -> Result<(), Error> {
        let old = self.snapshot.get(&schema::MEMBERSHIPS, &(user, self.live.no)).await?;
        let stripped = match membership {
            Membership::Invite | Membership::Knock => Some(self.stripped(pdu).await?),
            _ => None,
        };
        let joined_before = old.as_ref().is_some_and(|old| old.membership == Membership::Join);
        let own = OwnMembership {
            membership,
            event: Some(no),
            at: Position::MIN,
            joined_at: old.as_ref().and_then(|old| old.joined_at),
            left_at: old.and_then(|old| old.left_at),
            stripped,
            by: (membership == Membership::Invite).then(|| pdu.sender().to_string()),
            forgotten: false,
            outside: None,
        };
        rows::rooms::put_own(&mut self.tx, slot, user, self.live.no, own, joined_before);
        Ok(())
    }

    /// The stripped state that goes with an invite or a knock, the member event itself last.
    async fn stripped(&mut self, pdu: &Pdu) -> Result<Vec<u8>, Error> {
        let mut events = Vec::new();
        for kind in STRIPPED {
            if let Some((_, event)) = self.current(kind, "").await? {
                events.push(strip(&event)?);
            }
        }
        // Who invites is shown with name and picture. Who knocks is in the event itself, which is not stored yet.
        let by_other = pdu.state_key() != Some(pdu.sender().as_str());
        if by_other && let Some((_, event)) = self.current(kind::MEMBER, pdu.sender().as_str()).await? {
            events.push(strip(&event)?);
        }
        events.push(strip(pdu)?);
        serde_json::to_vec(&events).map_err(|_| stoa_store::Error::Corrupt("stripped state cannot be written").into())
    }

    /// Applies a redaction to the event that it names, if we hold it and the redaction may.
    async fn redact(&mut self, pdu: &Pdu, no: EventNo, powers: &Powers) -> Result<(), Error> {
        let Some(target) = pdu.redacts() else { return Ok(()) };
        let Some(place) = self.snapshot.get(&schema::EVENT_IDS, &target.to_string()).await? else { return Ok(()) };
        if place.room != self.live.no {
            return Ok(());
        }
        let event = self.stored(place.event).await?;
        let old = event.pdu(&self.live.rules)?;
        if event.header.redacted_by.is_some() || !redaction_applies(&self.live.rules, pdu, &old, powers) {
            return Ok(());
        }
        let json = redact(&event.json, &self.live.rules)
            .map_err(|_| stoa_store::Error::Corrupt("a stored event cannot be redacted"))?;
        let new = Pdu::stored(json.into(), old.event_id().clone(), &self.live.rules)
            .map_err(|_| stoa_store::Error::Corrupt("a redacted event cannot be read"))?;
        if let Some(relates_to) = &event.header.relates_to
            && let Some(parent) = self.in_room(&relates_to.event_id).await?
        {
            rows::events::unrelate(&mut self.tx, place.room, parent, &event.header);
        }
        let mut header = event.header.clone();
        let content = new.content_range();
        (header.content_from, header.content_to) = (content.start, content.end);
        header.redacted_by = Some(no);
        header.relates_to = None;
        let redacted = StoredEvent { header, json: new.json().clone() };
        rows::events::rewrite(&mut self.tx, place.room, place.event, &redacted);
        self.live.pdus.remove(&place.event);
        self.inner.acls.remove(&(place.room, place.event));
        self.live.powers = None;
        self.live.policy = None;
        Ok(())
    }
}

pub(crate) fn strip(pdu: &Pdu) -> Result<Box<RawValue>, Error> {
    #[derive(serde::Serialize)]
    struct Stripped<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        state_key: &'a str,
        sender: &'a UserId,
        content: &'a RawValue,
    }
    let corrupt = |_| stoa_store::Error::Corrupt("an event's content is no JSON");
    let content = serde_json::from_slice(pdu.content()).map_err(corrupt)?;
    let stripped =
        Stripped { kind: pdu.kind(), state_key: pdu.state_key().unwrap_or_default(), sender: pdu.sender(), content };
    Ok(serde_json::value::to_raw_value(&stripped).map_err(corrupt)?)
}
