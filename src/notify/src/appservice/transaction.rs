//! One transaction for one application service: what it holds, written down before it is first sent, so that it is the same however
//! often it has to be sent (Application Service API, "Pushing events": "Homeservers MUST NOT alter [...] events").

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use serde_json::{Map, Value, json};
use stoa_accounts::Service;
use stoa_store::{
    Direction, EventNo, Position, RoomNo, Snapshot, Tx, UserNo,
    rows::{
        keys,
        rooms::OwnMembership,
        services::{self, DeviceMessages, ItemKey, ServiceItem, ServiceTxn},
        to_device,
    },
    schema,
};

use super::{Error, Inner, Line};

/// How many rows are looked at, and how many events and other things a transaction has at most.
const ITEMS: usize = 300;
const EVENTS: usize = 100;
const OTHERS: usize = 100;
/// After how many bytes it has nothing further.
const BYTES: usize = 1 << 20;
/// How many devices of a user are looked at, and how many messages one has in a transaction.
const DEVICES: usize = 100;
const MESSAGES: usize = 100;

/// Of how many devices it is remembered what was told of their keys.
const KNOWN: usize = 10_000;

/// The keys that devices of a service's users have left, as the service was told: counts and unused fallback keys. What is the same is
/// not told again.
pub(super) type Told = HashMap<(UserNo, String), (Value, Value)>;

/// A transaction that is being put together.
#[derive(Default)]
struct Draft {
    events: Vec<Vec<u8>>,
    ephemeral: Vec<Value>,
    to_device: Vec<Value>,
    changed: BTreeSet<String>,
    left: BTreeSet<String>,
    counts: BTreeMap<String, BTreeMap<String, Value>>,
    fallbacks: BTreeMap<String, BTreeMap<String, Value>>,
    messages: Vec<DeviceMessages>,
    bytes: usize,
    told: Told,
    /// The users whose devices were looked at, and whether more of theirs waits.
    keys: HashMap<UserNo, bool>,
}

impl Draft {
    fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.ephemeral.is_empty()
            && self.to_device.is_empty()
            && self.changed.is_empty()
            && self.left.is_empty()
            && self.counts.is_empty()
            && self.fallbacks.is_empty()
    }

    fn is_full(&self) -> bool {
        let others = self.ephemeral.len() + self.to_device.len() + self.changed.len() + self.left.len();
        self.events.len() >= EVENTS || others >= OTHERS || self.bytes >= BYTES
    }

    /// The body. What is not in the specification yet has its unstable names; ephemeral events have both, as older bridges know
    /// only that one.
    fn body(&self) -> Vec<u8> {
        let mut body = b"{\"events\":[".to_vec();
        for (nth, event) in self.events.iter().enumerate() {
            if nth > 0 {
                body.push(b',');
            }
            body.extend_from_slice(event);
        }
        body.push(b']');
        let mut field = |name: &str, value: &dyn Fn() -> Value, there: bool| {
            if there {
                body.extend_from_slice(format!(",\"{name}\":{}", value()).as_bytes());
            }
        };
        for name in ["ephemeral", "de.sorunome.msc2409.ephemeral"] {
            field(name, &|| json!(self.ephemeral), !self.ephemeral.is_empty());
        }
        field("de.sorunome.msc2409.to_device", &|| json!(self.to_device), !self.to_device.is_empty());
        let lists = || json!({ "changed": self.changed, "left": self.left });
        field("org.matrix.msc3202.device_lists", &lists, !(self.changed.is_empty() && self.left.is_empty()));
        for name in ["org.matrix.msc3202.device_one_time_keys_count", "org.matrix.msc3202.device_one_time_key_counts"] {
            field(name, &|| json!(self.counts), !self.counts.is_empty());
        }
        let name = "org.matrix.msc3202.device_unused_fallback_key_types";
        field(name, &|| json!(self.fallbacks), !self.fallbacks.is_empty());
        body.push(b'}');
        body
    }
}

