//! The published directory (Client-Server API, "Published room directory").

use std::collections::BTreeSet;

use stoa_store::{Direction, RoomNo, Snapshot, rows::rooms::Head, schema};

use crate::{
    Error, View,
    json::{Object, array},
};

/// Which rooms of the directory are wanted.
#[derive(Clone, Debug, Default)]
pub struct DirectoryRequest {
    /// At most so many.
    pub limit: Option<u64>,
    /// Where to go on.
    pub since: Option<String>,
    /// Words in name, topic or alias.
    pub term: Option<String>,
    /// Whose directory.
    pub network: Network,
    /// Types of rooms; `None` stands for rooms without a type.
    pub room_types: Option<Vec<Option<String>>>,
}

/// Whose directory is wanted: rooms that people list here, or that application services list for their networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// That of this server.
    #[default]
    Here,
    /// That of a network, by its `instance_id`.
    Of(String),
    /// All together.
    All,
}

impl Network {
    /// From what a request says of it.
    pub fn named(instance_id: Option<String>, all: bool) -> Network {
        match instance_id.filter(|id| !id.is_empty()) {
            Some(id) => Network::Of(id),
            None if all => Network::All,
            None => Network::Here,
        }
    }
}

/// What strangers are shown of a room.
pub(crate) struct Entry {
    id: String,
    joined: u32,
    name: Option<String>,
    topic: Option<String>,
    alias: Option<String>,
    avatar: Option<String>,
    join_rule: String,
    room_type: Option<String>,
    world_readable: bool,
    guests: bool,
}

impl View {
    /// A page of the directory, the largest rooms first.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a token that is not ours
    pub async fn directory(&self, request: &DirectoryRequest) -> Result<Vec<u8>, Error> {
        let snapshot = self.inner.store.snapshot().await?;
        let mut entries = Vec::new();
        for room in listed(&snapshot, &request.network).await? {
            if let Some(head) = snapshot.get(&schema::ROOMS, &room).await? {
                entries.push(self.entry(&snapshot, room, &head).await?);
            }
        }
        let term = request.term.as_ref().map(|term| term.to_lowercase());
        entries.retain(|entry| {
            term.as_ref().is_none_or(|term| entry.has(term))
                && request.room_types.as_ref().is_none_or(|types| types.contains(&entry.room_type))
        });
        entries.sort_by(|a, b| b.joined.cmp(&a.joined).then_with(|| a.id.cmp(&b.id)));
        let bad = || Error::InvalidParam("this token was not made by this server".into());
        let from: usize = match &request.since {
            Some(since) => since.strip_prefix('d').and_then(|n| n.parse().ok()).ok_or_else(bad)?,
            None => 0,
        };
        let limit = request.limit.map_or(100, |limit| usize::try_from(limit).unwrap_or(usize::MAX)).clamp(1, 500);
        let total = entries.len();
        let page: Vec<Vec<u8>> = entries.iter().skip(from).take(limit).map(Entry::write).collect();
        let mut out = Vec::new();
        let mut body = Object::new(&mut out);
        array(body.key("chunk"), &page);
        body.plain("total_room_count_estimate", total);
        if from.saturating_add(limit) < total {
            body.str("next_batch", &format!("d{}", from + limit));
        }
        if from > 0 {
            body.str("prev_batch", &format!("d{}", from.saturating_sub(limit)));
        }
        body.end();
        Ok(out)
    }

    pub(crate) async fn entry(&self, snapshot: &Snapshot, room: RoomNo, head: &Head) -> Result<Entry, Error> {
        let store = &self.inner.store;
        let names = [
            ("m.room.name", "name"),
            ("m.room.topic", "topic"),
            ("m.room.canonical_alias", "alias"),
            ("m.room.avatar", "url"),
            ("m.room.join_rules", "join_rule"),
            ("m.room.create", "type"),
            ("m.room.history_visibility", "history_visibility"),
            ("m.room.guest_access", "guest_access"),
        ];
        let rows = names.map(|(kind, _)| (room, kind.to_owned(), String::new()));
        let keys = snapshot.get_many(&schema::STATE_KEYS, rows).await?;
        let state = store.state(snapshot, room);
        let mut found: [Option<String>; 8] = Default::default();
        for (i, key) in keys.into_iter().enumerate() {
            let Some(key) = key else { continue };
            let Some(no) = state.get(head.root, key).await? else { continue };
            let Some(event) = store.events().get(snapshot, room, no).await? else { continue };
            let content: serde_json::Value = serde_json::from_slice(event.content()).unwrap_or_default();
            let field = names.get(i).map_or("", |(_, field)| field);
            found[i] = content[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        }
        let [name, topic, alias, avatar, join_rule, room_type, visibility, guests] = found;
        Ok(Entry {
            id: store.names().room_id(snapshot, room).await?.to_string(),
            joined: head.joined,
            name,
            topic,
            alias,
            avatar,
            join_rule: join_rule.unwrap_or_else(|| "invite".into()),
            room_type,
            world_readable: visibility.as_deref() == Some("world_readable"),
            guests: guests.as_deref() == Some("can_join"),
        })
    }
}

async fn listed(snapshot: &Snapshot, network: &Network) -> Result<BTreeSet<RoomNo>, Error> {
    let mut rooms = BTreeSet::new();
    if matches!(network, Network::Here | Network::All) {
        let here = snapshot.scan(&schema::DIRECTORY, &(), Direction::Forward, usize::MAX).await?;
        rooms.extend(here.into_iter().map(|(room, ())| room));
    }
    let others = match network {
        Network::Here => Vec::new(),
        Network::Of(id) => snapshot.scan(&schema::NETWORK_ROOMS, id, Direction::Forward, usize::MAX).await?,
        Network::All => snapshot.scan(&schema::NETWORK_ROOMS, &(), Direction::Forward, usize::MAX).await?,
    };
    rooms.extend(others.into_iter().map(|((_, room), ())| room));
    Ok(rooms)
}

impl Entry {
    /// Whether its members can be found by who is not in it.
    pub(crate) fn is_open(&self) -> bool {
        self.join_rule == "public" || self.world_readable
    }

    fn has(&self, term: &str) -> bool {
        [&self.name, &self.topic, &self.alias].into_iter().flatten().any(|text| text.to_lowercase().contains(term))
    }

    fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut room = Object::new(&mut out);
        self.fields(&mut room);
        room.end();
        out
    }

    pub(crate) fn fields(&self, room: &mut Object<'_>) {
        room.str("room_id", &self.id).plain("num_joined_members", self.joined);
        room.plain("world_readable", self.world_readable).plain("guest_can_join", self.guests);
        room.str("join_rule", &self.join_rule);
        for (name, value) in [
            ("name", &self.name),
            ("topic", &self.topic),
            ("canonical_alias", &self.alias),
            ("avatar_url", &self.avatar),
            ("room_type", &self.room_type),
        ] {
            if let Some(value) = value {
                room.str(name, value);
            }
        }
    }
}
