//! Secrets stay where they are: passwords, tokens, hashes, JWTs and seeds that a server is configured with, or that clients
//! show, are looked for in all that it says: in its log with everything traced, its reports, its events and its errors, and
//! in what commands say.

#![cfg(unix)]
#![allow(clippy::disallowed_methods, reason = "a test of the program waits in real time")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use nkeys::KeyPair;
use serde_json::{Value, json};

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
    fn start(config: &Path, store: &Path, flags: &[&str]) -> Program {
        let mut command = natterjack();
        command.args(["-DVV", "-c"]).arg(config).arg("-sd").arg(store).args(flags).stderr(Stdio::piped());
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

    /// Where it listens, from the log.
    fn port(&self, what: &str) -> String {
        let rest = self.log.lines().find_map(|line| line.split_once(what)).unwrap_or_else(|| panic!("{what:?}")).1;
        // A line in JSON goes on behind the text.
        let address = rest.split('"').next().unwrap_or_default();
        let digits = address.rsplit(':').next().unwrap_or_default();
        digits.chars().take_while(char::is_ascii_digit).collect()
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
    talk_until(port, text, |line| line == "PONG")
}

fn talk_until(port: &str, text: &str, is_end: impl Fn(&str) -> bool) -> String {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("{text}\r\nPING\r\n").as_bytes()).unwrap();
    let mut said = String::new();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        said.push_str(&line);
        said.push('\n');
        if is_end(&line) {
            break;
        }
    }
    said
}

