//! Single changes and batches.

use super::*;
use crate::Error;

const ROWS: Space = Space::Rows;

/// A key holds what was put last, until it is deleted.
pub async fn puts_gets_and_deletes<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    assert_eq!(now(&engine, ROWS, "a").await, None);
    done(&engine, vec![put(ROWS, "a", "1"), put(ROWS, "b", "2")]).await;
    assert_eq!(now(&engine, ROWS, "a").await.as_deref(), Some(&b"1"[..]));
    done(&engine, vec![put(ROWS, "a", "3"), delete(ROWS, "b"), delete(ROWS, "never there")]).await;
    assert_eq!(now(&engine, ROWS, "a").await.as_deref(), Some(&b"3"[..]));
    assert_eq!(now(&engine, ROWS, "b").await, None);

    // Answers stand in the order of the questions, also for a key that is asked twice.
    let asked = ["a", "b", "a", "c"].map(|key| (ROWS, copy(key))).to_vec();
    let found = engine.snapshot().get_many(asked).await.expect("the read");
    assert_eq!(found, [Some(copy("3")), None, Some(copy("3")), None]);
    assert_eq!(engine.snapshot().get_many(Vec::new()).await.expect("the read"), []);
}

/// Within a batch, later changes win over earlier ones, of whatever kind they are.
pub async fn later_changes_win<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    let put = |key, value| put(ROWS, key, value);
    done(&engine, vec![put("a", "1"), put("a", "2")]).await;
    done(&engine, vec![put("b", "1"), delete(ROWS, "b")]).await;
    done(&engine, vec![delete(ROWS, "c"), put("c", "1")]).await;
    done(&engine, vec![put("d", "1"), delete_range(ROWS, "d", "e"), put("e", "1")]).await;
    done(&engine, vec![delete_range(ROWS, "f", "g"), put("f", "1"), put("f", "2")]).await;
    done(&engine, vec![put("g", "1"), delete_range(ROWS, "g", "h"), put("g", "2"), delete(ROWS, "g")]).await;
    let found = everything(&*engine.snapshot(), ROWS).await;
    assert_eq!(found, [("a", "2"), ("c", "1"), ("e", "1"), ("f", "2")].map(|(key, value)| (copy(key), copy(value))));
}

/// A range delete takes its first key and leaves its last; one that ends before it begins takes nothing.
pub async fn range_deletes<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    let all: Vec<_> = (b'a'..=b'h').map(|key| put(ROWS, [key], [key])).collect();
    done(&engine, all.clone()).await;
    done(&engine, vec![put(Space::Queues, "c", "stays")]).await;
    subject.settle().await;
    done(&engine, vec![delete_range(ROWS, "b", "d"), delete_range(ROWS, "g", "g"), delete_range(ROWS, "h", "a")]).await;
    assert_eq!(keys(&everything(&*engine.snapshot(), ROWS).await), [b"a", b"d", b"e", b"f", b"g", b"h"]);
    assert_eq!(now(&engine, ROWS, "b").await, None);
    assert!(now(&engine, Space::Queues, "c").await.is_some());

    // What comes after it is there again, and it can be taken again.
    done(&engine, vec![put(ROWS, "c", "again")]).await;
    subject.settle().await;
    assert_eq!(now(&engine, ROWS, "c").await.as_deref(), Some(&b"again"[..]));
    done(&engine, vec![delete_range(ROWS, "", "\u{7f}")]).await;
    assert_eq!(everything(&*engine.snapshot(), ROWS).await, []);
    done(&engine, all).await;
    assert_eq!(everything(&*engine.snapshot(), ROWS).await.len(), 8);
}

