//! What relates to an event (Client-Server API, "Relationships API").

use std::{collections::HashSet, ops::Bound, sync::Arc};

use stoa_event::ids::{EventId, OwnedRoomId};
use stoa_store::{
    Direction, EventNo, Position, RoomNo, Snapshot,
    rows::events::{StoredEvent, THREAD},
    schema,
};

use crate::{
    Error, View, Viewer,
    bundle::Bundler,
    json::Object,
    reach::Reach,
    show::Visible,
    token::{AnyToken, HistoryToken},
};

/// How many children one page has where the client does not say.
const DEFAULT_LIMIT: usize = 30;
/// How many levels `recurse` goes down (the specification asks for at least 3).
const LEVELS: usize = 3;
/// How many children of an event, and of its children, are looked at.
const CHILDREN: usize = 5000;
/// How many replies are looked at to find the threads of one page.
const REPLIES: usize = 2000;

/// Children of an event that a client asks for.
#[derive(Clone, Debug)]
pub struct RelationsRequest {
    /// Who asks.
    pub viewer: Viewer,
    /// The room.
    pub room: OwnedRoomId,
    /// Only this type of relation.
    pub rel_type: Option<String>,
    /// Only this type of event.
    pub kind: Option<String>,
    /// Where to begin.
    pub from: Option<String>,
    /// Where to stop.
    pub to: Option<String>,
    /// Whether the newest come first.
    pub backward: bool,
    /// At most so many.
    pub limit: Option<u64>,
    /// Whether children of children are wanted too.
    pub recurse: bool,
}

/// Threads of a room that a client asks for.
#[derive(Clone, Debug)]
pub struct ThreadsRequest {
    /// Who asks.
    pub viewer: Viewer,
    /// The room.
    pub room: OwnedRoomId,
    /// Only those with something that the user sent.
    pub participated: bool,
    /// Where to begin.
    pub from: Option<String>,
    /// At most so many.
    pub limit: Option<u64>,
}

impl View {
    /// A page of the events that relate to one.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such event for this user, [`Error::InvalidParam`] for a token that is not ours
    pub async fn relations(&self, request: &RelationsRequest, id: &EventId) -> Result<Vec<u8>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let missing = || Error::NotFound("there is no such event");
        let mut reach = self.reach_quietly(&snapshot, &request.viewer, &request.room).await?;
        reach.event(id).await?;
        let place = snapshot.get(&schema::EVENT_IDS, &id.to_string()).await?;
        let parent = place.ok_or_else(missing)?.event;
        let (mut from, mut to) = (None, None);
        for (text, place) in [(&request.from, &mut from), (&request.to, &mut to)] {
            if let Some(text) = text {
                *place = Some(reach.place(AnyToken::parse(text)?).await?);
            }
        }
        let mut found = children(&snapshot, reach.room, parent, request).await?;
        found.sort_by_key(|(at, _)| *at);
        if request.backward {
            found.reverse();
        }
        // A token is a gap: everything up to and with its place is before it.
        found.retain(|(at, _)| match request.backward {
            true => from.is_none_or(|from| *at <= from) && to.is_none_or(|to| *at > to),
            false => from.is_none_or(|from| *at > from) && to.is_none_or(|to| *at <= to),
        });
        let limit = self.limit(request.limit);
        let more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().map(|(at, _)| *at);
        let nos: Vec<EventNo> = found.into_iter().map(|(_, no)| no).collect();
        let mut events = Vec::new();
        for event in self.inner.store.events().get_many(&snapshot, reach.room, &nos).await?.into_iter().flatten() {
            if let Some(membership) = reach.eyes.look(&event).await? {
                events.push(Visible { event, membership: Some(membership) });
            }
        }
        let mut out = Vec::with_capacity(2048);
        let mut body = Object::new(&mut out);
        body.array("chunk", reach.render(&events).await?);
        if let Some(last) = last.filter(|_| more) {
            let gap = if request.backward { last.before() } else { last };
            body.str("next_batch", &gap.to_string());
        }
        if let Some(from) = &request.from {
            body.str("prev_batch", from);
        }
        if request.recurse {
            body.plain("recursion_depth", LEVELS);
        }
        body.end();
        Ok(out)
    }

    /// The threads of a room, those with the latest replies first (Client-Server API, "Querying threads in a room").
    ///
    /// # Errors
    /// Where the user may not look, or the token is not ours.
    pub async fn threads(&self, request: &ThreadsRequest) -> Result<Vec<u8>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let mut reach = self.reach(&snapshot, &request.viewer, &request.room).await?;
        let from = match &request.from {
            Some(token) => Some(reach.place(AnyToken::parse(token)?).await?),
            None => None,
        };
        let limit = self.limit(request.limit);
        let rows = replies(&snapshot, reach.room, from).await?;
        let mut next = (rows.len() == REPLIES).then(|| rows.last().map(|(at, _)| at.before())).flatten();
        let mut seen = HashSet::new();
        let mut roots = Vec::new();
        for (at, root) in rows {
            if !seen.insert(root) || (from.is_some() && has_later_reply(&snapshot, reach.room, root, at).await?) {
                continue;
            }
            if roots.len() == limit {
                // The next page begins with this one.
                next = Some(at);
                break;
            }
            roots.extend(reach.root_of_thread(root, request.participated).await?);
        }
        let mut out = Vec::with_capacity(2048);
        let mut body = Object::new(&mut out);
        body.array("chunk", reach.render(&roots).await?);
        if let Some(next) = next {
            body.str("next_batch", &next.to_string());
        }
        body.end();
        Ok(out)
    }

    /// How many events a page has.
    fn limit(&self, wanted: Option<u64>) -> usize {
        let limit = wanted.map_or(DEFAULT_LIMIT, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        limit.clamp(1, self.inner.config.max_limit)
    }
}

