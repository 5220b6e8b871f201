//! What differs between two lists of answers, in few words.

use serde_json::Value;

/// The lines that differ; of two JSON bodies only the fields that do.
pub fn explain(expected: &[String], got: &[String]) -> String {
    let mut out = Vec::new();
    for at in 0..expected.len().max(got.len()) {
        match (expected.get(at), got.get(at)) {
            (Some(expected), Some(got)) if expected == got => {}
            (Some(expected), Some(got)) => match (split(expected), split(got)) {
                (Some((head, left)), Some((other, right))) if head == other => fields(&left, &right, "", &mut out),
                _ => out.push(format!("    expected {expected}\n    got      {got}")),
            },
            (Some(expected), None) => out.push(format!("    missing  {expected}")),
            (None, Some(got)) => out.push(format!("    too many {got}")),
            (None, None) => {}
        }
    }
    out.join("\n")
}

fn split(line: &str) -> Option<(&str, Value)> {
    let at = line.find('{')?;
    Some((&line[..at], serde_json::from_str(&line[at..]).ok()?))
}

fn fields(expected: &Value, got: &Value, path: &str, out: &mut Vec<String>) {
    match (expected, got) {
        (Value::Object(left), Value::Object(right)) => {
            for (key, value) in left {
                fields(value, right.get(key).unwrap_or(&Value::Null), &format!("{path}.{key}"), out);
            }
            for (key, value) in right.iter().filter(|(key, _)| !left.contains_key(*key)) {
                out.push(format!("    {path}.{key}: absent, got {value}"));
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (at, (left, right)) in left.iter().zip(right).enumerate() {
                fields(left, right, &format!("{path}[{at}]"), out);
            }
        }
        _ if expected != got => out.push(format!("    {path}: expected {expected}, got {got}")),
        _ => {}
    }
}
