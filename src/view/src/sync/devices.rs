//! End-to-end encryption in `/sync`: messages to the device, and whose devices changed.

use std::collections::BTreeSet;

use stoa_store::{Position, UserNo, rows};

use super::Span;
use crate::{Error, Filter, View, Viewer, json::Object, token::SyncToken};

/// How many to-device messages one answer has.
const MESSAGES: usize = 100;

/// Users who came into or went out of encrypted rooms that the user shares with them.
#[derive(Default)]
pub(crate) struct DeviceNews {
    pub(crate) came: BTreeSet<UserNo>,
    pub(crate) went: BTreeSet<UserNo>,
}

/// `device_lists`
#[derive(Default)]
pub(crate) struct DeviceLists {
    pub(crate) changed: Vec<String>,
    pub(crate) left: Vec<String>,
}

impl DeviceLists {
    pub(crate) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.left.is_empty()
    }
}

impl Span<'_> {
    /// Messages for the device, and the position up to which they are complete.
    pub(super) async fn to_device(&self) -> Result<(Vec<Vec<u8>>, Position), Error> {
        let user = self.viewer.user_no;
        let to = self.to.position;
        if self.from.is_some() && self.inner.store.who().user_last(user) <= self.seen() {
            return Ok((Vec::new(), to));
        }
        let found = rows::to_device::read(self.snapshot, user, &self.viewer.device, self.seen(), to, MESSAGES).await?;
        let until = found.last().filter(|_| found.len() == MESSAGES).map_or(to, |(at, _)| *at);
        Ok((found.into_iter().map(|(_, json)| json.to_vec()).collect(), until))
    }

    /// Whose devices the client should ask for again, and whose it can forget.
    pub(crate) async fn device_lists(&self, news: DeviceNews) -> Result<DeviceLists, Error> {
        let Some(from) = self.from else { return Ok(DeviceLists::default()) };
        let me = self.viewer.user_no;
        let mut changed = news.came;
        let mut left = BTreeSet::new();
        // Keys that the user signed from another device look different now.
        changed.extend(rows::keys::signed(self.snapshot, me, from.position, self.to.position).await?);
        for user in rows::keys::devices_changed(self.snapshot, from.position, self.to.position).await? {
            if user == me || self.shares_room(user, false).await? {
                changed.insert(user);
            }
        }
        for user in news.went {
            if user != me && !self.shares_room(user, true).await? {
                changed.remove(&user);
                left.insert(user);
            }
        }
        Ok(DeviceLists { changed: self.ids(changed).await?, left: self.ids(left).await? })
    }

    async fn ids(&self, users: BTreeSet<UserNo>) -> Result<Vec<String>, Error> {
        let mut ids = Vec::with_capacity(users.len());
        for user in users {
            ids.push(self.inner.store.names().user_id(self.snapshot, user).await?.to_string());
        }
        Ok(ids)
    }

    /// Whether the user is in a room (an encrypted one) with another.
    async fn shares_room(&self, other: UserNo, encrypted: bool) -> Result<bool, Error> {
        self.inner.share_room(self.snapshot, self.viewer.user_no, other, encrypted).await
    }
}

impl View {
    /// Whose devices changed, and whom the user shares no encrypted room with any more, between two sync tokens
    /// (Client-Server API, "Key management API", `/keys/changes`).
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for tokens that are not ours
    pub async fn key_changes(&self, viewer: &Viewer, from: &str, to: &str) -> Result<Vec<u8>, Error> {
        let (from, to) = (SyncToken::parse(from)?, SyncToken::parse(to)?);
        let snapshot = self.inner.store.snapshot().await?;
        let filter = Filter::default();
        let to = SyncToken { position: to.position.min(snapshot.position()), ..to };
        let span = Span::new(&self.inner, &snapshot, viewer, &filter, (Some(from), to)).await?;
        let lists = span.device_lists(span.device_news().await?).await?;
        let mut out = Vec::new();
        let mut body = Object::new(&mut out);
        body.strings("changed", &lists.changed).strings("left", &lists.left);
        body.end();
        Ok(out)
    }
}
