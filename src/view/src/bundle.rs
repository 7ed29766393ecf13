//! What relates to an event, summed up beside it (Client-Server API, "Aggregations of child events"): its latest edit, its
//! thread, and what refers to it.
//!
//! Costs in proportion to the page: one look whether anything relates to any event of it, then the children of each.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use stoa_store::{
    Direction, EventNo, Snapshot, UserNo,
    rows::events::{Relation, StoredEvent, THREAD},
    schema,
};

use crate::{
    Error,
    eyes::Eyes,
    json::Object,
    show::{Audience, Visible, one},
};

/// How many children of one event are looked at, newest first.
const CHILDREN: usize = 5000;
/// How many children of all events of a page are looked at; each event's newest few are in any case.
const CHILDREN_OF_PAGE: usize = 20_000;
const CHILDREN_AT_LEAST: usize = 50;
/// How many edits are compared, and how many replies are tried for the latest that may be seen.
const CANDIDATES: usize = 50;
/// How many references are named.
const REFERENCES: usize = 100;

/// An event with its number.
pub(crate) type Numbered = (EventNo, Arc<StoredEvent>);

/// What relates to one event, as far as somebody may see it.
#[derive(Default)]
pub(crate) struct Bundle {
    edit: Option<Arc<StoredEvent>>,
    references: Vec<String>,
    pub(crate) thread: Option<Thread>,
}

/// A thread, seen from its root.
pub(crate) struct Thread {
    latest: Numbered,
    count: usize,
    /// Whether who looks sent its root or something in it.
    pub(crate) participated: bool,
}

/// Bundles by their events.
pub(crate) type Bundles = HashMap<EventNo, Bundle>;

/// Somebody who looks at what relates to events of a room.
pub(crate) struct Bundler<'a, 'e> {
    eyes: &'e mut Eyes<'a>,
    user_id: &'e str,
    ignored: HashSet<String>,
    /// How many children may be looked at still.
    left: usize,
}

impl<'a, 'e> Bundler<'a, 'e> {
    pub(crate) async fn new(eyes: &'e mut Eyes<'a>, user: UserNo, user_id: &'e str) -> Result<Bundler<'a, 'e>, Error> {
        let ignored = ignored(eyes.snapshot, user).await?;
        Ok(Bundler { eyes, user_id, ignored, left: CHILDREN_OF_PAGE })
    }

    /// Whether who looks wants to hear nothing from a user.
    pub(crate) fn ignores(&self, user: &str) -> bool {
        self.ignored.contains(user)
    }

    /// What relates to each of these events.
    pub(crate) async fn gather(&mut self, parents: &[Numbered]) -> Result<Bundles, Error> {
        let mut bundles = Bundles::new();
        for (no, parent) in parents {
            let bundle = self.of(*no, parent, true).await?;
            if let Some(Thread { latest: (latest, event), .. }) = &bundle.thread
                && !bundles.contains_key(latest)
            {
                // No thread begins in a thread, so this ends here.
                bundles.insert(*latest, self.of(*latest, event, false).await?);
            }
            bundles.insert(*no, bundle);
        }
        Ok(bundles)
    }

    async fn of(&mut self, no: EventNo, parent: &StoredEvent, threads: bool) -> Result<Bundle, Error> {
        let most = CHILDREN.min(self.left).max(CHILDREN_AT_LEAST);
        let prefix = (self.eyes.room, no);
        let rows = self.eyes.snapshot.scan(&schema::RELATIONS, &prefix, Direction::Backward, most).await?;
        self.left = self.left.saturating_sub(rows.len());
        let mut children: Vec<Relation> = rows.into_iter().map(|(_, child)| child).collect();
        children.retain(|child| !self.ignored.contains(&child.sender));
        Ok(Bundle {
            edit: self.edit(parent, &children).await?,
            references: self.references(&children).await?,
            thread: if threads { self.thread(parent, &children).await? } else { None },
        })
    }

    /// The latest valid edit of one event.
    pub(crate) async fn latest_edit(
        &mut self,
        no: EventNo,
        parent: &StoredEvent,
    ) -> Result<Option<Arc<StoredEvent>>, Error> {
        let prefix = (self.eyes.room, no);
        let rows = self.eyes.snapshot.scan(&schema::RELATIONS, &prefix, Direction::Backward, CHILDREN).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let children: Vec<Relation> = rows.into_iter().map(|(_, child)| child).collect();
        self.edit(parent, &children).await
    }

    /// The latest valid edit ("Validity of replacement events").
    async fn edit(&mut self, parent: &StoredEvent, children: &[Relation]) -> Result<Option<Arc<StoredEvent>>, Error> {
        let header = &parent.header;
        let is_edit = header.relates_to.as_ref().is_some_and(|it| it.rel_type == "m.replace");
        if header.redacted_by.is_some() || is_edit {
            return Ok(None);
        }
        let edits = children.iter().filter(|child| {
            child.rel_type == "m.replace" && child.kind == header.kind && child.sender == header.sender
        });
        let mut edits = self.visible(edits.take(CANDIDATES)).await?;
        edits.retain(|(_, edit)| edit.header.kind == "m.room.encrypted" || has_new_content(edit.content()));
        let latest = edits.into_iter().max_by(|(_, a), (_, b)| {
            let key = |event: &StoredEvent| (event.header.origin_server_ts, event.header.event_id.clone());
            key(a).cmp(&key(b))
        });
        Ok(latest.map(|(_, edit)| edit))
    }

