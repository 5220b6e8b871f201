//! The corpus as cases: what is sent, what must come back, and how it ends.

use std::iter::Peekable;
use std::str::Chars;

/// What is left when a case's lines are through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The connection serves on.
    Open,
    /// It serves on but is in the middle of an operation.
    Waiting,
    Closed,
}

/// A line that must come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The bytes around each `<any>`.
    parts: Vec<Vec<u8>>,
    /// Whether nats-server leaves it out.
    ours_alone: bool,
}

#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    /// Where it begins in the file, from 1.
    pub line: usize,
    pub sent: Vec<u8>,
    replies: Vec<Reply>,
    pub end: End,
    /// Whether nats-server does otherwise.
    pub ours_alone: bool,
}

impl Case {
    /// Checks what came back, whole lines with their CRLF, but for a last PONG to the runner's own PING.
    ///
    /// # Errors
    /// The first line that differs.
    pub fn check(&self, received: &[u8], from_nats_server: bool) -> Result<(), String> {
        let mut rest = received;
        for reply in self.replies.iter().filter(|reply| !(from_nats_server && reply.ours_alone)) {
            rest = reply.strip_from(rest).ok_or_else(|| format!("expected {reply}, got {}", show(rest)))?;
        }
        if rest.is_empty() { Ok(()) } else { Err(format!("did not expect {}", show(rest))) }
    }
}

impl Reply {
    fn strip_from<'a>(&self, received: &'a [u8]) -> Option<&'a [u8]> {
        if self.parts.len() == 1 {
            return received.strip_prefix(&self.parts[0][..])?.strip_prefix(b"\r\n");
        }
        // Only text lines have `<any>`: the first line end is theirs.
        let length = received.windows(2).position(|pair| pair == b"\r\n")?;
        let mut line = received[..length].strip_prefix(&self.parts[0][..])?;
        for part in &self.parts[1..] {
            let at = (0..=line.len()).find(|&at| line[at..].starts_with(part))?;
            line = &line[at + part.len()..];
        }
        Some(&received[length + 2..])
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&show(&self.parts.join(&b"<any>"[..])))
    }
}

/// Bytes for a message: printable, and not too many.
pub fn show(bytes: &[u8]) -> String {
    let shown: String = bytes[..bytes.len().min(400)].escape_ascii().to_string();
    if bytes.len() > 400 { format!("\"{shown}\" and {} more", bytes.len() - 400) } else { format!("\"{shown}\"") }
}

/// Reads the whole file.
///
/// # Panics
/// On a line that is none of the kinds the file's head describes.
pub fn parse(file: &'static str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    // Everything up to the first section is the head.
    let start = file.lines().position(|line| line.starts_with("## ")).expect("a section");
    for (number, line) in file.lines().enumerate().skip(start) {
        if line.is_empty() || line.starts_with("## ") {
            continue;
        }
        if let Some(name) = line.strip_prefix("# ") {
            cases.push(Case {
                name,
                line: number + 1,
                sent: Vec::new(),
                replies: Vec::new(),
                end: End::Open,
                ours_alone: false,
            });
            continue;
        }
        let case = cases.last_mut().unwrap_or_else(|| panic!("line {}: no case yet", number + 1));
        let (kind, text) = line.split_at(line.len().min(2));
        let text = text.strip_prefix(' ').unwrap_or(text);
        match kind {
            "C:" => {
                case.sent.extend(unescape(text));
                case.sent.extend(b"\r\n");
            }
            "C+" => case.sent.extend(unescape(text)),
            "S:" if text == "(closed)" => case.end = End::Closed,
            "S:" if text == "(waiting)" => case.end = End::Waiting,
            "S:" | "S+" => case
                .replies
                .push(Reply { parts: text.split("<any>").map(unescape).collect(), ours_alone: kind == "S+" }),
            "@o" if line.starts_with("@ours ") => case.ours_alone = true,
            _ => panic!("line {}: {line:?}", number + 1),
        }
    }
    cases
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        out.extend(unescape_plain(&rest[..at]));
        rest = match repetition(&rest[at..]) {
            Some((bytes, rest)) => {
                out.extend(bytes);
                rest
            }
            None => {
                out.push(b'<');
                &rest[at + 1..]
            }
        };
    }
    out.extend(unescape_plain(rest));
    out
}

/// `<x*300>` at the start of `text`.
fn repetition(text: &str) -> Option<(Vec<u8>, &str)> {
    let (inside, rest) = text.strip_prefix('<')?.split_once('>')?;
    let (unit, count) = inside.rsplit_once('*')?;
    Some((unescape_plain(unit).repeat(count.parse().ok()?), rest))
}

fn unescape_plain(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(character) = chars.next() {
        match character {
            '\\' => out.push(escaped(&mut chars).unwrap_or_else(|| panic!("unknown escape in {text:?}"))),
            _ => out.extend(character.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    out
}

fn escaped(chars: &mut Peekable<Chars<'_>>) -> Option<u8> {
    match chars.next()? {
        'r' => Some(b'\r'),
        'n' => Some(b'\n'),
        't' => Some(b'\t'),
        '0' => Some(0),
        '\\' => Some(b'\\'),
        'x' => u8::from_str_radix(&String::from_iter([chars.next()?, chars.next()?]), 16).ok(),
        _ => None,
    }
}

#[test]
fn reads_escapes_and_repetitions() {
    for (text, expected) in [
        ("PUB foo 0", &b"PUB foo 0"[..]),
        ("a\\r\\n\\t\\0\\\\\\xff", b"a\r\n\t\0\\\xff"),
        ("<x*3>y<.a*2>", b"xxxy.a.a"),
        ("a<b", b"a<b"),
        ("a>b<c>d", b"a>b<c>d"),
    ] {
        assert_eq!(unescape(text), expected, "{text}");
    }
}

#[test]
fn replies_match_whole_lines() {
    let reply = |text: &str| Reply { parts: text.split("<any>").map(unescape).collect(), ours_alone: false };
    assert_eq!(reply("PONG").strip_from(b"PONG\r\nrest"), Some(&b"rest"[..]));
    assert_eq!(reply("PON").strip_from(b"PONG\r\n"), None);
    assert_eq!(reply("INFO {<any>\"a\":1<any>").strip_from(b"INFO {\"b\":2,\"a\":1} \r\n"), Some(&b""[..]));
    assert_eq!(reply("INFO {<any>\"a\":1<any>").strip_from(b"INFO {\"b\":2} \r\n\"a\":1\r\n"), None);
}
