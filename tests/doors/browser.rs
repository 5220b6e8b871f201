//! Pages in a real browser, headless Chromium, with the official clients for browsers.
//!
//! What a page does is in `tests/clients/node/browser/page.mjs`; here is where it comes from and whom it connects to.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::support::toolchain::{chromium, node, or_skip};
use super::{World, next, settle, tls, token};

/// A browser on a machine that does much else takes its time.
const PATIENCE: Duration = Duration::from_secs(100);
const HEAD_BYTES_MAX: usize = 16 << 10;

/// A web server that is not open yet, and the browser that will go there.
struct Site {
    listener: TcpListener,
    chromium: Command,
    /// The scripts with all they import, and the browser's profile.
    folder: tempfile::TempDir,
}

/// A page and its server.
struct Page {
    html: String,
    /// A cookie that comes with it.
    cookie: String,
    /// Where the web server takes WebSockets on, as a reverse proxy does.
    websocket_port: u16,
    scripts: [(&'static str, Vec<u8>); 2],
}

/// A browser that is at a page.
struct Visit {
    browser: tokio::process::Child,
    folder: tempfile::TempDir,
    reports: mpsc::Receiver<Value>,
    _serving: JoinSet<()>,
}

impl Site {
    async fn prepare(test: &str) -> Option<Site> {
        let tools = || Ok((chromium()?, node("browser")?));
        let tools = tokio::task::spawn_blocking(tools).await.expect("tools are prepared or not");
        let (chromium, project) = or_skip(&format!("{test} in a browser"), tools)?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let output = Command::new(project.join("node_modules/.bin/esbuild"))
            .args(["page.mjs", "client.mjs", "--bundle", "--format=esm", "--external:crypto"])
            .arg(format!("--outdir={}", folder.path().display()))
            .current_dir(&project)
            .output()
            .expect("esbuild runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Some(Site { listener, chromium, folder })
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().expect("a bound listener has an address").port()
    }

    /// Goes with a browser to `http://<host>` and does `job` there.
    fn visit(self, host: &str, job: &Value, cookie: &str, websocket_port: u16) -> Visit {
        let html = format!("<script>const job = {job};</script><script type=module src=page.js></script>");
        self.show(host, html, cookie, websocket_port)
    }

    fn show(mut self, host: &str, html: String, cookie: &str, websocket_port: u16) -> Visit {
        let script = |name| (name, std::fs::read(self.folder.path().join(name)).expect("it was just written"));
        let scripts = [script("page.js"), script("client.js")];
        let page = Arc::new(Page { html, cookie: cookie.to_owned(), websocket_port, scripts });
        let said = std::fs::File::create(self.folder.path().join("said")).expect("a file for what the browser says");
        let url = format!("http://{host}:{}/", self.port());
        self.chromium
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--ignore-certificate-errors", "--remote-debugging-port=0"])
            .args(["--enable-logging=stderr", &format!("--user-data-dir={}", self.folder.path().display()), &url])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said);
        let mut browser = tokio::process::Command::from(self.chromium);
        let browser = browser.kill_on_drop(true).spawn().expect("the browser runs");
        let (told, reports) = mpsc::channel(1);
        let mut serving = JoinSet::new();
        serving.spawn(serve(self.listener, page, told));
        Visit { browser, folder: self.folder, reports, _serving: serving }
    }
}

impl Visit {
    /// What the page has found, once it is done.
    async fn report(mut self) -> Value {
        let report = tokio::time::timeout(PATIENCE, self.reports.recv()).await;
        self.browser.kill().await.expect("the browser is still there");
        let said = || std::fs::read_to_string(self.folder.path().join("said")).unwrap_or_default();
        let report = report.ok().flatten().unwrap_or_else(|| panic!("the page tells nothing\n{}", said()));
        assert_eq!(report["error"], Value::Null, "{}\n{}", report["error"].as_str().unwrap_or_default(), said());
        report
    }
}

async fn serve(listener: TcpListener, page: Arc<Page>, told: mpsc::Sender<Value>) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        connections.spawn(answer(socket, page.clone(), told.clone()));
    }
}

