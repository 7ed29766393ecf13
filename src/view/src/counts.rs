//! Unread counts (Client-Server API, "Receiving notifications"): worked out when somebody reads, and continued from where
//! they were worked out last.

use std::collections::BTreeMap;

use stoa_store::{RoomNo, rows::rooms::Head};

use crate::{Error, sync::Span};

/// Counts of a room or a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) notifications: u64,
    pub(crate) highlights: u64,
}

/// Counts of a room, threads apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) main: Count,
    /// By the thread's root.
    pub(crate) threads: BTreeMap<String, Count>,
}

impl Unread {
    /// Counts threads with the room.
    pub(crate) fn merge_threads(&mut self) {
        for count in std::mem::take(&mut self.threads).into_values() {
            self.main.notifications += count.notifications;
            self.main.highlights += count.highlights;
        }
    }
}

/// What was worked out before.
#[derive(Default)]
pub(crate) struct Counts {}

pub(crate) async fn unread(_span: &Span<'_>, _room: RoomNo, _head: &Head) -> Result<Unread, Error> {
    Ok(Unread::default())
}