/// A batch whose conditions do not hold changes nothing.
pub async fn asserts<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    done(&engine, vec![put(ROWS, "a", "1"), put(ROWS, "empty", "")]).await;
    let attempt = async |asserts: Vec<Assert>, durability| {
        let ops = vec![put(ROWS, "a", "2"), put(Space::Indexes, "b", "2"), delete(ROWS, "empty")];
        engine.commit(Batch { asserts, ops }, durability).await
    };
    let wrong = [
        vec![assert(ROWS, "a", None)],
        vec![assert(ROWS, "a", Some(b"2"))],
        vec![assert(ROWS, "a", Some(b""))],
        vec![assert(ROWS, "missing", Some(b"1"))],
        vec![assert(ROWS, "missing", Some(b""))],
        vec![assert(ROWS, "empty", None)],
        vec![assert(Space::Queues, "a", Some(b"1"))],
        vec![assert(ROWS, "a", Some(b"1")), assert(ROWS, "missing", Some(b"1"))],
    ];
    for asserts in wrong {
        for durability in [Durability::Synced, Durability::Relaxed] {
            let answer = attempt(asserts.clone(), durability).await;
            assert!(matches!(answer, Err(Error::Conflict)), "{asserts:?} held: {answer:?}");
        }
        subject.settle().await;
    }
    assert_eq!(now(&engine, ROWS, "a").await.as_deref(), Some(&b"1"[..]));
    assert_eq!(now(&engine, Space::Indexes, "b").await, None);
    assert_eq!(now(&engine, ROWS, "empty").await.as_deref(), Some(&b""[..]));

    let right = vec![assert(ROWS, "a", Some(b"1")), assert(ROWS, "missing", None), assert(ROWS, "empty", Some(b""))];
    attempt(right.clone(), Durability::Synced).await.expect("they hold");
    assert_eq!(now(&engine, ROWS, "a").await.as_deref(), Some(&b"2"[..]));
    // The batch itself made them untrue.
    assert!(matches!(attempt(right, Durability::Synced).await, Err(Error::Conflict)));
}

/// Keys and values are any bytes, also none.
pub async fn strange_keys<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    let mut sorted: Vec<&[u8]> = vec![
        b"",
        b"\0",
        b"\0\0",
        b"\0\x01",
        b"\0\xff",
        b"\x01",
        b"a",
        b"a\0",
        b"a\0\0",
        b"a\0b",
        b"a\xff",
        b"a\xff\xff",
        b"b",
        b"\x7f",
        b"\x80",
        b"\xc3\x28",
        b"\xff",
        b"\xff\0",
        b"\xff\xff",
        b"\xff\xff\0",
        b"\xff\xff\xff",
    ];
    sorted.sort_unstable();
    for settle in [false, true] {
        done(&engine, sorted.iter().rev().map(|key| put(ROWS, key, [key, &b"\0\xff"[..]].concat())).collect()).await;
        if settle {
            subject.settle().await;
        }
        let found = everything(&*engine.snapshot(), ROWS).await;
        assert_eq!(keys(&found), sorted);
        assert!(found.iter().all(|(key, value)| *value == [&key[..], b"\0\xff"].concat()));
        for key in &sorted {
            assert!(now(&engine, ROWS, key).await.is_some(), "{key:?}");
        }
    }
    // An empty value is not a missing one.
    done(&engine, vec![put(ROWS, "a", ""), delete(ROWS, "")]).await;
    assert_eq!(now(&engine, ROWS, "a").await, Some(Bytes::new()));
    assert_eq!(now(&engine, ROWS, "").await, None);
    // The empty key is in a range that begins with it.
    done(&engine, vec![put(ROWS, "", "1"), delete_range(ROWS, "", "\0")]).await;
    assert_eq!(keys(&everything(&*engine.snapshot(), ROWS).await), sorted[1..]);
}

/// Values of a megabyte and more come back as they were.
pub async fn big_values<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    let mut dice = Dice(7);
    let sizes = [0, 1, 4095, 4096, 65_536, 1 << 20, (1 << 20) + 1, 5 << 20];
    let values = sizes.map(|size| {
        let mut value: Vec<u8> = (0..size / 8 + 1).flat_map(|_| dice.next().to_le_bytes()).collect();
        value.truncate(size);
        Bytes::from(value)
    });
    done(&engine, (0u8..).zip(&values).map(|(key, value)| put(Space::Events, [key], value)).collect()).await;
    subject.settle().await;
    let asked = (0u8..8).map(|key| (Space::Events, copy([key]))).collect();
    let found = engine.snapshot().get_many(asked).await.expect("the read");
    assert!(found.iter().flatten().eq(&values), "a value came back changed");
    let found = everything(&*engine.snapshot(), Space::Events).await;
    assert!(found.iter().map(|(_, value)| value).eq(&values));
}

