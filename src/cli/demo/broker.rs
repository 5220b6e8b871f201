//! The demo's broker: this very program as a child process, on a temporary folder.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::cli::failure::{Failure, UNREACHABLE};

/// How long a start may take, recovery included.
const START_DEADLINE: Duration = Duration::from_secs(15);
/// The ports file is looked for this often.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A running child. Dropping it kills it.
pub struct Broker {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Broker {
    /// Starts a broker with its store in `folder`, on a free port.
    ///
    /// # Errors
    /// It did not come up; the text holds the end of its log.
    pub async fn start(folder: &Path) -> Result<Broker, Failure> {
        Broker::start_on(folder, None).await
    }

    async fn start_on(folder: &Path, port: Option<u16>) -> Result<Broker, Failure> {
        let broken = |what: &str, error: std::io::Error| Failure::new(UNREACHABLE, format!("{what}: {error}."));
        let program = std::env::current_exe().map_err(|error| broken("Cannot find this program's own file", error))?;
        let child = Command::new(program)
            .arg("serve")
            .arg(format!("--port={}", port.map_or(-1, i32::from)))
            .arg("--http_port=0")
            .arg("--store_dir")
            .arg(folder.join("store"))
            .arg("--ports_file_dir")
            .arg(folder)
            .arg("--log")
            .arg(folder.join("log"))
            .env_remove("NATS_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| broken("Cannot start the broker", error))?;
        let mut broker = Broker { child, folder: folder.to_owned(), port: 0 };
        broker.port = broker.until_ready().await?;
        Ok(broker)
    }

    /// The port, once the child listens and has said so in its ports file.
    async fn until_ready(&mut self) -> Result<u16, Failure> {
        let name = self.program_name();
        let pid = self.child.id().unwrap_or_default();
        let path = self.folder.join(format!("{name}_{pid}.ports"));
        let wait = async {
            loop {
                if let Some(port) = std::fs::read(&path).ok().and_then(|text| port_in(&text)) {
                    return Ok(port);
                }
                if let Ok(Some(status)) = self.child.try_wait() {
                    return Err(format!("The broker ended at once ({status})."));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let outcome = tokio::time::timeout(START_DEADLINE, wait).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("The broker was not ready after {START_DEADLINE:?}.")));
        outcome.map_err(|text| Failure::new(UNREACHABLE, format!("{text} Its log ends:\n{}", self.log_end())))
    }

    fn program_name(&self) -> String {
        let program = std::env::current_exe().unwrap_or_default();
        program.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// SIGKILL: no drain, no flush, nothing written any more. Then the same store on the same port again.
    ///
    /// # Errors
    /// As for [`Broker::start`].
    pub async fn kill_and_restart(&mut self) -> Result<(), Failure> {
        let killed = self.child.kill().await;
        killed.map_err(|error| Failure::new(UNREACHABLE, format!("Cannot kill the broker: {error}.")))?;
        *self = Broker::start_on(&self.folder, Some(self.port)).await?;
        Ok(())
    }

    /// The last lines of the child's log.
    pub fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

fn port_in(ports_file: &[u8]) -> Option<u16> {
    let ports: serde_json::Value = serde_json::from_slice(ports_file).ok()?;
    ports["nats"][0].as_str()?.rsplit_once(':')?.1.parse().ok()
}

/// A folder that is removed with the value, unless it is kept.
pub struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    /// # Errors
    /// The temporary folder is not writable.
    pub fn create(keep: bool) -> Result<Folder, Failure> {
        let name = format!("natterjack-demo-{}-{}", std::process::id(), crate::types::id::unique());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)
            .map_err(|error| Failure::new(UNREACHABLE, format!("Cannot create {}: {error}.", path.display())))?;
        Ok(Folder { path, keep })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the folder where it is.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_a_whole_ports_file_only() {
        assert_eq!(port_in(br#"{"nats":["nats://127.0.0.1:4711"],"monitoring":[]}"#), Some(4711));
        for half in [&b""[..], br#"{"nats":["nats://127.0.0.1:47"#, b"{}"] {
            assert_eq!(port_in(half), None);
        }
    }
}
