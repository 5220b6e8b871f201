//! Runs every transcript of `protocol.md` against a broker, so that the page cannot drift from what the broker does.
//!
//! `C:` lines are sent with CRLF, `S:` lines must come back, in order and whole. `C2:`/`S2:` are a second connection, and
//! so on; a connection opens with its first line. In an `S:` line `<any>` matches anything, and another `<word>` what it
//! matched the first time; in a `C:` line `<word>` stands for that. `<len>` in a `C:` line is the size of the line after it,
//! `<hlen>` and `<tlen>` the sizes of the header block after it and of that with the payload line. `S: (closed)` is the end
//! of the connection. Within a block everything happens on one broker with an empty store.
//!
//! With `NATTERJACK_TRANSCRIPT_SERVER=host:port` the same lines are said to whatever serves there, such as the real
//! nats-server, to see which of them are ours alone.

use std::collections::BTreeMap;
use std::time::Duration;

use natterjack::config::Config;
use natterjack::server::Server;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Nothing here takes long; a line that has not come by then does not come.
const LINE_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, PartialEq)]
enum Step {
    Send { connection: String, line: String },
    Expect { connection: String, pattern: String },
}

/// The blocks with the line each begins at.
fn transcripts(page: &str) -> Vec<(usize, Vec<Step>)> {
    let mut blocks = Vec::new();
    let mut block: Option<(usize, Vec<Step>)> = None;
    for (number, line) in page.lines().enumerate() {
        match (&mut block, line.trim_end()) {
            (None, "```transcript") => block = Some((number + 1, Vec::new())),
            (None, _) => {}
            (Some(_), "```") => blocks.extend(block.take()),
            (Some(_), "") => {}
            (Some((_, steps)), line) => {
                let (who, text) = line.split_once(':').unwrap_or_else(|| panic!("line {}: {line:?}", number + 1));
                let text = text.strip_prefix(' ').unwrap_or(text).to_owned();
                let connection = who[1..].to_owned();
                steps.push(match &who[..1] {
                    "C" => Step::Send { connection, line: text },
                    "S" => Step::Expect { connection, pattern: text },
                    _ => panic!("line {}: {line:?}", number + 1),
                });
            }
        }
    }
    blocks
}

/// Fills `<len>`, `<hlen>` and `<tlen>` of each sent line from the lines after it.
fn with_sizes(steps: &mut [Step]) {
    for at in 0..steps.len() {
        let following: Vec<String> = steps[at + 1..]
            .iter()
            .map_while(|step| match step {
                Step::Send { line, .. } => Some(line.clone()),
                Step::Expect { .. } => None,
            })
            .collect();
        let Step::Send { line, .. } = &mut steps[at] else { continue };
        if line.contains("<hlen>") {
            let blank = following.iter().position(String::is_empty).expect("a header block ends with an empty line");
            let headers: usize = following[..=blank].iter().map(|line| line.len() + 2).sum();
            let payload = following[blank + 1].len();
            *line = line.replace("<hlen>", &headers.to_string()).replace("<tlen>", &(headers + payload).to_string());
        } else if line.contains("<len>") {
            *line = line.replace("<len>", &following[0].len().to_string());
        }
    }
}

/// Matches `line` against `pattern`, remembering what each `<word>` stood for.
fn matches(pattern: &str, line: &str, words: &mut BTreeMap<String, String>) -> bool {
    let Some((literal, rest)) = pattern.split_once('<') else { return pattern == line };
    let Some((word, rest)) = rest.split_once('>').filter(|(word, _)| is_word(word)) else {
        // A bare `<` is text.
        let Some(tail) = line.strip_prefix(literal).and_then(|tail| tail.strip_prefix('<')) else { return false };
        return matches(rest, tail, words);
    };
    let Some(tail) = line.strip_prefix(literal) else { return false };
    if let Some(known) = words.get(word) {
        let known = known.clone();
        return tail.strip_prefix(known.as_str()).is_some_and(|tail| matches(rest, tail, words));
    }
    // The shortest stretch that lets the rest match.
    for (end, _) in tail.char_indices().chain([(tail.len(), ' ')]) {
        let mut tried = words.clone();
        if word != "any" {
            tried.insert(word.to_owned(), tail[..end].to_owned());
        }
        if matches(rest, &tail[end..], &mut tried) {
            *words = tried;
            return true;
        }
    }
    false
}

