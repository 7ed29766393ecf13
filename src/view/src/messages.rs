//! History (Client-Server API, "Syncing", `/messages` and `/context`): ordered by depth, then position.

use std::{collections::BTreeSet, ops::Bound};

use stoa_event::ids::{EventId, OwnedRoomId};
use stoa_store::{Direction, EventNo, Position, schema, state::Root};

use crate::{
    Error, View, Viewer,
    filter::RoomEventFilter,
    json::Object,
    reach::{Reach, state_after},
    show::Visible,
    token::{AnyToken, HistoryToken},
};

/// How many events one page has where the client does not say.
const DEFAULT_LIMIT: usize = 10;
/// How many rows of events that are waited for are looked at to find gaps.
const MANY_GAPS: usize = 2000;

/// A page of history that a client asks for.
#[derive(Clone, Debug)]
pub struct MessagesRequest {
    /// Who asks.
    pub viewer: Viewer,
    /// The room.
    pub room: OwnedRoomId,
    /// Where to begin; at the end (backwards) or the beginning (forwards) if `None`.
    pub from: Option<String>,
    /// Where to stop.
    pub to: Option<String>,
    /// Whether the page goes into the past.
    pub backward: bool,
    /// At most so many events.
    pub limit: Option<u64>,
    /// Which events.
    pub filter: RoomEventFilter,
    /// Whether to go on behind a gap, as if there were none.
    pub over_gaps: bool,
}

/// A page of history.
#[derive(Clone, Debug)]
pub struct Page {
    /// The answer.
    pub body: Vec<u8>,
    /// The page is shorter than was asked for, because events before this depth are not held here but by other servers.
    pub gap: Option<u64>,
}

/// An event and what is around it.
#[derive(Clone, Debug)]
pub struct ContextRequest {
    /// Who asks.
    pub viewer: Viewer,
    /// The room.
    pub room: OwnedRoomId,
    /// At most so many events around it.
    pub limit: Option<u64>,
    /// Which events around it.
    pub filter: RoomEventFilter,
}

/// Some history, in the order in which it was walked.
pub(crate) struct Walk {
    pub(crate) events: Vec<Visible>,
    /// Where the next page begins; `None` at the end.
    next: Option<HistoryToken>,
}

impl View {
    /// A page of a room's history.
    ///
    /// # Errors
    /// Where the user may not look, or a token is not ours.
    pub async fn messages(&self, request: &MessagesRequest) -> Result<Page, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let mut reach = self.reach(&snapshot, &request.viewer, &request.room).await?;
        let from = match &request.from {
            Some(token) => reach.place(AnyToken::parse(token)?).await?,
            None if request.backward => HistoryToken { depth: u64::MAX, position: Position::MAX },
            None => HistoryToken { depth: 0, position: Position::MIN },
        };
        let to = match &request.to {
            Some(token) => Some(reach.place(AnyToken::parse(token)?).await?),
            None => None,
        };
        let limit = request.limit.map_or(DEFAULT_LIMIT, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let limit = limit.min(self.inner.config.max_limit);
        let gap = match request.backward && !request.over_gaps {
            true => reach.gap(from.depth).await?,
            false => None,
        };
        let bound = gap.map(|depth| HistoryToken { depth, position: Position::MIN });
        let walk = reach.walk(from, bound.max(to), request.backward, limit, &request.filter).await?;
        // A page with something behind it, or that ends where it was to end, does not reach it.
        let gap = gap.filter(|_| walk.next.is_none() && to.is_none_or(|to| bound > Some(to)));

        let mut out = Vec::with_capacity(4096);
        let mut body = Object::new(&mut out);
        body.array("chunk", reach.render(&walk.events).await?);
        body.str("start", &request.from.clone().unwrap_or_else(|| from.to_string()));
        if let Some(next) = walk.next {
            body.str("end", &next.to_string());
        }
        if request.filter.lazy_load_members
            && let Some(oldest) = walk.events.iter().min_by_key(|it| (it.event.header.depth, it.event.header.at))
        {
            let newest = walk.events.iter().max_by_key(|it| (it.event.header.depth, it.event.header.at));
            let roots: Vec<Root> =
                [Some(oldest), newest].into_iter().flatten().map(|it| state_after(&it.event)).collect();
            let members = reach.senders(&roots, senders(&walk.events)).await?;
            body.array("state", reach.render(&members).await?);
        }
        body.end();
        Ok(Page { body: out, gap })
    }

