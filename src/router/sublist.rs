//! A trie of subscription filters: which of them match a subject, queue groups apart.
//!
//! Nodes live in one vector and name each other by index; one hash table finds a node's child by token. So matching,
//! inserting, removing and dropping never recurse, however many tokens a filter has.
//!
//! Source of the matching rules: nats-server `server/sublist.go`.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use self::places::Places;
use crate::types::subject;

mod places;

/// A subscription: what tells it apart from others of the same filter and queue group.
pub trait Keyed {
    fn key(&self) -> u64;
}

impl Keyed for u64 {
    fn key(&self) -> u64 {
        *self
    }
}

/// The filter is no valid subject filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid subject filter")]
pub struct InvalidFilter;

/// The subscriptions that match one subject; kept by its owner and filled again, so that matching allocates nothing.
#[derive(Clone, Debug)]
pub struct Matches<T> {
    /// Every plain subscription that matches.
    pub plain: Vec<T>,
    /// Each queue group that matches, once. A message goes to one member of each.
    pub queues: Vec<Group<T>>,
    places: Places,
    spare: Vec<Group<T>>,
    pending: Vec<(NodeId, u32)>,
}

/// The members of one queue group that match, under whatever filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<T> {
    pub name: Vec<u8>,
    /// Never empty.
    pub members: Vec<T>,
}

impl<T> Default for Matches<T> {
    fn default() -> Matches<T> {
        Matches {
            plain: Vec::new(),
            queues: Vec::new(),
            places: Places::default(),
            spare: Vec::new(),
            pending: Vec::new(),
        }
    }
}

impl<T: Clone> Matches<T> {
    pub fn new() -> Matches<T> {
        Matches::default()
    }

    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.queues.is_empty()
    }

    /// Forgets the matches and keeps the memory.
    pub fn clear(&mut self) {
        self.plain.clear();
        self.places.clear();
        for mut group in self.queues.drain(..) {
            group.members.clear();
            self.spare.push(group);
        }
    }

    fn add(&mut self, subscriptions: &Subscriptions<T>) {
        self.plain.extend_from_slice(&subscriptions.plain);
        for queue in &subscriptions.queues {
            if let Some(at) = self.places.find(&self.queues, &queue.name) {
                self.queues[at].members.extend_from_slice(&queue.members);
                continue;
            }
            let mut group = self.spare.pop().unwrap_or(Group { name: Vec::new(), members: Vec::new() });
            group.name.clone_from(&queue.name);
            group.members.extend_from_slice(&queue.members);
            self.queues.push(group);
            self.places.added(&self.queues);
        }
    }
}

type NodeId = u32;
const ROOT: NodeId = 0;
const NIL: NodeId = u32::MAX;

#[derive(Clone, Debug)]
struct Subscriptions<T> {
    plain: Vec<T>,
    queues: Vec<Group<T>>,
    places: Places,
}

impl<T> Subscriptions<T> {
    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.queues.is_empty()
    }
}

#[derive(Clone, Debug)]
struct Node<T> {
    token: Box<[u8]>,
    parent: NodeId,
    /// The child for the token `*`.
    star: NodeId,
    /// The child for the token `>`; always a leaf.
    full: NodeId,
    /// Children for literal tokens, as a doubly linked list in no order.
    first_child: NodeId,
    next_sibling: NodeId,
    previous_sibling: NodeId,
    subscriptions: Subscriptions<T>,
}

impl<T> Node<T> {
    fn new(token: &[u8], parent: NodeId) -> Node<T> {
        Node {
            token: token.into(),
            parent,
            star: NIL,
            full: NIL,
            first_child: NIL,
            next_sibling: NIL,
            previous_sibling: NIL,
            subscriptions: Subscriptions { plain: Vec::new(), queues: Vec::new(), places: Places::default() },
        }
    }

    fn is_unused(&self) -> bool {
        self.subscriptions.is_empty() && self.star == NIL && self.full == NIL && self.first_child == NIL
    }
}

