//! Threads that a user follows (MSC4306), and what changed of that (MSC4308).

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};
use stoa_event::ids::{EventId, OwnedRoomId};
use stoa_store::{
    Direction, Position, RoomNo, Snapshot, UserNo,
    rows::threads::{self, Thread, ThreadSubscription},
    schema,
};

use crate::{Error, Inner, View, Viewer, token::SlidingToken};

/// How many changes one answer has where the client does not say, and at most.
const LIMIT: u64 = 100;
const MOST: u64 = 1000;
/// How many threads of a room a user can follow for counting.
const FOLLOWED: usize = 10_000;

/// Changes of subscriptions, and where there are more.
pub(crate) struct Changes {
    subscribed: BTreeMap<String, Map<String, Value>>,
    unsubscribed: BTreeMap<String, Map<String, Value>>,
    /// Before this there are more.
    pub(crate) more: Option<Position>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.subscribed.is_empty() && self.unsubscribed.is_empty()
    }

    /// As MSC4308 words it; `token` is what the token for more is called.
    pub(crate) fn json(self, token: &str) -> Value {
        let mut json = json!({});
        for (name, rooms) in [("subscribed", self.subscribed), ("unsubscribed", self.unsubscribed)] {
            if !rooms.is_empty() {
                json[name] = json!(rooms);
            }
        }
        if let Some(more) = self.more {
            json[token] = json!(more.to_string());
        }
        json
    }
}

impl Inner {
    /// What changed of a user's subscriptions after a position, up to and with another one: the newest.
    pub(crate) async fn thread_changes(
        &self,
        snapshot: &Snapshot,
        user: UserNo,
        (after, upto): (Position, Position),
        limit: Option<u64>,
    ) -> Result<Changes, Error> {
        let limit = limit.unwrap_or(LIMIT).clamp(1, MOST) as usize;
        let mut found = threads::changes(snapshot, user, (after, upto), limit + 1).await?;
        let more = (found.len() > limit).then(|| found.get(limit - 1).map(|(_, last)| last.at)).flatten();
        found.truncate(limit);
        let mut changes = Changes { subscribed: BTreeMap::new(), unsubscribed: BTreeMap::new(), more };
        for (Thread { room, root }, ThreadSubscription { subscribed, automatic, at }) in found {
            let room = self.store.names().room_id(snapshot, room).await?.to_string();
            if subscribed {
                let said = json!({ "automatic": automatic, "bump_stamp": at.0 });
                changes.subscribed.entry(room).or_default().insert(root, said);
            } else {
                changes.unsubscribed.entry(room).or_default().insert(root, json!({ "bump_stamp": at.0 }));
            }
        }
        Ok(changes)
    }

    /// The roots of the threads of a room that a user follows; `None` for who never said of any thread of any room whether to.
    pub(crate) async fn followed(
        &self,
        snapshot: &Snapshot,
        user: UserNo,
        room: RoomNo,
    ) -> Result<Option<HashSet<String>>, Error> {
        if last_change(snapshot, user).await?.is_none() {
            return Ok(None);
        }
        let rows = snapshot.scan(&schema::THREAD_SUBSCRIPTIONS, &(user, room), Direction::Forward, FOLLOWED).await?;
        Ok(Some(rows.into_iter().filter(|(_, row)| row.subscribed).map(|((_, _, root), _)| root).collect()))
    }
}

/// Where a user said last which threads to follow.
pub(crate) async fn last_change(snapshot: &Snapshot, user: UserNo) -> Result<Option<Position>, Error> {
    let last = snapshot.scan(&schema::THREAD_CHANGES, &user, Direction::Backward, 1).await?;
    Ok(last.first().map(|((_, at), _)| *at))
}

impl View {
    /// Whether an event is something that a thread of the viewer's can begin with; with `cause`, also where the event is placed
    /// that makes a client subscribe.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotInThread`] for a cause that is elsewhere.
    pub async fn thread(
        &self,
        viewer: &Viewer,
        room: &OwnedRoomId,
        root: &EventId,
        cause: Option<&EventId>,
    ) -> Result<Option<Position>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let mut reach = self.reach_quietly(&snapshot, viewer, room).await?;
        let event = reach.event(root).await?.event;
        if event.header.relates_to.as_ref().is_some_and(|relation| relation.rel_type == "m.thread") {
            return Err(Error::NotFound("a thread cannot begin in a thread"));
        }
        let Some(cause) = cause else { return Ok(None) };
        let cause = match reach.event(cause).await {
            Err(Error::NotFound(_)) => return Err(Error::NotInThread),
            other => other?.event,
        };
        let thread = self.inner.store.events().thread_of(&snapshot, reach.room, &cause).await?;
        match thread.is_some_and(|thread| thread == root.as_str()) {
            true => Ok(cause.header.at),
            false => Err(Error::NotInThread),
        }
    }

    /// Whether the viewer's subscription to a thread was made by a client by itself.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is none, or no such thread.
    pub async fn thread_subscription(
        &self,
        viewer: &Viewer,
        room: &OwnedRoomId,
        root: &EventId,
    ) -> Result<bool, Error> {
        self.thread(viewer, room, root, None).await?;
        let missing = || Error::NotFound("you are not subscribed to that thread");
        let snapshot = self.inner.store.snapshot().await?;
        let room = self.inner.store.names().room(&snapshot, room.as_str()).await?.ok_or_else(missing)?;
        let key = (viewer.user_no, room, root.to_string());
        let row = snapshot.get(&schema::THREAD_SUBSCRIPTIONS, &key).await?;
        row.filter(|row| row.subscribed).map(|row| row.automatic).ok_or_else(missing)
    }

    /// A page of what changed of the viewer's subscriptions, the newest first (MSC4308): before `from`, and after the `pos` that
    /// is `to`.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for tokens that are not ours.
    pub async fn thread_subscriptions(
        &self,
        viewer: &Viewer,
        (from, to): (Option<&str>, Option<&str>),
        limit: Option<u64>,
    ) -> Result<Value, Error> {
        let bad = || Error::InvalidParam("this token was not made by this server".into());
        let upto = match from {
            // What it names was on the page before.
            Some(from) => Position(from.parse::<u64>().map_err(|_| bad())?.saturating_sub(1)),
            None => Position::MAX,
        };
        let after = match to {
            Some(to) => SlidingToken::parse(to).ok_or_else(bad)?.at.position,
            None => Position::MIN,
        };
        let snapshot = self.inner.store.snapshot().await?;
        if upto <= after {
            return Ok(json!({}));
        }
        Ok(self.inner.thread_changes(&snapshot, viewer.user_no, (after, upto), limit).await?.json("end"))
    }
}
