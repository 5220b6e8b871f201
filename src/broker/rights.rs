//! What a client may do and until when, as its link says it and as it is told (nats-server `publicPermissions`).

use std::sync::Arc;

use serde::Serialize;

use crate::auth::{Permit, SubjectRule, SubjectRules};
use crate::types::Timestamp;

/// See the module.
#[derive(Clone, Default)]
pub struct Rights {
    /// `None`: everything.
    pub(super) permit: Option<Arc<Permit>>,
    /// When the client's credentials end.
    pub expires: Option<Timestamp>,
}

/// Permissions in nats-server's JSON.
#[derive(Debug, Serialize)]
pub struct ListedRights {
    publish: Lists,
    subscribe: Lists,
    #[serde(skip_serializing_if = "Option::is_none")]
    responses: Option<Responses>,
}

#[derive(Debug, Serialize)]
struct Lists {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny: Vec<String>,
}

/// How often, and for how many nanoseconds; -1 for any.
#[derive(Debug, Serialize)]
struct Responses {
    max: i64,
    ttl: i64,
}

impl Rights {
    /// `None`: everything is permitted.
    pub fn listed(&self) -> Option<ListedRights> {
        let permissions = self.permit.as_ref()?.permissions();
        let responses = permissions.responses.map(|limits| Responses {
            max: limits.msgs_max.map_or(-1, i64::from),
            ttl: limits.expires.map_or(-1, |expires| i64::try_from(expires.as_nanos()).unwrap_or(i64::MAX)),
        });
        Some(ListedRights {
            publish: Lists::new(&permissions.publish),
            subscribe: Lists::new(&permissions.subscribe),
            responses,
        })
    }
}

impl Lists {
    fn new(rules: &SubjectRules) -> Lists {
        let text = |rule: &SubjectRule| match &rule.queue {
            Some(queue) => format!("{} {queue}", rule.filter),
            None => rule.filter.to_string(),
        };
        let all = |rules: &[SubjectRule]| rules.iter().map(text).collect();
        Lists { allow: all(rules.allow.as_deref().unwrap_or_default()), deny: all(&rules.deny) }
    }
}
