//! The config file: nats-server's format, read into a [`Config`].
//!
//! Text goes through [`grammar`] (a tree with open ends) and [`resolve`] (includes, variables) to a [`Map`] of [`Value`]s
//! that know their places. From there each block has a file of its own that turns it into settings.
//!
//! # Where to add a block
//!
//! 1. Write `src/config/file/<block>.rs` with a function `pub(super) fn read(value: &Value, config: &mut Config, report:
//!    &mut Report)`. Walk the map and match on the keys' names:
//!
//!    ```text
//!    let Some(map) = report.ok(value.map()) else { return };
//!    for entry in map.iter() {
//!        match entry.name().as_str() {
//!            "timeout" => report.set(&mut config.x.timeout, entry.value.duration()),
//!            "user" | "username" => report.set(&mut config.x.user, entry.value.text().map(|user| Some(user.to_owned()))),
//!            _ => report.unknown(entry, KEYS),
//!        }
//!    }
//!    ```
//!
//!    `KEYS` are the block's names without aliases; an unknown key is answered with the one that looks most like it.
//!    Errors are collected, so that one run shows them all; `entry.wrong(..)` and `value.wrong(..)` make one with its place.
//! 2. Name the block's keys in [`top::read`], in place of the line there that says they are not served.
//! 3. What spans several keys is checked in [`Config::check`], once flags are applied as well.

mod access;
mod coordinator;
mod grammar;
mod jetstream;
mod metrics;
mod permissions;
mod place;
mod report;
mod resolve;
mod scalar;
mod sharing;
mod streams;
mod tls;
mod top;
mod value;
mod websocket;

use std::path::Path;

pub use place::{FileError, Place};
pub use report::Report;
use resolve::Sources;
pub use value::{Entry, Kind, Map, Value};

use super::{Config, ConfigError};

/// A size in bytes as config files have it: `1000`, `64MB`; `None` for anything else.
pub fn size(text: &str) -> Option<u64> {
    match scalar::classify(text) {
        Ok(Kind::Integer(number, _)) => u64::try_from(number).ok(),
        _ => None,
    }
}

/// All that is wrong with a config file, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileErrors(pub Vec<FileError>);

impl std::error::Error for FileErrors {}

impl std::fmt::Display for FileErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl Config {
    /// What the file at `path` says, over `self`. Things known and not served become [`Config::warnings`].
    ///
    /// # Errors
    /// Everything that is wrong with it, each with file, line, column and key.
    pub fn over_file(self, path: &Path) -> Result<Config, FileErrors> {
        let sources =
            Sources { file: &|path| std::fs::read_to_string(path), variable: &|name| std::env::var(name).ok() };
        self.over_sources(path, &sources)
    }

    /// The text of `error` with the place in the file at `path` that it is about, where that can be told.
    pub fn with_place(path: &Path, error: &ConfigError) -> String {
        let sources =
            Sources { file: &|path| std::fs::read_to_string(path), variable: &|name| std::env::var(name).ok() };
        let map = resolve::read(path, &sources, &mut Vec::new()).unwrap_or_default();
        match error.words().into_iter().find_map(|word| map.last_place_of(word)) {
            Some(place) => format!("{place}: {error}"),
            None => error.to_string(),
        }
    }

    fn over_sources(mut self, path: &Path, sources: &Sources<'_>) -> Result<Config, FileErrors> {
        let mut report = Report::default();
        let map = resolve::read(path, sources, &mut report.warnings).map_err(|error| FileErrors(vec![error]))?;
        top::read(&map, &mut self, &mut report);
        if !report.errors.is_empty() {
            return Err(FileErrors(report.errors));
        }
        self.warnings.extend(report.warnings);
        Ok(self)
    }
}

/// Reads `text` as a file named `test.conf`, with the files and the environment of a machine that has neither.
///
/// # Errors
/// As of [`Config::over_file`].
#[doc(hidden)]
pub fn read_text(base: Config, text: &str) -> Result<Config, FileErrors> {
    let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
    let file = |path: &Path| if path == Path::new("test.conf") { Ok(text.to_owned()) } else { Err(missing()) };
    base.over_sources(Path::new("test.conf"), &Sources { file: &file, variable: &|_| None })
}

#[cfg(test)]
mod tests;