    /// An event, what was before and after it, and the state there.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such event for this user.
    pub async fn context(&self, request: &ContextRequest, id: &EventId) -> Result<Vec<u8>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let mut reach = self.reach(&snapshot, &request.viewer, &request.room).await?;
        let it = reach.event(id).await?;
        let limit = request.limit.map_or(DEFAULT_LIMIT, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let limit = limit.min(self.inner.config.max_limit);
        let (just_before, just_after) = (place_before(&it), place_after(&it));
        let before = reach.walk(just_before, None, true, limit / 2, &request.filter).await?;
        let after = reach.walk(just_after, None, false, limit - limit / 2, &request.filter).await?;
        let last = after.events.last().unwrap_or(&it);
        let root = state_after(&last.event);
        let state = match request.filter.lazy_load_members {
            true => {
                let all: Vec<_> = before.events.iter().chain([&it]).chain(&after.events).cloned().collect();
                let mut state = reach.all_state(root, false).await?;
                state.extend(reach.members(root, senders(&all)).await?);
                state
            }
            false => reach.all_state(root, true).await?,
        };

        let mut out = Vec::with_capacity(4096);
        let mut body = Object::new(&mut out);
        // Also where nothing is before them: who goes on from here must not get them again.
        body.str("start", &before.events.last().map_or(just_before, place_before).to_string());
        body.str("end", &after.events.last().map_or(just_after, place_after).to_string());
        let event = reach.render(std::slice::from_ref(&it)).await?;
        body.raw("event", event.first().map_or(b"{}", |event| &event[..]));
        body.array("events_before", reach.render(&before.events).await?);
        body.array("events_after", reach.render(&after.events).await?);
        body.array("state", reach.render(&state).await?);
        body.end();
        Ok(out)
    }

    /// One event of a room.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such event for this user.
    pub async fn event(&self, viewer: &Viewer, room: &OwnedRoomId, id: &EventId) -> Result<Vec<u8>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let missing = || Error::NotFound("there is no such event");
        let mut reach = self.reach_quietly(&snapshot, viewer, room).await?;
        let it = reach.event(id).await?;
        reach.render(&[it]).await?.pop().ok_or_else(missing)
    }

    /// Who sent an event of a room that the user is in.
    ///
    /// # Errors
    /// [`Error::NotFound`]
    pub async fn sender(&self, viewer: &Viewer, room: &OwnedRoomId, id: &EventId) -> Result<String, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let missing = || Error::NotFound("the event was not found, or you are not joined to the room");
        let mut reach = self.reach_quietly(&snapshot, viewer, room).await?;
        if !reach.eyes.is_joined() {
            return Err(missing());
        }
        Ok(reach.event(id).await?.event.header.sender.clone())
    }
}

pub(crate) fn senders(events: &[Visible]) -> BTreeSet<&str> {
    events.iter().map(|it| it.event.header.sender.as_str()).collect()
}

pub(crate) fn place_before(it: &Visible) -> HistoryToken {
    let HistoryToken { depth, position } = place_after(it);
    HistoryToken { depth, position: Position(position.0.saturating_sub(1)) }
}

pub(crate) fn place_after(it: &Visible) -> HistoryToken {
    HistoryToken { depth: it.event.header.depth, position: it.event.header.at.unwrap_or_default() }
}

