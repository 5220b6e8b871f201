//! Which subjects of a stream a reader wants.

use crate::types::subject;

/// None, one or several subject filters, of which a subject has to match one. None at all matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    patterns: Vec<Box<[u8]>>,
}

impl Filter {
    /// Matches every subject.
    pub fn all() -> Filter {
        Filter::default()
    }

    pub fn new<P: AsRef<[u8]>>(patterns: impl IntoIterator<Item = P>) -> Filter {
        let patterns: Vec<Box<[u8]>> = patterns.into_iter().map(|pattern| pattern.as_ref().into()).collect();
        if patterns.iter().any(|pattern| pattern.is_empty() || &**pattern == b">") {
            return Filter::all();
        }
        Filter { patterns }
    }

    pub fn is_all(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The filters as given.
    pub fn patterns(&self) -> impl Iterator<Item = &[u8]> {
        self.patterns.iter().map(|pattern| &**pattern)
    }

    pub fn matches(&self, subject: &[u8]) -> bool {
        self.is_all() || self.patterns().any(|pattern| subject::matches(pattern, subject))
    }
}
