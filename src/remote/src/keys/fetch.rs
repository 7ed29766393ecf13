//! Making keys known: from the store, from their servers, from notaries.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::{json, value::RawValue};
use stoa_event::{
    ids::{OwnedServerName, ServerName},
    sign,
};
use stoa_store::{Tx, rows};

use super::{
    KeyRing, Ring, Vain,
    document::{self, Document, MAX_DOCUMENT, Source, is_key_id},
};
use crate::{Error, Options};

/// How many servers one question to a notary names.
const NOTARY_BATCH: usize = 100;
/// The longest that a server is not asked for keys again.
const LONGEST_VAIN_MS: u64 = 60 * 60 * 1000;
/// The same for one that speaks to us.
const SHORT_VAIN_MS: u64 = 60 * 1000;

/// Key ids by server, each with the time at which it must be valid, if there is one.
type Missing = BTreeMap<OwnedServerName, Ids>;
pub(super) type Ids = BTreeMap<String, Option<u64>>;

impl KeyRing {
    /// Makes keys known, as far as they can be had: those of which nothing is known, and those whose validity, as far as
    /// it is known, ends before `at_ms`. What could not be had stays missing; one looks with [`KeyRing::known`].
    pub async fn fetch(&self, wanted: &[(OwnedServerName, String)], at_ms: Option<u64>) {
        self.fetch_each(wanted.iter().map(|(server, key_id)| (server.clone(), key_id.clone(), at_ms))).await;
    }

    /// The same with a time for each key: that of the newest event that it signed.
    pub async fn fetch_each(&self, wanted: impl IntoIterator<Item = (OwnedServerName, String, Option<u64>)>) {
        let ring = &*self.ring;
        let mut missing = Missing::new();
        for (server, key_id, at_ms) in wanted {
            if is_key_id(&key_id) && ring.lacks(&server, &key_id, at_ms) {
                let at = missing.entry(server).or_default().entry(key_id).or_default();
                *at = at_ms.max(*at);
            }
        }
        ring.fetch(missing).await;
    }
}

impl Ring {
    async fn fetch(&self, mut missing: Missing) {
        if missing.remove(&self.caller.server).is_some() {
            self.read_own_old().await;
        }
        self.read(&mut missing).await;
        missing.retain(|server, _| self.caller.lists.allows(server));
        if missing.is_empty() {
            return;
        }
        if missing.len() >= self.caller.tuning.bulk_keys && !self.notaries.is_empty() {
            // One question for a hundred servers, many of which may be gone.
            self.ask_notaries(&missing).await;
            self.still(&mut missing);
        }
        // A loop instead of closures: futures of closures over references cannot be sent to other threads, which only those
        // who build on this crate are told.
        let mut asking = Vec::with_capacity(missing.len());
        for (server, ids) in &missing {
            asking.push(async move { (server.clone(), self.refresh(server, ids, false).await) });
        }
        let answers: Vec<_> = stream::iter(asking).buffer_unordered(self.caller.tuning.key_requests).collect().await;
        let asked: BTreeSet<_> = answers.into_iter().filter(|(_, asked)| *asked).map(|(server, _)| server).collect();
        missing.retain(|server, _| asked.contains(server));
        self.still(&mut missing);
        if !missing.is_empty() && !self.notaries.is_empty() {
            self.ask_notaries(&missing).await;
        }
    }

    /// Whether a key is unknown, or might be found to be valid for longer than is known.
    pub(super) fn lacks(&self, server: &ServerName, key_id: &str, at_ms: Option<u64>) -> bool {
        match (self.held(server, key_id), at_ms) {
            (None, _) => true,
            (Some(_), None) => false,
            // Nobody can know yet how long a key will be valid in the future.
            (Some(key), Some(at)) => !key.old && key.known.valid_until_ts < at.min(self.caller.env.now_ms()),
        }
    }

    /// Takes a key from the store, if it is there.
    pub(super) async fn know(&self, server: &ServerName, key_id: &str, at_ms: u64) {
        if self.lacks(server, key_id, Some(at_ms)) {
            let ids = Ids::from([(key_id.to_owned(), Some(at_ms))]);
            self.read(&mut Missing::from([(server.to_owned(), ids)])).await;
        }
    }

    /// Asks the notaries for keys of one server.
    pub(super) async fn ask_notaries_for(&self, server: &ServerName, ids: &Ids) {
        self.ask_notaries(&Missing::from([(server.to_owned(), ids.clone())])).await;
    }

