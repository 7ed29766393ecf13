//! Collection of state nodes that no event and no room refers to any more.

use std::{collections::HashSet, ops::Bound};

use stoa_engine::Direction;

use super::{Hash, Node, node::Slots};
use crate::{Error, EventNo, RoomNo, Store, Tx, schema};

const PAGE: usize = 1000;

/// Deletes the state nodes of a room that nothing refers to; answers how many. The caller holds the room's lock, so
/// that no state is being built meanwhile.
///
/// # Errors
/// Where the engine fails or a row cannot be read.
pub async fn collect(store: &Store, room: RoomNo) -> Result<u64, Error> {
    let snapshot = store.snapshot().await?;
    let mut live: HashSet<Hash> = HashSet::new();
    let mut todo: Vec<Hash> = Vec::new();
    if let Some(head) = snapshot.get(&schema::ROOMS, &room).await? {
        todo.extend(head.root.tops());
    }
    for (_, root) in snapshot.scan(&schema::ROOTS, &room, Direction::Forward, usize::MAX).await? {
        todo.extend(root.tops());
    }
    let mut from = Bound::Included((room, EventNo::MIN));
    loop {
        let to = Bound::Included((room, EventNo::MAX));
        let events = snapshot.range(&schema::EVENTS, from, to, Direction::Forward, PAGE).await?;
        let Some((last, _)) = events.last() else { break };
        from = Bound::Excluded(*last);
        for (_, event) in &events {
            todo.extend([event.header.before, event.header.after].into_iter().flatten().flat_map(|root| root.tops()));
        }
    }
    while let Some(hash) = todo.pop() {
        if !live.insert(hash) {
            continue;
        }
        if let Some(bytes) = snapshot.get(&schema::STATE_NODES, &(room, hash)).await?
            && let Slots::Inner(children) = Node::decode(&bytes)?.slots
        {
            todo.extend(children.into_iter().filter(|child| !live.contains(child)));
        }
    }
    let mut dead = 0;
    let mut from = Bound::Included((room, [0u8; 16]));
    loop {
        let to = Bound::Included((room, [0xFFu8; 16]));
        let nodes = snapshot.range(&schema::STATE_NODES, from, to, Direction::Forward, PAGE).await?;
        let Some((last, _)) = nodes.last() else { break };
        from = Bound::Excluded(*last);
        let mut tx = Tx::new();
        for ((_, hash), _) in nodes.iter().filter(|((_, hash), _)| !live.contains(hash)) {
            tx.delete(&schema::STATE_NODES, &(room, *hash));
            store.inner.nodes.forget(room, *hash);
            dead += 1;
        }
        if !tx.is_empty() {
            store.commit(tx).await?;
        }
    }
    Ok(dead)
}
