//! Reports of events, rooms and users (Client-Server API, "Reporting Content"): kept for those who run the server.

use std::ops::Bound;

use stoa_store::{
    Direction, Position, Tx,
    rows::reports::{self, Report},
    schema,
};

use crate::{Accounts, Error, Result, Who};

/// The greatest length of a reason, in bytes.
const MAX_REASON: usize = 4096;

/// What is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reported {
    /// An event of a room, and who sent it.
    Event {
        /// The room.
        room: String,
        /// The event.
        event: String,
        /// Who sent it.
        sender: String,
    },
    /// A room.
    Room(String),
    /// A user.
    User(String),
}

impl Accounts {
    /// Keeps a report.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a reason that is a book
    pub async fn report(&self, who: &Who, what: Reported, reason: &str) -> Result<()> {
        if reason.len() > MAX_REASON {
            return Err(Error::InvalidParam(format!("a reason has at most {MAX_REASON} bytes")));
        }
        let (room, event, user) = match what {
            Reported::Event { room, event, sender } => (Some(room), Some(event), Some(sender)),
            Reported::Room(room) => (Some(room), None, None),
            Reported::User(user) => (None, None, Some(user)),
        };
        let ts = self.env().now_ms();
        let mut tx = Tx::new();
        let slot = tx.slot();
        reports::put(&mut tx, slot, Report { by: who.user_no, room, event, user, reason: reason.to_owned(), ts });
        self.store().commit(tx).await?;
        Ok(())
    }

    /// A page of reports, the newest first, from before a place.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn reports(&self, before: Option<Position>, limit: usize) -> Result<Vec<(Position, Report)>> {
        let snapshot = self.store().snapshot().await?;
        let end = Bound::Excluded(before.unwrap_or(Position::MAX));
        let start = Bound::Included(Position::MIN);
        Ok(snapshot.range(&schema::REPORTS, start, end, Direction::Backward, limit).await?)
    }
}
