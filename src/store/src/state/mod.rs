//! State trees: the state of a room at a moment is the root of a persistent radix tree from state key number to event
//! number, with fan-out 32. Nodes are named by the hash of their content, so equal states have equal roots, and what two
//! states share is stored and walked once.

mod collect;
mod node;
mod tree;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use quick_cache::sync::Cache;

pub(crate) use self::node::Node;
pub use self::{
    collect::collect,
    tree::{Change, State},
};
use crate::{Error, RoomNo, Snapshot, StateKeyNo, codec::KeyPart, schema, value::Value};

/// The name of a node: the first 16 bytes of the SHA-256 of its content.
pub type Hash = [u8; 16];

/// One of the two trees of a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, minicbor::Encode, minicbor::Decode)]
pub struct Tree {
    /// Levels of nodes: 0 is the empty tree, 1 a single leaf.
    #[n(0)]
    pub levels: u8,
    /// The node at the top.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub top: Hash,
}

/// A state. Two states of a room are equal if and only if their roots are. Members have a tree of their own, so that
/// whoever does not want all of them (most clients) does not walk past them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, minicbor::Encode, minicbor::Decode)]
pub struct Root {
    /// Everything but members.
    #[n(0)]
    pub others: Tree,
    /// `m.room.member`
    #[n(1)]
    pub members: Tree,
}

impl Tree {
    /// The tree without any event.
    pub const EMPTY: Tree = Tree { levels: 0, top: [0; 16] };
}

impl Root {
    /// The state without any event.
    pub const EMPTY: Root = Root { others: Tree::EMPTY, members: Tree::EMPTY };

    fn tree(&self, class: Class) -> Tree {
        match class {
            Class::Others => self.others,
            Class::Members => self.members,
        }
    }

    fn tops(&self) -> impl Iterator<Item = Hash> + use<> {
        [self.others, self.members].into_iter().filter(|tree| tree.levels > 0).map(|tree| tree.top)
    }
}

/// Which tree a state key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Everything but members: even numbers.
    Others,
    /// Members: odd numbers.
    Members,
}

impl StateKeyNo {
    /// The number of the `n`th key of a class.
    pub fn of(class: Class, n: u32) -> StateKeyNo {
        StateKeyNo(n << 1 | u32::from(class == Class::Members))
    }

    /// Which tree it belongs to.
    pub fn class(self) -> Class {
        if self.0 & 1 == 0 { Class::Others } else { Class::Members }
    }

    /// Which one of its class it is.
    pub fn index(self) -> u32 {
        self.0 >> 1
    }
}

impl KeyPart for Tree {
    fn write(&self, out: &mut Vec<u8>) {
        self.levels.write(out);
        self.top.write(out);
    }
    fn read(bytes: &mut &[u8]) -> Result<Self, Error> {
        Ok(Tree { levels: u8::read(bytes)?, top: Hash::read(bytes)? })
    }
}

impl Value for Root {
    fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(34);
        self.others.write(&mut out);
        self.members.write(&mut out);
        out.into()
    }
    fn from_bytes(bytes: Bytes) -> Result<Self, Error> {
        let bytes = &mut &bytes[..];
        Ok(Root { others: KeyPart::read(bytes)?, members: KeyPart::read(bytes)? })
    }
}

/// Nodes that were read before. They never change, so nothing is ever stale.
pub struct Nodes {
    cache: Cache<(RoomNo, Hash), Arc<Node>>,
    /// How often commits have written nodes since start.
    writes: AtomicU64,
}

impl Nodes {
    pub(crate) fn new(bytes: u64) -> Self {
        // A node is at most 32 hashes and its bookkeeping.
        let cache = Cache::new(usize::try_from(bytes / 700).unwrap_or(usize::MAX).max(64));
        Nodes { cache, writes: AtomicU64::new(0) }
    }

    /// Nodes of one room, in the order asked for.
    pub(crate) async fn load(
        &self,
        snapshot: &Snapshot,
        room: RoomNo,
        hashes: &[Hash],
    ) -> Result<Vec<Arc<Node>>, Error> {
        let mut found: Vec<Option<Arc<Node>>> = hashes.iter().map(|hash| self.cache.get(&(room, *hash))).collect();
        let missing: Vec<usize> = (0..hashes.len()).filter(|i| found[*i].is_none()).collect();
        if !missing.is_empty() {
            let keys = missing.iter().map(|i| (room, hashes[*i]));
            for (i, row) in missing.iter().zip(snapshot.get_many(&schema::STATE_NODES, keys).await?) {
                let node = Arc::new(Node::decode(&row.ok_or(Error::Missing("a state node"))?)?);
                self.cache.insert((room, hashes[*i]), node.clone());
                found[*i] = Some(node);
            }
        }
        found.into_iter().collect::<Option<Vec<_>>>().ok_or(Error::Missing("a state node"))
    }

    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// A commit has written nodes.
    pub(crate) fn count_write(&self) {
        self.writes.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn cached(&self, room: RoomNo, hash: &Hash) -> Option<Arc<Node>> {
        self.cache.get(&(room, *hash))
    }

    pub(crate) fn keep(&self, room: RoomNo, hash: Hash, node: Arc<Node>) {
        self.cache.insert((room, hash), node);
    }

    #[cfg(test)]
    pub(crate) fn clear(&self) {
        self.cache.clear();
    }

    pub(crate) fn forget(&self, room: RoomNo, hash: Hash) {
        self.cache.remove(&(room, hash));
    }
}