/// Makes a stream as whom `login` names, and returns all that is said meanwhile.
fn with_stream(port: &str, login: &str) -> String {
    let create = "SUB in 1\r\nPUB $JS.API.STREAM.CREATE.S in 12\r\n{\"name\":\"S\"}";
    let said = talk_until(port, &format!("CONNECT {{{login}}}\r\n{create}"), |line| line.contains("did_create"));
    assert!(said.contains("did_create"), "{said}");
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

/// A connection of the system account, which hears all events and asks for all reports.
struct Watcher {
    stream: TcpStream,
    lines: mpsc::Receiver<String>,
    said: String,
}

impl Watcher {
    /// `login` says who it is, given the nonce to sign.
    fn enter(port: &str, login: impl Fn(&str) -> String) -> Watcher {
        let stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        let (sender, lines) = mpsc::channel();
        let reader = BufReader::new(stream.try_clone().unwrap());
        let mut pong = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            reader.lines().map_while(Result::ok).all(|line| {
                if line == "PING" {
                    let _ = pong.write_all(b"PONG\r\n");
                }
                sender.send(line).is_ok()
            })
        });
        let mut watcher = Watcher { stream, lines, said: String::new() };
        let info = watcher.wait_for("INFO ");
        let info: Value = serde_json::from_str(&info["INFO ".len()..]).unwrap();
        let login = login(info["nonce"].as_str().unwrap_or_default());
        let hello = format!("CONNECT {{\"verbose\":false,{login}}}\r\nSUB $SYS.> 1\r\nSUB in.> 2\r\nPING\r\n");
        watcher.stream.write_all(hello.as_bytes()).unwrap();
        watcher.wait_for("PONG");
        watcher
    }

    fn line(&mut self, wanted: &str) -> String {
        let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{wanted:?} in {}", self.said));
        self.said.push_str(&line);
        self.said.push('\n');
        line
    }

    /// Reads on until a line begins with `start`, and returns it.
    fn wait_for(&mut self, start: &str) -> String {
        loop {
            let line = self.line(start);
            if line.starts_with(start) {
                return line;
            }
        }
    }

    fn read_to_the_end(&mut self) {
        for line in self.lines.iter() {
            self.said.push_str(&line);
            self.said.push('\n');
        }
    }

    /// The answer, which must be a report.
    fn ask(&mut self, subject: &str, body: &str) -> String {
        let request = format!("PUB $SYS.REQ.{subject} in.{subject} {}\r\n{body}\r\n", body.len());
        self.stream.write_all(request.as_bytes()).unwrap();
        self.wait_for(&format!("MSG in.{subject} "));
        let answer = self.line(subject);
        assert!(answer.starts_with('{') && !answer.contains(r#""error""#), "{subject}: {answer}");
        answer
    }

    /// Asks for every report that tells of `account`.
    fn ask_for_everything(&mut self, account: &str) {
        let of_account = format!(r#"{{"account":"{account}"}}"#);
        let connections = r#"{"auth":true,"state":2,"subscriptions":true,"subscriptions_detail":true}"#;
        for (report, body, expected) in [
            ("SERVER.PING.VARZ", "", r#""max_payload":"#),
            ("SERVER.PING.CONNZ", connections, r#""authorized_user":"#),
            ("SERVER.PING.ACCOUNTZ", &*of_account, account),
            ("SERVER.PING.SUBSZ", r#"{"subscriptions":true}"#, r#""num_subscriptions":"#),
            ("SERVER.PING.JSZ", r#"{"accounts":true,"streams":true,"consumer":true,"config":true}"#, r#""name":"S""#),
            ("SERVER.PING.STATSZ", "", r#""statsz":"#),
            ("USER.INFO", "", r#""user":"#),
        ] {
            let answer = self.ask(report, body);
            assert!(answer.contains(expected), "{report}: {answer}");
        }
        for report in ["CONNZ", "INFO", "SUBSZ", "JSZ"] {
            self.ask(&format!("ACCOUNT.{account}.{report}"), if report == "CONNZ" { connections } else { "" });
        }
    }
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
    nothing_is_said("text");
}

#[test]
fn no_secret_is_ever_said_in_json() {
    nothing_is_said("json");
}

fn nothing_is_said(log_format: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.conf");
    let text = config("canary-password", "");
    let hash = text.split('"').find(|part| part.starts_with("$2")).unwrap().to_owned();
    std::fs::write(&file, &text).unwrap();
    let mut program = Program::start(&file, &folder.path().join("store"), &["--log_format", log_format]);
    program.wait_for("Server is ready");
    let client = program.port("Listening for client connections on");
    let http = program.port("Starting http monitor on");
    let web = program.port("Listening for websocket clients on");
    let mut watcher = Watcher::enter(&client, |_| r#""user":"sys","pass":"canary-system""#.to_owned());
    let app = r#""verbose":true,"user":"app","pass":"canary-password""#;
    let mut said = with_stream(&client, app);
    // In while the reports are made.
    let mut staying = TcpStream::connect(format!("127.0.0.1:{client}")).unwrap();
    staying.write_all(format!("CONNECT {{{app}}}\r\nSUB x 1\r\n").as_bytes()).unwrap();
    watcher.wait_for("MSG $SYS.ACCOUNT.APP.CONNECT ");
    for login in [
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
    watcher.ask_for_everything("APP");
    for path in [
        "/",
        "/varz",
        "/connz?auth=1&state=any&subs=1",
        "/accountz?acc=APP",
        "/jsz?config=1",
        "/subsz?subs=1",
        "/metrics",
    ] {
        let answer = get(&http, path, "");
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        said += &answer;
    }
    for (token, status) in [("canary-web", "101"), ("canary-cookie", "101")] {
        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let cookie = format!("{upgrade}Sec-WebSocket-Version: 13\r\nCookie: t={token}\r\n");
        said += &upgraded(&web, &cookie, status);
    }
    // Settings that are refused, by reload and by a test of the file.
    let seed = KeyPair::new_user().seed().unwrap();
    for broken in [
        config("canary-broken", "unknown_key: 1\n"),
        config("canary-broken", "authorization { user: u, password: [canary-list] }\n"),
        config("canary-broken", "authorization { user: canary-user\n"),
        config("canary-broken", "no_auth_user: nobody\n"),
        config("canary-broken", "authorization { user: app, password: canary-second, token: canary-token }\n"),
        config("canary-broken", &format!("authorization {{ users: [ {{ nkey: {seed} }} ] }}\n")),
        config(
            "canary-broken",
            &format!("authorization {{ auth_callout {{ issuer: {seed}, auth_users: [ app ] }} }}\n"),
        ),
        config(
            "canary-broken",
            "tls { cert_file: nowhere, key_file: nowhere }\nauthorization { token: canary-token }\n",
        ),
    ] {
        std::fs::write(&file, &broken).unwrap();
        program.signal("HUP");
        program.wait_for("Failed to reload");
        let tested = natterjack().arg("-t").arg("-c").arg(&file).output().unwrap();
        assert!(!tested.status.success());
        said += &String::from_utf8_lossy(&tested.stderr);
        said += &String::from_utf8_lossy(&tested.stdout);
    }
    std::fs::write(&file, config("canary-changed", "")).unwrap();
    let tested = natterjack().arg("-t").arg("-c").arg(&file).output().unwrap();
    assert!(tested.status.success());
    said += &String::from_utf8_lossy(&tested.stderr);
    program.signal("HUP");
    program.wait_for("Reloaded server");
    // The user whose password has changed goes, and is told of.
    watcher.wait_for("MSG $SYS.ACCOUNT.APP.DISCONNECT ");
    program.signal("TERM");
    program.wait_for("Exiting");
    watcher.read_to_the_end();
    assert!(watcher.said.contains(".SHUTDOWN "), "{}", watcher.said);
    said += &program.log;
    said += &watcher.said;
    assert!(watcher.said.contains(".CLIENT.AUTH.ERR "), "{}", watcher.said);
    for expected in ["INFO {", "jetstream_server", "CONNECT {", "MSG_PAYLOAD"] {
        assert!(said.contains(expected), "{expected} in {said}");
    }
    for line in said.lines() {
        // A user's name is none; nor is the part of a line of the file that an error shows, but for secrets.
        let line = line.replace("canary-user", "");
        assert!(!line.contains(CANARY) && !line.contains(&hash) && !line.contains(&seed), "{line}");
    }
}

/// What is said to who asks for a WebSocket, up to the first frame.
fn upgraded(port: &str, more: &str, status: &str) -> String {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    // CONNECT without a word of its own, masked with zeros: the cookie says it all.
    let hello = b"CONNECT {\"verbose\":false}\r\nPING\r\n";
    let frame = [&[0x82, 0x80 | hello.len() as u8, 0, 0, 0, 0], &hello[..]].concat();
    stream.write_all(&frame).unwrap();
    let mut said = Vec::new();
    let ended = |said: &[u8]| {
        let text = String::from_utf8_lossy(said);
        text.contains("PONG") || text.contains("-ERR")
    };
    let mut bytes = [0; 4096];
    while !ended(&said) {
        match stream.read(&mut bytes).unwrap() {
            0 => break,
            count => said.extend(&bytes[..count]),
        }
    }
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.starts_with(&format!("HTTP/1.1 {status}")) && ended(said.as_bytes()), "{said}");
    said
}

/// A token that `issuer` signs.
fn token(issuer: &KeyPair, subject: &str, kind: &str, mut nats: Value) -> String {
    nats["type"] = kind.into();
    nats["version"] = 2.into();
    let claims = json!({"iss": issuer.public_key(), "sub": subject, "name": kind, "iat": 1, "nats": nats});
    let head = BASE64.encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let signed = format!("{head}.{}", BASE64.encode(claims.to_string()));
    format!("{signed}.{}", BASE64.encode(issuer.sign(signed.as_bytes()).unwrap()))
}

/// A bearer's token is all it takes to come in; a seed shown by mistake is still one.
#[test]
fn no_bearers_token_and_no_seed_is_ever_said() {
    let (operator, system, app) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let account = |key: &KeyPair, nats| token(&operator, &key.public_key(), "account", nats);
    let text = format!(
        "listen: 127.0.0.1:-1\nhttp: 127.0.0.1:-1\noperator: {}\nresolver: MEMORY\nresolver_preload {{\n{}: {}\n{}: {}\n}}\n",
        token(&operator, &operator.public_key(), "operator", json!({"system_account": system.public_key()})),
        system.public_key(),
        account(&system, json!({})),
        app.public_key(),
        account(&app, json!({"limits": {"disk_storage": -1, "mem_storage": -1, "streams": -1, "consumer": -1}})),
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.conf");
    std::fs::write(&file, text).unwrap();
    let mut program = Program::start(&file, &folder.path().join("store"), &[]);
    program.wait_for("Server is ready");
    let client = program.port("Listening for client connections on");
    let http = program.port("Starting http monitor on");

    let (bearer_key, signing, boss) = (KeyPair::new_user(), KeyPair::new_user(), KeyPair::new_user());
    let bearer = token(&app, &bearer_key.public_key(), "user", json!({"bearer_token": true}));
    let signed = token(&app, &signing.public_key(), "user", json!({}));
    let of_boss = token(&system, &boss.public_key(), "user", json!({}));
    let signature = std::cell::RefCell::new(String::new());
    let mut watcher = Watcher::enter(&client, |nonce| {
        let sig = BASE64.encode(boss.sign(nonce.as_bytes()).unwrap());
        signature.replace(sig.clone());
        format!(r#""jwt":"{of_boss}","sig":"{sig}""#)
    });
    let mut said = with_stream(&client, &format!(r#""jwt":"{bearer}""#));
    let mut staying = TcpStream::connect(format!("127.0.0.1:{client}")).unwrap();
    staying.write_all(format!("CONNECT {{\"jwt\":\"{bearer}\"}}\r\nSUB x 1\r\n").as_bytes()).unwrap();
    watcher.wait_for(&format!("MSG $SYS.ACCOUNT.{}.CONNECT ", app.public_key()));
    let seed = signing.seed().unwrap();
    for login in [
        format!(r#""jwt":"{signed}","sig":"AAAA""#),
        format!(r#""jwt":"{signed}""#),
        format!(r#""jwt":"{bearer}x""#),
        format!(r#""nkey":"{seed}","sig":"AAAA""#),
        format!(r#""jwt":"{seed}""#),
    ] {
        let refused = talk(&client, &format!("CONNECT {{{login}}}"));
        assert!(refused.contains("-ERR"), "{refused}");
        said += &refused;
    }
    watcher.ask_for_everything(&app.public_key());
    for path in ["/connz?auth=1&state=any&subs=1", "/varz", "/accountz", "/jsz?config=1&accounts=1", "/metrics"] {
        said += &get(&http, path, "");
    }
    drop(staying);
    watcher.wait_for(&format!("MSG $SYS.ACCOUNT.{}.DISCONNECT ", app.public_key()));
    program.signal("TERM");
    program.wait_for("Exiting");
    watcher.read_to_the_end();
    said += &program.log;
    said += &watcher.said;
    let mut secrets = vec![seed, signature.into_inner()];
    secrets.extend([&bearer, &signed, &of_boss].map(|jwt| jwt.split('.').nth(1).unwrap().to_owned()));
    secrets.extend([&operator, &system, &app].map(|key| key.seed().unwrap()));
    for secret in &secrets {
        let line = said.lines().find(|line| line.contains(secret.as_str()));
        assert!(line.is_none() && secret.len() > 40, "{secret} in {line:?}");
    }
    assert!(said.contains(&bearer_key.public_key()), "who it was is told");
}

/// What commands say when they cannot reach or enter a server.
#[test]
fn no_command_says_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let config = write("c.conf", &config("canary-password", ""));
    let mut program = Program::start(Path::new(&config), &folder.path().join("store"), &[]);
    program.wait_for("Server is ready");
    let port = program.port("Listening for client connections on");
    let account = KeyPair::new_account().seed().unwrap();
    let user = KeyPair::new_user().seed().unwrap();
    let block = |kind: &str, inside: &str| format!("-----BEGIN {kind}-----\n{inside}\n------END {kind}------\n");
    let jwt = block("NATS USER JWT", "eyJ0.canary.jwt");
    let creds = [
        write("no.creds", "canary without a key\n"),
        write("jwt.creds", &jwt),
        write("account.creds", &(jwt.clone() + &block("USER NKEY SEED", &account))),
        write("cut.creds", &(jwt.clone() + &block("USER NKEY SEED", &user[..40]))),
        write("stranger.creds", &(jwt.clone() + &block("USER NKEY SEED", &user))),
        write("bare.creds", &user),
    ];
    let there = format!("nats://127.0.0.1:{port}");
    let mut lines: Vec<Vec<String>> = Vec::new();
    for command in [&["task", "ls"][..], &["doctor"], &["coordinator"], &["queue", "ls", "--json"]] {
        let mut with = |words: &[&str]| lines.push(command.iter().chain(words).map(|&word| word.to_owned()).collect());
        for url in [
            &*format!("nats://u:canary-url@127.0.0.1:{port}"),
            &*format!("nats://canary-token@127.0.0.1:{port}"),
            "u:canary-url@ws://127.0.0.1",
            "nats://u:canary-url",
            "nats://u:canary-url@127.0.0.1:port",
            "nats://u:x,canary-url@127.0.0.1:1",
        ] {
            with(&["--server", url]);
        }
        with(&["--server", &there, "--user", "app", "--password", "canary-wrong"]);
        with(&["--password", "canary-alone"]);
        creds.iter().for_each(|path| with(&["--server", &there, "--creds", path]));
    }
    // Nobody is there; the coordinator would wait.
    lines.push(["task", "ls", "--server", "nats://u:canary-url@127.0.0.1:1"].map(str::to_owned).to_vec());
    lines.push(["--pass", "canary-pass", "--nonsense"].map(str::to_owned).to_vec());
    lines.push(["--auth=canary-pass", "-p", "canary-less"].map(str::to_owned).to_vec());
    let mut said = Vec::new();
    for words in &lines {
        let ended = natterjack().args(words).stdin(Stdio::null()).output().unwrap();
        assert!(!ended.status.success(), "{words:?}");
        let told = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
        assert!(told.len() > 10, "{words:?} says why: {told}");
        said.push((words.join(" "), told.into_owned()));
    }
    program.signal("TERM");
    program.wait_for("Exiting");
    said.push(("the server's log".to_owned(), program.log.clone()));
    for (words, told) in said {
        // What is no port is shown: nobody takes it for a secret.
        let told = told.replace("canary-less", "");
        let found = [CANARY, &account, &user[..40]].into_iter().find(|secret| told.contains(secret));
        assert!(found.is_none(), "{words}: {told}");
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
        KeyPair::new_account().public_key()
    );
    std::fs::write(&file, text).unwrap();
    let mut program = Program::start(&file, &folder.path().join("store"), &[]);
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
