//! Subject transforms: from a subject that a filter matches to another one, by rule (ADR-30, ADR-36).
//!
//! A destination's tokens are taken as they are, or compute something of the source's wildcard tokens: `$1` and
//! `{{wildcard(1)}}`, `{{partition(buckets,1,2)}}`, `{{split(1,-)}}`, `{{splitFromLeft(1,3)}}`, `{{splitFromRight(1,3)}}`,
//! `{{sliceFromLeft(1,3)}}`, `{{sliceFromRight(1,3)}}`, `{{left(1,3)}}`, `{{right(1,3)}}`, `{{random(10)}}`. Texts of
//! errors, and what odd arguments lead to, are nats-server's (`server/subject_transform.go`).

use super::subject;

/// A checked pair of source filter and destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    source: Box<[u8]>,
    source_tokens: usize,
    /// Source and destination are both `>`.
    is_identity: bool,
    parts: Vec<Part>,
}

/// One token of a destination. Source tokens are counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<[u8]>),
    /// `>`: all that the source's own `>` stands for.
    Rest,
    Wildcard(usize),
    /// The hash of the tokens, or of the whole subject when there are none, by the number of buckets.
    Partition {
        buckets: i32,
        tokens: Box<[usize]>,
    },
    Random(i32),
    Cut {
        cut: Cut,
        token: usize,
        size: i32,
    },
    Split {
        token: usize,
        delimiter: Box<[u8]>,
    },
}

/// What becomes of a token longer than `size`; others stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    SplitFromLeft,
    SplitFromRight,
    SliceFromLeft,
    SliceFromRight,
    Left,
    Right,
}

/// Why there is no such transform, in nats-server's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransformError {
    #[error("invalid subject")]
    BadSubject,
    #[error("invalid mapping destination: invalid transform{}", within(.0))]
    InvalidDestination(String),
    #[error("invalid mapping destination: unknown function{}", within(.0))]
    UnknownFunction(String),
    #[error("invalid mapping destination: wildcard index out of range{}", within(.0))]
    IndexOutOfRange(String),
    #[error("invalid mapping destination: not enough arguments passed to the function{}", within(.0))]
    NotEnoughArguments(String),
    #[error("invalid mapping destination: too many arguments passed to the function{}", within(.0))]
    TooManyArguments(String),
    #[error("invalid mapping destination: function argument is invalid or in the wrong format{}", within(.0))]
    InvalidArgument(String),
    #[error("invalid mapping destination: not using all of the token wildcard(s){}", within(.0))]
    UnusedWildcards(String),
    #[error(
        "invalid mapping destination: the only mapping function allowed for import transforms is {{{{Wildcard()}}}}{}",
        within(.0)
    )]
    NotReversible(String),
}

fn within(token: &str) -> String {
    if token.is_empty() { String::new() } else { format!(" in {token}") }
}

/// Where `{{random(n)}}` gets its numbers: a generator that a seed determines.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below 2^31.
    fn roll(&mut self) -> i32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as i32
    }
}

/// What a destination's token says, source tokens still counted by wildcard.
enum Placeholder {
    None,
    Wildcard(i64),
    Partition { buckets: i32, wildcards: Vec<i64> },
    Random(i32),
    Cut { cut: Cut, wildcard: i64, size: i32 },
    Split { wildcard: i64, delimiter: String },
}

impl Transform {
    /// A transform from the subjects `source` matches (all for an empty one); none for an empty destination.
    ///
    /// # Errors
    /// When a side is no valid subject, only one has a `>`, or a function is unknown or misused.
    pub fn new(source: &str, destination: &str) -> Result<Option<Transform>, TransformError> {
        Transform::build(source, destination, false)
    }

    /// As [`Transform::new`], for transforms that must be reversible: no function but wildcards, each source wildcard used.
    ///
    /// # Errors
    /// As for [`Transform::new`], and when it is not reversible.
    pub fn reversible(source: &str, destination: &str) -> Result<Option<Transform>, TransformError> {
        Transform::build(source, destination, true)
    }

