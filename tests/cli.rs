//! The program as a person or a script starts it: log lines, files, refusals, exit codes.

#![allow(clippy::disallowed_methods, reason = "deadlines of real processes are kept by real clocks")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

#[path = "support/mod.rs"]
mod support;

fn natterjack() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_natterjack"));
    for variable in ["NATS_URL", "NATTERJACK_PASSWORD", "NATTERJACK_TOKEN"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

/// A serving child, killed when dropped.
struct Serving {
    child: Child,
    /// What it logged until it was ready.
    log: Vec<String>,
    reader: BufReader<std::process::ChildStderr>,
}

impl Serving {
    fn start(store: &Path, flags: &[&str]) -> Serving {
        let mut command = natterjack();
        command.args(["-p", "-1", "-m", "-1", "-sd"]).arg(store).args(flags);
        Serving::spawn(command)
    }

    fn spawn(mut command: Command) -> Serving {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let reader = BufReader::new(child.stderr.take().unwrap());
        let mut serving = Serving { child, log: Vec::new(), reader };
        while serving.logged("Server is ready").is_none() {
            let mut line = String::new();
            let read = serving.reader.read_line(&mut line).unwrap();
            assert!(read > 0, "it ended before it was ready: {:?}", serving.log);
            serving.log.push(line.trim_end().to_owned());
        }
        serving
    }

    fn logged(&self, what: &str) -> Option<&str> {
        self.log.iter().find_map(|line| line.split_once(what)).map(|(_, rest)| rest)
    }

    /// Reads on until a line holds `what`, and returns that line.
    fn wait_for(&mut self, what: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.reader.read_line(&mut line).unwrap();
            assert!(read > 0, "it ended before it said {what:?}: {:?}", self.log);
            let line = line.trim_end().to_owned();
            self.log.push(line.clone());
            if line.contains(what) {
                return line;
            }
        }
    }

    fn port(&self) -> u16 {
        self.logged("Listening for client connections on 127.0.0.1:").unwrap().parse().unwrap()
    }

    #[cfg(unix)]
    fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// The exit code and the rest of the log.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.reader.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = natterjack().args(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
#[cfg(unix)]
fn it_says_where_everything_is_and_stops_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let pid_file = folder.path().join("pid");
    let flags = ["-P", pid_file.to_str().unwrap(), "--ports_file_dir", folder.path().to_str().unwrap()];
    let serving = Serving::start(&store, &flags);
    let pid = serving.child.id();
    let port = serving.port();
    // nats-server's shape: [pid] date time [level] text, in this order.
    let place =
        |text: &str| serving.log.iter().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}"));
    assert!(place("Listening for client connections on") < place("Store Directory: "));
    assert!(place("Store Directory: ") < place("Server is ready"));
    assert_eq!(serving.logged("Store Directory: "), Some(format!("{:?}", store.display().to_string()).as_str()));
    assert!(
        serving.log.iter().all(|line| line.starts_with(&format!("[{pid}] 2")) && line.contains(" [")),
        "{:?}",
        serving.log
    );
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap(), pid.to_string());
    let ports_file = folder.path().join(format!("natterjack_{pid}.ports"));
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(&ports_file).unwrap()).unwrap();
    assert_eq!(ports["nats"][0], format!("nats://127.0.0.1:{port}"));
    assert!(ports["monitoring"][0].as_str().unwrap().starts_with("http://127.0.0.1:"));

    serving.signal("TERM");
    let (code, rest) = serving.end();
    assert_eq!(code, Some(0), "{rest}");
    assert!(rest.contains("Server Exiting.."), "{rest}");
    assert!(!pid_file.exists() && !ports_file.exists(), "files of the run are gone");
}

#[test]
fn a_port_in_use_is_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(&folder.path().join("a"), &[]);
    let port = serving.port().to_string();
    let other = folder.path().join("b");
    let (code, _, stderr) = run(&["-p", &port, "-m", "0", "-sd", other.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("Error listening on port: 127.0.0.1"), "{stderr}");
    assert!(stderr.contains("choose another port with -p"), "{stderr}");
}

