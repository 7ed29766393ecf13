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
    rows::rooms::{Member, OwnMembership, SentTxn},
    schema,
    state::Root,
};

use crate::{Error, send::TxnKey, writer::Writer};

/// What an invited or knocking user is shown of the room (Client-Server API, "Stripped state").
const STRIPPED: [&str; 7] = [
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
fn relation(content: &[u8]) -> Option<RelatesTo> {
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

impl Writer<'_> {
    /// Adds an allowed event to the room: its row, the state after it, memberships, relations, redactions.
    pub(crate) async fn apply(
        &mut self,
        pdu: Arc<Pdu>,
        auth: Vec<EventNo>,
        powers: &Powers,
        txn: Option<TxnKey>,
    ) -> Result<Arc<Pdu>, Error> {
        let no = self.live.head.next_event;
        self.live.head.next_event = EventNo(no.0 + 1);
        let slot = self.tx.slot();
        self.last = Some(slot);
        let before = self.live.head.root;
        let (after, replaces) = self.change_state(&pdu, no).await?;
        if after != before {
            rows::rooms::put_root(&mut self.tx, slot, self.live.no, after);
        }
        self.roots.extend([before, after]);
        if pdu.kind() == kind::MEMBER && pdu.state_key().is_some() {
            self.member(slot, &pdu, no, replaces).await?;
        }
        if pdu.is_state("m.room.encryption", "") {
            self.live.head.encrypted = true;
        }
        if pdu.kind() == kind::REDACTION {
            self.redact(&pdu, no, powers).await?;
        }
        self.store(slot, &pdu, no, auth, (before, after), replaces, txn).await?;
        self.live.head.extremities = vec![(no, pdu.depth())];
        self.live.tips = vec![pdu.event_id().clone()];
        self.live.pdus.insert(no, pdu.clone());
        Ok(pdu)
    }

    /// The state after an event, and the event that it replaced in it.
    async fn change_state(&mut self, pdu: &Pdu, no: EventNo) -> Result<(Root, Option<EventNo>), Error> {
        let before = self.live.head.root;
        let Some(key) = pdu.state_key() else { return Ok((before, None)) };
        let key = self.state_key(pdu.kind(), key).await?;
        let replaces = self.state.get(before, key).await?;
        let after = self.state.set(before, key, Some(no)).await?;
        self.live.head.root = after;
        Ok((after, replaces))
    }

    #[expect(clippy::too_many_arguments, reason = "all of it goes into one row")]
    async fn store(
        &mut self,
        slot: Slot,
        pdu: &Pdu,
        no: EventNo,
        auth: Vec<EventNo>,
        (before, after): (Root, Root),
        replaces: Option<EventNo>,
        txn: Option<TxnKey>,
    ) -> Result<(), Error> {
        let relates_to = if pdu.state_key().is_none() { relation(pdu.content()) } else { None };
        let parent = match &relates_to {
            Some(relates_to) => self.in_room(&relates_to.event_id).await?,
            None => None,
        };
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
            standing: Standing::Accepted,
            at: None,
            before: Some(before),
            after: pdu.state_key().is_some().then_some(after),
            replaces,
            redacted_by: None,
            prev: self.live.head.extremities.iter().map(|(no, _)| *no).collect(),
            auth,
            txn: txn.as_ref().map(|txn| Txn { device: txn.device.clone(), id: txn.id.clone() }),
            redacts: pdu.redacts().map(ToString::to_string),
            relates_to,
        };
        if let Some(txn) = txn {
            let sender = self.inner.store.names().name_user(self.snapshot, &mut self.tx, pdu.sender().as_str()).await?;
            let sent = SentTxn { event_id: header.event_id.clone(), ts: self.inner.env.now_ms() };
            rows::rooms::put_txn(&mut self.tx, sender, &txn.device, &txn.deed, &txn.id, &sent);
        }
        let event = StoredEvent { header, json: pdu.json().clone() };
        rows::events::append(&mut self.tx, slot, self.live.no, no, event, parent);
        Ok(())
    }

    /// The number of an event of this room, stored or just added.
    pub(crate) async fn in_room(&self, id: &str) -> Result<Option<EventNo>, Error> {
        let fresh = self.live.pdus.iter().find(|(_, pdu)| pdu.event_id().as_str() == id).map(|(no, _)| *no);
        if fresh.is_some() {
            return Ok(fresh);
        }
        let place = self.snapshot.get(&schema::EVENT_IDS, &id.to_owned()).await?;
        Ok(place.filter(|place| place.room == self.live.no).map(|place| place.event))
    }

    /// A membership changed: both sides' rows, the counts, and what an invited user is shown.
    async fn member(&mut self, slot: Slot, pdu: &Pdu, no: EventNo, replaces: Option<EventNo>) -> Result<(), Error> {
        let Some(target) = pdu.state_key().and_then(|key| OwnedUserId::try_from(key).ok()) else { return Ok(()) };
        let membership = stored_membership(auth::Membership::of_content(pdu.content()));
        let before = match replaces {
            Some(no) => stored_membership(auth::Membership::of_content(self.pdu(no).await?.content())),
            None => Membership::Leave,
        };
        let head = &mut self.live.head;
        for (counted, by) in [(before, -1), (membership, 1)] {
            match counted {
                Membership::Join => head.joined = head.joined.saturating_add_signed(by),
                Membership::Invite => head.invited = head.invited.saturating_add_signed(by),
                _ => {}
            }
        }
        let user = self.inner.store.names().name_user(self.snapshot, &mut self.tx, target.as_str()).await?;
        let local = target.server_name() == self.inner.server;
        rows::rooms::put_member(&mut self.tx, self.live.no, user, &Member { membership, event: no }, local);
        if local {
            self.own_membership(slot, user, pdu, no, membership).await?;
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
        let Some(event) = self.inner.store.events().get(self.snapshot, place.room, place.event).await? else {
            return Ok(());
        };
        let old = event.pdu(&self.live.rules)?;
        if event.header.redacted_by.is_some() || !redaction_applies(&self.live.rules, pdu, &old, powers) {
            return Ok(());
        }
        let json = redact(&event.json, &self.live.rules)
            .map_err(|_| stoa_store::Error::Corrupt("a stored event cannot be redacted"))?;
        let new = Pdu::stored(json.into(), old.event_id().clone(), &self.live.rules)
            .map_err(|_| stoa_store::Error::Corrupt("a redacted event cannot be read"))?;
        let mut header = event.header.clone();
        let content = new.content_range();
        (header.content_from, header.content_to) = (content.start, content.end);
        header.redacted_by = Some(no);
        header.relates_to = None;
        let redacted = StoredEvent { header, json: new.json().clone() };
        rows::events::rewrite(&mut self.tx, place.room, place.event, &redacted);
        self.live.pdus.remove(&place.event);
        self.live.powers = None;
        Ok(())
    }
}

fn strip(pdu: &Pdu) -> Result<Box<RawValue>, Error> {
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
