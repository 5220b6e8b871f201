//! Secrets stay where they are: passwords, tokens, hashes and JWTs that a server is configured with, or that clients show, are
//! looked for in all that it says, in its log with everything traced, its reports and its errors.

#![cfg(unix)]
#![allow(clippy::disallowed_methods, reason = "a test of the program waits in real time")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// What a canary begins with; none of them is said for another reason.
const CANARY: &str = "canary";

fn natterjack() -> Command {
    Command::new(env!("CARGO_BIN_EXE_natterjack"))
}

struct Program {
    child: Child,
    lines: mpsc::Receiver<String>,
    log: String,
}

impl Program {
    fn start(config: &Path, store: &Path) -> Program {
        let mut command = natterjack();
        command.args(["-DV", "-c"]).arg(config).arg("-sd").arg(store).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        Program { child, lines, log: String::new() }
    }

    /// Reads the log on until a line holds `what`, and returns what follows it.
    fn wait_for(&mut self, what: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what:?} in {}", self.log));
            self.log.push_str(&line);
            self.log.push('\n');
            if let Some((_, rest)) = line.split_once(what) {
                return rest.to_owned();
            }
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that is said to a client until PONG or the end.
fn talk(port: &str, text: &str) -> String {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("{text}\r\nPING\r\n").as_bytes()).unwrap();
    let mut said = String::new();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        said.push_str(&line);
        said.push('\n');
        if line == "PONG" {
            break;
        }
    }
    said
}

fn get(port: &str, path: &str, more: &str) -> String {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n").as_bytes())
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn config(password: &str, more: &str) -> String {
    // The hash is a secret of its own.
    let hash = bcrypt::hash("canary-hashed", 4).unwrap();
    format!(
        "listen: 127.0.0.1:-1\nhttp: 127.0.0.1:-1\n\
         accounts {{\n\
           APP {{ jetstream: enabled, users: [ {{ user: app, password: {password:?} }}, {{ user: hashed, password: {hash:?} }} ] }}\n\
           SYS {{ users: [ {{ user: sys, password: canary-system }} ] }}\n\
         }}\n\
         system_account: SYS\n\
         websocket {{ port: -1, no_tls: true, token_cookie: t, authorization {{ token: canary-web }} }}\n{more}"
    )
}

#[test]
fn no_secret_is_ever_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.conf");
    let text = config("canary-password", "");
    let hash = text.split('"').find(|part| part.starts_with("$2")).unwrap().to_owned();
    std::fs::write(&file, &text).unwrap();
    let mut program = Program::start(&file, &folder.path().join("store"));
    program.wait_for("Server is ready");
    let port_after = |log: &str, what: &str| {
        let rest = log.lines().find_map(|line| line.split_once(what)).unwrap_or_else(|| panic!("{what:?} in {log}")).1;
        let port = rest.rsplit(':').next().unwrap().trim();
        port.chars().take_while(char::is_ascii_digit).collect::<String>()
    };
    let client = port_after(&program.log, "Listening for client connections on");
    let http = port_after(&program.log, "Starting http monitor on");
    let web = port_after(&program.log, "Listening for websocket clients on");
    let mut said = String::new();
    for login in [
        r#""user":"app","pass":"canary-password""#,
        r#""user":"hashed","pass":"canary-hashed""#,
        r#""user":"app","pass":"canary-wrong""#,
        r#""user":"nobody","pass":"canary-wrong""#,
        r#""auth_token":"canary-token""#,
        r#""jwt":"canary.jwt.x","sig":"canary-signature""#,
        r#""user":"app","pass":["canary-list"]"#,
        r#""user":"app","pass":"canary-cut"#,
    ] {
        said += &talk(&client, &format!("CONNECT {{\"verbose\":true,{login}}}"));
    }
    let reports = "SUB in 1\r\nPUB $SYS.REQ.SERVER.PING.VARZ in 0\r\n\r\nPUB $SYS.REQ.SERVER.PING.CONNZ in 27\r\n{\"auth\":true,\"state\":2  }    \r\n\
         PUB $SYS.REQ.SERVER.PING.ACCOUNTZ in 0\r\n";
    said += &talk(&client, &format!("CONNECT {{\"user\":\"sys\",\"pass\":\"canary-system\"}}\r\n{reports}"));
    for path in [
        "/",
        "/varz",
        "/connz?auth=1&state=any&subs=1",
        "/accountz?acc=APP",
        "/jsz?config=1",
        "/subsz?subs=1",
        "/metrics",
    ] {
        said += &get(&http, path, "");
    }
    for token in ["canary-web", "canary-cookie"] {
        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let cookie = format!("{upgrade}Sec-WebSocket-Version: 13\r\nCookie: t={token}\r\n");
        said += &get(&web, "/", &cookie);
    }
    // Settings that are refused, by reload and by a test of the file.
    for broken in [
        config("canary-broken", "unknown_key: 1\n"),
        config("canary-broken", "authorization { user: u, password: [canary-list] }\n"),
        config("canary-broken", "authorization { user: canary-user\n"),
        config("canary-broken", "no_auth_user: nobody\n"),
    ] {
        std::fs::write(&file, &broken).unwrap();
        program.signal("HUP");
        program.wait_for("reload");
        let tested = natterjack().arg("-t").arg("-c").arg(&file).output().unwrap();
        assert!(!tested.status.success());
        said += &String::from_utf8_lossy(&tested.stderr);
        said += &String::from_utf8_lossy(&tested.stdout);
    }
    std::fs::write(&file, config("canary-changed", "")).unwrap();
    program.signal("HUP");
    program.wait_for("Reloaded");
    program.signal("TERM");
    program.wait_for("Exiting");
    said += &program.log;
    assert!(said.contains("INFO {") && said.contains("jetstream_server") && said.contains("[TRC]"), "{said}");
    for line in said.lines() {
        // A user's name is none; nor is the part of a line of the file that an error shows, but for secrets.
        let line = line.replace("canary-user", "");
        assert!(!line.contains(CANARY) && !line.contains(&hash), "{line}");
    }
}

