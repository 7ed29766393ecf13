//! Receipts: how far somebody has read, by room, kind and thread (Client-Server API, "Receipts").

use crate::{EventNo, Position, RoomNo, Slot, Tx, UserNo, cbor_value, schema, tx::Fact};

/// A receipt.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Receipt {
    /// The event up to which was read.
    #[n(0)]
    pub event_id: String,
    /// Its number in the room.
    #[n(1)]
    pub event: EventNo,
    /// When, in milliseconds since 1970.
    #[n(2)]
    pub ts: u64,
    /// The place of the receipt.
    #[n(3)]
    pub at: Position,
}
cbor_value!(Receipt);

/// Which receipt changed.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct ReceiptKey {
    /// The room.
    #[n(0)]
    pub room: RoomNo,
    /// Who read.
    #[n(1)]
    pub user: UserNo,
    /// `m.read` or `m.read.private`.
    #[n(2)]
    pub kind: String,
    /// The thread's root, `main`, or nothing for a receipt that is not threaded.
    #[n(3)]
    pub thread: String,
}
cbor_value!(ReceiptKey);

/// The kind of receipt that nobody else is shown.
pub const PRIVATE: &str = "m.read.private";

/// Sets a receipt in place of `old`, at the position of `slot`, and tells those who may see it.
pub fn put(tx: &mut Tx, slot: Slot, key: ReceiptKey, receipt: Receipt, old: Option<&Receipt>) {
    let ReceiptKey { room, user, .. } = key;
    if let Some(old) = old {
        tx.delete(&schema::RECEIPTS_BY_ROOM, &(room, old.at));
        tx.delete(&schema::RECEIPTS_BY_USER, &(user, old.at));
    }
    let private = key.kind == PRIVATE;
    let (row, by_user) = (key.clone(), key.clone());
    tx.put_at(&schema::RECEIPTS, move |at| {
        let receipt = Receipt { at: at.of(slot), ..receipt.clone() };
        ((room, user, row.kind.clone(), row.thread.clone()), receipt)
    });
    if !private {
        tx.put_at(&schema::RECEIPTS_BY_ROOM, move |at| ((room, at.of(slot)), key.clone()));
        tx.tell(move |at| Fact::Room { room, at: at.of(slot) });
    }
    tx.put_at(&schema::RECEIPTS_BY_USER, move |at| ((user, at.of(slot)), by_user.clone()));
    tx.tell(move |at| Fact::User { user, at: at.of(slot) });
}
