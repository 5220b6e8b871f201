//! `metrics {}`, which is ours.

use super::report::Report;
use super::value::Value;
use crate::config::{Config, Metrics};
use crate::types::subject;

pub(super) fn read(value: &Value, config: &mut Config, report: &mut Report) {
    let Some(map) = report.ok(value.map()) else { return };
    for entry in map.iter() {
        let value = &entry.value;
        match entry.name().as_str() {
            "subjects" | "subject" => {
                let Some(filters) = report.ok(value.texts()) else { continue };
                if let Some(bad) = filters.iter().find(|filter| !subject::is_valid(filter.as_bytes())) {
                    report.error(value.wrong(format!("{bad:?} is no subject")));
                } else if filters.len() > Metrics::FILTERS_MAX {
                    report.error(value.wrong(format!("at most {} subjects can be watched", Metrics::FILTERS_MAX)));
                } else {
                    config.metrics.subjects = filters.into_iter().map(str::to_owned).collect();
                }
            }
            "subjects_max" => {
                let Some(max) = report.ok(value.integer()) else { continue };
                match usize::try_from(max) {
                    Ok(max) if max <= Metrics::SUBJECTS_MAX => config.metrics.subjects_max = max,
                    _ => report.error(value.wrong(format!("subjects_max is 0 to {}", Metrics::SUBJECTS_MAX))),
                }
            }
            _ => report.unknown(entry, &["subjects", "subjects_max"]),
        }
    }
}
