//! `$SYS.REQ.USER.INFO`: who the asker is and what it may do (nats-server `userInfoReq`, `publicPermissions`).

use serde_json::{Map, Value, json};

use crate::auth::{Permissions, ResponseLimits, SubjectRule, SubjectRules};
use crate::broker::ClientState;
use crate::types::Timestamp;

/// What a client of the account is told about itself.
pub fn report(client: &ClientState, account: &str, now: Timestamp) -> Value {
    let (identity, rights) = (client.identity(), client.rights());
    let mut report = json!({"user": identity.user, "account": account, "account_name": account});
    if !identity.login.name_tag.is_empty() {
        report["user_name"] = identity.login.name_tag.into();
    }
    if let Some(permit) = &rights.permit {
        report["permissions"] = permissions(permit.permissions());
    }
    if let Some(expires) = rights.expires {
        report["expires"] = (expires.nanos() - now.nanos()).max(1).into();
    }
    report
}

fn permissions(of: &Permissions) -> Value {
    let mut told = json!({"publish": rules(&of.publish), "subscribe": rules(&of.subscribe)});
    if let Some(ResponseLimits { msgs_max, expires }) = of.responses {
        let max = msgs_max.map_or(-1, i64::from);
        let ttl = expires.map_or(-1, |expires| i64::try_from(expires.as_nanos()).unwrap_or(i64::MAX));
        told["responses"] = json!({"max": max, "ttl": ttl});
    }
    told
}

fn rules(of: &SubjectRules) -> Map<String, Value> {
    let text = |rule: &SubjectRule| match &rule.queue {
        Some(queue) => format!("{} {queue}", rule.filter),
        None => rule.filter.to_string(),
    };
    let lists = [("allow", of.allow.as_deref().unwrap_or_default()), ("deny", &of.deny)];
    let named = lists.into_iter().filter(|(_, rules)| !rules.is_empty());
    named.map(|(name, rules)| (name.to_owned(), rules.iter().map(text).collect())).collect()
}
