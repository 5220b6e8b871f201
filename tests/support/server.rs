//! One server process on a free port and a folder of its own, which can be killed and started again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_DEADLINE: Duration = Duration::from_secs(20);
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// How a server is started: the program, its flags, and whether it is the real nats-server.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// nats-server has JetStream off and monitoring closed unless told otherwise.
    real: bool,
    /// Every nats-server write is synced to disk before its PubAck. Ours always does.
    sync_always: bool,
    /// Config lines that give nats-server what ours has by default.
    config: String,
    extra: Vec<String>,
    /// What one of its files may hold at most, in blocks of 512 bytes: a disk that is full sooner.
    file_blocks_max: Option<u64>,
}

impl Program {
    /// Our own binary, with its defaults.
    pub fn natterjack() -> Program {
        let path = PathBuf::from(env!("CARGO_BIN_EXE_natterjack"));
        Program {
            path,
            real: false,
            sync_always: false,
            config: String::new(),
            extra: Vec::new(),
            file_blocks_max: None,
        }
    }

    /// The real nats-server at `path`, with its defaults and JetStream on.
    pub fn nats_server(path: PathBuf) -> Program {
        Program {
            path,
            real: true,
            sync_always: false,
            config: String::new(),
            extra: Vec::new(),
            file_blocks_max: None,
        }
    }

    /// The program under test: ours, or the one that `NATTERJACK_TEST_SERVER` names (a real nats-server), by which a
    /// scenario itself can be checked.
    pub fn under_test() -> Program {
        match std::env::var_os("NATTERJACK_TEST_SERVER") {
            Some(path) => Program { config: "max_payload: 8MB".to_owned(), ..Program::nats_server(path.into()) },
            None => Program::natterjack(),
        }
    }

    pub fn sync_always(mut self) -> Program {
        assert!(self.real, "only nats-server acks before it syncs");
        self.sync_always = true;
        self
    }

    /// Lines of nats-server's config file.
    pub fn config(mut self, lines: &str) -> Program {
        assert!(self.real, "ours is told by flags");
        self.config = lines.to_owned();
        self
    }

    pub fn arg(mut self, arg: impl Into<String>) -> Program {
        self.extra.push(arg.into());
        self
    }

    /// None of its files grows beyond this.
    pub fn file_bytes_max(mut self, bytes: u64) -> Program {
        self.file_blocks_max = Some(bytes / 512);
        self
    }

    pub fn is_real(&self) -> bool {
        self.real
    }

    pub fn is_sync_always(&self) -> bool {
        self.sync_always
    }
}

/// A running server. Dropping it kills the process; its folder goes with it.
pub struct Server {
    program: Program,
    child: Option<Child>,
    dir: tempfile::TempDir,
    port: u16,
    monitoring_port: u16,
}

impl Server {
    /// Starts `program` on free ports and an empty store, and returns once it listens.
    ///
    /// # Errors
    /// When it exits or does not listen in time; the message ends with its log.
    pub fn start(program: Program) -> Result<Server, String> {
        let dir = tempfile::Builder::new()
            .prefix("server-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .map_err(|e| format!("a folder for the server: {e}"))?;
        let mut server = Server { program, child: None, dir, port: 0, monitoring_port: 0 };
        server.launch()?;
        Ok(server)
    }

    /// Starts it on `port`, with nothing waited for: a start-up measurement does that itself.
    pub fn spawn_on(program: Program, port: u16) -> Result<Server, String> {
        let mut server = Server {
            program,
            child: None,
            dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|e| e.to_string())?,
            port,
            monitoring_port: 0,
        };
        server.spawn().map_err(|e| format!("{:?}: {e}", server.program.path))?;
        Ok(server)
    }

    /// Starts a stopped or killed server again on the same ports and store.
    pub fn restart(&mut self) -> Result<(), String> {
        assert!(self.child.is_none(), "restart of a server that was not stopped");
        self.launch()
    }

