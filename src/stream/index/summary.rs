//! A segment as bytes, so that a restart need not look at its messages.
//!
//! ```text
//! version 1
//! varint   live messages, at least 1
//! for each: varint  offset in the segment, less the one before, less 1
//!           varint  subject: 0 for a new one, whose varint length and bytes follow; else the number of an earlier one
//!           varint  accounted bytes x 2, plus 1 when the row itself has to be read
//!           varint  nanoseconds since the one before; the first one's since 1970
//! ```
//! Subjects are numbered from 1 in order of appearance; every segment names its own, so that what is written grows with
//! the messages and not with all the subjects there are. About 8 bytes a message.

use super::segment::SPAN;

const VERSION: u8 = 1;

/// The bytes are not a summary of that segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("they are not a summary of this segment")]
pub struct BadSummary;

/// One live message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub offset: u16,
    /// Number of its subject, from 0.
    pub subject: u32,
    pub accounted_bytes: u32,
    /// Whether its headers say something that only its row tells.
    pub notable: bool,
    pub time_ns: i64,
}

/// A summary taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary<'a> {
    pub subjects: Vec<&'a [u8]>,
    pub entries: Vec<Entry>,
}

/// Builds a summary from entries in order of sequence.
pub struct Writer {
    out: Vec<u8>,
    next_offset: u64,
    time_ns: i64,
}

impl Writer {
    pub fn new(entries: u64) -> Writer {
        let mut out = Vec::with_capacity(entries as usize * 10 + 16);
        out.push(VERSION);
        put(&mut out, entries);
        Writer { out, next_offset: 0, time_ns: 0 }
    }

    /// Appends an entry; `subject` is 0 and its text when it has not appeared before.
    pub fn push(&mut self, entry: &Entry, subject: u32, text: &[u8]) {
        put(&mut self.out, u64::from(entry.offset) - self.next_offset);
        self.next_offset = u64::from(entry.offset) + 1;
        put(&mut self.out, u64::from(subject));
        if subject == 0 {
            put(&mut self.out, text.len() as u64);
            self.out.extend_from_slice(text);
        }
        put(&mut self.out, u64::from(entry.accounted_bytes) << 1 | u64::from(entry.notable));
        put(&mut self.out, entry.time_ns.wrapping_sub(self.time_ns) as u64);
        self.time_ns = entry.time_ns;
    }

    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

impl<'a> Summary<'a> {
    /// Takes a summary apart, which must be whole: nothing of a bad one is used.
    pub fn parse(bytes: &'a [u8]) -> Result<Summary<'a>, BadSummary> {
        let (&version, mut rest) = bytes.split_first().ok_or(BadSummary)?;
        let count = take(&mut rest)?;
        if version != VERSION || count == 0 || count > SPAN {
            return Err(BadSummary);
        }
        let mut summary = Summary { subjects: Vec::new(), entries: Vec::with_capacity(count as usize) };
        let (mut next_offset, mut time_ns) = (0u64, 0i64);
        for at in 0..count {
            let offset = next_offset.checked_add(take(&mut rest)?).filter(|&offset| offset < SPAN).ok_or(BadSummary)?;
            next_offset = offset + 1;
            let subject = match take(&mut rest)? {
                0 => {
                    let len = usize::try_from(take(&mut rest)?).map_err(|_| BadSummary)?;
                    let (text, tail) = rest.split_at_checked(len).ok_or(BadSummary)?;
                    rest = tail;
                    summary.subjects.push(text);
                    summary.subjects.len() as u64
                }
                known if known <= summary.subjects.len() as u64 => known,
                _ => return Err(BadSummary),
            };
            let size = take(&mut rest)?;
            let accounted_bytes = u32::try_from(size >> 1).map_err(|_| BadSummary)?;
            let delta = take(&mut rest)? as i64;
            if at > 0 && delta < 0 {
                return Err(BadSummary);
            }
            time_ns = time_ns.checked_add(delta).ok_or(BadSummary)?;
            summary.entries.push(Entry {
                offset: offset as u16,
                subject: subject as u32 - 1,
                accounted_bytes,
                notable: size & 1 == 1,
                time_ns,
            });
        }
        if rest.is_empty() { Ok(summary) } else { Err(BadSummary) }
    }
}

/// Seven bits a byte, lowest first, the eighth set in all but the last.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes one number written by [`put`].
pub fn take(bytes: &mut &[u8]) -> Result<u64, BadSummary> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().enumerate().take(10) {
        let part = u64::from(byte & 0x7F);
        if at == 9 && part > 1 {
            break;
        }
        value |= part << (7 * at);
        if byte < 0x80 {
            *bytes = &bytes[at + 1..];
            return Ok(value);
        }
    }
    Err(BadSummary)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_summary_reads_back(rows in prop::collection::vec((1u64..4, 0u8..9, any::<u32>(), any::<bool>(), 0i64..1 << 40), 1..60)) {
            let mut writer = Writer::new(rows.len() as u64);
            let mut expected = Summary::default();
            let texts: Vec<Vec<u8>> = (0..9).map(|number| vec![b'a' + number; number as usize]).collect();
            let (mut offset, mut time_ns) = (0, -5);
            for (step, subject, accounted_bytes, notable, wait) in rows {
                offset += step;
                time_ns += wait;
                let text = &texts[subject as usize];
                let known = expected.subjects.iter().position(|known| known == text);
                let subject = known.unwrap_or(expected.subjects.len()) as u32;
                let entry = Entry { offset: offset as u16, subject, accounted_bytes, notable, time_ns };
                writer.push(&entry, known.map_or(0, |known| known as u32 + 1), text);
                if known.is_none() {
                    expected.subjects.push(text);
                }
                expected.entries.push(entry);
            }
            let bytes = writer.finish();
            prop_assert_eq!(Summary::parse(&bytes), Ok(expected));
            prop_assert!(Summary::parse(&bytes[..bytes.len() - 1]).is_err());
            prop_assert!(Summary::parse(&[&bytes[..], &[0]].concat()).is_err());
        }

        #[test]
        fn any_bytes_are_refused_or_sound(bytes in prop::collection::vec(any::<u8>(), 0..200), small in any::<bool>()) {
            let mut bytes = bytes;
            if small && bytes.len() > 2 {
                (bytes[0], bytes[1]) = (VERSION, bytes[1] % 8);
            }
            if let Ok(summary) = Summary::parse(&bytes) {
                prop_assert!(summary.entries.is_sorted_by(|a, b| a.offset < b.offset && a.time_ns <= b.time_ns));
                prop_assert!(summary.entries.iter().all(|entry| (entry.subject as usize) < summary.subjects.len()));
            }
        }

        #[test]
        fn numbers_read_back(value in any::<u64>(), shift in 0..64) {
            let mut out = Vec::new();
            put(&mut out, value >> shift);
            prop_assert_eq!(take(&mut &out[..]), Ok(value >> shift));
        }
    }
}
