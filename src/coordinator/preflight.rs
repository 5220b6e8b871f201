//! Whether a server is one that a coordinator can work on, before it begins: a reason now is better than tasks that are
//! refused later.

use super::service::subscribed;
use crate::client::{Client, ClientError, JetStreamError};
use crate::types::ApiError;

/// The first release of nats-server with atomic batches, and the oldest that the tests have run on.
const OLDEST: (u32, u32) = (2, 12);
const TESTED: (u32, u32) = (2, 14);

/// Why a coordinator cannot work on a server.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error(
        "the server is nats-server {version}, which has no atomic batches (ADR-50): each step of a task is one, so that \
         nothing is ever half done. It takes {}.{} or newer", OLDEST.0, OLDEST.1
    )]
    TooOld { version: String },
    #[error("there is no JetStream to keep tasks in ({reason}): switch it on in the server, and for the account")]
    NoJetStream { reason: String },
    #[error("the coordinator's user lacks a permission it needs: {text}")]
    NotPermitted { text: String },
    /// It may pass.
    #[error(transparent)]
    Passing(#[from] JetStreamError),
}

/// Looks at the server's version, at JetStream and at what may be subscribed to. Returns what is worth a warning.
///
/// # Errors
/// [`Unfit`].
pub async fn check(client: &Client) -> Result<Option<String>, Unfit> {
    let version = client.info().version.clone();
    let warning = judge(&version)?;
    client.take_error();
    let info: Result<serde_json::Value, _> = client.api("INFO", &serde_json::Value::Null).await;
    match info {
        Ok(_) => {}
        Err(JetStreamError::Client(ClientError::NoResponders { .. })) => {
            return Err(Unfit::NoJetStream { reason: "nobody answers $JS.API.INFO".to_owned() });
        }
        Err(error) if error.is(&ApiError::NOT_ENABLED_FOR_ACCOUNT) || error.is(&ApiError::NOT_ENABLED) => {
            return Err(Unfit::NoJetStream { reason: error.to_string() });
        }
        Err(error) => return Err(denied(client).unwrap_or(Unfit::Passing(error))),
    }
    for subject in subscribed() {
        drop(client.subscribe(&subject).map_err(JetStreamError::Client)?);
    }
    client.flush().await.map_err(JetStreamError::Client)?;
    denied(client).map_or(Ok(warning), Err)
}

/// What the server has said about permissions meanwhile.
fn denied(client: &Client) -> Option<Unfit> {
    let text = client.take_error()?;
    text.to_ascii_lowercase().contains("permissions violation").then_some(Unfit::NotPermitted { text })
}

fn judge(version: &str) -> Result<Option<String>, Unfit> {
    let mut numbers = version.split(|letter: char| !letter.is_ascii_digit()).map_while(|digits| digits.parse().ok());
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return Ok(Some(format!("the server's version, {version:?}, says nothing about what it can do")));
    };
    if (major, minor) < OLDEST {
        return Err(Unfit::TooOld { version: version.to_owned() });
    }
    Ok(((major, minor) < TESTED).then(|| {
        format!(
            "the server is nats-server {version}; the coordinator is tested with {}.{} and newer",
            TESTED.0, TESTED.1
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_judged() {
        for (version, warns) in
            [("2.15.1", false), ("2.16.0-preview.1", false), ("3.0.0", false), ("2.12.0-RC.1", true)]
        {
            assert_eq!(judge(version).unwrap().is_some(), warns, "{version}");
        }
        assert!(judge("").unwrap().is_some());
        for version in ["2.11.9", "2.10.22", "1.4.1"] {
            let told = judge(version).unwrap_err().to_string();
            assert!(told.contains(version) && told.contains("2.12 or newer"), "{told}");
        }
    }
}
