//! Which rooms an answer is about: the user's rooms by activity, the lists' filters and windows, and subscriptions
//! (MSC4186, "Lists and subscriptions").

use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    ops::Bound,
    sync::Arc,
};

use quick_cache::{Weighter, sync::Cache};
use serde::Deserialize;
use stoa_store::{
    Direction, Membership, Position, RoomNo, Snapshot, UserNo,
    rows::{account_data, rooms::OwnMembership},
    schema,
    state::Class,
};

use super::{Look, request::Filters, wanted::RoomConfig};
use crate::{Error, Viewer, eyes::Eyes};

/// Events that move a room up in a room list.
const BUMPING: [&str; 7] = [
    "m.room.create",
    "m.room.message",
    "m.room.encrypted",
    "m.sticker",
    "m.call.invite",
    "m.poll.start",
    "m.beacon_info",
];
/// How many events are looked at to find such a one.
const LOOKED_AT: usize = 100;
/// How many bytes of memberships are remembered.
const MEMBERSHIPS_BYTES: u64 = 16 << 20;

/// A room that is wanted.
pub(super) struct Candidate {
    pub(super) room: RoomNo,
    pub(super) id: Arc<str>,
    pub(super) own: OwnMembership,
    pub(super) config: Arc<RoomConfig>,
    /// The lists in whose windows it stands.
    pub(super) lists: Vec<String>,
    pub(super) subscribed: bool,
}

/// The rooms that are wanted, and how many each list has.
#[derive(Default)]
pub(super) struct Window {
    pub(super) rooms: BTreeMap<RoomNo, Candidate>,
    pub(super) counts: BTreeMap<String, usize>,
}

impl Window {
    /// Lets rooms of which the same is wanted share one description: it is remembered for each of them.
    fn share_configs(&mut self) {
        let mut known: Vec<Arc<RoomConfig>> = Vec::new();
        for candidate in self.rooms.values_mut() {
            match known.iter().find(|config| **config == candidate.config) {
                Some(config) => candidate.config = config.clone(),
                None => known.push(candidate.config.clone()),
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Last {
    /// When it was worked out: the room had changed last here.
    seen: Position,
    any: Position,
    /// The last event that moves the room up; worked out when it is needed.
    bump: Option<Position>,
}

/// Everything that a user has to do with, as it was at a position.
#[derive(Clone)]
struct Memberships {
    at: Position,
    rows: Arc<Vec<(RoomNo, OwnMembership)>>,
}

/// About how many bytes they take.
#[derive(Clone)]
struct Bytes;

impl Weighter<UserNo, Memberships> for Bytes {
    fn weight(&self, _: &UserNo, known: &Memberships) -> u64 {
        let shown = |own: &OwnMembership| own.stripped.as_ref().map_or(0, |stripped| stripped.len());
        known.rows.iter().map(|(_, own)| (size_of::<(RoomNo, OwnMembership)>() + shown(own)) as u64).sum::<u64>() + 64
    }
}

/// When something last happened in rooms, of what kind rooms are, and who is in which: what lists are made by.
pub(crate) struct Activity {
    memberships: Cache<UserNo, Memberships, Bytes>,
    last: Cache<RoomNo, Last>,
    kinds: Cache<RoomNo, Option<Arc<str>>>,
}

impl Default for Activity {
    fn default() -> Self {
        Activity {
            memberships: Cache::with_weighter(1000, MEMBERSHIPS_BYTES, Bytes),
            last: Cache::new(50_000),
            kinds: Cache::new(50_000),
        }
    }
}

impl Look<'_> {
    pub(super) async fn window(&self) -> Result<Window, Error> {
        let body = &self.asked.request.body;
        let me = self.asked.request.viewer.user.as_str();
        let mut window = Window::default();
        let ordered = match body.lists.is_empty() {
            true => Vec::new(),
            false => self.ordered().await?,
        };
        for (name, list) in &body.lists {
            let filter = Sieve::new(self, list.filters.clone().unwrap_or_default()).await?;
            let mut count = 0;
            for (room, own) in &ordered {
                if !filter.keeps(self, *room, own).await? {
                    continue;
                }
                if list.shows(count) {
                    let candidate = self.add(&mut window, *room, own, list.config(me)).await?;
                    candidate.lists.push(name.clone());
                }
                count += 1;
            }
            window.counts.insert(name.clone(), count);
        }
        for (id, config) in &body.room_subscriptions {
            let Some(room) = self.span.inner.store.names().room(self.span.snapshot, id).await? else { continue };
            let key = (self.span.viewer.user_no, room);
            let Some(own) = self.span.snapshot.get(&schema::MEMBERSHIPS, &key).await? else { continue };
            let Some(own) = self.span.at_end(own).filter(|own| !own.forgotten) else { continue };
            self.add(&mut window, room, &own, config.config(me)).await?.subscribed = true;
        }
        window.share_configs();
        Ok(window)
    }

    async fn add<'w>(
        &self,
        window: &'w mut Window,
        room: RoomNo,
        own: &OwnMembership,
        config: RoomConfig,
    ) -> Result<&'w mut Candidate, Error> {
        let candidate = match window.rooms.entry(room) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => {
                let id = self.span.inner.store.names().room_id(self.span.snapshot, room).await?;
                let (lists, own) = (Vec::new(), own.clone());
                free.insert(Candidate { room, id, own, config: Arc::default(), lists, subscribed: false })
            }
        };
        Arc::make_mut(&mut candidate.config).add(config);
        Ok(candidate)
    }

