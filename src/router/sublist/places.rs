//! Where each queue group is in a list of them, so that a client with thousands of groups makes nobody look through all.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::Group;

/// No more groups than this are looked through one by one, which is faster then.
const FEW: usize = 16;

/// See the module. Whoever changes the list tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Option<Box<Table>>);

#[derive(Clone, Debug, Default)]
struct Table {
    by_name: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Table {
    fn insert<T>(&mut self, groups: &[Group<T>], at: usize) {
        let Table { by_name, hasher } = self;
        let hash = |at: usize| hasher.hash_one(&*groups[at].name);
        by_name.insert_unique(hash(at), at as u32, |&at| hash(at as usize));
    }
}

impl Places {
    #[inline]
    pub(super) fn find<T>(&self, groups: &[Group<T>], name: &[u8]) -> Option<usize> {
        match &self.0 {
            None => groups.iter().position(|group| group.name == name),
            Some(table) => {
                let is_same = |&at: &u32| groups[at as usize].name == name;
                table.by_name.find(table.hasher.hash_one(name), is_same).map(|&at| at as usize)
            }
        }
    }

    /// The last of `groups` has been added.
    #[inline]
    pub(super) fn added<T>(&mut self, groups: &[Group<T>]) {
        match &mut self.0 {
            Some(table) => table.insert(groups, groups.len() - 1),
            None if groups.len() > FEW => {
                let table = self.0.insert(Box::default());
                (0..groups.len()).for_each(|at| table.insert(groups, at));
            }
            None => {}
        }
    }

    /// Takes the group at `at` out of `groups`; the last one gets its place.
    pub(super) fn remove<T>(&mut self, groups: &mut Vec<Group<T>>, at: usize) {
        if let Some(table) = &mut self.0 {
            let Table { by_name, hasher } = &mut **table;
            let last = groups.len() - 1;
            let mut take = |at: usize| {
                let hash = hasher.hash_one(&*groups[at].name);
                by_name.find_entry(hash, |&other| other as usize == at).expect("every group has its place").remove();
            };
            take(at);
            if at != last {
                take(last);
            }
            groups.swap_remove(at);
            if groups.len() <= FEW / 2 {
                self.0 = None;
            } else if at != last {
                table.insert(groups, at);
            }
        } else {
            groups.swap_remove(at);
        }
    }

    /// The list is empty again.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}
