//! Events that come in another order than they were sent: a redaction before what it redacts, a reply before its parent,
//! the present before the past. Who names what is not held waits for it in a table.

use std::collections::BTreeMap;

use stoa_event::{
    auth::{kind, redaction_applies},
    pdu::Pdu,
};
use stoa_store::{
    Direction, EventNo, Slot, rows,
    rows::events::{Header, Standing, StoredEvent},
    rows::rooms::Waiting,
    schema,
};

use crate::{Error, writer::Writer};

/// How many of those who wait for one event are served.
const MOST: usize = 1000;

impl Writer<'_> {
    /// Notes what an event names that is not held, so that it is found when that comes.
    pub(crate) async fn wait(
        &mut self,
        no: EventNo,
        header: &Header,
        missing: &[String],
        parent: Option<EventNo>,
    ) -> Result<(), Error> {
        let mut named: BTreeMap<&str, Waiting> = BTreeMap::new();
        let none = Waiting { follows: false, redacts: false, relates: false, depth: header.depth };
        for id in missing {
            named.entry(id).or_insert(none).follows = true;
        }
        if let (Some(relates_to), None) = (&header.relates_to, parent) {
            named.entry(&relates_to.event_id).or_insert(none).relates = true;
        }
        if let Some(redacts) = header.redacts.as_deref().filter(|_| header.kind == kind::REDACTION)
            && self.in_room(redacts).await?.is_none()
        {
            named.entry(redacts).or_insert(none).redacts = true;
        }
        for (id, waiting) in named {
            rows::rooms::put_waiting(&mut self.tx, self.live.no, id, no, waiting);
            self.named.insert(id.to_owned());
        }
        Ok(())
    }

    /// An event gets its place: whoever waited for it is served. If a redaction did, gives the event's redacted form.
    pub(crate) async fn awaited(
        &mut self,
        slot: Slot,
        no: EventNo,
        pdu: &Pdu,
        standing: Standing,
    ) -> Result<Option<(EventNo, Pdu)>, Error> {
        let key = (self.live.no, pdu.event_id().to_string());
        let rows = self.snapshot.scan(&schema::WAITING, &key, Direction::Forward, MOST).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        rows::rooms::delete_waiting(&mut self.tx, key.0, &key.1);
        let mut redacted = None;
        for ((_, _, child), waiting) in rows {
            let event = self.stored(child).await?;
            if waiting.follows {
                self.followed(child, &event, no).await?;
            }
            if waiting.relates && standing == Standing::Accepted {
                rows::events::relate(&mut self.tx, Some(slot), self.live.no, no, child, &event.header);
            }
            if waiting.redacts && redacted.is_none() {
                redacted = self.redacted_by(child, &event, pdu).await?;
            }
        }
        Ok(redacted)
    }

    /// One of the things that an event follows came: its gap may be closed.
    async fn followed(&mut self, child: EventNo, event: &StoredEvent, prev: EventNo) -> Result<(), Error> {
        let pdu = self.pdu(child).await?;
        let mut gap = false;
        for id in pdu.prev_events() {
            gap |= self.in_room(id.as_str()).await?.is_none();
        }
        let mut event = event.clone();
        event.header.gap = gap;
        if !event.header.prev.contains(&prev) {
            event.header.prev.push(prev);
        }
        rows::events::rewrite(&mut self.tx, self.live.no, child, &event);
        Ok(())
    }

    async fn redacted_by(
        &mut self,
        by: EventNo,
        redaction: &StoredEvent,
        target: &Pdu,
    ) -> Result<Option<(EventNo, Pdu)>, Error> {
        let Some(before) = redaction.header.before else { return Ok(None) };
        let powers = self.powers_at(before).await?;
        let pdu = self.pdu(by).await?;
        if !redaction_applies(&self.live.rules, &pdu, target, &powers) {
            return Ok(None);
        }
        Ok(target.redacted(&self.live.rules).ok().map(|redacted| (by, redacted)))
    }
}
