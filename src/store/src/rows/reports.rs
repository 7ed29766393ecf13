//! Reports: what people find so bad that they tell those who run the server.

use crate::{Slot, Tx, UserNo, cbor_value, schema};

/// A report.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Report {
    /// Who reports.
    #[n(0)]
    pub by: UserNo,
    /// The room, for a room or an event.
    #[n(1)]
    pub room: Option<String>,
    /// The event, for an event.
    #[n(2)]
    pub event: Option<String>,
    /// The user, for a user; for an event, its sender.
    #[n(3)]
    pub user: Option<String>,
    /// Why; empty where nothing was said.
    #[n(4)]
    pub reason: String,
    /// When, in milliseconds since 1970.
    #[n(5)]
    pub ts: u64,
}
cbor_value!(Report);

/// Adds a report at the position of `slot`.
pub fn put(tx: &mut Tx, slot: Slot, report: Report) {
    tx.put_at(&schema::REPORTS, move |at| (at.of(slot), report.clone()));
}
