//! What the architecture page promises about the source, checked by reading it: who uses whom, what pure modules do not
//! touch, files of a readable size, nothing left undone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Which of our modules each module may name. The composition is at the bottom: nobody names `cli`.
const MAY_USE: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("protocol", &["types"]),
    ("router", &["types"]),
    ("stream", &["types"]),
    ("consumer", &["types", "stream"]),
    ("auth", &["types", "protocol", "router"]),
    ("session", &["types", "protocol", "auth"]),
    ("api", &["types", "stream", "consumer"]),
    ("storage", &["types", "stream", "consumer"]),
    ("backup", &["types", "stream", "consumer"]),
    ("broker", &["types", "protocol", "session", "router", "auth", "stream", "consumer", "api", "backup", "storage"]),
    ("client", &["types", "protocol"]),
    ("config", &["types", "auth"]),
    ("monitor", &["types", "config", "api", "broker"]),
    ("coordinator", &["types", "client"]),
    (
        "server",
        &["types", "config", "protocol", "session", "auth", "broker", "storage", "client", "monitor", "coordinator"],
    ),
    ("cli", &["types", "config", "auth", "client", "coordinator", "server"]),
];

/// Modules without socket, file, clock, randomness, task or lock.
const PURE: &[&str] = &["types", "protocol", "session", "router", "auth", "stream", "consumer", "api", "backup"];
const IMPURE: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::net::Tcp",
    "std::thread",
    "std::process",
    "Mutex<",
    "RwLock<",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "rand::",
];
/// The two places where the edges of the program get their clock and their dice.
const IMPURE_BY_DESIGN: &[&str] = &["src/types/time.rs", "src/types/id.rs"];

const LINES_MAX: usize = 900;

struct Source {
    /// Relative to the package, with forward slashes.
    path: String,
    text: String,
}

impl Source {
    /// The folder under `src/`, or `None` for `lib.rs` and `main.rs`.
    fn module(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("src/")?;
        rest.split_once('/')
            .map(|(module, _)| module)
            .or(rest.strip_suffix(".rs"))
            .filter(|name| *name != "lib" && *name != "main")
    }

    /// The code without comments, up to the unit tests and from there on.
    fn code(&self) -> (String, String) {
        let mut parts = (String::new(), String::new());
        let mut in_tests = self.path.ends_with("/tests.rs");
        for line in self.text.lines() {
            let line = line.split(" // ").next().unwrap_or_default();
            if line.trim_start().starts_with("//") {
                continue;
            }
            in_tests |= line.starts_with("#[cfg(test)]");
            let part = if in_tests { &mut parts.1 } else { &mut parts.0 };
            part.push_str(line);
            part.push('\n');
        }
        parts
    }
}

fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file under `folder` that is ours.
fn files(folder: &Path, found: &mut Vec<Source>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // Build output, the repository itself, and what package managers install.
        if ["target", ".git", "node_modules", "corpus", "artifacts", "__pycache__"].contains(&name.as_str())
            || name.starts_with(".venv")
        {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            let path = path.strip_prefix(package()).unwrap().to_string_lossy().replace('\\', "/");
            found.push(Source { path, text });
        }
    }
}

fn all_files() -> Vec<Source> {
    let mut found = Vec::new();
    files(&package(), &mut found);
    found
}

fn rust_sources() -> Vec<Source> {
    let mut found = all_files();
    found.retain(|source| source.path.starts_with("src/") && source.path.ends_with(".rs"));
    assert!(found.len() > 20, "the sources are where this test looks for them");
    found
}

/// The names that follow `crate::` in `code`, groups in braces included.
fn crate_paths(code: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        if code[..at].ends_with(|byte: char| byte.is_alphanumeric() || byte == '_' || byte == '$') {
            continue;
        }
        let rest = &code[at + found.len()..];
        match rest.strip_prefix('{') {
            None => names.extend(identifier(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut starts = true;
                for (at, byte) in group.char_indices() {
                    match byte {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => starts = true,
                        byte if starts && !byte.is_whitespace() => {
                            starts = false;
                            names.extend(identifier(&group[at..]));
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    names
}

fn identifier(text: &str) -> Option<&str> {
    let end = text.find(|byte: char| !byte.is_alphanumeric() && byte != '_').unwrap_or(text.len());
    (end > 0).then(|| &text[..end])
}

/// The longest run of `super::` in `code`.
fn supers(code: &str) -> usize {
    code.match_indices("super::")
        .map(|(at, _)| code[at..].split("super::").take_while(|gap| gap.is_empty()).count())
        .max()
        .unwrap_or(0)
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let mut wrong = Vec::new();
    for source in rust_sources() {
        let Some(module) = source.module() else { continue };
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: the module `{module}` has no row in MAY_USE", source.path));
            continue;
        };
        let (code, tests) = source.code();
        for name in crate_paths(&code).union(&crate_paths(&tests)) {
            if *name != module && !allowed.contains(name) && MAY_USE.iter().any(|(known, _)| known == name) {
                wrong.push(format!("{}: `{module}` must not use `{name}`", source.path));
            }
        }
        // `super` must not climb to the crate's root either: other modules are reached as `crate::name`.
        let level = source.path.matches('/').count() - usize::from(source.path.ends_with("/mod.rs"));
        if supers(&code) >= level {
            wrong.push(format!("{}: `super::` leaves the module", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_modules_touch_nothing_outside() {
    let mut wrong = Vec::new();
    for source in rust_sources() {
        let pure = source.module().is_some_and(|module| PURE.contains(&module));
        if !pure || IMPURE_BY_DESIGN.contains(&source.path.as_str()) {
            continue;
        }
        let (code, _) = source.code();
        for word in IMPURE.iter().filter(|word| code.contains(**word)) {
            wrong.push(format!("{}: `{word}` in a pure module", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut wrong = Vec::new();
    for source in rust_sources() {
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{}: {lines} lines, at most {LINES_MAX}: it wants to be two files", source.path));
        }
        let named_for_itself = source.path == "src/main.rs" || source.path.ends_with("/tests.rs");
        if !named_for_itself && !source.text.starts_with("//!") {
            wrong.push(format!("{}: does not open with a line that says what it is", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_undone_or_tied_to_one_machine() {
    let unfinished = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!(")];
    let machine_paths = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let mut wrong = Vec::new();
    for source in all_files() {
        let words = machine_paths.iter().chain(unfinished.iter().filter(|_| source.path.ends_with(".rs")));
        for word in words {
            if let Some(at) = source.text.find(word) {
                let line = source.text[..at].matches('\n').count() + 1;
                wrong.push(format!("{}:{line}: `{word}`", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn this_test_reads_paths_right() {
    let names = |code| crate_paths(code).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(names("use crate::types::Message;"), "types");
    assert_eq!(names("use crate::{types::{A, B}, stream, consumer::{C}};"), "consumer stream types");
    assert_eq!(names("pub(crate) fn x() { crate::api::y() }"), "api");
    assert_eq!(names("mycrate::api::y()"), "");
    assert_eq!(supers("super::a; super::super::b"), 2);
    assert_eq!(supers("nothing"), 0);
}
