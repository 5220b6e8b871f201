//! How a command ends badly: a text for people and an exit code for scripts.

use crate::client::ClientError;

/// What went wrong and what to do next, in whole sentences.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    pub text: String,
    pub code: u8,
}

/// The task failed, or the coordinator refused.
pub const REFUSED: u8 = 1;
/// No such task, agent, queue, cron or dead letter. (2 is clap's, for bad usage.)
pub const NOT_FOUND: u8 = 3;
/// Not finished within the time given.
pub const TIMED_OUT: u8 = 4;
/// No server, or one without a coordinator.
pub const UNREACHABLE: u8 = 5;

/// Its agent waits for an answer. (6 is the doctor's.)
pub const QUESTION: u8 = 7;

/// For `--help`.
pub const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 refused or the task failed, 2 bad usage, 3 no such task, agent or queue, 4 not finished in time,
5 no server or no coordinator there.";

impl Failure {
    pub fn new(code: u8, text: impl Into<String>) -> Failure {
        Failure { text: text.into(), code }
    }

    /// An exit code; everything is said already.
    pub fn silent(code: u8) -> Failure {
        Failure::new(code, "")
    }

    /// A call on the connection to `server` failed.
    pub fn client(server: &str, error: &ClientError) -> Failure {
        let text = match error {
            ClientError::Unreachable { address, reason } => format!(
                "No NATS server answers at {address} ({reason}).\n\
                 Start one with `natterjack`, or name another with --server or NATS_URL."
            ),
            ClientError::NoResponders { .. } => format!(
                "The server at {server} has no task coordinator.\n\
                 Tasks need natterjack serving without --no-coordinator; `natterjack demo` shows one at work."
            ),
            ClientError::BadUrl { .. } => format!("{error}. A server is named like nats://127.0.0.1:4222."),
            ClientError::Refused { .. } => {
                format!(
                    "{error}.\nName the user: --user and --password, --creds, --nkey, or a URL like nats://user:password@host:4222."
                )
            }
            ClientError::Timeout => format!("The server at {server} did not answer in time. Is it overloaded?"),
            other => format!("{server}: {other}."),
        };
        Failure { text, code: if matches!(error, ClientError::BadUrl { .. }) { 2 } else { UNREACHABLE } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_says_what_to_do_next() {
        let check = |error: ClientError, expected: &str, code: u8| {
            let failure = Failure::client("nats://box", &error);
            assert!(failure.text.contains(expected), "{}", failure.text);
            assert_eq!(failure.code, code);
        };
        let refused = || "connection refused".to_owned();
        check(
            ClientError::Unreachable { address: "box:4222".into(), reason: refused() },
            "Start one with `natterjack`",
            UNREACHABLE,
        );
        check(ClientError::NoResponders { subject: "$TASK".into() }, "--no-coordinator", UNREACHABLE);
        check(ClientError::BadUrl { url: "x".into() }, "nats://127.0.0.1:4222", 2);
    }
}
