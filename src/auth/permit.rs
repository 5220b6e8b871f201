//! Permissions made ready to be asked, once per login: tries for publishing and delivery, lists for the rare SUB.

use hashbrown::HashMap;

use super::permission::{Permissions, ResponseLimits, SubjectRule, SubjectRules};
use crate::router::Sublist;
use crate::types::subject;

/// Publish subjects a client's cache remembers (nats-server `maxPermCacheSize`).
const CACHED_SUBJECTS_MAX: usize = 128;

/// One user's permissions. Immutable: a changed user gets a new one.
#[derive(Clone, Debug)]
pub struct Permit {
    /// What it was made of.
    permissions: Permissions,
    publish_allow: Option<Sublist<u64>>,
    publish_deny: Option<Sublist<u64>>,
    subscribe_allow: Option<Vec<SubjectRule>>,
    subscribe_deny: Vec<SubjectRule>,
    /// The denials that hold whatever the queue group, for delivery.
    receive_deny: Option<Sublist<u64>>,
    responses: Option<ResponseLimits>,
}

impl Permit {
    /// `None` when the permissions restrict nothing: whoever has no permit is asked nothing on the way of a message.
    pub fn new(permissions: &Permissions) -> Option<Permit> {
        if permissions.is_open() {
            return None;
        }
        let SubjectRules { allow, deny } = &permissions.publish;
        let plain_denials = permissions.subscribe.deny.iter().filter(|rule| rule.queue.is_none());
        Some(Permit {
            permissions: permissions.clone(),
            // Where responses are allowed, nothing else is unless it is named (nats-server `validateResponsePermissions`).
            publish_allow: match (allow, permissions.responses) {
                (None, Some(_)) => Some(Sublist::new()),
                (allow, _) => allow.as_ref().map(|rules| trie(rules.iter())),
            },
            publish_deny: (!deny.is_empty()).then(|| trie(deny.iter())),
            subscribe_allow: permissions.subscribe.allow.clone(),
            subscribe_deny: permissions.subscribe.deny.clone(),
            receive_deny: (!permissions.subscribe.deny.is_empty()).then(|| trie(plain_denials)),
            responses: permissions.responses,
        })
    }

    /// The same, less the right to publish on `subject`; `None` stands for everything.
    pub fn denying_publish(permit: Option<&Permit>, subject: &str) -> Permit {
        let mut permissions = permit.map(|permit| permit.permissions.clone()).unwrap_or_default();
        let rule = SubjectRule { filter: subject.into(), queue: None };
        if !permissions.publish.deny.contains(&rule) {
            permissions.publish.deny.push(rule);
        }
        Permit::new(&permissions).expect("it denies something")
    }

    pub fn permissions(&self) -> &Permissions {
        &self.permissions
    }

    /// Whether both allow and deny the same.
    pub fn is_like(&self, other: &Permit) -> bool {
        self.permissions == other.permissions
    }

    /// Whether a message may be published on `subject`, answers to requests apart.
    pub fn may_publish(&self, subject: &[u8]) -> bool {
        self.publish_allow.as_ref().is_none_or(|allow| allow.has_interest(subject))
            && !self.publish_deny.as_ref().is_some_and(|deny| deny.has_interest(subject))
    }

    /// Whether publishing is restricted at all.
    pub fn restricts_publish(&self) -> bool {
        self.publish_allow.is_some() || self.publish_deny.is_some()
    }

    /// Whether `filter` may be subscribed to: it lies within what is allowed and not within what is denied. Where it
    /// merely overlaps a denial, [`Permit::may_receive`] keeps the denied messages away.
    pub fn may_subscribe(&self, filter: &[u8], queue: Option<&[u8]>) -> bool {
        if let Some(allow) = &self.subscribe_allow
            && !covers(allow, filter, queue, true)
        {
            return false;
        }
        !covers(&self.subscribe_deny, filter, queue, false)
    }

    /// Whether anything is denied to subscriptions, so that deliveries must be looked at.
    pub fn restricts_receive(&self) -> bool {
        self.receive_deny.is_some()
    }

    /// What may not be received whatever the queue group.
    pub fn denied_filters(&self) -> impl Iterator<Item = &str> {
        self.subscribe_deny.iter().filter(|rule| rule.queue.is_none()).map(|rule| &*rule.filter)
    }

    /// Whether a message on `subject` may be delivered to a subscription in `queue`.
    pub fn may_receive(&self, subject: &[u8], queue: Option<&[u8]>) -> bool {
        let Some(deny) = &self.receive_deny else { return true };
        if deny.has_interest(subject) {
            return false;
        }
        let Some(queue) = queue else { return true };
        let denies = |rule: &SubjectRule| {
            rule.queue.as_deref().is_some_and(|wanted| queue_matches(wanted, queue))
                && subject::matches(rule.filter.as_bytes(), subject)
        };
        !self.subscribe_deny.iter().any(denies)
    }

    /// Whether and how answers to received requests may be published.
    pub fn responses(&self) -> Option<ResponseLimits> {
        self.responses
    }
}

fn trie<'a>(rules: impl Iterator<Item = &'a SubjectRule>) -> Sublist<u64> {
    let mut trie = Sublist::new();
    for (key, rule) in rules.enumerate() {
        // Rules are parsed: what is not a filter never becomes one.
        let _ = trie.insert(rule.filter.as_bytes(), None, key as u64);
    }
    trie
}

/// Whether the rules say yes to a subscription: one without a queue group that covers the filter, unless rules with
/// queue groups cover it too; then those decide over a subscription in a group when they `decide`, and add to the others
/// when they do not (nats-server `canSubscribeInternal`).
fn covers(rules: &[SubjectRule], filter: &[u8], queue: Option<&[u8]>, queues_decide: bool) -> bool {
    let covering = || rules.iter().filter(|rule| subject::matches(rule.filter.as_bytes(), filter));
    let plain = covering().any(|rule| rule.queue.is_none());
    let Some(queue) = queue else { return plain };
    let mut wanted = covering().filter_map(|rule| rule.queue.as_deref()).peekable();
    if wanted.peek().is_none() || plain && !queues_decide {
        return plain;
    }
    wanted.any(|wanted| queue_matches(wanted, queue))
}

fn queue_matches(wanted: &str, queue: &[u8]) -> bool {
    let wanted = wanted.as_bytes();
    wanted == queue || subject::has_wildcard(wanted) && subject::matches(wanted, queue)
}

/// A client's memory of what it may publish on, so that a permit costs one look-up per message.
#[derive(Clone, Debug, Default)]
pub struct PublishCache {
    by_subject: HashMap<Box<[u8]>, bool>,
}

impl PublishCache {
    pub fn may_publish(&mut self, permit: &Permit, subject: &[u8]) -> bool {
        if let Some(&may) = self.by_subject.get(subject) {
            return may;
        }
        let may = permit.may_publish(subject);
        if self.by_subject.len() >= CACHED_SUBJECTS_MAX {
            self.by_subject.clear();
        }
        self.by_subject.insert(subject.into(), may);
        may
    }
}
