//! One room in `/sync`: its timeline, the state that the timeline needs, and what is beside them.

use std::{collections::BTreeSet, ops::Bound, sync::Arc};

use stoa_store::{
    Direction, EventNo, Membership, Position, RoomNo, UserNo,
    rows::events::StoredEvent,
    rows::rooms::{Head, OwnMembership},
    schema,
    state::{Change, Class, Root},
};

use super::{Span, account::AccountNews, devices::DeviceNews};
use crate::{
    Error, counts,
    eyes::{Eyes, membership_of, root_at},
    json::{Object, typed},
    show::{Audience, Visible, render, render_bundled},
    token::HistoryToken,
};

/// Work on one room for one answer.
pub(crate) struct RoomWork<'a> {
    span: &'a Span<'a>,
    room: RoomNo,
    id: &'a str,
    own: OwnMembership,
    head: Head,
    eyes: Eyes<'a>,
    /// Whether the client has nothing of the room yet: it begins, or the user has just joined.
    anew: bool,
    /// The last position that is shown: the end of the answer, or where the user left.
    until: Position,
}

/// The part of a room's timeline that an answer has.
pub(crate) struct Timeline {
    /// Oldest first.
    pub(crate) events: Vec<Visible>,
    /// Whether there is more before it that the client does not have.
    pub(crate) limited: bool,
    /// Where to go on backwards.
    pub(crate) prev_batch: String,
    /// The state at its beginning.
    start: Root,
}