impl Inner {
    /// The transaction that a service gets next: the one that is on its way, or one of what waits. `None` where nothing does.
    pub(super) async fn next_txn(&self, service: &Service, line: &Line) -> Result<Option<ServiceTxn>, Error> {
        loop {
            let snapshot = self.store.snapshot().await?;
            if let Some(txn) = services::txn(&snapshot, &service.id).await? {
                return Ok(Some(txn));
            }
            let items = services::items(&snapshot, &service.id, ITEMS).await?;
            let live = std::mem::take(&mut *line.live.lock());
            let mut draft = Draft { ephemeral: self.live_events(&snapshot, &live).await?, ..Draft::default() };
            let taken = self.fill(&snapshot, (service, line), &mut draft, &items).await?;
            if draft.is_empty() && taken.is_empty() {
                return Ok(None);
            }
            let mut tx = Tx::new();
            for key in &taken {
                services::delete_item(&mut tx, key);
            }
            if draft.is_empty() {
                // What waited is not there any more.
                self.store.commit(tx).await?;
                continue;
            }
            // Never one that was there before, not even before a backup was restored.
            let id = format!("{}.{}", self.env.now_ms(), self.env.token(8));
            let body = draft.body();
            let txn = ServiceTxn { id, body, messages: draft.messages };
            services::put_txn(&mut tx, &service.id, &txn);
            self.store.commit(tx).await?;
            let mut known = line.keys.lock();
            if known.len() > KNOWN {
                known.clear();
            }
            known.extend(draft.told);
            return Ok(Some(txn));
        }
    }

    /// Fills a transaction with what waits, in order; answers what needs not wait any more.
    async fn fill(
        &self,
        snapshot: &Snapshot,
        service: (&Service, &Line),
        draft: &mut Draft,
        items: &[(ItemKey, ServiceItem)],
    ) -> Result<Vec<ItemKey>, Error> {
        let numbers: Vec<(RoomNo, EventNo)> = items
            .iter()
            .filter_map(|(_, item)| match item {
                ServiceItem::Event { room, event } => Some((*room, *event)),
                _ => None,
            })
            .take(EVENTS)
            .collect();
        let mut events = self.view.for_service(snapshot, &numbers).await?.into_iter();
        let mut taken = Vec::new();
        for (key, item) in items {
            if draft.is_full() {
                break;
            }
            let done = match *item {
                ServiceItem::Event { .. } => {
                    // So many were read.
                    let Some(event) = events.next() else { break };
                    if let Some(event) = event {
                        draft.bytes += event.len();
                        draft.events.push(event);
                    }
                    true
                }
                other => self.other(snapshot, service, draft, other).await?,
            };
            if done {
                taken.push(key.clone());
            }
        }
        Ok(taken)
    }

    /// Something beside events of timelines. Whether that was all of it is the answer.
    async fn other(
        &self,
        snapshot: &Snapshot,
        (service, line): (&Service, &Line),
        draft: &mut Draft,
        item: ServiceItem,
    ) -> Result<bool, Error> {
        match item {
            ServiceItem::Event { .. } => {}
            ServiceItem::Outside { user, room } => {
                if let Some(event) = self.invite(snapshot, user, room).await? {
                    draft.bytes += event.len();
                    draft.events.push(event);
                }
            }
            ServiceItem::Receipt { room, at } => {
                let key = snapshot.get(&schema::RECEIPTS_BY_ROOM, &(room, at)).await?;
                self.receipt(snapshot, draft, key).await?;
            }
            ServiceItem::PrivateReceipt { user, at } => {
                let key = snapshot.get(&schema::RECEIPTS_BY_USER, &(user, at)).await?;
                self.receipt(snapshot, draft, key).await?;
            }
            ServiceItem::Keys { user } if service.encryption => {
                return match draft.keys.get(&user) {
                    Some(all) => Ok(*all),
                    None => self.keys(snapshot, line, draft, user).await,
                };
            }
            ServiceItem::Keys { .. } => {}
            ServiceItem::Devices { user } => {
                let id = self.store.names().user_id(snapshot, user).await?.to_string();
                draft.left.remove(&id);
                draft.changed.insert(id);
            }
            ServiceItem::Left { user } => {
                let id = self.store.names().user_id(snapshot, user).await?.to_string();
                draft.changed.remove(&id);
                draft.left.insert(id);
            }
        }
        Ok(true)
    }

