//! Every table on one page: what it is for, its number, where it lives, its key and its value. `docs/schema.md` is
//! generated from this file. A number is never used again for something else.

use bytes::Bytes;
use stoa_engine::Space;

use crate::{
    EventNo, Position, RoomNo, StateKeyNo, UserNo,
    feed::FeedRow,
    rows::{
        account_data::{AccountData, AccountDataChange},
        delayed::Delayed,
        devices::Device,
        emails::{Email, EmailSession, Letter},
        events::{EventPlace, Relation, StoredEvent},
        key_backup::BackupVersion,
        keys::{FallbackKey, RemoteDevices},
        media::Media,
        outbox::ToldDevice,
        partial::{PartialEvent, PartialRoom},
        pushers::{Pusher, Waiting as WaitingPush},
        receipts::{Receipt, ReceiptKey},
        remote::{Destination, ServerKeys},
        remote_media::RemoteMedia,
        reports::Report,
        rooms::{Alias, Head, Member, OwnMembership, SentTxn, StateKeyName, Waiting},
        services::{ServiceItem, ServiceTxn},
        threads::{Thread, ThreadSubscription},
        tokens::{AccessToken, RefreshToken},
        users::User,
    },
    state::Root,
    table::Table,
};

/// Row of [`ALL`]: number, space, name.
pub type About = (u8, Space, &'static str);

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident = $id:literal in $space:ident : $key:ty => $value:ty;)*) => {
        $($(#[$doc])* pub static $name: Table<$key, $value> = Table::new($id, Space::$space, stringify!($name));)*

        /// All tables, for the tools that look at them.
        pub const ALL: &[About] = &[$(($id, Space::$space, stringify!($name))),*];
    };
}

/// The version of this page. A database of another version is migrated when it is opened, or refused.
pub const VERSION: u32 = 1;

tables! {
    // The store itself.
    /// The version of the schema that the database was written by. Written by `migrate.rs`.
    SCHEMA_VERSION = 1 in Rows: () => u32;
    /// The position of the last commit. Written by `commit.rs`.
    POSITION = 2 in Rows: () => Position;
    /// What happened, for followers that may be away. Written by `commit.rs`, forgotten by `feed.rs`.
    FEED = 3 in Queues: Position => FeedRow;
    /// How far each follower is. Written by `feed.rs`.
    CURSORS = 4 in Rows: String => Position;
    /// The number of each user id. Written by `names.rs`.
    USER_NOS = 5 in Rows: String => UserNo;
    /// The user id of each number. Written by `names.rs`.
    USER_IDS = 6 in Rows: UserNo => String;
    /// The number of each room id. Written by `names.rs`.
    ROOM_NOS = 7 in Rows: String => RoomNo;
    /// The room id of each number. Written by `names.rs`.
    ROOM_IDS = 8 in Rows: RoomNo => String;
    /// Facts about this server that must outlive it: its name, its signing key. Written by `rows/server.rs`.
    SERVER = 9 in Rows: String => Bytes;

    // Rooms and their events.
    /// Every event that we hold: accepted, rejected, soft-failed or an outlier. Written by `rows/events.rs`.
    EVENTS = 10 in Events: (RoomNo, EventNo) => StoredEvent;
    /// Where the event of an id is. Written by `rows/events.rs`.
    EVENT_IDS = 11 in Rows: String => EventPlace;
    /// A room's events in the order in which we came to know them: what `/sync` reads. Written by `rows/events.rs`.
    TIMELINE = 12 in Indexes: (RoomNo, Position) => EventNo;
    /// A room's events by depth, then position: what `/messages` reads. Written by `rows/events.rs`.
    HISTORY = 13 in Indexes: (RoomNo, u64, Position) => EventNo;
    /// The events that relate to an event: parent, depth and place of the child. Written by `rows/events.rs`.
    RELATIONS = 14 in Indexes: (RoomNo, EventNo, u64, Position) => Relation;
    /// The nodes of a room's state trees, by the hash of their content. Written by `state/`.
    STATE_NODES = 15 in Events: (RoomNo, [u8; 16]) => Bytes;
    /// The number of a state key: event type, state key. Written by `rows/rooms.rs`.
    STATE_KEYS = 16 in Rows: (RoomNo, String, String) => StateKeyNo;
    /// The event type and state key of a number. Written by `rows/rooms.rs`.
    STATE_KEY_NAMES = 17 in Rows: (RoomNo, StateKeyNo) => StateKeyName;
    /// What a room is now. Written by `rows/rooms.rs`.
    ROOMS = 18 in Rows: RoomNo => Head;
    /// Everyone who has a current membership other than never having been there. Written by `rows/rooms.rs`.
    MEMBERS = 19 in Indexes: (RoomNo, UserNo) => Member;
    /// The same from the side of our own users. Written by `rows/rooms.rs`.
    MEMBERSHIPS = 20 in Indexes: (UserNo, RoomNo) => OwnMembership;
    /// Room aliases of this server. Written by `rows/rooms.rs`.
    ALIASES = 21 in Rows: String => Alias;
    /// The aliases of a room. Written by `rows/rooms.rs`.
    ROOM_ALIASES = 22 in Rows: (RoomNo, String) => ();
    /// The rooms of the public directory. Written by `rows/rooms.rs`.
    DIRECTORY = 23 in Rows: RoomNo => ();
    /// What a client's transaction id led to: user, device, what it did, transaction id. Written by `rows/rooms.rs`.
    TXNS = 24 in Rows: (UserNo, String, String, String) => SentTxn;
    /// The current state of a room from a position on, one row for each change of it. Written by `rows/rooms.rs`.
    ROOTS = 25 in Indexes: (RoomNo, Position) => Root;
    /// How many of a server's users are joined to a room; none for servers without any. Written by `rows/rooms.rs`.
    ROOM_SERVERS = 26 in Rows: (RoomNo, String) => u32;
    /// Events that name an event which we do not hold: room, the id named, who names it. Written by `rows/rooms.rs`.
    WAITING = 27 in Indexes: (RoomNo, String, EventNo) => Waiting;
    /// Replies in threads by depth and place, with the root of the thread: the threads of a room in the order of their latest
    /// replies. Written by `rows/events.rs`.
    THREADS = 28 in Indexes: (RoomNo, u64, Position) => EventNo;
    /// Rooms whose state is not whole yet, and where it can be had. Written by `rows/partial.rs`.
    PARTIAL_ROOMS = 29 in Rows: RoomNo => PartialRoom;
    /// Events of such a room whose states are to be worked out again, in the order in which they got their places.
    /// Written by `rows/partial.rs`.
    PARTIAL_EVENTS = 30 in Indexes: (RoomNo, Position) => PartialEvent;

    // Accounts.
    /// The accounts of this server. Written by `rows/users.rs`.
    USERS = 40 in Rows: UserNo => User;
    /// Password hashes in PHC form. Written by `rows/users.rs`.
    PASSWORDS = 41 in Rows: UserNo => String;
    /// Profiles, field by field; the values are JSON. Written by `rows/users.rs`.
    PROFILES = 42 in Rows: (UserNo, String) => Bytes;
    /// Devices. Written by `rows/devices.rs`.
    DEVICES = 43 in Rows: (UserNo, String) => Device;
    /// Access tokens by their SHA-256. Written by `rows/tokens.rs`.
    ACCESS_TOKENS = 44 in Rows: [u8; 32] => AccessToken;
    /// Refresh tokens by their SHA-256. Written by `rows/tokens.rs`.
    REFRESH_TOKENS = 45 in Rows: [u8; 32] => RefreshToken;
    /// The tokens of a device, and which kind each is. Written by `rows/tokens.rs`.
    DEVICE_TOKENS = 46 in Rows: (UserNo, String, [u8; 32]) => u8;
    /// Global account data by event type, push rules too. Written by `rows/account_data.rs`.
    ACCOUNT_DATA = 47 in Rows: (UserNo, String) => AccountData;
    /// Account data of rooms by event type. Written by `rows/account_data.rs`.
    ROOM_ACCOUNT_DATA = 48 in Rows: (UserNo, RoomNo, String) => AccountData;
    /// Account data in the order in which it was set last. Written by `rows/account_data.rs`.
    ACCOUNT_DATA_CHANGES = 49 in Indexes: (UserNo, Position, String) => AccountDataChange;
    /// Stored filters, JSON. Written by `rows/filters.rs`.
    FILTERS = 50 in Rows: (UserNo, u32) => Bytes;
    /// Pushers: user, app id, push key. Written by `rows/pushers.rs`.
    PUSHERS = 51 in Rows: (UserNo, String, String) => Pusher;
    /// Who has a pusher of that app id and push key. Written by `rows/pushers.rs`.
    PUSHER_OWNERS = 52 in Rows: (String, String, UserNo) => ();
    /// What waits for a pusher: user, app id, push key, where it happened. Written by `rows/pushers.rs`.
    PUSH_QUEUE = 54 in Queues: (UserNo, String, String, Position) => WaitingPush;

    /// What people reported, in order. Written by `rows/reports.rs`.
    REPORTS = 53 in Rows: Position => Report;

    // E-mail.
    /// Addresses of a user. Written by `rows/emails.rs`.
    EMAILS = 150 in Rows: (UserNo, String) => Email;
    /// Whose an address is. Written by `rows/emails.rs`.
    EMAIL_OWNERS = 151 in Rows: String => UserNo;
    /// Those who show that an address is theirs, by session id. Written by `rows/emails.rs`.
    EMAIL_SESSIONS = 152 in Rows: String => EmailSession;
    /// Letters that are still to be sent: when, and a name. Written by `rows/emails.rs`.
    LETTERS = 153 in Queues: (u64, String) => Letter;

    // Key backup.
    /// Versions of a user's key backup. Written by `rows/key_backup.rs`.
    BACKUP_VERSIONS = 60 in Rows: (UserNo, u64) => BackupVersion;
    /// Keys of sessions: user, version, room, session. Written by `rows/key_backup.rs`.
    BACKUP_KEYS = 61 in Rows: (UserNo, u64, String, String) => Bytes;

    // Keys and messages of devices.
    /// The identity keys of a device: JSON. Written by `rows/keys.rs`.
    DEVICE_KEYS = 70 in Rows: (UserNo, String) => Bytes;
    /// How many one-time keys a device has left, by algorithm. Written by `rows/keys.rs`.
    ONE_TIME_KEY_COUNTS = 71 in Rows: (UserNo, String, String) => u32;
    /// Fallback keys by algorithm. Written by `rows/keys.rs`.
    FALLBACK_KEYS = 72 in Rows: (UserNo, String, String) => FallbackKey;
    /// Whose devices or keys changed, in order; one row a user. Written by `rows/keys.rs`.
    DEVICE_CHANGES = 73 in Indexes: (Position, UserNo) => ();
    /// Where the devices or keys of a user changed last. Written by `rows/keys.rs`.
    DEVICES_CHANGED_AT = 74 in Rows: UserNo => Position;
    /// One-time keys: user, device, algorithm, where they were uploaded, key id. Written by `rows/keys.rs`.
    ONE_TIME_KEYS = 75 in Rows: (UserNo, String, String, Position, String) => Bytes;
    /// Where a one-time key was uploaded: user, device, algorithm, key id. Written by `rows/keys.rs`.
    ONE_TIME_KEY_IDS = 76 in Rows: (UserNo, String, String, String) => Position;
    /// Cross-signing keys by usage: JSON. Written by `rows/keys.rs`.
    CROSS_SIGNING_KEYS = 77 in Rows: (UserNo, String) => Bytes;
    /// Signatures that a user made on the master keys of others, shown to that user only: who signed, whose key, key id
    /// of the signature. Written by `rows/keys.rs`.
    OWN_SIGNATURES = 78 in Rows: (UserNo, UserNo, String) => String;
    /// Whose master key a user signed when, so that the user's other devices look again. Written by `rows/keys.rs`.
    OWN_SIGNATURE_CHANGES = 79 in Indexes: (UserNo, Position) => UserNo;
    /// Messages that wait for a device. Written by `rows/to_device.rs`.
    TO_DEVICE = 80 in Queues: (UserNo, String, Position) => Bytes;
    /// How well the devices of another server's user are known; their keys stand where those of our own users do.
    /// Written by `rows/keys.rs`.
    REMOTE_DEVICES = 82 in Rows: UserNo => RemoteDevices;

    // Files.
    /// Uploaded files by their media id. Written by `rows/media.rs`.
    MEDIA = 90 in Rows: String => Media;
    /// Media ids whose files are still to come, and until when: user, media id. Written by `rows/media.rs`.
    MEDIA_PENDING = 91 in Rows: (UserNo, String) => u64;
    /// How many bytes of files a user has uploaded. Written by `rows/media.rs`.
    MEDIA_TOTALS = 92 in Rows: UserNo => u64;
    /// Files of other servers that are kept here, by the hash of their URIs. Written by `rows/remote_media.rs`.
    REMOTE_MEDIA = 93 in Rows: String => RemoteMedia;
    /// The same in the order in which they were used last; the value is the size. Written by `rows/remote_media.rs`.
    REMOTE_MEDIA_USED = 94 in Indexes: (u64, String) => u64;

    // What people do in rooms beside sending events.
    /// Receipts: room, user, kind, thread. Written by `rows/receipts.rs`.
    RECEIPTS = 100 in Rows: (RoomNo, UserNo, String, String) => Receipt;
    /// Public receipts of a room in the order in which they came. Written by `rows/receipts.rs`.
    RECEIPTS_BY_ROOM = 101 in Indexes: (RoomNo, Position) => ReceiptKey;
    /// A user's own receipts, private ones too, in the order in which they came. Written by `rows/receipts.rs`.
    RECEIPTS_BY_USER = 102 in Indexes: (UserNo, Position) => ReceiptKey;

    /// What a user said of following a thread: user, room, root. Written by `rows/threads.rs`.
    THREAD_SUBSCRIPTIONS = 103 in Rows: (UserNo, RoomNo, String) => ThreadSubscription;
    /// The same in the order in which it was said. Written by `rows/threads.rs`.
    THREAD_CHANGES = 104 in Indexes: (UserNo, Position) => Thread;

    // Other servers.
    /// The keys of other servers. Written by `rows/remote.rs`.
    SERVER_KEYS = 110 in Rows: String => ServerKeys;
    /// Servers that fail or asked to be left alone. Written by `rows/remote.rs`.
    DESTINATIONS = 111 in Rows: String => Destination;

    // What waits for other servers.
    /// Events of ours that wait for a server. Written by `rows/outbox.rs`.
    OUTBOX = 112 in Queues: (String, RoomNo, Position) => EventNo;
    /// Contents of `m.direct_to_device` EDUs that wait for a server. Written by `rows/outbox.rs`.
    DIRECT = 113 in Queues: (String, Position) => Bytes;
    /// News of our users' devices that wait for a server: server, user, `stream_id`; the value is the one before.
    /// Written by `rows/outbox.rs`.
    OUTBOX_DEVICES = 114 in Queues: (String, UserNo, u64) => u64;
    /// What other servers were told of the devices of our users. Written by `rows/outbox.rs`.
    TOLD_DEVICES = 115 in Rows: (UserNo, String) => ToldDevice;
    /// Messages to devices that came from a server, by its id for them, and when. Written by `rows/outbox.rs`.
    DIRECT_SEEN = 116 in Rows: (String, String) => u64;

    // What is to be sent later.
    /// Delayed events of our users by their delay ids. Written by `rows/delayed.rs`.
    DELAYED = 120 in Rows: (UserNo, String) => Delayed;
    /// All of them by whether they are over and when they are to be sent or were; the value is the room. Written by
    /// `rows/delayed.rs`.
    DELAYED_BY_TIME = 121 in Indexes: (bool, u64, UserNo, String) => RoomNo;
    /// The same for each user. Written by `rows/delayed.rs`.
    DELAYED_BY_USER = 122 in Indexes: (UserNo, bool, u64, String) => ();

    // Application services.
    /// What waits for an application service: its id, the commit, which of the commit. Written by `rows/services.rs`.
    SERVICE_QUEUE = 140 in Queues: (String, Position, u32) => ServiceItem;
    /// The transaction that is on its way to an application service. Written by `rows/services.rs`.
    SERVICE_TXNS = 141 in Queues: String => ServiceTxn;
    /// The rooms in the directory of a network: `instance_id`, room. Written by `rows/services.rs`.
    NETWORK_ROOMS = 142 in Rows: (String, RoomNo) => ();
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn every_table_has_a_number_and_a_name_of_its_own() {
        let ids: HashSet<_> = super::ALL.iter().map(|(id, _, _)| id).collect();
        let names: HashSet<_> = super::ALL.iter().map(|(_, _, name)| name).collect();
        assert_eq!((ids.len(), names.len()), (super::ALL.len(), super::ALL.len()));
    }
}