    /// As [`Transform::new`], after the stricter look at the destination that configurations get (`ValidateMapping`).
    ///
    /// # Errors
    /// As for [`Transform::new`], and for white space and empty tokens in the destination.
    pub fn checked(source: &str, destination: &str) -> Result<Option<Transform>, TransformError> {
        if destination.is_empty() {
            return Ok(None);
        }
        let mut full_wildcard_seen = false;
        for token in destination.split('.') {
            if token.is_empty() || full_wildcard_seen {
                return Err(TransformError::InvalidDestination(token.to_owned()));
            }
            full_wildcard_seen = token == ">";
            if is_function(token) {
                if FUNCTIONS.iter().all(|name| arguments(token, name).is_none()) {
                    return Err(TransformError::UnknownFunction(token.to_owned()));
                }
            } else if token.contains(['\t', '\n', '\u{c}', '\r', ' ']) {
                return Err(TransformError::InvalidDestination(String::new()));
            }
        }
        Transform::new(source, destination)
    }

    fn build(source: &str, destination: &str, reversible: bool) -> Result<Option<Transform>, TransformError> {
        if destination.is_empty() {
            return Ok(None);
        }
        let source = if source.is_empty() { ">" } else { source };
        let (source_tokens, source_rest) = tokens_of(source).ok_or(TransformError::BadSubject)?;
        let (tokens, rest) = tokens_of(destination).ok_or(TransformError::BadSubject)?;
        if rest != source_rest || tokens.contains(&"*") {
            return Err(TransformError::BadSubject);
        }
        // Where the source's wildcards are; number 0 and below stand for the first token.
        let wildcards: Vec<usize> = (0..source_tokens.len()).filter(|&at| source_tokens[at] == "*").collect();
        let plain = wildcards.is_empty() && !source_rest;
        let mut used = 0;
        let mut parts = Vec::with_capacity(tokens.len());
        for token in tokens {
            let placeholder = placeholder(token)?;
            if reversible && !matches!(placeholder, Placeholder::None | Placeholder::Wildcard(_)) {
                return Err(TransformError::NotReversible(token.to_owned()));
            }
            let mut place = |number: i64| -> Result<usize, TransformError> {
                if plain {
                    return Err(TransformError::IndexOutOfRange(token.to_owned()));
                }
                used += 1;
                match usize::try_from(number) {
                    Ok(number) if number > wildcards.len() => {
                        Err(TransformError::IndexOutOfRange(format!("{token}: [{number}]")))
                    }
                    Ok(number) if number > 0 => Ok(wildcards[number - 1]),
                    _ => Ok(0),
                }
            };
            parts.push(match placeholder {
                Placeholder::None if token == ">" => Part::Rest,
                Placeholder::None => Part::Literal(token.as_bytes().into()),
                Placeholder::Wildcard(number) => Part::Wildcard(place(number)?),
                // Without wildcards there is only the whole subject to hash.
                Placeholder::Partition { buckets, .. } if plain => Part::Partition { buckets, tokens: Box::default() },
                Placeholder::Partition { buckets, wildcards } => {
                    Part::Partition { buckets, tokens: wildcards.into_iter().map(place).collect::<Result<_, _>>()? }
                }
                Placeholder::Random(most) => Part::Random(most),
                Placeholder::Cut { cut, wildcard, size } => Part::Cut { cut, token: place(wildcard)?, size },
                Placeholder::Split { wildcard, delimiter } => {
                    Part::Split { token: place(wildcard)?, delimiter: delimiter.into_bytes().into() }
                }
            });
        }
        if reversible && used < wildcards.len() {
            return Err(TransformError::UnusedWildcards(destination.to_owned()));
        }
        Ok(Some(Transform {
            is_identity: source == ">" && destination == ">",
            source: source.as_bytes().into(),
            source_tokens: source_tokens.len(),
            parts,
        }))
    }

    /// The filter that decides which subjects are transformed.
    pub fn source(&self) -> &[u8] {
        &self.source
    }

    /// What a subject becomes; `None` when the source does not match it.
    pub fn apply(&self, subject: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
        if self.is_identity {
            return Some(subject.to_vec());
        }
        if !subject::matches(&self.source, subject) || !subject::is_valid_literal(subject) {
            return None;
        }
        let tokens: Vec<&[u8]> = subject::tokens(subject).collect();
        let mut out = Vec::with_capacity(subject.len() + 32);
        for (at, part) in self.parts.iter().enumerate() {
            if at > 0 {
                out.push(b'.');
            }
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Rest => {
                    let rest = tokens.get(self.source_tokens - 1..).unwrap_or_default();
                    out.extend_from_slice(&rest.join(&b'.'));
                }
                Part::Wildcard(token) => out.extend_from_slice(tokens[*token]),
                Part::Partition { buckets, tokens: chosen } => {
                    let hash = match chosen.is_empty() {
                        true => fnv1a([subject]),
                        false => fnv1a(chosen.iter().map(|&token| tokens[token])),
                    };
                    push_number(&mut out, hash.checked_rem(*buckets as u32).unwrap_or(0));
                }
                Part::Random(most) => push_number(&mut out, dice.roll().checked_rem(*most).unwrap_or(0) as u32),
                Part::Cut { cut, token, size } => cut.apply(tokens[*token], *size, &mut out),
                Part::Split { token, delimiter } => split(tokens[*token], delimiter, &mut out),
            }
        }
        Some(out)
    }
}