/// All subscriptions of an account.
///
/// The caller keeps keys unique within a filter and queue group, and removes what it inserted.
#[derive(Clone, Debug)]
pub struct Sublist<T> {
    nodes: Vec<Node<T>>,
    /// Indices of `nodes` in no use.
    free: Vec<NodeId>,
    /// The literal children of all nodes, by parent and token.
    children: HashTable<NodeId>,
    hasher: DefaultHashBuilder,
    count: usize,
    generation: u64,
}

impl<T: Clone + Keyed> Default for Sublist<T> {
    fn default() -> Sublist<T> {
        Sublist::new()
    }
}

impl<T: Clone + Keyed> Sublist<T> {
    pub fn new() -> Sublist<T> {
        Sublist {
            nodes: vec![Node::new(b"", NIL)],
            free: Vec::new(),
            children: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            count: 0,
            generation: 0,
        }
    }

    /// Subscriptions held.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Nodes held, the root included: what the filters cost.
    pub fn node_count(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// A number that every change makes larger, so that caches of matches know when they are stale.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Adds a subscription; `queue` is its queue group.
    ///
    /// # Errors
    /// When `filter` is not a valid filter.
    pub fn insert(&mut self, filter: &[u8], queue: Option<&[u8]>, value: T) -> Result<(), InvalidFilter> {
        if !subject::is_valid(filter) {
            return Err(InvalidFilter);
        }
        let mut node = ROOT;
        for token in subject::tokens(filter) {
            node = self.child_or_new(node, token);
        }
        let subscriptions = &mut self.nodes[node as usize].subscriptions;
        match queue {
            None => subscriptions.plain.push(value),
            Some(name) => match subscriptions.places.find(&subscriptions.queues, name) {
                Some(at) => subscriptions.queues[at].members.push(value),
                None => {
                    subscriptions.queues.push(Group { name: name.to_vec(), members: vec![value] });
                    subscriptions.places.added(&subscriptions.queues);
                }
            },
        }
        self.count += 1;
        self.generation += 1;
        Ok(())
    }

    /// Removes the subscription with `key`; returns it, or `None` when there is none.
    pub fn remove(&mut self, filter: &[u8], queue: Option<&[u8]>, key: u64) -> Option<T> {
        let node = self.node_of(filter)?;
        let subscriptions = &mut self.nodes[node as usize].subscriptions;
        let removed = match queue {
            None => take(&mut subscriptions.plain, key)?,
            Some(name) => {
                let at = subscriptions.places.find(&subscriptions.queues, name)?;
                let removed = take(&mut subscriptions.queues[at].members, key)?;
                if subscriptions.queues[at].members.is_empty() {
                    subscriptions.places.remove(&mut subscriptions.queues, at);
                }
                removed
            }
        };
        self.prune(node);
        self.count -= 1;
        self.generation += 1;
        Some(removed)
    }

    /// Replaces what is in `matches` with the subscriptions that match the literal `subject`. A subject with an empty
    /// token matches none; tokens `*` and `>` in it are ordinary tokens, as in nats-server.
    pub fn match_into(&self, subject: &[u8], matches: &mut Matches<T>) {
        matches.clear();
        let mut pending = std::mem::take(&mut matches.pending);
        self.visit(subject, &mut pending, |subscriptions| {
            matches.add(subscriptions);
            true
        });
        pending.clear();
        matches.pending = pending;
    }

    /// Whether any subscription matches the literal `subject`.
    pub fn has_interest(&self, subject: &[u8]) -> bool {
        let mut found = false;
        self.visit(subject, &mut Vec::new(), |_| {
            found = true;
            false
        });
        found
    }

    /// Whether there is a subscription on exactly this filter.
    pub fn has_filter(&self, filter: &[u8]) -> bool {
        self.node_of(filter).is_some_and(|node| !self.nodes[node as usize].subscriptions.is_empty())
    }

    /// Calls `found` with the subscriptions of every node that matches until it returns false.
    fn visit(
        &self,
        subject: &[u8],
        pending: &mut Vec<(NodeId, u32)>,
        mut found: impl FnMut(&Subscriptions<T>) -> bool,
    ) {
        if has_empty_token(subject) {
            return;
        }
        pending.clear();
        let (mut node, mut at) = (ROOT, 0);
        loop {
            // `node` has matched the tokens before `at`, and there is at least one more.
            let token_end = memchr::memchr(b'.', &subject[at..]).map_or(subject.len(), |length| at + length);
            let here = &self.nodes[node as usize];
            if here.full != NIL && !found(&self.nodes[here.full as usize].subscriptions) {
                return;
            }
            let star = here.star;
            let literal = if here.first_child == NIL { NIL } else { self.child(node, &subject[at..token_end]) };
            if token_end == subject.len() {
                for end in [literal, star] {
                    if end == NIL {
                        continue;
                    }
                    let subscriptions = &self.nodes[end as usize].subscriptions;
                    if !subscriptions.is_empty() && !found(subscriptions) {
                        return;
                    }
                }
            } else {
                let next = token_end + 1;
                match (literal, star) {
                    (NIL, NIL) => {}
                    (only, NIL) | (NIL, only) => {
                        (node, at) = (only, next);
                        continue;
                    }
                    (literal, star) => {
                        pending.push((star, next as u32));
                        (node, at) = (literal, next);
                        continue;
                    }
                }
            }
            match pending.pop() {
                Some((pending_node, pending_at)) => (node, at) = (pending_node, pending_at as usize),
                None => return,
            }
        }
    }

    /// Calls `found` with every subscription whose filter shares at least one literal subject with `filter`, and its
    /// queue group.
    pub fn for_each_overlapping<'a>(&'a self, filter: &[u8], mut found: impl FnMut(Option<&'a [u8]>, &'a T)) {
        if !subject::is_valid(filter) {
            return;
        }
        let tokens: Vec<&[u8]> = subject::tokens(filter).collect();
        let mut pending = vec![(ROOT, 0usize)];
        while let Some((id, depth)) = pending.pop() {
            let node = &self.nodes[id as usize];
            if depth == tokens.len() {
                report(&node.subscriptions, &mut found);
                continue;
            }
            if node.full != NIL {
                report(&self.nodes[node.full as usize].subscriptions, &mut found);
            }
            match tokens[depth] {
                b">" => {
                    for child in self.wild_children(node) {
                        self.report_all_below(child, &mut found);
                    }
                }
                b"*" => pending.extend(self.wild_children(node).map(|child| (child, depth + 1))),
                token => {
                    let literal = self.child(id, token);
                    pending.extend([literal, node.star].iter().filter(|&&child| child != NIL).map(|&c| (c, depth + 1)));
                }
            }
        }
    }

