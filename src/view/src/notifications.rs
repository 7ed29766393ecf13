//! `GET /notifications` (Client-Server API, "Listing notifications"): what the push rules notify of, worked out from the timelines
//! of the user's rooms when somebody asks. Nothing is written for it while others send.

use std::{collections::BinaryHeap, ops::Bound, sync::Arc};

use ruma_common::push::Action;
use stoa_store::{
    Direction, EventNo, Membership, Position, RoomNo, Snapshot,
    rows::rooms::{Head, OwnMembership},
    schema,
};

use crate::{
    Error, View, Viewer,
    counts::{self, Judge, Read},
    eyes::Eyes,
    filter::Filter,
    json::Object,
    notices::notifying,
    push,
    show::{Audience, Visible, render},
    sync::Span,
    token::SyncToken,
};

/// How many notifications one answer has where the client does not say, and at most.
const LIMIT: usize = 20;
const MOST: usize = 100;
/// How many events are looked at for one answer: it may be shorter than asked for, and says where to go on.
const LOOKED_AT: usize = 5000;
/// How many of a room are looked at together.
const PAGE: usize = 64;

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct NotificationsRequest {
    /// Who asks.
    pub viewer: Viewer,
    /// The token of the page before.
    pub from: Option<String>,
    /// How many are wanted.
    pub limit: Option<usize>,
    /// Whether only highlights are wanted.
    pub only_highlights: bool,
}

/// A room of the user: what is before `end` was not looked at.
struct Room {
    no: RoomNo,
    id: Arc<str>,
    joined_at: Position,
    head: Head,
    read: Read,
}

/// Which room has the newest event that was not looked at.
type Heap = BinaryHeap<(Position, RoomNo)>;

impl View {
    /// What the user was notified of, newest first, as JSON.
    ///
    /// # Errors
    /// Where the token is not ours or the store fails.
    pub async fn notifications(&self, request: &NotificationsRequest) -> Result<Vec<u8>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let end = match &request.from {
            Some(from) => parse(from)?,
            None => snapshot.position().next(),
        };
        let filter = Filter::default();
        let to = SyncToken { position: snapshot.position(), ..SyncToken::default() };
        let span = Span::new(&self.inner, &snapshot, &request.viewer, &filter, (None, to)).await?;
        let mut list = List {
            span: &span,
            snapshot: &snapshot,
            rules: span.rules().await?.0,
            only_highlights: request.only_highlights,
            limit: request.limit.unwrap_or(LIMIT).clamp(1, MOST),
            looked_at: 0,
            last: end,
            found: Vec::new(),
        };
        let next = list.fill(end).await?;
        let mut out = Vec::with_capacity(1024);
        let mut body = Object::new(&mut out);
        body.array("notifications", &list.found);
        if let Some(next) = next {
            body.str("next_token", &format!("n{next}"));
        }
        body.end();
        Ok(out)
    }
}

fn parse(token: &str) -> Result<Position, Error> {
    let number = token.strip_prefix('n').and_then(|number| number.parse().ok());
    number.map(Position).ok_or_else(|| Error::InvalidParam("the token is not one of this server".into()))
}

struct List<'a> {
    span: &'a Span<'a>,
    snapshot: &'a Snapshot,
    rules: Arc<push::Rules>,
    only_highlights: bool,
    limit: usize,
    looked_at: usize,
    /// The last event that was looked at.
    last: Position,
    found: Vec<Vec<u8>>,
}

