//! Devices of other servers' users (Server-Server API, "Device Management", "End-to-End Encryption"): lists that are kept
//! where their servers tell us of changes, and questions where they do not.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use stoa_accounts::{
    ClaimedKeys, FoundKeys, Who,
    remote_devices::{ToldDevices, is_signing_key, shown_keys},
};
use stoa_event::ids::{OwnedServerName, OwnedUserId, UserId};
use stoa_store::{Direction, Membership, RoomNo, Snapshot, UserNo, schema};
use tokio::sync::{Mutex as AsyncMutex, Notify};

use crate::{Error, Federation, Inner, ask::Path};

/// How long a client waits for other servers if it does not say.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may wait at most.
const LONGEST: Duration = Duration::from_secs(30);
/// How many servers are asked at once for one client.
const SERVERS: usize = 32;
/// How many users' whole lists are asked for at once, of one server.
const LISTS: usize = 8;
/// With more users of one server than that, their keys are asked for together, and no list is kept.
const BY_LIST: usize = 32;
/// How many lists wait to be asked for again.
const RESYNCS: usize = 10_000;
/// How many lists are asked for again at once.
const RESYNCS_AT_ONCE: usize = 8;
/// After how many tries in vain, and how long between them. Who then asks for the keys asks the server again.
const TRIES: u32 = 6;
const BETWEEN: Duration = Duration::from_secs(20);
/// How many members are looked at together when we leave a room.
const MEMBERS: usize = 1_000;

type Gate = Arc<AsyncMutex<()>>;

/// Lists that are being asked for, or are to be.
#[derive(Default)]
pub(crate) struct Lists {
    /// One at a time for each user.
    gates: Mutex<HashMap<OwnedUserId, Gate>>,
    waiting: Mutex<HashSet<OwnedUserId>>,
    wake: Notify,
}

impl Lists {
    fn gate(&self, user: &UserId) -> Gate {
        let mut gates = self.gates.lock();
        gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        gates.entry(user.to_owned()).or_default().clone()
    }

    /// Has a list asked for some time soon.
    pub(crate) fn resync(&self, user: &UserId) {
        let mut waiting = self.waiting.lock();
        if waiting.len() < RESYNCS && waiting.insert(user.to_owned()) {
            drop(waiting);
            self.wake.notify_one();
        }
    }
}

/// The answer of `/user/keys/query`.
#[derive(Default, Deserialize)]
struct Queried {
    #[serde(default)]
    device_keys: BTreeMap<OwnedUserId, BTreeMap<String, Value>>,
    #[serde(default)]
    master_keys: BTreeMap<OwnedUserId, Value>,
    #[serde(default)]
    self_signing_keys: BTreeMap<OwnedUserId, Value>,
}

/// The answer of `/user/keys/claim`.
#[derive(Default, Deserialize)]
struct Claimed {
    #[serde(default)]
    one_time_keys: ClaimedKeys,
}

/// Which devices' keys are asked for; none named means all.
pub type Wanted = BTreeMap<OwnedUserId, Vec<String>>;
/// Of which devices a key of which algorithm is wanted.
pub type WantedKeys = BTreeMap<OwnedUserId, BTreeMap<String, String>>;

