//! Many at the same time.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    task::Poll,
};

use futures_util::future::join_all;

use super::*;
use crate::Error;

const ROWS: Space = Space::Rows;
const WRITERS: u64 = 8;

fn number(bytes: Option<&Bytes>) -> u64 {
    bytes.and_then(|bytes| bytes[..].try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// Writers that read, add one and assert what they read: the sum is the number of successes.
pub async fn no_update_is_lost<S: Subject>(spawn: Spawn) {
    let subject = S::new();
    let engine = subject.open();
    let each = rounds(40) as u64;
    let writers = (0..WRITERS).map(|writer| {
        let engine = Arc::clone(&engine);
        let durability = if writer % 2 == 0 { Durability::Synced } else { Durability::Relaxed };
        spawn(Box::pin(async move {
            let mut done = 0;
            while done < each {
                pause().await;
                let before = now(&engine, ROWS, "count").await;
                let next = number(before.as_ref()) + 1;
                let batch = Batch {
                    asserts: vec![assert(ROWS, "count", before.as_deref())],
                    ops: vec![put(ROWS, "count", next.to_be_bytes()), put(Space::Indexes, next.to_be_bytes(), "x")],
                };
                match engine.commit(batch, durability).await {
                    Ok(()) => done += 1,
                    Err(Error::Conflict) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }))
    });
    join_all(writers.collect::<Vec<_>>()).await;
    assert_eq!(number(now(&engine, ROWS, "count").await.as_ref()), WRITERS * each);
    assert_eq!(everything(&*engine.snapshot(), Space::Indexes).await.len() as u64, WRITERS * each);
}

/// Batches that do the same in two spaces, while readers compare them.
pub async fn nobody_sees_half_a_batch<S: Subject>(spawn: Spawn) {
    let subject = S::new();
    let engine = subject.open();
    let over = Arc::new(AtomicBool::new(false));
    let looks = Arc::new(AtomicUsize::new(0));
    let readers = (0..4).map(|_| spawn(Box::pin(look(Arc::clone(&engine), Arc::clone(&over), Arc::clone(&looks)))));
    let readers: Vec<_> = readers.collect();
    let writers = (0..WRITERS).map(|writer| spawn(Box::pin(write(Arc::clone(&engine), writer))));
    join_all(writers.collect::<Vec<_>>()).await;
    over.store(true, Ordering::Relaxed);
    join_all(readers).await;
    assert!(looks.load(Ordering::Relaxed) >= 4, "nobody looked");
}

async fn look(engine: Arc<dyn Engine>, over: Arc<AtomicBool>, looks: Arc<AtomicUsize>) {
    loop {
        let last = over.load(Ordering::Relaxed);
        let reader = engine.snapshot();
        let rows = everything(&*reader, ROWS).await;
        let queue = everything(&*reader, Space::Queues).await;
        assert_eq!(rows, queue, "half a batch");
        let asked = rows.iter().map(|(key, _)| (Space::Queues, key.clone())).collect();
        let again = reader.get_many(asked).await.expect("the read");
        assert!(again.iter().eq(rows.iter().map(|(_, value)| Some(value.clone())).collect::<Vec<_>>().iter()));
        looks.fetch_add(1, Ordering::Relaxed);
        if last {
            return;
        }
        pause().await;
    }
}

async fn write(engine: Arc<dyn Engine>, writer: u64) {
    let mut dice = Dice(writer);
    for round in 0..rounds(60) {
        let durability = if round % 10 == 0 { Durability::Synced } else { Durability::Relaxed };
        let (key, value) = ([dice.below(30) as u8], dice.next().to_be_bytes());
        let until = [key[0] + 3];
        let both = [ROWS, Space::Queues];
        let ops = match dice.below(4) {
            0 => both.map(|space| delete_range(space, key, until)).to_vec(),
            1 => both.map(|space| delete(space, key)).to_vec(),
            _ => both.map(|space| put(space, key, value)).to_vec(),
        };
        engine.commit(Batch { asserts: Vec::new(), ops }, durability).await.expect("the commit");
        pause().await;
    }
}

/// Lets others run, where an engine answers everything at once.
async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