    fn still(&self, missing: &mut Missing) {
        missing.retain(|server, ids| {
            ids.retain(|id, at| self.lacks(server, id, *at));
            !ids.is_empty()
        });
    }

    /// Takes from the store what is there.
    async fn read(&self, missing: &mut Missing) {
        let unread: Vec<_> = missing.keys().filter(|server| self.cache.get(*server).is_none()).cloned().collect();
        if unread.is_empty() {
            return;
        }
        let rows = async {
            let snapshot = self.store.snapshot().await?;
            rows::remote::keys(&snapshot, unread.iter().map(ToString::to_string)).await
        };
        match rows.await {
            Ok(rows) => {
                for (server, row) in unread.iter().zip(rows) {
                    if let Some(row) = row {
                        self.hold(server, &row);
                    }
                }
            }
            Err(why) => tracing::warn!(%why, "cannot read the keys of servers"),
        }
        self.still(missing);
    }

    /// Asks a server for its keys, unless somebody did while we waited for our turn, or in vain lately. Answers whether it
    /// was asked.
    pub(super) async fn refresh(&self, server: &ServerName, ids: &Ids, ignore_backoff: bool) -> bool {
        let done = || !ids.iter().any(|(id, at)| self.lacks(server, id, *at));
        self.refresh_until(server, ignore_backoff, done).await
    }

    /// The same, with a question that says whether it is done.
    pub(super) async fn refresh_until(
        &self,
        server: &ServerName,
        ignore_backoff: bool,
        done: impl Fn() -> bool,
    ) -> bool {
        let _gate = self.gates.enter(server.to_owned()).await;
        let now = self.caller.env.now_ms();
        let vain = self.vain.get(server);
        // Who speaks to us is there again, whatever was before.
        let longest = if ignore_backoff { SHORT_VAIN_MS } else { LONGEST_VAIN_MS };
        if done() || vain.is_some_and(|vain| now < vain.asked_at + vain.wait.min(longest)) {
            return false;
        }
        let retry = self.caller.tuning.key_retry_ms;
        let times = vain.map_or(0, |vain| vain.times);
        let wait = retry.saturating_mul(1 << times.min(20)).min(LONGEST_VAIN_MS);
        // Before the question, so that it counts even if nobody waits for the answer.
        self.vain.insert(server.to_owned(), Vain { asked_at: now, wait, times: times + 1 });
        match self.ask_itself(server, ignore_backoff).await {
            // It is there, but has no such key: anybody can ask for keys that are not, and it may be new tomorrow.
            Ok(()) => self.vain.insert(server.to_owned(), Vain { asked_at: now, wait: retry, times: 0 }),
            Err(why) => tracing::debug!(%server, %why, "cannot get the keys of a server"),
        }
        if done() {
            self.vain.remove(server);
        }
        true
    }

    async fn ask_itself(&self, server: &ServerName, ignore_backoff: bool) -> Result<(), Error> {
        let mut request = http::Request::new(Bytes::new());
        *request.uri_mut() = http::Uri::from_static("/_matrix/key/v2/server");
        let answer = self.caller.send(server, request, false, self.options(ignore_backoff, MAX_DOCUMENT)).await?;
        let document = Document::read(answer.body()).map_err(|why| Error::Malformed(why.to_string()))?;
        if document.server != server {
            return Err(Error::Malformed(format!("these are the keys of {}", document.server)));
        }
        self.learn(&document, answer.body(), Source::Itself).await
    }

    fn options(&self, ignore_backoff: bool, max_response: usize) -> Options {
        let timeout = Some(Duration::from_millis(self.caller.tuning.key_timeout_ms));
        Options { timeout, max_response: Some(max_response), ignore_backoff }
    }

    /// Keeps what a document says. The caller holds the server's gate.
    async fn learn(&self, document: &Document, json: &[u8], source: Source) -> Result<(), Error> {
        let name = document.server.as_str();
        let snapshot = self.store.snapshot().await?;
        let known = rows::remote::keys(&snapshot, [name.to_owned()]).await?.pop().flatten();
        let now = self.caller.env.now_ms();
        let (row, refused) = document::merge(known.as_ref(), document, json, source, now);
        for key_id in refused {
            tracing::warn!(
                server = name,
                key_id,
                "a server gives another key for an id that is still valid; not taken"
            );
        }
        let mut tx = Tx::new();
        rows::remote::put_keys(&mut tx, name, &row);
        self.store.commit(tx).await?;
        self.hold(&document.server, &row);
        Ok(())
    }

