//! `coordinator`: on, off, or a block of settings; at the top for `$G` and as every account's default, and in an account.

use super::report::Report;
use super::value::{Kind, Value};
use crate::auth::{AdoptSpec, CoordinatorSpec};
use crate::config::Config;
use crate::types::subject;

const KEYS: &[&str] = &["adopt", "enabled", "result_subjects", "council_subjects"];
const ADOPT_KEYS: &[&str] = &["consumer", "queue", "stream"];

/// At the top.
pub(super) fn read(value: &Value, config: &mut Config, report: &mut Report) {
    let Some(block) = block(value, report) else { return };
    config.coordinator = block.on;
    if let Some(subjects) = block.result_subjects {
        config.coordinator_options.result_subjects = subjects;
    }
    if let Some(subjects) = block.council_subjects {
        config.coordinator_options.council_subjects = subjects;
    }
    config.coordinator_options.adopt = block.adopt;
}

/// In an account.
pub(super) fn of_account(value: &Value, report: &mut Report) -> Option<CoordinatorSpec> {
    let block = block(value, report)?;
    let Block { on, result_subjects, council_subjects, adopt } = block;
    on.then_some(CoordinatorSpec { result_subjects, council_subjects, adopt })
}

struct Block {
    on: bool,
    result_subjects: Option<Vec<String>>,
    council_subjects: Option<Vec<String>>,
    adopt: Vec<AdoptSpec>,
}

fn block(value: &Value, report: &mut Report) -> Option<Block> {
    let mut block = Block { on: true, result_subjects: None, council_subjects: None, adopt: Vec::new() };
    match &value.kind {
        Kind::Bool(on) => block.on = *on,
        Kind::Text(word) => match &*word.to_ascii_lowercase() {
            "enabled" | "enable" => {}
            "disabled" | "disable" => block.on = false,
            _ => {
                report.error(value.wrong(format!("Expected 'enabled' or 'disabled' for string value, got '{word}'")));
                return None;
            }
        },
        Kind::Map(map) => {
            for entry in map.iter() {
                match entry.name().as_str() {
                    "enable" | "enabled" => report.set(&mut block.on, entry.value.bool()),
                    "result_subjects" => block.result_subjects = subjects(&entry.value, "results", report),
                    "council_subjects" => block.council_subjects = subjects(&entry.value, "councils", report),
                    "adopt" => block.adopt = adopt(&entry.value, report),
                    _ => report.unknown(entry, KEYS),
                }
            }
        }
        _ => {
            report.error(value.wrong("Expected map, bool or string to define the coordinator"));
            return None;
        }
    }
    Some(block)
}

fn subjects(value: &Value, what: &str, report: &mut Report) -> Option<Vec<String>> {
    let list = report.ok(value.texts())?;
    let mut subjects = Vec::new();
    for text in list {
        if !subject::is_valid(text.as_bytes()) || text.starts_with('$') {
            report.error(value.wrong(format!("{text:?} is no subject for {what}: a filter, not below $")));
        }
        subjects.push(text.to_owned());
    }
    Some(subjects)
}
/// `adopt [ { stream: TASKS, consumer: agent-consumer, queue: x } ]`
fn adopt(value: &Value, report: &mut Report) -> Vec<AdoptSpec> {
    let mut adopted: Vec<AdoptSpec> = Vec::new();
    for item in report.ok(value.array()).unwrap_or_default() {
        let Some(map) = report.ok(item.map()) else { continue };
        let mut spec = AdoptSpec::default();
        for entry in map.iter() {
            let field = match entry.name().as_str() {
                "stream" => &mut spec.stream,
                "consumer" => &mut spec.consumer,
                "queue" => &mut spec.queue,
                _ => {
                    report.unknown(entry, ADOPT_KEYS);
                    continue;
                }
            };
            if let Some(text) = report.ok(entry.value.text()) {
                text.clone_into(field);
            }
        }
        let is_token = |text: &str| {
            (1..=64).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        };
        let is_name = |text: &str| {
            !text.is_empty() && !text.contains(|letter: char| letter.is_whitespace() || ".*>/\\".contains(letter))
        };
        if !is_token(&spec.queue) || !is_name(&spec.stream) || !is_name(&spec.consumer) {
            report.error(
                item.wrong("adopt takes a stream, a consumer and a queue, whose name is A-Z a-z 0-9 _ -, up to 64"),
            );
        } else if adopted.iter().any(|other| {
            other.queue == spec.queue || (&other.stream, &other.consumer) == (&spec.stream, &spec.consumer)
        }) {
            report.error(item.wrong(format!("queue {:?} or its consumer is adopted twice", spec.queue)));
        } else {
            adopted.push(spec);
        }
    }
    adopted
}
