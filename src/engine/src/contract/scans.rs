//! Ranges, in both directions.

use Direction::{Backward, Forward};

use super::*;

const ROWS: Space = Space::Rows;

async fn ten<S: Subject>() -> (S, Arc<dyn Engine>) {
    let subject = S::new();
    let engine = subject.open();
    done(&engine, (0..10u8).map(|key| put(ROWS, [key], [key])).collect()).await;
    // Neighbours that no scan of rows may see.
    done(&engine, (0..10u8).map(|key| put(Space::Events, [key], "other")).collect()).await;
    (subject, engine)
}

/// The first bound is in, the second is out, whichever way it goes; bounds need not be there.
pub async fn bounds<S: Subject>() {
    let (subject, engine) = ten::<S>().await;
    for settle in [false, true] {
        if settle {
            subject.settle().await;
        }
        let reader = engine.snapshot();
        let cases: [(&[u8], &[u8], std::ops::Range<u8>); 7] = [
            (&[3], &[6], 3..6),
            (&[0], &[10], 0..10),
            (&[], &[0xFF], 0..10),
            (&[9], &[10], 9..10),
            (&[2, 0], &[5, 0], 3..6),
            (&[3], &[4], 3..4),
            (&[3], &[3, 0], 3..4),
        ];
        for (from, to, expected) in cases {
            let forward: Vec<[u8; 1]> = expected.clone().map(|key| [key]).collect();
            let backward: Vec<[u8; 1]> = expected.rev().map(|key| [key]).collect();
            assert_eq!(keys(&all(&*reader, scan(from, to, Forward, 100)).await), forward, "{from:?}..{to:?}");
            assert_eq!(keys(&all(&*reader, scan(from, to, Backward, 100)).await), backward, "{from:?}..{to:?}");
        }
    }
}

/// A limit is kept, and `more` is exact.
pub async fn limits<S: Subject>() {
    let (subject, engine) = ten::<S>().await;
    subject.settle().await;
    let reader = engine.snapshot();
    for direction in [Forward, Backward] {
        for limit in 1..=12 {
            let page = page(&*reader, scan([0], [10], direction, limit)).await;
            if page.entries.len() == limit.min(10) {
                assert_eq!(page.more, limit < 10, "limit {limit}");
            } else {
                assert!(page.more, "fewer than asked for, and it says that this is all");
            }
        }
        assert!(page(&*reader, scan([0], [10], direction, 0)).await.entries.is_empty());
        let unlimited = all(&*reader, scan([0], [10], direction, usize::MAX)).await;
        assert_eq!(unlimited.len(), 10);
    }
}

/// Page by page is the same as at once.
pub async fn continue_where_they_ended<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    done(&engine, (0..5000u32).map(|key| put(ROWS, key.to_be_bytes(), key.to_string())).collect()).await;
    subject.settle().await;
    done(&engine, (0..5000u32).step_by(3).map(|key| delete(ROWS, key.to_be_bytes())).collect()).await;
    let expected: Vec<_> = (0..5000u32).filter(|key| key % 3 != 0).map(u32::to_be_bytes).collect();
    let backwards: Vec<_> = expected.iter().rev().copied().collect();
    let reader = engine.snapshot();
    for limit in [1, 7, 1000, 100_000] {
        let found = all(&*reader, scan([], [0xFF; 5], Forward, limit)).await;
        assert_eq!(keys(&found), expected, "limit {limit}");
        let found = all(&*reader, scan([], [0xFF; 5], Backward, limit)).await;
        assert_eq!(keys(&found), backwards, "limit {limit}");
    }
}

/// Ranges with nothing in them, and ones that end before they begin.
pub async fn empty_ranges<S: Subject>() {
    let (subject, engine) = ten::<S>().await;
    subject.settle().await;
    let reader = engine.snapshot();
    let none: [(&[u8], &[u8]); 5] = [(&[3], &[3]), (&[6], &[3]), (&[3, 1], &[3, 9]), (&[10], &[0xFF]), (&[], &[])];
    for (from, to) in none {
        for direction in [Forward, Backward] {
            let page = page(&*reader, scan(from, to, direction, 10)).await;
            assert_eq!(page, Page::default(), "{from:?}..{to:?}");
        }
    }
}

/// Thousands of removed keys in a row are not seen, and do not end a scan.
pub async fn skip_what_was_removed<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    let key = |number: u32| number.to_be_bytes();
    done(&engine, (0..20_000).map(|number| put(ROWS, key(number), "1")).collect()).await;
    subject.settle().await;
    done(&engine, (1..10_000).map(|number| delete(ROWS, key(number))).collect()).await;
    done(&engine, vec![delete_range(ROWS, key(10_000), key(19_999))]).await;
    let reader = engine.snapshot();
    for direction in [Forward, Backward] {
        let page = page(&*reader, scan([], [0xFF; 5], direction, 10)).await;
        let mut found = page.entries;
        assert_eq!((found.len(), page.more), (2, false));
        found.sort();
        assert_eq!(keys(&found), [key(0), key(19_999)]);
    }
    assert!(page(&*reader, scan(key(1), key(19_999), Forward, 10)).await.entries.is_empty());
}

/// A range of many megabytes comes whole, in as many pages as the engine likes.
pub async fn large_pages<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    for number in 0..40u8 {
        done(&engine, vec![put(ROWS, [number], vec![number; 700_000])]).await;
    }
    let reader = engine.snapshot();
    for direction in [Forward, Backward] {
        let found = all(&*reader, scan([0], [40], direction, 1000)).await;
        assert_eq!(found.len(), 40);
        assert!(found.iter().all(|(key, value)| *value == vec![key[0]; 700_000]));
    }
}

/// After a restart nothing is in memory: reads find it all the same.
pub async fn through_settled_data<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    let key = |number: u32| number.to_be_bytes();
    for part in 0..4 {
        done(&engine, (part * 1000..(part + 1) * 1000).map(|number| put(ROWS, key(number), key(number))).collect())
            .await;
        subject.settle().await;
    }
    done(&engine, (0..4000).step_by(10).map(|number| put(ROWS, key(number), "new")).collect()).await;
    let engine = if S::PERSISTENT {
        drop(engine);
        subject.open()
    } else {
        engine
    };
    let reader = engine.snapshot();
    let found = reader.get_many((0..4000).map(|number| (ROWS, copy(key(number)))).collect()).await.expect("the read");
    let scanned = all(&*reader, scan(key(0), key(4000), Backward, 100)).await;
    assert_eq!((found.len(), scanned.len()), (4000, 4000));
    for (number, (found, (_, scanned))) in (0..4000u32).zip(found.iter().zip(scanned.iter().rev())) {
        let expected = if number % 10 == 0 { b"new".to_vec() } else { key(number).to_vec() };
        assert_eq!((found.as_deref(), &scanned[..]), (Some(&expected[..]), &expected[..]));
    }
}
