//! Subscribing to threads (MSC4306). Whether there is such a thread for the user is asked before, of the view.

use stoa_event::ids::{EventId, RoomId, UserId};
use stoa_store::{Position, Tx, rows, rows::threads::Thread, schema};

use crate::{Error, Rooms};

/// How often it is tried again where another device was quicker.
const TRIES: usize = 5;

/// What a user says of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Subscribes.
    Manual,
    /// A client subscribes by itself because of an event, which has this place.
    Automatic(Position),
    /// Subscribes no longer.
    No,
}

impl Rooms {
    /// Subscribes a user to a thread, or no longer. What is so already stays as it is.
    ///
    /// # Errors
    /// [`Error::Unsubscribed`] where the user unsubscribed after the event because of which a client would subscribe.
    pub async fn follow_thread(
        &self,
        user: &UserId,
        room: &RoomId,
        root: &EventId,
        follow: Follow,
    ) -> Result<(), Error> {
        let store = &self.inner.store;
        for _ in 0..TRIES {
            let snapshot = store.snapshot().await?;
            let room = self.room_no(&snapshot, room).await?;
            let mut tx = Tx::new();
            let user = store.names().name_user(&snapshot, &mut tx, user.as_str()).await?;
            let old = snapshot.get(&schema::THREAD_SUBSCRIPTIONS, &(user, room, root.to_string())).await?;
            let subscribed = old.as_ref().is_some_and(|old| old.subscribed);
            let done = match follow {
                Follow::Manual => old.as_ref().is_some_and(|old| old.subscribed && !old.automatic),
                Follow::Automatic(_) => subscribed,
                Follow::No => !subscribed,
            };
            if done {
                return Ok(());
            }
            if let (Follow::Automatic(cause), Some(ended)) = (follow, &old)
                && cause <= ended.at
            {
                return Err(Error::Unsubscribed);
            }
            let new = (follow != Follow::No, matches!(follow, Follow::Automatic(_)));
            let slot = tx.slot();
            rows::threads::put(&mut tx, slot, user, Thread { room, root: root.to_string() }, new, old.as_ref());
            match store.commit(tx).await {
                Err(stoa_store::Error::Conflict) => {}
                done => return Ok(done.map(drop)?),
            }
        }
        Err(stoa_store::Error::Conflict.into())
    }
}
