//! The two servers, each with a store of its own and the same limits.

use natterjack::config::file::read_text;
use natterjack::config::{Config, Limits};
use natterjack::server::Server;
use tokio::runtime::Runtime;

use crate::support::nats_server;
use crate::support::server::{self, Program};

/// natterjack, in this process.
pub struct Ours {
    server: Option<Server>,
    address: String,
    runtime: Runtime,
    _folder: tempfile::TempDir,
}

impl Ours {
    pub fn start() -> Result<Ours, String> {
        Ours::with("")
    }

    /// With these lines in its config file.
    pub fn with(lines: &str) -> Result<Ours, String> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|e| e.to_string())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|e| e.to_string())?;
        let config = Config {
            coordinator: false,
            monitor: None,
            limits: Limits { payload_bytes_max: 1 << 20, ..Limits::default() },
            ..Config::on_free_ports(folder.path())
        };
        let config = read_text(config, lines).map_err(|e| e.to_string())?;
        let server = runtime.block_on(Server::start(config)).map_err(|e| e.to_string())?;
        let address = server.client_address().ok_or("it does not listen")?.to_string();
        Ok(Ours { server: Some(server), address, runtime, _folder: folder })
    }

    pub fn address(&self) -> String {
        self.address.clone()
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }
}

/// The real nats-server, a process of its own.
pub struct Theirs(server::Server);

impl Theirs {
    pub fn start() -> Result<Theirs, String> {
        Theirs::with("")
    }

    pub fn with(lines: &str) -> Result<Theirs, String> {
        let path = nats_server::find()?;
        Ok(Theirs(server::Server::start(Program::nats_server(path).config(lines))?))
    }

    pub fn address(&self) -> String {
        self.0.address()
    }
}