#[test]
fn commands_without_a_server_say_what_to_do() {
    // Port 1 is nobody's.
    let (code, stdout, stderr) = run(&["task", "ls", "-s", "nats://127.0.0.1:1"]);
    assert_eq!((code, stdout.as_str()), (Some(5), ""));
    assert!(stderr.contains("Start one with `natterjack`"), "{stderr}");
    let (code, _, stderr) = run(&["agent", "ls", "-s", "http://x"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("nats://127.0.0.1:4222"), "{stderr}");
    let (code, _, stderr) = run(&["--no-such-flag"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--help"), "{stderr}");
}

#[test]
fn version_and_help() {
    let (code, stdout, _) = run(&["--version"]);
    assert_eq!((code, stdout.trim()), (Some(0), concat!("natterjack ", env!("CARGO_PKG_VERSION"))));
    let (code, stdout, _) = run(&["-help"]);
    assert_eq!(code, Some(0));
    for word in ["demo", "task", "agent", "--port", "--store_dir", "Examples:"] {
        assert!(stdout.contains(word), "{stdout}");
    }
}

/// The program under the name `nats-server`, with that program's defaults but for the address.
#[cfg(unix)]
fn nats_server(folder: &Path) -> Command {
    let path = folder.join("nats-server");
    if !path.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_natterjack"), &path).unwrap();
    }
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).current_dir(folder);
    command
}

#[test]
#[cfg(unix)]
fn a_server_that_others_reach_asks_who_they_are_or_is_told_not_to() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let open = ["-a", "0.0.0.0", "-p", "-1", "-m", "0", "-sd", store.to_str().unwrap()];
    let (code, _, stderr) = run(&open);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("nobody is asked who they are") && stderr.contains("--allow_open"), "{stderr}");
    let config = write(folder.path(), "w.conf", "websocket { listen: \"0.0.0.0:-1\", no_tls: true }\n");
    let (code, _, stderr) =
        run(&["-c", config.to_str().unwrap(), "-p", "-1", "-m", "0", "-sd", store.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("w.conf:1") && stderr.contains("allow_open: true"), "{stderr}");
    assert!(!store.exists());
    for more in ["--allow_open", "--auth=t"] {
        let mut command = natterjack();
        command.args(open).arg(more);
        let mut serving = Serving::spawn(command);
        let warned = serving.logged("nobody is asked who they are").is_some();
        assert_eq!(warned, more == "--allow_open", "{:?}", serving.log);
        serving.child.kill().unwrap();
        serving.child.wait().unwrap();
    }
    // As nats-server it warns.
    let link = folder.path().join("nats-server");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_natterjack"), &link).unwrap();
    let mut command = Command::new(&link);
    command.args(["-a", "0.0.0.0", "-p", "-1"]).stdin(Stdio::null());
    let mut serving = Serving::spawn(command);
    assert!(serving.logged("nobody is asked who they are").is_some(), "{:?}", serving.log);
    serving.child.kill().unwrap();
    serving.child.wait().unwrap();
}

