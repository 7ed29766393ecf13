//! `m.receipt` of other servers.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use stoa_event::ids::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, ServerName};
use stoa_store::{
    EventNo, Position, RoomNo, Snapshot, Tx,
    rows::{
        self,
        receipts::{Receipt, ReceiptKey},
    },
    schema,
};

use super::{Unheard, bad, check_user, read};
use crate::{Error, Inner};

/// How many receipts one EDU may bring.
const MOST: usize = 1_000;

/// How many receipts are kept for events that are still to come.
const PARKED: usize = 1_000;

/// A receipt for an event that is still to come: who told it, in which room, of whom, what.
type Waiting = (OwnedServerName, RoomNo, String, Value);

/// Receipts that came before the event that they are for.
#[derive(Default)]
pub(crate) struct Parked {
    by_event: Mutex<HashMap<String, Vec<Waiting>>>,
}

impl Parked {
    fn park(&self, event: &OwnedEventId, waiting: Waiting) {
        let mut parked = self.by_event.lock();
        if parked.values().map(Vec::len).sum::<usize>() >= PARKED {
            parked.clear();
        }
        parked.entry(event.to_string()).or_default().push(waiting);
    }

    /// Whether there are any for an event.
    pub(crate) fn has(&self, event: &str) -> bool {
        self.by_event.lock().contains_key(event)
    }
}

type Rooms<'a> = BTreeMap<OwnedRoomId, BTreeMap<String, &'a RawValue>>;

#[derive(Deserialize)]
struct Told {
    event_ids: Vec<OwnedEventId>,
    #[serde(default)]
    data: Data,
}

#[derive(Default, Deserialize)]
struct Data {
    #[serde(default)]
    ts: u64,
    #[serde(default)]
    thread_id: Option<String>,
}

impl Inner {
    pub(super) async fn hear_receipts(&self, origin: &ServerName, content: &[u8]) -> Result<(), Unheard> {
        // In each room the kinds that we know; others may have any form.
        let rooms: Rooms<'_> = read(content)?;
        let snapshot = self.store.snapshot().await?;
        let mut tx = Tx::new();
        let mut left = MOST;
        for (room_id, kinds) in rooms {
            let Some(users) = kinds.get("m.read") else { continue };
            let Ok(users) = serde_json::from_str::<BTreeMap<String, Value>>(users.get()) else { continue };
            let room = match self.room_of(&snapshot, origin, &room_id).await {
                Ok(room) => room,
                Err(Unheard::Bad(why)) => {
                    tracing::debug!(%origin, room = %room_id, why, "receipts have no effect");
                    continue;
                }
                Err(failed) => return Err(failed),
            };
            for (user, told) in users {
                left = left.checked_sub(1).ok_or_else(|| bad("it has too many receipts"))?;
                match self.hear_receipt(&snapshot, &mut tx, (origin, room), &user, told).await {
                    Err(Unheard::Bad(why)) => tracing::debug!(%origin, user, why, "a receipt has no effect"),
                    other => other?,
                }
            }
        }
        if !tx.is_empty() {
            self.store.commit(tx).await?;
        }
        Ok(())
    }

    /// The event is there: the receipts that waited for it take effect.
    pub(crate) async fn hear_parked(&self, event: &str) -> Result<(), Error> {
        let waiting = self.parked.by_event.lock().remove(event).unwrap_or_default();
        for (origin, room, user, told) in waiting {
            let snapshot = self.store.snapshot().await?;
            let mut tx = Tx::new();
            match self.hear_receipt(&snapshot, &mut tx, (&origin, room), &user, told).await {
                Err(Unheard::Failed(why)) => return Err(why),
                Err(Unheard::Bad(why)) => tracing::debug!(%origin, user, why, "a receipt has no effect"),
                Ok(()) if !tx.is_empty() => drop(self.store.commit(tx).await?),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    async fn hear_receipt(
        &self,
        snapshot: &Snapshot,
        tx: &mut Tx,
        (origin, room): (&ServerName, RoomNo),
        user: &str,
        told: Value,
    ) -> Result<(), Unheard> {
        let user = OwnedUserId::try_from(user).map_err(|_| bad("it is for no user"))?;
        check_user(origin, &user)?;
        let raw = told.clone();
        let told: Told = serde_json::from_value(told).map_err(|why| bad(why.to_string()))?;
        let event_id = told.event_ids.into_iter().next().ok_or_else(|| bad("it names no event"))?;
        let thread = told.data.thread_id.unwrap_or_default();
        if !(thread.is_empty() || thread == "main" || (thread.starts_with('$') && thread.len() <= 255)) {
            return Err(bad("its thread is none"));
        }
        let no = self.member_of(snapshot, room, &user).await?;
        let place = snapshot.get(&schema::EVENT_IDS, &event_id.to_string()).await?;
        let Some(place) = place else {
            self.parked.park(&event_id, (origin.to_owned(), room, user.to_string(), raw));
            return Ok(());
        };
        if place.room != room {
            return Err(bad("the room has no such event"));
        }
        let key = ReceiptKey { room, user: no, kind: "m.read".to_owned(), thread };
        let row = (room, no, key.kind.clone(), key.thread.clone());
        let old = snapshot.get(&schema::RECEIPTS, &row).await?;
        if let Some(old) = &old
            && !self.is_later(snapshot, room, place.event, old.event).await?
        {
            return Ok(());
        }
        let ts = told.data.ts.min(self.env.now_ms());
        let receipt = Receipt { event_id: event_id.to_string(), event: place.event, ts, at: Position::MIN };
        let slot = tx.slot();
        rows::receipts::put(tx, slot, key, receipt, old.as_ref());
        Ok(())
    }

    /// Whether an event comes after another in the timeline.
    async fn is_later(
        &self,
        snapshot: &Snapshot,
        room: RoomNo,
        event: EventNo,
        than: EventNo,
    ) -> Result<bool, Unheard> {
        let events = self.store.events().get_many(snapshot, room, &[event, than]).await?;
        let at = |i: usize| events.get(i).and_then(Option::as_ref).and_then(|event| event.header.at);
        Ok(at(0) > at(1))
    }
}
