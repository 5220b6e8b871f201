//! The real `nats` command, as an operator types it; its output is what is checked.

use crate::support::server::{Program, Server};
use crate::support::toolchain::{nats_cli, or_skip};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

mod accounts;
mod benchmarks;
mod checks;
mod consumers;
mod councils;
mod messages;
mod schemas;
mod stores;
mod streams;
mod system;
mod tasks;

const PATIENCE: Duration = Duration::from_secs(30);

/// The command and a server of its own.
struct Cli {
    program: PathBuf,
    server: Rc<Server>,
    /// Where the command looks for contexts, so that nobody's own are used; and a place for files.
    home: Rc<tempfile::TempDir>,
    /// Who types; the password is the same word.
    user: Option<&'static str>,
    /// How long the command waits for answers.
    timeout: &'static str,
    /// The authority of the server's certificate, where it speaks TLS.
    authority: Option<PathBuf>,
}

/// An account to work in, and the system account.
const ACCOUNTS: &str = "accounts {
  $SYS { users: [ {user: sys, password: sys} ] }
  APP { jetstream: enabled, users: [ {user: app, password: app} ] }
}";

impl Cli {
    fn new(test: &str) -> Option<Cli> {
        let program = or_skip(&format!("the nats command: {test}"), nats_cli())?;
        let server = Rc::new(Server::start(Program::under_test()).expect("a server for the nats command"));
        let home = Rc::new(tempfile::tempdir().expect("a folder for the nats command"));
        Some(Cli { program, server, home, user: None, timeout: "10s", authority: None })
    }

    /// With a server of two accounts: the command is run by `app`, and by `sys` of the system account.
    fn with_accounts(test: &str) -> Option<(Cli, Cli)> {
        Cli::configured(test, "", None)
    }

    /// The same over TLS.
    fn with_tls(test: &str) -> Option<(Cli, Cli)> {
        let file = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doors/certs").join(name);
        let [cert, key, authority] = ["server.pem", "server-key.pem", "ca.pem"].map(file);
        let tls = format!("tls {{ cert_file: {cert:?}, key_file: {key:?}, timeout: 20 }}");
        Cli::configured(test, &tls, Some(authority))
    }

    fn configured(test: &str, more: &str, authority: Option<PathBuf>) -> Option<(Cli, Cli)> {
        let program = or_skip(&format!("the nats command: {test}"), nats_cli())?;
        let home = Rc::new(tempfile::tempdir().expect("a folder for the nats command"));
        let config = home.path().join("server.conf");
        let store = home.path().join("store");
        let text = format!("server_name: pond\njetstream {{ store_dir: {store:?} }}\n{more}\n{ACCOUNTS}\n");
        std::fs::write(&config, text).expect("a config file");
        let served = Program::under_test().arg("-c").arg(config.display().to_string());
        let server = Rc::new(Server::start(served).expect("a server with accounts"));
        let cli = |user| Cli {
            program: program.clone(),
            server: server.clone(),
            home: home.clone(),
            user: Some(user),
            timeout: "10s",
            authority: authority.clone(),
        };
        Some((cli("app"), cli("sys")))
    }

    /// For what waits until its time is up, in case another server answers.
    fn hasty(&self) -> Cli {
        let (program, server, home) = (self.program.clone(), self.server.clone(), self.home.clone());
        Cli { program, server, home, timeout: "1s", authority: self.authority.clone(), ..*self }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.program);
        // The certificate is for this name.
        let url = match &self.authority {
            Some(_) => self.server.url().replace("nats://127.0.0.1", "tls://localhost"),
            None => self.server.url(),
        };
        command.args(["--server", &url, "--timeout", self.timeout]);
        if let Some(authority) = &self.authority {
            command.arg("--tlsca").arg(authority);
        }
        if let Some(user) = self.user {
            command.args(["--user", user, "--password", user]);
        }
        command.args(words(line));
        command.env("HOME", self.home.path()).env("XDG_CONFIG_HOME", self.home.path()).env("NO_COLOR", "1");
        command.current_dir(self.home.path()).stdin(Stdio::null());
        command
    }

    /// Whether it succeeds, and all it prints.
    fn outcome(&self, line: &str) -> (bool, String) {
        let output = self.command(line).output().expect("the nats command runs");
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.success(), text)
    }

    fn run(&self, line: &str) -> String {
        let (succeeded, text) = self.outcome(line);
        assert!(succeeded, "nats {line}\n{text}\n---- the server's log\n{}", self.server.log_tail());
        text
    }

    fn json(&self, line: &str) -> Value {
        let text = self.run(line);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("nats {line}: {e}\n{text}"))
    }

    /// Runs it and wants every one of `parts` in what it prints.
    fn check(&self, line: &str, parts: &[&str]) {
        let text = self.run(line);
        for part in parts {
            assert!(text.contains(part), "nats {line}: no {part:?} in\n{text}");
        }
    }

    /// Wants it to fail and say `part`.
    fn refused(&self, line: &str, part: &str) {
        let (succeeded, text) = self.outcome(line);
        assert!(!succeeded && text.contains(part), "nats {line}: succeeded {succeeded}, wanted {part:?} in\n{text}");
    }

    /// Repeats `line` until its output has `part`: for what becomes visible after a while.
    fn until(&self, line: &str, part: &str) {
        let began = Instant::now();
        loop {
            let (_, text) = self.outcome(line);
            if text.contains(part) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "nats {line}: never {part:?}, but\n{text}");
        }
    }

    fn start(&self, line: &str) -> Running {
        let mut child = self
            .command(line)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("nats {line}: {e}"));
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Running { child, output }
    }
}

