//! Whether bytes are JSON, with Go's text for the first byte that is wrong, and where values end in bytes that are.

use super::fault::quote_char;

/// Deeper documents are refused.
const DEPTH_MAX: usize = 10_000;

/// Why bytes are not JSON.
#[derive(Debug)]
enum Broken {
    /// They end too early.
    Ended,
    /// What is wrong, and how many bytes were read with it.
    Wrong { text: String, offset: usize },
}

/// All documents of a body, and what is wrong behind the last good one.
pub fn documents(body: &[u8]) -> (Vec<&[u8]>, Option<String>) {
    let mut documents = Vec::new();
    let mut at = 0;
    loop {
        at += blanks(&body[at..]);
        if at == body.len() {
            return (documents, None);
        }
        match (Scanner { body, at }).value() {
            Ok(end) => {
                documents.push(&body[at..end]);
                at = end;
            }
            Err(Broken::Ended) => return (documents, Some("unexpected EOF".to_owned())),
            Err(Broken::Wrong { text, offset }) => return (documents, Some(format!("{text} at offset {offset}"))),
        }
    }
}

/// The one document of a body.
pub fn single(body: &[u8]) -> Result<&[u8], String> {
    let start = blanks(body);
    match (Scanner { body, at: start }).value() {
        Ok(end) => {
            let after = end + blanks(&body[end..]);
            match body.get(after..) {
                Some(rest @ [_, ..]) => Err(format!("invalid character {} after top-level value", quote_char(rest).0)),
                _ => Ok(&body[start..end]),
            }
        }
        Err(Broken::Ended) => Err("unexpected end of JSON input".to_owned()),
        Err(Broken::Wrong { text, .. }) => Err(text),
    }
}

/// How many bytes at the start are white space.
pub fn blanks(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count()
}

/// The length of the value that good JSON starts with.
pub fn length(bytes: &[u8]) -> usize {
    match bytes.first() {
        Some(b'"') => string_length(bytes),
        Some(b'{' | b'[') => {
            let (mut at, mut depth) = (0, 0_usize);
            while at < bytes.len() {
                match bytes[at] {
                    b'"' => {
                        at += string_length(&bytes[at..]);
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    break;
                }
            }
            at
        }
        _ => bytes.iter().take_while(|byte| !matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n')).count(),
    }
}

fn string_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

struct Scanner<'a> {
    body: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    /// Reads one value, and says where it ends.
    fn value(mut self) -> Result<usize, Broken> {
        // What is open around the present place.
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.skip_blanks();
            match self.peek()? {
                bracket @ (b'{' | b'[') => {
                    if open.len() == DEPTH_MAX {
                        return Err(Broken::Wrong { text: "exceeded max depth".to_owned(), offset: self.at + 1 });
                    }
                    open.push(bracket);
                    self.at += 1;
                    self.skip_blanks();
                    match (bracket, self.peek()?) {
                        (b'{', b'}') | (b'[', b']') => {
                            open.pop();
                            self.at += 1;
                        }
                        (b'{', _) => {
                            self.key()?;
                            continue;
                        }
                        _ => continue,
                    }
                }
                b'"' => self.string()?,
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                b'-' | b'0'..=b'9' => self.number()?,
                _ => return Err(self.wrong("looking for beginning of value")),
            }
            // A value has ended; so may what it is in.
            loop {
                let Some(&bracket) = open.last() else { return Ok(self.at) };
                self.skip_blanks();
                match (bracket, self.peek()?) {
                    (b'{', b'}') | (b'[', b']') => {
                        open.pop();
                        self.at += 1;
                    }
                    (b'{', b',') => {
                        self.at += 1;
                        self.skip_blanks();
                        self.key()?;
                        break;
                    }
                    (b'[', b',') => {
                        self.at += 1;
                        break;
                    }
                    (b'{', _) => return Err(self.wrong("after object key:value pair")),
                    _ => return Err(self.wrong("after array element")),
                }
            }
        }
    }

    fn key(&mut self) -> Result<(), Broken> {
        if self.peek()? != b'"' {
            return Err(self.wrong("looking for beginning of object key string"));
        }
        self.string()?;
        self.skip_blanks();
        if self.peek()? != b':' {
            return Err(self.wrong("after object key"));
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(), Broken> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?,
                ..0x20 => return Err(self.wrong("in string")),
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), Broken> {
        let rest = &self.body[self.at..];
        let length = match rest.get(1).ok_or(Broken::Ended)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                self.at += 2;
                return Ok(());
            }
            b'u' => {
                let digits = &rest[2..rest.len().min(6)];
                if digits.iter().all(u8::is_ascii_hexdigit) {
                    if digits.len() < 4 {
                        return Err(Broken::Ended);
                    }
                    self.at += 6;
                    return Ok(());
                }
                rest.len().min(6)
            }
            _ => 2,
        };
        let sequence = String::from_utf8_lossy(&rest[..length]);
        Err(Broken::Wrong { text: format!("invalid escape sequence `{sequence}` in string"), offset: self.at + length })
    }

    fn literal(&mut self, literal: &str) -> Result<(), Broken> {
        for expected in literal.chars() {
            if self.peek()? != expected as u8 {
                return Err(self.wrong(&format!("in literal {literal} (expecting '{expected}')")));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Broken> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            _ => self.digits()?,
        }
        if self.body.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.body.get(self.at) {
            self.at += 1;
            if let b'+' | b'-' = self.peek()? {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Broken> {
        if !self.peek()?.is_ascii_digit() {
            return Err(self.wrong("in numeric literal"));
        }
        self.at += self.body[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        Ok(())
    }

    fn skip_blanks(&mut self) {
        self.at += blanks(&self.body[self.at..]);
    }

    fn peek(&self) -> Result<u8, Broken> {
        self.body.get(self.at).copied().ok_or(Broken::Ended)
    }

    fn wrong(&self, place: &str) -> Broken {
        let (char, length) = quote_char(&self.body[self.at..]);
        Broken::Wrong { text: format!("invalid character {char} {place}"), offset: self.at + length }
    }
}
