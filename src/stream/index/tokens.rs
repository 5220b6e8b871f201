//! The subjects by their tokens, so that a wildcard finds its matches without looking at the others.
//!
//! Nodes are the tokens before a subject's last one; each lists the nodes below it and the subjects that end in it. A node
//! is found by its parent and its token in one hash table, so a node costs the same whether it has two children or a
//! million. Only births and deaths of subjects touch the tree; appending to a subject that lives does not.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::types::subject;

/// In place of a node's or a subject's number: none.
pub const NONE: u32 = u32::MAX;
/// The node above all first tokens.
const ROOT: u32 = 0;

/// A subject's place: the node it ends in, and its neighbours in that node's list.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    node: u32,
    left: u32,
    right: u32,
}

/// Whoever holds the subjects' places and knows them by their text.
pub trait Subjects {
    fn place(&self, id: u32) -> Place;
    fn place_mut(&mut self, id: u32) -> &mut Place;
    fn find(&self, text: &[u8]) -> Option<u32>;
}

#[derive(Debug)]
pub struct Tokens {
    hasher: DefaultHashBuilder,
    /// Hashes of parent and token, and nodes.
    children: HashTable<(u32, u32)>,
    nodes: Vec<Node>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Node {
    token: Box<[u8]>,
    parent: u32,
    left: u32,
    right: u32,
    /// The first of the nodes below.
    child: u32,
    /// The first of the subjects that end here.
    subject: u32,
}

impl Node {
    fn new(token: &[u8], parent: u32) -> Node {
        Node { token: token.into(), parent, left: NONE, right: NONE, child: NONE, subject: NONE }
    }
}

impl Default for Tokens {
    fn default() -> Tokens {
        Tokens {
            hasher: DefaultHashBuilder::default(),
            children: HashTable::new(),
            nodes: vec![Node::new(b"", NONE)],
            free: Vec::new(),
        }
    }
}

/// A subject without its last token.
pub fn stem(text: &[u8]) -> &[u8] {
    memchr::memrchr(b'.', text).map_or(b"", |at| &text[..at])
}

impl Place {
    pub const NOWHERE: Place = Place { node: NONE, left: NONE, right: NONE };

    pub fn node(self) -> u32 {
        self.node
    }
}

impl Tokens {
    pub fn clear(&mut self) {
        *self = Tokens::default();
    }

    /// The node of a stem, made when needed.
    pub fn enter(&mut self, stem: &[u8]) -> u32 {
        let mut node = ROOT;
        if stem.is_empty() {
            return node;
        }
        for token in subject::tokens(stem) {
            node = match self.child(node, token) {
                Some(child) => child,
                None => self.grow(node, token),
            };
        }
        node
    }

    /// Hangs a subject into the node it ends in.
    pub fn hang(&mut self, id: u32, node: u32, subjects: &mut impl Subjects) {
        let first = std::mem::replace(&mut self.nodes[node as usize].subject, id);
        *subjects.place_mut(id) = Place { node, left: NONE, right: first };
        if first != NONE {
            subjects.place_mut(first).left = id;
        }
    }

    /// Takes a subject out, and the nodes that nothing hangs in any more.
    pub fn unhang(&mut self, id: u32, subjects: &mut impl Subjects) {
        let Place { node, left, right } = std::mem::replace(subjects.place_mut(id), Place::NOWHERE);
        if right != NONE {
            subjects.place_mut(right).left = left;
        }
        if left != NONE {
            subjects.place_mut(left).right = right;
            return;
        }
        self.nodes[node as usize].subject = right;
        let mut node = node;
        while node != ROOT && self.nodes[node as usize].subject == NONE && self.nodes[node as usize].child == NONE {
            node = self.fell(node);
        }
    }

