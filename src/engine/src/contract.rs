//! The contract suite: what every engine must do, as tests that an engine runs with [`contract::suite!`](crate::suite).
//!
//! It is code for tests, and panics where an engine breaks the contract.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{Answer, Assert, Batch, Direction, Durability, Engine, Op, Page, Reader, Result, Scan, Space};

pub mod basics;
pub mod lasting;
pub mod model;
pub mod scans;
pub mod snapshots;
pub mod together;

pub use crate::suite;

/// A place in which the suite tries an engine. One is made for each test.
pub trait Subject: Sized + Send + Sync + 'static {
    /// Whether what was committed is there again after [`Subject::open`] is called a second time.
    const PERSISTENT: bool;

    /// A new place with nothing in it.
    fn new() -> Self;

    /// A folder for files, which goes with the place.
    fn folder(&self) -> &Path;

    /// Opens the engine here. Engines that were opened before are gone by then.
    fn open(&self) -> Arc<dyn Engine>;

    /// Makes an engine of the newest backup in a folder.
    ///
    /// # Errors
    /// What the engine says about it.
    fn restore(&self, backup: &Path) -> Result<Arc<dyn Engine>>;

    /// Brings what was committed to where it would be in the long run: flushed, compacted.
    fn settle(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// How a test starts something that goes on beside it, at once; what comes back waits for its end.
pub type Spawn = fn(BoxFuture<'static, ()>) -> BoxFuture<'static, ()>;

/// Runs the whole suite over a [`Subject`], one test a promise. The crate needs tokio with `macros` and
/// `rt-multi-thread`.
#[macro_export]
macro_rules! suite {
    ($subject:ty) => {
        $crate::suite!(@tests $subject:
            basics { puts_gets_and_deletes, later_changes_win, range_deletes, asserts, strange_keys, big_values,
                many_keys, spaces_are_apart, empty_batches, relaxed_commits }
            snapshots { stand_still, stand_still_before_range_deletes, live_long, outlive_their_engine }
            scans { bounds, limits, continue_where_they_ended, empty_ranges, skip_what_was_removed, large_pages,
                through_settled_data }
            model { agrees_with_a_map }
            lasting { reopens, backs_up, backs_up_again, backup_refused }
        );

        $crate::suite!(@together $subject: no_update_is_lost, nobody_sees_half_a_batch);
    };
    (@together $subject:ty: $($test:ident),*) => {
        mod together {
            #[expect(unused_imports, reason = "the subject may be named by a path or be here")]
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $test() {
                    $crate::contract::together::$test::<$subject>(|work| {
                        let task = tokio::spawn(work);
                        Box::pin(async { task.await.expect("a task of the test panicked") })
                    })
                    .await;
                }
            )*
        }
    };
    (@tests $subject:ty: $($module:ident { $($test:ident),* $(,)? })*) => {
        $(mod $module {
            #[expect(unused_imports, reason = "the subject may be named by a path or be here")]
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    $crate::contract::$module::$test::<$subject>().await;
                }
            )*
        })*
    };
}

/// How much longer the long tests are: STOA_LONG=1 asks for it.
fn rounds(short: usize) -> usize {
    if std::env::var_os("STOA_LONG").is_some_and(|value| value != "0") { short * 30 } else { short }
}

/// A little generator of numbers that look random: the same at each run.
pub(crate) struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or_default()
    }
}

fn put(space: Space, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Op {
    Op::Put { space, key: copy(key), value: copy(value) }
}

fn delete(space: Space, key: impl AsRef<[u8]>) -> Op {
    Op::Delete { space, key: copy(key) }
}

fn delete_range(space: Space, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Op {
    Op::DeleteRange { space, from: copy(from), to: copy(to) }
}

fn assert(space: Space, key: impl AsRef<[u8]>, value: Option<&[u8]>) -> Assert {
    Assert { space, key: copy(key), value: value.map(Bytes::copy_from_slice) }
}

fn copy(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.as_ref())
}

fn scan(from: impl AsRef<[u8]>, to: impl AsRef<[u8]>, direction: Direction, limit: usize) -> Scan {
    Scan { space: Space::Rows, from: copy(from), to: copy(to), direction, limit }
}

fn commit(engine: &Arc<dyn Engine>, ops: Vec<Op>) -> Answer<'_, ()> {
    engine.commit(Batch { asserts: Vec::new(), ops }, Durability::Synced)
}

async fn done(engine: &Arc<dyn Engine>, ops: Vec<Op>) {
    commit(engine, ops).await.expect("the commit");
}

async fn get(reader: &dyn Reader, space: Space, key: impl AsRef<[u8]>) -> Option<Bytes> {
    let mut found = reader.get_many(vec![(space, copy(key))]).await.expect("the read");
    assert_eq!(found.len(), 1, "one key, one answer");
    found.pop().flatten()
}

async fn now(engine: &Arc<dyn Engine>, space: Space, key: impl AsRef<[u8]>) -> Option<Bytes> {
    get(&*engine.snapshot(), space, key).await
}

/// One page, of which the promises that need no knowledge of the data are checked.
async fn page(reader: &dyn Reader, scan: Scan) -> Page {
    let page = reader.scan(scan.clone()).await.expect("the scan");
    assert!(page.entries.len() <= scan.limit, "more entries than asked for");
    assert!(!page.more || !page.entries.is_empty(), "nothing, and more of it");
    for (key, _) in &page.entries {
        assert!((&scan.from..&scan.to).contains(&key), "a key out of bounds: {key:?}");
    }
    for pair in page.entries.windows(2) {
        match scan.direction {
            Direction::Forward => assert!(pair[0].0 < pair[1].0, "out of order: {pair:?}"),
            Direction::Backward => assert!(pair[0].0 > pair[1].0, "out of order: {pair:?}"),
        }
    }
    page
}

/// Everything in a range, asking again for as long as there is more.
async fn all(reader: &dyn Reader, mut scan: Scan) -> Vec<(Bytes, Bytes)> {
    let mut entries = Vec::new();
    loop {
        let page = page(reader, scan.clone()).await;
        entries.extend(page.entries);
        match entries.last() {
            Some((last, _)) if page.more && scan.direction == Direction::Forward => {
                scan.from = [last, &[0][..]].concat().into()
            }
            Some((last, _)) if page.more => scan.to = last.clone(),
            _ => return entries,
        }
    }
}

/// Everything in a space, below a key that none of the tests use.
async fn everything(reader: &dyn Reader, space: Space) -> Vec<(Bytes, Bytes)> {
    let scan =
        Scan { space, from: Bytes::new(), to: vec![0xFF; 40].into(), direction: Direction::Forward, limit: 1000 };
    all(reader, scan).await
}

fn keys(entries: &[(Bytes, Bytes)]) -> Vec<&[u8]> {
    entries.iter().map(|(key, _)| &key[..]).collect()
}
