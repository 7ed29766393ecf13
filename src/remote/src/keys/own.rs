//! Our own keys as we publish them, and the keys of others as we pass them on (Server-Server API, "Publishing Keys",
//! "Querying Keys Through Another Server").

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use stoa_event::{
    ids::{OwnedServerName, ServerName},
    json::{Object, Value},
    sign::{self, KnownKey, VerifyKey},
};
use stoa_store::{Tx, rows};

use super::{HeldKey, KeyRing, Ring, document::is_key_id};
use crate::Error;

/// What is asked of a notary: for each server the ids of keys, none for all, each with the time until which it must be
/// valid at least.
pub type Wanted = BTreeMap<OwnedServerName, BTreeMap<String, Option<u64>>>;

/// How long ahead our keys are valid each time they are asked for.
const VALIDITY_MS: u64 = 24 * 60 * 60 * 1000;
/// How long what a server told of its keys is passed on without asking it for others.
const PAUSE_MS: u64 = 5 * 60 * 1000;
/// The fact in the store that holds our keys from before, as `old_verify_keys` are published.
const OLD_KEYS: &str = "old_verify_keys";

impl KeyRing {
    /// The answer of `GET /_matrix/key/v2/server`: our keys, signed.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn own_keys(&self) -> Result<Bytes, Error> {
        let ring = &self.ring;
        let (key, now) = (&ring.caller.key, ring.caller.env.now_ms());
        let old = ring.stored_old().await?;
        let old = old.as_deref().and_then(|json| Object::parse(json).ok()).unwrap_or_default();
        let mut published = Object::new();
        published.insert("key", key.verify_key().to_base64().into());
        let mut keys = Object::new();
        keys.insert(key.id(), published.into());
        let mut document = Object::new();
        document.insert("server_name", ring.caller.server.as_str().into());
        let valid_until = i64::try_from(now.saturating_add(VALIDITY_MS)).unwrap_or(i64::MAX);
        document.insert("valid_until_ts", Value::Int(valid_until));
        document.insert("verify_keys", keys.into());
        document.insert("old_verify_keys", old.into());
        sign::sign_object(&mut document, &ring.caller.server, key).map_err(|why| Error::Malformed(why.to_string()))?;
        Ok(Value::from(document).to_canonical().into())
    }

    /// Writes down a key that this server signed with until `expired_ts`, so that old events can still be checked.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn retire(&self, key_id: &str, key: &VerifyKey, expired_ts: u64) -> Result<(), Error> {
        let ring = &self.ring;
        let stored = ring.stored_old().await?;
        let mut all = stored.as_deref().and_then(|json| Object::parse(json).ok()).unwrap_or_default();
        let mut entry = Object::new();
        entry.insert("key", key.to_base64().into());
        entry.insert("expired_ts", Value::Int(i64::try_from(expired_ts).unwrap_or(i64::MAX)));
        all.insert(key_id.to_owned(), entry.into());
        let mut tx = Tx::new();
        rows::server::put(&mut tx, OLD_KEYS, &Value::from(all).to_canonical().into());
        ring.store.commit(tx).await?;
        ring.own_old.store(None);
        Ok(())
    }

    /// The answer of `/_matrix/key/v2/query`: what is known of the keys of others, signed by them and by us. We ask for
    /// what is missing or has ended, within limits: anybody may ask us.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn notary(&self, wanted: &Wanted) -> Result<Bytes, Error> {
        let ring = &self.ring;
        let now = ring.caller.env.now_ms();
        let wanted: Vec<_> = wanted.iter().take(ring.caller.tuning.notary_servers).collect();
        let servers: Vec<_> = wanted.iter().map(|(server, _)| (*server).clone()).collect();
        let before = ring.documents(&servers).await?;
        let ended = wanted
            .iter()
            .zip(&before)
            .filter(|((server, ids), row)| **server != ring.caller.server && ring.must_ask(ids, row.as_ref()));
        let ended: Vec<_> = ended.take(ring.caller.tuning.notary_fetches).map(|((server, _), _)| *server).collect();
        // A loop instead of closures: futures of closures over references cannot be sent to other threads.
        let mut asking = Vec::with_capacity(ended.len());
        for server in ended {
            asking.push(async move {
                if let Ok(_turn) = ring.for_others.acquire().await {
                    let fresh = || ring.cache.get(server).is_some_and(|held| held.fetched_at >= now);
                    ring.refresh_until(server, false, fresh).await;
                }
            });
        }
        stream::iter(asking).buffer_unordered(ring.caller.tuning.notary_fetches).collect::<Vec<()>>().await;
        let mut answer = b"{\"server_keys\":[".to_vec();
        let mut first = true;
        for (server, row) in servers.iter().zip(ring.documents(&servers).await?) {
            let document = match row {
                _ if *server == ring.caller.server => self.own_keys().await?,
                Some(row) => match sign::sign_json(&row.document, &ring.caller.server, &ring.caller.key) {
                    Ok(json) => json.into(),
                    Err(_) => continue,
                },
                None => continue,
            };
            if !std::mem::take(&mut first) {
                answer.push(b',');
            }
            answer.extend_from_slice(&document);
        }
        answer.extend_from_slice(b"]}");
        Ok(answer.into())
    }
}