    /// Shows every subject that `pattern` matches, once, in no order. Besides them only nodes that the pattern matches so
    /// far are looked at.
    pub fn walk(&self, pattern: &[u8], subjects: &impl Subjects, mut found: impl FnMut(u32)) {
        let tokens: Vec<&[u8]> = subject::tokens(pattern).collect();
        let mut text = Vec::new();
        // Nodes, and how many of the pattern's tokens lead to them.
        let mut open = vec![(ROOT, 0)];
        while let Some((node, depth)) = open.pop() {
            let last = depth + 1 == tokens.len();
            match tokens[depth] {
                b">" if last => self.all_below(node, subjects, &mut found),
                b"*" if last => self.subjects_in(node, subjects, &mut found),
                b"*" => open.extend(self.nodes_in(node).map(|child| (child, depth + 1))),
                token if last => {
                    self.text(node, &mut text);
                    text.extend_from_slice(token);
                    subjects.find(&text).into_iter().for_each(&mut found);
                }
                token => open.extend(self.child(node, token).map(|child| (child, depth + 1))),
            }
        }
    }

    fn all_below(&self, node: u32, subjects: &impl Subjects, found: &mut impl FnMut(u32)) {
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            self.subjects_in(node, subjects, found);
            open.extend(self.nodes_in(node));
        }
    }

    fn subjects_in(&self, node: u32, subjects: &impl Subjects, found: &mut impl FnMut(u32)) {
        let mut id = self.nodes[node as usize].subject;
        while id != NONE {
            found(id);
            id = subjects.place(id).right;
        }
    }

    fn nodes_in(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        let mut next = self.nodes[node as usize].child;
        std::iter::from_fn(move || {
            let child = next;
            (child != NONE).then(|| {
                next = self.nodes[child as usize].right;
                child
            })
        })
    }

    /// Fills `text` with the tokens down to a node, each with its dot.
    fn text(&self, node: u32, text: &mut Vec<u8>) {
        let mut path = Vec::new();
        let mut at = node;
        while at != ROOT {
            path.push(at);
            at = self.nodes[at as usize].parent;
        }
        text.clear();
        for node in path.into_iter().rev() {
            text.extend_from_slice(&self.nodes[node as usize].token);
            text.push(b'.');
        }
    }

    fn hash(&self, parent: u32, token: &[u8]) -> u32 {
        self.hasher.hash_one((parent, token)) as u32
    }

    fn child(&self, parent: u32, token: &[u8]) -> Option<u32> {
        let hash = self.hash(parent, token);
        let same = |&(other, node): &(u32, u32)| {
            let held = &self.nodes[node as usize];
            other == hash && held.parent == parent && *held.token == *token
        };
        self.children.find(spread(hash), same).map(|&(_, node)| node)
    }

    fn grow(&mut self, parent: u32, token: &[u8]) -> u32 {
        let mut grown = Node::new(token, parent);
        grown.right = self.nodes[parent as usize].child;
        let node = match self.free.pop() {
            Some(node) => {
                self.nodes[node as usize] = grown;
                node
            }
            None => {
                self.nodes.push(grown);
                u32::try_from(self.nodes.len() - 1).expect("memory ends long before four billion tokens")
            }
        };
        let right = std::mem::replace(&mut self.nodes[parent as usize].child, node);
        if right != NONE {
            self.nodes[right as usize].left = node;
        }
        let hash = self.hash(parent, token);
        self.children.insert_unique(spread(hash), (hash, node), |&(hash, _)| spread(hash));
        node
    }

    /// Removes a node that nothing hangs in, and returns its parent.
    fn fell(&mut self, node: u32) -> u32 {
        let Node { token, parent, left, right, .. } =
            std::mem::replace(&mut self.nodes[node as usize], Node::new(b"", NONE));
        match left {
            NONE => self.nodes[parent as usize].child = right,
            left => self.nodes[left as usize].right = right,
        }
        if right != NONE {
            self.nodes[right as usize].left = left;
        }
        if let Ok(entry) = self.children.find_entry(spread(self.hash(parent, &token)), |&(_, other)| other == node) {
            entry.remove();
        }
        self.free.push(node);
        parent
    }
}

/// The table wants 64 bits and looks at both ends of them; half of that is kept, so that growing it touches nothing else.
pub fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}
