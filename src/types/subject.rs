//! Subjects: validity, matching and overlap, on raw bytes (a NATS subject need not be UTF-8).
//!
//! A *literal* has no wildcard token; a *filter* may have `*` (one token) and a final `>` (one or more tokens).
//! Source: nats-server `server/sublist.go` (IsValidSubject, matchLiteral, SubjectsCollide).

/// The tokens between the dots.
pub fn tokens(subject: &[u8]) -> impl Iterator<Item = &[u8]> {
    subject.split(|&byte| byte == b'.')
}

/// The `index`th token, from 0.
pub fn token(subject: &[u8], index: usize) -> Option<&[u8]> {
    tokens(subject).nth(index)
}

/// Whether it is a valid filter: no empty token, no white space or NUL, `>` only as the last token. Bytes `*` and `>` inside
/// a longer token are ordinary characters.
pub fn is_valid(subject: &[u8]) -> bool {
    if subject.is_empty() {
        return false;
    }
    let mut full_wildcard_seen = false;
    for token in tokens(subject) {
        if token.is_empty() || full_wildcard_seen {
            return false;
        }
        if token == b">" {
            full_wildcard_seen = true;
        } else if token.iter().any(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c | 0)) {
            return false;
        }
    }
    true
}

/// Whether it holds a wildcard token.
pub fn has_wildcard(subject: &[u8]) -> bool {
    memchr::memchr2(b'*', b'>', subject).is_some() && tokens(subject).any(|token| token == b"*" || token == b">")
}

/// Whether it is valid and has no wildcard token.
pub fn is_valid_literal(subject: &[u8]) -> bool {
    is_valid(subject) && !has_wildcard(subject)
}

/// Whether `filter` matches every subject that `subject` stands for; with a literal `subject`, plain matching.
pub fn matches(filter: &[u8], subject: &[u8]) -> bool {
    if filter == b">" {
        return true;
    }
    let mut filter_tokens = tokens(filter);
    let mut subject_tokens = tokens(subject);
    loop {
        match (filter_tokens.next(), subject_tokens.next()) {
            (Some(b">"), Some(_)) => return true,
            (Some(b"*"), Some(token)) if token != b">" => {}
            (Some(wanted), Some(token)) if wanted == token => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Whether any literal subject matches both filters.
pub fn overlaps(left: &[u8], right: &[u8]) -> bool {
    let mut left_tokens = tokens(left);
    let mut right_tokens = tokens(right);
    loop {
        match (left_tokens.next(), right_tokens.next()) {
            (Some(b">"), Some(_)) | (Some(_), Some(b">")) => return true,
            (Some(b"*"), Some(_)) | (Some(_), Some(b"*")) => {}
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity() {
        for (subject, valid, literal) in [
            ("foo", true, true),
            ("foo.bar", true, true),
            ("foo.*", true, false),
            ("foo.>", true, false),
            (">", true, false),
            ("foo.b*r", true, true),
            ("foo.>.bar", false, false),
            ("foo..bar", false, false),
            (".foo", false, false),
            ("foo.", false, false),
            ("", false, false),
            ("foo bar", false, false),
        ] {
            assert_eq!(is_valid(subject.as_bytes()), valid, "{subject:?}");
            assert_eq!(is_valid_literal(subject.as_bytes()), literal, "{subject:?}");
        }
    }

    #[test]
    fn matching_and_overlap() {
        for (filter, subject, expected) in [
            ("foo", "foo", true),
            ("foo.*", "foo.bar", true),
            ("foo.*", "foo", false),
            ("foo.*", "foo.bar.baz", false),
            ("foo.>", "foo.bar.baz", true),
            ("foo.>", "foo", false),
            ("*.bar", "foo.bar", true),
            ("foo.>", "foo.*", true),
            ("foo.*", "foo.>", false),
        ] {
            assert_eq!(matches(filter.as_bytes(), subject.as_bytes()), expected, "{filter} {subject}");
        }
        for (left, right, expected) in [
            ("foo.*", "*.bar", true),
            ("foo.*", "foo.>", true),
            ("foo.>", "*", false),
            ("foo.bar", "foo.*.baz", false),
            ("foo.*.baz", "foo.>", true),
            ("a.b", "a.c", false),
        ] {
            assert_eq!(overlaps(left.as_bytes(), right.as_bytes()), expected, "{left} {right}");
            assert_eq!(overlaps(right.as_bytes(), left.as_bytes()), expected, "{right} {left}");
        }
    }
}
