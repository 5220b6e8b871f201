//! From the grammar's tree to values: includes read, variables replaced, words taken for what they look like.

use std::path::{Path, PathBuf};

use super::grammar::{self, Item, Node, NodeKind};
use super::place::{FileError, Lines};
use super::scalar::{self, OutOfRange};
use super::value::{Entry, Kind, Map, Value};

/// Where files and environment variables come from.
pub struct Sources<'a> {
    pub file: &'a dyn Fn(&Path) -> std::io::Result<String>,
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

/// Files included within one another; more is a loop that its paths hide.
const INCLUDES_MAX: usize = 32;

/// Reads the file at `path` and all it includes. `warnings` gets what is likely a slip of the pen.
///
/// # Errors
/// The first thing that cannot be read.
pub fn read(path: &Path, sources: &Sources<'_>, warnings: &mut Vec<String>) -> Result<Map, FileError> {
    let mut open = Vec::new();
    read_file(path, sources, &mut open, warnings)
}

fn read_file(
    path: &Path,
    sources: &Sources<'_>,
    open: &mut Vec<PathBuf>,
    warnings: &mut Vec<String>,
) -> Result<Map, FileError> {
    let text = (sources.file)(path).map_err(|error| FileError::Open {
        path: path.display().to_string(),
        reason: match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            _ => error.to_string(),
        },
    })?;
    let lines = Lines::new(path, &text);
    let items =
        grammar::parse(&text).map_err(|error| FileError::Syntax { at: lines.place(error.at), text: error.text })?;
    open.push(path.to_owned());
    let mut resolver = Resolver { path, lines, sources, open, warnings, scopes: Vec::new(), variables: Vec::new() };
    let map = resolver.map(&items);
    open.pop();
    map
}

struct Resolver<'a> {
    path: &'a Path,
    lines: Lines<'a>,
    sources: &'a Sources<'a>,
    /// The files that are being read, outermost first.
    open: &'a mut Vec<PathBuf>,
    warnings: &'a mut Vec<String>,
    /// The maps that are being filled, outermost first: a variable is looked up from the innermost outwards.
    scopes: Vec<Map>,
    /// Environment variables that are being read.
    variables: Vec<String>,
}

impl Resolver<'_> {
    fn map(&mut self, items: &[Item]) -> Result<Map, FileError> {
        self.scopes.push(Map::default());
        for item in items {
            match item {
                Item::Entry { key, at, node } => {
                    let value = self.value(node)?;
                    let at = self.lines.place(*at);
                    self.insert(Entry { key: key.clone(), at, value, is_variable: false });
                }
                Item::Include { path, at } => {
                    for entry in self.include(path, *at)?.iter() {
                        self.insert(entry.clone());
                    }
                }
            }
        }
        Ok(self.scopes.pop().expect("pushed above"))
    }

    fn insert(&mut self, entry: Entry) {
        let at = entry.at.clone();
        let scope = self.scopes.last_mut().expect("items are read within a map");
        if let Some(earlier) = scope.insert(entry) {
            self.warnings.push(format!("{at}: {:?} replaces the one at {}", earlier.key, earlier.at));
        }
    }

    fn include(&mut self, path: &str, at: usize) -> Result<Map, FileError> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let included = folder.join(path);
        let wrong = |text: String| FileError::Syntax { at: self.lines.place(at), text };
        if self.open.contains(&included) || self.open.len() >= INCLUDES_MAX {
            return Err(wrong(format!("{path} includes itself")));
        }
        match read_file(&included, self.sources, self.open, self.warnings) {
            Err(FileError::Open { reason, .. }) => {
                Err(wrong(format!("error parsing include file '{path}', open {}: {reason}", included.display())))
            }
            read => read,
        }
    }

    fn value(&mut self, node: &Node) -> Result<Value, FileError> {
        let kind = match &node.kind {
            NodeKind::Text(text) => Kind::Text(text.clone()),
            NodeKind::Bare(word) => self.word(word, node.at)?,
            NodeKind::Variable(name) => self.variable(name, node.at)?,
            NodeKind::Array(nodes) => Kind::Array(nodes.iter().map(|node| self.value(node)).collect::<Result<_, _>>()?),
            NodeKind::Map(items) => Kind::Map(self.map(items)?),
        };
        Ok(Value { at: self.lines.place(node.at), kind })
    }

    fn word(&self, word: &str, at: usize) -> Result<Kind, FileError> {
        scalar::classify(word).map_err(|OutOfRange| FileError::Syntax {
            at: self.lines.place(at),
            text: format!("integer '{word}' is out of the range"),
        })
    }

    fn variable(&mut self, name: &str, at: usize) -> Result<Kind, FileError> {
        if let Some(value) = self.scopes.iter_mut().rev().find_map(|scope| scope.refer(name)) {
            return Ok(value.kind.clone());
        }
        let place = self.lines.place(at);
        let wrong = |what: &str| FileError::Syntax {
            text: format!("variable reference for '{name}' on line {} {what}", place.line),
            at: place.clone(),
        };
        if self.variables.iter().any(|open| open == name) {
            return Err(wrong(&format!("could not be parsed: variable reference cycle for '{name}'")));
        }
        let Some(text) = (self.sources.variable)(name) else {
            return Err(wrong(
                "can not be found; if it is meant as text, put it in quotes, otherwise set it above or in the environment",
            ));
        };
        // The environment speaks the language of config values.
        let parsed = grammar::parse(&format!("value={text}"));
        let Ok([Item::Entry { node, .. }]) = parsed.as_deref() else {
            return Err(wrong("could not be parsed: its value in the environment is not a config value"));
        };
        self.variables.push(name.to_owned());
        let scopes = std::mem::take(&mut self.scopes);
        let value = self.value(node);
        self.scopes = scopes;
        self.variables.pop();
        value.map(|value| value.kind).map_err(|_| wrong("could not be parsed"))
    }
}