    /// What refers to the event, oldest first.
    async fn references(&mut self, children: &[Relation]) -> Result<Vec<String>, Error> {
        let references = children.iter().filter(|child| child.rel_type == "m.reference").take(REFERENCES);
        let found = self.visible(references).await?;
        Ok(found.iter().rev().map(|(_, event)| event.header.event_id.clone()).collect())
    }

    async fn thread(&mut self, root: &StoredEvent, children: &[Relation]) -> Result<Option<Thread>, Error> {
        if root.header.relates_to.is_some() {
            return Ok(None);
        }
        let replies = || children.iter().filter(|child| child.rel_type == THREAD);
        let newest = self.visible(replies().take(CANDIDATES)).await?;
        // Further back they are counted without being looked at: the count is told to be approximate.
        let count = newest.len() + replies().count().saturating_sub(CANDIDATES);
        let participated = root.header.sender == self.user_id || replies().any(|child| child.sender == self.user_id);
        Ok(newest.into_iter().next().map(|latest| Thread { latest, count, participated }))
    }

    /// Those of the children that may be seen.
    async fn visible<'c>(&mut self, children: impl Iterator<Item = &'c Relation>) -> Result<Vec<Numbered>, Error> {
        let nos: Vec<EventNo> = children.map(|child| child.event).collect();
        let events = self.eyes.store.events().get_many(self.eyes.snapshot, self.eyes.room, &nos).await?;
        let mut found = Vec::with_capacity(nos.len());
        for (no, event) in nos.into_iter().zip(events) {
            let Some(event) = event.filter(|event| event.header.redacted_by.is_none()) else { continue };
            if self.eyes.look(&event).await?.is_some() {
                found.push((no, event));
            }
        }
        Ok(found)
    }
}

/// The events of a page to which something relates, with their numbers.
pub(crate) async fn parents(eyes: &Eyes<'_>, events: &[Visible]) -> Result<Vec<Numbered>, Error> {
    // "State events do not currently receive bundled aggregations."
    let plain: Vec<&Visible> = events.iter().filter(|it| it.event.header.state_key.is_none()).collect();
    let ids = plain.iter().map(|it| it.event.header.event_id.clone());
    let places = eyes.snapshot.get_many(&schema::EVENT_IDS, ids).await?;
    let numbered = plain.into_iter().zip(places);
    let mut found: Vec<Numbered> = numbered.filter_map(|(it, place)| Some((place?.event, it.event.clone()))).collect();
    let (low, high) = (found.iter().map(|(no, _)| *no).min(), found.iter().map(|(no, _)| *no).max());
    if !any_between(eyes, low, high).await? {
        found.clear();
    }
    Ok(found)
}

/// Whether anything relates to any event between two numbers: most pages end here.
async fn any_between(eyes: &Eyes<'_>, low: Option<EventNo>, high: Option<EventNo>) -> Result<bool, Error> {
    use std::ops::Bound::Included;
    let (Some(low), Some(high)) = (low, high) else { return Ok(false) };
    let (from, to) = (Included((eyes.room, low)), Included((eyes.room, high)));
    let rows = eyes.snapshot.range(&schema::RELATIONS, from, to, Direction::Forward, 1).await?;
    Ok(!rows.is_empty())
}

/// Writes `m.relations` of an event; nothing where there is nothing to tell.
pub(crate) fn write(audience: Audience<'_>, bundles: &Bundles, no: EventNo) -> Option<Vec<u8>> {
    let bundle = bundles.get(&no)?;
    let mut out = Vec::new();
    let mut object = Object::new(&mut out);
    if let Some(edit) = &bundle.edit {
        object.raw("m.replace", &child(audience, edit, None));
    }
    if let Some(Thread { latest: (latest, event), count, participated }) = &bundle.thread {
        let beside = write(audience, bundles, *latest);
        let mut thread = Object::new(object.key(THREAD));
        thread.raw("latest_event", &child(audience, event, beside.as_deref()));
        thread.plain("count", count).plain("current_user_participated", participated);
        thread.end();
    }
    if !bundle.references.is_empty() {
        let ids = bundle.references.iter().map(|id| {
            let mut out = Vec::new();
            let mut object = Object::new(&mut out);
            object.str("event_id", id);
            object.end();
            out
        });
        let mut references = Object::new(object.key("m.reference"));
        references.array("chunk", ids);
        references.end();
    }
    object.end();
    (out != b"{}").then_some(out)
}

fn child(audience: Audience<'_>, event: &Arc<StoredEvent>, relations: Option<&[u8]>) -> Vec<u8> {
    let it = Visible { event: event.clone(), membership: None };
    one(audience, &it, &HashMap::new(), relations)
}

fn has_new_content(content: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Content {
        #[serde(rename = "m.new_content")]
        new_content: Option<serde_json::Map<String, serde_json::Value>>,
    }
    serde_json::from_slice::<Content>(content).is_ok_and(|content| content.new_content.is_some())
}

/// The account data that says whom a user ignores.
pub(crate) const IGNORED: &str = "m.ignored_user_list";

/// Whom a user ignores (Client-Server API, "Ignoring Users").
pub(crate) async fn ignored(snapshot: &Snapshot, user: UserNo) -> Result<HashSet<String>, Error> {
    #[derive(serde::Deserialize)]
    struct Content {
        ignored_users: HashMap<String, serde::de::IgnoredAny>,
    }
    let row = snapshot.get(&schema::ACCOUNT_DATA, &(user, IGNORED.to_owned())).await?;
    let content = row.and_then(|row| serde_json::from_slice::<Content>(&row.json).ok());
    Ok(content.map(|content| content.ignored_users.into_keys().collect()).unwrap_or_default())
}
