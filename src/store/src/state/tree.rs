//! Reading, changing and comparing states. Every operation costs what it touches.

use std::{collections::HashMap, sync::Arc};

use super::{Class, Hash, Node, Nodes, Root, Tree, node::Slots};
use crate::{Error, EventNo, RoomNo, Snapshot, StateKeyNo, Tx, schema};

/// Where two states differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The state key.
    pub key: StateKeyNo,
    /// The event in the first state.
    pub before: Option<EventNo>,
    /// The event in the second.
    pub after: Option<EventNo>,
}

/// The states of one room, as seen from a snapshot, and new ones that are not written yet.
#[derive(Clone)]
pub struct State<'a> {
    nodes: &'a Nodes,
    snapshot: &'a Snapshot,
    room: RoomNo,
    fresh: HashMap<Hash, Arc<Node>>,
}

const BITS: u32 = 5;

/// The slot of a key at a level; level 0 is the leaves.
fn slot(key: u32, level: u8) -> u32 {
    (key >> (BITS * u32::from(level))) & 31
}

/// How many levels a tree with this greatest key has.
fn levels(key: u32) -> u8 {
    let mut levels = 1;
    while BITS * u32::from(levels) < 32 && key >> (BITS * u32::from(levels)) != 0 {
        levels += 1;
    }
    levels
}

impl<'a> State<'a> {
    pub(crate) fn new(nodes: &'a Nodes, snapshot: &'a Snapshot, room: RoomNo) -> Self {
        State { nodes, snapshot, room, fresh: HashMap::new() }
    }

    async fn node(&self, hash: &Hash) -> Result<Arc<Node>, Error> {
        if let Some(node) = self.fresh.get(hash).cloned().or_else(|| self.nodes.cached(self.room, hash)) {
            return Ok(node);
        }
        let mut nodes = self.nodes.load(self.snapshot, self.room, &[*hash]).await?;
        nodes.pop().ok_or(Error::Missing("a state node"))
    }

    async fn load(&self, hashes: &[Hash]) -> Result<Vec<Arc<Node>>, Error> {
        if hashes.iter().any(|hash| self.fresh.contains_key(hash)) {
            let mut nodes = Vec::with_capacity(hashes.len());
            for hash in hashes {
                nodes.push(self.node(hash).await?);
            }
            return Ok(nodes);
        }
        self.nodes.load(self.snapshot, self.room, hashes).await
    }

    /// The event of a state key.
    ///
    /// # Errors
    /// Where the engine fails or a node is missing.
    pub async fn get(&self, root: Root, key: StateKeyNo) -> Result<Option<EventNo>, Error> {
        let (tree, index) = (root.tree(key.class()), key.index());
        if tree.levels == 0 || levels(index) > tree.levels {
            return Ok(None);
        }
        let mut hash = tree.top;
        for level in (1..tree.levels).rev() {
            match self.node(&hash).await?.child(slot(index, level)) {
                Some(child) => hash = child,
                None => return Ok(None),
            }
        }
        Ok(self.node(&hash).await?.event(slot(index, 0)))
    }

    /// All entries, members last. Costs the size of the state.
    ///
    /// # Errors
    /// Where the engine fails or a node is missing.
    pub async fn entries(&self, root: Root) -> Result<Vec<(StateKeyNo, EventNo)>, Error> {
        let changes = self.changes(Root::EMPTY, root).await?;
        Ok(changes.into_iter().filter_map(|change| Some((change.key, change.after?))).collect())
    }

    /// Where two states differ, members last. Walks only where they do.
    ///
    /// # Errors
    /// Where the engine fails or a node is missing.
    pub async fn changes(&self, before: Root, after: Root) -> Result<Vec<Change>, Error> {
        let mut changes = self.changes_of(Class::Others, before, after).await?;
        changes.extend(self.changes_of(Class::Members, before, after).await?);
        Ok(changes)
    }

    /// Where two states differ among the keys of one class, in their order.
    ///
    /// # Errors
    /// Where the engine fails or a node is missing.
    pub async fn changes_of(&self, class: Class, before: Root, after: Root) -> Result<Vec<Change>, Error> {
        let (before, after) = (before.tree(class), after.tree(class));
        if before == after {
            return Ok(Vec::new());
        }
        let top = before.levels.max(after.levels);
        // One entry for each pair of subtrees that differ: the first key below them, and their nodes.
        let mut pairs = vec![(0u32, Side::top(before), Side::top(after))];
        for level in (0..top).rev() {
            let wanted: Vec<Hash> = pairs.iter().flat_map(|(_, a, b)| [a.at(level), b.at(level)]).flatten().collect();
            let mut loaded = self.load(&wanted).await?.into_iter();
            let mut next = Vec::new();
            let mut found = Vec::new();
            for (first, a, b) in pairs {
                let (a, b) = (a.step(level, &mut loaded), b.step(level, &mut loaded));
                for i in 0..32 {
                    let first = first | (i << (BITS * u32::from(level)));
                    if level == 0 {
                        let (before, after) = (a.event(i), b.event(i));
                        if before != after {
                            found.push(Change { key: StateKeyNo::of(class, first), before, after });
                        }
                    } else {
                        let (a, b) = (a.below(i), b.below(i));
                        if a != b {
                            next.push((first, a, b));
                        }
                    }
                }
            }
            if level == 0 {
                return Ok(found);
            }
            pairs = next;
        }
        Ok(Vec::new())
    }

