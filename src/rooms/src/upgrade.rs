//! Room upgrades (Client-Server API, "Room Upgrades"): a room is replaced by one of another version. Both rooms change in
//! one commit, so that there is never a replacement that nobody knows, nor a tombstone without one.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use stoa_event::{
    auth::{Field, JoinRule, Membership, PowerLevels, kind},
    ids::{OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId},
    pdu::Pdu,
    version::Rules,
};
use stoa_store::{
    Direction, Snapshot, rows, schema,
    state::{Class, Root},
};

use crate::{
    Error, Rooms,
    create::rules_of,
    membership::member,
    profile::Profile,
    writer::{Wish, Writer},
};

/// What moves along. Power levels come last: before them the creator may do everything.
const MOVED: [&str; 8] = [
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.policy",
];
/// The same with any state key: where a space leads, and to which it belongs.
const MOVED_BY_KEY: [&str; 2] = ["m.space.child", "m.space.parent"];
/// How many bans move along.
const BANS: usize = 5000;
/// What sending a tombstone needs at least where creators stand above all levels: otherwise whoever may change the room's
/// constitution could make themselves its creator (MSC4289).
const TOMBSTONE: i64 = 150;
/// What speaking and inviting need at least in a room that was replaced.
const CLOSED: i64 = 50;

const TOMBSTONE_KIND: &str = "m.room.tombstone";
const CANONICAL_ALIAS: &str = "m.room.canonical_alias";

/// A room that is to be replaced.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// Who asks.
    pub user: OwnedUserId,
    /// The user's name and picture.
    pub profile: Profile,
    /// The version of the new room.
    pub version: RoomVersionId,
    /// Who is a creator of it beside the user, where its version knows that.
    pub additional_creators: Vec<OwnedUserId>,
}

/// What is taken from the old room.
#[derive(Default)]
struct Moved {
    state: Vec<(String, String, Vec<u8>)>,
    powers: Option<Value>,
    aliases: Vec<String>,
    canonical: Option<Value>,
    banned: Vec<(OwnedUserId, Map<String, Value>)>,
    listed: bool,
}

impl Rooms {
    /// Replaces a room; gives the id of the new one.
    ///
    /// # Errors
    /// Where the version is unknown or the user may not send a tombstone. Nothing is changed then.
    pub async fn upgrade(&self, room: &RoomId, request: &Upgrade) -> Result<OwnedRoomId, Error> {
        for attempt in 0..8 {
            // As with creating: a version 12 room id is a hash, which another one might equal.
            match self.try_upgrade(room, request, attempt).await {
                Err(Error::Store(stoa_store::Error::Conflict)) => {}
                other => return other,
            }
        }
        Err(Error::AliasTaken)
    }

    async fn try_upgrade(&self, room: &RoomId, request: &Upgrade, attempt: u64) -> Result<OwnedRoomId, Error> {
        let inner = &*self.inner;
        let user = &request.user;
        let rules = rules_of(&request.version)?;
        let (lock, snapshot) = self.locked(room).await.map_err(|error| match error {
            // Whether a room exists is nobody's business who is not in it.
            Error::UnknownRoom => Error::forbidden(format!("{user} is not in the room")),
            other => other,
        })?;
        let mut old = Writer::begin(inner, &snapshot, lock).await?;
        old.require_joined(user).await?;
        if !old.powers().await?.can_send(user, TOMBSTONE_KIND, true) {
            return Err(Error::forbidden("replacing the room needs the power to send a tombstone"));
        }
        if old.policy().await?.is_some() {
            // What says goodbye here would have to be signed by it, one event after the other.
            return Err(Error::forbidden("remove the room's policy server (m.room.policy) before replacing the room"));
        }
        let moved = old.moved(request, &rules).await?;
        let content = old.new_create_content(request, &rules)?;
        let create = self.seal_create(user, content, &rules, inner.env.now_ms() + attempt)?;
        let id = create.room_id().clone();
        let mut new = self.begin_room(&snapshot, create, rules).await?;
        new.furnish(request, &moved).await?;
        let (from, to) = (old.room(), new.room());
        for alias in &moved.aliases {
            let known = snapshot.get(&schema::ALIASES, alias).await?;
            let creator = known.map_or_else(|| user.to_string(), |alias| alias.creator);
            rows::rooms::delete_alias(&mut new.tx, alias, from);
            rows::rooms::put_alias(&mut new.tx, alias, &rows::rooms::Alias { room: to, creator });
        }
        if moved.listed {
            rows::rooms::put_listed(&mut new.tx, from, false);
            rows::rooms::put_listed(&mut new.tx, to, true);
        }
        // The old room's part is added to the transaction of the new one.
        old.tx = new.into_tx().await?;
        old.close_down(user, &id, &moved).await?;
        old.commit().await?;
        Ok(id)
    }

