//! Gathering: the slice of the current state that the law asks for.

use std::sync::Arc;

use stoa_event::{
    auth::{AuthState, Membership, Powers, kind, needs},
    ids::{OwnedEventId, UserId},
    pdu::Pdu,
};
use stoa_store::{EventNo, StateKeyNo, rows::events::StoredEvent, schema, state::Root};

use crate::{Error, writer::Writer};

/// What judging an event needs.
pub(crate) struct Gathered {
    /// The state that it is from.
    pub(crate) root: Root,
    pub(crate) state: AuthState<Arc<Pdu>>,
    pub(crate) powers: Arc<Powers>,
    /// The auth events, by number and by id.
    pub(crate) nos: Vec<EventNo>,
    pub(crate) ids: Vec<OwnedEventId>,
}

impl Gathered {
    /// Before a room's first event.
    pub(crate) fn nothing(powers: Arc<Powers>) -> Gathered {
        Gathered { root: Root::EMPTY, state: AuthState::new(), powers, nos: Vec::new(), ids: Vec::new() }
    }
}

impl Writer<'_> {
    /// The state that an event is judged by, from any state: sender, type, state key and content of it.
    pub(crate) async fn gather_at(
        &mut self,
        root: Root,
        (sender, event_kind, state_key, content): (&UserId, &str, Option<&str>, &[u8]),
    ) -> Result<Gathered, Error> {
        let rules = self.live.rules.clone();
        let mut gathered = Gathered {
            root,
            state: AuthState::new(),
            powers: self.powers_at(root).await?,
            nos: Vec::with_capacity(4),
            ids: Vec::with_capacity(4),
        };
        for (kind, key) in needs(&rules, sender, event_kind, state_key, content) {
            if let Some((no, pdu)) = self.at(root, kind, &key).await? {
                gathered.nos.push(no);
                gathered.ids.push(pdu.event_id().clone());
                gathered.state.set(pdu);
            }
        }
        Ok(gathered)
    }

    /// Who has what power now.
    pub(crate) async fn powers(&mut self) -> Result<Arc<Powers>, Error> {
        self.powers_at(self.live.head.root).await
    }

    /// Who has what power in a state.
    pub(crate) async fn powers_at(&mut self, root: Root) -> Result<Arc<Powers>, Error> {
        let levels = self.at(root, kind::POWER_LEVELS, "").await?;
        self.live.powers_by(levels.as_ref().map(|(no, pdu)| (*no, &**pdu)))
    }

    /// The number of a state key that is known in the room.
    pub(crate) async fn known_state_key(&mut self, kind: &str, key: &str) -> Result<Option<StateKeyNo>, Error> {
        let name = (kind.to_owned(), key.to_owned());
        if let Some(no) = self.live.keys.get(&name) {
            return Ok(Some(*no));
        }
        let row = (self.live.no, name.0.clone(), name.1.clone());
        let found = self.snapshot.get(&schema::STATE_KEYS, &row).await?;
        if let Some(no) = found {
            self.live.keys.insert(name, no);
        }
        Ok(found)
    }

    /// The current state event of that type and key.
    pub(crate) async fn current(&mut self, kind: &str, key: &str) -> Result<Option<(EventNo, Arc<Pdu>)>, Error> {
        self.at(self.live.head.root, kind, key).await
    }

    /// The event of that type and key in a state.
    pub(crate) async fn at(&mut self, root: Root, kind: &str, key: &str) -> Result<Option<(EventNo, Arc<Pdu>)>, Error> {
        let Some(no) = self.known_state_key(kind, key).await? else { return Ok(None) };
        let Some(event) = self.state.get(root, no).await? else { return Ok(None) };
        Ok(Some((event, self.pdu(event).await?)))
    }

    /// An event of the room.
    pub(crate) async fn pdu(&mut self, no: EventNo) -> Result<Arc<Pdu>, Error> {
        if no == self.live.head.create {
            return Ok(self.live.create.clone());
        }
        if let Some(pdu) = self.live.pdus.get(&no) {
            return Ok(pdu.clone());
        }
        let event = self.stored(no).await?;
        let pdu = Arc::new(event.pdu(&self.live.rules)?);
        self.live.pdus.insert(no, pdu.clone());
        Ok(pdu)
    }

    /// A stored event of the room, with its header.
    pub(crate) async fn stored(&self, no: EventNo) -> Result<Arc<StoredEvent>, Error> {
        let event = self.inner.store.events().get(self.snapshot, self.live.no, no).await?;
        Ok(event.ok_or(stoa_store::Error::Missing("an event that the state names"))?)
    }

    /// A user's membership now.
    pub(crate) async fn membership(&mut self, user: &UserId) -> Result<Membership, Error> {
        let member = self.current(kind::MEMBER, user.as_str()).await?;
        Ok(Membership::of(member.as_ref().map(|(_, pdu)| &**pdu)))
    }

    /// Fails unless the user is joined.
    pub(crate) async fn require_joined(&mut self, user: &UserId) -> Result<(), Error> {
        match self.membership(user).await? {
            Membership::Join => Ok(()),
            _ => Err(Error::forbidden(format!("{user} is not in the room"))),
        }
    }
}
