//! Unread counts (Client-Server API, "Receiving notifications", "Threaded read receipts"): worked out when somebody reads,
//! and continued from where they were worked out last. Nobody works them out while sending.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Bound,
    sync::Arc,
};

use quick_cache::sync::Cache;
use ruma_common::{
    RoomVersionId,
    power_levels::NotificationPowerLevels,
    push::{Action, PushConditionPowerLevelsCtx},
    room_version_rules::RoomPowerLevelsRules,
};
use serde_json::Value;
use stoa_event::{
    auth::{Create, Powers},
    ids::OwnedUserId,
    version::Rules,
};
use stoa_store::{
    Direction, EventNo, Position, RoomNo, UserNo,
    rows::{account_data, events::StoredEvent, push_rules, rooms::Head},
    schema,
};

use crate::{
    Error,
    bundle::IGNORED,
    push::{self, Context, Lacks},
    sync::Span,
    threads,
};

/// How far back counting goes at most, in events, for who has read something in the room.
const MOST: usize = 10_000;
/// The same for who never read anything there: bots, and accounts that nobody looks after.
const MOST_UNREAD: usize = 1000;
/// How many events are looked at together, at first and at most.
const FIRST_PAGE: usize = 16;
const PAGE: usize = 256;
/// How many relations a room may have for its threads to be found by them.
const RELATED: usize = 2000;

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

    /// What was counted after `before`, and `before` where it still counts.
    fn over(mut self, before: Unread, ended: &BTreeSet<Option<String>>) -> Unread {
        let Unread { main, threads } = before;
        let all = [(None, main)].into_iter().chain(threads.into_iter().map(|(root, count)| (Some(root), count)));
        for (thread, count) in all.filter(|(thread, count)| *count != Count::default() && !ended.contains(thread)) {
            let sum = self.of(thread.as_deref());
            sum.notifications += count.notifications;
            sum.highlights += count.highlights;
        }
        self
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
pub(crate) struct Read {
    /// In the whole room: the last receipt that is not threaded, or where the user joined.
    all: Position,
    /// Outside of threads.
    main: Position,
    /// By the thread's root.
    threads: BTreeMap<String, Position>,
    /// Where the push rules, the threads that are followed or the users who are ignored were changed last: others count
    /// otherwise.
    rules: Option<Position>,
}

impl Read {
    pub(crate) fn covers(&self, thread: Option<&str>, at: Position) -> bool {
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

/// The push rules of a user, made ready, and where they, the threads that the user follows, or the users whom the user ignores
/// were changed last.
pub(crate) type ReadyRules = (Arc<push::Rules>, Option<Position>);

/// What was worked out before.
pub(crate) struct Counts {
    known: Cache<(UserNo, RoomNo), Arc<Known>>,
    rules: Cache<UserNo, ReadyRules>,
}

impl Default for Counts {
    fn default() -> Self {
        Counts { known: Cache::new(20_000), rules: Cache::new(1000) }
    }
}

/// The viewer's push rules, made ready.
pub(crate) async fn rules(span: &Span<'_>) -> Result<ReadyRules, Error> {
    let (user, id) = (span.viewer.user_no, &span.viewer.user);
    let row = account_data::get(span.snapshot, user, None, push_rules::TYPE).await?;
    let at = row.map(|row| row.at);
    let ignored = account_data::get(span.snapshot, user, None, IGNORED).await?;
    let beside = threads::last_change(span.snapshot, user).await?.max(ignored.map(|row| row.at));
    if let Some((rules, _)) = span.inner.counts.rules.get(&user).filter(|(_, known)| *known == at) {
        return Ok((rules, at.max(beside)));
    }
    let (rules, at) = push_rules::get(span.snapshot, user, id).await?;
    let rules = Arc::new(push::Rules::of(&rules));
    span.inner.counts.rules.insert(user, (rules.clone(), at));
    Ok((rules, at.max(beside)))
}

/// The counts of a room for who asks, up to the end of the answer.
pub(crate) async fn unread(span: &Span<'_>, room: RoomNo, head: &Head, joined_at: Position) -> Result<Unread, Error> {
    let user = span.viewer.user_no;
    let to = span.to.position;
    let (rules, changed) = span.rules().await?;
    let (read, ever) = read(span, room, joined_at, changed).await?;
    let known = span.inner.counts.known.get(&(user, room)).filter(|known| known.read == read && known.upto <= to);
    let (from, before) = match &known {
        Some(known) => (known.upto, known.unread.clone()),
        None => (read.all, Unread::default()),
    };
    if from >= to {
        return Ok(before);
    }
    let mut walk = Walk {
        judge: Judge::new(span, room, head, rules),
        read: &read,
        fresh: Unread::default(),
        ended: BTreeSet::new(),
        threads: HashMap::new(),
        redacted: false,
    };
    let most = if ever || known.is_some() { MOST } else { MOST_UNREAD };
    walk.back(span, room, (from, to), most).await?;
    let Walk { fresh, ended, redacted, .. } = walk;
    if redacted && known.is_some() {
        // Something that was counted may be gone.
        span.inner.counts.known.remove(&(user, room));
        return Box::pin(self::unread(span, room, head, joined_at)).await;
    }
    let unread = fresh.over(before, &ended);
    let known = Known { read, upto: to, unread: unread.clone() };
    span.inner.counts.known.insert((user, room), Arc::new(known));
    Ok(unread)
}

/// A walk from the newest event back: what the user wrote, or has read, ends the walk for its thread, so that nothing
/// before it has to be judged.
struct Walk<'a> {
    judge: Judge<'a>,
    read: &'a Read,
    fresh: Unread,
    /// Threads of which nothing more can count; `None` is the room.
    ended: BTreeSet<Option<String>>,
    /// In which thread an event is that others relate to.
    threads: HashMap<String, Option<String>>,
    redacted: bool,
}

impl Walk<'_> {
    async fn back(
        &mut self,
        span: &Span<'_>,
        room: RoomNo,
        (from, to): (Position, Position),
        most: usize,
    ) -> Result<(), Error> {
        let (mut end, mut left, mut page) = (to, most, FIRST_PAGE);
        let mut room_ended = false;
        while end > from && left > 0 {
            let wanted = page.min(left);
            let (low, high) = (Bound::Excluded((room, from)), Bound::Included((room, end)));
            let rows = span.snapshot.range(&schema::TIMELINE, low, high, Direction::Backward, wanted).await?;
            let Some(((_, last), _)) = rows.last() else { break };
            end = Position(last.0.saturating_sub(1));
            left -= rows.len();
            self.meet_all(span, room, &rows.iter().map(|((_, at), no)| (*at, *no)).collect::<Vec<_>>()).await?;
            if rows.len() < wanted {
                break;
            }
            if !room_ended && self.ended.contains(&None) {
                room_ended = true;
                if let Some(related) = related(span, room, (from, end)).await? {
                    return self.meet_all(span, room, &related).await;
                }
            }
            page = (page * 2).min(PAGE);
        }
        Ok(())
    }

    async fn meet_all(&mut self, span: &Span<'_>, room: RoomNo, all: &[(Position, EventNo)]) -> Result<(), Error> {
        for page in all.chunks(PAGE) {
            let nos: Vec<EventNo> = page.iter().map(|(_, no)| *no).collect();
            let events = span.inner.store.events().get_many(span.snapshot, room, &nos).await?;
            for ((at, _), event) in page.iter().zip(events) {
                if let Some(event) = event {
                    self.meet(span, room, *at, &event).await?;
                }
            }
        }
        Ok(())
    }

    async fn meet(&mut self, span: &Span<'_>, room: RoomNo, at: Position, event: &StoredEvent) -> Result<(), Error> {
        let header = &event.header;
        self.redacted |= header.kind == "m.room.redaction";
        if header.redacted_by.is_some() {
            return Ok(());
        }
        let thread = self.thread_of(span, room, event).await?;
        if self.ended.contains(&thread) {
            return Ok(());
        }
        // Who writes has read.
        if self.read.covers(thread.as_deref(), at) || header.sender == span.viewer.user.as_str() {
            self.ended.insert(thread);
            return Ok(());
        }
        if is_ignored(span, event) {
            return Ok(());
        }
        let (notifies, highlights) = self.judge.judge(event, thread.as_deref(), verdict).await?;
        if notifies {
            let count = self.fresh.of(thread.as_deref());
            count.notifications += 1;
            count.highlights += u64::from(highlights);
        }
        Ok(())
    }

    /// The root of the thread that an event is in. Most events are in none, which their header says.
    async fn thread_of(&mut self, span: &Span<'_>, room: RoomNo, event: &StoredEvent) -> Result<Option<String>, Error> {
        let Some(relation) = &event.header.relates_to else { return Ok(None) };
        if let Some(known) = self.threads.get(&relation.event_id).filter(|_| relation.rel_type != "m.thread") {
            return Ok(known.clone());
        }
        let thread = span.inner.store.events().thread_of(span.snapshot, room, event).await?;
        if relation.rel_type != "m.thread" {
            self.threads.insert(relation.event_id.clone(), thread.clone());
        }
        Ok(thread)
    }
}

/// The events of a part of the timeline that relate to others, newest first: only they can be in threads. `None` where the
/// room has too many relations to look at.
async fn related(
    span: &Span<'_>,
    room: RoomNo,
    (from, to): (Position, Position),
) -> Result<Option<Vec<(Position, EventNo)>>, Error> {
    let rows = span.snapshot.scan(&schema::RELATIONS, &room, Direction::Forward, RELATED + 1).await?;
    if rows.len() > RELATED {
        return Ok(None);
    }
    let all = rows.into_iter().map(|((_, _, _, at), relation)| (at, relation.event));
    let mut related: Vec<_> = all.filter(|(at, _)| *at > from && *at <= to).collect();
    related.sort_unstable_by(|a, b| b.cmp(a));
    Ok(Some(related))
}

/// Up to where the user has read, by all receipts in the room; and whether there is any.
pub(crate) async fn read(
    span: &Span<'_>,
    room: RoomNo,
    joined_at: Position,
    rules: Option<Position>,
) -> Result<(Read, bool), Error> {
    let prefix = (room, span.viewer.user_no);
    let rows = span.snapshot.scan(&schema::RECEIPTS, &prefix, Direction::Forward, 1000).await?;
    let mut read = Read { all: joined_at, rules, ..Read::default() };
    let ever = !rows.is_empty();
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
    Ok((read, ever))
}

/// Whether an event is a message of somebody of whom the viewer wants to hear nothing. State is not ignored (Client-Server
/// API, "Ignoring Users").
pub(crate) fn is_ignored(span: &Span<'_>, event: &StoredEvent) -> bool {
    event.header.state_key.is_none() && span.ignored.contains(&event.header.sender)
}

/// Whether actions notify, and whether they highlight.
pub(crate) fn verdict(actions: &[Action]) -> (bool, bool) {
    let notifies = actions.iter().any(Action::should_notify);
    (notifies, notifies && actions.iter().any(Action::is_highlight))
}

/// Asks the push rules of a user about the events of a room.
pub(crate) struct Judge<'a> {
    span: &'a Span<'a>,
    room: RoomNo,
    head: &'a Head,
    rules: Arc<push::Rules>,
    room_id: Option<Arc<str>>,
    /// What rules asked for that costs something to know.
    name: Option<String>,
    powers: Option<Option<PushConditionPowerLevelsCtx>>,
    /// The threads that the user follows.
    followed: Option<Option<HashSet<String>>>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(span: &'a Span<'a>, room: RoomNo, head: &'a Head, rules: Arc<push::Rules>) -> Judge<'a> {
        Judge { span, room, head, rules, room_id: None, name: None, powers: None, followed: None }
    }

    /// What `look` makes of the actions that the rules want.
    pub(crate) async fn judge<T>(
        &mut self,
        event: &StoredEvent,
        thread: Option<&str>,
        look: impl Fn(&[Action]) -> T,
    ) -> Result<T, Error> {
        let span = self.span;
        if self.room_id.is_none() {
            self.room_id = Some(span.inner.store.names().room_id(span.snapshot, self.room).await?);
        }
        loop {
            let follows = match (thread, &self.followed) {
                (None, _) => Some(None),
                (Some(root), Some(followed)) => Some(followed.as_ref().map(|all| all.contains(root))),
                (Some(_), None) => None,
            };
            let context = Context {
                user: span.viewer.user.as_str(),
                room: self.room_id.as_deref().unwrap_or_default(),
                // How many they are cannot be said yet; it is taken for no talk between two.
                joined: if self.head.partial { u32::MAX } else { self.head.joined },
                name: self.name.as_deref(),
                powers: self.powers.as_ref().map(Option::as_ref),
                follows,
            };
            let lacks = match self.rules.ask(event, &context) {
                Ok(actions) => return Ok(look(actions)),
                Err(lacks) => lacks,
            };
            match lacks {
                Lacks::Name => self.name = Some(self.own_name().await?),
                Lacks::Powers => self.powers = Some(self.room_powers().await?),
                Lacks::Threads => {
                    let user = span.viewer.user_no;
                    self.followed = Some(span.inner.followed(span.snapshot, user, self.room).await?);
                }
            }
        }
    }

    async fn current(&self, kind: &str, key: &str) -> Result<Option<Arc<StoredEvent>>, Error> {
        let (store, snapshot) = (&self.span.inner.store, self.span.snapshot);
        let row = (self.room, kind.to_owned(), key.to_owned());
        let Some(key) = snapshot.get(&schema::STATE_KEYS, &row).await? else { return Ok(None) };
        let state = store.state(snapshot, self.room);
        let Some(no) = state.get(self.head.root, key).await? else { return Ok(None) };
        Ok(store.events().get(snapshot, self.room, no).await?)
    }

    async fn own_name(&self) -> Result<String, Error> {
        let member = self.current("m.room.member", self.span.viewer.user.as_str()).await?;
        let name = member.and_then(|event| {
            let content: Value = serde_json::from_slice(event.content()).ok()?;
            Some(content["displayname"].as_str()?.to_owned())
        });
        Ok(name.unwrap_or_default())
    }

    async fn room_powers(&self) -> Result<Option<PushConditionPowerLevelsCtx>, Error> {
        let levels = self.current("m.room.power_levels", "").await?;
        let create = self.span.inner.store.events().get(self.span.snapshot, self.room, self.head.create).await?;
        Ok(create.and_then(|create| powers(self.head, &create, levels.as_ref())))
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
