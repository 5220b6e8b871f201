//! The grammar of nats-server's config files (`conf/lex.go`): text to a tree whose variables and includes are still open.
//!
//! Pairs of key and value, with `:`, `=` or only space between them; maps in braces, arrays in brackets, their members apart
//! by commas or new lines; `#` and `//` comments; strings bare, in single or double quotes, or as a block in parentheses.
//! The whole document may stand in braces, so JSON is read too.

use winnow::combinator::{alt, opt, peek};
use winnow::error::{ErrMode, ParserError};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location as _, Stateful, Stream};
use winnow::token::{any, one_of, take, take_till, take_until, take_while};

/// Maps and arrays within one another. More is no config but an attack on the stack.
const DEPTH_MAX: usize = 64;

/// `key value`, or `include path`.
#[derive(Debug, PartialEq)]
pub enum Item {
    Entry { key: String, at: usize, node: Node },
    Include { path: String, at: usize },
}

/// A value and where it starts, in bytes.
#[derive(Debug, PartialEq)]
pub struct Node {
    pub at: usize,
    pub kind: NodeKind,
}

#[derive(Debug, PartialEq)]
pub enum NodeKind {
    /// Not quoted: a number, a truth value, a date or a string, by its looks.
    Bare(String),
    Text(String),
    /// The name after the dollar sign.
    Variable(String),
    Array(Vec<Node>),
    Map(Vec<Item>),
}

/// What is wrong, and at which byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    pub at: usize,
    pub text: String,
}

type Input<'a> = Stateful<LocatingSlice<&'a str>, usize>;
type Parsed<T> = Result<T, ErrMode<SyntaxError>>;

impl<'a> ParserError<Input<'a>> for SyntaxError {
    type Inner = SyntaxError;

    fn from_input(input: &Input<'a>) -> SyntaxError {
        SyntaxError { at: input.current_token_start(), text: format!("Unexpected {}", next_as_text(input)) }
    }

    fn into_inner(self) -> Result<SyntaxError, SyntaxError> {
        Ok(self)
    }
}

/// Reads a whole file.
///
/// # Errors
/// The first place that is not in the grammar.
pub fn parse(text: &str) -> Result<Vec<Item>, SyntaxError> {
    let text_start = text.strip_prefix('\u{feff}').unwrap_or(text);
    let skipped = text.len() - text_start.len();
    let mut input = Stateful { input: LocatingSlice::new(text_start), state: 0 };
    let outcome = document(&mut input).map_err(|error| match error {
        ErrMode::Backtrack(error) | ErrMode::Cut(error) => SyntaxError { at: error.at + skipped, ..error },
        ErrMode::Incomplete(_) => SyntaxError { at: text.len(), text: "Unexpected end of file".to_owned() },
    });
    let mut items = outcome?;
    if skipped > 0 {
        items.iter_mut().for_each(|item| shift(item, skipped));
    }
    Ok(items)
}

/// Only top-level places are worth correcting for a byte order mark: it shares their line alone.
fn shift(item: &mut Item, by: usize) {
    match item {
        Item::Entry { at, node, .. } => {
            *at += by;
            shift_node(node, by);
        }
        Item::Include { at, .. } => *at += by,
    }
}

fn shift_node(node: &mut Node, by: usize) {
    node.at += by;
    match &mut node.kind {
        NodeKind::Array(nodes) => nodes.iter_mut().for_each(|node| shift_node(node, by)),
        NodeKind::Map(items) => items.iter_mut().for_each(|item| shift(item, by)),
        _ => {}
    }
}