impl Federation {
    /// The keys of users and their devices, whichever server they are of. Servers that do not answer are in `failures`.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn query_keys(&self, who: &Who, wanted: &Wanted, patience: Option<Duration>) -> Result<FoundKeys, Error> {
        let inner = &*self.inner;
        let patience = patience.unwrap_or(PATIENCE).min(LONGEST);
        let mut held = Wanted::new();
        let mut unknown: BTreeMap<OwnedServerName, Wanted> = BTreeMap::new();
        let snapshot = inner.store.snapshot().await?;
        for (user, devices) in wanted {
            // What is kept is for those who share a room: to others it would tell whom this server knows.
            let known = user.server_name() == self.server()
                || (inner.accounts.remote_devices(user).await?.is_some_and(|known| !known.stale)
                    && inner.shares_room(&snapshot, who, user).await?);
            let list = if known { &mut held } else { unknown.entry(user.server_name().to_owned()).or_default() };
            list.insert(user.clone(), devices.clone());
        }
        let asked: Vec<_> = stream::iter(unknown)
            .map(|(server, wanted)| async move { inner.ask_server(who, server, wanted, patience).await })
            .buffer_unordered(SERVERS)
            .collect()
            .await;
        let mut answers = Vec::with_capacity(asked.len());
        for asked in asked {
            let mut asked = asked?;
            held.append(&mut asked.held);
            answers.push(asked);
        }
        let mut found = inner.accounts.query_keys(who, &held).await?;
        for Asked { server, answer, failed, .. } in answers {
            found.device_keys.extend(answer.device_keys);
            found.master_keys.extend(answer.master_keys);
            found.self_signing_keys.extend(answer.self_signing_keys);
            if let Some(why) = failed {
                found.failures.insert(server.to_string(), failure(&why));
            }
        }
        Ok(found)
    }

    /// Gives out a key for each device that is asked for, whichever server it is of. Servers that do not answer are the
    /// second part of the answer.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn claim_keys(
        &self,
        wanted: &WantedKeys,
        patience: Option<Duration>,
    ) -> Result<(ClaimedKeys, BTreeMap<String, Value>), Error> {
        let inner = &*self.inner;
        let patience = patience.unwrap_or(PATIENCE).min(LONGEST);
        let mut ours = WantedKeys::new();
        let mut others: BTreeMap<OwnedServerName, WantedKeys> = BTreeMap::new();
        for (user, devices) in wanted {
            let local = user.server_name() == self.server();
            let list = if local { &mut ours } else { others.entry(user.server_name().to_owned()).or_default() };
            list.insert(user.clone(), devices.clone());
        }
        let mut claimed = inner.accounts.claim_keys(&ours).await?;
        let mut failures = BTreeMap::new();
        let asked: Vec<_> = stream::iter(others)
            .map(|(server, wanted)| async move {
                let body = json!({ "one_time_keys": wanted });
                let path = || Path::new("v1/user/keys/claim");
                let answer = inner.post::<Claimed>(&server, path(), &body, patience).await;
                (server, wanted, answer)
            })
            .buffer_unordered(SERVERS)
            .collect()
            .await;
        for (server, wanted, answer) in asked {
            match answer {
                Ok(answer) => claimed.extend(asked_for(answer.one_time_keys, &wanted)),
                Err(why) => {
                    failures.insert(server.to_string(), failure(&why));
                }
            }
        }
        Ok((claimed, failures))
    }
}

/// What a server was asked for.
struct Asked {
    server: OwnedServerName,
    /// Users whose keys are in the store now, as well as can be.
    held: Wanted,
    /// Keys of others.
    answer: Queried,
    failed: Option<stoa_remote::Error>,
}

impl Inner {
    /// Asks a server for the keys of its users. Lists of users with whom we share a room are kept: their server tells us of
    /// changes.
    async fn ask_server(
        &self,
        who: &Who,
        server: OwnedServerName,
        wanted: Wanted,
        patience: Duration,
    ) -> Result<Asked, Error> {
        let mut asked = Asked { server, held: Wanted::new(), answer: Queried::default(), failed: None };
        let mut others = wanted;
        if others.len() <= BY_LIST {
            let snapshot = self.store.snapshot().await?;
            for user in others.keys().cloned().collect::<Vec<_>>() {
                if self.shares_room(&snapshot, who, &user).await?
                    && let Some(devices) = others.remove(&user)
                {
                    asked.held.insert(user, devices);
                }
            }
            let users: Vec<OwnedUserId> = asked.held.keys().cloned().collect();
            let lists = stream::iter(users).map(|user| async move { self.refresh(&user, patience).await });
            let done: Vec<_> = lists.buffer_unordered(LISTS).collect().await;
            for done in done {
                match done {
                    Ok(()) => {}
                    Err(Error::Remote(why)) => asked.failed = Some(why),
                    Err(other) => return Err(other),
                }
            }
        }
        if others.is_empty() || asked.failed.is_some() {
            return Ok(asked);
        }
        let path = Path::new("v1/user/keys/query");
        let body = json!({ "device_keys": others });
        match self.post::<Queried>(&asked.server, path, &body, patience).await {
            Ok(answer) => asked.answer = believable(answer, &others),
            Err(why) => asked.failed = Some(why),
        }
        Ok(asked)
    }

    /// Whether who asks is in a room with another user.
    async fn shares_room(&self, snapshot: &Snapshot, who: &Who, user: &UserId) -> Result<bool, Error> {
        let Some(no) = self.store.names().user(snapshot, user.as_str()).await? else { return Ok(false) };
        let rooms = self.store.who().joined(who.user_no);
        let members = snapshot.get_many(&schema::MEMBERS, rooms.iter().map(|room| (RoomNo(room), no))).await?;
        Ok(members.into_iter().flatten().any(|member| member.membership == Membership::Join))
    }