impl<'a> RoomWork<'a> {
    /// `None` for a room that this server was never in.
    pub(crate) async fn open(
        span: &'a Span<'a>,
        room: RoomNo,
        id: &'a str,
        own: OwnMembership,
    ) -> Result<Option<RoomWork<'a>>, Error> {
        let Some(head) = span.snapshot.get(&schema::ROOMS, &room).await? else { return Ok(None) };
        let viewer = span.viewer;
        let store = &span.inner.store;
        let eyes = Eyes::with(store, span.snapshot, room, viewer.user.as_str(), Some(own.clone())).await?;
        let joined_since = own.membership == Membership::Join && own.joined_at.is_some_and(|at| at > span.seen());
        let until = match own.membership {
            Membership::Join => span.to.position,
            _ => own.at.min(span.to.position),
        };
        let became_whole = head.whole_since.is_some_and(|at| at > span.seen());
        // Who wants all members was shown nothing until they were known.
        let anew = span.from.is_none() || joined_since || (became_whole && span.wants_all_members());
        Ok(Some(RoomWork { span, room, id, anew, own, head, eyes, until }))
    }

    /// Whether the room's state lacks members at the end of the answer.
    pub(crate) fn is_partial(&self) -> bool {
        self.head.partial || self.head.whole_since.is_some_and(|at| at > self.span.to.position)
    }

    /// Whether it did when the client asked last, or does.
    pub(crate) fn was_partial(&self) -> bool {
        self.head.partial || self.head.whole_since.is_some_and(|at| at > self.span.seen())
    }

    /// A room that the user is in; `None` if there is nothing to tell.
    pub(super) async fn joined(
        mut self,
        account: &AccountNews,
        devices: &mut DeviceNews,
    ) -> Result<Option<Vec<u8>>, Error> {
        let span = self.span;
        if self.is_partial() && span.wants_all_members() {
            return Ok(None);
        }
        let timeline = self.timeline(self.start()).await?;
        let begins = self.anew || span.full_state;
        let heroes = match begins {
            true => self.heroes_if_unnamed().await?,
            false => None,
        };
        let changes = self.state_changes(&timeline, heroes.as_deref().unwrap_or_default()).await?;
        self.device_news(devices).await?;
        let (state, mut members_changed) = self.state_events(&timeline, &changes).await?;
        members_changed |= self.was_partial() && !self.is_partial();
        let ephemeral = self.ephemeral().await?;
        let data = self.account_data(account);
        let news = begins
            || !timeline.events.is_empty()
            || timeline.limited
            || members_changed
            || !state.is_empty()
            || !ephemeral.is_empty()
            || !data.is_empty()
            || account.read.contains(&self.room);
        if !news {
            return Ok(None);
        }
        let mut out = Vec::with_capacity(2048);
        let mut body = Object::new(&mut out);
        if begins || members_changed {
            let heroes = match begins {
                true => heroes,
                false => self.heroes_if_unnamed().await?,
            };
            self.summary(&mut body, heroes.as_deref());
        }
        self.write_timeline(&mut body, &timeline, &state).await?;
        body.events("ephemeral", &ephemeral);
        body.events("account_data", data);
        self.write_unread(&mut body).await?;
        body.end();
        Ok(Some(out))
    }

    /// A room that the user left or was banned from: up to there.
    pub(super) async fn left(mut self, account: &AccountNews, devices: &mut DeviceNews) -> Result<Vec<u8>, Error> {
        let seen = self.span.seen();
        self.anew |= self.own.joined_at.is_some_and(|at| at > seen);
        let timeline = self.timeline(self.start()).await?;
        let told_before = |left| left <= seen && !self.anew && !self.span.full_state;
        let mut changes = match self.own.left_at {
            Some(left) if !told_before(left) => self.state_changes(&timeline, &[]).await?,
            _ => Vec::new(),
        };
        if self.span.state_after.is_some() {
            // A ban after leaving, for instance.
            self.reveal(self.own.event.as_slice(), &mut changes).await?;
        }
        self.device_news_of_left(devices).await?;
        let (state, _) = self.state_events(&timeline, &changes).await?;
        let mut out = Vec::with_capacity(1024);
        let mut body = Object::new(&mut out);
        self.write_timeline(&mut body, &timeline, &state).await?;
        body.events("account_data", self.account_data(account));
        body.end();
        Ok(out)
    }

    fn account_data<'d>(&self, account: &'d AccountNews) -> &'d [Vec<u8>] {
        let data = account.rooms.get(&self.room).filter(|_| self.span.filter.room.account_data.wants_room(self.id));
        data.map(Vec::as_slice).unwrap_or_default()
    }

    /// What the client has of the room.
    fn start(&self) -> Position {
        if self.anew { Position::MIN } else { self.span.seen() }
    }

    /// The last events after a position, as many as the client wants, and whether there are more.
    pub(crate) async fn timeline(&mut self, start: Position) -> Result<Timeline, Error> {
        let span = self.span;
        let filter = &span.filter.room.timeline;
        let limit = filter.limit(span.inner.config.timeline_limit, span.inner.config.max_limit);
        let mut events: Vec<Visible> = Vec::new();
        let mut limited = false;
        let mut end = self.until;
        // A page of hidden events must not stop the search, nor may a room of nothing else make it endless.
        let mut left = limit * 10 + 100;
        while !limited && left > 0 && end > start && filter.wants_room(self.id) {
            let page = (limit + 1 - events.len()).max(8).min(left);
            let from = Bound::Excluded((self.room, start));
            let to = Bound::Included((self.room, end));
            let rows = span.snapshot.range(&schema::TIMELINE, from, to, Direction::Backward, page).await?;
            let Some((last, _)) = rows.last() else { break };
            end = Position(last.1.0.saturating_sub(1));
            left -= rows.len();
            // What was not looked at may be for the client.
            limited = left == 0 && end > start;
            let nos: Vec<EventNo> = rows.iter().map(|(_, no)| *no).collect();
            let loaded = span.inner.store.events().get_many(span.snapshot, self.room, &nos).await?;
            for event in loaded.into_iter().flatten() {
                let membership = self.eyes.look(&event).await?;
                let ignored = event.header.state_key.is_none() && span.ignored.contains(&event.header.sender);
                if membership.is_none() || ignored {
                    continue;
                }
                if !filter.wants(&event) {
                    continue;
                }
                if events.len() == limit {
                    limited = true;
                    break;
                }
                // Before it is history that we do not hold: whoever wants it pages back.
                let gap = event.header.gap;
                events.push(Visible { event, membership });
                if gap {
                    limited = true;
                    break;
                }
            }
        }
        events.reverse();
        let (prev_batch, start) = match events.first().map(|first| &first.event.header) {
            Some(header) => {
                let position = header.at.unwrap_or_default();
                let before = HistoryToken { depth: header.depth, position: Position(position.0.saturating_sub(1)) };
                (before.to_string(), header.before.unwrap_or_default())
            }
            None => (span.to.to_string(), root_at(span.snapshot, self.room, self.until).await?),
        };
        Ok(Timeline { events, limited, prev_batch, start })
    }

    /// How the state changed from what the client has to the beginning (or the end) of the timeline. Members only where
    /// all of them are wanted, or those who changed.
    async fn state_changes(&self, timeline: &Timeline, heroes: &[String]) -> Result<Vec<Change>, Error> {
        let span = self.span;
        // Who was banned or invited after leaving was not there for what happened in between.
        let end = self.own.left_at.filter(|_| self.own.membership != Membership::Join).unwrap_or(self.until);
        let began_after = timeline.events.first().is_none_or(|it| it.event.header.at > Some(end));
        let after = match span.state_after.is_some() || began_after {
            true => root_at(span.snapshot, self.room, end.min(self.until)).await?,
            false => timeline.start,
        };
        let whole = self.anew || span.full_state;
        let before = match whole {
            true => Root::EMPTY,
            false => root_at(span.snapshot, self.room, span.seen()).await?,
        };
        let lazy = span.filter.room.state.lazy_load_members;
        let mut changes = self.eyes.state.changes_of(Class::Others, before, after).await?;
        match lazy {
            true => changes.extend(self.lazy_members(timeline, heroes, before, after, whole).await?),
            false => changes.extend(self.eyes.state.changes_of(Class::Members, before, after).await?),
        }
        if span.state_after.is_none() && !began_after {
            self.correct(timeline, end.min(self.until), &mut changes).await?;
        }
        Ok(changes)
    }

    /// Adds what the state is after the timeline where the timeline does not say it: events that the filter keeps out of it,
    /// and what resolving the branches of the graph made of them.
    async fn correct(&self, timeline: &Timeline, end: Position, changes: &mut Vec<Change>) -> Result<(), Error> {
        let span = self.span;
        let now = root_at(span.snapshot, self.room, end).await?;
        let differing = self.eyes.state.changes(timeline.start, now).await?;
        let nos: Vec<EventNo> = differing.iter().filter_map(|change| change.after).collect();
        let events = span.inner.store.events().get_many(span.snapshot, self.room, &nos).await?;
        let differing = differing.into_iter().filter(|change| change.after.is_some());
        for (change, event) in differing.zip(events) {
            let Some(event) = event else { continue };
            let same_key = |it: &&Visible| {
                it.event.header.kind == event.header.kind && it.event.header.state_key == event.header.state_key
            };
            let told = timeline.events.iter().rev().find(same_key);
            if told.is_none_or(|told| told.event.header.event_id != event.header.event_id) {
                changes.retain(|known| known.key != change.key);
                changes.push(Change { before: None, ..change });
            }
        }
        Ok(())
    }

    /// Adds state events that the timeline should have told but does not, where they still hold.
    async fn reveal(&self, hidden: &[EventNo], changes: &mut Vec<Change>) -> Result<(), Error> {
        let span = self.span;
        let root = root_at(span.snapshot, self.room, self.until).await?;
        for no in hidden {
            let Some(event) = span.inner.store.events().get(span.snapshot, self.room, *no).await? else { continue };
            let Some(key) = &event.header.state_key else { continue };
            let key = (self.room, event.header.kind.clone(), key.clone());
            let Some(key) = span.snapshot.get(&schema::STATE_KEYS, &key).await? else { continue };
            if self.eyes.state.get(root, key).await? == Some(*no) {
                changes.retain(|change| change.key != key);
                changes.push(Change { key, before: None, after: Some(*no) });
            }
        }
        Ok(())
    }

    /// The members who matter: who sent the timeline, the heroes, and the user. The client has some of them already.
    async fn lazy_members(
        &self,
        timeline: &Timeline,
        heroes: &[String],
        before: Root,
        after: Root,
        whole: bool,
    ) -> Result<Vec<Change>, Error> {
        let span = self.span;
        let me = span.viewer.user.as_str();
        let mut users: BTreeSet<&str> = timeline.events.iter().map(|it| it.event.header.sender.as_str()).collect();
        users.extend(heroes.iter().map(String::as_str));
        if whole {
            users.insert(me);
        }
        let keys = users.iter().map(|user| (self.room, "m.room.member".to_owned(), (*user).to_owned()));
        let keys = span.snapshot.get_many(&schema::STATE_KEYS, keys).await?;
        let mut found = Vec::new();
        for key in keys.into_iter().flatten() {
            if let Some(event) = self.eyes.state.get(after, key).await? {
                found.push(Change { key, before: None, after: Some(event) });
            }
        }
        if !whole {
            // A changed member whom the client may know must not stay as it was.
            let mut changed = self.eyes.state.changes_of(Class::Members, before, after).await?;
            if self.was_partial() {
                changed = self.not_just_known(changed).await?;
            }
            for change in changed {
                if !found.iter().any(|known| known.key == change.key) {
                    found.push(change);
                }
            }
        }
        if span.filter.room.state.include_redundant_members {
            return Ok(found);
        }
        let wanted = found.iter().filter_map(|change| change.after).collect();
        let from = if whole { None } else { span.from };
        let who = (span.viewer.user_no, span.viewer.device.as_str(), self.room);
        let unsent: BTreeSet<EventNo> = span.inner.lazy.unsent(who, from, span.to, wanted).into_iter().collect();
        Ok(found.into_iter().filter(|change| change.after.is_some_and(|no| unsent.contains(&no))).collect())
    }

    /// Leaves out members of whom we only came to know now: whoever asked for all members waited for them.
    pub(crate) async fn not_just_known(&self, changes: Vec<Change>) -> Result<Vec<Change>, Error> {
        let nos: Vec<EventNo> = changes.iter().map(|change| change.after.unwrap_or_default()).collect();
        let events = self.span.inner.store.events().get_many(self.span.snapshot, self.room, &nos).await?;
        let happened = |event: &Option<Arc<StoredEvent>>| event.as_ref().is_some_and(|event| event.header.at.is_some());
        let kept = changes.into_iter().zip(events).filter(|(change, event)| change.before.is_some() || happened(event));
        Ok(kept.map(|(change, _)| change).collect())
    }

    /// The state as events, and whether something that the summary is made of changed anywhere in this answer.
    async fn state_events(&mut self, timeline: &Timeline, changes: &[Change]) -> Result<(Vec<Vec<u8>>, bool), Error> {
        let span = self.span;
        let nos: Vec<EventNo> = changes.iter().filter_map(|change| change.after).collect();
        let loaded = span.inner.store.events().get_many(span.snapshot, self.room, &nos).await?;
        let filter = &span.filter.room.state;
        let mut members_changed = timeline.events.iter().any(|it| changes_summary(&it.event.header.kind));
        let mut events = Vec::with_capacity(nos.len());
        for event in loaded {
            let Some(event) = event else { continue };
            members_changed |= changes_summary(&event.header.kind);
            if filter.wants(&event) && filter.wants_room(self.id) {
                events.push(Visible { event, membership: None });
            }
        }
        Ok((render(&self.eyes, self.audience(), &events).await?, members_changed))
    }

    /// The state that the user may see at the end of the answer: the current one while joined, the one at leaving afterwards.
    pub(crate) async fn last_root(&mut self) -> Result<Root, Error> {
        match (self.own.membership, self.own.left_at) {
            (Membership::Join, _) => root_at(self.span.snapshot, self.room, self.until).await,
            (_, Some(left)) => self.eyes.root_after_leaving(left, self.until).await,
            // Never there: what became of the user is all that is told.
            _ => self.eyes.root_after_leaving(Position::MIN, self.until).await,
        }
    }

    /// State events as the client sees them.
    pub(crate) async fn render_state(&self, events: &[EventNo]) -> Result<Vec<Vec<u8>>, Error> {
        let loaded = self.span.inner.store.events().get_many(self.span.snapshot, self.room, events).await?;
        let events: Vec<Visible> =
            loaded.into_iter().flatten().map(|event| Visible { event, membership: None }).collect();
        render(&self.eyes, self.audience(), &events).await
    }

    /// The events of a timeline as the client sees them.
    pub(crate) async fn render_timeline(&self, timeline: &Timeline) -> Result<Vec<Vec<u8>>, Error> {
        // Who has all that is before them sums up what relates to them itself.
        match timeline.limited || self.anew {
            true => {
                let user = self.span.viewer.user_no;
                render_bundled(&self.eyes, self.audience(), user, &timeline.events).await
            }
            false => render(&self.eyes, self.audience(), &timeline.events).await,
        }
    }

    fn audience(&self) -> Audience<'a> {
        let viewer = self.span.viewer;
        Audience { device: &viewer.device, user_id: viewer.user.as_str(), now_ms: self.span.now_ms, room_id: None }
    }

    async fn write_timeline(&self, body: &mut Object<'_>, timeline: &Timeline, state: &[Vec<u8>]) -> Result<(), Error> {
        let mut events = self.render_timeline(timeline).await?;
        let mut state = state.to_vec();
        if let Some(fields) = &self.span.filter.event_fields {
            for event in events.iter_mut().chain(&mut state) {
                *event = crate::filter::reduce(event, fields);
            }
        }
        let mut object = Object::new(body.key("timeline"));
        object.array("events", &events).plain("limited", timeline.limited).str("prev_batch", &timeline.prev_batch);
        object.end();
        body.events(self.span.state_after.unwrap_or("state"), &state);
        Ok(())
    }

    /// Who came into or went out of an encrypted room.
    pub(super) async fn device_news(&self, devices: &mut DeviceNews) -> Result<(), Error> {
        let span = self.span;
        if !self.head.encrypted || span.from.is_none() {
            return Ok(());
        }
        if self.anew {
            devices.came.extend(self.joined_members().await?);
            return Ok(());
        }
        let before = root_at(span.snapshot, self.room, span.seen()).await?;
        let after = root_at(span.snapshot, self.room, self.until).await?;
        if before == after {
            return Ok(());
        }
        if !self.is_encrypted(before).await? {
            // It became so since, or will after the end of this answer.
            if self.is_encrypted(after).await? {
                devices.came.extend(self.joined_members().await?);
            }
            return Ok(());
        }
        for change in self.eyes.state.changes_of(Class::Members, before, after).await? {
            let nos: Vec<EventNo> = [change.before, change.after].into_iter().flatten().collect();
            let events = span.inner.store.events().get_many(span.snapshot, self.room, &nos).await?;
            let Some(Some(event)) = events.last() else { continue };
            let Some(user) = &event.header.state_key else { continue };
            let Some(user) = span.inner.store.names().user(span.snapshot, user).await? else { continue };
            let joined = |no: Option<EventNo>| {
                let at = no.and_then(|no| nos.iter().position(|other| *other == no));
                at.and_then(|at| events[at].as_ref()).is_some_and(|event| membership_of(event) == Membership::Join)
            };
            match (joined(change.before), joined(change.after)) {
                (false, true) => devices.came.insert(user),
                (true, false) => devices.went.insert(user),
                _ => false,
            };
        }
        Ok(())
    }

    async fn is_encrypted(&self, root: Root) -> Result<bool, Error> {
        let key = (self.room, "m.room.encryption".to_owned(), String::new());
        let Some(key) = self.span.snapshot.get(&schema::STATE_KEYS, &key).await? else { return Ok(false) };
        Ok(self.eyes.state.get(root, key).await?.is_some())
    }

    /// Whoever was seen only in an encrypted room that the user left is not seen any more.
    pub(super) async fn device_news_of_left(&self, devices: &mut DeviceNews) -> Result<(), Error> {
        if self.head.encrypted && self.own.left_at.is_some_and(|left| left > self.span.seen()) {
            devices.went.extend(self.joined_members().await?);
        }
        Ok(())
    }

    async fn joined_members(&self) -> Result<Vec<UserNo>, Error> {
        let rows = self.span.snapshot.scan(&schema::MEMBERS, &self.room, Direction::Forward, usize::MAX).await?;
        let joined = rows.into_iter().filter(|(_, member)| member.membership == Membership::Join);
        Ok(joined.map(|((_, user), _)| user).collect())
    }

    /// Typing, receipts and user-defined ephemeral events after the client's token.
    async fn ephemeral(&self) -> Result<Vec<Vec<u8>>, Error> {
        let span = self.span;
        let filter = &span.filter.room.ephemeral;
        let mut events = Vec::new();
        if !filter.wants_room(self.id) {
            return Ok(events);
        }
        let bus = span.inner.store.bus();
        let place = if self.anew { 0 } else { span.from.map_or(0, |from| from.place) };
        if filter.wants_kind("m.typing", None) {
            let typing = bus.who_types(self.room, span.now_ms);
            if typing.place > place && (!self.anew || !typing.users.is_empty()) {
                let mut content = Vec::new();
                let mut object = Object::new(&mut content);
                object.strings("user_ids", &typing.users);
                object.end();
                events.push(typed("m.typing", &content));
            }
        }
        if filter.wants_kind("m.receipt", None) {
            events.extend(self.receipts(None).await?);
        }
        for event in bus.events_after(self.room, place, span.now_ms) {
            if event.place <= span.to.place && filter.wants_kind(&event.kind, Some(&event.sender)) {
                let mut out = Vec::new();
                let mut object = Object::new(&mut out);
                object.str("type", &event.kind).str("sender", &event.sender).raw("content", &event.content);
                object.plain("origin_server_ts", event.ts);
                object.end();
                events.push(out);
            }
        }
        Ok(events)
    }

    async fn write_unread(&self, body: &mut Object<'_>) -> Result<(), Error> {
        let span = self.span;
        let apart = span.filter.room.timeline.unread_thread_notifications;
        let mut unread = counts::unread(span, self.room, &self.head, self.own.joined_at.unwrap_or_default()).await?;
        if !apart {
            unread.merge_threads();
        }
        let mut object = Object::new(body.key("unread_notifications"));
        object.plain("notification_count", unread.main.notifications).plain("highlight_count", unread.main.highlights);
        object.end();
        if apart && !unread.threads.is_empty() {
            let mut threads = Object::new(body.key("unread_thread_notifications"));
            for (root, count) in &unread.threads {
                let mut object = Object::new(threads.key(root));
                object.plain("notification_count", count.notifications).plain("highlight_count", count.highlights);
                object.end();
            }
            threads.end();
        }
        Ok(())
    }

    pub(crate) fn span(&self) -> &Span<'a> {
        self.span
    }

    pub(crate) fn room(&self) -> RoomNo {
        self.room
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    pub(crate) fn eyes(&self) -> &Eyes<'a> {
        &self.eyes
    }

    pub(super) fn is_anew(&self) -> bool {
        self.anew
    }
}

/// Whether events of a type change the summary of a room.
fn changes_summary(kind: &str) -> bool {
    matches!(kind, "m.room.member" | "m.room.name" | "m.room.canonical_alias")
}
