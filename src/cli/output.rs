//! What commands print: lines, JSON, records, watched lists, progress of long work.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::Args;
use hashbrown::HashMap;
use serde_json::Value;

use super::failure::Failure;
use super::table;

/// A line on standard output; a reader that has hung up is no error.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line on standard error: about the work, not its result.
pub fn remark(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Bytes as they are; with an end of line for a person.
pub fn print_bytes(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(bytes);
    if stdout.is_terminal() && !bytes.ends_with(b"\n") {
        let _ = stdout.write_all(b"\n");
    }
    let _ = stdout.flush();
}

/// JSON for scripts, or what `render` makes of it for people.
pub fn show(answer: &Value, json: bool, render: impl FnOnce(&Value) -> String) {
    if json {
        say(&serde_json::to_string_pretty(answer).expect("a JSON value prints"));
    } else {
        say(render(answer).trim_end());
    }
}

/// A field as text; empty when it is absent or something else.
pub fn text<'a>(record: &'a Value, field: &str) -> &'a str {
    record.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The elements of a field that is a list.
pub fn list<'a>(answer: &'a Value, field: &str) -> &'a [Value] {
    answer[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A number, or nothing where there is none.
pub fn number(record: &Value, field: &str) -> String {
    record.get(field).filter(|value| value.is_number()).map(Value::to_string).unwrap_or_default()
}

/// The object without its nulls.
pub fn without_nulls(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    object
}

/// `NAME=JSON` on a command line; what is no JSON is a text.
pub fn setting(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("a setting is NAME=JSON")?;
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

/// What people look for first; the rest follows by name.
const FIRST_FIELDS: [&str; 15] = [
    "id",
    "agent",
    "queue",
    "state",
    "status",
    "phase",
    "reason",
    "fault",
    "attempt",
    "max_attempts",
    "slots",
    "in_flight",
    "tasks",
    "created",
    "updated",
];

/// Field by field, without what is empty.
pub fn record(record: &Value) -> String {
    let mut fields: Vec<(&String, String)> = record
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, value)| *name != "type" && !is_empty(value))
        .map(|(name, value)| (name, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    fields.sort_by_key(|(name, _)| FIRST_FIELDS.iter().position(|first| first == name).unwrap_or(FIRST_FIELDS.len()));
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines = fields.iter().map(|(name, value)| format!("{name:>width$}  {}\n", table::printable(value)));
    lines.collect()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// Shows again and again, or once.
#[derive(Clone, Debug, Default, Args)]
pub struct Watch {
    /// Show it again every so often (2s unless given): redrawn on a terminal, elsewhere a line for each change.
    #[arg(short, long, value_name = "EVERY", num_args = 0..=1, default_missing_value = "2s", value_parser = table::duration)]
    watch: Option<Duration>,
}

/// A list in an answer: the field it is in, what tells its elements apart, what changes with nothing having happened.
pub struct Listed {
    pub field: &'static str,
    pub id: &'static str,
    pub restless: &'static [&'static str],
}

impl Watch {
    /// Shows what `ask` answers, once or until it is stopped.
    ///
    /// # Errors
    /// What `ask` failed with.
    pub async fn show(
        &self,
        json: bool,
        listed: &Listed,
        mut ask: impl AsyncFnMut() -> Result<Value, Failure>,
        render: impl Fn(&Value) -> String,
    ) -> Result<(), Failure> {
        let Some(pause) = self.watch else {
            show(&ask().await?, json, render);
            return Ok(());
        };
        let redraws = std::io::stdout().is_terminal() && !json;
        let mut changes = Changes::default();
        loop {
            let answer = ask().await?;
            if redraws {
                let mut stdout = std::io::stdout().lock();
                // Home, the new text, and nothing of the old one below it or right of it.
                let screen = render(&answer).trim_end().replace('\n', "\x1b[K\r\n");
                let _ = write!(stdout, "\x1b[H{screen}\x1b[K\x1b[J\r\n");
                let _ = stdout.flush();
            } else {
                changes.print(&answer, json, listed, &render);
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// What was printed of each element, so that only what is new is printed again.
#[derive(Default)]
struct Changes {
    known: HashMap<String, Value>,
    headed: bool,
}

impl Changes {
    fn print(&mut self, answer: &Value, json: bool, listed: &Listed, render: impl Fn(&Value) -> String) {
        let changed = self.changed(answer, listed);
        if changed.is_empty() && (self.headed || json) {
            return;
        }
        if json {
            changed.iter().for_each(|element| say(&element.to_string()));
            return;
        }
        let some = !changed.is_empty();
        let rendered = render(&serde_json::json!({ listed.field: changed }));
        let lines = rendered.lines().skip(usize::from(self.headed));
        lines.for_each(say);
        self.headed |= some;
    }

    fn changed(&mut self, answer: &Value, listed: &Listed) -> Vec<Value> {
        let mut changed = Vec::new();
        for element in list(answer, listed.field) {
            let mut settled = element.clone();
            if let Some(fields) = settled.as_object_mut() {
                fields.retain(|name, _| !listed.restless.contains(&name.as_str()));
            }
            let id = text(element, listed.id).to_owned();
            if self.known.get(&id) != Some(&settled) {
                self.known.insert(id, settled);
                changed.push(element.clone());
            }
        }
        changed
    }
}

/// `done` of `total`, on a terminal: drawn over what was drawn before.
pub struct Progress {
    what: &'static str,
    total: u64,
    drawn: bool,
}

impl Progress {
    pub fn new(what: &'static str, total: u64) -> Progress {
        Progress { what, total, drawn: false }
    }

    pub fn draw(&mut self, done: u64) {
        let mut stderr = std::io::stderr().lock();
        if stderr.is_terminal() {
            self.drawn = true;
            let _ = write!(stderr, "\r{} of {} {}\x1b[K", done.min(self.total), self.total, self.what);
            let _ = stderr.flush();
        }
    }

    /// Takes the line away.
    pub fn end(self) {
        if self.drawn {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_begin_with_what_matters_and_leave_out_what_is_empty() {
        let shown = record(&json!({"zeta": 1, "id": "a", "type": "t", "none": null, "state": "b\x1b"}));
        assert_eq!(shown, "   id  a\nstate  b\u{fffd}\n zeta  1\n");
    }

    #[test]
    fn settings_are_json_or_text() {
        assert_eq!(setting("a=3"), Ok(("a".into(), json!(3))));
        assert_eq!(setting("a=b"), Ok(("a".into(), json!("b"))));
        assert!(setting("a").is_err());
    }

    #[test]
    fn only_what_changed_is_told_again() {
        let listed = Listed { field: "agents", id: "id", restless: &["last_seen"] };
        let mut changes = Changes::default();
        let mut ids = |answer: Value| -> Vec<String> {
            changes.changed(&answer, &listed).iter().map(|element| text(element, "id").to_owned()).collect()
        };
        assert_eq!(ids(json!({"agents": [{"id": "a", "n": 1}, {"id": "b", "last_seen": 1}]})), ["a", "b"]);
        assert_eq!(ids(json!({"agents": [{"id": "a", "n": 2}, {"id": "b", "last_seen": 2}]})), ["a"]);
        assert!(ids(json!({"agents": []})).is_empty());
    }
}