/// Many keys, in one batch and in many; all of them asked for at once.
pub async fn many_keys<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    let key = |number: u32| number.wrapping_mul(0x9E37_79B9).to_be_bytes();
    let value = |number: u32| number.to_string().repeat(5);
    for chunk in 0..10 {
        let range = chunk * 2000..(chunk + 1) * 2000;
        done(&engine, range.map(|number| put(ROWS, key(number), value(number))).collect()).await;
    }
    subject.settle().await;
    let reader = engine.snapshot();
    let asked = (0..20_001).map(|number| (ROWS, copy(key(number)))).collect();
    let found = reader.get_many(asked).await.expect("the read");
    assert_eq!(found.len(), 20_001);
    for (number, found) in (0..20_000).zip(&found) {
        assert_eq!(found.as_deref(), Some(value(number).as_bytes()));
    }
    assert_eq!(found[20_000], None);
    assert_eq!(everything(&*reader, ROWS).await.len(), 20_000);
}

/// The same key in two spaces is two keys.
pub async fn spaces_are_apart<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    done(&engine, Space::ALL.map(|space| put(space, "key", space.name())).to_vec()).await;
    for settle in [false, true] {
        if settle {
            subject.settle().await;
        }
        let asked = Space::ALL.map(|space| (space, copy("key"))).to_vec();
        let found = engine.snapshot().get_many(asked).await.expect("the read");
        for (space, found) in Space::ALL.into_iter().zip(found) {
            assert_eq!(found.as_deref(), Some(space.name().as_bytes()));
            let here = everything(&*engine.snapshot(), space).await;
            assert_eq!(here, [(copy("key"), copy(space.name()))], "a scan sees another space");
        }
    }
    done(&engine, vec![delete(Space::Rows, "key"), delete_range(Space::Queues, "", "z")]).await;
    let asked = Space::ALL.map(|space| (space, copy("key"))).to_vec();
    let found = engine.snapshot().get_many(asked).await.expect("the read");
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, false]);
}

/// A batch may have no changes: then it only asks.
pub async fn empty_batches<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    done(&engine, Vec::new()).await;
    engine.commit(Batch::default(), Durability::Relaxed).await.expect("nothing to do");
    let ask = |value| Batch { asserts: vec![assert(ROWS, "a", value)], ops: Vec::new() };
    engine.commit(ask(None), Durability::Synced).await.expect("it holds");
    assert!(matches!(engine.commit(ask(Some(b"1")), Durability::Synced).await, Err(Error::Conflict)));
}

/// A relaxed commit is seen as soon as it is answered, and synced ones before and after keep their order with it.
pub async fn relaxed_commits<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    for number in 0..300u32 {
        let durability = if number % 50 == 0 { Durability::Synced } else { Durability::Relaxed };
        let before = number.checked_sub(1).map(|before| before.to_be_bytes());
        let batch = Batch {
            asserts: vec![assert(ROWS, "last", before.as_ref().map(|before| &before[..]))],
            ops: vec![put(ROWS, "last", number.to_be_bytes()), put(ROWS, number.to_be_bytes(), "x".repeat(3000))],
        };
        engine.commit(batch, durability).await.expect("the commit");
        assert_eq!(now(&engine, ROWS, "last").await.as_deref(), Some(&number.to_be_bytes()[..]));
    }
    // One that is far too large to be done in place.
    let large = (0..3000u32).map(|number| put(Space::Indexes, number.to_be_bytes(), "y".repeat(500))).collect();
    engine.commit(Batch { asserts: Vec::new(), ops: large }, Durability::Relaxed).await.expect("the commit");
    assert_eq!(everything(&*engine.snapshot(), Space::Indexes).await.len(), 3000);
}
