//! What clients want beside rooms: messages to the device, keys, account data, receipts, who types.

use std::collections::HashSet;

use stoa_store::{Direction, Membership, Position, rows, schema};

use super::{Look, lists::Candidate, request::Scope};
use crate::{
    Error, Filter,
    json::{Object, typed},
    sync::RoomWork,
    token::SyncToken,
};

/// How many messages to the device one answer has at most.
const MOST_MESSAGES: u64 = 1000;
/// The same where the client does not say.
const MESSAGES: u64 = 100;

/// The extension for subscriptions to threads (MSC4308).
const THREADS: &str = "io.element.msc4308.thread_subscriptions";

/// The answer's `extensions`.
pub(super) struct Extensions {
    pub(super) json: Vec<u8>,
    pub(super) news: bool,
}

impl Look<'_> {
    pub(super) async fn extensions(
        &self,
        window: &[&Candidate],
        timelines: &HashSet<String>,
    ) -> Result<Extensions, Error> {
        let wanted = &self.asked.request.body.extensions;
        let mut json = Vec::with_capacity(256);
        let mut object = Object::new(&mut json);
        let mut news = false;
        if wanted.to_device.enabled {
            news |= self.to_device(&mut object).await?;
        }
        if wanted.e2ee.enabled {
            news |= self.e2ee(&mut object).await?;
        }
        if wanted.account_data.enabled {
            news |= self.account_data(&mut object, &self.scope(window, &wanted.account_data)).await?;
        }
        if wanted.receipts.enabled {
            news |= self.receipts(&mut object, &self.scope(window, &wanted.receipts), timelines).await?;
        }
        if wanted.typing.enabled {
            news |= self.typing(&mut object, &self.scope(window, &wanted.typing));
        }
        if wanted.threads.enabled {
            news |= self.threads(&mut object).await?;
        }
        object.end();
        Ok(Extensions { json, news })
    }

    /// The rooms that an extension is about: of those that are wanted now.
    fn scope<'c>(&self, window: &[&'c Candidate], scope: &Scope) -> Vec<&'c Candidate> {
        let meant = |it: &&&Candidate| {
            it.lists.iter().any(|list| scope.has_list(list)) || (it.subscribed && scope.has_room(&it.id))
        };
        window.iter().filter(meant).copied().collect()
    }

    async fn threads(&self, object: &mut Object<'_>) -> Result<bool, Error> {
        let (span, user) = (self.span, self.span.viewer.user_no);
        let after = self.asked.from.map_or(Position::MIN, |from| from.position);
        if span.inner.store.who().user_last(user) <= after && after > Position::MIN {
            return Ok(false);
        }
        let limit = self.asked.request.body.extensions.threads.limit;
        let changes = span.inner.thread_changes(span.snapshot, user, (after, span.to.position), limit).await?;
        let news = !changes.is_empty();
        if news {
            object.raw(THREADS, changes.json("prev_batch").to_string().as_bytes());
        }
        Ok(news)
    }

    async fn to_device(&self, object: &mut Object<'_>) -> Result<bool, Error> {
        let wanted = &self.asked.request.body.extensions.to_device;
        let since = wanted.since.as_deref().map(SyncToken::parse).transpose()?;
        let (viewer, to) = (self.span.viewer, self.span.to.position);
        let since = since.map_or(Position::MIN, |since| since.position);
        let limit = wanted.limit.unwrap_or(MESSAGES).clamp(1, MOST_MESSAGES) as usize;
        let found = rows::to_device::read(self.span.snapshot, viewer.user_no, &viewer.device, since, to, limit).await?;
        let until = found.last().filter(|_| found.len() == limit).map_or(to, |(at, _)| *at);
        let mut extension = Object::new(object.key("to_device"));
        extension.str("next_batch", &SyncToken { position: until, place: 0 }.to_string());
        extension.array("events", found.iter().map(|(_, json)| json));
        extension.end();
        Ok(!found.is_empty())
    }

    async fn e2ee(&self, object: &mut Object<'_>) -> Result<bool, Error> {
        let lists = self.span.device_lists(self.span.device_news().await?).await?;
        let mut extension = Object::new(object.key("e2ee"));
        if !lists.is_empty() {
            let mut object = Object::new(extension.key("device_lists"));
            object.strings("changed", &lists.changed).strings("left", &lists.left);
            object.end();
        }
        self.span.write_key_counts(&mut extension).await?;
        extension.end();
        Ok(!lists.is_empty())
    }

    async fn account_data(&self, object: &mut Object<'_>, scope: &[&Candidate]) -> Result<bool, Error> {
        let global = &self.account.global;
        let mut rooms: Vec<(&str, Vec<Vec<u8>>)> = Vec::new();
        for candidate in scope {
            let steady = self.asked.from.is_some() && self.asked.had.wanted.contains(candidate.room.0);
            let events = match steady {
                true => self.account.rooms.get(&candidate.room).cloned().unwrap_or_default(),
                false => self.account_data_of(candidate).await?,
            };
            if !events.is_empty() {
                rooms.push((&candidate.id, events));
            }
        }
        let news = !global.is_empty() || !rooms.is_empty();
        if news {
            let mut extension = Object::new(object.key("account_data"));
            extension.array("global", global);
            let mut by_id = Object::new(extension.key("rooms"));
            for (id, events) in &rooms {
                by_id.array(id, events);
            }
            by_id.end();
            extension.end();
        }
        Ok(news)
    }

    /// Account data of a room that comes into the window.
    async fn account_data_of(&self, candidate: &Candidate) -> Result<Vec<Vec<u8>>, Error> {
        let base = self.base(candidate).map_or(Position::MIN, |base| base.position);
        let prefix = (self.span.viewer.user_no, candidate.room);
        let rows = self.span.snapshot.scan(&schema::ROOM_ACCOUNT_DATA, &prefix, Direction::Forward, usize::MAX).await?;
        let fresh = rows.into_iter().filter(|(_, row)| row.at > base && row.at <= self.span.to.position);
        let shown = fresh.filter_map(|((_, _, kind), row)| match (row.json.is_empty(), base == Position::MIN) {
            (true, true) => None,
            (true, false) => Some(typed(&kind, b"{}")),
            (false, _) => Some(typed(&kind, &row.json)),
        });
        Ok(shown.collect())
    }

    async fn receipts(
        &self,
        object: &mut Object<'_>,
        scope: &[&Candidate],
        timelines: &HashSet<String>,
    ) -> Result<bool, Error> {
        let filter = Filter::default();
        let who = self.span.inner.store.who();
        let mut rooms: Vec<(&str, Vec<u8>)> = Vec::new();
        for candidate in scope.iter().filter(|it| it.own.membership == Membership::Join) {
            let base = self
                .base(candidate)
                .filter(|base| candidate.own.joined_at.is_none_or(|joined| joined <= base.position));
            let changed = |base: SyncToken| {
                who.room_last(candidate.room) > base.position || self.account.read.contains(&candidate.room)
            };
            if base.is_some_and(|base| !changed(base)) {
                continue;
            }
            let span = self.span.of_room(base, &filter);
            let work = RoomWork::open(&span, candidate.room, &candidate.id, candidate.own.clone()).await?;
            let Some(work) = work else { continue };
            // Who begins needs to know who read what is shown, not all who ever read something.
            let only = base.is_none().then_some(timelines);
            if let Some(event) = work.receipts(only).await? {
                rooms.push((&candidate.id, event));
            }
        }
        write_rooms(object, "receipts", &rooms);
        Ok(!rooms.is_empty())
    }

    fn typing(&self, object: &mut Object<'_>, scope: &[&Candidate]) -> bool {
        let bus = self.span.inner.store.bus();
        let live: HashSet<_> = bus.rooms_after(0).into_iter().collect();
        let mut rooms: Vec<(&str, Vec<u8>)> = Vec::new();
        let here = |it: &&&Candidate| it.own.membership == Membership::Join && live.contains(&it.room);
        for candidate in scope.iter().filter(here) {
            let base = self.base(candidate);
            let typing = bus.who_types(candidate.room, self.span.now_ms);
            let fresh = base.map_or(!typing.users.is_empty(), |base| typing.place > base.place);
            if fresh {
                let mut content = Vec::new();
                let mut ids = Object::new(&mut content);
                ids.strings("user_ids", &typing.users);
                ids.end();
                rooms.push((&candidate.id, typed("m.typing", &content)));
            }
        }
        write_rooms(object, "typing", &rooms);
        !rooms.is_empty()
    }
}

fn write_rooms(object: &mut Object<'_>, name: &str, rooms: &[(&str, Vec<u8>)]) {
    if rooms.is_empty() {
        return;
    }
    let mut extension = Object::new(object.key(name));
    let mut by_id = Object::new(extension.key("rooms"));
    for (id, event) in rooms {
        by_id.raw(id, event);
    }
    by_id.end();
    extension.end();
}
