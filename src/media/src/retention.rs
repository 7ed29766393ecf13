//! How long files are kept: by their age, and by when they were used last. And ids that were reserved for files that never
//! came.

use std::{collections::BTreeMap, ops::Bound};

use stoa_store::{
    Direction, Tx,
    rows::{
        media::{self, Media as Row},
        remote_media,
    },
    schema,
};

use crate::{Error, Media, sweep::Whose};

/// How many rows are looked at in one step.
const PAGE: usize = 1_000;
/// How old the note of the last use may be. Writing it each time would make a write of every download.
const USE_MS: u64 = 60 * 60 * 1000;

/// A day, in milliseconds.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// How long files are kept, in milliseconds; for ever where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// After they came.
    pub age_ms: Option<u64>,
    /// After they were used last.
    pub unused_ms: Option<u64>,
    /// How many bytes they may have in all. What was not used for the longest goes first.
    pub space: Option<u64>,
}

/// How many bytes of our files were used last on which day: what tells which have to go where space is short.
#[derive(Debug, Default)]
pub(crate) struct Days {
    /// What this round has seen.
    seen: BTreeMap<u64, u64>,
    /// Files that were used last before this day have to go.
    before: u64,
}

impl Days {
    /// Takes another file into account. Whether it has to go, as the last round found.
    fn is_over(&mut self, used: u64, size: u64) -> bool {
        let day = used / DAY_MS;
        if day < self.before {
            return true;
        }
        let bytes = self.seen.entry(day).or_default();
        *bytes = bytes.saturating_add(size);
        false
    }

    /// Ends a round: the newest days that fit into the space stay. Today's files always do.
    fn end(&mut self, space: Option<u64>, now: u64) {
        let (mut left, today) = (space.unwrap_or(u64::MAX), now / DAY_MS);
        self.before = 0;
        for (day, bytes) in std::mem::take(&mut self.seen).into_iter().rev() {
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => {
                    self.before = (day + 1).min(today);
                    return;
                }
            }
        }
    }
}

impl Retention {
    fn is_over(self, came: u64, used: u64, now: u64) -> bool {
        let past = |since: u64, limit: Option<u64>| limit.is_some_and(|limit| since.saturating_add(limit) <= now);
        past(came, self.age_ms) || past(used, self.unused_ms)
    }
}

impl Media {
    /// Looks at the files that follow this one, and forgets those that are kept no longer. Answers where to go on, or nothing
    /// after the last.
    pub(crate) async fn retain(&self, whose: Whose, after: Option<String>) -> Result<Option<String>, Error> {
        match whose {
            Whose::Ours => self.retain_ours(after).await,
            // Those that were not used are found by an index.
            Whose::Theirs if self.inner.config.remote_age_ms.is_none() => Ok(None),
            Whose::Theirs => self.retain_theirs(after).await,
        }
    }

    async fn retain_ours(&self, after: Option<String>) -> Result<Option<String>, Error> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let snapshot = self.inner.store.snapshot().await?;
        let page = snapshot.range(&schema::MEDIA, from, Bound::<String>::Unbounded, Direction::Forward, PAGE).await?;
        let (now, rule) = (self.inner.env.now_ms(), self.inner.config.local);
        for (id, row) in &page {
            let used = row.used.unwrap_or(row.created);
            let over = match &row.file {
                Some(file) => rule.is_over(row.created, used, now) || self.inner.days.lock().is_over(used, file.size),
                None => row.expires.is_some_and(|expires| expires <= now),
            };
            if over {
                self.forget_ours(id, row).await?;
            }
        }
        if page.is_empty() {
            self.inner.days.lock().end(rule.space, now);
        }
        Ok(page.into_iter().last().map(|(id, _)| id))
    }

    /// First the row: what has none is only waste, and is swept up if the server ends now.
    async fn forget_ours(&self, id: &str, row: &Row) -> Result<(), Error> {
        let _one = self.inner.adding.lock().await;
        let total = self.total(&self.inner.store.snapshot().await?, row.uploader).await?;
        let mut tx = Tx::new();
        tx.assert(&schema::MEDIA, &id.to_owned(), Some(row));
        media::forget(&mut tx, id, row, total);
        match self.inner.store.commit(tx).await {
            Ok(_) => {}
            // It was used or filled just now.
            Err(stoa_store::Error::Conflict) => return Ok(()),
            Err(why) => return Err(why.into()),
        }
        self.remove(id).await;
        Ok(())
    }

    async fn retain_theirs(&self, after: Option<String>) -> Result<Option<String>, Error> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let snapshot = self.inner.store.snapshot().await?;
        let table = &schema::REMOTE_MEDIA;
        let page = snapshot.range(table, from, Bound::<String>::Unbounded, Direction::Forward, PAGE).await?;
        for (hash, row) in &page {
            if self.is_too_old(row) {
                self.forget_one(hash).await?;
            }
        }
        Ok(page.into_iter().last().map(|(hash, _)| hash))
    }

    /// Whether a file of another server has been here for so long that it must be asked for again.
    pub(crate) fn is_too_old(&self, row: &remote_media::RemoteMedia) -> bool {
        let rule = Retention { age_ms: self.inner.config.remote_age_ms, ..Retention::default() };
        rule.is_over(row.fetched, row.used, self.inner.env.now_ms())
    }

    /// Notes that a file of ours was used, where somebody wants to know.
    pub(crate) async fn used_ours(&self, id: &str, row: &Row) -> Result<(), Error> {
        let now = self.inner.env.now_ms();
        let rule = self.inner.config.local;
        let is_asked = rule.unused_ms.is_some() || rule.space.is_some();
        if !is_asked || row.used.unwrap_or(row.created).saturating_add(USE_MS) > now {
            return Ok(());
        }
        let mut tx = Tx::new();
        tx.assert(&schema::MEDIA, &id.to_owned(), Some(row));
        media::used(&mut tx, id, &Row { used: Some(now), ..row.clone() });
        match self.inner.store.commit(tx).await {
            Ok(_) | Err(stoa_store::Error::Conflict) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }
}
