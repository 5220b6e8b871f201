//! `permissions` of a user (nats-server `parseUserPermissions`).

use super::place::FileError;
use super::report::Report;
use super::value::{Kind, Value};
use crate::auth::{Permissions, ResponseLimits, SubjectRule, SubjectRules};

const PERMISSIONS: &[&str] = &["allow_responses", "publish", "subscribe"];

type ParseRule = fn(&str) -> Result<SubjectRule, String>;

pub(super) fn read(value: &Value, report: &mut Report) -> Option<Permissions> {
    let map = report.ok(value.map())?;
    let mut permissions = Permissions::default();
    for entry in map.iter() {
        let value = &entry.value;
        match entry.name().as_str() {
            "pub" | "publish" | "import" => permissions.publish = subjects(value, SubjectRule::parse_publish, report),
            "sub" | "subscribe" | "export" => permissions.subscribe = subjects(value, SubjectRule::parse, report),
            "publish_allow_responses" | "allow_responses" | "allow_response" => {
                permissions.responses = responses(value, report);
            }
            _ => report.unknown(entry, PERMISSIONS),
        }
    }
    Some(permissions)
}

/// One subject, a list of them, or a map of what is allowed and what denied.
fn subjects(value: &Value, parse: ParseRule, report: &mut Report) -> SubjectRules {
    let Kind::Map(map) = &value.kind else {
        return SubjectRules { allow: Some(rules(value, parse, report)), deny: Vec::new() };
    };
    let mut subjects = SubjectRules::default();
    for entry in map.iter() {
        match entry.name().as_str() {
            "allow" => subjects.allow = Some(rules(&entry.value, parse, report)),
            "deny" => subjects.deny = rules(&entry.value, parse, report),
            _ => report.unknown(entry, &["allow", "deny"]),
        }
    }
    subjects
}

fn rules(value: &Value, parse: ParseRule, report: &mut Report) -> Vec<SubjectRule> {
    let texts = report.ok(value.texts()).unwrap_or_default();
    texts.into_iter().filter_map(|text| report.ok(parse(text).map_err(|reason| value.wrong(reason)))).collect()
}

fn responses(value: &Value, report: &mut Report) -> Option<ResponseLimits> {
    let mut limits = ResponseLimits::default();
    let map = match &value.kind {
        Kind::Map(map) => map,
        _ => return report.ok(value.bool()).filter(|on| *on).map(|_| limits),
    };
    for entry in map.iter() {
        match entry.name().as_str() {
            "max" | "max_msgs" | "max_messages" | "max_responses" => {
                let default = limits.msgs_max;
                report.set(&mut limits.msgs_max, count(&entry.value, default));
            }
            "expires" | "expiration" | "ttl" => {
                // Negative: for ever.
                if entry.value.integer().is_ok_and(|number| number < 0)
                    || entry.value.text().is_ok_and(|t| t.starts_with('-'))
                {
                    limits.expires = None;
                } else if let Some(expires) = report.ok(entry.value.duration()) {
                    limits.expires = if expires.is_zero() { limits.expires } else { Some(expires) };
                }
            }
            _ => report.unknown(entry, &["expires", "max"]),
        }
    }
    Some(limits)
}

/// 0 stands for the default, a negative number for no limit.
fn count(value: &Value, default: Option<u32>) -> Result<Option<u32>, FileError> {
    let number = value.integer()?;
    Ok(if number == 0 { default } else { u32::try_from(number).ok() })
}
