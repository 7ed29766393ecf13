//! Creating rooms (Client-Server API, "Creation").

use std::sync::Arc;

use serde_json::{Map, Value, json};
use stoa_event::{
    auth::{self, Create, Powers, kind},
    build::{Draft, Given},
    ids::{OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomVersionId},
    pdu::Pdu,
    version::{Rules, SUPPORTED},
};
use stoa_store::{Snapshot, Tx, rows, schema};

use crate::{
    Error, Rooms,
    gather::Gathered,
    live::Live,
    membership::member,
    profile::Profile,
    writer::{Wish, Writer},
};

/// A named set of first state events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Who is invited may join.
    Private,
    /// The same, and who is invited has the creator's power.
    TrustedPrivate,
    /// Everyone may join.
    Public,
}

/// A state event that the room begins with.
#[derive(Clone, Debug)]
pub struct InitialState {
    /// The event type.
    pub kind: String,
    /// The state key.
    pub state_key: String,
    /// The content.
    pub content: Map<String, Value>,
}

/// A room that is to be made.
#[derive(Clone, Debug)]
pub struct CreateRoom {
    /// Who makes it.
    pub creator: OwnedUserId,
    /// The creator's name and picture.
    pub profile: Profile,
    /// Its version; the server's default if `None`.
    pub version: Option<RoomVersionId>,
    /// Which events it begins with.
    pub preset: Preset,
    /// Whether it is listed in the directory.
    pub listed: bool,
    /// The localpart of its first alias.
    pub alias: Option<String>,
    /// `m.room.name`
    pub name: Option<String>,
    /// `m.room.topic`
    pub topic: Option<String>,
    /// Who is invited, with name and picture of those of this server. Those of other servers get what the preset gives them;
    /// their invites are for the caller to send.
    pub invite: Vec<(OwnedUserId, Profile)>,
    /// Whether the invites say that it is a direct chat.
    pub is_direct: bool,
    /// More fields for `m.room.create`.
    pub creation_content: Map<String, Value>,
    /// Events that it begins with.
    pub initial_state: Vec<InitialState>,
    /// Fields that replace those of the first `m.room.power_levels`.
    pub power_levels: Map<String, Value>,
}

impl Rooms {
    /// Makes a room: all its first events in one commit.
    ///
    /// # Errors
    /// Where the version is unknown, the alias is taken, or the law refuses what was asked for. Nothing is left then.
    pub async fn create(&self, request: CreateRoom) -> Result<OwnedRoomId, Error> {
        // A version 12 room id is the hash of the create event, which another one of the same moment might equal.
        for attempt in 0..8 {
            match self.try_create(&request, attempt).await {
                Err(Error::Store(stoa_store::Error::Conflict)) => {}
                other => return other,
            }
        }
        Err(Error::AliasTaken)
    }

    async fn try_create(&self, request: &CreateRoom, attempt: u64) -> Result<OwnedRoomId, Error> {
        let inner = &*self.inner;
        let snapshot = inner.store.snapshot().await?;
        let rules = rules_of(request.version.as_ref().unwrap_or(&inner.config.default_version))?;
        let alias = self.first_alias(&snapshot, request).await?;
        let create = self.create_event(request, &rules, inner.env.now_ms() + attempt)?;
        let id = create.room_id().clone();

        let mut writer = self.begin_room(&snapshot, create, rules.clone()).await?;
        for wish in first_events(request, &rules, alias.as_deref()) {
            writer.add(wish).await.map_err(as_initial_state)?;
        }
        if let Some(alias) = &alias {
            writer.tx.assert(&schema::ALIASES, &alias.to_string(), None);
            let row = rows::rooms::Alias { room: writer.room(), creator: request.creator.to_string() };
            rows::rooms::put_alias(&mut writer.tx, alias.as_str(), &row);
        }
        if request.listed {
            let no = writer.room();
            rows::rooms::put_listed(&mut writer.tx, no, true);
        }
        writer.commit().await?;
        Ok(id)
    }