/// The first transform that matches decides; a subject that none matches stays as it is.
pub fn apply_first(transforms: &[Transform], subject: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
    transforms.iter().find_map(|transform| transform.apply(subject, dice))
}

impl Cut {
    fn apply(self, token: &[u8], size: i32, out: &mut Vec<u8>) {
        let size = match usize::try_from(size) {
            Ok(size) if size > 0 && size < token.len() => size,
            _ => return out.extend_from_slice(token),
        };
        let (first, step) = match self {
            Cut::Left => return out.extend_from_slice(&token[..size]),
            Cut::Right => return out.extend_from_slice(&token[token.len() - size..]),
            Cut::SplitFromLeft => (size, token.len()),
            Cut::SplitFromRight => (token.len() - size, token.len()),
            Cut::SliceFromLeft => (size, size),
            Cut::SliceFromRight if token.len().is_multiple_of(size) => (size, size),
            Cut::SliceFromRight => (token.len() % size, size),
        };
        out.extend_from_slice(&token[..first]);
        for slice in token[first..].chunks(step) {
            out.push(b'.');
            out.extend_from_slice(slice);
        }
    }
}

/// As Go's `strings.Split`, empty pieces left out but for a first one before another delimiter.
fn split(token: &[u8], delimiter: &[u8], out: &mut Vec<u8>) {
    let pieces: Vec<&[u8]> = if delimiter.is_empty() {
        characters(token)
    } else {
        let mut pieces = Vec::new();
        let mut start = 0;
        for at in memchr::memmem::find_iter(token, delimiter) {
            pieces.push(&token[start..at]);
            start = at + delimiter.len();
        }
        pieces.push(&token[start..]);
        pieces
    };
    for (at, piece) in pieces.iter().enumerate() {
        out.extend_from_slice(piece);
        let more = pieces.get(at + 1).is_some_and(|next| !next.is_empty());
        if more && !(at == 0 && piece.is_empty()) {
            out.push(b'.');
        }
    }
}

/// The UTF-8 characters of a token, bytes that are none by themselves.
fn characters(token: &[u8]) -> Vec<&[u8]> {
    let mut rest = token;
    std::iter::from_fn(|| {
        let valid = |len: usize| rest.get(..len).is_some_and(|head| std::str::from_utf8(head).is_ok());
        let len = (1..=4).find(|&len| valid(len)).unwrap_or(1);
        let (head, tail) = rest.split_at_checked(len)?;
        rest = tail;
        Some(head)
    })
    .collect()
}

fn fnv1a<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let bytes = parts.into_iter().flatten();
    bytes.fold(0x811c_9dc5, |hash: u32, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn push_number(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(number.to_string().as_bytes());
}

/// The tokens, and whether the last is `>`; `None` when one is empty or `>` comes earlier.
fn tokens_of(subject: &str) -> Option<(Vec<&str>, bool)> {
    let tokens: Vec<&str> = subject.split('.').collect();
    let (last, others) = tokens.split_last()?;
    if last.is_empty() || others.iter().any(|token| token.is_empty() || *token == ">") {
        return None;
    }
    let rest = *last == ">";
    Some((tokens, rest))
}

/// The functions there are; a capital in a name may be written small.
const FUNCTIONS: &[&str] = &[
    "Wildcard",
    "Partition",
    "SplitFromLeft",
    "SplitFromRight",
    "SliceFromLeft",
    "SliceFromRight",
    "Split",
    "Left",
    "Right",
    "Random",
];

fn is_function(token: &str) -> bool {
    token.len() > 4 && token.starts_with("{{") && token.ends_with("}}")
}

/// The arguments of `{{ name( ... ) }}` found anywhere in a token; each capital of `name` may be small.
fn arguments<'a>(token: &'a str, name: &str) -> Option<Vec<&'a str>> {
    for (open, _) in token.match_indices("{{") {
        let inner = token[open + 2..].trim_ascii_start();
        let Some(spelled) = inner.get(..name.len()) else { continue };
        let alike = spelled
            .chars()
            .zip(name.chars())
            .all(|(got, wanted)| got == wanted || (wanted.is_ascii_uppercase() && got == wanted.to_ascii_lowercase()));
        let Some(list) = inner[name.len()..].trim_ascii_start().strip_prefix('(').filter(|_| alike) else { continue };
        let is_end = |&(at, _): &(usize, &str)| list[at + 1..].trim_ascii_start().starts_with("}}");
        if let Some((end, _)) = list.rmatch_indices(')').find(is_end) {
            let mut arguments = list[..end].split(',');
            let first = arguments.next().unwrap_or_default();
            return Some(std::iter::once(first).chain(arguments.map(str::trim_ascii_start)).collect());
        }
    }
    None
}