    async fn receipt(
        &self,
        snapshot: &Snapshot,
        draft: &mut Draft,
        key: Option<stoa_store::rows::receipts::ReceiptKey>,
    ) -> Result<(), Error> {
        // A later one took its place.
        let Some(key) = key else { return Ok(()) };
        let row = (key.room, key.user, key.kind.clone(), key.thread.clone());
        let Some(receipt) = snapshot.get(&schema::RECEIPTS, &row).await? else { return Ok(()) };
        let names = self.store.names();
        let room = names.room_id(snapshot, key.room).await?;
        let user = names.user_id(snapshot, key.user).await?;
        let mut read = json!({ "ts": receipt.ts });
        if !key.thread.is_empty() {
            read["thread_id"] = key.thread.into();
        }
        let content = json!({ receipt.event_id: { key.kind: { &*user: read } } });
        draft.ephemeral.push(json!({ "type": "m.receipt", "room_id": &*room, "content": content }));
        Ok(())
    }

    /// Messages to the devices of a user, and how many keys these have (MSC4203, MSC3202).
    async fn keys(&self, snapshot: &Snapshot, line: &Line, draft: &mut Draft, user: UserNo) -> Result<bool, Error> {
        let id = self.store.names().user_id(snapshot, user).await?.to_string();
        let mut all = true;
        for ((_, device), _) in snapshot.scan(&schema::DEVICES, &user, Direction::Forward, DEVICES).await? {
            let to = snapshot.position();
            let found = to_device::read(snapshot, user, &device, Position::MIN, to, MESSAGES).await?;
            all &= found.len() < MESSAGES;
            if let Some((until, _)) = found.last() {
                draft.messages.push(DeviceMessages { user, device: device.clone(), until: *until });
            }
            for (_, json) in found {
                let Ok(mut message) = serde_json::from_slice::<Map<String, Value>>(&json) else { continue };
                message.insert("to_user_id".to_owned(), id.clone().into());
                message.insert("to_device_id".to_owned(), device.clone().into());
                draft.bytes += json.len();
                draft.to_device.push(message.into());
            }
            if !snapshot.has(&schema::DEVICE_KEYS, &(user, device.clone())).await? {
                continue;
            }
            let counts = keys::counts(snapshot, user, &device).await?;
            let now = (json!(counts.one_time), json!(counts.unused_fallback));
            let key = (user, device.clone());
            if line.keys.lock().get(&key) == Some(&now) {
                continue;
            }
            draft.told.insert(key, now.clone());
            draft.counts.entry(id.clone()).or_default().insert(device.clone(), now.0);
            draft.fallbacks.entry(id.clone()).or_default().insert(device, now.1);
        }
        draft.keys.insert(user, all);
        Ok(all)
    }

    /// An invite to a room that this server is not in, as an event: what is known of it.
    async fn invite(&self, snapshot: &Snapshot, user: UserNo, room: RoomNo) -> Result<Option<Vec<u8>>, Error> {
        #[derive(Serialize)]
        struct Unsigned {
            invite_room_state: Vec<Value>,
        }
        let own = snapshot.get(&schema::MEMBERSHIPS, &(user, room)).await?;
        let Some(OwnMembership { outside: Some(outside), stripped: Some(stripped), .. }) = own else { return Ok(None) };
        let Ok(mut state) = serde_json::from_slice::<Vec<Value>>(&stripped) else { return Ok(None) };
        // It is the last one.
        let Some(Value::Object(mut event)) = state.pop() else { return Ok(None) };
        let id = self.store.names().room_id(snapshot, room).await?;
        event.insert("room_id".to_owned(), (*id).into());
        event.insert("event_id".to_owned(), outside.event_id.into());
        event.insert("origin_server_ts".to_owned(), outside.ts.into());
        event.insert("unsigned".to_owned(), json!(Unsigned { invite_room_state: state }));
        Ok(Some(Value::Object(event).to_string().into_bytes()))
    }
}
