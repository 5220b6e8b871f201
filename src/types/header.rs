//! The NATS header block: `NATS/1.0[ status[ description]]\r\n` then `Name: value\r\n` lines and an empty line (ADR-4).

use std::fmt::Write as _;

pub const VERSION_LINE: &[u8] = b"NATS/1.0";

/// A borrowed header block. Lookup is case-sensitive and the first line of a name wins, as in nats-server's `getHeader`.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    block: &'a [u8],
}

impl<'a> Headers<'a> {
    pub fn new(block: &'a [u8]) -> Headers<'a> {
        Headers { block }
    }

    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// Name and value of each line in order, values without surrounding white space; malformed lines are skipped.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut rest = match line_end(self.block) {
            Some(end) => &self.block[end + 2..],
            None => &[][..],
        };
        std::iter::from_fn(move || {
            loop {
                if rest.is_empty() {
                    return None;
                }
                let end = line_end(rest).unwrap_or(rest.len());
                let line = &rest[..end];
                rest = rest.get(end + 2..).unwrap_or(&[]);
                if let Some(colon) = memchr::memchr(b':', line) {
                    return Some((&line[..colon], line[colon + 1..].trim_ascii()));
                }
            }
        })
    }

    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        if self.block.is_empty() {
            return None;
        }
        self.iter().find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value)
    }

    /// The value as text; `None` when absent or not UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The status code of the version line (`NATS/1.0 503 ...`), when there is one.
    pub fn status(&self) -> Option<u16> {
        let line_end = line_end(self.block)?;
        let line = self.block[..line_end].strip_prefix(VERSION_LINE)?;
        let text = std::str::from_utf8(line).ok()?;
        text.split_ascii_whitespace().next()?.parse().ok()
    }

    /// The text behind the status code.
    pub fn description(&self) -> Option<&'a str> {
        let line_end = line_end(self.block)?;
        let line = self.block[..line_end].strip_prefix(VERSION_LINE)?;
        let text = std::str::from_utf8(line).ok()?.trim_start();
        text.split_once(' ').map(|(_, description)| description)
    }
}

/// Where the first line of `block` ends.
fn line_end(block: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', block).find_map(|at| at.checked_sub(1).filter(|&end| block[end] == b'\r'))
}

/// Writes a header block line by line.
///
/// Values must hold no CR or LF; [`HeaderBuilder::add`] replaces them with spaces, so a value can never forge a line.
#[derive(Clone, Debug)]
pub struct HeaderBuilder {
    block: String,
}

impl Default for HeaderBuilder {
    fn default() -> Self {
        HeaderBuilder::new()
    }
}

impl HeaderBuilder {
    pub fn new() -> HeaderBuilder {
        HeaderBuilder { block: "NATS/1.0\r\n".to_owned() }
    }

    /// Starts with a status line, as in `NATS/1.0 404 No Messages`.
    pub fn status(code: u16, description: &str) -> HeaderBuilder {
        HeaderBuilder { block: format!("NATS/1.0 {code} {description}\r\n") }
    }

    pub fn add(mut self, name: &str, value: impl std::fmt::Display) -> HeaderBuilder {
        let start = self.block.len();
        write!(self.block, "{name}: {value}").expect("writing to a String cannot fail");
        if self.block[start..].contains(['\r', '\n']) {
            let cleaned = self.block[start..].replace(['\r', '\n'], " ");
            self.block.truncate(start);
            self.block.push_str(&cleaned);
        }
        self.block.push_str("\r\n");
        self
    }

    /// The finished block, with its closing empty line.
    pub fn build(mut self) -> Vec<u8> {
        self.block.push_str("\r\n");
        self.block.into_bytes()
    }
}