/// The wildcard, from 1, that a destination's token stands for.
pub(super) fn wildcard_number(token: &str) -> Option<usize> {
    match placeholder(token) {
        Ok(Placeholder::Wildcard(number)) => usize::try_from(number).ok().filter(|&number| number > 0),
        _ => None,
    }
}

fn placeholder(token: &str) -> Result<Placeholder, TransformError> {
    let invalid = || TransformError::InvalidArgument(token.to_owned());
    let number = |text: &str| text.trim_matches(' ').parse::<i64>().map_err(|_| invalid());
    let small = |text: &str| number(text).and_then(|number| i32::try_from(number).map_err(|_| invalid()));
    // Larger than 32 bits is refused, smaller wraps around.
    let count = |text: &str| {
        number(text).and_then(|number| if number > i64::from(i32::MAX) { Err(invalid()) } else { Ok(number as i32) })
    };
    let two = |arguments: &[&str]| match arguments.len() {
        2 => Ok(()),
        0 | 1 => Err(TransformError::NotEnoughArguments(token.to_owned())),
        _ => Err(TransformError::TooManyArguments(token.to_owned())),
    };
    if let Some(number) = token.strip_prefix('$').filter(|_| token.len() > 1) {
        // Other things begin with a dollar sign too.
        return Ok(number.parse().map_or(Placeholder::None, Placeholder::Wildcard));
    }
    if !is_function(token) {
        return Ok(Placeholder::None);
    }
    if let Some(arguments) = arguments(token, "Wildcard") {
        return match arguments[..] {
            [""] => Err(TransformError::NotEnoughArguments(token.to_owned())),
            [wildcard] => Ok(Placeholder::Wildcard(number(wildcard)?)),
            _ => Err(TransformError::TooManyArguments(token.to_owned())),
        };
    }
    if let Some(arguments) = arguments(token, "Partition") {
        let buckets = count(arguments[0])?;
        let wildcards = arguments[1..].iter().map(|text| number(text)).collect::<Result<_, _>>()?;
        return Ok(Placeholder::Partition { buckets, wildcards });
    }
    for (name, cut) in [
        ("SplitFromLeft", Cut::SplitFromLeft),
        ("SplitFromRight", Cut::SplitFromRight),
        ("SliceFromLeft", Cut::SliceFromLeft),
        ("SliceFromRight", Cut::SliceFromRight),
        ("Right", Cut::Right),
        ("Left", Cut::Left),
    ] {
        if let Some(arguments) = arguments(token, name) {
            two(&arguments)?;
            return Ok(Placeholder::Cut { cut, wildcard: number(arguments[0])?, size: small(arguments[1])? });
        }
    }
    if let Some(arguments) = arguments(token, "Split") {
        two(&arguments)?;
        let wildcard = number(arguments[0])?;
        if arguments[1].contains(' ') {
            return Err(invalid());
        }
        return Ok(Placeholder::Split { wildcard, delimiter: arguments[1].to_owned() });
    }
    if let Some(arguments) = arguments(token, "Random") {
        return match arguments[..] {
            [most] => Ok(Placeholder::Random(count(most)?)),
            _ => Err(TransformError::NotEnoughArguments(token.to_owned())),
        };
    }
    Err(TransformError::UnknownFunction(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(source: &str, destination: &str, subject: &str) -> Option<String> {
        let transform = Transform::checked(source, destination).expect(destination).expect(destination);
        transform.apply(subject.as_bytes(), &mut Dice::new(7)).map(|subject| String::from_utf8(subject).unwrap())
    }

    /// What nats-server 2.15.1 stored for subjects `s.<token>.zz` under a transform of `s.*.*`.
    #[test]
    fn functions_give_what_nats_server_gives() {
        let tokens = ["abcdefgh", "a-b--cd-", "--a", "ab"];
        for (destination, expected) in [
            ("x.$1", ["x.abcdefgh", "x.a-b--cd-", "x.--a", "x.ab"]),
            ("x.$2.$1", ["x.zz.abcdefgh", "x.zz.a-b--cd-", "x.zz.--a", "x.zz.ab"]),
            ("x.{{Wildcard( 2 )}}", ["x.zz"; 4]),
            ("{{wildcard(2)}}", ["zz"; 4]),
            ("x.{{wildcard(0)}}", ["x.s"; 4]),
            ("x.{{wildcard(-1)}}", ["x.s"; 4]),
            ("x.$0", ["x.s"; 4]),
            ("x.$foo", ["x.$foo"; 4]),
            ("x.{{partition(10,1)}}", ["x.7", "x.5", "x.6", "x.6"]),
            ("x.{{partition(10,1,2)}}", ["x.3", "x.3", "x.8", "x.6"]),
            ("x.{{partition(10)}}", ["x.4", "x.0", "x.7", "x.5"]),
            ("x.{{partition(0,1)}}", ["x.0"; 4]),
            ("x.{{partition(-3,1)}}", ["x.1994041997", "x.435098845", "x.283464746", "x.1294271946"]),
            ("x.{{split(1,-)}}", ["x.abcdefgh", "x.a.b.cd", "x..a", "x.ab"]),
            ("x.{{split(1, )}}", ["x.a.b.c.d.e.f.g.h", "x.a.-.b.-.-.c.d.-", "x.-.-.a", "x.a.b"]),
            ("x.{{split(1,--)}}", ["x.abcdefgh", "x.a-b.cd-", "x.a", "x.ab"]),
            ("x.{{splitfromleft(1,3)}}", ["x.abc.defgh", "x.a-b.--cd-", "x.--a", "x.ab"]),
            ("x.{{splitfromleft(1,-1)}}", ["x.abcdefgh", "x.a-b--cd-", "x.--a", "x.ab"]),
            ("x.{{SplitFromRight(1,3)}}", ["x.abcde.fgh", "x.a-b--.cd-", "x.--a", "x.ab"]),
            ("x.{{slicefromleft(1,3)}}", ["x.abc.def.gh", "x.a-b.--c.d-", "x.--a", "x.ab"]),
            ("x.{{slicefromleft(1,4)}}", ["x.abcd.efgh", "x.a-b-.-cd-", "x.--a", "x.ab"]),
            ("x.{{sliceFromRight(1,3)}}", ["x.ab.cde.fgh", "x.a-.b--.cd-", "x.--a", "x.ab"]),
            ("x.{{left(1,2)}}", ["x.ab", "x.a-", "x.--", "x.ab"]),
            ("x.{{right(1,2)}}", ["x.gh", "x.d-", "x.-a", "x.ab"]),
            ("x.{{right(1,20)}}", ["x.abcdefgh", "x.a-b--cd-", "x.--a", "x.ab"]),
            ("x.{{random(0)}}", ["x.0"; 4]),
            ("x.{{}}", ["x.{{}}"; 4]),
            ("x.{{wildcard(1)", ["x.{{wildcard(1)"; 4]),
            ("x.{{wildcard(1) }}", ["x.abcdefgh", "x.a-b--cd-", "x.--a", "x.ab"]),
            ("x.{{wildcard(1)}}foo}}", ["x.abcdefgh", "x.a-b--cd-", "x.--a", "x.ab"]),
        ] {
            let got = tokens.map(|token| apply("s.*.*", destination, &format!("s.{token}.zz")).unwrap());
            assert_eq!(got, expected, "{destination}");
        }
    }

    #[test]
    fn sources_match_and_carry_their_rest_over() {
        for (source, destination, subject, expected) in [
            ("", ">", "a.b", Some("a.b")),
            (">", ">", "a.b", Some("a.b")),
            ("", "b.>", "foo", Some("b.foo")),
            ("a.>", "b.>", "a.b.c.d", Some("b.b.c.d")),
            ("a.>", "b.>", "foo", None),
            ("a.*.>", "b.>", "a.b.c.d", Some("b.c.d")),
            ("a.*.>", "b.$1.>", "a.b.c.d", Some("b.b.c.d")),
            ("a.*.>", "b.$1.>", "a.b", None),
            ("foo", "x.{{partition(5)}}", "foo", Some("x.3")),
            ("foo", "x.{{partition(5,1)}}", "foo", Some("x.3")),
            ("a.>", "b.>", "a..c", None),
        ] {
            assert_eq!(apply(source, destination, subject).as_deref(), expected, "{source} {destination} {subject}");
        }
        assert_eq!(Transform::checked("s", ""), Ok(None));
    }

    #[test]
    fn refusals_have_nats_servers_words() {
        let prefix = "invalid mapping destination: ";
        for (source, destination, expected) in [
            ("s.*.*", "x.{{wildcard()}}", "not enough arguments passed to the function in {{wildcard()}}"),
            ("s.*.*", "x.{{wildcard(1,2)}}", "too many arguments passed to the function in {{wildcard(1,2)}}"),
            ("s.*.*", "x.{{wildcard(a)}}", "function argument is invalid or in the wrong format in {{wildcard(a)}}"),
            ("s.*.*", "x.{{wildcard(3)}}", "wildcard index out of range in {{wildcard(3)}}: [3]"),
            ("s.*.*", "x.$9", "wildcard index out of range in $9: [9]"),
            ("s.*.*", "x..y", "invalid transform"),
            ("s.*.*", "x y", "invalid transform"),
            ("s.*.*", "x.{{partition()}}", "function argument is invalid or in the wrong format in {{partition()}}"),
            ("s.*.*", "x.{{partition(10,9)}}", "wildcard index out of range in {{partition(10,9)}}: [9]"),
            (
                "s.*.*",
                "x.{{partition(99999999999,1)}}",
                "function argument is invalid or in the wrong format in {{partition(99999999999,1)}}",
            ),
            ("s.*.*", "x.{{split(1)}}", "not enough arguments passed to the function in {{split(1)}}"),
            ("s.*.*", "x.{{split(1,-,2)}}", "too many arguments passed to the function in {{split(1,-,2)}}"),
            (
                "s.*.*",
                "x.{{splitfromleft(1,a)}}",
                "function argument is invalid or in the wrong format in {{splitfromleft(1,a)}}",
            ),
            ("s.*.*", "x.{{splitfromleft(9,1)}}", "wildcard index out of range in {{splitfromleft(9,1)}}: [9]"),
            ("s.*.*", "x.{{random(a)}}", "function argument is invalid or in the wrong format in {{random(a)}}"),
            ("s.*.*", "x.{{foo(1)}}", "unknown function in {{foo(1)}}"),
            ("foo", "x.{{wildcard(1)}}", "wildcard index out of range in {{wildcard(1)}}"),
            ("foo", "$1", "wildcard index out of range in $1"),
        ] {
            let error = Transform::checked(source, destination).expect_err(destination).to_string();
            assert_eq!(error, format!("{prefix}{expected}"), "{destination}");
        }
        for (source, destination) in [("s.*.*", "x.*"), ("s.*.*", "x.>"), ("a.>", "b"), ("a", "b.>"), ("s..x", "y")] {
            assert_eq!(Transform::checked(source, destination), Err(TransformError::BadSubject), "{destination}");
        }
    }

    #[test]
    fn reversible_transforms_use_every_wildcard_and_nothing_else() {
        assert!(Transform::reversible("a.*.*", "b.$2.{{wildcard(1)}}").is_ok());
        assert_eq!(
            Transform::reversible("a.*.*", "b.$2").unwrap_err().to_string(),
            "invalid mapping destination: not using all of the token wildcard(s) in b.$2"
        );
        assert_eq!(
            Transform::reversible("a.*", "b.{{left(1,2)}}").unwrap_err().to_string(),
            "invalid mapping destination: the only mapping function allowed for import transforms is {{Wildcard()}} in {{left(1,2)}}"
        );
    }

    #[test]
    fn a_seed_decides_the_random_numbers() {
        let transform = Transform::checked("a", "b.{{random(10)}}").unwrap().unwrap();
        let draw = |seed| {
            let mut dice = Dice::new(seed);
            (0..200).map(|_| transform.apply(b"a", &mut dice).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        for digit in b'0'..=b'9' {
            assert!(draw(1).contains(&vec![b'b', b'.', digit]), "{}", digit as char);
        }
    }
}