    /// The room that a room replaces, if that one says so too.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn predecessor(&self, room: &RoomId) -> Result<Option<OwnedRoomId>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let Some(create) = self.content_of(&snapshot, room, kind::CREATE).await? else { return Ok(None) };
        let id = create["predecessor"]["room_id"].as_str();
        let Some(old) = id.and_then(|id| OwnedRoomId::try_from(id).ok()) else { return Ok(None) };
        let tombstone = self.content_of(&snapshot, &old, TOMBSTONE_KIND).await?;
        let agrees = tombstone.is_some_and(|content| content["replacement_room"] == room.as_str());
        Ok(agrees.then_some(old))
    }

    /// The content of a room's current state event with an empty state key.
    async fn content_of(&self, snapshot: &Snapshot, room: &RoomId, kind: &str) -> Result<Option<Value>, Error> {
        let store = &self.inner.store;
        let Some(no) = store.names().room(snapshot, room.as_str()).await? else { return Ok(None) };
        let Some(head) = snapshot.get(&schema::ROOMS, &no).await? else { return Ok(None) };
        let key = (no, kind.to_owned(), String::new());
        let Some(key) = snapshot.get(&schema::STATE_KEYS, &key).await? else { return Ok(None) };
        let Some(event) = store.state(snapshot, no).get(head.root, key).await? else { return Ok(None) };
        let event = store.events().get(snapshot, no, event).await?;
        Ok(event.and_then(|event| serde_json::from_slice(event.content()).ok()))
    }
}

