//! What users are told of outside of `/sync`: what their push rules say to one event, what is said of it, and how much is unread
//! (Client-Server API, "Push Notifications"). It is judged by the same hand that counts, so that both agree.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use quick_cache::sync::Cache;
use ruma_common::push::Action;
use serde::Deserialize;
use serde_json::value::RawValue;
use stoa_event::ids::OwnedUserId;
use stoa_store::{
    Corrupt, Direction, EventNo, Membership, Position, RoomNo, Snapshot, UserNo,
    rows::{
        events::{Header, Standing, StoredEvent},
        rooms::{Head, OwnMembership},
    },
    schema,
    state::Root,
};

use crate::{
    Error, Inner, View, Viewer,
    counts::{self, Judge},
    eyes::Eyes,
    filter::Filter,
    sync::Span,
    token::SyncToken,
};

/// Of how many users the number of unread messages is kept in memory.
const KNOWN: usize = 2000;

/// How much was unread, by room.
struct Badge {
    upto: Position,
    rules: Option<Position>,
    rooms: HashMap<RoomNo, u64>,
    invites: u64,
}

/// What was worked out before.
pub(crate) struct Badges {
    known: Cache<UserNo, Arc<Badge>>,
}

impl Default for Badges {
    fn default() -> Self {
        Badges { known: Cache::new(KNOWN) }
    }
}

/// A new event, with what is the same for all who may be told of it.
pub struct News {
    room: RoomNo,
    event: Arc<StoredEvent>,
    at: Position,
    head: Head,
    /// The root of the thread that it is in.
    thread: Option<String>,
}

/// An invite of which somebody is to be told.
pub struct Invited {
    /// The place of the invite.
    pub at: Position,
    /// The event; `None` where this server is not in the room.
    pub event: Option<EventNo>,
    /// The actions that the push rules want: a JSON array.
    pub actions: Vec<u8>,
}

/// What is said of an event.
#[derive(Clone, Debug)]
pub struct About {
    /// The room.
    pub room_id: String,
    /// The event id, if it is known.
    pub event_id: Option<String>,
    /// The event type.
    pub kind: String,
    /// Who sent it.
    pub sender: String,
    /// The sender's name in the room.
    pub sender_name: Option<String>,
    /// The name of the room.
    pub room_name: Option<String>,
    /// An alias of the room.
    pub room_alias: Option<String>,
    /// For a member event: whether it is the user's own.
    pub is_target: Option<bool>,
    /// The content.
    pub content: Box<RawValue>,
}

/// What one of our users is to be told, as things are at one position.
pub struct Notices<'a> {
    view: &'a View,
    snapshot: &'a Snapshot,
    viewer: Viewer,
    filter: Filter,
}

impl View {
    /// What a user is to be told.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn notices<'a>(&'a self, snapshot: &'a Snapshot, user: UserNo) -> Result<Notices<'a>, Error> {
        let id = self.inner.store.names().user_id(snapshot, user).await?;
        let id = OwnedUserId::try_from(&*id).map_err(|_| stoa_store::Error::from(Corrupt("a user's id is none")))?;
        let viewer = Viewer { user: id, user_no: user, device: String::new() };
        Ok(Notices { view: self, snapshot, viewer, filter: Filter::default() })
    }
}

impl View {
    /// A new event of a room; `None` where nobody is to be told of it, whoever they are.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn news(&self, snapshot: &Snapshot, room: RoomNo, no: EventNo) -> Result<Option<News>, Error> {
        let events = self.inner.store.events();
        let Some(event) = events.get(snapshot, room, no).await? else { return Ok(None) };
        let header = &event.header;
        let (Standing::Accepted, Some(at), None) = (header.standing, header.at, header.redacted_by) else {
            return Ok(None);
        };
        let Some(head) = snapshot.get(&schema::ROOMS, &room).await? else { return Ok(None) };
        let thread = events.thread_of(snapshot, room, &event).await?;
        Ok(Some(News { room, at, head, thread, event }))
    }
}

