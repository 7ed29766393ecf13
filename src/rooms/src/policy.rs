//! Policy servers (Server-Server API, "Policy Servers"): a room may name a server that signs what is recommended for it.
//!
//! Nothing is asked here. Sending gives back an event that must be signed first ([`Error::Unsigned`]), and [`Rooms::signed`]
//! goes on when it is; an event of another server is answered with what it [needs](crate::Needs).

use std::sync::Arc;

use serde::Deserialize;
use stoa_event::{
    auth::kind,
    ids::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId},
    pdu::Pdu,
    sign::{VerifyKey, add_policy_signature, signed_by_policy_server},
    version::Rules,
};
use stoa_store::schema;

use crate::{Error, Needs, Outcome, Rooms, send::TxnKey, writer::Writer};

/// The server that a room asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub server: OwnedServerName,
    /// The key that it signs with; `None` for one that is no key, with which nothing is ever signed.
    key: Option<VerifyKey>,
}

/// An event of ours that the room's policy server must sign before it is sent.
#[derive(Clone, Debug)]
pub struct Unsigned {
    /// The room.
    pub room: OwnedRoomId,
    /// The event, with our signature.
    pub pdu: Arc<Pdu>,
    /// Whom to ask.
    pub policy: Arc<Policy>,
    rules: Arc<Rules>,
    txn: Option<TxnKey>,
}

#[derive(Deserialize)]
struct Content {
    via: String,
    public_keys: Keys,
}

#[derive(Deserialize)]
struct Keys {
    ed25519: String,
}

impl Policy {
    /// What an `m.room.policy` says, if it is valid.
    fn read(pdu: &Pdu) -> Option<Policy> {
        let Content { via, public_keys } = pdu.content_as().ok()?;
        let server = OwnedServerName::try_from(via).ok()?;
        Some(Policy { server, key: VerifyKey::parse(&public_keys.ed25519).ok() })
    }

    /// Whether it signed an event.
    pub fn signed(&self, pdu: &Pdu, rules: &Rules) -> bool {
        self.key.is_some_and(|key| signed_by_policy_server(pdu.json(), rules, &self.server, &key))
    }

    /// An event with the signature that the policy server gave.
    ///
    /// # Errors
    /// [`Error::Forbidden`] where it is none.
    pub fn add(&self, pdu: &Pdu, rules: &Rules, signature: &str) -> Result<Arc<Pdu>, Error> {
        let json = add_policy_signature(pdu.json(), rules, &self.server, signature);
        let json = json.map_err(|why| Error::BadContent(why.to_string()))?;
        let pdu = Pdu::stored(json.into(), pdu.event_id().clone(), rules)?;
        match self.signed(&pdu, rules) {
            true => Ok(Arc::new(pdu)),
            false => {
                Err(Error::forbidden(format!("what the policy server {} answered is not its signature", self.server)))
            }
        }
    }
}

/// Whether an event is sent without asking: with `m.room.policy` itself a room gets rid of a policy server.
pub(crate) fn is_spared(pdu: &Pdu) -> bool {
    pdu.is_state(kind::POLICY, "")
}

impl Rooms {
    /// The policy server of a room, if it uses one.
    ///
    /// # Errors
    /// Where the room is not known.
    pub async fn policy(&self, room: &RoomId) -> Result<Option<Arc<Policy>>, Error> {
        let (lock, snapshot) = self.locked(room).await?;
        let mut writer = Writer::begin(&self.inner, &snapshot, lock).await?;
        let policy = writer.policy().await;
        writer.leave();
        policy
    }

    /// Sends an event of ours that the policy server signed meanwhile. A repeated transaction gets the event id of the
    /// first.
    ///
    /// # Errors
    /// [`Error::Unsigned`] where the room has another policy server by now; where the signature is none; and as for an event
    /// that needs none.
    pub async fn signed(&self, unsigned: Unsigned, signature: &str) -> Result<OwnedEventId, Error> {
        let Unsigned { room, pdu, policy, rules, txn } = unsigned;
        let pdu = policy.add(&pdu, &rules, signature)?;
        let (lock, snapshot) = self.locked(&room).await?;
        if let Some(id) = self.sent_before(&snapshot, pdu.sender(), txn.as_ref()).await? {
            return Ok(id);
        }
        let mut writer = Writer::begin(&self.inner, &snapshot, lock).await?;
        match writer.come_back(pdu.clone(), txn.clone()).await? {
            Outcome::Accepted | Outcome::Known => writer.commit().await.map(|()| pdu.event_id().clone()),
            Outcome::Rejected(why) | Outcome::SoftFailed(why) => Err(Error::Forbidden(why)),
            Outcome::Needs(Needs { policy: Some(policy), .. }) => {
                Err(Error::Unsigned(Box::new(Unsigned { room, pdu, policy, rules, txn })))
            }
            Outcome::Needs(_) => Err(Error::forbidden("what the event builds on is gone")),
        }
    }
}

impl Writer<'_> {
    /// The policy server of the room as it is now.
    pub(crate) async fn policy(&mut self) -> Result<Option<Arc<Policy>>, Error> {
        let root = self.live.head.root;
        if let Some((at, policy)) = &self.live.policy
            && *at == root
        {
            return Ok(policy.clone());
        }
        let named = self.current(kind::POLICY, "").await?.and_then(|(_, pdu)| Policy::read(&pdu));
        let policy = match named {
            Some(policy) if self.takes_part(&policy).await? => Some(Arc::new(policy)),
            _ => None,
        };
        self.live.policy = Some((root, policy.clone()));
        Ok(policy)
    }

    /// A server is a room's policy server only while a user of it is in the room, so that it can refuse to be. This one is
    /// none, whatever a room says.
    async fn takes_part(&self, policy: &Policy) -> Result<bool, Error> {
        let server = policy.server.to_string();
        if policy.server == self.inner.server {
            return Ok(false);
        }
        let more = self.servers.get(&server).copied().unwrap_or_default();
        let joined = self.snapshot.get(&schema::ROOM_SERVERS, &(self.live.no, server)).await?.unwrap_or_default();
        if i64::from(joined) + more > 0 || !self.live.head.partial {
            return Ok(i64::from(joined) + more > 0);
        }
        // Not all members are known; which servers are there was told.
        let partial = self.snapshot.get(&schema::PARTIAL_ROOMS, &self.live.no).await?;
        Ok(partial.is_some_and(|partial| partial.servers.iter().any(|server| *server == policy.server.as_str())))
    }

    /// Fails where an event of ours must be signed by the room's policy server before it is sent.
    pub(crate) async fn require_signature(&mut self, pdu: &Arc<Pdu>, txn: Option<&TxnKey>) -> Result<(), Error> {
        if is_spared(pdu) {
            return Ok(());
        }
        let Some(policy) = self.policy().await? else { return Ok(()) };
        if !self.added.is_empty() {
            return Err(Error::forbidden("the room's policy server must see one event after the other"));
        }
        let (room, rules) = (self.live.id.clone(), self.live.rules.clone());
        Err(Error::Unsigned(Box::new(Unsigned { room, pdu: pdu.clone(), policy, rules, txn: txn.cloned() })))
    }
}
