//! `coordinator`: on, off, or a block of settings; at the top for `$G` and as every account's default, and in an account.

use super::report::Report;
use super::value::{Kind, Value};
use crate::auth::CoordinatorSpec;
use crate::config::Config;
use crate::types::subject;

const KEYS: &[&str] = &["enabled", "result_subjects", "council_subjects"];

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
}

/// In an account.
pub(super) fn of_account(value: &Value, report: &mut Report) -> Option<CoordinatorSpec> {
    let block = block(value, report)?;
    let Block { on, result_subjects, council_subjects } = block;
    on.then_some(CoordinatorSpec { result_subjects, council_subjects })
}

struct Block {
    on: bool,
    result_subjects: Option<Vec<String>>,
    council_subjects: Option<Vec<String>>,
}

fn block(value: &Value, report: &mut Report) -> Option<Block> {
    let mut block = Block { on: true, result_subjects: None, council_subjects: None };
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
