//! The bytes of every stored type. A snapshot that changes is a change of the database's form: old databases must still be
//! read (new fields are `Option` or have a default), or a migration is needed. Never accept a change here without either.

use std::fmt::Write;

use bytes::Bytes;
use stoa_store::{
    EventNo, Fact, Membership, Position, RoomNo, StateKeyNo, UserNo, Value,
    feed::FeedRow,
    rows::{
        account_data::{AccountData, AccountDataChange},
        delayed::{Delayed, End},
        devices::Device,
        emails::{Email, EmailSession, Letter},
        events::{EventPlace, Header, RelatesTo, Relation, Standing, StoredEvent, Txn},
        key_backup::BackupVersion,
        keys::FallbackKey,
        media::{File, Media},
        partial::{PartialEvent, PartialRoom},
        pushers::{Pusher, Waiting},
        receipts::{Receipt, ReceiptKey},
        reports::Report,
        rooms::{Alias, Head, Member, Outside, OwnMembership, SentTxn, StateKeyName},
        services::{DeviceMessages, ServiceItem, ServiceTxn},
        threads::{Thread, ThreadSubscription},
        tokens::{AccessToken, RefreshToken},
        users::User,
    },
    state::{Root, Tree},
    stored_bytes,
};

/// What is written, and what of it comes back.
#[derive(Default)]
struct Page(String);

