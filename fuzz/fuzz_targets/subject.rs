//! Subjects and the router on any names: the trie equals a scan of all subscriptions, token by token.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use natterjack::router::{Matches, Sublist};
use natterjack::types::subject;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Insert(&'a [u8], Option<u8>),
    Remove(u8),
    Match(&'a [u8]),
    Overlapping(&'a [u8]),
}

/// Few different tokens, so that filters and subjects meet: bytes stand for `a`, `b`, `.`, `*`, `>` and themselves.
fn name(bytes: &[u8]) -> Vec<u8> {
    let letters = b"ab..**>";
    bytes.iter().map(|&byte| letters.get(usize::from(byte)).copied().unwrap_or(byte)).collect()
}

/// Validity as its definition says it.
fn is_valid(filter: &[u8]) -> bool {
    let tokens: Vec<&[u8]> = filter.split(|&byte| byte == b'.').collect();
    let last = tokens.len() - 1;
    tokens.iter().enumerate().all(|(at, token)| {
        !token.is_empty()
            && !token.iter().any(|byte| [b' ', b'\t', b'\r', b'\n', 0x0c, 0].contains(byte))
            && (*token != b">" || at == last)
    })
}

/// Matching as its definition says it; wildcards in the subject are ordinary tokens.
fn is_match(filter: &[u8], subject: &[u8]) -> bool {
    let filter: Vec<&[u8]> = filter.split(|&byte| byte == b'.').collect();
    let subject: Vec<&[u8]> = subject.split(|&byte| byte == b'.').collect();
    let enough = if filter.last() == Some(&&b">"[..]) { filter.len() <= subject.len() } else { filter.len() == subject.len() };
    enough
        && subject.iter().all(|token| !token.is_empty())
        && filter.iter().zip(&subject).all(|(wanted, token)| *wanted == b">" || *wanted == b"*" || wanted == token)
}

fuzz_target!(|steps: Vec<Step<'_>>| {
    let mut list = Sublist::new();
    let mut scan: Vec<(Vec<u8>, Option<[u8; 1]>, u64)> = Vec::new();
    let mut matches = Matches::new();
    for (key, step) in steps.into_iter().enumerate() {
        let key = key as u64;
        match step {
            Step::Insert(filter, queue) => {
                let filter = name(filter);
                let queue = queue.map(|queue| [b'a' + queue % 3]);
                assert_eq!(subject::is_valid(&filter), is_valid(&filter));
                let inserted = list.insert(&filter, queue.as_ref().map(|queue| &queue[..]), key);
                assert_eq!(inserted.is_ok(), is_valid(&filter));
                if inserted.is_ok() {
                    scan.push((filter, queue, key));
                }
            }
            Step::Remove(at) if !scan.is_empty() => {
                let (filter, queue, key) = scan.swap_remove(usize::from(at) % scan.len());
                assert_eq!(list.remove(&filter, queue.as_ref().map(|queue| &queue[..]), key), Some(key));
            }
            Step::Remove(_) => assert_eq!(list.node_count(), 1),
            Step::Match(subject) => {
                let subject = name(subject);
                list.match_into(&subject, &mut matches);
                let mut found: Vec<(Option<[u8; 1]>, u64)> = matches.plain.iter().map(|&key| (None, key)).collect();
                for (at, group) in matches.queues.iter().enumerate() {
                    assert!(!group.members.is_empty());
                    assert!(matches.queues[..at].iter().all(|other| other.name != group.name), "a group matches once");
                    found.extend(group.members.iter().map(|&key| (Some([group.name[0]]), key)));
                }
                let mut expected: Vec<(Option<[u8; 1]>, u64)> = scan
                    .iter()
                    .filter(|(filter, _, _)| is_match(filter, &subject))
                    .map(|(_, queue, key)| (*queue, *key))
                    .collect();
                found.sort_unstable();
                expected.sort_unstable();
                assert_eq!(found, expected);
                assert_eq!(list.has_interest(&subject), !expected.is_empty());
                if is_valid(&subject) && !subject::has_wildcard(&subject) {
                    for (filter, _, _) in &scan {
                        assert_eq!(subject::matches(filter, &subject), is_match(filter, &subject));
                        assert_eq!(subject::overlaps(filter, &subject), is_match(filter, &subject));
                    }
                }
            }
            Step::Overlapping(filter) => {
                let filter = name(filter);
                let mut found = Vec::new();
                list.for_each_overlapping(&filter, |_, &key| found.push(key));
                found.sort_unstable();
                let mut expected: Vec<u64> = scan
                    .iter()
                    .filter(|(other, _, _)| is_valid(&filter) && subject::overlaps(other, &filter))
                    .map(|(_, _, key)| *key)
                    .collect();
                expected.sort_unstable();
                assert_eq!(found, expected);
            }
        }
        assert_eq!(list.count(), scan.len());
    }
});
