//! Which subjects of a stream a reader wants, with the answer per subject id remembered.

use super::index::{Bloom, Subjects};
use crate::types::subject;

/// None, one or several subject filters, of which a subject has to match one. None at all matches everything.
///
/// It belongs to one reader of one stream: what an [`Index`](super::Index) resolved is remembered in it and only brought
/// up to date when subjects appeared since. Used with another index it resolves afresh.
#[derive(Clone, Debug)]
pub struct Filter {
    patterns: Vec<Pattern>,
    resolved: Resolved,
    /// The index and its count of subject births that `resolved` speaks of.
    seen: Option<(u64, u64)>,
}

#[derive(Clone, Debug)]
struct Pattern {
    text: Box<[u8]>,
    /// Length of what comes before the first wildcard token, `text`'s length when there is none.
    literal_len: usize,
}

impl Pattern {
    fn new(text: &[u8]) -> Pattern {
        let mut literal_len = 0;
        for token in subject::tokens(text) {
            if token == b"*" || token == b">" {
                return Pattern { text: text.into(), literal_len };
            }
            literal_len += token.len() + 1;
        }
        Pattern { text: text.into(), literal_len: text.len() }
    }

    fn is_literal(&self) -> bool {
        self.literal_len == self.text.len()
    }

    fn matches(&self, subject: &[u8]) -> bool {
        subject.starts_with(&self.text[..self.literal_len]) && subject::matches(&self.text, subject)
    }
}

/// The subject ids a filter matches.
#[derive(Clone, Debug)]
pub(super) enum Resolved {
    All,
    /// A literal filter: one id, while its subject has messages.
    One(Option<u32>),
    Many(IdSet),
}

/// A set of subject ids. It may hold ids that are free; no live message has those.
#[derive(Clone, Debug, Default)]
pub(super) struct IdSet {
    words: Vec<u64>,
    bloom: Box<Bloom>,
}

impl IdSet {
    #[inline]
    pub fn contains(&self, id: u32) -> bool {
        self.words.get(id as usize / 64).is_some_and(|word| word & (1 << (id % 64)) != 0)
    }

    pub fn bloom(&self) -> &Bloom {
        &self.bloom
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(at as u32 * 64 + bit)
            })
        })
    }

    fn set(&mut self, id: u32, present: bool) {
        let at = id as usize / 64;
        if present {
            if at >= self.words.len() {
                self.words.resize(at + 1, 0);
            }
            self.words[at] |= 1 << (id % 64);
            self.bloom.insert(id);
        } else if let Some(word) = self.words.get_mut(at) {
            *word &= !(1 << (id % 64));
        }
    }
}

impl Default for Filter {
    fn default() -> Filter {
        Filter::all()
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Filter) -> bool {
        self.patterns().eq(other.patterns())
    }
}

impl Eq for Filter {}

impl Filter {
    /// Matches every subject.
    pub fn all() -> Filter {
        Filter { patterns: Vec::new(), resolved: Resolved::All, seen: None }
    }

    /// An empty filter or `>` among them matches everything.
    pub fn new<P: AsRef<[u8]>>(patterns: impl IntoIterator<Item = P>) -> Filter {
        let patterns: Vec<Pattern> = patterns.into_iter().map(|pattern| Pattern::new(pattern.as_ref())).collect();
        if patterns.is_empty() || patterns.iter().any(|pattern| pattern.text.is_empty() || &*pattern.text == b">") {
            return Filter::all();
        }
        Filter { patterns, resolved: Resolved::One(None), seen: None }
    }

    pub fn is_all(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The filters as given.
    pub fn patterns(&self) -> impl Iterator<Item = &[u8]> {
        self.patterns.iter().map(|pattern| &*pattern.text)
    }

    pub fn matches(&self, subject: &[u8]) -> bool {
        self.is_all() || self.patterns.iter().any(|pattern| pattern.matches(subject))
    }

    /// Brings the remembered ids up to date with `subjects` of the index called `identity`.
    pub(super) fn resolve(&mut self, identity: u64, subjects: &Subjects) -> &Resolved {
        let now = Some((identity, subjects.births()));
        if self.is_all() || self.seen == now {
            return &self.resolved;
        }
        let since = self.seen.filter(|(seen, _)| *seen == identity).map(|(_, births)| births);
        self.seen = now;
        if let [pattern] = &*self.patterns
            && pattern.is_literal()
        {
            self.resolved = Resolved::One(subjects.find(&pattern.text));
            return &self.resolved;
        }
        if let (Resolved::Many(set), Some(newborn)) =
            (&mut self.resolved, since.and_then(|since| subjects.born_since(since)))
        {
            for id in newborn.filter(|&id| subjects.is_live(id)) {
                let text = &subjects.get(id).text;
                set.set(id, self.patterns.iter().any(|pattern| pattern.matches(text)));
            }
            return &self.resolved;
        }
        let mut set = IdSet::default();
        for id in self.patterns.iter().filter(|p| p.is_literal()).filter_map(|p| subjects.find(&p.text)) {
            set.set(id, true);
        }
        for pattern in self.patterns.iter().filter(|pattern| !pattern.is_literal()) {
            subjects.matching(&pattern.text, |id| set.set(id, true));
        }
        self.resolved = Resolved::Many(set);
        &self.resolved
    }

    /// The ids of all subjects it matches, each once; not for the filter that matches everything.
    pub(super) fn matching(&self, subjects: &Subjects) -> Vec<u32> {
        let mut ids = Vec::new();
        for pattern in &self.patterns {
            match pattern.is_literal() {
                true => ids.extend(subjects.find(&pattern.text)),
                false => subjects.matching(&pattern.text, |id| ids.push(id)),
            }
        }
        if self.patterns.len() > 1 {
            ids.sort_unstable();
            ids.dedup();
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matching() {
        for (patterns, subject, expected) in [
            (&[][..], "a", true),
            (&[">"], "a.b", true),
            (&[""], "a.b", true),
            (&["a.b"], "a.b", true),
            (&["a.b"], "a.b.c", false),
            (&["a.*"], "a.b", true),
            (&["a.*"], "ab.c", false),
            (&["a.>"], "a", false),
            (&["*.b"], "a.b", true),
            (&["a.b", "c.*"], "c.d", true),
            (&["a.b", "c.*"], "d.d", false),
        ] {
            assert_eq!(Filter::new(patterns).matches(subject.as_bytes()), expected, "{patterns:?} {subject}");
        }
    }
}
