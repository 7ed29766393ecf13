//! Member events that two servers make together (Server-Server API, "Joining Rooms", "Leaving Rooms", "Knocking", "Inviting
//! to a room"): one knows the room and gives a template, the other one's user wants it and signs.

use std::sync::Arc;

use serde_json::{Map, Value, value::RawValue};
use stoa_event::{
    auth::{JoinRule, Membership, kind},
    build::{Draft, Given},
    ids::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId},
    json::MAX_INT,
    pdu::Pdu,
    sign::sign_event,
    version::Rules,
};

use crate::{
    Error, Rooms,
    effects::STRIPPED,
    membership::{Change, content_of, member},
    writer::Writer,
};

/// A member event without hashes and signatures.
#[derive(Clone, Debug)]
pub struct Template {
    /// The room's version.
    pub version: RoomVersionId,
    /// The event.
    pub event: Box<RawValue>,
}

/// The member event that we asked another server for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The room.
    pub room: OwnedRoomId,
    /// Our user, who sends it and whom it is about.
    pub user: OwnedUserId,
    /// `join`, `leave` or `knock`.
    pub membership: &'static str,
    /// More fields for its content: name, picture, reason.
    pub content: Map<String, Value>,
}

impl Rooms {
    /// A template for a user of another server who wants to `join`, `leave` or `knock`.
    ///
    /// # Errors
    /// Where the room is not known here or the law would refuse.
    pub async fn template(&self, room: &RoomId, user: &OwnedUserId, membership: &str) -> Result<Template, Error> {
        let inner = &*self.inner;
        let (lock, snapshot) = self.locked(room).await?;
        let mut writer = Writer::begin(inner, &snapshot, lock).await?;
        let made = writer.template(user, membership).await;
        let version = writer.live.rules.id.clone();
        writer.leave();
        Ok(Template { version, event: strip(&made?)? })
    }

    /// Builds and signs a member event of our user by a template of another server. Nothing of the template is signed but
    /// what it says about the room's graph, and who of the other server vouches for a restricted join.
    ///
    /// # Errors
    /// Where the template is not of the event that was asked for.
    pub fn fill(&self, template: &RawValue, rules: &Rules, wanted: &Wanted) -> Result<Arc<Pdu>, Error> {
        let bad =
            |why: &str| Error::BadContent(format!("the other server's template is not what was asked for: {why}"));
        let event: Map<String, Value> = serde_json::from_str(template.get()).map_err(|_| bad("no object"))?;
        let says = |field: &str, value: &str| event.get(field).and_then(Value::as_str) == Some(value);
        for (field, value) in [
            ("type", kind::MEMBER),
            ("room_id", wanted.room.as_str()),
            ("sender", wanted.user.as_str()),
            ("state_key", wanted.user.as_str()),
        ] {
            if !says(field, value) {
                return Err(bad(field));
            }
        }
        let told = event.get("content").and_then(Value::as_object).ok_or_else(|| bad("content"))?;
        if told.get("membership").and_then(Value::as_str) != Some(wanted.membership) {
            return Err(bad("membership"));
        }
        let mut content = wanted.content.clone();
        content.insert("membership".into(), wanted.membership.into());
        const VOUCHER: &str = "join_authorised_via_users_server";
        if let Some(voucher) = told.get(VOUCHER).filter(|_| rules.restricted && wanted.membership == "join") {
            content.insert(VOUCHER.into(), voucher.clone());
        }
        let (prev_events, prev_hashes) = references(&event, "prev_events", rules).ok_or_else(|| bad("prev_events"))?;
        let (auth_events, auth_hashes) = references(&event, "auth_events", rules).ok_or_else(|| bad("auth_events"))?;
        let depth = event.get("depth").and_then(Value::as_u64).unwrap_or(1);
        let draft = Draft {
            room_id: Some(wanted.room.clone()),
            sender: wanted.user.clone(),
            kind: kind::MEMBER.into(),
            state_key: Some(wanted.user.to_string()),
            content: Value::Object(content).to_string().into_bytes(),
            prev_events,
            auth_events,
            depth: depth.min(MAX_INT.unsigned_abs()),
            origin_server_ts: self.inner.env.now_ms(),
            redacts: None,
        };
        let given = match rules.reference_pairs {
            true => Some(Given { event_id: self.inner.new_event_id()?, prev_hashes, auth_hashes }),
            false => None,
        };
        Ok(Arc::new(self.inner.seal(draft, given, rules)?))
    }

    /// Builds, signs and judges a change of membership without committing it: another server must sign it first. It comes back
    /// by [`Rooms::ingest`].
    ///
    /// # Errors
    /// Where the room is not known, the change makes no sense, or the law refuses.
    pub async fn prepare(&self, room: &RoomId, change: Change) -> Result<Arc<Pdu>, Error> {
        let inner = &*self.inner;
        let (lock, snapshot) = self.locked(room).await?;
        let mut writer = Writer::begin(inner, &snapshot, lock).await?;
        if writer.lacks_member(&change.target).await? {
            writer.leave();
            return Err(Error::Partial);
        }
        let joined = writer.require_joined(&change.sender).await;
        let current = writer.membership(&change.target).await?;
        let sensible = crate::membership::sense(&change, current);
        let made = match (joined, sensible) {
            (Err(error), _) => Err(error),
            (_, crate::membership::Sense::Refuse(why)) => Err(Error::forbidden(why)),
            _ => writer.make(member(&change.sender, &change.target, content_of(&change))).await,
        };
        writer.leave();
        Ok(Arc::new(made?.0))
    }

