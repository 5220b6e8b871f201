//! The ports file and the pid file that scripts and test harnesses read, removed on a clean exit.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::StartError;
use crate::config::Config;

/// The files written for this run.
pub struct RunFiles {
    written: Vec<PathBuf>,
}

impl RunFiles {
    /// Writes what the configuration asks for: `<program>_<pid>.ports` as nats-server's, the pid without a newline.
    ///
    /// # Errors
    /// The file that could not be written.
    pub fn write(
        config: &Config,
        clients: Option<SocketAddr>,
        monitor: Option<SocketAddr>,
        websocket: Option<SocketAddr>,
    ) -> Result<RunFiles, StartError> {
        let mut files = RunFiles { written: Vec::new() };
        let pid = std::process::id();
        if let Some(path) = &config.pid_file {
            files.put(path, pid.to_string())?;
        }
        if let Some(folder) = &config.ports_file_dir {
            let urls = |scheme: &str, address: Option<SocketAddr>| -> Vec<String> {
                address.map(|address| format!("{scheme}://{}", super::reachable(address))).into_iter().collect()
            };
            let mut ports = serde_json::json!({ "nats": urls("nats", clients), "monitoring": urls("http", monitor) });
            if let Some(settings) = &config.websocket {
                let scheme = if settings.tls.is_some() { "wss" } else { "ws" };
                ports["websocket"] = urls(scheme, websocket).into();
            }
            files.put(&folder.join(format!("{}_{pid}.ports", program_name())), ports.to_string())?;
        }
        Ok(files)
    }

    fn put(&mut self, path: &Path, content: String) -> Result<(), StartError> {
        // Renamed into place, so that who polls for the file never reads half of it.
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, content)
            .and_then(|()| std::fs::rename(&temporary, path))
            .map_err(|source| StartError::File { path: path.display().to_string(), source })?;
        self.written.push(path.to_owned());
        Ok(())
    }

    /// These are the files now; others that were written are removed.
    pub fn replace(&mut self, files: RunFiles) {
        for path in self.written.iter().filter(|path| !files.written.contains(path)) {
            let _ = std::fs::remove_file(path);
        }
        *self = files;
    }

    /// Removes what was written.
    pub fn remove(&self) {
        for path in &self.written {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn program_name() -> String {
    std::env::args_os()
        .next()
        .and_then(|path| Path::new(&path).file_stem().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "natterjack".to_owned())
}
