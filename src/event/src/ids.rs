//! Identifiers (appendices, "Identifier Grammar"): the types are ruma's, the limits are checked where bytes come in.

pub use ruma_common::{
    DeviceId, EventId, MxcUri, OwnedDeviceId, OwnedEventId, OwnedMxcUri, OwnedRoomAliasId, OwnedRoomId,
    OwnedServerName, OwnedUserId, RoomAliasId, RoomId, RoomVersionId, ServerName, UserId,
};

/// The most bytes that a user, room or event id, an alias, an event type or a state key may have.
pub const MAX_ID_BYTES: usize = 255;