impl Notices<'_> {
    fn inner(&self) -> &Inner {
        &self.view.inner
    }

    async fn span(&self, to: Position) -> Result<Span<'_>, Error> {
        let to = SyncToken { position: to, ..SyncToken::default() };
        Span::new(self.inner(), self.snapshot, &self.viewer, &self.filter, (None, to)).await
    }

    async fn own(&self, room: RoomNo) -> Result<Option<OwnMembership>, Error> {
        Ok(self.snapshot.get(&schema::MEMBERSHIPS, &(self.viewer.user_no, room)).await?)
    }

    /// The actions, a JSON array, that the push rules want for a new event of a room that the user was in when it happened;
    /// `None` where they do not want the user to be notified.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn actions(&self, news: &News) -> Result<Option<Vec<u8>>, Error> {
        let own = self.own(news.room).await?.filter(|own| own.membership == Membership::Join);
        if own.and_then(|own| own.joined_at).is_none_or(|joined| news.at <= joined) {
            return Ok(None);
        }
        self.judge(news.room, &news.head, &news.event, news.thread.as_deref()).await
    }

    async fn judge(
        &self,
        room: RoomNo,
        head: &Head,
        event: &StoredEvent,
        thread: Option<&str>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let span = self.span(self.snapshot.position()).await?;
        if counts::is_ignored(&span, event) {
            return Ok(None);
        }
        let (rules, _) = span.rules().await?;
        Judge::new(&span, room, head, rules).judge(event, thread, notifying).await
    }

    /// An invite that the user has now and wants to hear of.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn invited(&self, room: RoomNo) -> Result<Option<Invited>, Error> {
        let Some(own) = self.own(room).await?.filter(|own| own.membership == Membership::Invite) else {
            return Ok(None);
        };
        if !self.span(self.snapshot.position()).await?.wants_invite(&own).await? {
            return Ok(None);
        }
        let actions = match own.event {
            Some(no) => {
                let event = self.inner().store.events().get(self.snapshot, room, no).await?;
                let head = self.snapshot.get(&schema::ROOMS, &room).await?;
                let (Some(event), Some(head)) = (event, head) else { return Ok(None) };
                self.judge(room, &head, &event, None).await?
            }
            None => {
                let Some(event) = shown_member(&own, self.viewer.user.as_str()) else { return Ok(None) };
                self.judge(room, &unknown_room(&own), &event, None).await?
            }
        };
        Ok(actions.map(|actions| Invited { at: own.at, event: own.event, actions }))
    }

    /// Whether the user still wants to be told of an event: it is there, the user is in the room or invited by it, and has not
    /// read it.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn still_news(&self, room: RoomNo, no: EventNo, event: &StoredEvent) -> Result<bool, Error> {
        let Some(own) = self.own(room).await? else { return Ok(false) };
        let header = &event.header;
        let Some(at) = header.at.filter(|_| header.redacted_by.is_none()) else { return Ok(false) };
        match own.membership {
            Membership::Invite => return Ok(own.event == Some(no)),
            Membership::Join => {}
            _ => return Ok(false),
        }
        let span = self.span(self.snapshot.position()).await?;
        let (read, _) = counts::read(&span, room, own.joined_at.unwrap_or_default(), None).await?;
        let thread = self.inner().store.events().thread_of(self.snapshot, room, event).await?;
        Ok(!read.covers(thread.as_deref(), at))
    }

    /// What is said of an event.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn about(&self, room: RoomNo, event: &StoredEvent) -> Result<About, Error> {
        let (store, header, user) = (&self.inner().store, &event.header, self.viewer.user.as_str());
        let eyes = Eyes::with(store, self.snapshot, room, user, None).await?;
        let root = self.snapshot.get(&schema::ROOMS, &room).await?.map_or(Root::EMPTY, |head| head.root);
        let mut texts = [None, None, None];
        let wanted = [
            ("m.room.member", header.sender.as_str(), "displayname"),
            ("m.room.name", "", "name"),
            ("m.room.canonical_alias", "", "alias"),
        ];
        for (text, (kind, key, field)) in texts.iter_mut().zip(wanted) {
            let found = eyes.event_of(root, kind, key).await?;
            *text = found.and_then(|found| text_of(found.content(), field));
        }
        let [sender_name, room_name, room_alias] = texts;
        Ok(About {
            room_id: store.names().room_id(self.snapshot, room).await?.to_string(),
            event_id: Some(header.event_id.clone()),
            kind: header.kind.clone(),
            sender: header.sender.clone(),
            sender_name,
            room_name,
            room_alias,
            is_target: is_target(header, user),
            content: raw(event.content()),
        })
    }

    /// What is said of an invite to a room that this server is not in; `None` where it is not there any more.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn about_invite(&self, room: RoomNo, at: Position) -> Result<Option<About>, Error> {
        let own = self.own(room).await?;
        let Some(own) = own.filter(|own| own.membership == Membership::Invite && own.at == at) else {
            return Ok(None);
        };
        let user = self.viewer.user.as_str();
        let Some(event) = shown_member(&own, user) else { return Ok(None) };
        let said = |kind, key, field| shown(&own, kind, key).and_then(|it| text_of(it.content.get().as_bytes(), field));
        Ok(Some(About {
            room_id: self.inner().store.names().room_id(self.snapshot, room).await?.to_string(),
            event_id: own.outside.as_ref().and_then(|outside| outside.event_id.clone()),
            kind: event.header.kind.clone(),
            sender: event.header.sender.clone(),
            sender_name: said("m.room.member", &event.header.sender, "displayname"),
            room_name: said("m.room.name", "", "name"),
            room_alias: said("m.room.canonical_alias", "", "alias"),
            is_target: is_target(&event.header, user),
            content: raw(event.content()),
        }))
    }

    /// How much is unread: the notifications of all rooms that the user is in, and invites.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn unread(&self) -> Result<u64, Error> {
        let (inner, user) = (self.inner(), self.viewer.user_no);
        let who = inner.store.who();
        // What the snapshot has beyond this is counted the next time.
        let upto = who.position().min(self.snapshot.position());
        let joined = who.joined(user);
        let span = self.span(upto).await?;
        let (_, rules) = span.rules().await?;
        let known = inner.badges.known.get(&user).filter(|known| known.rules == rules && known.upto <= upto);
        let mut badge = Badge { upto, rules, rooms: HashMap::new(), invites: 0 };
        let stale = match known {
            Some(known) => {
                let kept = known.rooms.iter().filter(|(room, _)| joined.contains(room.0));
                badge.rooms = kept.map(|(room, count)| (*room, *count)).collect();
                badge.invites = known.invites;
                let mut stale: BTreeSet<RoomNo> = who.changed_rooms(user, known.upto).into_iter().collect();
                stale.extend(joined.iter().map(RoomNo).filter(|room| !badge.rooms.contains_key(room)));
                if who.user_last(user) > known.upto {
                    stale.extend(self.read_since(known.upto).await?);
                    badge.invites = self.invites(&span).await?;
                }
                stale
            }
            None => {
                badge.invites = self.invites(&span).await?;
                joined.iter().map(RoomNo).collect()
            }
        };
        for room in stale {
            let Some(count) = self.unread_in(&span, room).await? else { continue };
            badge.rooms.insert(room, count);
        }
        let total = badge.rooms.values().sum::<u64>() + badge.invites;
        inner.badges.known.insert(user, Arc::new(badge));
        Ok(total)
    }

    async fn unread_in(&self, span: &Span<'_>, room: RoomNo) -> Result<Option<u64>, Error> {
        let own = self.own(room).await?.filter(|own| own.membership == Membership::Join);
        let head = self.snapshot.get(&schema::ROOMS, &room).await?;
        let (Some(own), Some(head)) = (own, head) else { return Ok(None) };
        let mut unread = counts::unread(span, room, &head, own.joined_at.unwrap_or_default()).await?;
        unread.merge_threads();
        Ok(Some(unread.main.notifications))
    }

    /// The rooms in which the user said after a position to have read something.
    async fn read_since(&self, since: Position) -> Result<Vec<RoomNo>, Error> {
        let user = self.viewer.user_no;
        let (from, to) = (Bound::Included((user, since.next())), Bound::Included(user));
        let table = &schema::RECEIPTS_BY_USER;
        let rows = self.snapshot.range(table, from, to, Direction::Forward, usize::MAX).await?;
        Ok(rows.into_iter().map(|(_, key)| key.room).collect())
    }

    async fn invites(&self, span: &Span<'_>) -> Result<u64, Error> {
        let user = self.viewer.user_no;
        let mut invites = 0;
        for (_, own) in self.snapshot.scan(&schema::MEMBERSHIPS, &user, Direction::Forward, usize::MAX).await? {
            if own.membership == Membership::Invite && span.wants_invite(&own).await? {
                invites += 1;
            }
        }
        Ok(invites)
    }
}