fn is_word(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn fill(line: &str, words: &BTreeMap<String, String>) -> String {
    words.iter().fold(line.to_owned(), |line, (word, value)| line.replace(&format!("<{word}>"), value))
}

struct Peer {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

async fn run(mut steps: Vec<Step>) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let other = std::env::var("NATTERJACK_TRANSCRIPT_SERVER").ok();
    let (server, address) = match other {
        Some(address) => (None, address),
        None => {
            let config = Config::on_free_ports(folder.path());
            let server = Server::start(config).await.map_err(|error| error.to_string())?;
            let address = server.client_address().expect("it listens").to_string();
            (Some(server), address)
        }
    };
    let mut peers: BTreeMap<String, Peer> = BTreeMap::new();
    let mut words = BTreeMap::new();
    // Sizes depend on captured words only if a transcript says so with a fixed size; then it is right as written.
    with_sizes(&mut steps);
    for step in &steps {
        let (Step::Send { connection, .. } | Step::Expect { connection, .. }) = step;
        if !peers.contains_key(connection) {
            let (reader, writer) = TcpStream::connect(&address).await.map_err(|error| error.to_string())?.into_split();
            peers.insert(connection.clone(), Peer { reader: BufReader::new(reader), writer });
        }
        let peer = peers.get_mut(connection).expect("it was just opened");
        match step {
            Step::Send { line, .. } => {
                let line = format!("{}\r\n", fill(line, &words));
                peer.writer
                    .write_all(line.as_bytes())
                    .await
                    .map_err(|error| format!("cannot send {line:?}: {error}"))?;
            }
            Step::Expect { pattern, .. } => {
                let mut bytes = Vec::new();
                let reading = peer.reader.read_until(b'\n', &mut bytes);
                let closed = match tokio::time::timeout(LINE_DEADLINE, reading).await {
                    Ok(Ok(0)) | Ok(Err(_)) => true,
                    Ok(Ok(_)) => false,
                    Err(_) => return Err(format!("expected S{connection}: {pattern}, but nothing came")),
                };
                let line = String::from_utf8_lossy(&bytes);
                // INFO ends with a space, as nats-server's does; a page should not have to.
                let line = line.trim_end();
                let fine = if pattern == "(closed)" { closed } else { !closed && matches(pattern, line, &mut words) };
                if !fine {
                    let got = if closed { "the end of the connection".to_owned() } else { format!("{line:?}") };
                    return Err(format!("expected S{connection}: {pattern}, got {got}"));
                }
            }
        }
    }
    drop(peers);
    if let Some(server) = server {
        server.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn the_transcripts_are_true() {
    let blocks = transcripts(include_str!("../protocol.md"));
    assert!(blocks.len() >= 8, "the page has its transcripts");
    let mut wrong = Vec::new();
    for (line, steps) in blocks {
        if let Err(reason) = run(steps).await {
            wrong.push(format!("protocol.md:{line}: {reason}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn patterns_match_and_remember() {
    let mut words = BTreeMap::new();
    assert!(matches("INFO {<any>}", "INFO {\"a\":1}", &mut words));
    assert!(matches("MSG foo 1 <reply> 5", "MSG foo 1 _INBOX.x 5", &mut words));
    assert_eq!(words["reply"], "_INBOX.x");
    assert!(matches("<reply>", "_INBOX.x", &mut words));
    assert!(!matches("<reply>", "_INBOX.y", &mut words));
    assert!(!matches("PONG", "PONG ", &mut words));
    assert!(matches("a < b", "a < b", &mut words));
    assert_eq!(fill("PUB <reply> 0", &words), "PUB _INBOX.x 0");
}

#[test]
fn sizes_are_counted() {
    let send = |line: &str| Step::Send { connection: String::new(), line: line.into() };
    let mut steps =
        vec![send("PUB a <len>"), send("hello"), send("HPUB a <hlen> <tlen>"), send("NATS/1.0"), send(""), send("xy")];
    with_sizes(&mut steps);
    assert_eq!(steps[0], send("PUB a 5"));
    assert_eq!(steps[2], send("HPUB a 12 14"));
}
