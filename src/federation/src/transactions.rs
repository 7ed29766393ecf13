//! Transactions of other servers as wholes (Server-Server API, "Transactions"): one that comes again, because its answer
//! was lost or is long in coming, gets the answer of the first and is no work.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use futures_util::future::join;
use quick_cache::{Weighter, sync::Cache};
use stoa_event::{
    hash::sha256,
    ids::{OwnedServerName, ServerName},
};

use crate::{Edu, Error, Federation, Received};

/// How many bytes of answers are remembered, and about how many answers that is.
const BYTES: u64 = 8 << 20;
const ANSWERS: usize = 10_000;

/// A transaction as it came.
pub struct Transaction {
    /// Its id.
    pub id: String,
    /// Its events.
    pub pdus: Vec<Bytes>,
    /// Its EDUs.
    pub edus: Vec<Edu>,
}

/// Whose transaction it is, its id, and what it holds. A server that lost its count may use an id again for something else,
/// which must not be lost; when it was sent (`origin_server_ts`) may differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    origin: OwnedServerName,
    id: String,
    content: [u8; 32],
}

impl Key {
    fn of(origin: &ServerName, transaction: &Transaction) -> Key {
        let mut content = Vec::new();
        for pdu in &transaction.pdus {
            content.extend_from_slice(&sha256(pdu));
        }
        content.push(0);
        for edu in &transaction.edus {
            content.extend_from_slice(&sha256(edu.edu_type.as_bytes()));
            content.extend_from_slice(&sha256(edu.content.get().as_bytes()));
        }
        Key { origin: origin.to_owned(), id: transaction.id.clone(), content: sha256(&content) }
    }
}

#[derive(Clone)]
struct Weigh;

impl Weighter<Key, Arc<Received>> for Weigh {
    fn weight(&self, key: &Key, answer: &Arc<Received>) -> u64 {
        let of = |why: &Result<(), String>| why.as_ref().err().map_or(0, String::len);
        let events: usize = answer.iter().map(|(id, why)| id.as_str().len() + of(why) + 64).sum();
        (key.id.len() + key.origin.as_str().len() + events + 128) as u64
    }
}

/// What was answered lately. It is in memory only: after a restart a transaction that comes again is judged again, and
/// everything in it is found to be there.
pub(crate) struct Answered(Cache<Key, Arc<Received>, Weigh>);

impl Default for Answered {
    fn default() -> Self {
        Answered(Cache::with_weighter(ANSWERS, BYTES, Weigh))
    }
}

impl Answered {
    /// The answer to a transaction: that of the first time, or what `work` finds. Whoever comes meanwhile waits for it.
    async fn once(
        &self,
        key: Key,
        work: impl Future<Output = Result<Received, Error>>,
    ) -> Result<Arc<Received>, Error> {
        let work = async { work.await.map(Arc::new) };
        self.0.get_or_insert_async(&key, work).await
    }
}

impl Federation {
    /// Takes in a transaction, unless it was taken in before. An event whose id cannot be worked out is not in the answer.
    ///
    /// # Errors
    /// Where the store fails; then nothing is acknowledged and the other server sends it again.
    pub async fn hear(&self, origin: &ServerName, transaction: Transaction) -> Result<Arc<Received>, Error> {
        let key = Key::of(origin, &transaction);
        let work = async {
            let Transaction { pdus, edus, .. } = transaction;
            // Messages between devices do not wait until the past of a room has been fetched.
            let (received, applied) = join(self.receive(origin, pdus), self.apply_edus(origin, &edus)).await;
            applied?;
            received
        };
        self.inner.answered.once(key, work).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn key(origin: &str, id: &str, pdu: &'static str) -> Key {
        let pdus = vec![Bytes::from_static(pdu.as_bytes())];
        let transaction = Transaction { id: id.to_owned(), pdus, edus: Vec::new() };
        Key::of(&OwnedServerName::try_from(origin).unwrap(), &transaction)
    }

    #[tokio::test]
    async fn the_same_is_worked_on_once_also_at_the_same_time() {
        let (answered, worked) = (Answered::default(), AtomicUsize::new(0));
        let hear = |key| {
            answered.once(key, async {
                worked.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok(Received::new())
            })
        };
        futures_util::future::join_all((0..10).map(|_| hear(key("a.example", "1", "{}")))).await;
        assert_eq!(worked.load(Ordering::SeqCst), 1);
        // Another server's, another id, and an id that is used again for something else.
        for other in [key("b.example", "1", "{}"), key("a.example", "2", "{}"), key("a.example", "1", "[]")] {
            hear(other).await.unwrap();
        }
        assert_eq!(worked.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn what_failed_or_was_given_up_is_done_again() {
        let answered = Answered::default();
        let failed = answered.once(key("a.example", "1", "{}"), async { Err(Error::NoServers) }).await;
        assert!(failed.is_err());
        let short = std::time::Duration::from_millis(1);
        let never = answered.once(key("a.example", "1", "{}"), std::future::pending());
        assert!(tokio::time::timeout(short, never).await.is_err());
        let again = answered.once(key("a.example", "1", "{}"), async { Ok(Received::new()) }).await;
        assert!(again.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_remembered_has_a_limit() {
        let answered = Answered::default();
        for n in 0..40_000 {
            let answer = async { Ok(Received::from_iter([("$x".try_into().unwrap(), Err("x".repeat(1000)))])) };
            answered.once(key("a.example", &n.to_string(), "{}"), answer).await.unwrap();
        }
        assert!(answered.0.weight() <= BYTES && answered.0.len() > 1_000);
    }
}
