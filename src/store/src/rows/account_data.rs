//! Account data, global and of rooms, with an index by which `/sync` finds what changed.

use bytes::Bytes;

use crate::{Position, RoomNo, Slot, Tx, UserNo, cbor_value, schema, tx::Fact};

/// One piece of account data.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct AccountData {
    /// The content: a JSON object. Empty where it was removed.
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

/// Sets a piece of account data at the position of `slot`, and tells the feed. `before` is where it was set last, so
/// that the index keeps one row for each piece.
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