/// Answers one request and closes.
async fn answer(mut socket: TcpStream, page: Arc<Page>, told: mpsc::Sender<Value>) -> Option<()> {
    let mut request = Vec::new();
    let end = loop {
        if let Some(at) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if socket.read_buf(&mut request).await.ok()? == 0 || request.len() > HEAD_BYTES_MAX {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
    if head.contains("upgrade: websocket") {
        let mut broker = TcpStream::connect(("127.0.0.1", page.websocket_port)).await.ok()?;
        broker.write_all(&request).await.ok()?;
        tokio::io::copy_bidirectional(&mut socket, &mut broker).await.ok()?;
        return Some(());
    }
    let script = page.scripts.iter().find(|(name, _)| head.starts_with(&format!("get /{name} ")));
    let (kind, body) = match script {
        _ if head.starts_with("post /report ") => {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())?;
            while request.len() < end + length {
                socket.read_buf(&mut request).await.ok()?;
            }
            told.send(serde_json::from_slice(&request[end..]).expect("a page tells JSON")).await.ok()?;
            ("text/plain", &b""[..])
        }
        Some((_, script)) => ("text/javascript", &**script),
        None => ("text/html", page.html.as_bytes()),
    };
    let cookie = if page.cookie.is_empty() { String::new() } else { format!("Set-Cookie: {}\r\n", page.cookie) };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{cookie}Connection: close\r\n\r\n"
    );
    socket.write_all(&[head.as_bytes(), body].concat()).await.ok()
}

