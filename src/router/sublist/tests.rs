#![allow(clippy::disallowed_methods, reason = "what is slow shows on a real clock")]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn matched(list: &Sublist<u64>, subject: &str) -> (Vec<u64>, Vec<(String, Vec<u64>)>) {
    let mut matches = Matches::new();
    list.match_into(subject.as_bytes(), &mut matches);
    sorted(&matches)
}

fn sorted(matches: &Matches<u64>) -> (Vec<u64>, Vec<(String, Vec<u64>)>) {
    let mut plain = matches.plain.clone();
    plain.sort_unstable();
    let mut queues: Vec<(String, Vec<u64>)> = matches
        .queues
        .iter()
        .map(|group| {
            let mut members = group.members.clone();
            members.sort_unstable();
            (String::from_utf8(group.name.clone()).unwrap(), members)
        })
        .collect();
    queues.sort();
    (plain, queues)
}

#[test]
fn matches_literals_and_wildcards() {
    let mut list = Sublist::new();
    for (key, filter) in ["foo", "foo.bar", "foo.*", "foo.>", ">", "*.bar", "foo.*.baz", "*"].iter().enumerate() {
        list.insert(filter.as_bytes(), None, key as u64).unwrap();
    }
    for (subject, expected) in [
        ("foo", vec![0, 4, 7]),
        ("foo.bar", vec![1, 2, 3, 4, 5]),
        ("foo.x.baz", vec![3, 4, 6]),
        ("a", vec![4, 7]),
        ("a.b", vec![4]),
        ("foo.*", vec![2, 3, 4]),
        ("foo.>.baz", vec![3, 4, 6]),
        ("", vec![]),
        (".", vec![]),
        ("foo.", vec![]),
        (".foo", vec![]),
        ("foo..bar", vec![]),
    ] {
        assert_eq!(matched(&list, subject).0, expected, "{subject}");
        assert_eq!(list.has_interest(subject.as_bytes()), !expected.is_empty(), "{subject}");
    }
}

#[test]
fn a_queue_group_under_two_filters_is_one_group() {
    let mut list = Sublist::new();
    list.insert(b"foo.bar", Some(b"q"), 1).unwrap();
    list.insert(b"foo.*", Some(b"q"), 2).unwrap();
    list.insert(b"foo.*", Some(b"r"), 3).unwrap();
    assert_eq!(matched(&list, "foo.bar"), (vec![], vec![("q".into(), vec![1, 2]), ("r".into(), vec![3])]));
    assert_eq!(list.remove(b"foo.*", Some(b"q"), 2), Some(2));
    assert_eq!(matched(&list, "foo.bar"), (vec![], vec![("q".into(), vec![1]), ("r".into(), vec![3])]));
}

#[test]
fn refuses_invalid_filters_and_unknown_removals() {
    let mut list = Sublist::new();
    for filter in ["", ".", "foo.", "foo..bar", "foo.>.bar", "foo bar"] {
        assert_eq!(list.insert(filter.as_bytes(), None, 1), Err(InvalidFilter), "{filter}");
    }
    list.insert(b"foo.bar", None, 1).unwrap();
    assert_eq!(list.remove(b"foo", None, 1), None);
    assert_eq!(list.remove(b"foo.bar", None, 2), None);
    assert_eq!(list.remove(b"foo.bar", Some(b"q"), 1), None);
    assert_eq!(list.count(), 1);
}

#[test]
fn a_filter_of_any_length_needs_no_stack() {
    let mut list = Sublist::new();
    let filter = vec!["a"; 200_000].join(".");
    list.insert(filter.as_bytes(), None, 1).unwrap();
    assert_eq!(matched(&list, &filter).0, vec![1]);
    let mut found = 0;
    list.for_each_overlapping(b">", |_, _| found += 1);
    assert_eq!(found, 1);
    list.remove(filter.as_bytes(), None, 1).unwrap();
    assert_eq!(list.node_count(), 1);
}

#[test]
fn matching_again_allocates_nothing_new() {
    let mut list = Sublist::new();
    list.insert(b"a.*", Some(b"q"), 1).unwrap();
    list.insert(b"a.b", None, 2).unwrap();
    let mut matches = Matches::new();
    list.match_into(b"a.b", &mut matches);
    let first = sorted(&matches);
    let group = matches.queues[0].members.as_ptr();
    list.match_into(b"x", &mut matches);
    assert!(matches.is_empty());
    list.match_into(b"a.b", &mut matches);
    assert_eq!(sorted(&matches), first);
    assert_eq!(matches.queues[0].members.as_ptr(), group);
}

