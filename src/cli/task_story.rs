//! What EXPLAIN and HISTORY answer, in words.

use serde_json::Value;

use super::output::{list, number, text};
use super::table::{Table, printable};

/// Why a task is not running: a sentence, then what is in the way of each agent.
pub fn explanation(answer: &Value) -> String {
    let mut lines = printable(text(answer, "explanation"));
    lines.push('\n');
    for agent in list(answer, "agents") {
        lines.push_str(&format!("  {}\n", printable(text(agent, "text"))));
    }
    if let Some(left) = answer["among"]["left"].as_u64().filter(|left| *left > 0) {
        lines.push_str(&format!("  and {left} more agents\n"));
    }
    lines
}

/// A line for each change of the task.
pub fn history(answer: &Value) -> String {
    let mut table = Table::new(&["", "TIME", "WHAT", "RUN", "ATTEMPT", "ERROR"]);
    for change in list(answer, "history") {
        table.row(vec![
            number(change, "change"),
            text(change, "time").to_owned(),
            what(change),
            number(change, "run"),
            number(change, "attempt"),
            text(change, "error").to_owned(),
        ]);
    }
    let trimmed = answer["trimmed"].as_u64().filter(|trimmed| *trimmed > 0);
    let note = trimmed.map(|trimmed| format!("The first {trimmed} changes are no longer kept.\n")).unwrap_or_default();
    note + &table.fitted()
}

/// What happened, with the question or answer that it was about.
fn what(change: &Value) -> String {
    let said = ["answer", "question"].map(|field| text(change, field)).into_iter().find(|said| !said.is_empty());
    let about = said.map(|said| format!(": {said}")).unwrap_or_default();
    format!("{}{about}", text(change, "what"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stories_are_told_line_by_line() {
        let answer =
            json!({"explanation": "t: queued.", "among": {"left": 2}, "agents": [{"agent": "a", "text": "a is full"}]});
        assert_eq!(explanation(&answer), "t: queued.\n  a is full\n  and 2 more agents\n");
        let asked = json!({"what": "a question was asked by a", "question": "Why?"});
        let answered = json!({"what": "answered", "question": "Why?", "answer": "Because."});
        assert_eq!(
            [asked, answered].map(|change| what(&change)),
            ["a question was asked by a: Why?", "answered: Because."]
        );
        let change = json!({"change": 3, "time": "now", "what": "assigned to a", "run": 1, "attempt": 1});
        let told = history(&json!({"history": [change], "trimmed": 2}));
        assert!(
            told.starts_with("The first 2 changes are no longer kept.\n") && told.contains("assigned to a"),
            "{told}"
        );
    }
}
