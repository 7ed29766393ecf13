//! Transactions of other servers (Server-Server API, "Transactions"). Rooms go in parallel; the events that one server
//! sends of one room go one after the other. One bad event never fails the others.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use serde::Deserialize;
use stoa_event::{
    auth::kind,
    ids::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, RoomVersionId, ServerName},
    pdu::Pdu,
    version::Rules,
};
use stoa_rooms::Outcome;
use stoa_store::Membership;
use tokio::sync::Mutex as AsyncMutex;

use crate::{Error, Federation, Inner};

/// The most events that one transaction may have.
pub const MAX_PDUS: usize = 50;
/// The most EDUs that one transaction may have.
pub const MAX_EDUS: usize = 100;

type Turn = Arc<AsyncMutex<()>>;

/// Whose turn it is: one at a time for each server and room.
#[derive(Default)]
pub(crate) struct Intake {
    turns: Mutex<HashMap<(OwnedServerName, OwnedRoomId), Turn>>,
}

impl Intake {
    pub(crate) fn turn(&self, origin: &ServerName, room: &OwnedRoomId) -> Turn {
        let mut turns = self.turns.lock();
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry((origin.to_owned(), room.clone())).or_default().clone()
    }
}

/// What became of the events of a transaction: by event id, an error for those that were refused.
pub type Received = BTreeMap<OwnedEventId, Result<(), String>>;

/// What is needed of an event before its room's rules are known.
#[derive(Deserialize)]
struct Glance {
    room_id: OwnedRoomId,
}

impl Federation {
    /// Takes in the events of a transaction. An event whose id cannot be worked out is not in the answer.
    ///
    /// # Errors
    /// Where the store fails; then nothing is acknowledged and the other server sends it again.
    pub async fn receive(&self, origin: &ServerName, pdus: Vec<Bytes>) -> Result<Received, Error> {
        let mut rooms: BTreeMap<OwnedRoomId, Vec<Bytes>> = BTreeMap::new();
        for pdu in pdus.into_iter().take(MAX_PDUS) {
            // A create event of version 12 has no room id, and none is ever new to those in the room.
            if let Ok(glance) = serde_json::from_slice::<Glance>(&pdu) {
                rooms.entry(glance.room_id).or_default().push(pdu);
            }
        }
        let mut work = Vec::with_capacity(rooms.len());
        for (room, pdus) in rooms {
            work.push(self.inner.receive_room(origin, room, pdus));
        }
        let mut received = Received::new();
        for of_room in join_all(work).await {
            received.extend(of_room?);
        }
        Ok(received)
    }
}

impl Inner {
    async fn receive_room(&self, origin: &ServerName, room: OwnedRoomId, pdus: Vec<Bytes>) -> Result<Received, Error> {
        if !self.rooms.is_in(&room).await? {
            return self.receive_outside(origin, &room, pdus).await;
        }
        let rules = self.rooms.rules_of(&room).await?;
        if !self.rooms.admits(&room, origin).await? {
            return Ok(refused(&rules, &pdus, "your server is banned from the room"));
        }
        let turn = self.intake.turn(origin, &room);
        let _turn = turn.lock().await;
        let mut received = refused(&rules, &pdus, "it is not signed as it must be");
        let events = self.verified(&rules, pdus).await;
        for (id, outcome) in self.take_in(origin, &room, &rules, events).await? {
            let result = told(&room, origin, &id, outcome)?;
            received.insert(id, result);
        }
        Ok(received)
    }
}

impl Inner {
    /// Events of a room that this server is not in. One kind of them matters: an invite is taken back, or a knock refused, by
    /// the server that told of the room. Nobody else is believed, because there is no state to judge by.
    async fn receive_outside(&self, origin: &ServerName, room: &RoomId, pdus: Vec<Bytes>) -> Result<Received, Error> {
        let mut received = Received::new();
        for json in pdus {
            let Ok(End { kind, state_key, content }) = serde_json::from_slice::<End>(&json) else { continue };
            if kind != kind::MEMBER || !matches!(content.membership.as_str(), "leave" | "ban") {
                continue;
            }
            let Some(own) = self.rooms.membership_outside(room, &state_key).await? else { continue };
            let waits = matches!(own.membership, Membership::Invite | Membership::Knock);
            let Some(outside) = own.outside.filter(|outside| waits && outside.via == origin.as_str()) else { continue };
            let version = RoomVersionId::try_from(outside.version.as_str()).ok();
            let Some(rules) = version.and_then(|version| Rules::of(&version)).map(Arc::new) else { continue };
            let Some(pdu) = self.verified(&rules, vec![json]).await.pop() else { continue };
            if pdu.sender().server_name() == origin && pdu.room_id() == room {
                self.rooms.hide(room, &state_key).await?;
                received.insert(pdu.event_id().clone(), Ok(()));
            }
        }
        Ok(received)
    }
}

/// What is needed of a member event that ends something.
#[derive(Deserialize)]
struct End {
    #[serde(rename = "type")]
    kind: String,
    state_key: OwnedUserId,
    content: EndContent,
}

#[derive(Deserialize)]
struct EndContent {
    membership: String,
}

/// What the other server is told of an event.
fn told(
    room: &RoomId,
    origin: &ServerName,
    id: &EventId,
    outcome: Result<Outcome, Error>,
) -> Result<Result<(), String>, Error> {
    match outcome {
        Ok(Outcome::Rejected(why)) => {
            tracing::info!(%room, event = %id, %origin, %why, "rejected an event");
            Ok(Err(why))
        }
        Ok(Outcome::SoftFailed(why)) => {
            tracing::info!(%room, event = %id, %origin, %why, "an event is allowed no longer");
            Ok(Ok(()))
        }
        Ok(_) => Ok(Ok(())),
        // What cannot be fetched is that event's misfortune; what cannot be stored is ours.
        Err(Error::Store(why)) | Err(Error::Rooms(stoa_rooms::Error::Store(why))) => Err(why.into()),
        Err(why) => {
            tracing::info!(%room, event = %id, %origin, %why, "cannot judge an event");
            Ok(Err(why.to_string()))
        }
    }
}

fn refused(rules: &Rules, pdus: &[Bytes], why: &str) -> Received {
    let ids = pdus.iter().filter_map(|json| Some(Pdu::read(json.clone(), rules).ok()?.event_id().clone()));
    ids.map(|id| (id, Err(why.to_owned()))).collect()
}
