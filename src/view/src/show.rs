//! Events as clients see them (Client-Server API, "Room event format"): spliced from stored bytes, not parsed.

use std::{collections::HashMap, sync::Arc};

use stoa_store::{
    EventNo, Membership, UserNo,
    rows::events::{StoredEvent, Txn},
};

use crate::{
    Error,
    bundle::{self, Bundler},
    eyes::Eyes,
    json::Object,
};

/// For whom events are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Audience<'a> {
    /// The device that asks; its own transaction ids are shown to it.
    pub(crate) device: &'a str,
    pub(crate) user_id: &'a str,
    /// Now, in milliseconds since 1970: what the age is counted from.
    pub(crate) now_ms: u64,
    /// Written into the events where they do not stand under their room.
    pub(crate) room_id: Option<&'a str>,
}

/// An event that the user may see.
#[derive(Clone)]
pub(crate) struct Visible {
    pub(crate) event: Arc<StoredEvent>,
    /// The user's membership when it happened.
    pub(crate) membership: Option<Membership>,
}

/// Writes events for an audience, without what relates to them: state, and events that a client will sum up itself.
pub(crate) async fn render(eyes: &Eyes<'_>, audience: Audience<'_>, events: &[Visible]) -> Result<Vec<Vec<u8>>, Error> {
    let beside = beside(eyes, events).await?;
    Ok(events.iter().map(|it| one(audience, it, &beside, None)).collect())
}

/// Writes events for an audience, each with what relates to it (see [`bundle`]).
pub(crate) async fn render_bundled(
    eyes: &Eyes<'_>,
    audience: Audience<'_>,
    user: UserNo,
    events: &[Visible],
) -> Result<Vec<Vec<u8>>, Error> {
    let parents = bundle::parents(eyes, events).await?;
    if parents.is_empty() {
        return render(eyes, audience, events).await;
    }
    let mut eyes = eyes.clone();
    let bundles = Bundler::new(&mut eyes, user, audience.user_id).await?.gather(&parents).await?;
    let beside = beside(&eyes, events).await?;
    let numbers: HashMap<&str, EventNo> =
        parents.iter().map(|(no, event)| (event.header.event_id.as_str(), *no)).collect();
    let relations = |it: &Visible| bundle::write(audience, &bundles, *numbers.get(it.event.header.event_id.as_str())?);
    Ok(events.iter().map(|it| one(audience, it, &beside, relations(it).as_deref())).collect())
}

/// What stands in `unsigned`: the events that these replaced, and those that redacted them.
async fn beside(eyes: &Eyes<'_>, events: &[Visible]) -> Result<HashMap<EventNo, Arc<StoredEvent>>, Error> {
    let beside: Vec<EventNo> =
        events.iter().flat_map(|it| [it.event.header.replaces, it.event.header.redacted_by]).flatten().collect();
    let loaded = eyes.store.events().get_many(eyes.snapshot, eyes.room, &beside).await?;
    Ok(beside.into_iter().zip(loaded).filter_map(|(no, event)| Some((no, event?))).collect())
}

/// Writes one event, with `m.relations` if they are given.
pub(crate) fn one(
    audience: Audience<'_>,
    it: &Visible,
    beside: &HashMap<EventNo, Arc<StoredEvent>>,
    relations: Option<&[u8]>,
) -> Vec<u8> {
    let header = &it.event.header;
    let mut out = Vec::with_capacity(it.event.json.len() + 256);
    let mut object = fields(&mut out, &it.event, audience.room_id);
    let unsigned = object.key("unsigned");
    let mut unsigned = Object::new(unsigned);
    unsigned.plain("age", audience.now_ms.saturating_sub(header.origin_server_ts));
    if let Some(membership) = it.membership {
        unsigned.str("membership", membership.as_str());
    }
    if let Some(txn) = header.txn.as_ref().filter(|_| header.sender == audience.user_id) {
        if txn.device == Txn::DELAYED {
            // MSC4140: to the sender, whichever device asks.
            unsigned.str("delay_id", &txn.id).str("org.matrix.msc4140.delay_id", &txn.id);
        } else if txn.device == audience.device {
            unsigned.str("transaction_id", &txn.id);
        }
    }
    if let Some(old) = header.replaces.and_then(|no| beside.get(&no)) {
        unsigned.str("replaces_state", &old.header.event_id);
        unsigned.str("prev_sender", &old.header.sender);
        unsigned.raw("prev_content", old.content());
    }
    if let Some(redaction) = header.redacted_by.and_then(|no| beside.get(&no)) {
        unsigned.str("redacted_by", &redaction.header.event_id);
        let because = unsigned.key("redacted_because");
        let mut because = fields(because, redaction, audience.room_id);
        because.raw("unsigned", b"{}");
        because.end();
    }
    if let Some(relations) = relations {
        unsigned.raw("m.relations", relations);
    }
    unsigned.end();
    object.end();
    out
}

/// The fields that every event has, `unsigned` left open.
fn fields<'a>(out: &'a mut Vec<u8>, event: &StoredEvent, room_id: Option<&str>) -> Object<'a> {
    let header = &event.header;
    let mut object = Object::new(out);
    object
        .raw("content", event.content())
        .str("event_id", &header.event_id)
        .plain("origin_server_ts", header.origin_server_ts)
        .str("sender", &header.sender)
        .str("type", &header.kind);
    if let Some(room_id) = room_id {
        object.str("room_id", room_id);
    }
    if let Some(key) = &header.state_key {
        object.str("state_key", key);
    }
    // Older clients look for it at the top, in every room version.
    if let Some(redacts) = header.redacts.as_ref().filter(|_| header.redacted_by.is_none()) {
        object.str("redacts", redacts);
    }
    object
}
