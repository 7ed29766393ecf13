//! Account data, global and of rooms, with an index by which `/sync` finds what changed.

use std::ops::Bound;

use bytes::Bytes;
use stoa_event::ids::UserId;

use super::push_rules;
use crate::{Direction, Error, Position, RoomNo, Slot, Snapshot, Tx, UserNo, cbor_value, schema, tx::Fact};

/// One piece of account data.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct AccountData {
    /// The content: a JSON object.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub json: Vec<u8>,
    /// Where it was set.
    #[n(1)]
    pub at: Position,
}
cbor_value!(AccountData);

/// Which piece changed.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct AccountDataChange {
    /// The room, unless it is global.
    #[n(0)]
    pub room: Option<RoomNo>,
    /// The event type.
    #[n(1)]
    pub kind: String,
}
cbor_value!(AccountDataChange);

/// A piece of account data that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The room, unless it is global.
    pub room: Option<RoomNo>,
    /// The event type.
    pub kind: String,
    /// The content: a JSON object.
    pub json: Vec<u8>,
    /// Where it was set.
    pub at: Position,
}

/// One piece, global or of a room. Push rules are read by [`push_rules::get`].
///
/// # Errors
/// Where the engine fails.
pub async fn get(
    snapshot: &Snapshot,
    user: UserNo,
    room: Option<RoomNo>,
    kind: &str,
) -> Result<Option<AccountData>, Error> {
    match room {
        Some(room) => snapshot.get(&schema::ROOM_ACCOUNT_DATA, &(user, room, kind.to_owned())).await,
        None => snapshot.get(&schema::ACCOUNT_DATA, &(user, kind.to_owned())).await,
    }
}

/// Everything that was set after a position, in order; from the beginning with the push rules that everybody has.
///
/// # Errors
/// Where the engine fails.
pub async fn since(
    snapshot: &Snapshot,
    user: UserNo,
    user_id: &UserId,
    after: Position,
) -> Result<Vec<Changed>, Error> {
    let from = Bound::Excluded((user, after));
    let to = Bound::Included(user);
    let rows = snapshot.range(&schema::ACCOUNT_DATA_CHANGES, from, to, Direction::Forward, usize::MAX).await?;
    let mut all = Vec::with_capacity(rows.len());
    for ((_, at, kind), change) in rows {
        let Some(row) = get(snapshot, user, change.room, &kind).await?.filter(|row| row.at == at) else { continue };
        let own = change.room.is_none() && kind == push_rules::TYPE;
        let json = if own { push_rules::refreshed(&row.json, user_id) } else { row.json };
        all.push(Changed { room: change.room, kind, json, at });
    }
    let default_rules =
        after == Position::MIN && !all.iter().any(|one| one.room.is_none() && one.kind == push_rules::TYPE);
    if default_rules {
        let json = push_rules::json(&push_rules::defaults(user_id));
        all.insert(0, Changed { room: None, kind: push_rules::TYPE.to_owned(), json, at: Position::MIN });
    }
    Ok(all)
}

/// Sets a piece of account data at the position of `slot`, and tells the feed. `before` is where it was set last, so
/// that the index keeps one row for each piece. Each piece needs a slot of its own.
pub fn put(
    tx: &mut Tx,
    slot: Slot,
    user: UserNo,
    room: Option<RoomNo>,
    kind: &str,
    json: &Bytes,
    before: Option<Position>,
) {
    if let Some(before) = before {
        tx.delete(&schema::ACCOUNT_DATA_CHANGES, &(user, before, kind.to_owned()));
    }
    let change = AccountDataChange { room, kind: kind.to_owned() };
    let kind = kind.to_owned();
    let index_kind = kind.clone();
    tx.put_at(&schema::ACCOUNT_DATA_CHANGES, move |at| ((user, at.of(slot), index_kind.clone()), change.clone()));
    let json = json.to_vec();
    match room {
        Some(room) => tx.put_at(&schema::ROOM_ACCOUNT_DATA, move |at| {
            ((user, room, kind.clone()), AccountData { json: json.clone(), at: at.of(slot) })
        }),
        None => tx.put_at(&schema::ACCOUNT_DATA, move |at| {
            ((user, kind.clone()), AccountData { json: json.clone(), at: at.of(slot) })
        }),
    }
    tx.tell(move |at| Fact::User { user, at: at.of(slot) });
}

/// Forgets all account data of a user.
pub fn delete_all(tx: &mut Tx, user: UserNo) {
    tx.delete_prefix(&schema::ACCOUNT_DATA, &user);
    tx.delete_prefix(&schema::ROOM_ACCOUNT_DATA, &user);
    tx.delete_prefix(&schema::ACCOUNT_DATA_CHANGES, &user);
}