impl Reach<'_> {
    /// The place in the history that a token stands for.
    pub(crate) async fn place(&self, token: AnyToken) -> Result<HistoryToken, Error> {
        let position = match token {
            AnyToken::History(place) => return Ok(place),
            AnyToken::Sync(token) => token.position,
        };
        let from = Bound::Included((self.room, Position::MIN));
        let to = Bound::Included((self.room, position));
        let last = self.snapshot.range(&schema::TIMELINE, from, to, Direction::Backward, 1).await?;
        let Some(((_, at), no)) = last.first() else { return Ok(HistoryToken { depth: 0, position: Position::MIN }) };
        let event = self.inner.store.events().get(self.snapshot, self.room, *no).await?;
        Ok(HistoryToken { depth: event.map_or(0, |event| event.header.depth), position: *at })
    }

    /// The depth of the latest gap that is not later than a depth: what is before it may not be held here.
    async fn gap(&self, depth: u64) -> Result<Option<u64>, Error> {
        let rows = self.snapshot.scan(&schema::WAITING, &self.room, Direction::Forward, MANY_GAPS).await?;
        // What follows the missing event may be just after the place from which the page begins.
        let near = depth.saturating_add(1);
        let gaps = rows.into_iter().filter(|(_, waiting)| waiting.follows && waiting.depth <= near);
        Ok(gaps.map(|(_, waiting)| waiting.depth).max())
    }

    /// An event of this room that the user may see.
    pub(crate) async fn event(&mut self, id: &EventId) -> Result<Visible, Error> {
        let missing = || Error::NotFound("there is no such event");
        let store = &self.inner.store;
        let (place, event) = store.events().by_id(self.snapshot, id.as_str()).await?.ok_or_else(missing)?;
        if place.room != self.room {
            return Err(missing());
        }
        let membership = self.eyes.look(&event).await?;
        match membership {
            Some(_) => Ok(Visible { event, membership }),
            None => Err(missing()),
        }
    }

    /// The member events of these users, each in the first of the states that has one.
    async fn senders(&self, roots: &[Root], users: BTreeSet<&str>) -> Result<Vec<Visible>, Error> {
        let mut found: Vec<Visible> = Vec::with_capacity(users.len());
        let mut missing = users;
        for root in roots {
            let wanted: Vec<&str> = missing.iter().copied().collect();
            found.extend(self.members(*root, wanted).await?);
            missing.retain(|user| !found.iter().any(|it| it.event.header.state_key.as_deref() == Some(user)));
        }
        Ok(found)
    }

    /// Walks the history from a place until there are enough events. A stretch of events that the user may not see ends
    /// the page, not the walk: the next one begins behind them.
    pub(crate) async fn walk(
        &mut self,
        from: HistoryToken,
        to: Option<HistoryToken>,
        backward: bool,
        limit: usize,
        filter: &RoomEventFilter,
    ) -> Result<Walk, Error> {
        let mut walk = Walk { events: Vec::new(), next: Some(from) };
        let mut looked_at = 0;
        let most = limit * 10 + 200;
        let mut place = from;
        while walk.events.len() < limit && looked_at < most {
            let page = (limit - walk.events.len()).max(16);
            let rows = self.page(place, to, backward, page).await?;
            let last_page = rows.len() < page;
            let nos: Vec<EventNo> = rows.iter().map(|(_, no)| *no).collect();
            let events = self.inner.store.events().get_many(self.snapshot, self.room, &nos).await?;
            for ((at, _), event) in rows.into_iter().zip(events) {
                looked_at += 1;
                place = match backward {
                    true => HistoryToken { position: Position(at.position.0.saturating_sub(1)), ..at },
                    false => at,
                };
                walk.next = Some(place);
                let Some(event) = event else { continue };
                let membership = self.eyes.look(&event).await?;
                if membership.is_some() && filter.wants(&event) {
                    walk.events.push(Visible { event, membership });
                    if walk.events.len() == limit {
                        break;
                    }
                }
            }
            if last_page && walk.events.len() < limit {
                walk.next = None;
                break;
            }
        }
        // A full page may have ended just where the history does.
        if walk.next.is_some() && self.page(place, to, backward, 1).await?.is_empty() {
            walk.next = None;
        }
        Ok(walk)
    }

    async fn page(
        &self,
        from: HistoryToken,
        to: Option<HistoryToken>,
        backward: bool,
        limit: usize,
    ) -> Result<Vec<(HistoryToken, EventNo)>, Error> {
        let key = |place: HistoryToken| (self.room, place.depth, place.position);
        let (low, high, direction) = match backward {
            true => {
                let low = to.map_or((self.room, 0, Position::MIN), key);
                (Bound::Excluded(low), Bound::Included(key(from)), Direction::Backward)
            }
            false => {
                let high = to.map_or((self.room, u64::MAX, Position::MAX), key);
                (Bound::Excluded(key(from)), Bound::Included(high), Direction::Forward)
            }
        };
        let rows = self.snapshot.range(&schema::HISTORY, low, high, direction, limit).await?;
        Ok(rows.into_iter().map(|((_, depth, position), no)| (HistoryToken { depth, position }, no)).collect())
    }
}