    /// The user's rooms, those first in which something happened last.
    async fn ordered(&self) -> Result<Vec<(RoomNo, OwnMembership)>, Error> {
        let rows = self.memberships().await?;
        let mut ordered = Vec::with_capacity(rows.len());
        for (room, own) in rows.iter() {
            let room = *room;
            let Some(own) = self.span.at_end(own.clone()) else { continue };
            if !self.is_listed(room, &own).await? {
                continue;
            }
            let at = match own.membership {
                Membership::Join => self.activity(room).await?,
                _ => own.at,
            };
            ordered.push((at, room, own));
        }
        ordered.sort_by_key(|(at, room, _)| std::cmp::Reverse((*at, *room)));
        Ok(ordered.into_iter().map(|(_, room, own)| (room, own)).collect())
    }

    /// The user's memberships. They are read again only when something has changed for the user.
    async fn memberships(&self) -> Result<Arc<Vec<(RoomNo, OwnMembership)>>, Error> {
        let (inner, user) = (self.span.inner, self.span.viewer.user_no);
        let known = &inner.activity.memberships;
        let changed = inner.store.who().user_last(user);
        if let Some(known) = known.get(&user).filter(|known| changed <= known.at) {
            return Ok(known.rows);
        }
        let rows = self.span.snapshot.scan(&schema::MEMBERSHIPS, &user, Direction::Forward, usize::MAX).await?;
        let rows: Arc<Vec<_>> = Arc::new(rows.into_iter().map(|((_, room), own)| (room, own)).collect());
        // What the snapshot has beyond this changes the user later than this.
        known.insert(user, Memberships { at: self.span.to.position, rows: rows.clone() });
        Ok(rows)
    }

    /// Rooms that the user left are listed only to say so; those that others put the user out of, always.
    async fn is_listed(&self, room: RoomNo, own: &OwnMembership) -> Result<bool, Error> {
        if own.forgotten {
            return Ok(false);
        }
        let was_sent = || self.asked.had.rooms.contains_key(&room);
        Ok(match own.membership {
            Membership::Join | Membership::Knock => true,
            Membership::Invite => self.span.wants_invite(own).await?,
            Membership::Ban => own.left_at.is_some() || was_sent(),
            Membership::Leave => was_sent() || (own.left_at.is_some() && self.was_kicked(room, own).await?),
        })
    }

    async fn was_kicked(&self, room: RoomNo, own: &OwnMembership) -> Result<bool, Error> {
        let Some(no) = own.event else { return Ok(false) };
        let event = self.span.inner.store.events().get(self.span.snapshot, room, no).await?;
        Ok(event.is_some_and(|event| event.header.sender != self.span.viewer.user.as_str()))
    }

