//! Collection of state nodes that no event and no room refers to any more. Events are never removed today, so few are
//! left behind: by events whose state before was worked out anew.

use std::{collections::HashSet, ops::Bound};

use stoa_engine::Direction;

use super::{Hash, Node, node::Slots};
use crate::{Error, EventNo, RoomNo, Snapshot, Store, Tx, schema};

const PAGE: usize = 1000;

/// Deletes the state nodes of a room that nothing refers to; answers how many.
///
/// A writer may make a node meanwhile that was dead until then. So the deletion is refused if any commit has written nodes
/// since the references were read; whoever commits later writes them after the deletion. What a writer only reads is named
/// by what is stored.
///
/// # Errors
/// [`Error::Conflict`] where somebody wrote state meanwhile; others where the engine fails or a row cannot be read.
pub async fn collect(store: &Store, room: RoomNo) -> Result<u64, Error> {
    Survey::of(store, room).await?.delete(store).await
}

/// What a room needs, as it was at a moment.
struct Survey {
    snapshot: Snapshot,
    room: RoomNo,
    node_writes: u64,
    live: HashSet<Hash>,
}

impl Survey {
    async fn of(store: &Store, room: RoomNo) -> Result<Survey, Error> {
        let node_writes = store.inner.nodes.writes();
        let snapshot = store.snapshot().await?;
        let head = snapshot.get(&schema::ROOMS, &room).await?;
        let mut todo: Vec<Hash> = head.iter().flat_map(|head| head.root.tops()).collect();
        for (_, root) in snapshot.scan(&schema::ROOTS, &room, Direction::Forward, usize::MAX).await? {
            todo.extend(root.tops());
        }
        let mut from = Bound::Included((room, EventNo::MIN));
        loop {
            let to = Bound::Included((room, EventNo::MAX));
            let events = snapshot.range(&schema::EVENTS, from, to, Direction::Forward, PAGE).await?;
            let Some((last, _)) = events.last() else { break };
            from = Bound::Excluded(*last);
            let roots = events.iter().flat_map(|(_, event)| [event.header.before, event.header.after]);
            todo.extend(roots.flatten().flat_map(|root| root.tops()));
        }
        let mut live = HashSet::new();
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
        Ok(Survey { snapshot, room, node_writes, live })
    }

    async fn delete(self, store: &Store) -> Result<u64, Error> {
        let Survey { snapshot, room, node_writes, live } = self;
        let mut dead = 0;
        let mut from = Bound::Included((room, [0u8; 16]));
        loop {
            let to = Bound::Included((room, [0xFFu8; 16]));
            let nodes = snapshot.range(&schema::STATE_NODES, from, to, Direction::Forward, PAGE).await?;
            let Some((last, _)) = nodes.last() else { return Ok(dead) };
            from = Bound::Excluded(*last);
            let unnamed: Vec<Hash> = nodes.iter().map(|((_, hash), _)| *hash).filter(|it| !live.contains(it)).collect();
            if unnamed.is_empty() {
                continue;
            }
            let mut tx = Tx::new();
            tx.node_writes = Some(node_writes);
            for hash in &unnamed {
                tx.delete(&schema::STATE_NODES, &(room, *hash));
            }
            store.commit(tx).await?;
            unnamed.iter().for_each(|hash| store.inner.nodes.forget(room, *hash));
            dead += unnamed.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stoa_engine::memory::Memory;

    use super::*;
    use crate::{
        Options, Position, StateKeyNo,
        rows::{self, rooms::Head},
        state::Root,
    };

    const ROOM: RoomNo = RoomNo(1);

    async fn write(store: &Store, head: &mut Head, entries: u32, named: bool) -> Root {
        let (tx, root) = prepare(store, head, entries, named).await;
        store.commit(tx).await.unwrap();
        root
    }

    async fn prepare(store: &Store, head: &mut Head, entries: u32, named: bool) -> (Tx, Root) {
        let snapshot = store.snapshot().await.unwrap();
        let mut state = store.state(&snapshot, ROOM);
        let mut root = Root::EMPTY;
        for n in 0..entries {
            root = state.set(root, StateKeyNo(n), Some(EventNo(n))).await.unwrap();
        }
        let mut tx = Tx::new();
        state.write(&mut tx, &[root]);
        if named {
            head.root = root;
            let slot = tx.slot();
            rows::rooms::put_head(&mut tx, slot, ROOM, head.clone());
        }
        (tx, root)
    }

    #[tokio::test]
    async fn what_a_writer_brings_back_to_life_stays() {
        let (store, committer) = Store::open(Arc::new(Memory::new()), Options::default()).await.unwrap();
        tokio::spawn(committer.run());
        let mut head = Head {
            version: "12".into(),
            create: EventNo(0),
            next_event: EventNo(0),
            state_keys: 0,
            extremities: Vec::new(),
            root: Root::EMPTY,
            last: Position::MIN,
            joined: 0,
            invited: 0,
            partial: false,
            whole_since: None,
            member_keys: 0,
            encrypted: false,
        };
        write(&store, &mut head, 40, true).await;
        let dead = write(&store, &mut head, 100, false).await;
        // It began to write before anybody looked, and is done afterwards.
        let (tx, again) = prepare(&store, &mut head, 100, true).await;
        let survey = Survey::of(&store, ROOM).await.unwrap();
        store.commit(tx).await.unwrap();
        assert_eq!(again, dead);
        assert!(matches!(survey.delete(&store).await, Err(Error::Conflict)));
        store.inner.nodes.clear();
        let snapshot = store.snapshot().await.unwrap();
        assert_eq!(store.state(&snapshot, ROOM).entries(again).await.unwrap().len(), 100);
        // Then the first state is what nobody needs: its leaves are shared, its other nodes are not.
        assert!(collect(&store, ROOM).await.unwrap() > 0);
        store.inner.nodes.clear();
        let snapshot = store.snapshot().await.unwrap();
        assert_eq!(store.state(&snapshot, ROOM).entries(again).await.unwrap().len(), 100);
        assert_eq!(collect(&store, ROOM).await.unwrap(), 0);
    }
}