impl Ring {
    async fn documents(&self, servers: &[OwnedServerName]) -> Result<Vec<Option<rows::remote::ServerKeys>>, Error> {
        let snapshot = self.store.snapshot().await?;
        Ok(rows::remote::keys(&snapshot, servers.iter().map(ToString::to_string)).await?)
    }

    /// Whether what is known does not answer the question of somebody else.
    fn must_ask(&self, ids: &BTreeMap<String, Option<u64>>, row: Option<&rows::remote::ServerKeys>) -> bool {
        let now = self.caller.env.now_ms();
        let Some(row) = row else {
            return true;
        };
        if ids.is_empty() {
            return row.valid_until < now;
        }
        // Anybody can ask for keys that are not.
        if now < row.fetched_at + PAUSE_MS {
            return false;
        }
        ids.iter().any(|(id, at)| {
            let found = row.keys.iter().find(|key| key.id == *id);
            // Without a time the key must be valid now.
            let at = at.unwrap_or(now).min(now);
            found.is_none_or(|key| key.expired.is_none() && key.valid_until < at)
        })
    }

    async fn stored_old(&self) -> Result<Option<Bytes>, Error> {
        let snapshot = self.store.snapshot().await?;
        Ok(rows::server::get(&snapshot, OLD_KEYS).await?)
    }

    /// One of our own keys, from memory.
    pub(super) fn own(&self, key_id: &str) -> Option<HeldKey> {
        let key = &self.caller.key;
        if key_id == key.id() {
            return Some(HeldKey { known: KnownKey { key: key.verify_key(), valid_until_ts: u64::MAX }, old: false });
        }
        let old = self.own_old.load();
        old.as_ref().and_then(|old| old.get(key_id)).map(|known| HeldKey { known: *known, old: true })
    }

    /// Takes our keys from before into memory.
    pub(super) async fn read_own_old(&self) {
        let stored = match self.stored_old().await {
            Ok(stored) => stored,
            Err(why) => return tracing::warn!(%why, "cannot read the keys that this server had before"),
        };
        let stored = stored.as_deref().and_then(|json| Object::parse(json).ok()).unwrap_or_default();
        let keys: HashMap<_, _> =
            stored.iter().filter_map(|(id, entry)| Some((id.to_owned(), old_key(entry)?))).collect();
        self.own_old.store(Some(Arc::new(keys)));
    }
}

fn old_key(entry: &Value<'_>) -> Option<KnownKey> {
    let entry = entry.as_object()?;
    let key = VerifyKey::parse(entry.get_str("key")?).ok()?;
    let valid_until_ts = u64::try_from(entry.get("expired_ts")?.as_int()?).ok()?;
    Some(KnownKey { key, valid_until_ts })
}

/// Reads what `POST /_matrix/key/v2/query` asks; entries that cannot be are passed over.
pub fn read_wanted(body: &[u8]) -> Option<Wanted> {
    #[derive(serde::Deserialize)]
    struct Body {
        server_keys: BTreeMap<String, BTreeMap<String, Criteria>>,
    }
    #[derive(serde::Deserialize)]
    struct Criteria {
        minimum_valid_until_ts: Option<u64>,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    let servers = body.server_keys.into_iter().filter_map(|(server, ids)| {
        let ids = ids.into_iter().filter(|(id, _)| is_key_id(id));
        let server = <&ServerName>::try_from(server.as_str()).ok()?.to_owned();
        Some((server, ids.map(|(id, at)| (id, at.minimum_valid_until_ts)).collect()))
    });
    Some(servers.collect())
}