#[test]
fn thousands_of_queue_groups_are_as_quick_as_few() {
    const GROUPS: u64 = 20_000;
    let name = |key: u64| format!("group{}", key % GROUPS).into_bytes();
    let (mut list, mut matches) = (Sublist::new(), Matches::new());
    let began = Instant::now();
    for key in 0..2 * GROUPS {
        let filter: &[u8] = if key < GROUPS { b"a.b" } else { b"a.*" };
        list.insert(filter, Some(&name(key)), key).unwrap();
    }
    for _ in 0..10 {
        list.match_into(b"a.b", &mut matches);
        assert_eq!(matches.queues.len() as u64, GROUPS);
        assert!(matches.queues.iter().all(|group| group.members.len() == 2));
    }
    for key in 0..2 * GROUPS {
        let filter: &[u8] = if key < GROUPS { b"a.b" } else { b"a.*" };
        assert_eq!(list.remove(filter, Some(&name(key)), key), Some(key));
    }
    assert_eq!(list.node_count(), 1);
    // Comparing each name with each takes minutes.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// The dullest router: a list that is scanned.
#[derive(Default)]
struct Scan(Vec<(String, Option<String>, u64)>);

impl Scan {
    fn matched(&self, subject: &str) -> (Vec<u64>, Vec<(String, Vec<u64>)>) {
        let mut plain = Vec::new();
        let mut queues = std::collections::BTreeMap::<String, Vec<u64>>::new();
        if !subject.split('.').any(str::is_empty) {
            for (filter, queue, key) in &self.0 {
                if tokens_match(filter, subject) {
                    match queue {
                        None => plain.push(*key),
                        Some(queue) => queues.entry(queue.clone()).or_default().push(*key),
                    }
                }
            }
        }
        plain.sort_unstable();
        queues.values_mut().for_each(|members| members.sort_unstable());
        (plain, queues.into_iter().collect())
    }
}

/// As in nats-server: wildcards in the subject are ordinary tokens.
fn tokens_match(filter: &str, subject: &str) -> bool {
    let filter: Vec<&str> = filter.split('.').collect();
    let subject: Vec<&str> = subject.split('.').collect();
    for (at, &wanted) in filter.iter().enumerate() {
        if wanted == ">" {
            return subject.len() > at;
        }
        if at >= subject.len() || (wanted != "*" && wanted != subject[at]) {
            return false;
        }
    }
    filter.len() == subject.len()
}

#[derive(Clone, Debug)]
enum Step {
    Insert(String, Option<String>),
    /// Removes one of those inserted, or a stranger when there is none.
    Remove(usize),
    Match(String),
    Overlap(String),
}

fn any_filter() -> impl Strategy<Value = String> {
    let token = prop_oneof![4 => "[abc]", 2 => Just("*".to_owned()), 1 => Just("b*".to_owned())];
    (prop::collection::vec(token, 1..5), prop::bool::weighted(0.3)).prop_map(|(mut tokens, full)| {
        if full {
            tokens.push(">".to_owned());
        }
        tokens.join(".")
    })
}

/// Few groups with many members, and so many that they are found by a table.
fn any_queue() -> impl Strategy<Value = String> {
    prop_oneof![2 => "[qr]", 3 => "[a-z]{2}"]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any_filter(), prop::option::of(any_queue())).prop_map(|(filter, queue)| Step::Insert(filter, queue)),
        2 => any::<usize>().prop_map(Step::Remove),
        4 => prop_oneof![4 => "[abc](\\.[abc]){0,4}", 1 => "[abc.*>]{0,6}"].prop_map(Step::Match),
        2 => any_filter().prop_map(Step::Overlap),
    ]
}

proptest! {
    #[test]
    fn equals_a_linear_scan(
        steps in prop::collection::vec(any_step(), 1..80),
        crowd in prop::option::of(16u64..40),
    ) {
        // Sometimes the groups of one filter are many from the start.
        let crowd = (0..crowd.unwrap_or(0)).map(|n| Step::Insert("a.*".to_owned(), Some(format!("a{n}"))));
        let steps: Vec<Step> = crowd.chain(steps).collect();
        let mut list = Sublist::new();
        let mut scan = Scan::default();
        let mut matches = Matches::new();
        for (key, step) in steps.into_iter().enumerate() {
            let key = key as u64;
            let generation = list.generation();
            match step {
                Step::Insert(filter, queue) => {
                    list.insert(filter.as_bytes(), queue.as_deref().map(str::as_bytes), key).unwrap();
                    scan.0.push((filter, queue, key));
                    prop_assert!(list.generation() > generation);
                }
                Step::Remove(_) if scan.0.is_empty() => {
                    prop_assert_eq!(list.remove(b"a", None, key), None);
                    prop_assert_eq!(list.node_count(), 1);
                }
                Step::Remove(index) => {
                    let (filter, queue, key) = scan.0.swap_remove(index % scan.0.len());
                    let removed = list.remove(filter.as_bytes(), queue.as_deref().map(str::as_bytes), key);
                    prop_assert_eq!(removed, Some(key));
                    prop_assert!(list.generation() > generation);
                }
                Step::Match(subject) => {
                    list.match_into(subject.as_bytes(), &mut matches);
                    let expected = scan.matched(&subject);
                    prop_assert_eq!(list.has_interest(subject.as_bytes()), expected != (vec![], vec![]));
                    prop_assert_eq!(sorted(&matches), expected, "{}", subject);
                }
                Step::Overlap(filter) => {
                    let mut found = Vec::new();
                    list.for_each_overlapping(filter.as_bytes(), |_, &key| found.push(key));
                    found.sort_unstable();
                    let mut expected: Vec<u64> = scan.0.iter()
                        .filter(|(other, _, _)| subject::overlaps(other.as_bytes(), filter.as_bytes()))
                        .map(|(_, _, key)| *key)
                        .collect();
                    expected.sort_unstable();
                    prop_assert_eq!(found, expected, "{}", filter);
                }
            }
            prop_assert_eq!(list.count(), scan.0.len());
        }
        let mut all = Vec::new();
        list.for_each(|_, &key| all.push(key));
        prop_assert_eq!(all.len(), scan.0.len());
        for (filter, queue, key) in scan.0.drain(..) {
            prop_assert_eq!(list.remove(filter.as_bytes(), queue.as_deref().map(str::as_bytes), key), Some(key));
        }
        prop_assert_eq!(list.node_count(), 1, "empty nodes are given back");
    }
}
