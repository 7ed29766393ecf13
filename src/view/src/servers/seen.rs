//! Whether a server may see an event of a room that it is in: if one of its users might.

use std::collections::HashMap;

use stoa_event::{
    ids::{OwnedServerName, ServerName},
    visible::{Around, HistoryVisibility, Membership, server_may_see},
};
use stoa_store::{
    Direction, EventNo, RoomNo, Snapshot, StateKeyNo, Store,
    rows::events::StoredEvent,
    schema,
    state::{Root, Tree},
};

use crate::Error;

/// What was found out about one server in one room. Neighbouring events share most of their state.
pub(crate) struct Sight {
    server: OwnedServerName,
    visibility_key: Option<Option<StateKeyNo>>,
    visibilities: HashMap<Tree, HistoryVisibility>,
    /// The state keys of the server's users; read only where they matter.
    users: Option<Vec<StateKeyNo>>,
    strongest: HashMap<Tree, Membership>,
    memberships: HashMap<EventNo, Membership>,
}

impl Sight {
    pub(crate) fn new(server: &ServerName) -> Sight {
        Sight {
            server: server.to_owned(),
            visibility_key: None,
            visibilities: HashMap::new(),
            users: None,
            strongest: HashMap::new(),
            memberships: HashMap::new(),
        }
    }

    /// Whether the server may see the event.
    pub(crate) async fn sees(&mut self, look: Look<'_>, event: &StoredEvent) -> Result<bool, Error> {
        let Some(before) = event.header.before else {
            // Known apart from the graph: state, which servers in the room are told whole, and auth events.
            return Ok(event.header.state_key.is_some());
        };
        let after = event.header.after.unwrap_or(before);
        let visibility =
            Around { before: self.visibility(look, before).await?, after: self.visibility(look, after).await? };
        // For most rooms that is all.
        if server_may_see(visibility, Around::default()) {
            return Ok(true);
        }
        let membership =
            Around { before: self.membership(look, before).await?, after: self.membership(look, after).await? };
        Ok(server_may_see(visibility, membership))
    }

    /// The visibility of history in a state.
    pub(crate) async fn visibility(&mut self, look: Look<'_>, root: Root) -> Result<HistoryVisibility, Error> {
        if let Some(known) = self.visibilities.get(&root.others) {
            return Ok(*known);
        }
        let key = match self.visibility_key {
            Some(key) => key,
            None => {
                let key = (look.room, "m.room.history_visibility".to_owned(), String::new());
                *self.visibility_key.insert(look.snapshot.get(&schema::STATE_KEYS, &key).await?)
            }
        };
        let no = match key {
            Some(key) => look.store.state(look.snapshot, look.room).get(root, key).await?,
            None => None,
        };
        let event = match no {
            Some(no) => look.store.events().get(look.snapshot, look.room, no).await?,
            None => None,
        };
        let visibility =
            event.map_or_else(HistoryVisibility::default, |it| HistoryVisibility::of_content(it.content()));
        self.visibilities.insert(root.others, visibility);
        Ok(visibility)
    }

    /// What the strongest of the server's users is in a state.
    pub(crate) async fn membership(&mut self, look: Look<'_>, root: Root) -> Result<Membership, Error> {
        if let Some(known) = self.strongest.get(&root.members) {
            return Ok(*known);
        }
        if self.users.is_none() {
            self.users = Some(look.users_of(&self.server).await?);
        }
        let state = look.store.state(look.snapshot, look.room);
        let mut strongest = Membership::default();
        for user in self.users.iter().flatten() {
            let Some(no) = state.get(root, *user).await? else { continue };
            let membership = match self.memberships.get(&no) {
                Some(membership) => *membership,
                None => {
                    let event = look.store.events().get(look.snapshot, look.room, no).await?;
                    let membership = event.map(|it| Membership::of_content(it.content())).unwrap_or_default();
                    self.memberships.insert(no, membership);
                    membership
                }
            };
            strongest = strongest.max(membership);
            if strongest == Membership::Joined {
                break;
            }
        }
        self.strongest.insert(root.members, strongest);
        Ok(strongest)
    }
}

/// Where to look.
#[derive(Clone, Copy)]
pub(crate) struct Look<'a> {
    pub(crate) store: &'a Store,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) room: RoomNo,
}

impl Look<'_> {
    /// The state keys of everybody of a server who ever had a membership.
    async fn users_of(self, server: &ServerName) -> Result<Vec<StateKeyNo>, Error> {
        let prefix = (self.room, "m.room.member".to_owned());
        let all = self.snapshot.scan(&schema::STATE_KEYS, &prefix, Direction::Forward, usize::MAX).await?;
        let of_server = |key: &str| key.split_once(':').is_some_and(|(_, name)| name == server.as_str());
        Ok(all.into_iter().filter(|((.., key), _)| of_server(key)).map(|(_, no)| no).collect())
    }
}
