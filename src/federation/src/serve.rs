//! What other servers ask for their users in rooms that we know: templates of member events, and taking in the events made
//! of them (Server-Server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms"), and invites for our users.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};
use stoa_event::{
    auth::{Membership as Word, kind},
    format::{MAX_EVENT_BYTES, Received},
    ids::{EventId, OwnedUserId, RoomId, RoomVersionId, ServerName},
    pdu::Pdu,
    version::{Rules, SUPPORTED},
};
use stoa_rooms::{Arrival, Outcome, Template};
use stoa_store::{Membership, rows::rooms::Outside};

use crate::{Error, Federation, Inner};

/// How many events of stripped state an invite may bring, and how many bytes they may have together.
const SHOWN: usize = 100;
const SHOWN_BYTES: usize = 512 << 10;

/// A member event of another server's user that is part of the room now.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The event, with our signature where it needs one.
    pub event: Arc<Pdu>,
    /// The rules of its room.
    pub rules: Arc<Rules>,
}

/// An invite for a user of ours: the body of `/invite`.
#[derive(Clone, Debug, Deserialize)]
pub struct Invitation {
    /// The room's version.
    pub room_version: RoomVersionId,
    /// The event.
    pub event: Box<RawValue>,
    /// What is shown of the room.
    #[serde(default)]
    pub invite_room_state: Vec<Box<RawValue>>,
}

impl Federation {
    /// A template for a user of another server who wants to `join`, `leave` or `knock`. `versions` are the room versions that
    /// the other server knows; for leaving it does not say.
    ///
    /// # Errors
    /// Where the room is not known here, the server or the user may not, or the version is not among them.
    pub async fn make(
        &self,
        origin: &ServerName,
        room: &RoomId,
        user: &OwnedUserId,
        membership: &str,
        versions: Option<&[RoomVersionId]>,
    ) -> Result<Template, Error> {
        if user.server_name() != origin {
            return Err(Error::Forbidden(format!("{user} is not a user of {origin}")));
        }
        let rules = self.inner.admitted(origin, room).await?;
        self.inner.require_whole(room).await?;
        if versions.is_some_and(|known| !known.contains(&rules.id)) {
            return Err(Error::IncompatibleVersion(rules.id.to_string()));
        }
        Ok(self.inner.rooms.template(room, user, membership).await?)
    }

    /// Takes in a member event made of a template.
    ///
    /// # Errors
    /// Where it is not what was asked for, is not signed, or is not allowed now.
    pub async fn accept(
        &self,
        origin: &ServerName,
        room: &RoomId,
        id: &EventId,
        json: Bytes,
        membership: &str,
    ) -> Result<Accepted, Error> {
        let inner = &*self.inner;
        let rules = inner.admitted(origin, room).await?;
        if membership != "leave" {
            inner.require_whole(room).await?;
        }
        let event = Received::read(json, &rules).map_err(|why| Error::Bad(why.to_string()))?;
        let pdu = event.pdu();
        check_member(pdu, (room, id), membership)?;
        if pdu.sender().server_name() != origin || pdu.state_key() != Some(pdu.sender().as_str()) {
            return Err(Error::Forbidden(format!("{} is not a user of {origin}", pdu.sender())));
        }
        let ours = event.signers().is_ok_and(|signers| signers.iter().any(|server| server == self.server()));
        let json = match ours && membership == "join" {
            true => {
                inner.rooms.check_restricted(room, pdu.sender()).await?;
                inner.rooms.countersign(pdu, &rules)?.json().clone()
            }
            false => pdu.json().clone(),
        };
        let signed = inner.verified(&rules, vec![json]).await.pop();
        let event = signed.ok_or_else(|| Error::Forbidden("the event is not signed as it must be".into()))?;
        match inner.settle(origin, room, &rules, Arrival::Live(event.clone(), Vec::new())).await? {
            outcome @ (Outcome::Accepted | Outcome::Known) => {
                // The other server gave the event to us alone: the others in the room have it from us.
                if outcome == Outcome::Accepted {
                    inner.pass_on(origin, &event).await?;
                }
                Ok(Accepted { event, rules })
            }
            Outcome::Rejected(why) | Outcome::SoftFailed(why) => Err(Error::Forbidden(why)),
            Outcome::Needs(_) => Err(Error::Bad("the event builds on what is not known here".into())),
        }
    }

