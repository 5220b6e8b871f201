//! Tasks and their parents: who descends from whom, and cancels that mean the whole family.
//!
//! That descendants are to be canceled is stored with their ancestor's own cancel; a restart takes it up where it was. A task
//! names its parent once and for all, and nothing keeps two from naming each other, so whoever walks a family counts nobody
//! twice.

use std::collections::VecDeque;

use hashbrown::HashSet;

use super::Desk;
use super::requests::clip;
use crate::coordinator::errors;
use crate::coordinator::record::{Descendants, Phase, Record};
use crate::coordinator::task::Event;
use crate::types::ApiError;

impl Desk {
    /// Whether a task may have this parent.
    ///
    /// # Errors
    /// When the parent was canceled with all its descendants, or any ancestor is being: there are to be no more.
    pub(super) fn check_parent(&self, record: &Record) -> Result<(), ApiError> {
        let find = |id: &str| self.find_task(id).ok().and_then(|index| Some((index, &self.task(index)?.record)));
        let Some((mut index, mut ancestor)) = find(&record.parent) else { return Ok(()) };
        if ancestor.descendants != Descendants::Apart {
            return Err(errors::DEPENDENCY.with(format!("its parent {} was canceled with its children", record.parent)));
        }
        let mut met = HashSet::new();
        while !self.families.is_empty() && met.insert(index) {
            if self.families.contains(&index) {
                let reason = format!("its ancestor {} is being canceled with its children", ancestor.id);
                return Err(errors::DEPENDENCY.with(reason));
            }
            let Some(next) = find(&ancestor.parent) else { break };
            (index, ancestor) = next;
        }
        Ok(())
    }

    /// A task of this parent is there, or not any more.
    pub(super) fn note_child(&mut self, parent: &str, index: u32, is_there: bool) {
        if parent.is_empty() {
            return;
        }
        let children = self.children.entry_ref(parent).or_default();
        if is_there {
            children.insert(index);
        } else {
            children.remove(&index);
            if children.is_empty() {
                self.children.remove(parent);
            }
        }
    }

    /// Cancels all that descend from a task, as its record says.
    pub(super) fn cancel_descendants(&mut self, index: u32) {
        let Some(task) = self.task(index) else { return };
        let (root, serial) = (task.record.clone(), task.serial);
        self.families.insert(index);
        let left = self.unfinished_descendants(index);
        let reason = match root.reason.as_str() {
            "" => format!("canceled with {}", root.id),
            reason => clip(&format!("canceled with {}: {reason}", root.id)),
        };
        let force = root.descendants == Descendants::Forced;
        let event = Event::Cancel { reason, force, descendants: Descendants::Done };
        self.begin_family_cancel(index, serial, event, left);
    }

    fn unfinished_descendants(&self, root: u32) -> VecDeque<(u32, u64)> {
        let mut met: HashSet<u32> = std::iter::once(root).collect();
        let mut walk = vec![root];
        let mut unfinished = VecDeque::new();
        while let Some(index) = walk.pop() {
            let Some(task) = self.task(index) else { continue };
            for child in self.children.get(&task.record.id).into_iter().flatten() {
                if met.insert(*child)
                    && let Some(task) = self.task(*child)
                {
                    walk.push(*child);
                    if !task.record.phase.is_final() {
                        unfinished.push_back((*child, task.serial));
                    }
                }
            }
        }
        unfinished
    }

    /// All that were found have been canceled: so are those that have come or were requeued meanwhile, until none is left.
    pub(super) fn descendants_canceled(&mut self, index: u32) {
        let missed = |(index, _): &(u32, u64)| {
            // One that has been told to stop does so in its own time.
            self.task(*index).is_some_and(|task| task.record.phase != Phase::Cancelling)
        };
        if self.unfinished_descendants(index).iter().any(missed) {
            self.cancel_descendants(index);
        } else {
            self.enqueue_event(index, Event::DescendantsCanceled);
        }
    }

    /// Begins or takes up what a record says of descendants.
    pub(super) fn look_at_descendants(&mut self, index: u32, before: Option<Descendants>) {
        let due = self.task(index).map(|task| task.record.descendants).filter(|descendants| descendants.are_due());
        if due.is_none() {
            self.families.remove(&index);
        } else if due != before {
            self.cancel_descendants(index);
        }
    }
}