    async fn last(&self, room: RoomNo) -> Result<Last, Error> {
        let inner = self.span.inner;
        let seen = inner.store.who().room_last(room);
        if let Some(last) = inner.activity.last.get(&room).filter(|last| last.seen == seen) {
            return Ok(last);
        }
        let (from, to) = (Bound::Included((room, Position::MIN)), Bound::Included((room, Position::MAX)));
        let rows = self.span.snapshot.range(&schema::TIMELINE, from, to, Direction::Backward, 1).await?;
        let any = rows.first().map_or(Position::MIN, |((_, at), _)| *at);
        let last = Last { seen, any, bump: None };
        inner.activity.last.insert(room, last);
        Ok(last)
    }

    /// Where something happened last in a room.
    async fn activity(&self, room: RoomNo) -> Result<Position, Error> {
        Ok(self.last(room).await?.any)
    }

    /// Where something happened last that moves a room up in a client's list.
    pub(super) async fn bump(&self, room: RoomNo) -> Result<Position, Error> {
        let last = self.last(room).await?;
        if let Some(bump) = last.bump {
            return Ok(bump);
        }
        let store = &self.span.inner.store;
        let (mut end, mut left, mut page) = (Position::MAX, LOOKED_AT, 8);
        let mut bump = None;
        while bump.is_none() && left > 0 {
            let (from, to) = (Bound::Included((room, Position::MIN)), Bound::Included((room, end)));
            let wanted = page.min(left);
            let rows = self.span.snapshot.range(&schema::TIMELINE, from, to, Direction::Backward, wanted).await?;
            let Some(((_, oldest), _)) = rows.last() else { break };
            end = Position(oldest.0.saturating_sub(1));
            left -= rows.len();
            page *= 4;
            let nos: Vec<_> = rows.iter().map(|(_, no)| *no).collect();
            let events = store.events().get_many(self.span.snapshot, room, &nos).await?;
            let bumping = |kind: &str| BUMPING.contains(&kind);
            let found = rows.iter().zip(events).find(|(_, event)| {
                event.as_ref().is_some_and(|event| bumping(&event.header.kind) && event.header.redacted_by.is_none())
            });
            bump = found.map(|(((_, at), _), _)| *at);
            if rows.len() < wanted {
                break;
            }
        }
        let bump = bump.unwrap_or(last.any);
        self.span.inner.activity.last.insert(room, Last { bump: Some(bump), ..last });
        Ok(bump)
    }

    /// The type of a room that this server is in.
    async fn kind(&self, room: RoomNo) -> Result<Option<Arc<str>>, Error> {
        let inner = self.span.inner;
        if let Some(kind) = inner.activity.kinds.get(&room) {
            return Ok(kind);
        }
        let Some(head) = self.span.snapshot.get(&schema::ROOMS, &room).await? else { return Ok(None) };
        let create = inner.store.events().get(self.span.snapshot, room, head.create).await?;
        let kind = create.and_then(|create| text(create.content(), "type"));
        inner.activity.kinds.insert(room, kind.clone());
        Ok(kind)
    }
}

/// A field of an object that is a string.
pub(super) fn text(json: &[u8], field: &str) -> Option<Arc<str>> {
    let content: serde_json::Value = serde_json::from_slice(json).ok()?;
    Some(content.get(field)?.as_str()?.into())
}

/// The rooms that a user calls direct chats (Client-Server API, "Direct Messaging").
pub(super) async fn direct(snapshot: &Snapshot, viewer: &Viewer) -> Result<HashSet<String>, Error> {
    let row = account_data::get(snapshot, viewer.user_no, None, "m.direct").await?;
    let by_user = row.and_then(|row| serde_json::from_slice::<BTreeMap<String, serde_json::Value>>(&row.json).ok());
    let lists = by_user.unwrap_or_default().into_values();
    let rooms = lists.flat_map(|rooms| Vec::<String>::deserialize(rooms).unwrap_or_default());
    Ok(rooms.collect())
}

/// A list's filters, with what they have to know.
struct Sieve {
    filters: Filters,
    /// The rooms of the spaces that are asked for.
    children: Option<HashSet<String>>,
}

impl Sieve {
    async fn new(look: &Look<'_>, filters: Filters) -> Result<Sieve, Error> {
        let mut children = None;
        if let Some(spaces) = &filters.spaces {
            let mut all = HashSet::new();
            for space in spaces.iter().take(100) {
                all.extend(look.children_of(space).await?);
            }
            children = Some(all);
        }
        Ok(Sieve { filters, children })
    }