    /// What a user who is invited or knocks is shown of a room: whole events.
    ///
    /// # Errors
    /// Where the room is not known.
    pub async fn shown_state(&self, room: &RoomId) -> Result<Vec<Arc<Pdu>>, Error> {
        let inner = &*self.inner;
        let (lock, snapshot) = self.locked(room).await?;
        let mut writer = Writer::begin(inner, &snapshot, lock).await?;
        let mut shown = Vec::with_capacity(STRIPPED.len());
        for kind in STRIPPED {
            shown.extend(writer.current(kind, "").await?.map(|(_, pdu)| pdu));
        }
        writer.leave();
        Ok(shown)
    }

    /// The state event of that type and key now.
    ///
    /// # Errors
    /// Where the room is not known.
    pub async fn state_event(&self, room: &RoomId, kind: &str, key: &str) -> Result<Option<Arc<Pdu>>, Error> {
        let (lock, snapshot) = self.locked(room).await?;
        let mut writer = Writer::begin(&self.inner, &snapshot, lock).await?;
        let found = writer.current(kind, key).await?;
        writer.leave();
        Ok(found.map(|(_, pdu)| pdu))
    }

    /// Whether a user of another server may come in because of the rooms in which the user is, so that we may vouch for it.
    ///
    /// # Errors
    /// Where the user may not.
    pub async fn check_restricted(&self, room: &RoomId, user: &OwnedUserId) -> Result<(), Error> {
        let inner = &*self.inner;
        let (lock, snapshot) = self.locked(room).await?;
        let mut writer = Writer::begin(inner, &snapshot, lock).await?;
        let current = writer.membership(user).await?;
        let checked = match current {
            Membership::Join | Membership::Invite => Ok(()),
            _ => writer.authorise_join(user, &mut Map::new()).await,
        };
        writer.leave();
        checked
    }

    /// Adds our signature to an event of another server: a restricted join that a user of ours vouches for, or an invite
    /// of our user.
    ///
    /// # Errors
    /// Where it cannot be signed.
    pub fn countersign(&self, pdu: &Pdu, rules: &Rules) -> Result<Arc<Pdu>, Error> {
        let signed = sign_event(pdu.json(), rules, &self.inner.server, &self.inner.key)
            .map_err(|why| Error::BadContent(why.to_string()))?;
        Ok(Arc::new(Pdu::stored(signed.into(), pdu.event_id().clone(), rules)?))
    }
}

impl Writer<'_> {
    async fn template(&mut self, user: &OwnedUserId, membership: &str) -> Result<Pdu, Error> {
        let mut content = Map::new();
        content.insert("membership".into(), membership.into());
        let current = self.membership(user).await?;
        if membership == "join" && !matches!(current, Membership::Join | Membership::Invite) {
            self.authorise_join(user, &mut content).await?;
        }
        if membership == "knock" {
            let rules = self.current(kind::JOIN_RULES, "").await?;
            let rule = JoinRule::of(rules.as_ref().map(|(_, pdu)| &**pdu));
            if !self.live.rules.knock || !matches!(rule, JoinRule::Knock | JoinRule::KnockRestricted) {
                return Err(Error::forbidden("the room does not let anybody knock"));
            }
        }
        Ok(self.make(member(user, user, content)).await?.0)
    }
}

/// The event without what its sender's server adds.
fn strip(pdu: &Pdu) -> Result<Box<RawValue>, Error> {
    let corrupt = |_| stoa_store::Error::Corrupt("an event is no JSON");
    let mut event: Map<String, Value> = serde_json::from_slice(pdu.json()).map_err(corrupt)?;
    for field in ["hashes", "signatures", "event_id"] {
        event.remove(field);
    }
    Ok(serde_json::value::to_raw_value(&event).map_err(corrupt)?)
}

type References = (Vec<OwnedEventId>, Vec<Option<[u8; 32]>>);

/// The events that a template names, in versions 1 and 2 with their hashes.
fn references(event: &Map<String, Value>, field: &str, rules: &Rules) -> Option<References> {
    let (mut ids, mut hashes) = (Vec::new(), Vec::new());
    for item in event.get(field)?.as_array()?.iter().take(100) {
        let id = match rules.reference_pairs {
            true => {
                let pair = item.as_array()?;
                // Synapse leaves hashes out of its templates at times.
                hashes.push(match pair.get(1)?.get("sha256") {
                    Some(hash) => Some(stoa_event::hash::base64_decode(hash.as_str()?)?.try_into().ok()?),
                    None => None,
                });
                pair.first()?
            }
            false => item,
        };
        ids.push(OwnedEventId::try_from(id.as_str()?).ok()?);
    }
    Some((ids, hashes))
}

#[cfg(test)]
mod tests {
    use stoa_event::ids::RoomVersionId;

    use super::*;

    #[test]
    fn references_of_old_rooms_carry_hashes() {
        let rules = Rules::of(&RoomVersionId::V1).unwrap();
        let hash = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let event = serde_json::json!({ "prev_events": [["$a:b", { "sha256": hash }]] });
        let (ids, hashes) = references(event.as_object().unwrap(), "prev_events", &rules).unwrap();
        assert_eq!((ids[0].as_str(), hashes[0]), ("$a:b", Some([0; 32])));
        let without = serde_json::json!({ "prev_events": [["$a:b", {}]] });
        assert_eq!(references(without.as_object().unwrap(), "prev_events", &rules).unwrap().1, [None]);
        let bare = serde_json::json!({ "prev_events": ["$a:b"] });
        assert!(references(bare.as_object().unwrap(), "prev_events", &rules).is_none());
    }
}