    /// SIGKILL: no drain, no flush. Returns when the process is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child that was not waited for can be killed");
            child.wait().expect("a killed child can be waited for");
        }
    }

    /// SIGTERM, and waits for the exit.
    ///
    /// # Errors
    /// When it is not gone in time (it is then killed), or exits with a failure.
    pub fn stop(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let sent = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().map_err(|e| e.to_string())?;
        assert!(sent.success(), "SIGTERM to our own child");
        let deadline = Instant::now() + STOP_DEADLINE;
        loop {
            match child.try_wait().map_err(|e| e.to_string())? {
                // nats-server exits with 1 on SIGTERM; what ours exits with is its own tests' subject.
                Some(_) => return Ok(()),
                None if Instant::now() > deadline => {
                    child.kill().expect("a child that was not waited for can be killed");
                    child.wait().expect("a killed child can be waited for");
                    return Err(format!("no exit within {STOP_DEADLINE:?} of SIGTERM\n{}", self.log_tail()));
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running server").id()
    }

    pub fn is_real(&self) -> bool {
        self.program.real
    }

    /// `host:port` of the client listener.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `host:port` of the WebSocket listener, if there is one.
    pub fn websocket_address(&self) -> Option<String> {
        let url = self.ports()?["websocket"][0].as_str()?.to_owned();
        url.split_once("://").map(|(_, address)| address.trim_end_matches('/').to_owned())
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// Where monitoring listens, without a slash at the end.
    pub fn monitoring_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitoring_port)
    }

    /// Resident memory of the process in bytes.
    pub fn resident_bytes(&self) -> Result<u64, String> {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS line")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().map_err(|e| format!("VmRSS {line:?}: {e}"))?;
        Ok(kib * 1024)
    }

    /// Processor time that the process has used, user and system.
    pub fn cpu(&self) -> Duration {
        cpu_of(self.pid())
    }

    /// The last lines that the process wrote.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn launch(&mut self) -> Result<(), String> {
        self.spawn().map_err(|e| format!("{:?}: {e}", self.program.path))?;
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Some((port, monitoring_port)) = self.read_ports() {
                (self.port, self.monitoring_port) = (port, monitoring_port);
                return Ok(());
            }
            let child = self.child.as_mut().expect("just spawned");
            if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
                self.child = None;
                return Err(format!("{:?} did not start: {status}\n{}", self.program.path, self.log_tail()));
            }
            if Instant::now() > deadline {
                return Err(format!("{:?} wrote no ports file\n{}", self.program.path, self.log_tail()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn spawn(&mut self) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log"))?;
        // The shell lifts the limit on open files as far as it goes, then becomes the server: same pid.
        let mut command = Command::new("sh");
        // A write beyond the limit on sizes fails, instead of ending the process.
        let sizes = self.program.file_blocks_max.map(|max| format!("trap '' XFSZ && ulimit -f {max} && "));
        let script = format!("ulimit -n $(ulimit -Hn) && {}exec \"$0\" \"$@\"", sizes.unwrap_or_default());
        command.args(["-c", &script]).arg(&self.program.path);
        let port = |port: u16| if port == 0 { "-1".to_string() } else { port.to_string() };
        command.args(["-a", "127.0.0.1", "-p", &port(self.port), "-m", &port(self.monitoring_port)]);
        let store = self.dir.path().join("store");
        if self.program.real {
            let sync = if self.program.sync_always { ", sync_interval: always" } else { "" };
            let config = self.dir.path().join("server.conf");
            let lines = &self.program.config;
            // Who configures JetStream says nothing of its folder.
            if lines.contains("jetstream {") {
                fs::write(&config, lines)?;
                command.arg("-sd").arg(store);
            } else {
                fs::write(&config, format!("jetstream {{ store_dir: {store:?}{sync} }}\n{lines}\n"))?;
            }
            command.arg("-c").arg(config);
        } else {
            command.arg("-sd").arg(store);
        }
        // `--flag=value`, which every spelling of flags understands.
        command.arg(format!("--ports_file_dir={}", self.dir.path().display())).args(&self.program.extra);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// The bound ports, once the ports file of this very process is there and whole.
    fn read_ports(&self) -> Option<(u16, u16)> {
        let ports = self.ports()?;
        let first = |key: &str| ports[key][0].as_str()?.rsplit(':').next()?.trim_end_matches('/').parse().ok();
        Some((first("nats")?, first("monitoring")?))
    }

    fn ports(&self) -> Option<serde_json::Value> {
        let suffix = format!("_{}.ports", self.pid());
        let mut entries = fs::read_dir(self.dir.path()).ok()?.flatten();
        let file = entries.find(|entry| entry.file_name().to_string_lossy().ends_with(&suffix))?;
        serde_json::from_str(&fs::read_to_string(file.path()).ok()?).ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Processor time of a process that runs, or ended and was not waited for; to 10 ms, and zero where it cannot be told.
pub fn cpu_of(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field is the program's name in parentheses, which may hold anything: count from behind it. utime and
    // stime are fields 14 and 15, in ticks of 10 ms.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// A port that nobody listens on now. Somebody else may take it before its user does, so prefer port 0.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// Whether `path` lies on a file system in memory, where a sync costs nothing and comparisons of durability mean little.
pub fn is_memory_backed(path: &Path) -> bool {
    let Ok(mounts) = fs::read_to_string("/proc/mounts") else { return false };
    let best = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(mount, _)| path.starts_with(mount))
        .max_by_key(|(mount, _)| mount.len());
    best.is_some_and(|(_, kind)| kind == "tmpfs" || kind == "ramfs")
}
