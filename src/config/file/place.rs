//! Where in which file something was said, and what is wrong there.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A place in a config file. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<str>,
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A file's name and where its lines begin, to turn byte offsets into places.
pub struct Lines<'a> {
    file: Arc<str>,
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub fn new(path: &Path, text: &'a str) -> Lines<'a> {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Lines { file: path.display().to_string().into(), text, starts }
    }

    pub fn place(&self, at: usize) -> Place {
        let at = at.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= at);
        let start = self.starts[line - 1];
        let column = self.text.get(start..at).map_or(1, |before| before.chars().count() + 1);
        Place { file: self.file.clone(), line, column }
    }
}

/// What is wrong with a config file. The text names place, key and remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    #[error("error opening config file: open {path}: {reason}")]
    Open { path: String, reason: String },
    #[error("Parse error on line {}: '{text}' ({at})", .at.line)]
    Syntax { at: Place, text: String },
    /// A key, or a value's type or range.
    #[error("{at}: {text}")]
    Value { at: Place, text: String },
}