    /// Begins a room with its create event. Nothing of it is written yet.
    pub(crate) async fn begin_room<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        create: Arc<Pdu>,
        rules: Arc<Rules>,
    ) -> Result<Writer<'a>, Error> {
        let inner = &*self.inner;
        let id = create.room_id().clone();
        let mut tx = Tx::new();
        let no = inner.store.names().name_room(snapshot, &mut tx, id.as_str()).await?;
        tx.assert(&schema::EVENT_IDS, &create.event_id().to_string(), None);
        let mut writer = Writer::over(inner, snapshot, Live::unwritten(no, id, rules.clone(), create.clone()), None);
        writer.tx = tx;
        let powers = Powers::new(Create::read(&rules, &create), None);
        let gathered = Gathered::nothing(Arc::new(powers));
        auth::check_with(&rules, &create, &gathered.powers, &gathered.state)?;
        writer.apply(create, gathered, None).await?;
        Ok(writer)
    }

    async fn first_alias(&self, snapshot: &Snapshot, request: &CreateRoom) -> Result<Option<OwnedRoomAliasId>, Error> {
        let Some(localpart) = &request.alias else { return Ok(None) };
        if localpart.is_empty() || localpart.contains(|c: char| c == ':' || c.is_control() || c.is_whitespace()) {
            return Err(Error::InvalidParam("room_alias_name is no localpart of an alias".into()));
        }
        let alias = RoomAliasId::parse(format!("#{localpart}:{}", self.inner.server))
            .map_err(|_| Error::InvalidParam("room_alias_name is no localpart of an alias".into()))?;
        self.check_alias_is_free(snapshot, &alias).await?;
        Ok(Some(alias))
    }

    fn create_event(&self, request: &CreateRoom, rules: &Rules, ts: u64) -> Result<Arc<Pdu>, Error> {
        let mut content = request.creation_content.clone();
        if rules.creators_are_privileged && request.preset == Preset::TrustedPrivate {
            let mut all: Vec<Value> = match content.remove("additional_creators") {
                Some(Value::Array(given)) => given,
                Some(_) => return Err(Error::BadContent("additional_creators must be an array".into())),
                None => Vec::new(),
            };
            for (user, _) in &request.invite {
                let user = json!(user);
                if !all.contains(&user) {
                    all.push(user);
                }
            }
            if !all.is_empty() {
                content.insert("additional_creators".into(), all.into());
            }
        }
        self.seal_create(&request.creator, content, rules, ts)
    }

    /// Signs a create event; what its version says of itself and of the creator is added to the content.
    pub(crate) fn seal_create(
        &self,
        creator: &OwnedUserId,
        mut content: Map<String, Value>,
        rules: &Rules,
        ts: u64,
    ) -> Result<Arc<Pdu>, Error> {
        content.insert("room_version".into(), rules.id.as_str().into());
        if rules.creator_is_sender {
            content.remove("creator");
        } else {
            content.insert("creator".into(), creator.as_str().into());
        }
        let room_id = match rules.room_id_is_create_hash {
            true => None,
            false => Some(self.new_room_id()?),
        };
        let draft = Draft {
            room_id,
            sender: creator.clone(),
            kind: kind::CREATE.into(),
            state_key: Some(String::new()),
            content: Value::Object(content).to_string().into_bytes(),
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: ts,
            redacts: None,
        };
        let given = match rules.reference_pairs {
            true => {
                let event_id = self.inner.new_event_id()?;
                Some(Given { event_id, prev_hashes: Vec::new(), auth_hashes: Vec::new() })
            }
            false => None,
        };
        Ok(Arc::new(self.inner.seal(draft, given, rules)?))
    }

    fn new_room_id(&self) -> Result<OwnedRoomId, Error> {
        let id = format!("!{}:{}", self.inner.env.token(18), self.inner.server);
        OwnedRoomId::try_from(id).map_err(|_| Error::InvalidParam("the server's name is too long".into()))
    }
}

