//! What was found wrong or odd while a config file was read.

use super::place::FileError;
use super::value::Entry;

/// Collects, so that one run tells everything.
#[derive(Debug, Default)]
pub struct Report {
    pub errors: Vec<FileError>,
    pub warnings: Vec<String>,
}

impl Report {
    pub fn error(&mut self, error: FileError) {
        self.errors.push(error);
    }

    /// The value, or `None` with the error kept.
    pub fn ok<T>(&mut self, read: Result<T, FileError>) -> Option<T> {
        read.map_err(|error| self.errors.push(error)).ok()
    }

    /// Sets `setting` to what was read.
    pub fn set<T>(&mut self, setting: &mut T, read: Result<T, FileError>) {
        if let Some(value) = self.ok(read) {
            *setting = value;
        }
    }

    /// nats-server knows this key and we do not serve it; `why` says what holds instead.
    pub fn unserved(&mut self, entry: &Entry, why: &str) {
        self.warnings.push(format!("{}: {:?} is ignored: {why}", entry.at, entry.key));
    }

    /// Nobody knows this key, unless it is there for a variable. `known` is what it may have been meant to be.
    pub fn unknown(&mut self, entry: &Entry, known: &[&str]) {
        if entry.is_variable {
            return;
        }
        let mut text = format!("unknown field {:?}", entry.key);
        if let Some(meant) = closest(&entry.name(), known) {
            text.push_str(&format!("; did you mean {meant:?}?"));
        }
        self.errors.push(entry.wrong(text));
    }
}

/// The name that takes the fewest changes to `word`, if they are few for its length.
fn closest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let changes_max = (word.chars().count() / 3).max(1);
    let candidates = known.iter().map(|name| (changes(word, name), *name));
    let (least, name) = candidates.min_by_key(|(changes, _)| *changes)?;
    (least <= changes_max).then_some(name)
}

/// Letters to add, remove, replace or swap with their neighbour (optimal string alignment).
fn changes(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, letter) in from.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in to.iter().enumerate() {
            let mut least =
                (last[column] + usize::from(letter != other)).min(last[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *letter == to[column - 1] && from[row - 1] == *other {
                least = least.min(before_last[column - 1] + 1);
            }
            current.push(least);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen_are_found() {
        let known = ["port", "host", "max_payload", "jetstream"];
        for (word, expected) in [
            ("prot", Some("port")),
            ("max_paylod", Some("max_payload")),
            ("jetstream{", Some("jetstream")),
            ("maxpayload", Some("max_payload")),
            ("pirate", None),
            ("x", None),
        ] {
            assert_eq!(closest(word, &known), expected, "{word}");
        }
        assert_eq!(closest("a", &[]), None);
    }
}
