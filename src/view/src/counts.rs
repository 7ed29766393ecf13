//! Unread counts (Client-Server API, "Receiving notifications", "Threaded read receipts"): worked out when somebody reads,
//! and continued from where they were worked out last. Nobody works them out while sending.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use quick_cache::sync::Cache;
use ruma_common::{
    RoomVersionId,
    power_levels::NotificationPowerLevels,
    push::{Action, FlattenedJson, PushConditionPowerLevelsCtx, PushConditionRoomCtx, Ruleset},
    room_version_rules::RoomPowerLevelsRules,
    serde::Raw,
};
use serde_json::{Value, value::RawValue};
use stoa_event::{
    auth::{Create, Powers},
    ids::{OwnedRoomId, OwnedUserId},
    version::Rules,
};
use stoa_store::{
    Direction, EventNo, Position, RoomNo, UserNo,
    rows::{events::StoredEvent, rooms::Head},
    schema,
};

use crate::{Error, push, sync::Span};

/// How far back counting goes at most, in events.
const MOST: usize = 10_000;

/// Counts of a room or a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) notifications: u64,
    pub(crate) highlights: u64,
}

/// Counts of a room, threads apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) main: Count,
    /// By the thread's root.
    pub(crate) threads: BTreeMap<String, Count>,
}

impl Unread {
    /// Counts threads with the room.
    pub(crate) fn merge_threads(&mut self) {
        for count in std::mem::take(&mut self.threads).into_values() {
            self.main.notifications += count.notifications;
            self.main.highlights += count.highlights;
        }
    }

    fn of(&mut self, thread: Option<&str>) -> &mut Count {
        match thread {
            Some(root) => self.threads.entry(root.to_owned()).or_default(),
            None => &mut self.main,
        }
    }
}

/// Up to where somebody has read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Read {
    /// In the whole room: the last receipt that is not threaded, or where the user joined.
    all: Position,
    /// Outside of threads.
    main: Position,
    /// By the thread's root.
    threads: BTreeMap<String, Position>,
    /// Where the push rules were changed last: others count otherwise.
    rules: Option<Position>,
}

impl Read {
    fn covers(&self, thread: Option<&str>, at: Position) -> bool {
        let apart = match thread {
            Some(root) => self.threads.get(root).copied().unwrap_or_default(),
            None => self.main,
        };
        at <= self.all.max(apart)
    }
}

struct Known {
    read: Read,
    upto: Position,
    unread: Unread,
}

/// What was worked out before.
pub(crate) struct Counts {
    known: Cache<(UserNo, RoomNo), Arc<Known>>,
}

impl Default for Counts {
    fn default() -> Self {
        Counts { known: Cache::new(20_000) }
    }
}

/// The counts of a room for who asks, up to the end of the answer.
pub(crate) async fn unread(span: &Span<'_>, room: RoomNo, head: &Head, joined_at: Position) -> Result<Unread, Error> {
    let user = span.viewer.user_no;
    let to = span.to.position;
    let (rules, changed) = span.rules().await?;
    let read = read(span, room, joined_at, changed).await?;
    let known = span.inner.counts.known.get(&(user, room)).filter(|known| known.read == read && known.upto <= to);
    let (from, mut unread) = match &known {
        Some(known) => (known.upto, known.unread.clone()),
        None => (read.all, Unread::default()),
    };
    if from >= to {
        return Ok(unread);
    }
    let low = Bound::Excluded((room, from));
    let rows =
        span.snapshot.range(&schema::TIMELINE, low, Bound::Included((room, to)), Direction::Backward, MOST).await?;
    if !rows.is_empty() {
        let mut judge = Judge::new(span, room, head, rules).await?;
        let mut rows = rows;
        rows.reverse();
        let mut redacted = false;
        for page in rows.chunks(256) {
            redacted |= count(span, room, page, &read, &mut judge, &mut unread).await?;
        }
        if redacted && known.is_some() {
            // Something that was counted may be gone.
            span.inner.counts.known.remove(&(user, room));
            return Box::pin(self::unread(span, room, head, joined_at)).await;
        }
    }
    unread.threads.retain(|_, count| *count != Count::default());
    let known = Known { read, upto: to, unread: unread.clone() };
    span.inner.counts.known.insert((user, room), Arc::new(known));
    Ok(unread)
}

/// Counts a page of events; says whether there was a redaction among them.
async fn count(
    span: &Span<'_>,
    room: RoomNo,
    page: &[((RoomNo, Position), EventNo)],
    read: &Read,
    judge: &mut Judge,
    unread: &mut Unread,
) -> Result<bool, Error> {
    let nos: Vec<EventNo> = page.iter().map(|(_, no)| *no).collect();
    let events = span.inner.store.events().get_many(span.snapshot, room, &nos).await?;
    let mut redacted = false;
    for (((_, at), _), event) in page.iter().zip(events) {
        let Some(event) = event else { continue };
        let header = &event.header;
        redacted |= header.kind == "m.room.redaction";
        let thread = header.relates_to.as_ref().filter(|it| it.rel_type == "m.thread").map(|it| it.event_id.as_str());
        if read.covers(thread, *at) || header.redacted_by.is_some() {
            continue;
        }
        if header.sender == span.viewer.user.as_str() {
            // Who writes has read.
            *unread.of(thread) = Count::default();
            continue;
        }
        let (notifies, highlights) = judge.judge(&event).await;
        let count = unread.of(thread);
        count.notifications += u64::from(notifies);
        count.highlights += u64::from(notifies && highlights);
    }
    Ok(redacted)
}