impl Writer<'_> {
    /// The content of the new room's create event, said in the old room.
    fn new_create_content(&self, request: &Upgrade, rules: &Rules) -> Result<Map<String, Value>, Error> {
        let old: Value = self.live.create.content_as().unwrap_or_default();
        let last = self.tips().into_iter().max_by_key(|(_, depth, _)| *depth).map(|(.., id)| id);
        let mut content = Map::new();
        content.insert("predecessor".into(), json!({ "room_id": self.live.id, "event_id": last }));
        for field in ["type", "m.federate"] {
            if let Some(value) = old.get(field) {
                content.insert(field.into(), value.clone());
            }
        }
        if rules.creators_are_privileged && !request.additional_creators.is_empty() {
            content.insert("additional_creators".into(), json!(request.additional_creators));
        }
        Ok(content)
    }

    /// What the new room takes over from this one.
    async fn moved(&mut self, request: &Upgrade, rules: &Rules) -> Result<Moved, Error> {
        let mut moved = Moved::default();
        for kind in MOVED {
            if let Some((_, event)) = self.current(kind, "").await? {
                moved.state.push((kind.to_owned(), String::new(), event.content().to_vec()));
            }
        }
        if let Some((_, event)) = self.current(kind::JOIN_RULES, "").await? {
            moved.state.push((kind::JOIN_RULES.to_owned(), String::new(), join_rules(&event, rules)));
        }
        for event in self.class(Class::Others).await? {
            let key = event.state_key().unwrap_or_default();
            let content: Value = event.content_as().unwrap_or_default();
            let leads = content["via"].as_array().is_some_and(|via| !via.is_empty());
            if MOVED_BY_KEY.contains(&event.kind()) && leads {
                moved.state.push((event.kind().to_owned(), key.to_owned(), event.content().to_vec()));
            }
        }
        if let Some((_, event)) = self.current(kind::POWER_LEVELS, "").await? {
            let levels = PowerLevels::read(&self.live.rules, event.content())?;
            let value = event.content_as().unwrap_or_default();
            moved.powers = Some(power_levels(&levels, &value, (request, rules), self.old_creators()));
        }
        let rows = self.snapshot.scan(&schema::ROOM_ALIASES, &self.room(), Direction::Forward, 10_000).await?;
        moved.aliases = rows.into_iter().map(|((_, alias), ())| alias).collect();
        if let Some((_, event)) = self.current(CANONICAL_ALIAS, "").await? {
            moved.canonical = event.content_as().ok();
        }
        moved.banned = self.banned(&request.user).await?;
        moved.listed = self.snapshot.has(&schema::DIRECTORY, &self.room()).await?;
        Ok(moved)
    }

    /// Who stands above all levels here.
    fn old_creators(&self) -> Vec<OwnedUserId> {
        let create = stoa_event::auth::Create::read(&self.live.rules, &self.live.create);
        if create.creators_are_privileged() { create.creators().to_vec() } else { Vec::new() }
    }

    async fn class(&mut self, class: Class) -> Result<Vec<Arc<Pdu>>, Error> {
        let changes = self.state.changes_of(class, Root::EMPTY, self.live.head.root).await?;
        let mut events = Vec::with_capacity(changes.len());
        for no in changes.into_iter().filter_map(|change| change.after) {
            events.push(self.pdu(no).await?);
        }
        Ok(events)
    }

    async fn banned(&mut self, user: &UserId) -> Result<Vec<(OwnedUserId, Map<String, Value>)>, Error> {
        let mut banned = Vec::new();
        for event in self.class(Class::Members).await? {
            let target = event.state_key().and_then(|key| OwnedUserId::try_from(key).ok());
            let Some(target) = target.filter(|target| target != user) else { continue };
            if Membership::of(Some(&event)) == Membership::Ban && banned.len() < BANS {
                let old: Value = event.content_as().unwrap_or_default();
                let mut content = Map::new();
                content.insert("membership".into(), "ban".into());
                if let Some(reason) = old["reason"].as_str() {
                    content.insert("reason".into(), reason.into());
                }
                banned.push((target, content));
            }
        }
        Ok(banned)
    }

    /// Sets up the new room, whose create event is there.
    async fn furnish(&mut self, request: &Upgrade, moved: &Moved) -> Result<(), Error> {
        let user = &request.user;
        let mut content = Map::new();
        content.insert("membership".into(), "join".into());
        request.profile.write(&mut content);
        self.add(member(user, user, content)).await?;
        for (kind, key, content) in &moved.state {
            self.add_if_possible(Wish::state(user, kind, key, content.clone())).await?;
        }
        if let Some(canonical) =
            moved.canonical.as_ref().and_then(|old| canonical(old, |it| moved.aliases.contains(it)))
        {
            self.add(state(user, CANONICAL_ALIAS, &canonical)).await?;
        }
        for (target, content) in &moved.banned {
            self.add_if_possible(member(user, target, content.clone())).await?;
        }
        if let Some(powers) = &moved.powers {
            self.add(state(user, kind::POWER_LEVELS, powers)).await?;
        }
        Ok(())
    }

    /// Ends the old room: nobody is to speak there, and it says where it goes on.
    async fn close_down(&mut self, user: &OwnedUserId, new: &RoomId, moved: &Moved) -> Result<(), Error> {
        let is_moved = |alias: &String| moved.aliases.contains(alias);
        if let Some(old) = moved.canonical.as_ref().filter(|old| canonical(old, is_moved).is_some()) {
            let left = canonical(old, |alias| !is_moved(alias)).unwrap_or_else(|| json!({}));
            self.add_if_possible(state(user, CANONICAL_ALIAS, &left)).await?;
        }
        let content = json!({ "body": "This room has been replaced", "replacement_room": new });
        self.add(state(user, TOMBSTONE_KIND, &content)).await?;
        let Some((_, event)) = self.current(kind::POWER_LEVELS, "").await? else { return Ok(()) };
        let powers = self.powers().await?;
        let least = CLOSED.max(powers.get(Field::UsersDefault).saturating_add(1));
        let mut content: Map<String, Value> = event.content_as().unwrap_or_default();
        for field in [Field::EventsDefault, Field::Invite] {
            content.insert(field.as_str().into(), powers.get(field).max(least).into());
        }
        self.add_if_possible(state(user, kind::POWER_LEVELS, &Value::Object(content))).await
    }

    /// Adds an event; what the law or the format of the version refuses is left out.
    async fn add_if_possible(&mut self, wish: Wish) -> Result<(), Error> {
        let kind = wish.kind.clone();
        match self.add(wish).await {
            Ok(_) => Ok(()),
            Err(why @ (Error::Rejected(_) | Error::Format(_))) => {
                tracing::debug!(room = %self.live.id, kind, %why, "an event of an upgrade is left out");
                Ok(())
            }
            Err(other) => Err(other),
        }
    }
}