    /// Asks for a user's whole list, unless somebody else did so just now.
    async fn refresh(&self, user: &UserId, patience: Duration) -> Result<(), Error> {
        let gate = self.lists.gate(user);
        let _turn = gate.lock().await;
        if self.accounts.remote_devices(user).await?.is_some_and(|known| !known.stale) {
            return Ok(());
        }
        let path = Path::new("v1/user/devices").part(user.as_str());
        let told: ToldDevices = self.get(user.server_name(), path, patience).await?;
        self.accounts.set_remote_devices(user, told).await?;
        Ok(())
    }

    /// Asks for lists of which something was missed, for ever.
    pub(crate) async fn resync(&self) {
        loop {
            self.lists.wake.notified().await;
            let users = std::mem::take(&mut *self.lists.waiting.lock());
            let work = stream::iter(users).map(|user| async move { self.resync_one(&user).await });
            work.buffer_unordered(RESYNCS_AT_ONCE).collect::<()>().await;
        }
    }

    async fn resync_one(&self, user: &UserId) {
        for attempt in 1..=TRIES {
            match self.refresh(user, LONGEST).await {
                Ok(()) => return,
                Err(why) if attempt == TRIES || !may_pass(&why) => {
                    return tracing::info!(%user, %why, "cannot get the devices of a user");
                }
                Err(_) => tokio::time::sleep(BETWEEN).await,
            }
        }
    }

    /// Somebody is in a room no longer: of whom we see no more, or who sees no more of us, we hear no more.
    pub(crate) async fn out_of_sight(
        &self,
        snapshot: &Snapshot,
        room: RoomNo,
        user: UserNo,
        local: bool,
    ) -> Result<(), Error> {
        if !local {
            return Ok(self.accounts.doubt_remote_devices(user).await?);
        }
        if !self.store.who().local(room).is_empty() {
            return Ok(());
        }
        let mut after: Option<UserNo> = None;
        loop {
            let from = after
                .map_or(std::ops::Bound::Included((room, UserNo::MIN)), |user| std::ops::Bound::Excluded((room, user)));
            let to = std::ops::Bound::Included(room);
            let members = snapshot.range(&schema::MEMBERS, from, to, Direction::Forward, MEMBERS).await?;
            let known = snapshot.get_many(&schema::REMOTE_DEVICES, members.iter().map(|((_, user), _)| *user)).await?;
            for ((_, user), _) in members.iter().zip(known).filter_map(|(member, known)| known.map(|_| member)) {
                self.accounts.doubt_remote_devices(*user).await?;
            }
            match members.last() {
                Some(((_, last), _)) if members.len() == MEMBERS => after = Some(*last),
                _ => return Ok(()),
            }
        }
    }
}

/// Whether another try may help.
fn may_pass(why: &Error) -> bool {
    match why {
        Error::Remote(stoa_remote::Error::Answer(answer)) => answer.status >= 500 || answer.status == 429,
        Error::Remote(stoa_remote::Error::NotAllowed(_) | stoa_remote::Error::Malformed(_)) => false,
        _ => true,
    }
}

/// What a server may say of its users, and was asked.
fn believable(answer: Queried, wanted: &Wanted) -> Queried {
    let Queried { device_keys, master_keys, self_signing_keys } = answer;
    let devices = |(user, devices): (OwnedUserId, BTreeMap<String, Value>)| {
        let named = wanted.get(&user)?;
        let shown = devices
            .into_iter()
            .filter(|(device, _)| named.is_empty() || named.contains(device))
            .filter_map(|(device, keys)| Some((device.clone(), shown_keys(&user, &device, &keys)?)));
        Some((user.clone(), shown.collect()))
    };
    let signing = |keys: BTreeMap<OwnedUserId, Value>, usage: &str| {
        keys.into_iter().filter(|(user, key)| wanted.contains_key(user) && is_signing_key(user, usage, key)).collect()
    };
    Queried {
        device_keys: device_keys.into_iter().filter_map(devices).collect(),
        master_keys: signing(master_keys, "master"),
        self_signing_keys: signing(self_signing_keys, "self_signing"),
    }
}

/// What was asked for of what was given.
fn asked_for(given: ClaimedKeys, wanted: &WantedKeys) -> ClaimedKeys {
    let mut all = ClaimedKeys::new();
    for (user, devices) in given {
        let Some(named) = wanted.get(&user) else { continue };
        let devices = devices.into_iter().filter(|(device, _)| named.contains_key(device));
        all.insert(user, devices.collect());
    }
    all
}

/// What a client is told of a server that did not answer.
fn failure(why: &stoa_remote::Error) -> Value {
    let status = why.answer().map_or(503, |answer| answer.status);
    json!({ "status": status, "message": why.to_string() })
}
