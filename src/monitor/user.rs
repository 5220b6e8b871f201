//! `$SYS.REQ.USER.INFO`: who the asker is and what it may do (nats-server `userInfoReq`).

use serde_json::{Value, json};

use crate::broker::ClientState;
use crate::types::Timestamp;

/// What a client of the account is told about itself.
pub fn report(client: &ClientState, account: &str, now: Timestamp) -> Value {
    let (identity, rights) = (client.identity(), client.rights());
    let mut report = json!({"user": identity.user, "account": account, "account_name": account});
    if !identity.login.name_tag.is_empty() {
        report["user_name"] = identity.login.name_tag.into();
    }
    if let Some(permissions) = rights.listed() {
        report["permissions"] = json!(permissions);
    }
    if let Some(expires) = rights.expires {
        report["expires"] = (expires.nanos() - now.nanos()).max(1).into();
    }
    report
}