/// The actions as JSON, if they notify.
pub(crate) fn notifying(actions: &[Action]) -> Option<Vec<u8>> {
    let notifies = actions.iter().any(Action::should_notify);
    notifies.then(|| serde_json::to_vec(actions).unwrap_or_else(|_| b"[]".to_vec()))
}

fn is_target(header: &Header, user: &str) -> Option<bool> {
    let key = header.state_key.as_deref().filter(|_| header.kind == "m.room.member")?;
    Some(key == user)
}

/// A text in a content; an empty one says nothing.
fn text_of(content: &[u8], field: &str) -> Option<String> {
    let content: serde_json::Value = serde_json::from_slice(content).ok()?;
    content[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn raw(json: &[u8]) -> Box<RawValue> {
    let text = String::from_utf8_lossy(json).into_owned();
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// An event as who is invited is shown it.
#[derive(Deserialize)]
struct Stripped {
    #[serde(rename = "type")]
    kind: String,
    state_key: String,
    sender: String,
    content: Box<RawValue>,
}

fn shown(own: &OwnMembership, kind: &str, key: &str) -> Option<Stripped> {
    let all: Vec<Box<RawValue>> = serde_json::from_slice(own.stripped.as_deref()?).ok()?;
    // The invite itself comes last.
    let mut all = all.iter().rev().filter_map(|one| serde_json::from_str::<Stripped>(one.get()).ok());
    all.find(|one| one.kind == kind && one.state_key == key)
}

/// The member event that invites a user to a room that this server is not in, as far as it is known.
fn shown_member(own: &OwnMembership, user: &str) -> Option<StoredEvent> {
    let member = shown(own, "m.room.member", user)?;
    let before = br#"{"content":"#;
    let content = member.content.get().as_bytes();
    let json = [&before[..], content, b"}"].concat();
    let header = Header {
        event_id: String::new(),
        kind: member.kind,
        state_key: Some(member.state_key),
        sender: member.sender,
        origin_server_ts: 0,
        depth: 0,
        content_from: before.len() as u32,
        content_to: (before.len() + content.len()) as u32,
        standing: Standing::Outlier,
        at: Some(own.at),
        before: None,
        after: None,
        replaces: None,
        redacted_by: None,
        prev: Vec::new(),
        auth: Vec::new(),
        txn: None,
        redacts: None,
        relates_to: None,
        gap: false,
        partial: false,
    };
    Some(StoredEvent { header, json: json.into() })
}

/// A room of which nothing is known.
fn unknown_room(own: &OwnMembership) -> Head {
    Head {
        version: own.outside.as_ref().map(|outside| outside.version.clone()).unwrap_or_default(),
        create: EventNo(0),
        next_event: EventNo(0),
        state_keys: 0,
        extremities: Vec::new(),
        root: Root::EMPTY,
        last: Position::MIN,
        joined: 0,
        invited: 0,
        partial: true,
        member_keys: 0,
        encrypted: false,
        whole_since: None,
    }
}
