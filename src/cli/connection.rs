//! One connection of a command to a server, and calls of the task API over it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::failure::{Failure, NOT_FOUND, REFUSED, TIMED_OUT, UNREACHABLE};
use super::output::Progress;
use crate::client::{Client, ClientError, ConnectOptions, Credentials, Incoming, ServerUrl, TlsOptions};
use crate::types::ApiError;
use crate::types::header::HeaderBuilder;

/// Flags of every command that talks to a server.
#[derive(Clone, Debug, Args)]
pub struct ConnectFlags {
    /// Server to talk to, or several of a cluster with commas between them; a user and password or a token may stand
    /// before the host.
    #[arg(
        short,
        long,
        value_name = "URL",
        env = "NATS_URL",
        hide_env_values = true,
        default_value = "nats://127.0.0.1:4222",
        global = true
    )]
    pub server: String,
    /// User to come in as.
    #[arg(long, value_name = "USER", env = "NATS_USER", hide_env_values = true, global = true, help_heading = ACCESS)]
    pub user: Option<String>,
    /// The password that goes with --user.
    #[arg(
        long, value_name = "PASSWORD", env = "NATS_PASSWORD", hide_env_values = true, global = true, requires = "user",
        help_heading = ACCESS
    )]
    pub password: Option<String>,
    /// A user's JWT and key, as `nsc` writes them.
    #[arg(
        long, value_name = "FILE", env = "NATS_CREDS", hide_env_values = true, global = true, conflicts_with = "nkey",
        help_heading = ACCESS
    )]
    pub creds: Option<PathBuf>,
    /// A user's nkey seed.
    #[arg(long, value_name = "FILE", env = "NATS_NKEY", hide_env_values = true, global = true, help_heading = ACCESS)]
    pub nkey: Option<PathBuf>,
    /// Insist on TLS, which is otherwise used where the server or a tls:// URL asks for it.
    #[arg(long, global = true, help_heading = ACCESS)]
    pub tls: bool,
    /// Shake hands before anything else, as servers with handshake_first want.
    #[arg(long, global = true, help_heading = ACCESS)]
    pub tlsfirst: bool,
    /// Authorities to trust instead of the system's.
    #[arg(long, value_name = "FILE", env = "NATS_CA", hide_env_values = true, global = true, help_heading = ACCESS)]
    pub tlsca: Option<PathBuf>,
    /// Certificate to show.
    #[arg(
        long, value_name = "FILE", env = "NATS_CERT", hide_env_values = true, global = true, requires = "tlskey",
        help_heading = ACCESS
    )]
    pub tlscert: Option<PathBuf>,
    /// The certificate's private key.
    #[arg(long, value_name = "FILE", env = "NATS_KEY", hide_env_values = true, global = true, help_heading = ACCESS)]
    pub tlskey: Option<PathBuf>,
    /// Print JSON, for scripts.
    #[arg(long, global = true)]
    pub json: bool,
}

const ACCESS: &str = "Access";

impl ConnectFlags {
    /// The servers without credentials, for messages.
    pub fn address(&self) -> String {
        let urls = ServerUrl::parse_list(&self.server);
        urls.map_or_else(
            |_| "there".to_owned(),
            |urls| urls.iter().map(ServerUrl::address).collect::<Vec<_>>().join(","),
        )
    }

    /// How to connect, as `name`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn options(&self, name: &str) -> Result<ConnectOptions, Failure> {
        let unreadable = |path: &PathBuf, reason: &dyn std::fmt::Display| {
            Failure::new(2, format!("Cannot read {}: {reason}.", path.display()))
        };
        let mut credentials = None;
        if let Some(path) = self.creds.as_ref().or(self.nkey.as_ref()) {
            let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
            credentials = Some(Credentials::parse(&text).map_err(|error| unreadable(path, &error))?);
        }
        Ok(ConnectOptions {
            name: name.to_owned(),
            user: self.user.clone(),
            pass: self.password.clone(),
            credentials,
            tls: TlsOptions {
                required: self.tls || self.tlsca.is_some() || self.tlscert.is_some(),
                first: self.tlsfirst,
                ca: self.tlsca.clone(),
                cert: self.tlscert.clone(),
                key: self.tlskey.clone(),
            },
            reconnect: false,
            ..ConnectOptions::default()
        })
    }
}