    /// A user of ours is invited by another server. Gives the event with our signature.
    ///
    /// # Errors
    /// Where it is no invite for a user of ours, or is not signed.
    pub async fn invited(
        &self,
        origin: &ServerName,
        room: &RoomId,
        id: &EventId,
        invitation: Invitation,
    ) -> Result<Arc<Pdu>, Error> {
        let inner = &*self.inner;
        let Invitation { room_version, event, invite_room_state } = invitation;
        let known = Rules::of(&room_version).filter(|rules| SUPPORTED.contains(&rules.id));
        let rules = Arc::new(known.ok_or_else(|| Error::IncompatibleVersion(room_version.to_string()))?);
        let json = Bytes::copy_from_slice(event.get().as_bytes());
        let pdu = Pdu::read(json.clone(), &rules).map_err(|why| Error::Bad(why.to_string()))?;
        check_member(&pdu, (room, id), "invite")?;
        if pdu.sender().server_name() != origin {
            return Err(Error::Forbidden(format!("{} is not a user of {origin}", pdu.sender())));
        }
        let target = pdu.state_key().and_then(|key| OwnedUserId::try_from(key).ok());
        let target = target.filter(|user| user.server_name() == self.server());
        let target = target.ok_or_else(|| Error::Bad("the invite is for nobody of this server".into()))?;
        let account = inner.accounts.account(&target).await?;
        if account.is_none_or(|account| account.row.deactivated.is_some()) {
            return Err(Error::NotFound("there is no such user"));
        }
        if !inner.rooms.admits(room, origin).await? {
            return Err(Error::Forbidden("your server is banned from the room".into()));
        }
        inner.rooms.require_invitable(&target, pdu.sender()).await?;
        let verified = inner.verified(&rules, vec![json]).await.pop();
        let verified = verified.ok_or_else(|| Error::Forbidden("the event is not signed as it must be".into()))?;
        let signed = inner.rooms.countersign(&verified, &rules)?;
        if inner.rooms.is_in(room).await? {
            let arrival = Arrival::Live(signed.clone(), Vec::new());
            if let Outcome::Rejected(why) = inner.settle(origin, room, &rules, arrival).await? {
                return Err(Error::Forbidden(why));
            }
        } else {
            let shown = shown_of(&invite_room_state);
            let outside = Outside { via: origin.to_string(), version: rules.id.to_string(), ..Outside::default() };
            inner.rooms.shown(room, &target, &signed, Membership::Invite, &shown, outside).await?;
        }
        Ok(signed)
    }
}

impl Inner {
    /// Fails for a room whose members we do not all know: what another server would be told were wrong. It asks the next
    /// one then, as where we were not in the room.
    async fn require_whole(&self, room: &RoomId) -> Result<(), Error> {
        match self.rooms.partial(room).await? {
            None => Ok(()),
            Some(_) => Err(Error::NotFound("this server does not have the whole state of that room yet")),
        }
    }

    /// The rules of a room in which we are and into which the server may look.
    pub(crate) async fn admitted(&self, origin: &ServerName, room: &RoomId) -> Result<Arc<Rules>, Error> {
        let unknown = || Error::NotFound("this server is not in that room");
        let rules = match self.rooms.rules_of(room).await {
            Err(stoa_rooms::Error::UnknownRoom) => return Err(unknown()),
            other => other?,
        };
        if !self.rooms.is_in(room).await? {
            return Err(unknown());
        }
        if !self.rooms.admits(room, origin).await? {
            return Err(Error::Forbidden("your server is banned from the room".into()));
        }
        Ok(rules)
    }
}

/// Whether an event is the member event that the path of the request names.
fn check_member(pdu: &Pdu, (room, id): (&RoomId, &EventId), membership: &str) -> Result<(), Error> {
    let bad = |why: &str| Err(Error::Bad(why.to_owned()));
    if pdu.room_id() != room {
        return bad("the event is of another room than the path says");
    }
    if pdu.event_id() != id {
        return bad("the event has another id than the path says");
    }
    if pdu.kind() != kind::MEMBER || pdu.state_key().is_none() {
        return bad("the event is no m.room.member");
    }
    if Word::of_content(pdu.content()).as_str() != membership {
        return bad("the event has another membership than was asked for");
    }
    Ok(())
}

/// What another server shows of a room: what is none of it, or too large, is left out.
pub(crate) fn shown_of(events: &[Box<RawValue>]) -> Vec<Box<RawValue>> {
    let (mut shown, mut bytes) = (Vec::new(), 0);
    for event in events.iter().take(SHOWN).filter(|event| event.get().len() <= MAX_EVENT_BYTES) {
        let Some(event) = stripped(event) else { continue };
        bytes += event.get().len();
        if bytes > SHOWN_BYTES {
            break;
        }
        shown.push(event);
    }
    shown
}

/// An event as a user is shown it who is not in the room: nothing of what servers say to each other.
fn stripped(event: &RawValue) -> Option<Box<RawValue>> {
    let mut event: Map<String, Value> = serde_json::from_str(event.get()).ok()?;
    event.retain(|key, _| matches!(key.as_str(), "type" | "state_key" | "sender" | "content" | "origin_server_ts"));
    let is_one = ["type", "state_key", "sender"].iter().all(|key| event.get(*key).is_some_and(Value::is_string));
    (is_one && event.get("content").is_some_and(Value::is_object)).then_some(())?;
    serde_json::value::to_raw_value(&event).ok()
}