/// Top-level items, all or some of them in braces. One closing brace too many is forgiven at the very end, as by
/// nats-server.
fn document(input: &mut Input<'_>) -> Parsed<Vec<Item>> {
    let mut items = Vec::new();
    loop {
        gap(input)?;
        if at_end(input) {
            return Ok(items);
        }
        if opt('{').parse_next(input)?.is_some() {
            items.extend(members(input)?);
        } else if opt('}').parse_next(input)?.is_some() {
            gap(input)?;
            if !at_end(input) {
                return fail(input, "Expected the end of the file after its closing '}'");
            }
        } else {
            items.push(item(input, Within::Document)?);
            entry_end(input)?;
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Within {
    Document,
    Map,
}

/// The items of a map up to and with its closing brace.
fn members(input: &mut Input<'_>) -> Parsed<Vec<Item>> {
    deeper(input, |input| {
        let mut items = Vec::new();
        loop {
            gap(input)?;
            if opt('}').parse_next(input)?.is_some() {
                return Ok(items);
            }
            if at_end(input) {
                return fail(input, "Unexpected EOF processing map: a '}' is missing");
            }
            items.push(item(input, Within::Map)?);
            entry_end(input)?;
        }
    })
}

fn deeper<T>(input: &mut Input<'_>, parse: impl FnOnce(&mut Input<'_>) -> Parsed<T>) -> Parsed<T> {
    if input.state >= DEPTH_MAX {
        return fail(input, "Maps and arrays are nested too deeply");
    }
    input.state += 1;
    let parsed = parse(input);
    input.state -= 1;
    parsed
}

/// What may follow an item on its line.
fn entry_end(input: &mut Input<'_>) -> Parsed<()> {
    blanks(input)?;
    let follows = peek(opt(alt(("\n", "\r", ";", ",", "}", "#", "//")))).parse_next(input)?;
    if follows.is_some() || at_end(input) {
        return Ok(());
    }
    let found = next_as_text(input);
    fail(input, &format!("Expected a value to end with a new line, a comma or a comment, but got {found} instead"))
}

fn item(input: &mut Input<'_>, within: Within) -> Parsed<Item> {
    let at = input.current_token_start();
    let (key, is_bare) = key(input)?;
    if is_bare && key.eq_ignore_ascii_case("include") && peek(opt(one_of((' ', '\t')))).parse_next(input)?.is_some() {
        blanks(input)?;
        return Ok(Item::Include { path: include_path(input)?, at });
    }
    blanks(input)?;
    let new_line = space(input)?;
    let separator = opt(one_of((':', '='))).parse_next(input)?.is_some();
    if separator {
        blanks(input)?;
        if within == Within::Map {
            space(input)?;
        }
    }
    let next = peek(opt(any)).parse_next(input)?;
    let is_opening = matches!(next, Some('{' | '[' | '(' | '"' | '\''));
    if new_line && !separator && !is_opening || matches!(next, None | Some('\n' | '\r' | ',' | ';' | '}' | ']')) {
        return fail_at(at, format!("Expected a value for {key:?}"));
    }
    let node = node(input)?;
    Ok(Item::Entry { key, at, node })
}

/// A key, and whether it stood without quotes.
fn key(input: &mut Input<'_>) -> Parsed<(String, bool)> {
    let at = input.current_token_start();
    if let Some(quote) = opt(one_of(('"', '\''))).parse_next(input)? {
        let key = opt(take_till(0.., quote)).parse_next(input)?.unwrap_or_default().to_owned();
        if opt(quote).parse_next(input)?.is_none() {
            return fail_at(at, "Unexpected EOF processing quoted map key".to_owned());
        }
        return Ok((key, false));
    }
    let key: &str =
        take_till(0.., |letter: char| letter.is_whitespace() || matches!(letter, ':' | '=')).parse_next(input)?;
    if key.is_empty() {
        let found = next_as_text(input);
        return fail_at(at, format!("Unexpected key separator {found}"));
    }
    Ok((key.to_owned(), true))
}

fn include_path(input: &mut Input<'_>) -> Parsed<String> {
    let at = input.current_token_start();
    let path = match opt(one_of(('"', '\''))).parse_next(input)? {
        Some(quote) => {
            let path: &str = take_till(0.., quote).parse_next(input)?;
            if opt(quote).parse_next(input)?.is_none() {
                return fail_at(at, "Unexpected EOF in quoted include".to_owned());
            }
            path
        }
        None => {
            take_till(0.., |letter: char| letter.is_whitespace() || matches!(letter, ';' | '}')).parse_next(input)?
        }
    };
    if path.is_empty() {
        return fail_at(at, "Expected include value but found new line".to_owned());
    }
    Ok(path.to_owned())
}

fn node(input: &mut Input<'_>) -> Parsed<Node> {
    let at = input.current_token_start();
    let first = peek(any).parse_next(input)?;
    let kind = match first {
        '{' => {
            any.parse_next(input)?;
            NodeKind::Map(members(input)?)
        }
        '[' => {
            any.parse_next(input)?;
            NodeKind::Array(elements(input)?)
        }
        '\'' => {
            any.parse_next(input)?;
            let text: &str = take_till(0.., '\'').parse_next(input)?;
            let text = text.to_owned();
            close(input, '\'', at)?;
            NodeKind::Text(text)
        }
        '"' => {
            any.parse_next(input)?;
            let text = escaped(input, |letter| letter == '"')?.0;
            close(input, '"', at)?;
            NodeKind::Text(text)
        }
        '(' => NodeKind::Text(block(input, at)?),
        _ => bare(input)?,
    };
    Ok(Node { at, kind })
}

fn close(input: &mut Input<'_>, quote: char, opened: usize) -> Parsed<()> {
    match opt(quote).parse_next(input)? {
        Some(_) => Ok(()),
        None => fail_at(opened, format!("Unexpected EOF: this string has no closing {quote}")),
    }
}

/// The members of an array up to and with its closing bracket.
fn elements(input: &mut Input<'_>) -> Parsed<Vec<Node>> {
    deeper(input, |input| {
        let mut nodes = Vec::new();
        loop {
            trivia(input)?;
            if opt(']').parse_next(input)?.is_some() {
                return Ok(nodes);
            }
            if peek(opt(',')).parse_next(input)?.is_some() {
                return fail(input, "Unexpected array value terminator ','");
            }
            if at_end(input) {
                return fail(input, "Unexpected EOF processing array: a ']' is missing");
            }
            nodes.push(node(input)?);
            blanks(input)?;
            let follows = peek(opt(alt((",", "]", "\n", "\r", "#", "//")))).parse_next(input)?;
            if follows.is_none() && !at_end(input) {
                let found = next_as_text(input);
                return fail(
                    input,
                    &format!(
                        "Expected an array value terminator ',' or an array terminator ']', but got {found} instead"
                    ),
                );
            }
            trivia(input)?;
            opt(',').parse_next(input)?;
        }
    })
}

/// From `(` to a `)` on a line by itself.
fn block(input: &mut Input<'_>, at: usize) -> Parsed<String> {
    any.parse_next(input)?;
    let mut text = String::new();
    loop {
        let Some(part) = opt(take_until(0.., "\n)")).parse_next(input)? else {
            return fail_at(at, "Unexpected EOF processing block: a ')' on a line of its own is missing".to_owned());
        };
        text.push_str(part);
        text.push_str(take(1_usize).parse_next(input)?);
        any.parse_next(input)?;
        if at_end(input) || peek(opt(alt(("\n", "\r\n")))).parse_next(input)?.is_some() {
            return Ok(text);
        }
        text.push(')');
    }
}

/// What stands without quotes.
fn bare(input: &mut Input<'_>) -> Parsed<NodeKind> {
    let ends = |letter: char| matches!(letter, '\n' | '\r' | ';' | ',' | ']' | '}' | ' ' | '\t' | '\'');
    let (text, has_escapes) = escaped(input, ends)?;
    opt('\'').parse_next(input)?;
    Ok(match text.strip_prefix('$') {
        _ if has_escapes => NodeKind::Text(text),
        // Not a variable but an encrypted password.
        Some(name) if !name.starts_with("2a$") => NodeKind::Variable(name.to_owned()),
        _ => NodeKind::Bare(text),
    })
}

/// Text with backslash escapes up to what `ends` it, and whether there were any.
fn escaped(input: &mut Input<'_>, ends: impl Fn(char) -> bool) -> Parsed<(String, bool)> {
    let mut bytes = Vec::new();
    let mut has_escapes = false;
    let start = input.current_token_start();
    loop {
        let part: &str = take_till(0.., |letter| letter == '\\' || ends(letter)).parse_next(input)?;
        bytes.extend_from_slice(part.as_bytes());
        let at = input.current_token_start();
        if opt('\\').parse_next(input)?.is_none() {
            let Ok(text) = String::from_utf8(bytes) else {
                return fail_at(start, "This string's \\x escapes do not make valid UTF-8".to_owned());
            };
            return Ok((text, has_escapes));
        }
        has_escapes = true;
        bytes.push(match opt(any).parse_next(input)? {
            Some('t') => b'\t',
            Some('n') => b'\n',
            Some('r') => b'\r',
            Some('"') => b'"',
            Some('\\') => b'\\',
            Some('x') => {
                let digits = opt(take_while(2, |letter: char| letter.is_ascii_hexdigit())).parse_next(input)?;
                let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
                    return fail_at(at, "Expected two hexadecimal digits after '\\x'".to_owned());
                };
                byte
            }
            _ => {
                let allowed = "Only the following escape characters are allowed: \\xXX, \\t, \\n, \\r, \\\", \\\\";
                return fail_at(at, format!("Invalid escape character. {allowed}"));
            }
        });
    }
}

/// Spaces and tabs.
fn blanks(input: &mut Input<'_>) -> Parsed<()> {
    take_while(0.., (' ', '\t')).void().parse_next(input)
}

/// Any white space; whether a new line was in it.
fn space(input: &mut Input<'_>) -> Parsed<bool> {
    let space: &str = take_while(0.., char::is_whitespace).parse_next(input)?;
    Ok(space.contains('\n'))
}

/// White space and comments.
fn trivia(input: &mut Input<'_>) -> Parsed<()> {
    loop {
        space(input)?;
        if opt(alt(("#", "//"))).parse_next(input)?.is_none() {
            return Ok(());
        }
        take_till(0.., ('\n', '\r')).void().parse_next(input)?;
    }
}

/// What may stand between two items.
fn gap(input: &mut Input<'_>) -> Parsed<()> {
    loop {
        trivia(input)?;
        if opt(one_of((',', ';'))).parse_next(input)?.is_none() {
            return Ok(());
        }
    }
}

fn at_end(input: &Input<'_>) -> bool {
    input.eof_offset() == 0
}

fn next_as_text(input: &Input<'_>) -> String {
    match input.peek_token() {
        None => "the end of the file".to_owned(),
        Some('\n' | '\r') => "a new line".to_owned(),
        Some(letter) => format!("{letter:?}"),
    }
}

fn fail<T>(input: &Input<'_>, text: &str) -> Parsed<T> {
    fail_at(input.current_token_start(), text.to_owned())
}

fn fail_at<T>(at: usize, text: String) -> Parsed<T> {
    Err(ErrMode::Cut(SyntaxError { at, text }))
}
