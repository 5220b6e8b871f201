//! The program as a person or a script starts it: log lines, files, refusals, exit codes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn natterjack() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_natterjack"));
    command.env_remove("NATS_URL").stdin(Stdio::null());
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
        command.args(["-p", "-1", "-m", "-1", "-sd"]).arg(store).args(flags).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
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