/// How long the server may take for an ordinary answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// For what is answered only when all of many tasks are stored.
const LONG_DEADLINE: Duration = Duration::from_secs(3600);

/// A connection that knows how to say what went wrong with it.
pub struct Connection {
    client: Client,
    /// Without credentials, for messages.
    server: String,
}

impl Connection {
    /// # Errors
    /// No server there, or one that refuses.
    pub async fn open(flags: &ConnectFlags) -> Result<Connection, Failure> {
        let server = flags.address();
        let options = flags.options("natterjack command line")?;
        let connected = Client::connect_with(&flags.server, options).await;
        let client = connected.map_err(|error| Failure::client(&server, &error))?;
        Ok(Connection { client, server })
    }

    /// Calls `$TASK.API.<endpoint>` and reads its JSON answer.
    ///
    /// # Errors
    /// The API's error in words, or no answer.
    pub async fn call(&self, endpoint: &str, headers: &[u8], body: &[u8]) -> Result<Value, Failure> {
        self.read(&self.ask(endpoint, headers, body, ANSWER_DEADLINE).await?)
    }

    fn read(&self, answer: &Incoming) -> Result<Value, Failure> {
        if let Some(error) = api_error(answer) {
            return Err(refused(&error));
        }
        serde_json::from_slice(answer.payload())
            .map_err(|error| Failure::new(UNREACHABLE, format!("{}: cannot read the answer: {error}.", self.server)))
    }

    /// The bare answer, which may be an error (see [`api_error`]).
    ///
    /// # Errors
    /// No answer.
    pub async fn ask(
        &self,
        endpoint: &str,
        headers: &[u8],
        body: &[u8],
        deadline: Duration,
    ) -> Result<Incoming, Failure> {
        let subject = format!("$TASK.API.{endpoint}");
        self.client.request_message(&subject, headers, body, deadline).await.map_err(|error| match error {
            ClientError::BadSubject { .. } => {
                Failure::new(2, "An id is one word of letters, digits, - and _, at most 64 of them.")
            }
            error => Failure::client(&self.server, &error),
        })
    }

    /// [`Connection::ask`] with nothing to say and the usual patience.
    ///
    /// # Errors
    /// No answer.
    pub async fn ask_usual(&self, endpoint: &str) -> Result<Incoming, Failure> {
        self.ask(endpoint, b"", b"", ANSWER_DEADLINE).await
    }

    /// [`Connection::call`] of something that may take very long.
    ///
    /// # Errors
    /// The API's error in words, or no answer.
    pub async fn call_long(&self, endpoint: &str, body: &[u8]) -> Result<Value, Failure> {
        self.read(&self.ask(endpoint, b"", body, LONG_DEADLINE).await?)
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What to tell of an error on this connection.
    pub fn failure(&self, error: &ClientError) -> Failure {
        Failure::client(&self.server, error)
    }

    pub async fn close(self) {
        self.client.close().await;
    }
}

/// Headers as they travel; nothing when there are none.
pub fn header_block(headers: &[(String, String)]) -> Vec<u8> {
    if headers.is_empty() {
        return Vec::new();
    }
    headers.iter().fold(HeaderBuilder::new(), |block, (name, value)| block.add(name, value)).build()
}

/// Waits for `call` and draws meanwhile how many of `total` are `what`, by asking now and then how many are left.
///
/// # Errors
/// What the call failed with.
pub async fn with_progress(
    what: &'static str,
    total: u64,
    mut left: impl AsyncFnMut() -> Result<u64, Failure>,
    call: impl Future<Output = Result<Value, Failure>>,
) -> Result<Value, Failure> {
    let mut progress = Progress::new(what, total);
    let mut call = std::pin::pin!(call);
    loop {
        let look = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            left().await
        };
        tokio::select! {
            answer = &mut call => {
                progress.end();
                return answer;
            }
            // Who cannot be asked now may be asked later.
            Ok(left) = look => progress.draw(total.saturating_sub(left)),
        }
    }
}