    async fn keeps(&self, look: &Look<'_>, room: RoomNo, own: &OwnMembership) -> Result<bool, Error> {
        let Filters { is_dm, is_encrypted, is_invited, room_types, not_room_types, tags, not_tags, .. } = &self.filters;
        if is_invited.is_some_and(|wanted| wanted != (own.membership == Membership::Invite)) {
            return Ok(false);
        }
        if is_dm.is_some() || self.children.is_some() {
            let id = look.span.inner.store.names().room_id(look.span.snapshot, room).await?;
            let is_child = || self.children.as_ref().is_none_or(|children| children.contains(&*id));
            if is_dm.is_some_and(|wanted| wanted != look.direct.contains(&*id)) || !is_child() {
                return Ok(false);
            }
        }
        if let Some(wanted) = is_encrypted
            && *wanted != look.is_encrypted(room, own).await?
        {
            return Ok(false);
        }
        if room_types.is_some() || not_room_types.is_some() {
            let kind = match &own.stripped {
                Some(stripped) => told(stripped, "m.room.create").and_then(|content| text(&content, "type")),
                None => look.kind(room).await?,
            };
            let has = |kinds: &Vec<Option<String>>| kinds.iter().any(|it| it.as_deref() == kind.as_deref());
            if not_room_types.as_ref().is_some_and(has) || room_types.as_ref().is_some_and(|kinds| !has(kinds)) {
                return Ok(false);
            }
        }
        if tags.is_some() || not_tags.is_some() {
            let has = look.tags(room).await?;
            let any = |tags: &Vec<String>| tags.iter().any(|tag| has.contains(tag));
            if not_tags.as_ref().is_some_and(any) || tags.as_ref().is_some_and(|tags| !any(tags)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The content of an event in `invite_state`.
fn told(stripped: &[u8], kind: &str) -> Option<Vec<u8>> {
    let events: Vec<serde_json::Value> = serde_json::from_slice(stripped).ok()?;
    let event = events.into_iter().find(|event| event["type"] == kind)?;
    Some(event["content"].to_string().into_bytes())
}

impl Look<'_> {
    async fn is_encrypted(&self, room: RoomNo, own: &OwnMembership) -> Result<bool, Error> {
        if let Some(stripped) = &own.stripped {
            return Ok(told(stripped, "m.room.encryption").is_some());
        }
        Ok(self.span.snapshot.get(&schema::ROOMS, &room).await?.is_some_and(|head| head.encrypted))
    }

    async fn tags(&self, room: RoomNo) -> Result<HashSet<String>, Error> {
        #[derive(Deserialize)]
        struct Content {
            tags: BTreeMap<String, serde::de::IgnoredAny>,
        }
        let row = account_data::get(self.span.snapshot, self.span.viewer.user_no, Some(room), "m.tag").await?;
        let content = row.and_then(|row| serde_json::from_slice::<Content>(&row.json).ok());
        Ok(content.map(|content| content.tags.into_keys().collect()).unwrap_or_default())
    }

    /// The rooms that a space names, if the user is in it.
    async fn children_of(&self, space: &str) -> Result<Vec<String>, Error> {
        let (store, snapshot, viewer) = (&self.span.inner.store, self.span.snapshot, self.span.viewer);
        let Some(room) = store.names().room(snapshot, space).await? else { return Ok(Vec::new()) };
        let Some(head) = snapshot.get(&schema::ROOMS, &room).await? else { return Ok(Vec::new()) };
        let eyes = Eyes::open(store, snapshot, room, viewer.user_no, viewer.user.as_str()).await?;
        if !eyes.is_joined() {
            return Ok(Vec::new());
        }
        let changes = eyes.state.changes_of(Class::Others, stoa_store::state::Root::EMPTY, head.root).await?;
        let nos: Vec<_> = changes.iter().filter_map(|change| change.after).collect();
        let events = store.events().get_many(snapshot, room, &nos).await?;
        let is_child = |json: &[u8]| {
            let content: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
            content["via"].as_array().is_some_and(|via| !via.is_empty())
        };
        let children = events.into_iter().flatten().filter(|event| event.header.kind == "m.space.child");
        let children = children.filter(|event| is_child(event.content()));
        Ok(children.filter_map(|event| event.header.state_key.clone()).collect())
    }
}
