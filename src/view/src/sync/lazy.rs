//! Lazy-loaded members: which member events a client was sent already, so that they are not sent with every answer
//! (Client-Server API, "Lazy-loading room members").

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use stoa_store::{EventNo, RoomNo, UserNo};

use crate::token::SyncToken;

#[derive(Default)]
struct Sent {
    /// The answer in which something was sent last: who goes on from another token may not have got it.
    until: SyncToken,
    members: HashSet<EventNo>,
}

type Key = (UserNo, Arc<str>, RoomNo);

/// What was sent to whom. Bounded; what is forgotten is sent again.
pub(crate) struct Known {
    sent: Cache<Key, Arc<Mutex<Sent>>>,
}

impl Default for Known {
    fn default() -> Self {
        Known { sent: Cache::new(10_000) }
    }
}

impl Known {
    /// The member events among `wanted` that the client does not have, given where it stands; they count as sent with
    /// the answer that ends at `to`.
    pub(crate) fn unsent(
        &self,
        (user, device, room): (UserNo, &str, RoomNo),
        from: Option<SyncToken>,
        to: SyncToken,
        wanted: Vec<EventNo>,
    ) -> Vec<EventNo> {
        let key: Key = (user, device.into(), room);
        let sent = self.sent.get(&key).unwrap_or_else(|| {
            let fresh = Arc::<Mutex<Sent>>::default();
            self.sent.insert(key, fresh.clone());
            fresh
        });
        let mut sent = sent.lock();
        // Only a client that has seen the answer in which they were sent has them.
        let follows = from.is_some_and(|from| from.position >= sent.until.position && sent.until.position.0 > 0);
        if !follows {
            sent.members.clear();
        }
        sent.until = to;
        wanted.into_iter().filter(|no| sent.members.insert(*no)).collect()
    }
}