fn state(user: &OwnedUserId, kind: &str, content: &Value) -> Wish {
    Wish::state(user, kind, "", content.to_string().into_bytes())
}

/// The join rules as far as the new version knows them: otherwise who is invited may join.
fn join_rules(event: &Pdu, rules: &Rules) -> Vec<u8> {
    let known = match JoinRule::of(Some(event)) {
        JoinRule::Knock => rules.knock,
        JoinRule::Restricted => rules.restricted,
        JoinRule::KnockRestricted => rules.knock_restricted,
        _ => true,
    };
    if known { event.content().to_vec() } else { json!({ "join_rule": "invite" }).to_string().into_bytes() }
}

/// The aliases of `m.room.canonical_alias` that are kept; `None` if there are none.
fn canonical(content: &Value, keep: impl Fn(&String) -> bool) -> Option<Value> {
    let text = |value: &Value| value.as_str().map(str::to_owned).filter(&keep);
    let alias = text(&content["alias"]);
    let others: Vec<String> = content["alt_aliases"].as_array().into_iter().flatten().filter_map(text).collect();
    let mut kept = Map::new();
    kept.extend(alias.map(|alias| ("alias".to_owned(), alias.into())));
    if !others.is_empty() {
        kept.insert("alt_aliases".into(), others.into());
    }
    (!kept.is_empty()).then_some(Value::Object(kept))
}

/// The power levels as the new version writes them: integers, and nobody named who is above all levels anyway.
fn power_levels(
    levels: &PowerLevels,
    old: &Value,
    (request, rules): (&Upgrade, &Rules),
    old_creators: Vec<OwnedUserId>,
) -> Value {
    let mut content = Map::new();
    for field in Field::ALL {
        content.extend(levels.given(field).map(|level| (field.as_str().to_owned(), level.into())));
    }
    let named = |levels: &stoa_event::auth::Levels| -> Map<String, Value> {
        levels.iter().map(|(name, level)| (name.to_owned(), level.into())).collect()
    };
    let (mut users, mut events) = (named(&levels.users), named(&levels.events));
    users.retain(|user, _| <&UserId>::try_from(user.as_str()).is_ok());
    if rules.creators_are_privileged {
        for creator in request.additional_creators.iter().chain([&request.user]) {
            users.remove(creator.as_str());
        }
        if old_creators.is_empty() {
            let least = TOMBSTONE.max(levels.get(Field::StateDefault).saturating_add(1));
            let level = levels.events.get(TOMBSTONE_KIND).unwrap_or(least).max(least);
            events.insert(TOMBSTONE_KIND.into(), level.into());
        }
    } else {
        // Who was above all levels gets the highest that is needed.
        let highest = levels.events.iter().map(|(_, level)| level).max().unwrap_or_default().max(100);
        users.extend(old_creators.iter().map(|creator| (creator.to_string(), highest.into())));
    }
    content.insert("users".into(), users.into());
    content.insert("events".into(), events.into());
    if levels.notifications.iter().next().is_some() {
        content.insert("notifications".into(), named(&levels.notifications).into());
    }
    for key in ["historical", "ephemeral_default", "org.matrix.msc2477.ephemeral_default"] {
        if let Some(level) = old.get(key).filter(|level| level.is_i64()) {
            content.insert(key.into(), level.clone());
        }
    }
    for key in ["ephemeral", "org.matrix.msc2477.ephemeral"] {
        let map = old.get(key).and_then(Value::as_object).filter(|map| map.values().all(Value::is_i64));
        content.extend(map.map(|map| (key.to_owned(), map.clone().into())));
    }
    Value::Object(content)
}