/// A request to those who say who clients are holds all that a client has shown.
#[test]
fn no_callout_request_is_traced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.conf");
    let text = format!(
        "listen: 127.0.0.1:-1\ntrace_verbose: true\n\
         accounts {{ AUTH {{ users: [ {{ user: auth, password: p }} ] }}, APP {{}} }}\n\
         authorization {{ timeout: 1, auth_callout {{ issuer: {}, account: AUTH, auth_users: [ auth ] }} }}\n",
        nkeys::KeyPair::new_account().public_key()
    );
    std::fs::write(&file, text).unwrap();
    let mut program = Program::start(&file, &folder.path().join("store"));
    let address = program.wait_for("Listening for client connections on ").trim().to_owned();
    program.wait_for("Server is ready");
    let port = address.rsplit(':').next().unwrap().to_owned();
    let mut service = TcpStream::connect(&address).unwrap();
    service.set_read_timeout(Some(PATIENCE)).unwrap();
    let hello = "CONNECT {\"verbose\":false,\"user\":\"auth\",\"pass\":\"p\"}\r\nSUB $SYS.REQ.USER.AUTH 1\r\nPING\r\n";
    service.write_all(hello.as_bytes()).unwrap();
    let mut heard = BufReader::new(service.try_clone().unwrap()).lines().map_while(Result::ok);
    assert!(heard.any(|line| line == "PONG"));
    let refused = talk(&port, r#"CONNECT {"user":"joe","pass":"canary-password"}"#);
    assert!(refused.contains("-ERR 'Auth"), "{refused}");
    // What was asked, said again by the one who was.
    let request = heard.find(|line| line.starts_with("eyJ")).expect("the service is asked");
    let again = format!("PUB $SYS.REQ.USER.AUTH {}\r\n{request}\r\nPING\r\n", request.len());
    service.write_all(again.as_bytes()).unwrap();
    program.wait_for("Permissions Violation for Publish");
    program.signal("TERM");
    program.wait_for("Exiting");
    assert!(program.log.contains("->> [MSG $SYS.REQ.USER.AUTH 1 "), "{}", program.log);
    let claims = request.split('.').nth(1).unwrap();
    assert!(!program.log.contains(claims) && !program.log.contains(CANARY), "{}", program.log);
}