    /// Asks the notaries, one after the other, for what is still missing.
    async fn ask_notaries(&self, missing: &Missing) {
        let mut missing = missing.clone();
        for notary in &self.notaries {
            missing.remove(notary);
            let servers: Vec<_> = missing.keys().cloned().collect();
            for batch in servers.chunks(NOTARY_BATCH) {
                let batch: Missing =
                    batch.iter().filter_map(|name| Some((name.clone(), missing.get(name)?.clone()))).collect();
                if let Err(why) = self.ask_notary(notary, &batch).await {
                    tracing::info!(%notary, %why, "a notary does not help");
                    break;
                }
            }
            self.still(&mut missing);
            if missing.is_empty() {
                return;
            }
        }
    }

    async fn ask_notary(&self, notary: &ServerName, batch: &Missing) -> Result<(), Error> {
        let now = self.caller.env.now_ms();
        let criteria = |at: &Option<u64>| json!({ "minimum_valid_until_ts": at.unwrap_or(0).min(now) });
        let wanted: BTreeMap<_, BTreeMap<_, _>> = batch
            .iter()
            .map(|(server, ids)| (server, ids.iter().map(|(id, at)| (id, criteria(at))).collect()))
            .collect();
        let body =
            serde_json::to_vec(&json!({ "server_keys": wanted })).map_err(|why| Error::Request(why.to_string()))?;
        let mut request = http::Request::new(Bytes::from(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = http::Uri::from_static("/_matrix/key/v2/query");
        request.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        let most = MAX_DOCUMENT * batch.len().min(16);
        let answer = self.caller.send(notary, request, false, self.options(false, most)).await?;
        #[derive(serde::Deserialize)]
        struct Body<'a> {
            #[serde(borrow)]
            server_keys: Vec<&'a RawValue>,
        }
        let body: Body<'_> = serde_json::from_slice(answer.body()).map_err(|why| Error::Malformed(why.to_string()))?;
        self.know_notary(notary, &body.server_keys).await;
        let mut reading = Vec::new();
        for document in body.server_keys.iter().take(NOTARY_BATCH * 4) {
            reading.push(self.passed_on(notary, batch, document.get().as_bytes()));
        }
        let read: Vec<_> = stream::iter(reading).buffer_unordered(16).collect().await;
        for why in read.into_iter().filter_map(Result::err) {
            tracing::debug!(%notary, %why, "a notary passes on what cannot be used");
        }
        Ok(())
    }

    /// Makes the keys known with which a notary signed.
    async fn know_notary(&self, notary: &ServerName, documents: &[&RawValue]) {
        #[derive(serde::Deserialize)]
        struct Signed {
            signatures: BTreeMap<String, BTreeMap<String, String>>,
        }
        let signed = documents.iter().filter_map(|raw| serde_json::from_str::<Signed>(raw.get()).ok());
        let ids = signed.filter_map(|mut signed| signed.signatures.remove(notary.as_str()));
        let ids: BTreeSet<_> = ids.flat_map(BTreeMap::into_keys).filter(|id| is_key_id(id)).collect();
        let now = Some(self.caller.env.now_ms());
        let ids: Ids = ids.into_iter().take(4).map(|id| (id, now)).collect();
        let mut missing = Missing::from([(notary.to_owned(), ids)]);
        self.still(&mut missing);
        self.read(&mut missing).await;
        if let Some(ids) = missing.get(notary) {
            self.refresh(notary, ids, false).await;
        }
    }

    async fn passed_on(&self, notary: &ServerName, asked: &Missing, json: &[u8]) -> Result<(), Error> {
        let bad = |why: String| Error::Malformed(why);
        let document = Document::read(json).map_err(|why| bad(why.to_string()))?;
        // What nobody asked for is not taken.
        if !asked.contains_key(&document.server) {
            return Err(bad(format!("nobody asked for the keys of {}", document.server)));
        }
        let now = self.caller.env.now_ms();
        let keys = |server: &ServerName, id: &str| {
            self.held(server, id).filter(|key| !key.old && key.known.valid_until_ts >= now).map(|key| key.known)
        };
        sign::verify_json(json, notary, &keys).map_err(|why| bad(why.to_string()))?;
        let _gate = self.gates.enter(document.server.clone()).await;
        self.learn(&document, json, Source::Notary).await
    }
}

/// What is built on this must be able to go from thread to thread.
#[cfg(test)]
mod tests {
    use super::*;

    fn is_send<T: Send>(_: T) {}

    #[allow(dead_code)]
    fn fetching_can_be_sent(ring: &'static KeyRing, wanted: &'static [(OwnedServerName, String)]) {
        is_send(async move { ring.fetch(wanted, None).await });
    }
}
