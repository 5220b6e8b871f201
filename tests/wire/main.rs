//! Every input of `corpus.txt` gets the replies written there: over TCP, and however its bytes are split.
//!
//! With `NATTERJACK_WIRE_SERVER=host:port` the TCP test asks what serves there instead, such as a real nats-server
//! (`max_payload: 8MB`), which is how the corpus is checked against it. With `NATTERJACK_WIRE_SPLITS=all` long inputs are split
//! at every byte too.

mod corpus;

use std::sync::Arc;
use std::time::Duration;

use corpus::{Case, End, show};
use futures_util::FutureExt as _;
use natterjack::broker::{Broker, Link, Options, Queued};
use natterjack::config::Config;
use natterjack::protocol::Info;
use natterjack::server::Server;
use natterjack::session::Settings;
use natterjack::types::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Nothing here takes long; what has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(20);

fn cases() -> Vec<Case> {
    let cases = corpus::parse(include_str!("corpus.txt"));
    assert!(cases.len() >= 300, "{} cases", cases.len());
    cases
}

fn assert_none_wrong(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn every_input_gets_its_replies() {
    let other = std::env::var("NATTERJACK_WIRE_SERVER").ok();
    let mut wrong = Vec::new();
    for case in cases() {
        if other.is_some() && case.ours_alone {
            continue;
        }
        let result = match &other {
            Some(address) => over_tcp(&case, address, true).await,
            None => {
                let folder = tempfile::tempdir().expect("a temporary folder");
                let config = Config {
                    jetstream: false,
                    coordinator: false,
                    monitor: None,
                    ..Config::on_free_ports(folder.path())
                };
                let server = Server::start(config).await.expect("the broker starts");
                let result = over_tcp(&case, &server.client_address().expect("it listens").to_string(), false).await;
                server.stop().await;
                result
            }
        };
        if let Err(reason) = result {
            wrong.push(format!("corpus.txt:{} {}: {reason}", case.line, case.name));
        }
    }
    assert_none_wrong(&wrong);
}

async fn over_tcp(case: &Case, address: &str, is_nats_server: bool) -> Result<(), String> {
    let exchange = async {
        let mut socket = TcpStream::connect(address).await?;
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n") {
            socket.read_buf(&mut received).await?;
        }
        received.clear();
        // The broker may close before it has read all of it.
        let _ = socket.write_all(&case.sent).await;
        match case.end {
            End::Closed => {}
            End::Open => socket.write_all(b"PING\r\n").await?,
            // At the end of the stream the broker closes, and has said nothing before.
            End::Waiting => socket.shutdown().await?,
        }
        loop {
            match socket.read_buf(&mut received).await {
                // A peer that closes with input unread resets the connection.
                Ok(0) | Err(_) => return Ok((received, true)),
                Ok(_) => {}
            }
            if case.end == End::Open
                && let Some(replies) = received.strip_suffix(b"PONG\r\n")
                && case.check(replies, is_nats_server).is_ok()
            {
                return Ok::<_, std::io::Error>((replies.to_vec(), false));
            }
        }
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok((received, closed))) => {
            case.check(&received, is_nats_server)?;
            match closed == (case.end != End::Open) {
                true => Ok(()),
                false => Err("the connection was closed".to_owned()),
            }
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no end in sight".to_owned()),
    }
}

/// A broker without sockets.
fn broker() -> Arc<Broker> {
    let options = Options {
        session: Settings::default(),
        pending_bytes_max: 1 << 26,
        subscriptions_max: 0,
        connections_max: 10,
        closed_clients_max: 10,
        write_deadline: PATIENCE,
        memory_bytes_max: usize::MAX,
        server_tags: Vec::new(),
    };
    Broker::new(Info::default(), options, Timestamp(1_700_000_000_000_000_000))
}

/// The only client of a broker, without a socket: what it is fed is what one read brings.
struct Peer {
    link: Link,
    /// Read and not yet consumed.
    held: Vec<u8>,
    received: Vec<u8>,
    closed: bool,
}

impl Peer {
    fn connect(broker: &Arc<Broker>) -> Peer {
        let now = Timestamp(1_700_000_000_000_000_000);
        let link = Link::open(broker, "127.0.0.1:1".to_owned(), now).expect("room for a client");
        let mut peer = Peer { link, held: Vec::new(), received: Vec::new(), closed: false };
        peer.receive();
        assert!(peer.received.starts_with(b"INFO {"), "{}", show(&peer.received));
        peer.received.clear();
        peer
    }

    fn feed(&mut self, bytes: &[u8]) {
        if self.closed {
            return;
        }
        self.held.extend_from_slice(bytes);
        loop {
            let fed = self.link.feed(&self.held, Timestamp(1_700_000_000_000_000_001));
            self.held.drain(..fed.consumed);
            self.receive();
            self.closed |= fed.close;
            if !fed.paused {
                return;
            }
        }
    }

    fn receive(&mut self) {
        let client = self.link.client().clone();
        loop {
            let mut taken = Queued::default();
            match client.outbox.take(&mut taken).now_or_never() {
                Some(Ok(())) => {
                    client.outbox.wrote(taken.len());
                    self.received.extend(taken.pieces().flatten());
                }
                Some(Err(_)) => {
                    self.closed = true;
                    return;
                }
                None => return,
            }
        }
    }
}

/// Says the case in `chunks` and checks what comes back.
fn in_chunks<'a>(broker: &Arc<Broker>, case: &Case, chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<(), String> {
    let mut peer = Peer::connect(broker);
    for chunk in chunks {
        peer.feed(chunk);
    }
    if peer.closed != (case.end == End::Closed) {
        return Err(format!("closed is {}, after {}", peer.closed, show(&peer.received)));
    }
    case.check(&peer.received, false)?;
    if case.end == End::Open {
        peer.received.clear();
        peer.feed(b"PING\r\n");
        if peer.received != b"PONG\r\n" {
            return Err(format!("a last PING was answered by {}", show(&peer.received)));
        }
    }
    Ok(())
}

/// Split points of an input: all, or of a long one those around its ends and some between, unless the variable asks for all.
fn splits(length: usize) -> impl Iterator<Item = usize> {
    let all = std::env::var("NATTERJACK_WIRE_SPLITS").is_ok_and(|which| which == "all");
    (1..length).filter(move |at| all || length < 600 || *at < 200 || length - at < 200 || at % 997 == 0)
}

#[test]
fn replies_do_not_depend_on_how_the_bytes_are_split() {
    let mut wrong = Vec::new();
    let broker = broker();
    for case in cases() {
        let mut check = |how: String, result: Result<(), String>| {
            if let Err(reason) = result {
                wrong.push(format!("corpus.txt:{} {}, {how}: {reason}", case.line, case.name));
            }
        };
        check("whole".into(), in_chunks(&broker, &case, [&case.sent[..]]));
        check("byte by byte".into(), in_chunks(&broker, &case, case.sent.chunks(1)));
        for at in splits(case.sent.len()) {
            let (first, second) = case.sent.split_at(at);
            check(format!("split at {at}"), in_chunks(&broker, &case, [first, second]));
        }
    }
    assert_none_wrong(&wrong);
}
