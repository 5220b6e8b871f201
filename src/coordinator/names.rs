//! Subjects, buckets and headers of the task API, in one place.

use crate::types::Headers;

pub const API: &str = "$TASK.API.";
pub const BUCKET: &str = "TASK";
pub const STREAM: &str = "KV_TASK";
pub const AGENTS_BUCKET: &str = "TASK_AGENTS";
pub const AGENTS_STREAM: &str = "KV_TASK_AGENTS";
pub const COUNCILS_BUCKET: &str = "TASK_COUNCILS";
pub const COUNCILS_STREAM: &str = "KV_TASK_COUNCILS";
pub const COUNCILS_PREFIX: &str = "$KV.TASK_COUNCILS.";
pub const PROGRESS_STREAM: &str = "TASK_PROGRESS";
/// The advisories about adopted consumers that are not dealt with yet.
pub const ADVISORIES_STREAM: &str = "TASK_ADVISORIES";
pub const DEFAULT_QUEUE: &str = "default";

pub fn state_key(id: &str) -> String {
    format!("$KV.TASK.s.{id}")
}

pub fn payload_key(id: &str) -> String {
    format!("$KV.TASK.p.{id}")
}

pub fn result_key(id: &str) -> String {
    format!("$KV.TASK.r.{id}")
}

pub fn assignment_key(agent: &str, id: &str) -> String {
    format!("$KV.TASK.a.{agent}.{id}")
}

pub fn pull_key(queue: &str, id: &str) -> String {
    format!("$KV.TASK.w.{queue}.{id}")
}

pub fn dead_letter_key(queue: &str, id: &str) -> String {
    format!("$KV.TASK.d.{queue}.{id}")
}

pub fn queue_key(queue: &str) -> String {
    format!("$KV.TASK.q.{queue}")
}

/// What is stored of a purge of the queue while it is under way.
pub fn purge_key(queue: &str) -> String {
    format!("$KV.TASK.q.{queue}.purge")
}

pub fn cron_key(name: &str) -> String {
    format!("$KV.TASK.c.{name}")
}

pub fn cron_times_key(name: &str) -> String {
    format!("$KV.TASK.c.{name}.next")
}

pub fn agent_key(agent: &str) -> String {
    format!("$KV.TASK_AGENTS.{agent}")
}

pub fn agent_consumer(agent: &str) -> String {
    format!("agent_{agent}")
}

pub fn presence_subject(agent: &str, instance: &str) -> String {
    format!("$TASK.X.{agent}.{instance}")
}

/// Where services' answers come: the same for every coordinator, so that a restart loses none. Below `_INBOX.`, where
/// whoever answers requests may publish.
pub const SERVICE_REPLY: &str = "_INBOX.TASK.";

pub fn service_reply(task: &str, lease: &str) -> String {
    format!("{SERVICE_REPLY}{task}.{lease}")
}

pub fn queue_consumer(queue: &str) -> String {
    format!("queue_{queue}")
}

/// The header lines that travel with a task unchanged: all but ours and those JetStream acts on.
pub fn user_lines(headers: Headers<'_>) -> String {
    lines_without(headers, &["Nats-", "KV-", "Task-"])
}

/// All header lines but those JetStream acts on.
pub fn lines_without_jetstreams(headers: Headers<'_>) -> String {
    lines_without(headers, &["Nats-", "KV-"])
}

fn lines_without(headers: Headers<'_>, prefixes: &[&str]) -> String {
    let mut lines = String::new();
    for (name, value) in headers.iter() {
        let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else { continue };
        let starts = |prefix: &&str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        if !prefixes.iter().any(starts) {
            lines.push_str(name);
            lines.push_str(": ");
            lines.push_str(value);
            lines.push_str("\r\n");
        }
    }
    lines
}

/// Whether a stored message of a bucket says that its key is gone: by somebody's hand, or because its time was over.
pub fn is_marker(block: &[u8]) -> bool {
    let headers = Headers::new(block);
    headers.get("KV-Operation").is_some() || headers.get("Nats-Marker-Reason").is_some()
}

/// Header lines with others over them: of a name that both have, only the others' stay.
pub fn lines_over(lines: &str, over: &str) -> String {
    let name = |line: &str| line.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let taken: Vec<String> = over.lines().map(name).collect();
    let kept = lines.lines().filter(|line| !taken.contains(&name(line)));
    kept.fold(String::new(), |kept, line| kept + line + "\r\n") + over
}

/// A whole block from header lines; empty when there are none.
pub fn block(lines: &str) -> Vec<u8> {
    if lines.is_empty() { Vec::new() } else { format!("NATS/1.0\r\n{lines}\r\n").into_bytes() }
}

/// `30`, `30s`, `1.5m`, `250ms`, `2h` as seconds.
pub fn seconds(text: &str) -> Option<f64> {
    let split = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let unit = match &text[split..] {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    let number: f64 = text[..split].trim().parse().ok()?;
    let seconds = number * unit;
    (seconds.is_finite() && seconds >= 0.0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("30", Some(30.0)),
            ("1.5m", Some(90.0)),
            ("250ms", Some(0.25)),
            ("2h", Some(7200.0)),
            ("-1", None),
            ("inf", None),
            ("1e308d", None),
            ("x", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn only_the_users_headers_travel() {
        let block = b"NATS/1.0\r\nTask-Id: x\r\ntraceparent: 00\r\nnats-msg-id: 1\r\nKV-Operation: DEL\r\nX: y\r\n\r\n";
        assert_eq!(user_lines(Headers::new(block)), "traceparent: 00\r\nX: y\r\n");
        assert_eq!(lines_over("A: 1\r\nB: 2\r\n", "b: 3\r\nC: 4\r\n"), "A: 1\r\nb: 3\r\nC: 4\r\n");
        assert_eq!(lines_over("", ""), "");
        let kept = lines_without_jetstreams(Headers::new(block));
        assert_eq!(kept, "Task-Id: x\r\ntraceparent: 00\r\nX: y\r\n");
    }
}
