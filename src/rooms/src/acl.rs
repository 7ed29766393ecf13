//! Which servers may take part in a room (Server-Server API, "Server Access Control Lists (ACLs)").

use std::sync::Arc;

use stoa_event::{
    acl::ServerAcl,
    ids::{RoomId, ServerName},
    pdu::Pdu,
};
use stoa_store::{EventNo, RoomNo, schema};

use crate::{Error, Inner, Rooms, writer::Writer};

/// Parsed lists, by the event that holds them.
pub(crate) type Acls = quick_cache::sync::Cache<(RoomNo, EventNo), Arc<ServerAcl>>;

impl Rooms {
    /// Whether the current ACL of a room lets a server take part. Rooms without one, or with one that cannot be read, let all;
    /// so do rooms that are not known here.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn admits(&self, room: &RoomId, server: &ServerName) -> Result<bool, Error> {
        let store = &self.inner.store;
        let snapshot = store.snapshot().await?;
        let Some(no) = store.names().room(&snapshot, room.as_str()).await? else { return Ok(true) };
        let Some(head) = snapshot.get(&schema::ROOMS, &no).await? else { return Ok(true) };
        let key = (no, "m.room.server_acl".to_owned(), String::new());
        let Some(key) = snapshot.get(&schema::STATE_KEYS, &key).await? else { return Ok(true) };
        let Some(event) = store.state(&snapshot, no).get(head.root, key).await? else { return Ok(true) };
        if let Some(acl) = self.inner.acls.get(&(no, event)) {
            return Ok(acl.allows(server));
        }
        let Some(stored) = store.events().get(&snapshot, no, event).await? else { return Ok(true) };
        Ok(self.inner.acl(no, event, stored.content()).is_none_or(|acl| acl.allows(server)))
    }
}

impl Inner {
    /// An ACL by its event. None where it cannot be read.
    fn acl(&self, room: RoomNo, event: EventNo, content: &[u8]) -> Option<Arc<ServerAcl>> {
        let acl = Arc::new(ServerAcl::parse(content).ok()?);
        self.acls.insert((room, event), acl.clone());
        Some(acl)
    }
}

impl Writer<'_> {
    /// Whether the current ACL lets the server of an event's sender take part, whoever brought the event: otherwise one
    /// server that does not keep to the ACL would let all in.
    pub(crate) async fn admits_sender(&mut self, pdu: &Pdu) -> Result<bool, Error> {
        let server = pdu.sender().server_name();
        if server == self.inner.server {
            return Ok(true);
        }
        let Some((event, stored)) = self.current("m.room.server_acl", "").await? else { return Ok(true) };
        let key = (self.live.no, event);
        let acl = self.inner.acls.get(&key).or_else(|| self.inner.acl(key.0, key.1, stored.content()));
        Ok(acl.is_none_or(|acl| acl.allows(server)))
    }
}