/// Up to where the user has read, by all receipts in the room.
async fn read(span: &Span<'_>, room: RoomNo, joined_at: Position, rules: Option<Position>) -> Result<Read, Error> {
    let prefix = (room, span.viewer.user_no);
    let rows = span.snapshot.scan(&schema::RECEIPTS, &prefix, Direction::Forward, 1000).await?;
    let mut read = Read { all: joined_at, rules, ..Read::default() };
    let nos: Vec<EventNo> = rows.iter().map(|(_, receipt)| receipt.event).collect();
    let events = span.inner.store.events().get_many(span.snapshot, room, &nos).await?;
    for (((_, _, _, thread), receipt), event) in rows.into_iter().zip(events) {
        // A receipt that came after the end of this answer belongs to the next one.
        let Some(at) = event.and_then(|event| event.header.at) else { continue };
        if receipt.at > span.to.position {
            continue;
        }
        let place = match thread.as_str() {
            "" => &mut read.all,
            "main" => &mut read.main,
            _ => read.threads.entry(thread).or_default(),
        };
        *place = (*place).max(at);
    }
    Ok(read)
}

/// Asks the push rules of a user about the events of a room.
struct Judge {
    rules: Arc<Ruleset>,
    context: Option<PushConditionRoomCtx>,
}

impl Judge {
    async fn new(span: &Span<'_>, room: RoomNo, head: &Head, rules: Arc<Ruleset>) -> Result<Judge, Error> {
        let store = &span.inner.store;
        let id = store.names().room_id(span.snapshot, room).await?;
        let names = [("m.room.member", span.viewer.user.as_str()), ("m.room.power_levels", "")];
        let keys = names.map(|(kind, key)| (room, kind.to_owned(), key.to_owned()));
        let keys = span.snapshot.get_many(&schema::STATE_KEYS, keys).await?;
        let state = store.state(span.snapshot, room);
        let mut found: HashMap<usize, Arc<StoredEvent>> = HashMap::new();
        for (i, key) in keys.into_iter().enumerate() {
            let Some(key) = key else { continue };
            let Some(no) = state.get(head.root, key).await? else { continue };
            found.extend(store.events().get(span.snapshot, room, no).await?.map(|event| (i, event)));
        }
        let name = found.get(&0).and_then(|event| {
            let content: Value = serde_json::from_slice(event.content()).ok()?;
            Some(content["displayname"].as_str()?.to_owned())
        });
        let create = store.events().get(span.snapshot, room, head.create).await?;
        let powers = create.and_then(|create| powers(head, &create, found.get(&1)));
        let context = OwnedRoomId::try_from(&*id).ok().map(|id| {
            let context =
                PushConditionRoomCtx::new(id, head.joined.into(), span.viewer.user.clone(), name.unwrap_or_default());
            match powers {
                Some(powers) => context.with_power_levels(powers),
                None => context,
            }
        });
        Ok(Judge { rules, context })
    }

    /// Whether an event notifies, and whether it highlights.
    async fn judge(&mut self, event: &StoredEvent) -> (bool, bool) {
        let json = std::str::from_utf8(&event.json).ok().and_then(|json| RawValue::from_string(json.to_owned()).ok());
        let (Some(context), Some(json)) = (&self.context, json) else { return (false, false) };
        let event = FlattenedJson::from_raw(&Raw::<Value>::from_json(json));
        let actions = push::actions(&self.rules, &event, context).await;
        (actions.iter().any(Action::should_notify), actions.iter().any(Action::is_highlight))
    }
}

/// Who may notify everyone, as ruma asks it.
fn powers(head: &Head, create: &StoredEvent, levels: Option<&Arc<StoredEvent>>) -> Option<PushConditionPowerLevelsCtx> {
    let version = RoomVersionId::try_from(head.version.as_str()).ok()?;
    let rules = Rules::of(&version)?;
    let create = Create::read(&rules, &create.pdu(&rules).ok()?);
    let levels = levels.and_then(|event| event.pdu(&rules).ok());
    let levels = levels.and_then(|pdu| stoa_event::auth::PowerLevels::read(&rules, pdu.content()).ok());
    let creators = create.creators().to_vec();
    let powers = Powers::new(create, levels.map(Arc::new));
    let int = |level: i64| level.clamp(-stoa_event::json::MAX_INT, stoa_event::json::MAX_INT).try_into().ok();
    let users = powers
        .levels()
        .map(|levels| levels.users.iter().collect::<Vec<_>>())
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(user, level)| Some((OwnedUserId::try_from(user).ok()?, int(level)?)))
        .collect();
    let mut notifications = NotificationPowerLevels::new();
    notifications.room = int(powers.needed_to_notify("room"))?;
    Some(PushConditionPowerLevelsCtx::new(
        users,
        int(powers.get(stoa_event::auth::Field::UsersDefault))?,
        notifications,
        RoomPowerLevelsRules::new(&version.rules()?.authorization, creators),
    ))
}
