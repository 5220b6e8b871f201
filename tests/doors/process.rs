//! The real program in a process of its own, where memory and file handles are measured, and bare clients for it.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::PATIENCE;
use crate::support::server::{Program, Server};

pub const MIB: u64 = 1 << 20;

/// Memory is measured where /proc is.
pub fn can_measure() -> bool {
    let can = cfg!(target_os = "linux");
    if !can {
        println!("skipped: a process's memory is read from /proc");
    }
    can
}

/// How many of something a test uses: `usual`, or what the variable says.
pub fn number(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Lifts this process's limit on open files as far as it goes and returns it.
pub fn lift_file_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let lifted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = setrlimit(Resource::Nofile, lifted);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// A server with a config file of these lines.
pub struct Process {
    pub server: Server,
    _config: tempfile::NamedTempFile,
}

impl Process {
    pub fn start(lines: &str) -> Process {
        Process::start_program(Program::natterjack(), lines)
    }

    pub fn start_program(program: Program, lines: &str) -> Process {
        let mut config = tempfile::NamedTempFile::new().expect("a config file");
        writeln!(config, "coordinator: false\n{lines}").expect("a config file");
        let program = program.arg("-c").arg(config.path().display().to_string());
        let server = Server::start(program).unwrap_or_else(|error| panic!("{error}"));
        Process { server, _config: config }
    }

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.pid())).expect("the server lives");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a line for it");
        line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB").trim().parse::<u64>().expect("KiB") * 1024
    }

    /// Resident bytes now.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS")
    }

    /// The most that were resident since the start.
    pub fn resident_peak(&self) -> u64 {
        self.status("VmHWM")
    }

    /// Open file handles.
    pub fn handles(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.server.pid())).expect("the server lives").count()
    }

    pub fn log(&self) -> String {
        self.server.log_tail()
    }

    /// What monitoring answers on `path`.
    pub async fn get(&self, path: &str) -> Value {
        let text = http_get(&self.server.monitoring_url(), path).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    pub async fn count(&self, path: &str, field: &str) -> u64 {
        self.get(path).await[field].as_u64().unwrap_or_else(|| panic!("{path} has {field}"))
    }

    /// Returns once `field` of `path` is what is wanted.
    pub async fn until(&self, path: &str, field: &str, wanted: impl Fn(u64) -> bool) -> u64 {
        let began = Instant::now();
        loop {
            let now = self.count(path, field).await;
            if wanted(now) {
                return now;
            }
            assert!(began.elapsed() < PATIENCE, "{field} of {path} is {now}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Why connections ended, of the last thousand.
    pub async fn reasons(&self) -> Vec<String> {
        let closed = self.get("/connz?state=closed&limit=1000").await;
        let reason = |connection: &Value| connection["reason"].as_str().unwrap_or_default().to_owned();
        closed["connections"].as_array().expect("a list").iter().map(reason).collect()
    }

    /// `host:port` of the WebSocket listener.
    pub fn websocket(&self) -> String {
        self.server.websocket_address().expect("there is a WebSocket port")
    }

    pub async fn socket(&self) -> TcpStream {
        TcpStream::connect(self.server.address()).await.expect("the server listens")
    }

    /// A socket that has read INFO, said `text` and been answered PONG.
    pub async fn client(&self, text: &str) -> TcpStream {
        self.greet(self.socket().await, text).await
    }

    /// The same for one who will not read: little fits into its socket, so that hundreds do not use up the memory that the
    /// kernel has for all TCP connections.
    pub async fn non_reader(&self, text: &str) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(32 << 10).expect("a size");
        let address = self.server.address().parse().expect("an address");
        self.greet(socket.connect(address).await.expect("the server listens"), text).await
    }

    async fn greet(&self, mut socket: TcpStream, text: &str) -> TcpStream {
        let said = format!("CONNECT {{\"verbose\":false,\"headers\":true}}\r\n{text}PING\r\n");
        socket.write_all(said.as_bytes()).await.expect("the server reads");
        until(&mut socket, b"PONG\r\n").await;
        socket
    }
}

/// The body of an HTTP answer.
pub async fn http_get(url: &str, path: &str) -> String {
    let address = url.strip_prefix("http://").expect("a plain URL");
    let asked = async {
        let mut socket = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await.expect("an answer in time").expect("monitoring answers");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    body.to_owned()
}

/// Reads until `end` has come and returns all of it, or what came before the connection ended.
pub async fn until(socket: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    while !read.windows(end.len().max(1)).any(|window| window == end) {
        match tokio::time::timeout(PATIENCE, socket.read_buf(&mut read)).await.expect("an answer in time") {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    read
}

/// Sends a byte now and then, and returns what came back once the other end has closed.
pub async fn trickle(mut socket: TcpStream, bytes: &[u8], pause: Duration) -> Vec<u8> {
    let mut answer = Vec::new();
    let began = Instant::now();
    for byte in bytes.iter().cycle() {
        assert!(began.elapsed() < PATIENCE, "it is never cut: {}", String::from_utf8_lossy(&answer));
        let _ = socket.write_all(&[*byte]).await;
        match tokio::time::timeout(pause, socket.read_buf(&mut answer)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(_)) => tokio::time::sleep(pause).await,
            Err(_) => {}
        }
    }
    answer
}
