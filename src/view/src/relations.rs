//! What relates to an event (Client-Server API, "Relationships API").

use std::ops::Bound;

use stoa_event::ids::{EventId, OwnedRoomId};
use stoa_store::{Direction, EventNo, Position, schema};

use crate::{Error, View, Viewer, json::Object, show::Visible, token::AnyToken};

/// How many children one page has where the client does not say.
const DEFAULT_LIMIT: usize = 30;
/// How many levels `recurse` goes down (the specification asks for at least 3).
const LEVELS: usize = 3;

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

impl View {
    /// A page of the events that relate to one.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such event for this user, [`Error::InvalidParam`] for a token that is not ours
    pub async fn relations(&self, request: &RelationsRequest, id: &EventId) -> Result<Vec<u8>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let missing = || Error::NotFound("there is no such event");
        let mut reach = match self.reach(&snapshot, &request.viewer, &request.room).await {
            // Not being there and not being allowed look the same.
            Err(Error::Forbidden(_)) => return Err(missing()),
            other => other?,
        };
        reach.event(id).await?;
        let place = snapshot.get(&schema::EVENT_IDS, &id.to_string()).await?;
        let parent = place.ok_or_else(missing)?.event;
        let mut found = self.children(&snapshot, reach.room, parent, request).await?;
        found.sort_by_key(|(at, _)| *at);
        if request.backward {
            found.reverse();
        }
        let position = |token: &String| -> Result<Position, Error> {
            Ok(match AnyToken::parse(token)? {
                AnyToken::Sync(token) => token.position,
                AnyToken::History(token) => token.position,
            })
        };
        let (from, to) =
            (request.from.as_ref().map(position).transpose()?, request.to.as_ref().map(position).transpose()?);
        // A token is a gap: everything up to and with its position is before it.
        found.retain(|(at, _)| match request.backward {
            true => from.is_none_or(|from| *at <= from) && to.is_none_or(|to| *at > to),
            false => from.is_none_or(|from| *at > from) && to.is_none_or(|to| *at <= to),
        });
        let limit = request.limit.map_or(DEFAULT_LIMIT, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let limit = limit.clamp(1, self.inner.config.max_limit);
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
            let gap = if request.backward { Position(last.0.saturating_sub(1)) } else { last };
            body.str("next_batch", &format!("t0-{gap}"));
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

    async fn children(
        &self,
        snapshot: &stoa_store::Snapshot,
        room: stoa_store::RoomNo,
        parent: EventNo,
        request: &RelationsRequest,
    ) -> Result<Vec<(Position, EventNo)>, Error> {
        let mut found = Vec::new();
        let mut parents = vec![parent];
        for _ in 0..if request.recurse { LEVELS } else { 1 } {
            let mut next = Vec::new();
            for parent in parents {
                let from = Bound::Included((room, parent, Position::MIN));
                let to = Bound::Included((room, parent, Position::MAX));
                let rows = snapshot.range(&schema::RELATIONS, from, to, Direction::Backward, 5000).await?;
                for ((_, _, at), child) in rows {
                    next.push(child.event);
                    let wanted = request.rel_type.as_ref().is_none_or(|only| *only == child.rel_type)
                        && request.kind.as_ref().is_none_or(|only| *only == child.kind);
                    if wanted {
                        found.push((at, child.event));
                    }
                }
            }
            parents = next;
        }
        Ok(found)
    }
}