    /// The state that has `event` for `key`, and is otherwise like `root`. Its new nodes are written by
    /// [`State::write`].
    ///
    /// # Errors
    /// Where the engine fails or a node is missing.
    pub async fn set(&mut self, root: Root, key: StateKeyNo, event: Option<EventNo>) -> Result<Root, Error> {
        match key.class() {
            Class::Others => Ok(Root { others: self.set_in(root.others, key.index(), event).await?, ..root }),
            Class::Members => Ok(Root { members: self.set_in(root.members, key.index(), event).await?, ..root }),
        }
    }

    async fn set_in(&mut self, mut root: Tree, key: u32, event: Option<EventNo>) -> Result<Tree, Error> {
        if event.is_none() && (root.levels == 0 || levels(key) > root.levels) {
            return Ok(root);
        }
        if root.levels == 0 {
            root = Tree { levels: 1, top: Hash::default() };
        }
        // Grow: the old top becomes the first child of a new one.
        while root.levels < levels(key) {
            if root.top != Hash::default() {
                let mut top = Node::inner();
                top.set_child(0, Some(root.top));
                root.top = self.keep(top);
            }
            root.levels += 1;
        }
        let mut path = Vec::with_capacity(root.levels.into());
        let mut hash = (root.top != Hash::default()).then_some(root.top);
        for level in (0..root.levels).rev() {
            let node = match hash {
                Some(hash) => (*self.node(&hash).await?).clone(),
                None if level == 0 => Node::leaf(),
                None => Node::inner(),
            };
            hash = if level == 0 { None } else { node.child(slot(key, level)) };
            path.push(node);
        }
        let mut below = None;
        for (level, mut node) in (0..root.levels).zip(path.into_iter().rev()) {
            match level {
                0 => node.set_event(slot(key, 0), event),
                _ => node.set_child(slot(key, level), below),
            }
            below = (!node.is_empty()).then(|| self.keep(node));
        }
        self.shrink(below, root.levels).await
    }

    /// A tree has no level that its greatest key does not need: so that equal states have equal roots.
    async fn shrink(&self, top: Option<Hash>, levels: u8) -> Result<Tree, Error> {
        let Some(mut top) = top else { return Ok(Tree::EMPTY) };
        let mut levels = levels;
        while levels > 1 {
            let node = self.node(&top).await?;
            match (&node.slots, node.taken) {
                (Slots::Inner(children), 1) => top = children[0],
                _ => break,
            }
            levels -= 1;
        }
        Ok(Tree { levels, top })
    }

    fn keep(&mut self, node: Node) -> Hash {
        let hash = Node::hash(&node.encode());
        self.fresh.insert(hash, Arc::new(node));
        hash
    }

    /// Writes the nodes that `roots` need and that are new here. Other new nodes were only steps on the way.
    pub fn write(&self, tx: &mut Tx, roots: &[Root]) {
        let mut todo: Vec<Hash> = roots.iter().flat_map(Root::tops).collect();
        let mut done = std::collections::HashSet::new();
        while let Some(hash) = todo.pop() {
            let Some(node) = self.fresh.get(&hash) else { continue };
            if !done.insert(hash) {
                continue;
            }
            if let Slots::Inner(children) = &node.slots {
                todo.extend(children);
            }
            tx.writes_nodes = true;
            tx.put(&schema::STATE_NODES, &(self.room, hash), &node.encode());
            self.nodes.keep(self.room, hash, node.clone());
        }
    }
}

/// One of two trees that are walked together; a lower tree waits at its top until the walk comes down to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Nothing,
    /// A node of this level.
    Node(Hash, u8),
}

impl Side {
    fn top(tree: Tree) -> Side {
        match tree.levels {
            0 => Side::Nothing,
            levels => Side::Node(tree.top, levels - 1),
        }
    }

    /// The node to load at this level, if the tree reaches up to it.
    fn at(&self, level: u8) -> Option<Hash> {
        match self {
            Side::Node(hash, own) if *own == level => Some(*hash),
            _ => None,
        }
    }

    fn step(self, level: u8, loaded: &mut impl Iterator<Item = Arc<Node>>) -> Step {
        match self {
            Side::Nothing => Step::Nothing,
            Side::Node(_, own) if own == level => loaded.next().map_or(Step::Nothing, |node| Step::Node(node, level)),
            Side::Node(..) => Step::Lower(self),
        }
    }
}

enum Step {
    Nothing,
    Node(Arc<Node>, u8),
    /// The tree is lower than the walk: all of it is in slot 0.
    Lower(Side),
}

impl Step {
    fn event(&self, i: u32) -> Option<EventNo> {
        match self {
            Step::Node(node, _) => node.event(i),
            _ => None,
        }
    }

    fn below(&self, i: u32) -> Side {
        match self {
            Step::Node(node, level) => node.child(i).map_or(Side::Nothing, |hash| Side::Node(hash, level - 1)),
            Step::Lower(side) if i == 0 => *side,
            _ => Side::Nothing,
        }
    }
}