/// By flags as nats-server has them, or by variables that the list of processes does not show.
#[test]
fn one_user_or_token_comes_by_flag_or_by_variable() {
    const SECRET: &str = "s3cret-of-all";
    for (flags, variable, good, bad) in [
        (
            &["--user", "ada", "--pass", SECRET][..],
            None,
            format!(r#""user":"ada","pass":"{SECRET}""#),
            r#""user":"ada""#,
        ),
        (&["--user=ada"], Some("NATTERJACK_PASSWORD"), format!(r#""user":"ada","pass":"{SECRET}""#), r#""user":"ada""#),
        (&["--auth", SECRET], None, format!(r#""auth_token":"{SECRET}""#), r#""auth_token":"x""#),
        (&[], Some("NATTERJACK_TOKEN"), format!(r#""auth_token":"{SECRET}""#), r#""name":"x""#),
        (
            &["--auth", "said"],
            Some("NATTERJACK_TOKEN"),
            r#""auth_token":"said""#.to_owned(),
            r#""auth_token":"s3cret-of-all""#,
        ),
    ] {
        let store = tempfile::tempdir().unwrap();
        let mut command = natterjack();
        command.args(["-p", "-1", "-m", "0", "-sd"]).arg(store.path()).args(flags);
        command.envs(variable.map(|variable| (variable, SECRET)));
        let serving = Serving::spawn(command);
        for (login, expected) in [(&*good, "PONG"), (bad, "-ERR 'Authorization Violation'")] {
            let mut connection =
                Connection { socket: BufReader::new(TcpStream::connect(("127.0.0.1", serving.port())).unwrap()) };
            assert!(connection.line().contains(r#""auth_required":true"#));
            connection.send(&format!("CONNECT {{\"verbose\":false,{login}}}\r\nPING\r\n"));
            assert_eq!(connection.line(), expected, "{flags:?} {variable:?} {login}");
        }
        if variable.is_some() && cfg!(target_os = "linux") {
            let shown = std::fs::read_to_string(format!("/proc/{}/cmdline", serving.child.id())).unwrap();
            assert!(shown.contains("-sd") && !shown.contains(SECRET), "{shown}");
        }
        assert!(!serving.log.iter().any(|line| line.contains(SECRET)), "{:?}", serving.log);
    }
    let help = natterjack().arg("--help").env("NATTERJACK_TOKEN", SECRET).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(
        help.contains("NATTERJACK_TOKEN") && help.contains("NATTERJACK_PASSWORD") && !help.contains(SECRET),
        "{help}"
    );
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A client that has said CONNECT and had its PONG.
struct Connection {
    socket: BufReader<TcpStream>,
}

impl Connection {
    fn open(port: u16) -> Connection {
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let mut connection = Connection { socket: BufReader::new(socket) };
        assert!(connection.line().starts_with("INFO "));
        connection.send("CONNECT {\"verbose\":false,\"protocol\":1,\"pass\":\"s3cret\"}\r\nPING\r\n");
        while connection.line() != "PONG" {}
        connection
    }

    fn send(&mut self, text: &str) {
        self.socket.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// The next line; empty at the end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.socket.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

#[test]
#[cfg(unix)]
fn called_nats_server_it_has_its_defaults_and_reads_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, _) = output(nats_server(folder.path()).arg("-v"));
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("nats-server: v2.14."), "{stdout}");

    let config =
        write(folder.path(), "server.conf", "host: 127.0.0.1\nport: 1\ninclude more.conf\ncluster { name: c }\n");
    write(folder.path(), "more.conf", "server_name: box\njetstream { store_dir: data, max_file: 1GB }\n");
    let mut command = nats_server(folder.path());
    // A flag beats the file.
    command.arg("-c").arg(&config).args(["-port", "-1", "--ports_file_dir", "."]);
    let serving = Serving::spawn(command);
    assert_eq!(serving.logged("Store Directory: "), Some("\"data\""));
    assert!(serving.log.iter().any(|line| line.contains("[WRN]") && line.contains("\"cluster\" is ignored")));
    assert!(serving.logged("http monitor").is_none(), "monitoring is off unless asked for");
    let port = serving.port();
    let mut info = BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
    let mut line = String::new();
    info.read_line(&mut line).unwrap();
    assert!(line.contains("\"server_name\":\"box\"") && line.contains("\"max_payload\":1048576"), "{line}");
    let ports = folder.path().join(format!("nats-server_{}.ports", serving.child.id()));
    assert!(ports.exists(), "the ports file has the program's name");
}

/// A process in namespaces of its own, ended with all that is in them.
#[cfg(target_os = "linux")]
struct Container(Serving);

#[cfg(target_os = "linux")]
impl Container {
    /// As a container's first process, with a network of its own.
    fn start(command: &Command) -> Result<Container, String> {
        let isolate = ["--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child"];
        let unshare = || {
            let mut unshare = Command::new("unshare");
            unshare.args(isolate).args(["sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]).stdin(Stdio::null());
            unshare
        };
        let tried = unshare().arg("true").output().map_err(|error| format!("unshare: {error}"))?;
        if !tried.status.success() {
            return Err(String::from_utf8_lossy(&tried.stderr).into_owned());
        }
        let mut unshare = unshare();
        unshare.arg(command.get_program()).args(command.get_args());
        Ok(Container(Serving::spawn(unshare)))
    }

    /// The served process as it is known outside.
    fn pid(&self) -> String {
        let parent = self.0.child.id();
        let children = format!("/proc/{parent}/task/{parent}/children");
        std::fs::read_to_string(children).unwrap().trim().to_owned()
    }

    /// Runs a command inside.
    fn exec(&self, line: &str) -> bool {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &self.pid(), "--user", "--preserve-credentials", "--net"]).args(line.split(' '));
        nsenter.stdin(Stdio::null()).status().unwrap().success()
    }
}

/// CodeForge's: `nats:… --jetstream --store_dir /data`, and its health check.
#[test]
#[cfg(target_os = "linux")]
fn started_as_in_a_container_it_answers_health_checks_and_stops_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = nats_server(folder.path());
    command.arg("--jetstream").arg("--store_dir").arg(&data);
    let container = support::toolchain::or_skip("a start as in a container", Container::start(&command));
    let Some(container) = container else { return };
    let log = container.0.log.join("\n");
    assert!(log.contains("[1] ") && log.contains("Starting http monitor on 127.0.0.1:8222"), "{log}");
    assert!(container.exec("wget --spider -q http://localhost:8222/healthz"));
    assert!(container.exec("wget -q -O /dev/null http://localhost:8222/healthz"));
    assert!(!container.exec("wget --spider -q http://localhost:8222/nowhere"));
    // Every address is those of IPv6 too.
    let hello = write(
        folder.path(),
        "hello.sh",
        r#"exec 3<>"/dev/tcp/$1/4222"; read -r info <&3; [[ $info == *"\"host\":\"0.0.0.0\""*"\"client_ip\":\"$1\""* ]]"#,
    );
    for address in ["127.0.0.1", "::1"] {
        assert!(container.exec(&format!("bash {} {address}", hello.display())), "{address}");
    }
    assert!(data.is_dir());
    let killed = Command::new("kill").args(["-TERM", &container.pid()]).status().unwrap();
    assert!(killed.success());
    let (code, rest) = container.0.end();
    assert_eq!(code, Some(0), "{rest}");
    assert!(rest.contains("Server Exiting.."), "{rest}");

    // A volume that cannot be written.
    let mut command = nats_server(folder.path());
    let (code, stdout, stderr) = output(command.args(["-p", "-1", "--jetstream", "--store_dir", "/sys/data"]));
    assert_eq!((code, &*stdout), (Some(1), ""));
    assert!(stderr.contains("store") && stderr.contains("/sys/data"), "{stderr}");
}

#[test]
#[cfg(unix)]
fn configuration_files_are_tested_and_refused_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let good = write(folder.path(), "good.conf", "port: 4222 # fine\nmqtt {}\n");
    let (code, _, stderr) = output(nats_server(folder.path()).arg("-t").arg("-c").arg(&good));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains(&format!("nats-server: configuration file {} is valid", good.display())), "{stderr}");
    let check = |text: &str, expected: &str| {
        let bad = write(folder.path(), "bad.conf", text);
        for test in [true, false] {
            let mut command = nats_server(folder.path());
            command.arg("--config").arg(&bad).args(test.then_some("-t"));
            let (code, _, stderr) = output(&mut command);
            assert_eq!(code, Some(1), "{text}: {stderr}");
            assert!(stderr.starts_with("nats-server: ") && stderr.contains(expected), "{text}: {stderr}");
        }
    };
    check("{\n  \"port\": : \"invalid syntax\"\n}", "Parse error on line 2: ");
    check("prot: 1", "bad.conf:1:1: unknown field \"prot\"; did you mean \"port\"?");
    check("max_payload: 1TB", "max_payload value is too big");
    // What only a start would come upon.
    check("port: -1\nmax_payload: 128MB", "bad.conf:2:1: max_payload must be at most 64 MiB");
    check(
        "authorization { users: [\n  {user: a, password: x}\n  {user: a, password: y}\n] }",
        "bad.conf:3:10: Duplicate user \"a\" detected",
    );
    check("port: -1\nno_auth_user: nobody", "bad.conf:2:1: no_auth_user: \"nobody\" not present");
    let tls = "port: -1\ntls { cert_file: \"nowhere.pem\", key_file: \"nowhere.key\" }";
    check(tls, "bad.conf:2:5: error parsing X509 certificate/key pair: nowhere.pem: ");
    let file = write(folder.path(), "file", "mine");
    check(&format!("port: -1\njetstream {{ store_dir: {file:?} }}"), "storage directory is not a directory");
    check(
        "port: $NATTERJACK_TEST_NOWHERE",
        "variable reference for 'NATTERJACK_TEST_NOWHERE' on line 1 can not be found",
    );
    let (code, _, stderr) = output(nats_server(folder.path()).args(["-c", "missing.conf"]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("error opening config file: open missing.conf: no such file or directory"), "{stderr}");
    let (code, _, stderr) = output(nats_server(folder.path()).arg("-t"));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("must specify [-c, --config]"), "{stderr}");
}

#[test]
fn a_store_that_is_a_file_is_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "file", "mine");
    let (code, _, stderr) = run(&["-p", "-1", "-m", "0", "-sd", file.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("storage directory is not a directory"), "{stderr}");
    assert!(stderr.contains("choose another folder"), "{stderr}");
}

#[test]
#[cfg(unix)]
fn clients_are_sent_away_in_lame_duck_mode() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "c.conf", "lame_duck_duration: 30s\nlame_duck_grace_period: 10ms\n");
    let pid_file = folder.path().join("pid");
    let flags = ["-c", config.to_str().unwrap(), "-P", pid_file.to_str().unwrap()];
    let mut serving = Serving::start(&folder.path().join("store"), &flags);
    let port = serving.port();
    let mut first = Connection::open(port);
    let mut second = Connection::open(port);
    let (code, _, stderr) = run(&["--signal", &format!("ldm={}", pid_file.display())]);
    assert_eq!(code, Some(0), "{stderr}");
    serving.wait_for("Entering lame duck mode, stop accepting new clients");
    for connection in [&mut first, &mut second] {
        // An INFO after the first PING may still be on its way.
        let mut line = connection.line();
        while line.starts_with("INFO ") && !line.contains("\"ldm\":true") {
            line = connection.line();
        }
        assert!(line.starts_with("INFO ") && line.contains("\"ldm\":true"), "{line}");
        assert_eq!(connection.line(), "", "then it is closed");
    }
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "nobody new is taken");
    let (code, rest) = serving.end();
    assert_eq!(code, Some(0), "{rest}");
    assert!(rest.contains("Server Exiting.."), "{rest}");
}

#[test]
#[cfg(unix)]
fn the_log_is_reopened_and_its_settings_reloaded() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let config = write(folder.path(), "c.conf", "debug: false\n");
    let mut serving = Serving::start(&folder.path().join("store"), &["-c", config.to_str().unwrap()]);
    let port = serving.port();
    drop(Connection::open(port));

    write(folder.path(), "c.conf", "debug: true, trace: true, max_traced_msg_len: 3\nport: 1\n");
    serving.signal("HUP");
    serving.wait_for("Reloaded: log");
    let mut connection = Connection::open(port);
    connection.send("SUB foo 1\r\nPUB foo 5\r\nhello\r\n");
    let created = serving.wait_for("Client connection created");
    assert!(created.contains("[DBG] 127.0.0.1:"), "{created}");
    let connect = serving.wait_for("<<- [CONNECT {");
    assert!(!connect.contains("s3cret"), "{connect}");
    for expected in [
        "<<- [PING]",
        "->> [PONG]",
        "<<- [SUB foo 1]",
        "<<- [PUB foo 5]",
        "<<- MSG_PAYLOAD: [\"hel...\"]",
        "->> [MSG foo 1 5]",
    ] {
        let line = serving.wait_for(expected);
        assert!(line.contains("[TRC] 127.0.0.1:") && line.contains(" - cid:"), "{line}");
    }
    assert!(!serving.log.iter().any(|line| line.contains("port changed")), "-p says another port anyway");

    write(folder.path(), "c.conf", "debug: maybe\n");
    serving.signal("HUP");
    let failed = serving.wait_for("Failed to reload server configuration");
    assert!(failed.contains("c.conf:1:8: expected true or false"), "{failed}");

    write(folder.path(), "c.conf", &format!("log_file: {}\n", log.display()));
    serving.signal("HUP");
    let logged = |path: &Path, what: &str| {
        for tries in 0.. {
            if std::fs::read_to_string(path).unwrap_or_default().contains(what) {
                break;
            }
            assert!(tries < 3_000, "{what}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    logged(&log, "Reloaded server configuration");
    std::fs::rename(&log, folder.path().join("moved")).unwrap();
    serving.signal("USR1");
    logged(&log, "File log re-opened");

    let as_json = |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok();
    write(
        folder.path(),
        "c.conf",
        &format!("log_file: {}\nlog_format: json, trace: true, prof_port: 6060\n", log.display()),
    );
    serving.signal("HUP");
    logged(&log, "\"Reloaded server configuration\"");
    drop(Connection::open(port));
    logged(&log, "<<- [PING]");
    write(folder.path(), "c.conf", &format!("log_file: {}\nlog_format: json\nport: x\n", log.display()));
    serving.signal("HUP");
    logged(&log, "Failed to reload");
    let text = std::fs::read_to_string(&log).unwrap();
    let of = |level: &str, what: &str| {
        let line = text.lines().find(|line| as_json(line) && line.contains(what)).unwrap_or_else(|| panic!("{text}"));
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["level"] == level && line["text"].as_str().unwrap().contains(what), "{line}");
    };
    of("trace", "<<- [CONNECT {");
    of("error", "Failed to reload server configuration");
    of("warn", "is ignored: ");
    write(folder.path(), "c.conf", &format!("log_file: {}\nlog_format: text\n", log.display()));
    serving.signal("HUP");
    logged(&log, "[INF] Reloaded server configuration");
}

#[test]
#[cfg(unix)]
fn the_configuration_is_reloaded_by_signal_and_by_request() {
    let folder = tempfile::tempdir().unwrap();
    let text = |password: &str, more: &str| {
        format!(
            "authorization {{ users: [ {{user: a, password: {password}}} ] }}\naccounts {{ $SYS {{ users: [ {{user: s, password: s}} ] }} }}\n{more}"
        )
    };
    let config = write(folder.path(), "c.conf", &text("one", ""));
    let mut serving = Serving::start(&folder.path().join("store"), &["-c", config.to_str().unwrap()]);
    let port = serving.port();
    let open = |user: &str, password: &str| {
        let mut connection = Connection { socket: BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap()) };
        let info = connection.line();
        connection
            .send(&format!("CONNECT {{\"verbose\":false,\"user\":\"{user}\",\"pass\":\"{password}\"}}\r\nPING\r\n"));
        let answer = connection.line();
        (connection, info, answer)
    };
    let (mut user, info, answer) = open("a", "one");
    assert_eq!(answer, "PONG");
    let (mut system, ..) = open("s", "s");

    write(folder.path(), "c.conf", &text("two", ""));
    serving.signal("HUP");
    serving.wait_for("Reloaded: authorization users");
    serving.wait_for("Reloaded server configuration");
    assert_eq!(user.line(), "-ERR 'Authorization Violation'");
    assert_eq!(open("a", "one").2, "-ERR 'Authorization Violation'");
    assert_eq!(open("a", "two").2, "PONG");

    let info: serde_json::Value = serde_json::from_str(info.strip_prefix("INFO ").unwrap()).unwrap();
    let id = info["server_id"].as_str().unwrap();
    let mut ask = |more: &str| {
        write(folder.path(), "c.conf", &text("three", more));
        system.send(&format!("SUB r 1\r\nUNSUB 1 1\r\nPUB $SYS.REQ.SERVER.{id}.RELOAD r 0\r\n\r\n"));
        let head = system.line();
        assert!(head.starts_with("MSG r 1 "), "{head}");
        serde_json::from_str::<serde_json::Value>(&system.line()).unwrap()
    };
    let refused = ask("server_name: other\n");
    assert_eq!(refused["error"]["code"], 500);
    let why = refused["error"]["description"].as_str().unwrap();
    assert_eq!(why, "config reload not supported for server_name: old=, new=other");
    let refused = ask("foo {\n");
    assert!(refused["error"]["description"].as_str().unwrap().contains("Parse error on line"), "{refused}");
    assert_eq!(open("a", "two").2, "PONG", "nothing has changed");
    let done = ask("max_payload: 2000\n");
    assert!(done["error"].is_null() && done["server"]["id"] == id, "{done}");
    assert_eq!(open("a", "three").2, "PONG");
    serving.wait_for("Reloaded: max_payload = 2000");
}

#[test]
fn a_password_is_hashed_for_the_config_file() {
    let hash = |arguments: &[&str], typed: &str| {
        let mut command = natterjack();
        command.args(["passwd", "--cost", "4"]).args(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program is there");
        child.stdin.take().expect("a pipe").write_all(typed.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text").trim_end().to_owned();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, typed, said) = hash(&[], "open sesame\nnot this\n");
    assert_eq!((code, &*said), (Some(0), ""));
    let (code, generated, said) = hash(&["--generate"], "");
    let made_up = said.strip_prefix("Password: ").expect("what it made up");
    assert_eq!((code, made_up.len()), (Some(0), 22));
    let (code, _, said) = hash(&[], &"x".repeat(73));
    assert_eq!(code, Some(2));
    assert!(said.contains("of which bcrypt reads 72"), "{said}");
    let (code, _, said) = hash(&[], "");
    assert_eq!(code, Some(2));
    assert!(said.contains("There is no password"), "{said}");

    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "authorization {{ users: [ {{user: a, password: \"{typed}\"}}, {{user: b, password: \"{generated}\"}} ] }}\n"
    );
    let config = write(folder.path(), "c.conf", &text);
    let serving = Serving::start(&folder.path().join("store"), &["-c", config.to_str().unwrap()]);
    let answer = |user: &str, password: &str| {
        let mut connection =
            Connection { socket: BufReader::new(TcpStream::connect(("127.0.0.1", serving.port())).unwrap()) };
        connection.line();
        connection
            .send(&format!("CONNECT {{\"verbose\":false,\"user\":\"{user}\",\"pass\":\"{password}\"}}\r\nPING\r\n"));
        connection.line()
    };
    assert_eq!(answer("a", "open sesame"), "PONG");
    assert_eq!(answer("b", made_up), "PONG");
    assert_eq!(answer("a", made_up), "-ERR 'Authorization Violation'");
    assert_eq!(answer("a", &typed), "-ERR 'Authorization Violation'", "the hash itself lets nobody in");
}

#[test]
#[cfg(unix)]
fn a_server_without_a_file_is_not_reloaded() {
    let folder = tempfile::tempdir().unwrap();
    let mut serving = Serving::start(&folder.path().join("store"), &[]);
    serving.signal("HUP");
    let failed = serving.wait_for("Failed to reload server configuration");
    assert!(failed.contains("can only reload config when a file is provided using -c or --config"), "{failed}");
}

#[test]
#[cfg(unix)]
fn a_signal_is_sent_by_process_id_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(&folder.path().join("store"), &[]);
    let (code, _, stderr) = run(&["-sl", "dance=1"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("unknown signal \"dance\""), "{stderr}");
    let (code, _, stderr) = run(&["-sl", &format!("quit={}", serving.child.id())]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(serving.end().0, Some(0));
}

/// By a name of its own: signals without a process id go to whoever has the program's.
#[test]
#[cfg(unix)]
fn every_signal_is_sent_by_the_program_itself_with_a_process_id_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join(format!("nj{}", std::process::id()));
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_natterjack"), &link).unwrap();
    let config = write(folder.path(), "c.conf", "debug: true\n");
    let serve = || {
        let mut command = Command::new(&link);
        command.args(["-p", "-1", "-m", "-1", "-sd"]).arg(folder.path().join("store")).arg("-c").arg(&config);
        Serving::spawn(command)
    };
    let send = |request: &str| {
        let Output { status, stderr, .. } = Command::new(&link).args(["--signal", request]).output().unwrap();
        assert_eq!(status.code(), Some(0), "{request}: {}", String::from_utf8_lossy(&stderr));
    };
    let mut serving = serve();
    for whom in [format!("={}", serving.child.id()), String::new()] {
        send(&format!("reopen{whom}"));
        serving.wait_for("Trapped \"user defined signal 1\" signal");
        send(&format!("reload{whom}"));
        serving.wait_for("Trapped \"hangup\" signal");
        serving.wait_for("Reloaded server configuration");
    }
    send(&format!("term={}", serving.child.id()));
    assert_eq!(serving.end().0, Some(0));
    let serving = serve();
    send("term");
    assert_eq!(serving.end().0, Some(0));
    let serving = serve();
    send(&format!("stop={}", serving.child.id()));
    assert_eq!(serving.end().0, None, "killed");
    let serving = serve();
    send("stop");
    assert_eq!(serving.end().0, None);
    let Output { status, stderr, .. } = Command::new(&link).args(["--signal", "stop"]).output().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(String::from_utf8_lossy(&stderr).contains("processes running"), "nobody is left");
}

#[test]
#[cfg(unix)]
fn declared_streams_are_there_and_follow_their_declaration() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let declared = |text: &str| write(folder.path(), "c.conf", &format!("streams {{ {text} }}\n"));
    let ask = |port: u16, subject: &str| {
        let mut connection = Connection::open(port);
        connection.send(&format!("SUB answer 1\r\nPUB $JS.API.{subject} answer 0\r\n\r\n"));
        loop {
            let line = connection.line();
            if line.starts_with('{') {
                return serde_json::from_str::<serde_json::Value>(&line).unwrap();
            }
            assert!(!line.is_empty(), "the connection has ended");
        }
    };
    let start = |config: &Path| Serving::start(&store, &["-c", config.to_str().unwrap()]);

    let serving = start(&declared("JOBS { subjects: [jobs.>], max_age: 1h, consumers { workers { ack_wait: 5s } } }"));
    let stream = ask(serving.port(), "STREAM.INFO.JOBS");
    assert_eq!(stream["config"]["max_age"], 3_600_000_000_000_u64, "{stream}");
    let consumer = ask(serving.port(), "CONSUMER.INFO.JOBS.workers");
    assert_eq!(consumer["config"]["ack_wait"], 5_000_000_000_u64, "{consumer}");
    serving.signal("TERM");
    assert_eq!(serving.end().0, Some(0));

    let serving = start(&declared("JOBS { subjects: [jobs.>, more.*], max_age: 2h }\nOTHER { subjects: other }"));
    let stream = ask(serving.port(), "STREAM.INFO.JOBS");
    assert_eq!(stream["config"]["max_age"], 7_200_000_000_000_u64, "{stream}");
    assert_eq!(stream["state"]["consumer_count"], 1, "what is no longer declared stays");
    serving.signal("TERM");
    assert_eq!(serving.end().0, Some(0));

    let config = declared("JOBS { subjects: [jobs.>], storage: memory }");
    let (code, _, stderr) =
        run(&["-c", config.to_str().unwrap(), "-p", "-1", "-m", "0", "-sd", store.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("c.conf:1:11: the stream \"JOBS\" cannot be as it is declared"), "{stderr}");
    let (code, _, stderr) = run(&["-c", config.to_str().unwrap(), "--no-jetstream", "-p", "-1", "-m", "0"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("stream \"JOBS\" is declared, but JetStream is off"), "{stderr}");
}

#[cfg(unix)]
#[test]
fn the_log_is_json_on_request() {
    let store = tempfile::tempdir().unwrap();
    let serving = Serving::start(store.path(), &["--log_format", "json"]);
    let begun = serving.log.clone();
    serving.signal("TERM");
    let (status, rest) = serving.end();
    assert!(status == Some(0) && begun.len() > 3 && !rest.is_empty(), "{begun:?} {rest}");
    for line in begun.iter().map(String::as_str).chain(rest.lines()) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(line["text"].is_string() && line["pid"].is_u64() && line["level"] == "info", "{line}");
        let time = line["time"].as_str().unwrap();
        assert!(time.len() == "2026-11-21T02:02:42.680472+00:00".len() && time.starts_with("20"), "{time}");
    }
    let (status, _, error) = run(&["serve", "--log_format", "xml"]);
    assert!(status == Some(2) && error.contains("is no log format"), "{error}");
}

#[test]
fn an_adoption_in_vain_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("w.conf");
    let adopt = "coordinator { adopt [ { stream: TASKS, consumer: workers, queue: agents } ] }";
    std::fs::write(&config, adopt).unwrap();
    let mut serving = Serving::start(&folder.path().join("store"), &["-c", config.to_str().unwrap()]);
    let said = "an adopted consumer is not to be found";
    let line = match serving.log.iter().find(|line| line.contains(said)) {
        Some(line) => line.clone(),
        None => serving.wait_for(said),
    };
    for words in ["stream not found", "TASKS", "workers", "agents", "make it, or adopt another"] {
        assert!(line.contains(words), "{words}: {line}");
    }
    #[cfg(unix)]
    {
        serving.signal("TERM");
        let (code, rest) = serving.end();
        assert!(code == Some(0) && !rest.contains(said), "it is said once: {rest}");
    }
}