impl List<'_> {
    /// Goes back through all rooms at once, and answers where to go on.
    async fn fill(&mut self, end: Position) -> Result<Option<Position>, Error> {
        let mut heap = self.rooms(end).await?;
        let mut open: Option<Room> = None;
        while let Some((upto, no)) = heap.pop() {
            if self.found.len() >= self.limit || self.looked_at >= LOOKED_AT {
                // Everything after this was looked at, in all rooms.
                return Ok(Some(self.last));
            }
            if open.as_ref().is_none_or(|room| room.no != no) {
                open = self.open(no).await?;
            }
            let Some(room) = &open else { continue };
            // As far as this room has the newest events of all.
            let others = heap.peek().map_or(Position::MIN, |(at, _)| *at);
            if let Some(rest) = self.walk(room, upto, others).await? {
                heap.push((rest, no));
            }
        }
        Ok(None)
    }

    /// The rooms that the user is in, with the place below which something may be.
    async fn rooms(&self, end: Position) -> Result<Heap, Error> {
        let who = self.span.inner.store.who();
        let last = |room| who.room_last(room).min(Position(end.0.saturating_sub(1)));
        let joined = who.joined(self.span.viewer.user_no);
        Ok(joined.iter().map(RoomNo).map(|room| (last(room), room)).collect())
    }

    async fn open(&self, no: RoomNo) -> Result<Option<Room>, Error> {
        let own: Option<OwnMembership> =
            self.snapshot.get(&schema::MEMBERSHIPS, &(self.span.viewer.user_no, no)).await?;
        let head = self.snapshot.get(&schema::ROOMS, &no).await?;
        let (Some(own), Some(head)) = (own.filter(|own| own.membership == Membership::Join), head) else {
            return Ok(None);
        };
        let joined_at = own.joined_at.unwrap_or_default();
        let (read, _) = counts::read(self.span, no, joined_at, None).await?;
        let id = self.span.inner.store.names().room_id(self.snapshot, no).await?;
        Ok(Some(Room { no, id, joined_at, head, read }))
    }

    /// Looks at events of a room from `upto` back, until another room has newer ones. Answers where the rest of the room begins.
    async fn walk(&mut self, room: &Room, upto: Position, others: Position) -> Result<Option<Position>, Error> {
        let (low, high) = (Bound::Excluded((room.no, room.joined_at)), Bound::Included((room.no, upto)));
        let table = &schema::TIMELINE;
        let rows = self.snapshot.range(table, low, high, Direction::Backward, PAGE).await?;
        let more = rows.len() == PAGE;
        for ((_, at), no) in &rows {
            // Below another room's newest: that one's turn. What is equal is this very event.
            if *at < others || self.found.len() >= self.limit || self.looked_at >= LOOKED_AT {
                return Ok(Some(*at));
            }
            self.looked_at += 1;
            self.last = *at;
            if let Some(entry) = self.entry(room, *at, *no).await? {
                self.found.push(entry);
            }
        }
        let last = rows.last().map(|((_, at), _)| Position(at.0.saturating_sub(1)));
        Ok(last.filter(|_| more))
    }

    async fn entry(&self, room: &Room, at: Position, no: EventNo) -> Result<Option<Vec<u8>>, Error> {
        let store = &self.span.inner.store;
        let Some(event) = store.events().get(self.snapshot, room.no, no).await? else { return Ok(None) };
        if event.header.redacted_by.is_some() || counts::is_ignored(self.span, &event) {
            return Ok(None);
        }
        let thread = store.events().thread_of(self.snapshot, room.no, &event).await?;
        let only = self.only_highlights;
        let look = |actions: &[Action]| {
            let (_, highlights) = counts::verdict(actions);
            notifying(actions).filter(|_| highlights || !only)
        };
        let mut judge = Judge::new(self.span, room.no, &room.head, self.rules.clone());
        let Some(actions) = judge.judge(&event, thread.as_deref(), look).await? else { return Ok(None) };
        let ts = event.header.origin_server_ts;
        let read = room.read.covers(thread.as_deref(), at);
        let viewer = self.span.viewer;
        let user = viewer.user.as_str();
        let eyes = Eyes::with(store, self.snapshot, room.no, user, None).await?;
        let audience = Audience { device: &viewer.device, user_id: user, now_ms: self.span.now_ms, room_id: None };
        let shown = render(&eyes, audience, &[Visible { event, membership: None }]).await?;
        let mut out = Vec::with_capacity(512);
        let mut entry = Object::new(&mut out);
        entry.raw("actions", &actions);
        for event in &shown {
            entry.raw("event", event);
        }
        entry.plain("read", read).str("room_id", &room.id).plain("ts", ts);
        entry.end();
        Ok(Some(out))
    }
}