impl Page {
    fn row<V: Value + PartialEq + std::fmt::Debug>(&mut self, name: &str, value: &V) {
        let bytes = stored_bytes(value);
        assert_eq!(&V::from_bytes(bytes.clone()).unwrap(), value, "{name} does not come back");
        writeln!(self.0, "{name}").unwrap();
        for line in bytes.chunks(32) {
            let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let text: String =
                line.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect();
            writeln!(self.0, "  {hex:64}  {text}").unwrap();
        }
    }
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn root() -> Root {
    let tree = |levels, byte| Tree { levels, top: [byte; 16] };
    Root { others: tree(1, 0xAA), members: tree(2, 0xBB) }
}

fn event() -> StoredEvent {
    let json = Bytes::from_static(br#"{"content":{"body":"hi"},"type":"m.room.message"}"#);
    let header = Header {
        event_id: text("$event"),
        kind: text("m.room.message"),
        state_key: Some(text("key")),
        sender: text("@a:x"),
        origin_server_ts: 1_700_000_000_000,
        depth: 7,
        content_from: 11,
        content_to: 24,
        standing: Standing::SoftFailed,
        at: Some(Position(300)),
        before: Some(root()),
        after: Some(Root::EMPTY),
        replaces: Some(EventNo(3)),
        redacted_by: Some(EventNo(4)),
        prev: vec![EventNo(1), EventNo(2)],
        auth: vec![EventNo(0)],
        txn: Some(Txn { device: text("phone"), id: text("t1") }),
        redacts: Some(text("$other")),
        relates_to: Some(RelatesTo { rel_type: text("m.thread"), event_id: text("$root") }),
        gap: true,
        partial: true,
    };
    StoredEvent { header, json }
}

fn rooms(page: &mut Page) {
    page.row("event", &event());
    let bare = Header {
        state_key: None,
        standing: Standing::Outlier,
        at: None,
        before: None,
        after: None,
        replaces: None,
        redacted_by: None,
        prev: Vec::new(),
        auth: Vec::new(),
        txn: None,
        redacts: None,
        relates_to: None,
        gap: false,
        partial: false,
        ..event().header
    };
    page.row("event, bare", &StoredEvent { header: bare, ..event() });
    page.row("event place", &EventPlace { room: RoomNo(1), event: EventNo(2) });
    let (rel_type, kind) = (text("m.annotation"), text("m.reaction"));
    page.row("relation", &Relation { event: EventNo(2), rel_type, kind, sender: text("@a:x") });
    page.row("root", &root());
    page.row("state key", &StateKeyNo(5));
    page.row("state key name", &StateKeyName { kind: text("m.room.member"), key: text("@a:x") });
    let head = Head {
        version: text("12"),
        create: EventNo(0),
        next_event: EventNo(9),
        state_keys: 6,
        extremities: vec![(EventNo(8), 9)],
        root: root(),
        last: Position(300),
        joined: 2,
        invited: 1,
        partial: false,
        whole_since: Some(Position(299)),
        member_keys: 3,
        encrypted: true,
    };
    page.row("head", &head);
    page.row("member", &Member { membership: Membership::Ban, event: EventNo(4) });
    let own = OwnMembership {
        membership: Membership::Invite,
        event: Some(EventNo(4)),
        at: Position(9),
        joined_at: Some(Position(3)),
        stripped: Some(b"[]".to_vec()),
        by: Some(text("@b:x")),
        forgotten: true,
        left_at: Some(Position(5)),
        outside: Some(Outside { via: text("b.test"), version: text("12"), event_id: Some(text("$i")), ts: 7 }),
    };
    page.row("own membership", &own);
    page.row("alias", &Alias { room: RoomNo(1), creator: text("@a:x") });
    page.row("sent transaction", &SentTxn { event_id: text("$event"), ts: 1_700_000_000_000 });
    page.row("receipt", &Receipt { event_id: text("$e"), event: EventNo(4), ts: 1_700_000_000_000, at: Position(8) });
    let key = ReceiptKey { room: RoomNo(1), user: UserNo(2), kind: text("m.read"), thread: text("main") };
    page.row("receipt key", &key);
    let partial = PartialRoom { join: EventNo(7), via: text("a.test"), servers: vec![text("a.test"), text("b.test")] };
    page.row("partial room", &partial);
    page.row("partial event", &PartialEvent { event: EventNo(8), prev: vec![EventNo(7)], told: vec![root()] });
}

fn accounts(page: &mut Page) {
    let user = User {
        created: 1,
        admin: true,
        deactivated: Some(2),
        erased: true,
        locked: true,
        suspended: true,
        guest: true,
        agreed: vec![text("terms_of_service 1.2")],
    };
    page.row("user", &user);
    let device = Device { name: Some(text("Phone")), created: 1, seen_ts: Some(2), seen_ip: Some(text("::1")) };
    page.row("device", &device);
    page.row("service item", &ServiceItem::Event { room: RoomNo(1), event: EventNo(2) });
    page.row("service item outside", &ServiceItem::Outside { user: UserNo(1), room: RoomNo(2) });
    page.row("service item receipt", &ServiceItem::Receipt { room: RoomNo(1), at: Position(2) });
    page.row("service item private", &ServiceItem::PrivateReceipt { user: UserNo(1), at: Position(2) });
    page.row("service item keys", &ServiceItem::Keys { user: UserNo(1) });
    page.row("service item devices", &ServiceItem::Devices { user: UserNo(1) });
    page.row("service item left", &ServiceItem::Left { user: UserNo(1) });
    let messages = vec![DeviceMessages { user: UserNo(1), device: text("D"), until: Position(3) }];
    page.row("service transaction", &ServiceTxn { id: text("t1"), body: b"{}".to_vec(), messages });
    let delayed = Delayed {
        room: RoomNo(1),
        kind: text("m.call.member"),
        state_key: Some(text("key")),
        content: b"{}".to_vec(),
        delay_ms: 8000,
        since_ms: 1_700_000_000_000,
        end: Some(End { ts: 1, event_id: Some(text("$e")), error: Some(text("{}")) }),
    };
    page.row("delayed event", &delayed);
    let subscription = ThreadSubscription { subscribed: true, automatic: true, at: Position(300) };
    page.row("thread subscription", &subscription);
    page.row("thread", &Thread { room: RoomNo(1), root: text("$root") });
    let access = AccessToken {
        user: UserNo(1),
        device: text("phone"),
        expires: Some(1_700_000_000_000),
        refresh: Some([1; 32]),
        fresh: true,
    };
    page.row("access token", &access);
    page.row("refresh token", &RefreshToken { user: UserNo(1), device: text("phone"), access: [2; 32] });
    page.row("account data", &AccountData { json: b"{}".to_vec(), at: Position(9) });
    page.row("account data change", &AccountDataChange { room: Some(RoomNo(1)), kind: text("m.tag") });
    let report = Report {
        by: UserNo(1),
        room: Some(text("!r:a")),
        event: Some(text("$e")),
        user: Some(text("@b:a")),
        reason: text("rude"),
        ts: 1,
    };
    page.row("report", &report);
    let pusher = Pusher { json: b"{}".to_vec(), device: text("phone"), created: 1, disabled: false, dormant: false };
    page.row("pusher", &pusher);
    page.row("dormant pusher", &Pusher { disabled: true, dormant: true, ..pusher });
    let (room, since) = (RoomNo(1), 2);
    page.row("event to push", &Waiting::Event { room, event: EventNo(3), actions: b"[]".to_vec(), since });
    page.row("invite to push", &Waiting::Invite { room, actions: b"[]".to_vec(), since });
    page.row("badge to push", &Waiting::Badge { since });
    page.row("email", &Email { validated: 1, added: 2 });
    let session = EmailSession {
        address: text("a@b.c"),
        purpose: text("add"),
        secret: vec![1; 32],
        token: vec![2; 32],
        attempt: 3,
        user: Some(UserNo(4)),
        next: Some(text("https://n")),
        validated: Some(5),
        expires: 6,
    };
    page.row("email session", &session);
    let letter = Letter {
        to: text("a@b.c"),
        about: text("add"),
        languages: text("de"),
        link: text("https://l"),
        tries: 1,
        expires: 2,
    };
    page.row("letter", &letter);
    let version = BackupVersion {
        algorithm: text("m.megolm_backup.v1.curve25519-aes-sha2"),
        auth_data: b"{}".to_vec(),
        etag: 3,
        count: 4,
        deleted: true,
    };
    page.row("backup version", &version);
    page.row("fallback key", &FallbackKey { id: text("AAAA"), json: b"{}".to_vec(), used: true });
    let file = File { size: 5, content_type: Some(text("image/png")), name: Some(text("a.png")) };
    let media = Media { uploader: UserNo(1), created: 2, file: Some(file), expires: Some(3), used: Some(4) };
    page.row("media", &media);
}

fn feed(page: &mut Page) {
    let (room, user, at) = (RoomNo(1), UserNo(2), Position(300));
    let facts = vec![
        Fact::Event { room, event: EventNo(4), at },
        Fact::Member { room, user, membership: Membership::Knock, local: true },
        Fact::Room { room, at },
        Fact::User { user, at },
        Fact::Devices { user, at },
    ];
    page.row("feed row", &FeedRow { facts });
    let facts = vec![Fact::Changed { room, event: EventNo(4) }, Fact::Profile { user }];
    page.row("feed row of changes", &FeedRow { facts });
    page.row("feed row of pushers", &FeedRow { facts: vec![Fact::Pushers { user }] });
    for membership in [Membership::Leave, Membership::Invite, Membership::Join, Membership::Ban, Membership::Knock] {
        page.row(membership.as_str(), &Member { membership, event: EventNo(0) });
    }
    page.row("number", &0x0102_0304u32);
    page.row("position", &Position(300));
    page.row("text", &text("text"));
}

#[test]
fn pushers_of_before_are_read() {
    let old = Pusher::from_bytes(Bytes::from_static(b"\x01\x83\x42{}\x65phone\x01")).unwrap();
    let pusher = Pusher { json: b"{}".to_vec(), device: text("phone"), created: 1, disabled: false, dormant: false };
    assert_eq!(old, pusher);
}

#[test]
fn stored_types_keep_their_bytes() {
    let mut page = Page::default();
    rooms(&mut page);
    accounts(&mut page);
    feed(&mut page);
    insta::assert_snapshot!(page.0);
}

#[test]
fn what_was_cut_or_is_of_another_release_is_an_error() {
    let whole = stored_bytes(&event());
    for end in 0..whole.len() - event().json.len() {
        assert!(StoredEvent::from_bytes(whole.slice(..end)).is_err(), "{end}");
    }
    let mut newer = whole.to_vec();
    newer[0] = 2;
    assert!(StoredEvent::from_bytes(newer.into()).is_err());
    let row = stored_bytes(&Alias { room: RoomNo(1), creator: text("@a:x") });
    for end in 0..row.len() {
        assert!(Alias::from_bytes(row.slice(..end)).is_err(), "{end}");
    }
    let mut newer = row.to_vec();
    newer[0] = 2;
    assert!(Alias::from_bytes(newer.into()).is_err());
    assert!(u32::from_bytes(Bytes::from_static(b"abc")).is_err());
    assert!(String::from_bytes(Bytes::from_static(&[0xFF])).is_err());
}
