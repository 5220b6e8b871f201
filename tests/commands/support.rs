//! A broker in this process, and the program run against it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use natterjack::client::{Client, ConnectOptions};
use natterjack::config::Config;
use natterjack::server::Server;
use serde_json::Value;

pub struct World {
    pub server: Server,
    _folder: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// What it printed; it must have ended well.
    pub fn fine(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    pub fn json(self) -> Value {
        let text = self.fine();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

impl World {
    pub async fn start() -> World {
        World::start_with(|config| config).await
    }

    pub async fn start_with(set: impl FnOnce(Config) -> Config) -> World {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(set(Config::on_free_ports(folder.path()))).await.unwrap();
        World { server, _folder: folder }
    }

    pub fn url(&self) -> String {
        self.server.client_url()
    }

    pub async fn client(&self, name: &str) -> Client {
        let options = ConnectOptions { name: name.to_owned(), ..ConnectOptions::default() };
        Client::connect_with(&self.url(), options).await.unwrap()
    }

    /// The program's command line, aimed at this broker.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_natterjack"));
        command.args(arguments).env("NATS_URL", self.url()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub async fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, b"").await
    }

    /// Runs it with something on its standard input.
    pub async fn run_with(&self, arguments: &[&str], input: &'static [u8]) -> Ended {
        let mut command = self.command(arguments);
        // The broker is in this process, so its threads must not wait for the child.
        tokio::task::spawn_blocking(move || {
            let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
            // Who reads no input may be gone already.
            let _ = child.stdin.take().unwrap().write_all(input);
            let output = child.wait_with_output().unwrap();
            Ended {
                code: output.status.code(),
                stdout: String::from_utf8(output.stdout).unwrap(),
                stderr: String::from_utf8(output.stderr).unwrap(),
            }
        })
        .await
        .unwrap()
    }
}
