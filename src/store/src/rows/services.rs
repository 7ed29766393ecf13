//! What waits for application services: what they are to be told, and the transaction that is on its way. And the rooms that they
//! list in directories of their networks.

use stoa_engine::Direction;

use crate::{Error, EventNo, Position, RoomNo, Snapshot, Tx, UserNo, cbor_value, schema};

/// Something that an application service is to be told. Numbers only: what is told is read when it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, minicbor::Encode, minicbor::Decode)]
pub enum ServiceItem {
    /// An event of a timeline.
    #[n(0)]
    Event {
        /// The room.
        #[n(0)]
        room: RoomNo,
        /// The event.
        #[n(1)]
        event: EventNo,
    },
    /// One of its users was invited to a room that this server is not in.
    #[n(1)]
    Outside {
        /// The user.
        #[n(0)]
        user: UserNo,
        /// The room.
        #[n(1)]
        room: RoomNo,
    },
    /// A receipt that everybody in the room is shown.
    #[n(2)]
    Receipt {
        /// The room.
        #[n(0)]
        room: RoomNo,
        /// The place of the receipt.
        #[n(1)]
        at: Position,
    },
    /// A private receipt of one of its users.
    #[n(3)]
    PrivateReceipt {
        /// The user.
        #[n(0)]
        user: UserNo,
        /// The place of the receipt.
        #[n(1)]
        at: Position,
    },
    /// Messages to devices of one of its users, or counts of their keys.
    #[n(4)]
    Keys {
        /// The user.
        #[n(0)]
        user: UserNo,
    },
    /// The devices of somebody changed, who is in a room with its users.
    #[n(5)]
    Devices {
        /// The user.
        #[n(0)]
        user: UserNo,
    },
    /// Somebody is in no room with its users any more.
    #[n(6)]
    Left {
        /// The user.
        #[n(0)]
        user: UserNo,
    },
}
cbor_value!(ServiceItem);

/// A transaction that is on its way: it is the same however often it has to be sent.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct ServiceTxn {
    /// Its id.
    #[n(0)]
    pub id: String,
    /// Its body.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// The messages to devices in it: those up to a place are done when it is.
    #[n(2)]
    pub messages: Vec<DeviceMessages>,
}
cbor_value!(ServiceTxn);

/// The messages to a device up to a place.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct DeviceMessages {
    /// The user.
    #[n(0)]
    pub user: UserNo,
    /// The device.
    #[n(1)]
    pub device: String,
    /// The last one.
    #[n(2)]
    pub until: Position,
}

/// Where something waits: the service, the commit, and which of the commit it is.
pub type ItemKey = (String, Position, u32);

/// Lets something wait for a service.
pub fn put_item(tx: &mut Tx, service: &str, at: Position, nth: u32, item: &ServiceItem) {
    tx.put(&schema::SERVICE_QUEUE, &(service.to_owned(), at, nth), item);
}

/// What waits for a service, oldest first.
///
/// # Errors
/// Where the engine fails.
pub async fn items(snapshot: &Snapshot, service: &str, limit: usize) -> Result<Vec<(ItemKey, ServiceItem)>, Error> {
    snapshot.scan(&schema::SERVICE_QUEUE, &service.to_owned(), Direction::Forward, limit).await
}

/// Something does not wait any more.
pub fn delete_item(tx: &mut Tx, key: &ItemKey) {
    tx.delete(&schema::SERVICE_QUEUE, key);
}

/// The transaction that is on its way to a service.
///
/// # Errors
/// Where the engine fails.
pub async fn txn(snapshot: &Snapshot, service: &str) -> Result<Option<ServiceTxn>, Error> {
    snapshot.get(&schema::SERVICE_TXNS, &service.to_owned()).await
}

/// Puts a transaction on its way.
pub fn put_txn(tx: &mut Tx, service: &str, txn: &ServiceTxn) {
    tx.put(&schema::SERVICE_TXNS, &service.to_owned(), txn);
}

/// The service has the transaction.
pub fn delete_txn(tx: &mut Tx, service: &str) {
    tx.delete(&schema::SERVICE_TXNS, &service.to_owned());
}

/// Lists a room in the directory of a network (`instance_id`), or no longer.
pub fn put_in_network(tx: &mut Tx, network: &str, room: RoomNo, listed: bool) {
    let key = (network.to_owned(), room);
    match listed {
        true => tx.put(&schema::NETWORK_ROOMS, &key, &()),
        false => tx.delete(&schema::NETWORK_ROOMS, &key),
    }
}
