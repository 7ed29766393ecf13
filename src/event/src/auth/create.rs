//! The create event: its own rules (authorisation rule 1), and what every later judgement asks of it.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{
    Reject, Rule,
    content::{each_field, has_field, text},
};
use crate::{
    ids::{OwnedEventId, OwnedServerName, OwnedUserId, RoomVersionId, ServerName, UserId},
    pdu::Pdu,
    version::Rules,
};

/// What judging needs of a room's create event, read once.
#[derive(Clone, Debug)]
pub struct Create {
    event_id: OwnedEventId,
    server: OwnedServerName,
    federate: bool,
    creators: Arc<[OwnedUserId]>,
    privileged: bool,
}

impl Create {
    /// Reads an accepted create event.
    pub fn read(rules: &Rules, event: &Pdu) -> Create {
        let mut creator = None;
        let mut additional = Vec::new();
        let mut federate = true;
        each_field(event.content(), &mut |key, value| match key.as_ref() {
            "creator" => creator = text(value).and_then(|id| UserId::parse(id.as_ref()).ok()),
            "additional_creators" => additional = user_ids(value).unwrap_or_default(),
            // The text says "set to false". A value that is no boolean counts as false too, as in Synapse.
            "m.federate" => federate = value.get() == "true",
            _ => {}
        });
        if rules.creator_is_sender {
            creator = Some(event.sender().clone());
        }
        let mut creators: Vec<OwnedUserId> = creator.into_iter().collect();
        if rules.creators_are_privileged {
            creators.append(&mut additional);
        }
        Create {
            event_id: event.event_id().clone(),
            server: event.sender().server_name().to_owned(),
            federate,
            creators: creators.into(),
            privileged: rules.creators_are_privileged,
        }
    }

    /// The create event's id.
    pub fn event_id(&self) -> &OwnedEventId {
        &self.event_id
    }

    /// Whether events of a server are allowed in the room at all.
    pub fn admits(&self, server: &ServerName) -> bool {
        self.federate || self.server == server
    }

    /// The one who may join first: the sender, up to version 10 the one in the content (who may be missing there).
    pub fn creator(&self) -> Option<&OwnedUserId> {
        self.creators.first()
    }

    /// The creator, and in version 12 all additional ones.
    pub fn creators(&self) -> &[OwnedUserId] {
        &self.creators
    }

    /// Whether creators stand above every number (12 and later).
    pub fn creators_are_privileged(&self) -> bool {
        self.privileged
    }
}

/// Rule 1: a create event is judged by itself alone.
pub(super) fn check(rules: &Rules, event: &Pdu) -> Result<(), Reject> {
    let reject = |rule, why: &str| Err(Reject::new(rules, rule, why));
    if !event.prev_events().is_empty() {
        return reject(Rule::CreatePrevEvents, "a create event has no previous events");
    }
    if rules.room_id_is_create_hash {
        if has_field(event.json(), "room_id") {
            return reject(Rule::CreateRoomId, "a create event names no room: the room id follows from it");
        }
    } else if event.room_id().server_name() != Some(event.sender().server_name()) {
        return reject(Rule::CreateRoomId, "the room id is not of the sender's domain");
    }

    let (mut version, mut creator, mut additional) = (None, false, None);
    let whole = each_field(event.content(), &mut |key, value| match key.as_ref() {
        "room_version" => version = Some(value),
        "creator" => creator = true,
        "additional_creators" => additional = Some(value),
        _ => {}
    });
    if !whole || version.is_some_and(|value| !known(value)) {
        return reject(Rule::CreateVersion, "the room version is not known");
    }
    if !rules.creator_is_sender && !creator {
        return reject(Rule::CreateCreator, "the content has no creator");
    }
    if rules.creators_are_privileged && additional.is_some_and(|value| user_ids(value).is_none()) {
        return reject(Rule::CreateAdditional, "additional_creators is not a list of user ids");
    }
    Ok(())
}

fn known(version: &RawValue) -> bool {
    text(version).and_then(|id| RoomVersionId::try_from(id.as_ref()).ok()).is_some_and(|id| Rules::of(&id).is_some())
}

fn user_ids(value: &RawValue) -> Option<Vec<OwnedUserId>> {
    let ids: Vec<String> = serde_json::from_str(value.get()).ok()?;
    ids.into_iter().map(|id| UserId::parse(id).ok()).collect()
}
