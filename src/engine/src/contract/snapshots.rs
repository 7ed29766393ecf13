//! What a snapshot sees stays as it was.

use super::*;

const ROWS: Space = Space::Rows;

/// Commits after it are not seen in a snapshot, by no kind of read.
pub async fn stand_still<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    let empty = engine.snapshot();
    done(&engine, vec![put(ROWS, "a", "1"), put(ROWS, "b", "1")]).await;
    let before = engine.snapshot();
    done(&engine, vec![put(ROWS, "a", "2"), delete(ROWS, "b"), put(ROWS, "c", "2")]).await;
    let after = engine.snapshot();
    done(&engine, vec![delete(ROWS, "a"), put(ROWS, "b", "3")]).await;
    for settle in [false, true] {
        if settle {
            subject.settle().await;
        }
        let pairs =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| (copy(key), copy(value))).collect::<Vec<_>>();
        assert_eq!(everything(&*empty, ROWS).await, []);
        assert_eq!(everything(&*before, ROWS).await, pairs(&[("a", "1"), ("b", "1")]));
        assert_eq!(everything(&*after, ROWS).await, pairs(&[("a", "2"), ("c", "2")]));
        assert_eq!(everything(&*engine.snapshot(), ROWS).await, pairs(&[("b", "3"), ("c", "2")]));
        assert_eq!(get(&*empty, ROWS, "a").await, None);
        assert_eq!(get(&*before, ROWS, "a").await.as_deref(), Some(&b"1"[..]));
        assert_eq!(get(&*before, ROWS, "c").await, None);
        assert_eq!(get(&*after, ROWS, "b").await, None);
        assert_eq!(now(&engine, ROWS, "a").await, None);
    }
}

/// A range delete is a commit like others.
pub async fn stand_still_before_range_deletes<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    let all: Vec<_> = (0..100u8).map(|key| put(ROWS, [key], "1")).collect();
    done(&engine, all).await;
    let before = engine.snapshot();
    done(&engine, vec![delete_range(ROWS, [10], [90])]).await;
    let between = engine.snapshot();
    done(&engine, vec![put(ROWS, [50], "2"), delete_range(ROWS, [0], [20])]).await;
    for settle in [false, true] {
        if settle {
            subject.settle().await;
        }
        assert_eq!(everything(&*before, ROWS).await.len(), 100);
        assert_eq!(everything(&*between, ROWS).await.len(), 20);
        assert_eq!(everything(&*engine.snapshot(), ROWS).await.len(), 11);
        assert_eq!(get(&*before, ROWS, [50]).await.as_deref(), Some(&b"1"[..]));
        assert_eq!(get(&*between, ROWS, [50]).await, None);
        assert_eq!(now(&engine, ROWS, [50]).await.as_deref(), Some(&b"2"[..]));
        assert_eq!(get(&*between, ROWS, [5]).await.as_deref(), Some(&b"1"[..]));
        assert_eq!(now(&engine, ROWS, [5]).await, None);
    }
}

/// Thousands of commits later a snapshot is what it was, and ones that were taken and dropped meanwhile do not hurt it.
pub async fn live_long<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    done(&engine, (0..50u8).map(|key| put(ROWS, [key], "first")).collect()).await;
    let old = engine.snapshot();
    let mut short = Vec::new();
    for round in 0..2000u32 {
        let key = [(round % 50) as u8];
        let op = if round % 7 == 0 { delete(ROWS, key) } else { put(ROWS, key, round.to_be_bytes()) };
        engine.commit(Batch { asserts: Vec::new(), ops: vec![op] }, Durability::Relaxed).await.expect("the commit");
        short.push(engine.snapshot());
        if short.len() > 20 {
            short.remove((round % 20) as usize);
        }
        if round % 500 == 0 {
            subject.settle().await;
        }
    }
    let found = everything(&*old, ROWS).await;
    assert_eq!(found.len(), 50);
    assert!(found.iter().all(|(_, value)| value == "first"));
    drop(short);
    assert_eq!(get(&*old, ROWS, [7]).await.as_deref(), Some(&b"first"[..]));
}

/// A reader may be kept for longer than the engine that it came from.
pub async fn outlive_their_engine<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    done(&engine, vec![put(ROWS, "a", "1")]).await;
    subject.settle().await;
    let reader = engine.snapshot();
    drop(engine);
    assert_eq!(get(&*reader, ROWS, "a").await.as_deref(), Some(&b"1"[..]));
    assert_eq!(everything(&*reader, ROWS).await.len(), 1);
}