/// The rules of a version that new rooms may have.
pub(crate) fn rules_of(version: &RoomVersionId) -> Result<Arc<Rules>, Error> {
    let rules = Rules::of(version).filter(|_| SUPPORTED.contains(version));
    Ok(Arc::new(rules.ok_or_else(|| Error::UnsupportedVersion(version.to_string()))?))
}

/// A refusal while the first events are added speaks of what was asked for.
fn as_initial_state(error: Error) -> Error {
    match error {
        Error::Rejected(reject) => Error::InvalidRoomState(reject.to_string()),
        Error::Forbidden(why) => Error::InvalidRoomState(why),
        other => other,
    }
}

/// The events after `m.room.create`, in the order of the specification.
fn first_events(request: &CreateRoom, rules: &Rules, alias: Option<&RoomAliasId>) -> Vec<Wish> {
    let creator = &request.creator;
    let state = |kind: &str, content: Value| Wish::state(creator, kind, "", content.to_string().into_bytes());
    let mut content = Map::new();
    content.insert("membership".into(), "join".into());
    request.profile.write(&mut content);
    let mut events = vec![member(creator, creator, content)];
    let given = |kind: &str| request.initial_state.iter().any(|event| event.kind == kind && event.state_key.is_empty());
    if !given(kind::POWER_LEVELS) || !request.power_levels.is_empty() {
        events.push(state(kind::POWER_LEVELS, power_levels(request, rules)));
    }
    if let Some(alias) = alias {
        events.push(state("m.room.canonical_alias", json!({ "alias": alias })));
    }
    let public = request.preset == Preset::Public;
    for (kind, content) in [
        (kind::JOIN_RULES, json!({ "join_rule": if public { "public" } else { "invite" } })),
        ("m.room.history_visibility", json!({ "history_visibility": "shared" })),
        ("m.room.guest_access", json!({ "guest_access": if public { "forbidden" } else { "can_join" } })),
    ] {
        if !given(kind) {
            events.push(state(kind, content));
        }
    }
    for event in &request.initial_state {
        let named = event.state_key.is_empty()
            && (event.kind == "m.room.name" && request.name.is_some()
                || event.kind == "m.room.topic" && request.topic.is_some());
        if !named {
            let content = Value::Object(event.content.clone()).to_string().into_bytes();
            events.push(Wish::state(creator, &event.kind, &event.state_key, content));
        }
    }
    if let Some(name) = &request.name {
        events.push(state("m.room.name", json!({ "name": name })));
    }
    if let Some(topic) = &request.topic {
        let text = json!([{ "body": topic, "mimetype": "text/plain" }]);
        events.push(state("m.room.topic", json!({ "topic": topic, "m.topic": { "m.text": text } })));
    }
    // Users of other servers are invited afterwards, because their servers must sign too.
    for (user, profile) in request.invite.iter().filter(|(user, _)| user.server_name() == creator.server_name()) {
        let mut content = Map::new();
        content.insert("membership".into(), "invite".into());
        if request.is_direct {
            content.insert("is_direct".into(), true.into());
        }
        profile.write(&mut content);
        events.push(member(creator, user, content));
    }
    events
}

/// The first power levels: the creator may do everything, the room's constitution needs 100.
fn power_levels(request: &CreateRoom, rules: &Rules) -> Value {
    let mut users = Map::new();
    if !rules.creators_are_privileged {
        users.insert(request.creator.to_string(), 100.into());
        if request.preset == Preset::TrustedPrivate {
            users.extend(request.invite.iter().map(|(user, _)| (user.to_string(), 100.into())));
        }
    }
    let tombstone = if rules.creators_are_privileged { 150 } else { 100 };
    let mut content = json!({
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.name": 50,
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.power_levels": 100,
            "m.room.history_visibility": 100,
            "m.room.encryption": 100,
            "m.room.server_acl": 100,
            "m.room.tombstone": tombstone,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": if request.preset == Preset::Public { 50 } else { 0 },
        "historical": 100,
    });
    if let Value::Object(content) = &mut content {
        content.extend(request.power_levels.clone());
    }
    content
}
