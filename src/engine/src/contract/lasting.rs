//! What survives: reopening, and backups.

use super::*;

const ROWS: Space = Space::Rows;

/// Everything that was committed is there when the engine is opened again.
pub async fn reopens<S: Subject>() {
    if !S::PERSISTENT {
        return;
    }
    let subject = S::new();
    for round in 0..5u8 {
        let engine = subject.open();
        for earlier in 0..round {
            for space in Space::ALL {
                assert_eq!(now(&engine, space, [earlier]).await.as_deref(), Some(&[earlier][..]));
            }
        }
        assert_eq!(now(&engine, ROWS, "gone").await, None);
        done(&engine, Space::ALL.map(|space| put(space, [round], [round])).to_vec()).await;
        done(&engine, vec![put(ROWS, "gone", "1"), put(ROWS, "range", "1")]).await;
        if round % 2 == 0 {
            subject.settle().await;
        }
        // The last words are relaxed: closing in order is not a power cut.
        let ops = vec![delete(ROWS, "gone"), delete_range(ROWS, "r", "s")];
        engine.commit(Batch { asserts: Vec::new(), ops }, Durability::Relaxed).await.expect("the commit");
    }
}

/// A backup is everything as it was at one moment, while work goes on.
pub async fn backs_up<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    let folder = subject.folder().join("backups");
    done(&engine, (0..1000u32).map(|key| put(ROWS, key.to_be_bytes(), "before")).collect()).await;
    done(&engine, Space::ALL.map(|space| put(space, "name", space.name())).to_vec()).await;
    engine.backup(&folder).await.expect("the backup");
    done(&engine, vec![delete_range(ROWS, [], [0xFF]), put(ROWS, "later", "1")]).await;

    let copy = subject.restore(&folder).expect("the backup, opened");
    assert_eq!(now(&copy, ROWS, "later").await, None);
    for space in Space::ALL {
        assert_eq!(now(&copy, space, "name").await.as_deref(), Some(space.name().as_bytes()));
    }
    assert_eq!(everything(&*copy.snapshot(), ROWS).await.len(), 1001);
    // It is a database like others, and another one than that it came from.
    done(&copy, vec![put(ROWS, "copy", "1")]).await;
    assert_eq!(now(&engine, ROWS, "copy").await, None);
}

/// A second backup into the same folder is the newest.
pub async fn backs_up_again<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    let folder = subject.folder().join("backups");
    for round in 0..3u8 {
        done(&engine, vec![put(ROWS, [round], vec![round; 10_000]), delete(ROWS, [round.wrapping_sub(2)])]).await;
        engine.backup(&folder).await.expect("the backup");
    }
    let copy = subject.restore(&folder).expect("the backup, opened");
    assert_eq!(keys(&everything(&*copy.snapshot(), ROWS).await), [[1], [2]]);
}

/// Where there is no backup, and where none can be written, it says so.
pub async fn backup_refused<S: Subject>() {
    let subject = S::new();
    let engine = subject.open();
    assert!(subject.restore(&subject.folder().join("nothing here")).is_err());
    let file = subject.folder().join("a file");
    std::fs::write(&file, "no folder").expect("a file");
    assert!(engine.backup(&file.join("backups")).await.is_err());
}
