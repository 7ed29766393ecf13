//! Account data and a user's own receipts in `/sync`.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
};

use stoa_store::{Direction, Position, RoomNo, rows::account_data, schema};

use super::Span;
use crate::{Error, json::typed};

/// What is new for the user alone.
#[derive(Default)]
pub(crate) struct AccountNews {
    /// Global account data, as events.
    pub(crate) global: Vec<Vec<u8>>,
    /// Account data of rooms, as events.
    pub(crate) rooms: HashMap<RoomNo, Vec<Vec<u8>>>,
    /// Rooms in which the user read something.
    pub(crate) read: BTreeSet<RoomNo>,
}

impl Span<'_> {
    pub(crate) async fn account_news(&self) -> Result<AccountNews, Error> {
        let user = self.viewer.user_no;
        if self.from.is_some() && !self.full_state && self.inner.store.who().user_last(user) <= self.seen() {
            return Ok(AccountNews::default());
        }
        let mut news = AccountNews::default();
        let from = match self.full_state {
            true => Position::MIN,
            false => self.seen(),
        };
        let changed = account_data::since(self.snapshot, user, &self.viewer.user, from).await?;
        for one in changed.into_iter().filter(|one| one.at <= self.to.position) {
            match one.room {
                None if self.filter.account_data.wants(&one.kind, None) => {
                    news.global.extend(self.shown(&one.kind, &one.json));
                }
                Some(room) if self.filter.room.account_data.wants_kind(&one.kind, None) => {
                    news.rooms.entry(room).or_default().extend(self.shown(&one.kind, &one.json));
                }
                _ => {}
            }
        }
        if self.from.is_some() {
            let from = Bound::Included((user, self.seen().next()));
            let to = Bound::Included((user, self.to.position));
            let read = self.snapshot.range(&schema::RECEIPTS_BY_USER, from, to, Direction::Forward, usize::MAX).await?;
            news.read = read.into_iter().map(|(_, receipt)| receipt.room).collect();
        }
        Ok(news)
    }

    /// Removed account data is an empty object; who never had it is not told.
    fn shown(&self, kind: &str, json: &[u8]) -> Option<Vec<u8>> {
        match (json.is_empty(), self.from) {
            (true, None) => None,
            (true, Some(_)) => Some(typed(kind, b"{}")),
            (false, _) => Some(typed(kind, json)),
        }
    }
}