/// A header block (empty for none) with more lines at its end. They are lines of their own also where the block, which may be a
/// client's, does not end as it should; what neither begins nor ends as one is left out.
pub fn extended(block: &[u8], add_lines: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(block.len() + 200);
    let is_whole = block.ends_with(b"\r\n\r\n");
    if is_whole || block.ends_with(b"\r\n") || block.starts_with(VERSION_LINE) {
        out.extend_from_slice(if is_whole { &block[..block.len() - 2] } else { block });
    } else {
        out.extend_from_slice(VERSION_LINE);
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    add_lines(&mut out);
    out.extend_from_slice(b"\r\n");
    out
}

/// Adds one line. `value` holds no CR or LF.
pub fn push_line(out: &mut Vec<u8>, name: &str, value: impl std::fmt::Display) {
    use std::io::Write as _;
    write!(out, "{name}: {value}\r\n").expect("writing to a Vec cannot fail");
}

/// A header block without the lines whose names `is_unwanted` says so of, empty when none is left; `None` when there is
/// nothing to leave out.
pub fn without(block: &[u8], is_unwanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    if !Headers::new(block).iter().any(|(name, _)| is_unwanted(name)) {
        return None;
    }
    let mut out = Vec::with_capacity(block.len());
    let mut rest = block;
    while !rest.is_empty() {
        let end = line_end(rest).map_or(rest.len(), |at| at + 2);
        let (line, after) = rest.split_at(end);
        rest = after;
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        if out.is_empty() || !is_unwanted(name) {
            out.extend_from_slice(line);
        }
    }
    if out.len() <= b"NATS/1.0\r\n\r\n".len() && Headers::new(&out).iter().next().is_none() {
        out.clear();
    }
    Some(out)
}

/// A header block that says no status, empty when it then says nothing; `None` when it said none.
pub fn without_status(block: &[u8]) -> Option<Vec<u8>> {
    let rest = block.strip_prefix(VERSION_LINE).filter(|rest| !rest.starts_with(b"\r\n"))?;
    let lines = &rest[line_end(rest)?..];
    match lines {
        b"\r\n\r\n" => Some(Vec::new()),
        lines => Some([VERSION_LINE, lines].concat()),
    }
}

/// A copy of `block` with a line added at its end. `value` holds no CR or LF.
pub fn with_line(block: &[u8], name: &str, value: &str) -> Vec<u8> {
    extended(block, |out| push_line(out, name, value))
}

/// A copy of `block` in which `name` says `value`: in its place when it is there, at the end when not.
pub fn with_value(block: &[u8], name: &str, value: &str) -> Vec<u8> {
    let prefix = format!("\r\n{name}:");
    let Some(found) = memchr::memmem::find(block, prefix.as_bytes()) else { return with_line(block, name, value) };
    let start = found + prefix.len();
    let end = line_end(&block[start..]).map_or(block.len(), |end| start + end);
    [&block[..start], b" ", value.as_bytes(), &block[end..]].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a block may be made of, well or badly.
    fn any_block() -> impl Strategy<Value = Vec<u8>> {
        let pieces = [
            "NATS/1.0",
            "NATS/1.0\r\n",
            "\r\n",
            "\r\n\r\n",
            "A: 1\r\n",
            "Nats-X: 2\r\n",
            "A",
            "Nats-X",
            ":",
            " ",
            "\r",
            "\n",
        ];
        prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..10).prop_map(|pieces| pieces.concat().into())
    }

    fn lines(block: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        Headers::new(block).iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// However badly a block is made, what is added is there, what is taken away is gone, and the rest is as it was.
        #[test]
        fn an_edit_is_read_as_it_is_meant(block in any_block()) {
            let before = lines(&block);
            let line = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
            let is_block = block.starts_with(VERSION_LINE) || block.ends_with(b"\r\n");
            let mut with = if is_block { before.clone() } else { Vec::new() };
            with.push(line("E", "5"));
            prop_assert_eq!(lines(&with_line(&block, "E", "5")), with);

            let mut changed = before.clone();
            match changed.iter_mut().find(|(name, _)| name == b"A") {
                Some(found) => *found = line("A", "9"),
                None => {
                    changed.retain(|_| is_block);
                    changed.push(line("A", "9"));
                }
            }
            prop_assert_eq!(lines(&with_value(&block, "A", "9")), changed);

            let nats = |name: &[u8]| name.starts_with(b"Nats-");
            let mut kept = before.clone();
            kept.retain(|(name, _)| !nats(name));
            let edited = without(&block, nats);
            prop_assert_eq!(edited.is_some(), kept.len() < before.len());
            prop_assert_eq!(lines(&edited.unwrap_or(block)), kept);
        }
    }

    #[test]
    fn reads_what_it_writes() {
        let block = HeaderBuilder::status(404, "No Messages").add("A", 1).add("B", "x\r\nC: y").build();
        let headers = Headers::new(&block);
        assert_eq!(headers.status(), Some(404));
        assert_eq!(headers.description(), Some("No Messages"));
        assert_eq!(headers.get_str("A"), Some("1"));
        assert_eq!(headers.get_str("B"), Some("x  C: y"));
        assert_eq!(headers.get("C"), None);
        assert_eq!(headers.iter().count(), 2);
    }

    #[test]
    fn blocks_grow_and_shrink() {
        let block = b"NATS/1.0\r\nA: b\r\nNats-X: 1\r\nC: d\r\n\r\n";
        let grown = extended(block, |out| push_line(out, "E", 5));
        assert_eq!(grown, b"NATS/1.0\r\nA: b\r\nNats-X: 1\r\nC: d\r\nE: 5\r\n\r\n");
        assert_eq!(extended(b"", |out| push_line(out, "E", 5)), b"NATS/1.0\r\nE: 5\r\n\r\n");
        let nats = |name: &[u8]| name.starts_with(b"Nats-");
        assert_eq!(without(block, nats).unwrap(), b"NATS/1.0\r\nA: b\r\nC: d\r\n\r\n");
        assert_eq!(without(block, |name| name == b"a"), None);
        assert_eq!(without(b"NATS/1.0\r\nNats-X: 1\r\n\r\n", nats).unwrap(), b"");
        assert_eq!(without(b"", nats), None);
    }

    #[test]
    fn a_status_goes_and_the_rest_stays() {
        let check = |block: &str, expected: Option<&str>| {
            assert_eq!(without_status(block.as_bytes()).as_deref(), expected.map(str::as_bytes), "{block:?}");
        };
        check("NATS/1.0 409 Consumer Deleted\r\n\r\n", Some(""));
        check("NATS/1.0 100\r\nA: b\r\n\r\n", Some("NATS/1.0\r\nA: b\r\n\r\n"));
        check("NATS/1.0409 x\rA: b\r\nC: d\r\n\r\n", Some("NATS/1.0\r\nC: d\r\n\r\n"));
        check("NATS/1.0\r\nA: b\r\n\r\n", None);
        check("NATS/1.0\r\n\r\n", None);
        check("A: b\r\n\r\n", None);
        check("", None);
    }

    #[test]
    fn blocks_are_changed_line_by_line() {
        let block = b"NATS/1.0\r\nA: 1\r\nAB: 2\r\nA: 3\r\n\r\n";
        assert_eq!(with_line(b"", "X", "y"), b"NATS/1.0\r\nX: y\r\n\r\n");
        assert_eq!(with_line(block, "X", "y"), b"NATS/1.0\r\nA: 1\r\nAB: 2\r\nA: 3\r\nX: y\r\n\r\n");
        assert_eq!(with_value(block, "AB", "longer"), b"NATS/1.0\r\nA: 1\r\nAB: longer\r\nA: 3\r\n\r\n");
        assert_eq!(with_value(b"", "AB", "x"), b"NATS/1.0\r\nAB: x\r\n\r\n");
    }
}
