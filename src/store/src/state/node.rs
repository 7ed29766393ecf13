//! One node of a state tree: up to 32 slots, present ones marked in a bitmap.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::Hash;
use crate::{Corrupt, Error, EventNo};

/// What the slots of a node hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slots {
    /// At the lowest level: events.
    Leaf(Vec<EventNo>),
    /// Above: nodes of the next lower level.
    Inner(Vec<Hash>),
}

/// A node. Never empty in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Bit `i` is set if slot `i` is taken.
    pub(crate) taken: u32,
    pub(crate) slots: Slots,
}

impl Node {
    pub(crate) fn leaf() -> Node {
        Node { taken: 0, slots: Slots::Leaf(Vec::new()) }
    }

    pub(crate) fn inner() -> Node {
        Node { taken: 0, slots: Slots::Inner(Vec::new()) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// Where slot `i` stands among the taken ones.
    fn rank(&self, i: u32) -> usize {
        (self.taken & ((1u32 << i) - 1)).count_ones() as usize
    }

    fn has(&self, i: u32) -> bool {
        self.taken & (1 << i) != 0
    }

    pub(crate) fn event(&self, i: u32) -> Option<EventNo> {
        match &self.slots {
            Slots::Leaf(events) if self.has(i) => events.get(self.rank(i)).copied(),
            _ => None,
        }
    }

    pub(crate) fn child(&self, i: u32) -> Option<Hash> {
        match &self.slots {
            Slots::Inner(children) if self.has(i) => children.get(self.rank(i)).copied(),
            _ => None,
        }
    }

    pub(crate) fn set_event(&mut self, i: u32, event: Option<EventNo>) {
        let (rank, has) = (self.rank(i), self.has(i));
        if let Slots::Leaf(events) = &mut self.slots {
            set(events, &mut self.taken, i, rank, has, event);
        }
    }

    pub(crate) fn set_child(&mut self, i: u32, child: Option<Hash>) {
        let (rank, has) = (self.rank(i), self.has(i));
        if let Slots::Inner(children) = &mut self.slots {
            set(children, &mut self.taken, i, rank, has, child);
        }
    }

    /// Bytes: a level mark, the bitmap, the taken slots.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(5 + 16 * 32);
        out.push(u8::from(matches!(self.slots, Slots::Inner(_))));
        out.extend_from_slice(&self.taken.to_be_bytes());
        match &self.slots {
            Slots::Leaf(events) => events.iter().for_each(|event| out.extend_from_slice(&event.0.to_be_bytes())),
            Slots::Inner(children) => children.iter().for_each(|child| out.extend_from_slice(child)),
        }
        out.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Node, Error> {
        let bad = || Corrupt("a state node is not one");
        let (head, rest) = bytes.split_at_checked(5).ok_or_else(bad)?;
        let taken = u32::from_be_bytes(head[1..5].try_into().map_err(|_| bad())?);
        let slots = match head[0] {
            0 => {
                let (words, _) = rest.as_chunks::<4>();
                Slots::Leaf(words.iter().map(|raw| EventNo(u32::from_be_bytes(*raw))).collect())
            }
            1 => Slots::Inner(rest.as_chunks::<16>().0.to_vec()),
            _ => return Err(bad().into()),
        };
        let length = match &slots {
            Slots::Leaf(events) => events.len(),
            Slots::Inner(children) => children.len(),
        };
        if length != taken.count_ones() as usize {
            return Err(bad().into());
        }
        Ok(Node { taken, slots })
    }

    pub(crate) fn hash(encoded: &[u8]) -> Hash {
        let digest = Sha256::digest(encoded);
        let mut hash = Hash::default();
        hash.copy_from_slice(&digest[..16]);
        hash
    }
}

fn set<T>(all: &mut Vec<T>, taken: &mut u32, i: u32, rank: usize, has: bool, value: Option<T>) {
    match (value, has) {
        (Some(value), true) => all[rank] = value,
        (Some(value), false) => {
            all.insert(rank, value);
            *taken |= 1 << i;
        }
        (None, true) => {
            all.remove(rank);
            *taken &= !(1 << i);
        }
        (None, false) => {}
    }
}