impl Reach<'_> {
    /// The root of a thread, if its thread may be seen by who reads (and, on request, has something of theirs).
    async fn root_of_thread(&mut self, no: EventNo, participated: bool) -> Result<Option<Visible>, Error> {
        let event = self.inner.store.events().get(self.snapshot, self.room, no).await?;
        let Some(event) = event else { return Ok(None) };
        let Some(membership) = self.eyes.look(&event).await? else { return Ok(None) };
        let (user, user_id) = (self.viewer.user_no, self.viewer.user.as_str());
        let mut bundler = Bundler::new(&mut self.eyes, user, user_id).await?;
        let bundles = bundler.gather(&[(no, event.clone())]).await?;
        let is_ignored = bundler.ignores(&event.header.sender);
        let thread = bundles.get(&no).and_then(|bundle| bundle.thread.as_ref());
        let shown = thread.is_some_and(|thread| thread.participated || !participated);
        let event = if is_ignored { Arc::new(emptied(&event)) } else { event };
        Ok(shown.then_some(Visible { event, membership: Some(membership) }))
    }
}

/// An event of an ignored user: redacted, as its thread is not.
fn emptied(event: &StoredEvent) -> StoredEvent {
    let mut header = event.header.clone();
    (header.content_from, header.content_to) = (0, 2);
    StoredEvent { header, json: "{}".into() }
}

/// The latest replies in threads before a place, with the roots of their threads.
async fn replies(
    snapshot: &Snapshot,
    room: RoomNo,
    from: Option<HistoryToken>,
) -> Result<Vec<(HistoryToken, EventNo)>, Error> {
    let from = from.unwrap_or(HistoryToken { depth: u64::MAX, position: Position::MAX });
    let (low, high) = (Bound::Included(room), Bound::Included((room, from.depth, from.position)));
    let rows = snapshot.range(&schema::THREADS, low, high, Direction::Backward, REPLIES).await?;
    Ok(rows.into_iter().map(|((_, depth, position), root)| (HistoryToken { depth, position }, root)).collect())
}

/// Whether a thread was on an earlier page already.
async fn has_later_reply(snapshot: &Snapshot, room: RoomNo, root: EventNo, at: HistoryToken) -> Result<bool, Error> {
    let from = Bound::Excluded((room, root, at.depth, at.position));
    let rows = snapshot.range(&schema::RELATIONS, from, Bound::Included((room, root)), Direction::Forward, 100).await?;
    Ok(rows.iter().any(|(_, child)| child.rel_type == THREAD))
}

/// All children that are asked for, in no order.
async fn children(
    snapshot: &Snapshot,
    room: RoomNo,
    parent: EventNo,
    request: &RelationsRequest,
) -> Result<Vec<(HistoryToken, EventNo)>, Error> {
    let mut found = Vec::new();
    let mut seen = HashSet::from([parent]);
    let mut parents = vec![parent];
    for _ in 0..if request.recurse { LEVELS } else { 1 } {
        let mut next = Vec::new();
        for parent in parents {
            // The newest ones, where there are too many.
            let left = CHILDREN.saturating_sub(seen.len());
            let rows = snapshot.scan(&schema::RELATIONS, &(room, parent), Direction::Backward, left).await?;
            for ((_, _, depth, position), child) in rows {
                if !seen.insert(child.event) {
                    continue;
                }
                next.push(child.event);
                let wanted = request.rel_type.as_ref().is_none_or(|only| *only == child.rel_type)
                    && request.kind.as_ref().is_none_or(|only| *only == child.kind);
                if wanted {
                    found.push((HistoryToken { depth, position }, child.event));
                }
            }
        }
        parents = next;
    }
    Ok(found)
}
