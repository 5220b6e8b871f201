//! What EXPLAIN and HISTORY answer, in words.

use serde_json::Value;

use super::output::{self, list, number, text};
use super::table::Table;

/// Why a task is not running: a sentence, then who could do it and what is in the way.
pub fn explanation(answer: &Value) -> String {
    let mut lines = Vec::new();
    for field in ["summary", "explanation", "why", "text"] {
        match &answer[field] {
            Value::String(sentence) => lines.push(sentence.clone()),
            Value::Array(sentences) => lines.extend(sentences.iter().filter_map(Value::as_str).map(str::to_owned)),
            _ => {}
        }
    }
    let agents = list(answer, "agents");
    if lines.is_empty() && agents.is_empty() {
        return output::record(answer);
    }
    if !agents.is_empty() {
        let mut table = Table::new(&["AGENT", "WHY NOT"]);
        for agent in agents {
            let why = ["why", "reason", "reasons", "text"].iter().find_map(|field| match &agent[*field] {
                Value::String(text) => Some(text.clone()),
                Value::Array(all) => Some(all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")),
                _ => None,
            });
            let id = if agent["id"].is_string() { text(agent, "id") } else { text(agent, "agent") };
            table.row(vec![id.to_owned(), why.unwrap_or_default()]);
        }
        lines.push(table.to_string());
    }
    lines.join("\n")
}

/// A line for each state that the task was in.
pub fn history(answer: &Value) -> String {
    let steps = ["history", "entries", "steps", "events"].iter().map(|field| list(answer, field));
    let Some(steps) = steps.into_iter().find(|steps| !steps.is_empty()) else { return output::record(answer) };
    let mut table = Table::new(&["TIME", "STATE", "ATTEMPT", "AGENT", "WHAT"]);
    for step in steps {
        let time = ["time", "updated", "at"].iter().map(|field| text(step, field)).find(|time| !time.is_empty());
        let fault = if step["fault"].is_object() { text(&step["fault"], "error") } else { text(step, "error") };
        let reason = if text(step, "reason").is_empty() { fault } else { text(step, "reason") };
        let why = match text(step, "what") {
            what if what.ends_with(reason) => what.to_owned(),
            what => format!("{what}: {reason}"),
        };
        table.row(vec![
            time.unwrap_or_default().to_owned(),
            super::task::state(step),
            number(step, "attempt"),
            text(step, "agent").to_owned(),
            why,
        ]);
    }
    let trimmed = answer["trimmed"].as_u64().filter(|trimmed| *trimmed > 0);
    let note = trimmed.map(|trimmed| format!("{trimmed} older steps are no longer kept.\n")).unwrap_or_default();
    note + &table.fitted()
}
