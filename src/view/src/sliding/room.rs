//! One room in an answer of sliding sync (MSC4186, "Room results"): what the client does not have of it.

use std::collections::{BTreeSet, HashSet};

use stoa_store::{
    Membership, Position, StateKeyNo, schema,
    state::{Change, Class, Root},
};

use super::{
    Look,
    connection::Sent,
    lists::{Candidate, text},
    wanted::RoomConfig,
};
use crate::{
    Error, Filter, counts,
    eyes::root_at,
    json::Object,
    sync::{RoomWork, Timeline},
    token::SyncToken,
};

const MEMBER: &str = "m.room.member";

/// A room's part of the answer, and what the client has with it.
pub(super) struct Shown {
    pub(super) json: Vec<u8>,
    pub(super) sent: Sent,
}

/// What there is to tell of a room.
pub(super) enum News {
    Some(Shown),
    None,
    /// It is not told yet: its members are wanted and not known.
    Later,
}

/// How a room's state changed between what the client has and the end of the answer.
struct StateNews {
    before: Root,
    after: Root,
    /// State events that the client wants, and (only before) what is gone.
    wanted: Vec<Change>,
    named: bool,
    pictured: bool,
    members: bool,
}

impl Look<'_> {
    /// What is new in a room for the client.
    pub(super) async fn room(&self, candidate: &Candidate, timelines: &mut HashSet<String>) -> Result<News, Error> {
        let sent = self.asked.had.rooms.get(&candidate.room);
        match candidate.own.membership {
            Membership::Invite | Membership::Knock => self.stripped(candidate, sent).await,
            _ => self.whole(candidate, sent, timelines).await,
        }
    }

    /// A room that the user is invited to, or knocks on.
    async fn stripped(&self, candidate: &Candidate, sent: Option<&Sent>) -> Result<News, Error> {
        let (own, is_dm) = (&candidate.own, self.direct.contains(&*candidate.id));
        let known = self.base(candidate).is_some_and(|base| own.at <= base.position);
        if sent.is_some_and(|sent| known && !sent.whole && sent.is_dm == is_dm) {
            return Ok(News::None);
        }
        let mut out = Vec::with_capacity(512);
        let mut room = Object::new(&mut out);
        room.plain("initial", true).str("membership", own.membership.as_str());
        let name = if self.asked.request.stable { "stripped_state" } else { "invite_state" };
        room.raw(name, own.stripped.as_deref().unwrap_or(b"[]")).plain("bump_stamp", own.at);
        if is_dm {
            room.plain("is_dm", true);
        }
        self.write_lists(&mut room, candidate);
        room.end();
        let sent = Sent {
            at: self.span.to,
            config: candidate.config.clone(),
            whole: false,
            is_dm,
            counts: (0, 0),
            bump: own.at,
        };
        Ok(News::Some(Shown { json: out, sent }))
    }

    /// A room that the user is or was in.
    async fn whole(
        &self,
        candidate: &Candidate,
        sent: Option<&Sent>,
        timelines: &mut HashSet<String>,
    ) -> Result<News, Error> {
        let own = &candidate.own;
        let joined = own.membership == Membership::Join;
        let base = self.base(candidate).filter(|base| {
            // Who comes back, or comes in from an invite, begins anew.
            let rejoined = joined && own.joined_at.is_some_and(|at| at > base.position);
            sent.is_some_and(|sent| sent.whole) && !rejoined
        });
        let before = sent.filter(|_| base.is_some());
        let is_dm = self.direct.contains(&*candidate.id);
        if let (Some(base), Some(sent)) = (base, before)
            && !self.may_have_news(candidate, base, sent, is_dm)
        {
            return Ok(News::None);
        }
        let config = &*candidate.config;
        let mut filter = Filter::default();
        filter.room.timeline.limit = Some(config.timeline_limit as u64);
        let span = self.span.of_room(base, &filter);
        let work = RoomWork::open(&span, candidate.room, &candidate.id, own.clone()).await?;
        let Some(mut work) = work else { return self.never_seen(candidate, sent, is_dm).map(News::Some) };

        if work.is_partial() && config.wants_all_members() {
            return Ok(News::Later);
        }
        let expanded = before.is_some_and(|sent| config.timeline_limit > sent.config.timeline_limit);
        let start = base.filter(|_| !expanded).map_or(Position::MIN, |base| base.position);
        let timeline = work.timeline(start).await?;
        let old = before.map(|sent| &*sent.config);
        let after = work.last_root().await?;
        let state = self.state_news(&work, (base, after), config, old, &timeline).await?;
        let counts = match joined {
            true => {
                let unread = counts::unread(&span, candidate.room, work.head(), own.joined_at.unwrap_or_default());
                let mut unread = unread.await?;
                unread.merge_threads();
                (unread.main.notifications, unread.main.highlights)
            }
            false => (0, 0),
        };
        let bump = if joined { self.bump(candidate.room).await? } else { own.at };
        let left = !joined && base.is_some_and(|base| own.at > base.position);
        let news = before.is_none_or(|sent| sent.counts != counts || sent.is_dm != is_dm)
            || expanded
            || left
            || !timeline.events.is_empty()
            || !state.wanted.is_empty()
            || (state.members && joined)
            || state.named
            || state.pictured;
        if !news {
            return Ok(News::None);
        }
        timelines.extend(timeline.events.iter().map(|it| it.event.header.event_id.clone()));

        let mut out = Vec::with_capacity(2048);
        let mut room = Object::new(&mut out);
        if base.is_none() {
            room.plain("initial", true);
        }
        if expanded {
            room.plain("expanded_timeline", true).plain("unstable_expanded_timeline", true);
        }
        room.str("membership", own.membership.as_str());
        self.write_face(&mut room, &work, base.is_none(), joined, &state).await?;
        if before.map_or(is_dm, |sent| sent.is_dm != is_dm) {
            room.plain("is_dm", is_dm);
        }
        self.write_state(&mut room, &work, &state).await?;
        self.write_timeline(&mut room, &work, &timeline).await?;
        if joined {
            room.plain("notification_count", counts.0).plain("highlight_count", counts.1);
        }
        if before.is_none_or(|sent| sent.bump != bump) {
            room.plain("bump_stamp", bump);
        }
        self.write_lists(&mut room, candidate);
        room.end();
        let sent = Sent { at: self.span.to, config: candidate.config.clone(), whole: true, is_dm, counts, bump };
        Ok(News::Some(Shown { json: out, sent }))
    }

    /// Whether it is worth looking: most rooms have not changed.
    fn may_have_news(&self, candidate: &Candidate, base: SyncToken, sent: &Sent, is_dm: bool) -> bool {
        let last = self.span.inner.store.who().room_last(candidate.room);
        let joined = candidate.own.membership == Membership::Join;
        (joined && last > base.position)
            || candidate.own.at > base.position
            || self.account.read.contains(&candidate.room)
            || sent.is_dm != is_dm
            || sent.config != candidate.config
    }

    /// An invite that was refused, or a knock that was, to a room that this server was never in: nothing is known but that.
    fn never_seen(&self, candidate: &Candidate, sent: Option<&Sent>, is_dm: bool) -> Result<Shown, Error> {
        let mut out = Vec::new();
        let mut room = Object::new(&mut out);
        room.plain("initial", true).str("membership", candidate.own.membership.as_str());
        room.plain("bump_stamp", candidate.own.at);
        self.write_lists(&mut room, candidate);
        room.end();
        let config = sent.map_or_else(|| candidate.config.clone(), |sent| sent.config.clone());
        let bump = candidate.own.at;
        Ok(Shown { json: out, sent: Sent { at: self.span.to, config, whole: true, is_dm, counts: (0, 0), bump } })
    }

    fn write_lists(&self, room: &mut Object<'_>, candidate: &Candidate) {
        if self.asked.request.stable && !candidate.lists.is_empty() {
            room.strings("lists", &candidate.lists);
        }
    }

    async fn state_news(
        &self,
        work: &RoomWork<'_>,
        (base, after): (Option<SyncToken>, Root),
        config: &RoomConfig,
        old: Option<&RoomConfig>,
        timeline: &Timeline,
    ) -> Result<StateNews, Error> {
        let before = match base {
            Some(base) => root_at(self.span.snapshot, work.room(), base.position).await?,
            None => Root::EMPTY,
        };
        let mut news = StateNews { before, after, wanted: Vec::new(), named: false, pictured: false, members: false };
        if base.is_some() {
            self.changed_state(work, config, timeline, &mut news).await?;
        }
        // What the client did not want before, or has nothing of.
        if base.is_none() || old.is_some_and(|old| old != config) {
            let unseen = self.matching(work, after, config).await?;
            let none = RoomConfig::default();
            for (change, kind, key) in unseen {
                let known = news.wanted.iter().any(|it| it.key == change.key);
                if !known && !old.unwrap_or(&none).matches(&kind, &key) {
                    news.wanted.push(change);
                }
            }
        }
        if config.lazy() {
            self.lazy_members(work, base, timeline, &mut news).await?;
        }
        Ok(news)
    }

    /// What changed since the client was told last.
    async fn changed_state(
        &self,
        work: &RoomWork<'_>,
        config: &RoomConfig,
        timeline: &Timeline,
        news: &mut StateNews,
    ) -> Result<(), Error> {
        if news.before == news.after {
            return Ok(());
        }
        let state = &work.eyes().state;
        for change in state.changes_of(Class::Others, news.before, news.after).await? {
            let Some((kind, key)) = self.name_of(work, change.key).await? else { continue };
            news.named |= kind == "m.room.name";
            news.pictured |= kind == "m.room.avatar";
            if config.matches(&kind, &key) {
                news.wanted.push(change);
            }
        }
        let members = state.changes_of(Class::Members, news.before, news.after).await?;
        news.members = !members.is_empty();
        // Who loads members lazily keeps a list of them as long as nothing is left out; those who only became known are not news.
        let told = match config.lazy() && !timeline.limited {
            true if work.was_partial() => work.not_just_known(members.clone()).await?,
            true => members.clone(),
            false => Vec::new(),
        };
        let told: BTreeSet<StateKeyNo> = told.into_iter().map(|change| change.key).collect();
        for change in members {
            let Some((kind, key)) = self.name_of(work, change.key).await? else { continue };
            if config.matches(&kind, &key) || told.contains(&change.key) {
                news.wanted.push(change);
            }
        }
        Ok(())
    }

    async fn name_of(&self, work: &RoomWork<'_>, key: StateKeyNo) -> Result<Option<(String, String)>, Error> {
        let row = self.span.snapshot.get(&schema::STATE_KEY_NAMES, &(work.room(), key)).await?;
        Ok(row.map(|name| (name.kind, name.key)))
    }

    /// All state events of a state that are wanted for themselves.
    async fn matching(
        &self,
        work: &RoomWork<'_>,
        root: Root,
        config: &RoomConfig,
    ) -> Result<Vec<(Change, String, String)>, Error> {
        let state = &work.eyes().state;
        let mut names: BTreeSet<(String, String)> =
            config.named_members().map(|user| (MEMBER.to_owned(), user.to_owned())).collect();
        let mut found = Vec::new();
        let mut classes = Vec::new();
        match config.exact() {
            Some(exact) => names.extend(exact.into_iter().map(|(kind, key)| (kind.to_owned(), key.to_owned()))),
            None => classes.push(Class::Others),
        }
        if config.wants_all_members() {
            classes.push(Class::Members);
        }
        for class in classes {
            for change in state.changes_of(class, Root::EMPTY, root).await? {
                let Some((kind, key)) = self.name_of(work, change.key).await? else { continue };
                names.remove(&(kind.clone(), key.clone()));
                if config.matches(&kind, &key) {
                    found.push((change, kind, key));
                }
            }
        }
        for (kind, key) in names.into_iter().filter(|(kind, key)| config.matches(kind, key)) {
            let row = (work.room(), kind.clone(), key.clone());
            let Some(no) = self.span.snapshot.get(&schema::STATE_KEYS, &row).await? else { continue };
            if let Some(event) = state.get(root, no).await? {
                found.push((Change { key: no, before: None, after: Some(event) }, kind, key));
            }
        }
        Ok(found)
    }

    /// Adds the members whom the timeline is about, where the client was not sent them before.
    async fn lazy_members(
        &self,
        work: &RoomWork<'_>,
        base: Option<SyncToken>,
        timeline: &Timeline,
        news: &mut StateNews,
    ) -> Result<(), Error> {
        let mut users = BTreeSet::new();
        for header in timeline.events.iter().map(|it| &it.event.header) {
            users.insert(header.sender.as_str());
            users.extend(header.state_key.as_deref().filter(|_| header.kind == MEMBER));
        }
        let rows = users.into_iter().map(|user| (work.room(), MEMBER.to_owned(), user.to_owned()));
        let keys = self.span.snapshot.get_many(&schema::STATE_KEYS, rows).await?;
        let mut found = Vec::new();
        for key in keys.into_iter().flatten().filter(|key| !news.wanted.iter().any(|it| it.key == *key)) {
            if let Some(event) = work.eyes().state.get(news.after, key).await? {
                found.push(Change { key, before: None, after: Some(event) });
            }
        }
        let viewer = self.span.viewer;
        // Apart from what `/sync` on the same device was sent.
        let name = format!("{}\0{}", viewer.device, self.asked.request.body.conn_id.as_deref().unwrap_or_default());
        let wanted = found.iter().filter_map(|change| change.after).collect();
        let who = (viewer.user_no, name.as_str(), work.room());
        let unsent = self.span.inner.lazy.unsent(who, base, self.span.to, wanted);
        news.wanted.extend(found.into_iter().filter(|change| change.after.is_some_and(|no| unsent.contains(&no))));
        Ok(())
    }

    /// Name, picture, who stands for it, and how many are in it.
    async fn write_face(
        &self,
        room: &mut Object<'_>,
        work: &RoomWork<'_>,
        initial: bool,
        joined: bool,
        state: &StateNews,
    ) -> Result<(), Error> {
        let fields = [("m.room.name", "name", "name", state.named), ("m.room.avatar", "url", "avatar", state.pictured)];
        let mut named = false;
        for (kind, field, shown, changed) in fields {
            let event = work.eyes().event_of(state.after, kind, "").await?;
            let value = event.and_then(|event| text(event.content(), field)).filter(|value| !value.is_empty());
            named |= kind == "m.room.name" && value.is_some();
            match value {
                Some(value) if initial || changed => room.str(shown, &value),
                None if changed => room.raw(shown, b"null"),
                _ => room,
            };
        }
        if joined && (initial || state.members) && !work.is_partial() {
            room.plain("joined_count", work.head().joined).plain("invited_count", work.head().invited);
        }
        if !named && joined && (initial || state.members || state.named) {
            let mut heroes = Vec::new();
            for user in work.heroes().await? {
                let event = work.eyes().event_of(state.after, MEMBER, &user).await?;
                let mut out = Vec::new();
                let mut hero = Object::new(&mut out);
                hero.str("user_id", &user);
                for field in ["displayname", "avatar_url"] {
                    if let Some(value) = event.as_ref().and_then(|event| text(event.content(), field)) {
                        hero.str(field, &value);
                    }
                }
                hero.end();
                heroes.push(out);
            }
            room.array("heroes", &heroes);
        }
        Ok(())
    }

    async fn write_state(&self, room: &mut Object<'_>, work: &RoomWork<'_>, state: &StateNews) -> Result<(), Error> {
        let nos: Vec<_> = state.wanted.iter().filter_map(|change| change.after).collect();
        let mut events = work.render_state(&nos).await?;
        for gone in state.wanted.iter().filter(|change| change.after.is_none()) {
            let Some((kind, key)) = self.name_of(work, gone.key).await? else { continue };
            let mut out = Vec::new();
            let mut stub = Object::new(&mut out);
            stub.str("type", &kind).str("state_key", &key);
            stub.end();
            // Clients of today know only whole events.
            if self.asked.request.stable {
                events.push(out);
            }
        }
        room.array("required_state", &events);
        Ok(())
    }

    async fn write_timeline(
        &self,
        room: &mut Object<'_>,
        work: &RoomWork<'_>,
        timeline: &Timeline,
    ) -> Result<(), Error> {
        let seen = self.asked.from.map_or(Position::MAX, |from| from.position);
        let live = timeline.events.iter().filter(|it| it.event.header.at.is_some_and(|at| at > seen)).count();
        room.array("timeline", &work.render_timeline(timeline).await?);
        room.str("prev_batch", &timeline.prev_batch).plain("limited", timeline.limited).plain("num_live", live);
        Ok(())
    }
}
