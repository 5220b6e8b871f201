//! Many subject filters at once: how many of them share a subject with another one, or cover it, without a look at each.
//!
//! For the checks of configurations, whose lists a client makes as long as a request may be. What a walk may cost is
//! bounded too: filters can be made up so that a trie helps little.

use hashbrown::HashMap;

use super::subject;

/// Nodes that all look-ups in one set may visit for each node it has, and at least.
const STEPS_PER_NODE: usize = 32;
const STEPS_MIN: usize = 1 << 20;

/// The filters of a request are made so that comparing them takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many filters to compare")]
pub struct TooMany;

#[derive(Debug, Default)]
struct Node {
    children: Vec<u32>,
    star: Option<u32>,
    full: Option<u32>,
    /// Filters that end here.
    ends: usize,
}

/// See the module. What is no valid filter is compared as [`subject::overlaps`] and [`subject::matches`] do.
#[derive(Debug)]
pub struct FilterSet<'a> {
    nodes: Vec<Node>,
    by_token: HashMap<(u32, &'a [u8]), u32>,
    steps: usize,
}

impl<'a> FilterSet<'a> {
    pub fn new<F: AsRef<[u8]> + ?Sized + 'a>(filters: impl IntoIterator<Item = &'a F>) -> FilterSet<'a> {
        let mut set = FilterSet { nodes: vec![Node::default()], by_token: HashMap::new(), steps: 0 };
        for filter in filters {
            set.insert(filter.as_ref());
        }
        set.steps = (set.nodes.len().saturating_mul(STEPS_PER_NODE)).max(STEPS_MIN);
        set
    }

    fn insert(&mut self, filter: &'a [u8]) {
        let mut at = 0u32;
        for token in subject::tokens(filter) {
            let next = self.nodes.len() as u32;
            let here = &mut self.nodes[at as usize];
            at = match token {
                b"*" => *here.star.get_or_insert(next),
                b">" => *here.full.get_or_insert(next),
                _ => *self.by_token.entry((at, token)).or_insert_with(|| {
                    here.children.push(next);
                    next
                }),
            };
            if at == next {
                self.nodes.push(Node::default());
            }
            if token == b">" {
                break;
            }
        }
        self.nodes[at as usize].ends += 1;
    }

    /// How many share a literal subject with `filter`; counting ends at `enough`.
    ///
    /// # Errors
    /// When it, with what was asked before, takes too long.
    pub fn overlapping(&mut self, filter: &[u8], enough: usize) -> Result<usize, TooMany> {
        let tokens: Vec<&[u8]> = subject::tokens(filter).collect();
        let mut found = 0;
        let mut open = vec![(0u32, 0usize)];
        while let Some((at, depth)) = open.pop() {
            self.steps = self.steps.checked_sub(1).ok_or(TooMany)?;
            let node = &self.nodes[at as usize];
            let below = depth < tokens.len() && tokens[depth] == b">";
            let inside = depth > tokens.len();
            match tokens.get(depth) {
                _ if inside => {
                    // Below the `>` of what is asked for.
                    found += node.ends;
                    let all = node.children.iter().copied().chain(node.star).chain(node.full);
                    open.extend(all.map(|child| (child, depth)));
                }
                None => found += node.ends,
                Some(token) => {
                    if let Some(full) = node.full {
                        found += self.nodes[full as usize].ends;
                    }
                    let onwards = if below { tokens.len() + 1 } else { depth + 1 };
                    match *token {
                        b"*" | b">" => {
                            open.extend(node.children.iter().copied().chain(node.star).map(|child| (child, onwards)));
                        }
                        token => {
                            let literal = self.by_token.get(&(at, token)).copied();
                            open.extend(literal.into_iter().chain(node.star).map(|child| (child, onwards)));
                        }
                    }
                }
            }
            if found >= enough {
                return Ok(enough);
            }
        }
        Ok(found)
    }

    /// How many match every subject that `filter` stands for; counting ends at `enough`.
    ///
    /// # Errors
    /// As [`FilterSet::overlapping`].
    pub fn covering(&mut self, filter: &[u8], enough: usize) -> Result<usize, TooMany> {
        let tokens: Vec<&[u8]> = subject::tokens(filter).collect();
        let mut found = 0;
        let mut open = vec![(0u32, 0usize)];
        while let Some((at, depth)) = open.pop() {
            self.steps = self.steps.checked_sub(1).ok_or(TooMany)?;
            let node = &self.nodes[at as usize];
            match tokens.get(depth) {
                None => found += node.ends,
                Some(token) => {
                    if let Some(full) = node.full {
                        found += self.nodes[full as usize].ends;
                    }
                    if *token != b">" {
                        open.extend(node.star.map(|child| (child, depth + 1)));
                    }
                    if !matches!(*token, b"*" | b">") {
                        open.extend(self.by_token.get(&(at, *token)).map(|&child| (child, depth + 1)));
                    }
                }
            }
            if found >= enough {
                return Ok(enough);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_filter() -> impl Strategy<Value = String> {
        let token = prop::sample::select(vec!["a", "b", "*", "c"]);
        (prop::collection::vec(token, 1..5), any::<bool>()).prop_map(|(tokens, open)| {
            let text = tokens.join(".");
            if open { format!("{text}.>") } else { text }
        })
    }

    proptest! {
        #[test]
        fn counts_what_a_look_at_each_counts(
            filters in prop::collection::vec(any_filter(), 0..20), asked in any_filter(), all in any::<bool>(),
        ) {
            let asked = if all { ">".to_owned() } else { asked };
            let mut set = FilterSet::new(&filters);
            let count = |relation: fn(&[u8], &[u8]) -> bool| {
                filters.iter().filter(|filter| relation(filter.as_bytes(), asked.as_bytes())).count()
            };
            prop_assert_eq!(set.overlapping(asked.as_bytes(), usize::MAX), Ok(count(subject::overlaps)));
            prop_assert_eq!(set.covering(asked.as_bytes(), usize::MAX), Ok(count(subject::matches)));
            prop_assert_eq!(set.overlapping(asked.as_bytes(), 1), Ok(count(subject::overlaps).min(1)));
        }
    }

    #[test]
    fn what_is_no_filter_is_compared_all_the_same() {
        let odd = ["", ">", "a.>.b", "a..b", "..", "a", "a.b", "*", "a.*", ".>"];
        for asked in odd {
            let count = |relation: fn(&[u8], &[u8]) -> bool| {
                odd.iter().filter(|filter| relation(filter.as_bytes(), asked.as_bytes())).count()
            };
            let mut set = FilterSet::new(odd);
            assert_eq!(set.overlapping(asked.as_bytes(), usize::MAX), Ok(count(subject::overlaps)), "{asked:?}");
        }
    }

    #[test]
    fn what_would_take_too_long_is_refused() {
        let wild: Vec<String> = (0..2000).map(|last| format!("*.*.*.a{last}")).collect();
        let plain: Vec<String> = (0..2000).map(|last| format!("x{last}.y.z.b{last}")).collect();
        let mut set = FilterSet::new(wild.iter().chain(&plain));
        let outcome = wild.iter().try_for_each(|filter| set.overlapping(filter.as_bytes(), 2).map(|_| ()));
        assert_eq!(outcome, Err(TooMany));
    }
}