/// A command that runs until it has seen enough, or is dropped.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn finished(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_some()
    }

    fn rest(&mut self) -> String {
        let mut text = String::new();
        self.output.read_to_string(&mut text).expect("text");
        text
    }

    /// Reads on until a line that has `part`.
    fn line_with(&mut self, part: &str) -> String {
        let mut line = String::new();
        while self.output.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            if line.contains(part) {
                return line;
            }
            line.clear();
        }
        panic!("it ended before a line with {part:?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Splits as a shell does, as far as these tests need: at spaces, except within single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (number, part) in line.split('\'').enumerate() {
        if number % 2 == 1 {
            words.push(part.to_string());
        } else {
            words.extend(part.split_whitespace().map(str::to_string));
        }
    }
    words
}

#[test]
fn the_vapora_stream_is_created_filled_and_worked_off() {
    let Some(cli) = Cli::new("streams and consumers") else { return };
    let create = "stream add TASKS --subjects 'tasks.assigned' --storage file --defaults";
    cli.check(create, &["Stream TASKS was created", "tasks.assigned"]);
    cli.refused("stream add TASKS --subjects other --storage memory --defaults", "already in use");
    cli.run("pub tasks.assigned 'task {{Count}}' --count 5 --header X-Request-ID:r1");
    cli.check("req tasks.assigned 'task 6' --raw", &["\"stream\":\"TASKS\"", "\"seq\":6"]);

    let info = cli.json("stream info TASKS --json");
    assert_eq!(info["state"]["messages"], 6, "{info}");
    assert_eq!(info["config"]["storage"], "file", "{info}");
    cli.check("stream ls", &["TASKS", "6"]);
    cli.check("stream ls --names", &["TASKS"]);
    cli.check("stream report", &["TASKS", "File"]);
    cli.check("stream subjects TASKS", &["tasks.assigned"]);
    cli.check("stream get TASKS 2", &["task 2", "X-Request-ID"]);
    cli.check("stream get TASKS -S tasks.assigned", &["task 6"]);

    cli.check("consumer add TASKS agent-consumer --pull --defaults", &["agent-consumer", "Explicit"]);
    cli.check("consumer next TASKS agent-consumer --ack --count 2", &["task 1", "task 2", "Acknowledged message"]);
    let raw = cli.run("consumer next TASKS agent-consumer --ack --count 2 --raw");
    assert_eq!(raw.lines().collect::<Vec<_>>(), ["task 3", "task 4"]);
    let info = cli.json("consumer info TASKS agent-consumer --json");
    assert_eq!((&info["num_pending"], &info["ack_floor"]["stream_seq"]), (&2.into(), &4.into()), "{info}");
    cli.check("consumer ls TASKS", &["agent-consumer"]);
    cli.check("consumer report TASKS", &["agent-consumer", "Pull"]);
    cli.run("consumer rm TASKS agent-consumer -f");
    cli.check("consumer ls TASKS", &["No Consumers defined"]);

    cli.run("stream edit TASKS --max-age 1h -f");
    assert_eq!(cli.json("stream info TASKS --json")["config"]["max_age"], 3_600_000_000_000_u64);
    cli.run("stream rmm TASKS 3 -f");
    assert_eq!(cli.json("stream info TASKS --json")["state"]["num_deleted"], 1);
    cli.check("stream purge TASKS -f", &["Messages: 0", "First Sequence: 7"]);
    cli.run("stream rm TASKS -f");
    cli.check("stream ls", &["No Streams defined"]);
}

