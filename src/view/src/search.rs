//! What somebody may see of what a search found (Client-Server API, "Server Side Search"). The index says what fits; here it is
//! decided in which rooms may be looked, and each event is looked at as in `/messages` before anybody hears of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use roaring::RoaringBitmap;
use stoa_event::ids::RoomId;
use stoa_store::{Direction, EventNo, Membership, Position, RoomNo, Snapshot, rows::events::StoredEvent, schema};

use crate::{
    Error, RoomEventFilter, View, Viewer,
    bundle::{Bundler, ignored},
    json::Object,
    messages::{place_after, place_before, senders},
    reach::{Reach, state_after},
    show::Visible,
};

/// How many events before or after one are shown at most.
const MAX_AROUND: usize = 50;
/// How many senders a filter may name that count; nobody has so many friends.
const MAX_SENDERS: usize = 1000;

/// Where somebody may search.
#[derive(Clone, Debug, Default)]
pub struct Searchable {
    /// The rooms; of those that were left, only what was before.
    pub rooms: HashMap<RoomNo, Option<Position>>,
    /// Only what these say.
    pub senders: Option<RoaringBitmap>,
    /// Nothing that these say: those that the filter names, and those that the user ignores.
    pub not_senders: RoaringBitmap,
}

/// An event that fits and may be seen.
#[derive(Clone)]
pub struct FoundEvent {
    /// Its room.
    pub room: RoomNo,
    /// The room's id.
    pub room_id: Arc<str>,
    /// The event that is shown: of an edit, the message.
    it: Visible,
    /// What fits: the event, or its latest edit.
    fits: Arc<StoredEvent>,
}

/// What is shown around an event.
#[derive(Clone, Copy, Debug)]
pub struct Around {
    /// How many events before it.
    pub before: usize,
    /// How many events after it.
    pub after: usize,
    /// Whether with the names that the senders had.
    pub profiles: bool,
}

/// A result as it is written.
pub struct ShownEvent {
    /// The event.
    pub event: Vec<u8>,
    /// What is around it, if that was asked for.
    pub context: Option<Vec<u8>>,
}

impl FoundEvent {
    /// The id of the event that is shown.
    pub fn event_id(&self) -> &str {
        &self.it.event.header.event_id
    }

    /// Who sent it.
    pub fn sender(&self) -> &str {
        &self.it.event.header.sender
    }

    /// What fits: the event, or its latest edit.
    pub fn fits(&self) -> &StoredEvent {
        &self.fits
    }
}

impl View {
    /// Where a user may search: in the rooms where the user is or was, but for those that are encrypted.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn searchable(&self, viewer: &Viewer, filter: &RoomEventFilter) -> Result<Searchable, Error> {
        let store = &self.inner.store;
        let snapshot = store.snapshot().await?;
        let rows = snapshot.scan(&schema::MEMBERSHIPS, &viewer.user_no, Direction::Forward, usize::MAX).await?;
        let mut rooms: HashMap<RoomNo, Option<Position>> = HashMap::new();
        for ((_, room), own) in rows.into_iter().filter(|(_, own)| !own.forgotten) {
            let until = match own.membership {
                Membership::Join => None,
                _ => match own.left_at {
                    Some(left) => Some(left),
                    None => continue,
                },
            };
            if (filter.rooms.is_none() && filter.not_rooms.is_empty())
                || filter.wants_room(&store.names().room_id(&snapshot, room).await?)
            {
                rooms.insert(room, until);
            }
        }
        let heads = snapshot.get_many(&schema::ROOMS, rooms.keys().copied().collect::<Vec<_>>()).await?;
        let encrypted: HashSet<RoomNo> = rooms
            .keys()
            .zip(heads)
            .filter(|(_, head)| head.as_ref().is_none_or(|head| head.encrypted))
            .map(|(room, _)| *room)
            .collect();
        rooms.retain(|room, _| !encrypted.contains(room));
        let senders = match &filter.senders {
            Some(senders) => Some(self.numbers(&snapshot, senders).await?),
            None => None,
        };
        let mut not_senders = self.numbers(&snapshot, &filter.not_senders).await?;
        not_senders |= self.numbers(&snapshot, ignored(&snapshot, viewer.user_no).await?.iter()).await?;
        Ok(Searchable { rooms, senders, not_senders })
    }

    async fn numbers<'u>(
        &self,
        snapshot: &Snapshot,
        users: impl IntoIterator<Item = &'u String>,
    ) -> Result<RoaringBitmap, Error> {
        let mut numbers = RoaringBitmap::new();
        for user in users.into_iter().take(MAX_SENDERS) {
            numbers.extend(self.inner.store.names().user(snapshot, user).await?.map(|user| user.0));
        }
        Ok(numbers)
    }

    /// Which of these events a user may see, in their order. An event that was edited is found by its latest edit only.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn found(
        &self,
        viewer: &Viewer,
        hits: &[(RoomNo, EventNo)],
        filter: &RoomEventFilter,
    ) -> Result<Vec<Option<FoundEvent>>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let mut by_room: BTreeMap<RoomNo, Vec<usize>> = BTreeMap::new();
        for (i, (room, _)) in hits.iter().enumerate() {
            by_room.entry(*room).or_default().push(i);
        }
        let mut found: Vec<Option<FoundEvent>> = vec![None; hits.len()];
        for (room, places) in by_room {
            let room_id = self.inner.store.names().room_id(&snapshot, room).await?;
            let Some(id) = parse(&room_id) else { continue };
            let mut reach = match self.reach(&snapshot, viewer, id).await {
                Err(Error::Forbidden(_)) => continue,
                reach => reach?,
            };
            let nos: Vec<EventNo> = places.iter().map(|i| hits[*i].1).collect();
            let events = self.inner.store.events().get_many(&snapshot, room, &nos).await?;
            for ((i, no), event) in places.into_iter().zip(nos).zip(events) {
                let Some(event) = event else { continue };
                let judged = reach.judge(no, event).await?;
                found[i] = judged.filter(|(it, _)| filter.wants(&it.event)).map(|(it, fits)| FoundEvent {
                    room,
                    room_id: room_id.clone(),
                    it,
                    fits,
                });
            }
        }
        Ok(found)
    }

    /// Writes results.
    ///
    /// # Errors
    /// Where the store fails, or the user may not look any more.
    pub async fn show_found(
        &self,
        viewer: &Viewer,
        results: &[FoundEvent],
        around: Option<Around>,
    ) -> Result<Vec<ShownEvent>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let mut shown = Vec::with_capacity(results.len());
        for result in results {
            let Some(id) = parse(&result.room_id) else { continue };
            let mut reach = self.reach(&snapshot, viewer, id).await?;
            let event = reach.render(std::slice::from_ref(&result.it)).await?.pop().unwrap_or_default();
            let context = match around {
                Some(around) => Some(reach.around(&result.it, around).await?),
                None => None,
            };
            shown.push(ShownEvent { event, context });
        }
        Ok(shown)
    }

    /// The state of the rooms of results, as the user may see it now. With lazy loading, members are only those who sent them.
    ///
    /// # Errors
    /// Where the store fails, or the user may not look any more.
    pub async fn state_of_found(
        &self,
        viewer: &Viewer,
        results: &[FoundEvent],
        lazy: bool,
    ) -> Result<Vec<(Arc<str>, Vec<Vec<u8>>)>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let mut rooms: BTreeMap<Arc<str>, BTreeSet<&str>> = BTreeMap::new();
        for result in results {
            rooms.entry(result.room_id.clone()).or_default().insert(result.sender());
        }
        let mut all = Vec::with_capacity(rooms.len());
        for (room_id, senders) in rooms {
            let Some(id) = parse(&room_id) else { continue };
            let reach = self.reach(&snapshot, viewer, id).await?;
            let mut state = reach.all_state(reach.present, !lazy).await?;
            if lazy {
                state.extend(reach.members(reach.present, senders).await?);
            }
            let state = reach.render(&state).await?;
            all.push((room_id, state));
        }
        Ok(all)
    }
}

