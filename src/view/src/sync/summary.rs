//! What a client needs to name and draw a room without all its members, and who read how far.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Bound,
};

use stoa_store::{
    Direction, Membership, Position,
    rows::receipts::{self, ReceiptKey},
    rows::rooms::Head,
    schema,
};

use super::joined::RoomWork;
use crate::{Error, json::Object, json::typed};

/// How many heroes a room has (Client-Server API, "Calculating the display name for a room").
pub(crate) const HEROES: usize = 5;
/// How many members are looked at to find them.
pub(crate) const LOOKED_AT: usize = 200;

impl RoomWork<'_> {
    /// Counts of members, and heroes for rooms without a name.
    pub(super) fn summary(&self, body: &mut Object<'_>, heroes: Option<&[String]>) {
        let mut object = Object::new(body.key("summary"));
        // Nobody can say so before all members are known.
        if !self.is_partial() {
            let Head { joined, invited, .. } = self.head();
            object.plain("m.joined_member_count", joined).plain("m.invited_member_count", invited);
        }
        if let Some(heroes) = heroes {
            object.strings("m.heroes", heroes);
        }
        object.end();
    }

    /// Who stands for a room without a name; `None` for one that has a name.
    pub(super) async fn heroes_if_unnamed(&self) -> Result<Option<Vec<String>>, Error> {
        match self.is_named().await? {
            true => Ok(None),
            false => self.heroes().await.map(Some),
        }
    }

    async fn is_named(&self) -> Result<bool, Error> {
        for (kind, field) in [("m.room.name", "name"), ("m.room.canonical_alias", "alias")] {
            let Some(event) = self.eyes().event_of(self.head().root, kind, "").await? else { continue };
            let content: serde_json::Value = serde_json::from_slice(event.content()).unwrap_or_default();
            if content[field].as_str().is_some_and(|name| !name.is_empty()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Joined and invited members; if there are none, those who left.
    pub(crate) async fn heroes(&self) -> Result<Vec<String>, Error> {
        let span = self.span();
        let rows = span.snapshot.scan(&schema::MEMBERS, &self.room(), Direction::Forward, LOOKED_AT).await?;
        let others = || rows.iter().filter(|((_, user), _)| *user != span.viewer.user_no);
        let here = |membership| matches!(membership, Membership::Join | Membership::Invite);
        let mut heroes: Vec<_> = others().filter(|(_, member)| here(member.membership)).take(HEROES).collect();
        if heroes.is_empty() {
            heroes = others().filter(|(_, member)| !here(member.membership)).take(HEROES).collect();
        }
        let mut ids = Vec::with_capacity(heroes.len());
        for ((_, user), _) in heroes {
            ids.push(span.inner.store.names().user_id(span.snapshot, *user).await?.to_string());
        }
        Ok(ids)
    }

    /// `m.receipt` with everything after the client's token (Client-Server API, "Receipts"); those of others only on some
    /// events, where they are given.
    pub(crate) async fn receipts(&self, only: Option<&HashSet<String>>) -> Result<Option<Vec<u8>>, Error> {
        let span = self.span();
        let me = span.viewer.user_no;
        let from = if self.is_anew() { Position::MIN } else { span.seen() };
        let to = span.to.position;
        let (low, high) = (Bound::Included((self.room(), from.next())), Bound::Included((self.room(), to)));
        let mut keys: Vec<_> = span
            .snapshot
            .range(&schema::RECEIPTS_BY_ROOM, low, high, Direction::Forward, usize::MAX)
            .await?
            .into_iter()
            .map(|(_, key)| key)
            .collect();
        // One's own private ones. By room: going through all of the user's for each room would take rooms times receipts.
        let own = span.snapshot.scan(&schema::RECEIPTS, &(self.room(), me), Direction::Forward, usize::MAX).await?;
        keys.extend(
            own.into_iter()
                .filter(|((_, _, kind, _), receipt)| kind == receipts::PRIVATE && receipt.at > from && receipt.at <= to)
                .map(|((room, user, kind, thread), _)| ReceiptKey { room, user, kind, thread }),
        );
        // event -> kind -> user -> data
        let mut content: BTreeMap<String, BTreeMap<String, BTreeMap<String, Vec<u8>>>> = BTreeMap::new();
        for key in keys {
            let row = (key.room, key.user, key.kind.clone(), key.thread.clone());
            let Some(receipt) = span.snapshot.get(&schema::RECEIPTS, &row).await? else { continue };
            if key.user != me && only.is_some_and(|only| !only.contains(&receipt.event_id)) {
                continue;
            }
            let user = span.inner.store.names().user_id(span.snapshot, key.user).await?;
            let mut data = Vec::new();
            let mut object = Object::new(&mut data);
            object.plain("ts", receipt.ts);
            if !key.thread.is_empty() {
                object.str("thread_id", &key.thread);
            }
            object.end();
            content.entry(receipt.event_id).or_default().entry(key.kind).or_default().insert(user.to_string(), data);
        }
        Ok((!content.is_empty()).then(|| typed("m.receipt", &write(&content))))
    }
}

fn write(content: &BTreeMap<String, BTreeMap<String, BTreeMap<String, Vec<u8>>>>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut events = Object::new(&mut out);
    for (event, kinds) in content {
        let mut by_kind = Object::new(events.key(event));
        for (kind, users) in kinds {
            let mut by_user = Object::new(by_kind.key(kind));
            for (user, data) in users {
                by_user.raw(user, data);
            }
            by_user.end();
        }
        by_kind.end();
    }
    events.end();
    out
}