/// The error an answer carries: in its headers (as every micro service's), described by its body when that is ours.
pub fn api_error(answer: &Incoming) -> Option<ApiError> {
    let code = answer.headers().get_str("Nats-Service-Error-Code")?;
    let body: Option<Value> = serde_json::from_slice(answer.payload()).ok();
    let described = body.and_then(|body| serde_json::from_value(body.get("error")?.clone()).ok());
    Some(described.unwrap_or_else(|| ApiError {
        code: code.parse().unwrap_or(500),
        err_code: code.parse().unwrap_or(500),
        description: answer.headers().get_str("Nats-Service-Error").unwrap_or("no reason given").to_owned().into(),
    }))
}

/// An API error with what to do about it.
pub fn refused(error: &ApiError) -> Failure {
    let (code, hint) = match error.err_code {
        30404 => (NOT_FOUND, "\n`natterjack task ls` shows the tasks there are."),
        30405 => (NOT_FOUND, "\n`natterjack agent ls` shows the agents there are."),
        30406 => (NOT_FOUND, "\n`natterjack queue ls` shows the queues there are."),
        30407 => (NOT_FOUND, "\n`natterjack cron ls` shows the crons there are."),
        30440 => (NOT_FOUND, "\n`natterjack council ls` shows the councils there are."),
        30415 => (NOT_FOUND, "\n`natterjack dlq ls` shows the dead letters there are."),
        30416 => (REFUSED, "\n`natterjack task get` shows its questions."),
        30423 => (REFUSED, "\n`natterjack queue resume` lets it go on."),
        30424 => (REFUSED, "\nSubmit those first, or leave them out of --after."),
        30408 => (TIMED_OUT, "\nIt goes on; await it again, or see what it does with `natterjack task get`."),
        30410 => (REFUSED, "\n`natterjack task get` shows how it ended; failed and canceled ones can be requeued."),
        30411 => (REFUSED, "\nChoose another --id, or leave it out for a fresh one."),
        30412 => (REFUSED, "\n`natterjack agent ls` shows the labels there are."),
        30425 => (REFUSED, "\n`natterjack task get` shows why; `natterjack task requeue` gives it a new run."),
        30429 => (REFUSED, "\nTry again when some of its tasks are done."),
        _ => (REFUSED, ""),
    };
    Failure::new(code, format!("{}.{hint}", sentence(&error.description)))
}

/// With a capital letter and no full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.trim_end_matches('.').chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: &str, body: &str) -> Incoming {
        Incoming::new(b"_INBOX.x", b"", headers.as_bytes(), body.as_bytes())
    }

    #[test]
    fn errors_are_read_from_headers_and_body() {
        assert_eq!(api_error(&answer("", "{}")), None);
        let headers = "NATS/1.0\r\nNats-Service-Error: task not found\r\nNats-Service-Error-Code: 404\r\n\r\n";
        let body = r#"{"type":"x","error":{"code":404,"err_code":30404,"description":"task not found"}}"#;
        let error = api_error(&answer(headers, body)).unwrap();
        assert_eq!((error.code, error.err_code), (404, 30404));
        let failure = refused(&error);
        assert_eq!(failure.code, NOT_FOUND);
        assert_eq!(failure.text, "Task not found.\n`natterjack task ls` shows the tasks there are.");
        let bare = api_error(&answer(headers, "the record")).unwrap();
        assert_eq!((bare.code, bare.description.as_ref()), (404, "task not found"));
    }
}