fn websocket_port(world: &World) -> u16 {
    world
        .server
        .websocket_url()
        .and_then(|url| url.rsplit(':').next()?.parse().ok())
        .expect("there is a WebSocket port")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_does_what_clients_do() {
    let Some(site) = Site::prepare("messages, JetStream and KV").await else { return };
    let world = World::start(&format!(
        "authorization {{ timeout: 60, users: [ {{ user: page, password: secret, permissions: {{ subscribe: {{ deny: denied }} }} }}, {{ user: peer, password: p }} ] }}\n\
         websocket {{ port: -1, no_tls: true, compression: true, handshake_timeout: 60, allowed_origins: [\"http://127.0.0.1:{}\"] }}",
        site.port()
    ))
    .await;
    let peer = world.user("peer", "p").await.expect("the password is right");
    let mut requests = peer.subscribe("echo").await.expect("it subscribes");
    settle(&peer).await;
    let echo = tokio::spawn(async move {
        while let Some(message) = requests.next().await {
            let (reply, headers) = (message.reply.expect("a request"), message.headers.expect("with headers"));
            peer.publish_with_headers(reply, headers, message.payload).await.expect("the connection lives");
        }
    });
    let port = websocket_port(&world);
    let job = json!({"does": "everything", "url": format!("ws://127.0.0.1:{port}"), "user": "page", "pass": "secret"});
    let found = site.visit("127.0.0.1", &job, "", port).report().await;
    let agreed = found["extensions"].as_str().expect("there are some");
    assert!(agreed.starts_with("permessage-deflate; server_no_context_takeover"), "{agreed}");
    echo.abort();
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_from_elsewhere_are_not_let_in() {
    // As it is without settings: a page may connect to where it came from, nothing else.
    for (host, through_its_own_server, does) in [
        ("127.0.0.1", true, "connects"),
        ("localhost", true, "connects"),
        ("127.0.0.1", false, "isRefused"),
        ("localhost", false, "isRefused"),
    ] {
        let Some(site) = Site::prepare("origins").await else { return };
        let world = World::start("websocket { port: -1, no_tls: true, handshake_timeout: 60 }").await;
        let port = websocket_port(&world);
        let target = if through_its_own_server { site.port() } else { port };
        let job = json!({"does": does, "url": format!("ws://{host}:{target}")});
        let found = site.visit(host, &job, "", port).report().await;
        assert_eq!(found["refusal"].is_string(), does == "isRefused", "{found}");
        assert_eq!(found["extensions"].as_str().unwrap_or_default(), "", "nobody asked for compression");
        world.server.stop().await;
    }
    // As it is with a list.
    for (host, does) in [("127.0.0.1", "connects"), ("localhost", "isRefused")] {
        let Some(site) = Site::prepare("origins").await else { return };
        let origin = format!("http://127.0.0.1:{}", site.port());
        let text =
            format!("websocket {{ port: -1, no_tls: true, handshake_timeout: 60, allowed_origins: [{origin:?}] }}");
        let world = World::start(&text).await;
        let port = websocket_port(&world);
        let job = json!({"does": does, "url": format!("ws://127.0.0.1:{port}")});
        site.visit(host, &job, "", port).report().await;
        world.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_connects_over_tls() {
    let Some(site) = Site::prepare("TLS").await else { return };
    let world = World::start(&format!(
        "authorization {{ timeout: 60, user: page, password: secret }}\n\
         websocket {{ port: -1, handshake_timeout: 60, allowed_origins: [\"http://localhost:{}\"], {} }}",
        site.port(),
        tls::block("")
    ))
    .await;
    let port = websocket_port(&world);
    let job = json!({"does": "connects", "url": format!("wss://localhost:{port}"), "user": "page", "pass": "secret"});
    site.visit("localhost", &job, "", port).report().await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cookie_says_who_a_page_is() {
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    for (cookie, does) in [("jwt", "connects"), ("other", "isRefused")] {
        let Some(site) = Site::prepare("JWTs in cookies").await else { return };
        let world = World::start(&format!(
            "operator: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {} }}\nauthorization {{ timeout: 60 }}\n\
             websocket {{ port: -1, no_tls: true, jwt_cookie: jwt, handshake_timeout: 60 }}",
            token(&operator, &operator, json!({"type": "operator"}), 0),
            account.public_key(),
            token(&operator, &account, json!({"type": "account"}), 0),
        ))
        .await;
        // A page has no key to sign with.
        let jwt = token(&account, &user, json!({"type": "user", "bearer_token": true}), 0);
        let cookie = format!("{cookie}={jwt}; HttpOnly; SameSite=Strict");
        let job = json!({"does": does, "url": format!("ws://127.0.0.1:{}", site.port())});
        let found = site.visit("127.0.0.1", &job, &cookie, websocket_port(&world)).report().await;
        let refusal = found["refusal"].as_str().unwrap_or_default().to_lowercase();
        assert_eq!(refusal.contains("authorization"), does == "isRefused", "{found}");
        world.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_the_readme_works() {
    let Some(site) = Site::prepare("the README's page").await else { return };
    let readme = include_str!("../../README.md");
    let html = readme.split("```html\n").nth(1).and_then(|rest| rest.split("```").next()).expect("there is a page");
    let config = readme.split("websocket {").nth(1).and_then(|rest| rest.split('}').next()).expect("and its settings");
    let there = |text: &str, from: &str, to: &str| {
        assert!(text.contains(from), "{from} is in the README");
        text.replace(from, to)
    };
    let own_port = site.port().to_string();
    let config = there(&there(config, "port: 9222", "port: -1"), "8000", &own_port);
    let world = World::start(&format!("websocket {{{config}, handshake_timeout: 60 }}")).await;
    let peer = async_nats::connect(world.server.client_url()).await.expect("it connects");
    let mut said = peer.subscribe("chat").await.expect("it subscribes");
    settle(&peer).await;
    let port = websocket_port(&world);
    let html = there(html, "https://cdn.jsdelivr.net/npm/@nats-io/nats-core@3/+esm", "/client.js");
    let html = there(&html, "localhost:9222", &format!("localhost:{port}"));
    let visit = site.show("localhost", html, "", port);
    let message = tokio::time::timeout(PATIENCE, next(&mut said)).await.expect("the page says something");
    assert_eq!(message.payload, "hello from a page");
    drop(visit);
    world.server.stop().await;
}