#[test]
fn subjects_are_subscribed_to_requested_and_answered() {
    let Some(cli) = Cli::new("core subjects") else { return };
    let mut subscriber = cli.start("sub 'tasks.assigned' --raw --count 2");
    // Published until it was subscribed in time to see two.
    while !subscriber.finished() {
        cli.run("pub tasks.assigned 'a task'");
    }
    assert_eq!(subscriber.rest().lines().filter(|line| !line.is_empty()).collect::<Vec<_>>(), ["a task", "a task"]);

    cli.check("req help.me please --raw", &["No responders are available"]);
    let _replier = cli.start("reply help.me 'coming {{Count}}' --queue helpers");
    cli.until("req help.me please --raw", "coming");
    cli.check("rtt", &[&cli.server.url()]);
    cli.check("account info", &["Client IP: 127.0.0.1", "Account Usage"]);
    cli.check("bench pub bench.subject --msgs 20000 --size 128 --no-progress", &["20,000"]);
}

#[test]
fn keys_are_put_read_watched_and_deleted() {
    let Some(cli) = Cli::new("key value") else { return };
    cli.check("kv add CONFIG --history 5 --storage file", &["CONFIG"]);
    cli.check("kv put CONFIG site.name natterjack", &["natterjack"]);
    assert_eq!(cli.run("kv get CONFIG site.name --raw").trim(), "natterjack");
    cli.refused("kv create CONFIG site.name other", "wrong last sequence: 1");
    cli.check("kv update CONFIG site.name toad 1", &["toad"]);
    cli.check("kv history CONFIG site.name", &["natterjack", "toad"]);
    cli.run("kv put CONFIG site.port 4222");
    let keys = cli.run("kv ls CONFIG");
    assert_eq!(keys.split_whitespace().collect::<Vec<_>>(), ["site.name", "site.port"]);
    cli.check("kv ls", &["CONFIG"]);
    cli.check("kv info CONFIG", &["CONFIG", "History Kept: 5"]);

    let mut watcher = cli.start("kv watch CONFIG");
    watcher.line_with("site.name: toad");
    watcher.line_with("site.port: 4222");
    cli.run("kv put CONFIG site.port 4333");
    watcher.line_with("site.port: 4333");
    cli.run("kv del CONFIG site.port -f");
    watcher.line_with("DELETE");
    cli.refused("kv get CONFIG site.port", "key not found");
    cli.run("kv purge CONFIG site.name -f");
    cli.run("kv del CONFIG -f");
    cli.refused("kv get CONFIG site.name", "bucket not found");
}

#[test]
fn objects_are_stored_listed_and_read_back() {
    let Some(cli) = Cli::new("object store") else { return };
    let body: Vec<u8> = (0..600_000_u32).map(|at| (at % 251) as u8).collect();
    std::fs::write(cli.home.path().join("model.bin"), &body).expect("a file to put");
    cli.check("object add ARTEFACTS --storage file", &["ARTEFACTS"]);
    cli.check("object put ARTEFACTS model.bin -f --no-progress", &["model.bin", "SHA-256"]);
    cli.check("object ls ARTEFACTS", &["model.bin", "586 KiB"]);
    cli.check("object info ARTEFACTS model.bin", &["SHA-256"]);
    // On a busy machine the command itself now and then gives up with "context canceled", on any server.
    cli.until("object get ARTEFACTS model.bin -O back.bin -f --no-progress", "Wrote: 586 KiB");
    assert!(std::fs::read(cli.home.path().join("back.bin")).expect("the file it wrote") == body, "other bytes");
    cli.run("object rm ARTEFACTS model.bin -f");
    cli.refused("object get ARTEFACTS model.bin -f --no-progress", "object not found");
    cli.check("object ls", &["ARTEFACTS"]);
    cli.run("object rm ARTEFACTS -f");
}

#[test]
fn micro_services_are_discovered() {
    let Some(cli) = Cli::new("micro services") else { return };
    let _service = cli.start("micro serve demo");
    cli.until("micro ls", "demo");
    cli.check("micro info demo", &["demo.echo"]);
    cli.check("req demo.echo hello --raw", &["hello"]);
    cli.check("micro stats demo", &["echo"]);
    cli.check("micro ping", &["demo"]);
}
