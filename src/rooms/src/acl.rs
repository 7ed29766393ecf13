//! Which servers may take part in a room (Server-Server API, "Server Access Control Lists (ACLs)").

use std::sync::Arc;

use stoa_event::{
    acl::ServerAcl,
    ids::{RoomId, ServerName},
};
use stoa_store::{EventNo, RoomNo, schema};

use crate::{Error, Rooms};

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
        let stored = store.events().get(&snapshot, no, event).await?;
        let Some(acl) = stored.and_then(|event| ServerAcl::parse(event.content()).ok()) else { return Ok(true) };
        let acl = Arc::new(acl);
        self.inner.acls.insert((no, event), acl.clone());
        Ok(acl.allows(server))
    }
}
