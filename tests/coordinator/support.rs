//! A broker to test against: the one `NATS_SERVER_BIN` names.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use natterjack::client::{Client, ConnectOptions};

/// A broker with a store of its own; killed when dropped.
pub struct Broker {
    process: Option<Child>,
    port: u16,
    store: tempfile::TempDir,
}

impl Broker {
    /// Starts one on a free port with an empty store.
    pub fn start() -> Option<Broker> {
        let mut broker = Broker { process: None, port: 0, store: tempfile::tempdir().unwrap() };
        let Ok(binary) = std::env::var("NATS_SERVER_BIN") else {
            eprintln!("NOT RUN: NATS_SERVER_BIN is not set");
            return None;
        };
        broker.run(&binary);
        Some(broker)
    }

    fn run(&mut self, binary: &str) {
        let port = if self.port == 0 { "-1".to_owned() } else { self.port.to_string() };
        let mut process = Command::new(binary)
            .args(["-js", "-a", "127.0.0.1", "-p", &port, "-sd"])
            .arg(self.store.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        for line in lines.by_ref() {
            let line = line.unwrap();
            if let Some((_, address)) = line.split_once("Listening for client connections on ") {
                self.port = address.rsplit_once(':').unwrap().1.trim().parse().unwrap();
            }
            if line.contains("Server is ready") {
                break;
            }
        }
        assert_ne!(self.port, 0, "the server did not come up");
        // The pipe must be read to its end, or the server blocks on its log.
        std::thread::spawn(move || lines.for_each(drop));
        self.process = Some(process);
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it again on the same port and store.
    pub fn restart(&mut self) {
        self.kill();
        let binary = std::env::var("NATS_SERVER_BIN").unwrap();
        self.run(&binary);
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub async fn client(&self, name: &str) -> Client {
        let options = ConnectOptions { name: name.to_owned(), ..ConnectOptions::default() };
        Client::connect_with(&self.url(), options).await.unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}