fn parse(room_id: &str) -> Option<&RoomId> {
    <&RoomId>::try_from(room_id).ok()
}

impl Reach<'_> {
    /// What is shown of something that fits, and what of it fits: of an edit the message, if it is the latest that the user
    /// may see; of a message itself only if there is none.
    async fn judge(
        &mut self,
        no: EventNo,
        event: Arc<StoredEvent>,
    ) -> Result<Option<(Visible, Arc<StoredEvent>)>, Error> {
        if event.header.redacted_by.is_some() {
            return Ok(None);
        }
        let Some(membership) = self.eyes.look(&event).await? else { return Ok(None) };
        if event.header.state_key.is_some() {
            return Ok(Some((Visible { event: event.clone(), membership: Some(membership) }, event)));
        }
        let edited = event.header.relates_to.as_ref().filter(|it| it.rel_type == "m.replace");
        let Some(edited) = edited.map(|it| it.event_id.clone()) else {
            let edit = self.latest_edit(no, &event).await?;
            let it = Visible { event: event.clone(), membership: Some(membership) };
            return Ok(edit.is_none().then_some((it, event)));
        };
        let Some((place, message)) = self.inner.store.events().by_id(self.snapshot, &edited).await? else {
            return Ok(None);
        };
        if place.room != self.room {
            return Ok(None);
        }
        let Some(membership) = self.eyes.look(&message).await? else { return Ok(None) };
        let latest = self.latest_edit(place.event, &message).await?;
        let is_it = latest.is_some_and(|latest| latest.header.event_id == event.header.event_id);
        Ok(is_it.then_some((Visible { event: message, membership: Some(membership) }, event)))
    }

    async fn latest_edit(&mut self, no: EventNo, event: &StoredEvent) -> Result<Option<Arc<StoredEvent>>, Error> {
        let user = self.viewer.user.as_str();
        Bundler::new(&mut self.eyes, self.viewer.user_no, user).await?.latest_edit(no, event).await
    }

    /// What was said before and after an event, where that begins and ends, and how the senders were called.
    async fn around(&mut self, it: &Visible, around: Around) -> Result<Vec<u8>, Error> {
        let filter = RoomEventFilter::default();
        let (just_before, just_after) = (place_before(it), place_after(it));
        let before = self.walk(just_before, None, true, around.before.min(MAX_AROUND), &filter).await?;
        let after = self.walk(just_after, None, false, around.after.min(MAX_AROUND), &filter).await?;
        let mut out = Vec::new();
        let mut body = Object::new(&mut out);
        body.str("start", &before.events.last().map_or(just_before, place_before).to_string());
        body.str("end", &after.events.last().map_or(just_after, place_after).to_string());
        body.array("events_before", self.render(&before.events).await?);
        body.array("events_after", self.render(&after.events).await?);
        if around.profiles {
            let all: Vec<Visible> = before.events.iter().chain([it]).chain(&after.events).cloned().collect();
            let members = self.members(state_after(&it.event), senders(&all)).await?;
            let mut profiles = Object::new(body.key("profile_info"));
            for member in &members {
                let Some(user) = &member.event.header.state_key else { continue };
                let mut profile = Object::new(profiles.key(user));
                crate::people::name_and_picture(&mut profile, "displayname", member.event.content());
                profile.end();
            }
            profiles.end();
        }
        body.end();
        Ok(out)
    }
}