    /// Calls `found` with every subscription and its queue group, in no order.
    pub fn for_each<'a>(&'a self, mut found: impl FnMut(Option<&'a [u8]>, &'a T)) {
        self.report_all_below(ROOT, &mut found);
    }

    fn report_all_below<'a>(&'a self, top: NodeId, found: &mut impl FnMut(Option<&'a [u8]>, &'a T)) {
        let mut pending = vec![top];
        while let Some(id) = pending.pop() {
            let node = &self.nodes[id as usize];
            report(&node.subscriptions, found);
            if node.full != NIL {
                report(&self.nodes[node.full as usize].subscriptions, found);
            }
            pending.extend(self.wild_children(node));
        }
    }

    /// The literal children and the `*` child.
    fn wild_children(&self, node: &Node<T>) -> impl Iterator<Item = NodeId> + use<'_, T> {
        let mut next = node.first_child;
        let mut star = node.star;
        std::iter::from_fn(move || {
            if next != NIL {
                let child = next;
                next = self.nodes[child as usize].next_sibling;
                return Some(child);
            }
            let last = std::mem::replace(&mut star, NIL);
            (last != NIL).then_some(last)
        })
    }

    fn hash(&self, parent: NodeId, token: &[u8]) -> u64 {
        self.hasher.hash_one((parent, token))
    }

    /// The child of `parent` for a literal token, or `NIL`.
    #[inline]
    fn child(&self, parent: NodeId, token: &[u8]) -> NodeId {
        let same = |&id: &NodeId| {
            let node = &self.nodes[id as usize];
            node.parent == parent && *node.token == *token
        };
        self.children.find(self.hash(parent, token), same).copied().unwrap_or(NIL)
    }

    fn child_of_filter(&self, parent: NodeId, token: &[u8]) -> NodeId {
        match token {
            b"*" => self.nodes[parent as usize].star,
            b">" => self.nodes[parent as usize].full,
            _ => self.child(parent, token),
        }
    }

    fn node_of(&self, filter: &[u8]) -> Option<NodeId> {
        let mut node = ROOT;
        for token in subject::tokens(filter) {
            node = self.child_of_filter(node, token);
            if node == NIL {
                return None;
            }
        }
        Some(node)
    }

    fn child_or_new(&mut self, parent: NodeId, token: &[u8]) -> NodeId {
        let existing = self.child_of_filter(parent, token);
        if existing != NIL {
            return existing;
        }
        let node = Node::new(token, parent);
        let id = match self.free.pop() {
            Some(id) => {
                self.nodes[id as usize] = node;
                id
            }
            None => {
                let id = NodeId::try_from(self.nodes.len()).ok().filter(|&id| id != NIL);
                self.nodes.push(node);
                id.expect("memory ends before four billion trie nodes")
            }
        };
        match token {
            b"*" => self.nodes[parent as usize].star = id,
            b">" => self.nodes[parent as usize].full = id,
            _ => {
                let first = std::mem::replace(&mut self.nodes[parent as usize].first_child, id);
                self.nodes[id as usize].next_sibling = first;
                if first != NIL {
                    self.nodes[first as usize].previous_sibling = id;
                }
                let hash = self.hash(parent, token);
                let Sublist { nodes, children, hasher, .. } = self;
                children.insert_unique(hash, id, |&id| {
                    let node = &nodes[id as usize];
                    hasher.hash_one((node.parent, &*node.token))
                });
            }
        }
        id
    }

    /// Gives back `node` and every ancestor that holds nothing any more.
    fn prune(&mut self, mut node: NodeId) {
        while node != ROOT && self.nodes[node as usize].is_unused() {
            let unused = std::mem::replace(&mut self.nodes[node as usize], Node::new(b"", NIL));
            let parent = unused.parent;
            match &*unused.token {
                b"*" => self.nodes[parent as usize].star = NIL,
                b">" => self.nodes[parent as usize].full = NIL,
                token => {
                    let hash = self.hash(parent, token);
                    self.children
                        .find_entry(hash, |&id| id == node)
                        .expect("every literal child is in the table")
                        .remove();
                    match unused.previous_sibling {
                        NIL => self.nodes[parent as usize].first_child = unused.next_sibling,
                        previous => self.nodes[previous as usize].next_sibling = unused.next_sibling,
                    }
                    if unused.next_sibling != NIL {
                        self.nodes[unused.next_sibling as usize].previous_sibling = unused.previous_sibling;
                    }
                }
            }
            self.free.push(node);
            node = parent;
        }
    }
}

fn take<T: Keyed>(values: &mut Vec<T>, key: u64) -> Option<T> {
    let at = values.iter().position(|value| value.key() == key)?;
    Some(values.swap_remove(at))
}

fn report<'a, T>(subscriptions: &'a Subscriptions<T>, found: &mut impl FnMut(Option<&'a [u8]>, &'a T)) {
    for value in &subscriptions.plain {
        found(None, value);
    }
    for group in &subscriptions.queues {
        for value in &group.members {
            found(Some(&group.name), value);
        }
    }
}

fn has_empty_token(subject: &[u8]) -> bool {
    let mut at_start = true;
    for &byte in subject {
        if byte == b'.' {
            if at_start {
                return true;
            }
            at_start = true;
        } else {
            at_start = false;
        }
    }
    at_start
}

#[cfg(test)]
mod tests;
