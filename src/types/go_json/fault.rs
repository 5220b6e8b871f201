//! The one error of the decoder, its text, and how Go quotes what was wrong.

use std::fmt::{self, Write as _};

/// What is wrong, in Go's words.
#[derive(Debug)]
pub struct Fault(pub String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(text: T) -> Fault {
        Fault(text.to_string())
    }
}

/// A text in double quotes as Go's `%q` writes it.
pub fn quote(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for chunk in text.utf8_chunks() {
        chunk.valid().chars().for_each(|char| escape(char, '"', &mut out));
        chunk.invalid().iter().for_each(|byte| push_byte(*byte, &mut out));
    }
    out.push('"');
    out
}

/// The character at the start of `rest` in single quotes, and how many bytes it has.
pub fn quote_char(rest: &[u8]) -> (String, usize) {
    let mut out = String::from("'");
    let chunk = rest[..rest.len().min(4)].utf8_chunks().next();
    let length = match chunk.and_then(|chunk| chunk.valid().chars().next()) {
        Some(char) => {
            escape(char, '\'', &mut out);
            char.len_utf8()
        }
        None => {
            rest.first().into_iter().for_each(|byte| push_byte(*byte, &mut out));
            1
        }
    };
    out.push('\'');
    (out, length)
}

fn escape(char: char, quote: char, out: &mut String) {
    match char {
        '\\' => out.push_str("\\\\"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        _ if char == quote => out.extend(['\\', char]),
        ' '..='~' => out.push(char),
        _ if char.is_ascii() => push_byte(char as u8, out),
        // Rust leaves unescaped what can be printed, and what attaches to the character before it.
        _ if char.escape_debug().len() == 1 && !char.is_whitespace() => out.push(char),
        _ => {
            let written = match u32::from(char) {
                code @ ..=0xffff => write!(out, "\\u{code:04x}"),
                code => write!(out, "\\U{code:08x}"),
            };
            written.expect("strings take everything");
        }
    }
}

fn push_byte(byte: u8, out: &mut String) {
    write!(out, "\\x{byte:02x}").expect("strings take everything");
}
