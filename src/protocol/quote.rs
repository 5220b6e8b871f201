//! Names from clients inside error texts, quoted as Go's `%q` does, so that no byte of theirs can end or forge a line.

use std::fmt::Write as _;

/// `name` between double quotes, with quotes, backslashes, control characters and bytes that are not UTF-8 escaped.
pub fn quote(name: &[u8]) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('"');
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => quoted.push_str("\\\""),
                '\\' => quoted.push_str("\\\\"),
                '\x07' => quoted.push_str("\\a"),
                '\x08' => quoted.push_str("\\b"),
                '\x0c' => quoted.push_str("\\f"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\x0b' => quoted.push_str("\\v"),
                '\0'..='\x1f' | '\x7f' => {
                    write!(quoted, "\\x{:02x}", character as u32).expect("writing to a String cannot fail");
                }
                '\u{80}'..='\u{9f}' => {
                    write!(quoted, "\\u{:04x}", character as u32).expect("writing to a String cannot fail");
                }
                _ => quoted.push(character),
            }
        }
        for byte in chunk.invalid() {
            write!(quoted, "\\x{byte:02x}").expect("writing to a String cannot fail");
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn quotes_as_go_does() {
        for (name, expected) in [
            (&b"foo.bar"[..], r#""foo.bar""#),
            (b"a\"\\\x01\xff\xc3\xa9\x7f", r#""a\"\\\x01\xff"#),
            (b"a\r\nb\t\0", r#""a\r\nb\t\x00""#),
        ] {
            let quoted = quote(name);
            assert!(quoted.starts_with(expected), "{quoted}");
        }
        assert_eq!(quote(b"a\xff\xc3\xa9\x7f"), "\"a\\xff\u{e9}\\x7f\"");
    }
}
